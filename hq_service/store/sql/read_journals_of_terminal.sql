-- What has arrived of the journals of a terminal, those that it names first.
SELECT journal.terminal_id, journal.journal_id, journal.arrived::text
  FROM terminal_journals AS journal
 WHERE journal.store_id = %(store_id)s
   AND journal.terminal_id = %(terminal_id)s
 ORDER BY journal.journal_id <> ALL (%(journal_ids)s::text[]), journal.journal_id
 LIMIT %(limit)s
