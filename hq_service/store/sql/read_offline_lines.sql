-- Settled lines of a batch by their place in the sender's array, quarantined ones included.
SELECT position, terminal_id, transaction_id, line, instrument_id, outcome, original_outcome,
       codes, funded_minor, shortfall_minor, balance_after_minor, case_id, remainder_id,
       NULL AS reason
  FROM offline_lines
 WHERE store_id = %(store_id)s AND batch_id = %(batch_id)s AND position > %(after)s
 UNION ALL
SELECT position, terminal_id, transaction_id, line, NULL, 'quarantined', NULL,
       codes, 0, 0, NULL, case_id, NULL,
       reason
  FROM quarantined_lines
 WHERE store_id = %(store_id)s AND batch_id = %(batch_id)s AND position > %(after)s
 ORDER BY position
 LIMIT %(limit)s
