-- Open cases, of one store or of all, by id.
SELECT case_id, outcome, codes, store_id, terminal_id, transaction_id, line, operation,
       instrument_id, amount_minor, shortfall_minor, recovered_minor, currency, batch_id, position,
       opened_at, resolution, resolved_at, resolved_by, resolution_reason, detail
  FROM cases
 WHERE resolved_at IS NULL
   AND (%(store_id)s::text IS NULL OR store_id = %(store_id)s)
   AND (%(after)s::uuid IS NULL OR case_id > %(after)s)
 ORDER BY case_id
 LIMIT %(limit)s
