-- One case with its row lock: two administrators resolve it one after the other.
SELECT case_id, outcome, codes, store_id, terminal_id, transaction_id, line, operation,
       instrument_id, amount_minor, shortfall_minor, recovered_minor, currency, batch_id, position,
       opened_at, resolution, resolved_at, resolved_by, resolution_reason, detail, undone_at
  FROM cases
 WHERE case_id = %(case_id)s
   FOR UPDATE
