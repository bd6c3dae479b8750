-- Write back what has arrived; the rows are locked by load_journals_for_update.
UPDATE terminal_journals AS journal
   SET arrived = continued.arrived
  FROM unnest(%(terminal_ids)s::text[], %(journal_ids)s::text[], %(arrived)s::int8multirange[])
       AS continued (terminal_id, journal_id, arrived)
 WHERE journal.store_id = %(store_id)s
   AND journal.terminal_id = continued.terminal_id
   AND journal.journal_id = continued.journal_id
