-- What has arrived of the journals of some registers.
SELECT journal.store_id, journal.terminal_id, journal.journal_id, journal.arrived::text
  FROM terminal_journals AS journal
  JOIN unnest(%(store_ids)s::text[], %(terminal_ids)s::text[]) AS wanted (store_id, terminal_id)
    ON wanted.store_id = journal.store_id
   AND wanted.terminal_id = journal.terminal_id
