-- Which of some business keys were voided, and what the reversal came to, if there was one. What a
-- reversed debit cancelled is no shortfall of its own.
SELECT void.store_id, void.terminal_id, void.transaction_id, void.line,
       reversal.codes, reversal.funded_minor,
       CASE WHEN reversal.operation IN ('redeem', 'cash_out') THEN 0
            ELSE reversal.shortfall_minor END,
       coalesce(restored.balance_after_minor, reversal.balance_after_minor),
       undone.operation, undone.instrument_id, undone.amount_minor, undone.currency
  FROM voids AS void
  JOIN unnest(%(store_ids)s::text[], %(terminal_ids)s::text[], %(transaction_ids)s::text[],
              %(lines)s::int[]) AS wanted (store_id, terminal_id, transaction_id, line)
    ON void.store_id = wanted.store_id
   AND void.terminal_id = wanted.terminal_id
   AND void.transaction_id = wanted.transaction_id
   AND void.line = wanted.line
  LEFT JOIN postings AS reversal
    ON reversal.store_id = void.store_id
   AND reversal.terminal_id = void.terminal_id
   AND reversal.transaction_id = void.transaction_id
   AND reversal.line = void.line
   AND reversal.entry = 'reversal'
   AND reversal.bucket = void.bucket
  LEFT JOIN postings AS undone
    ON undone.store_id = void.store_id
   AND undone.terminal_id = void.terminal_id
   AND undone.transaction_id = void.transaction_id
   AND undone.line = void.line
   AND undone.entry = 'original'
   AND undone.bucket = void.bucket
   AND reversal.bucket IS NOT NULL
  LEFT JOIN postings AS restored
    ON restored.store_id = void.store_id
   AND restored.terminal_id = void.terminal_id
   AND restored.transaction_id = void.transaction_id
   AND restored.line = void.line
   AND restored.entry = 'remainder_in'
   AND restored.bucket = void.bucket
   AND restored.instrument_id = reversal.instrument_id
