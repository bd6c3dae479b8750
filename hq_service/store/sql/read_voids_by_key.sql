-- Which of some business keys were voided.
SELECT void.store_id, void.terminal_id, void.transaction_id, void.line
  FROM voids AS void
  JOIN unnest(%(store_ids)s::text[], %(terminal_ids)s::text[], %(transaction_ids)s::text[],
              %(lines)s::int[]) AS wanted (store_id, terminal_id, transaction_id, line)
    ON void.store_id = wanted.store_id
   AND void.terminal_id = wanted.terminal_id
   AND void.transaction_id = wanted.transaction_id
   AND void.line = wanted.line
