-- What has arrived of some journals.
SELECT journal.terminal_id, journal.journal_id, journal.arrived::text
  FROM terminal_journals AS journal
  JOIN unnest(%(terminal_ids)s::text[], %(journal_ids)s::text[])
       AS wanted (terminal_id, journal_id)
    ON journal.store_id = %(store_id)s
   AND journal.terminal_id = wanted.terminal_id
   AND journal.journal_id = wanted.journal_id
 ORDER BY journal.terminal_id, journal.journal_id
