-- How much linked refunds have given back of some lines, less what was voided of it.
SELECT refund.original_store_id, refund.original_terminal_id, refund.original_transaction_id,
       refund.original_line,
       sum(CASE refund.entry WHEN 'reversal' THEN -refund.amount_minor
                             ELSE refund.amount_minor END)::bigint
  FROM postings AS refund
  JOIN unnest(%(store_ids)s::text[], %(terminal_ids)s::text[], %(transaction_ids)s::text[],
              %(lines)s::int[]) AS wanted (store_id, terminal_id, transaction_id, line)
    ON refund.original_store_id = wanted.store_id
   AND refund.original_terminal_id = wanted.terminal_id
   AND refund.original_transaction_id = wanted.transaction_id
   AND refund.original_line = wanted.line
   AND refund.operation = 'refund'
 GROUP BY 1, 2, 3, 4
