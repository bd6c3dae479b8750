-- Make sure that some journals have a row to lock.
INSERT INTO terminal_journals (store_id, terminal_id, journal_id, arrived)
SELECT %(store_id)s, terminal_id, journal_id, '{}'
  FROM unnest(%(terminal_ids)s::text[], %(journal_ids)s::text[])
       AS wanted (terminal_id, journal_id)
 ORDER BY terminal_id, journal_id
    ON CONFLICT DO NOTHING
