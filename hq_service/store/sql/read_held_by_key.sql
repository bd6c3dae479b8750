-- The held lines, resolved or not, that made some business keys known.
SELECT held.store_id, held.terminal_id, held.transaction_id, held.line,
       held.operation, held.instrument_id, held.amount_minor, held.currency,
       held.original_store_id, held.original_terminal_id, held.original_transaction_id,
       held.original_line, held.codes, 0, 0, NULL, NULL, 0, held.case_id
  FROM held_lines AS held
  JOIN unnest(%(store_ids)s::text[], %(terminal_ids)s::text[], %(transaction_ids)s::text[],
              %(lines)s::int[]) AS wanted (store_id, terminal_id, transaction_id, line)
    ON held.store_id = wanted.store_id
   AND held.terminal_id = wanted.terminal_id
   AND held.transaction_id = wanted.transaction_id
   AND held.line = wanted.line
