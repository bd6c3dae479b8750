-- Held lines whose wait is over: their instrument is there and issued, or the line that they
-- refund was posted, takes money and was not voided.
SELECT waiting.case_id, held.store_id, held.batch_id, held.position
  FROM cases AS waiting
  JOIN held_lines AS held
    ON held.store_id = waiting.store_id
   AND held.batch_id = waiting.batch_id
   AND held.position = waiting.position
  LEFT JOIN instruments AS instrument
    ON instrument.bucket = held.bucket
   AND instrument.instrument_id = held.instrument_id
   AND instrument.status <> 'pending'
  LEFT JOIN postings AS original
    ON original.store_id = held.original_store_id
   AND original.terminal_id = held.original_terminal_id
   AND original.transaction_id = held.original_transaction_id
   AND original.line = held.original_line
   AND original.entry = 'original'
   AND original.operation IN ('redeem', 'cash_out')
   AND NOT EXISTS (SELECT 1
                     FROM voids
                    WHERE voids.store_id = original.store_id
                      AND voids.terminal_id = original.terminal_id
                      AND voids.transaction_id = original.transaction_id
                      AND voids.line = original.line)
 WHERE waiting.resolved_at IS NULL
   AND waiting.outcome = 'held'
   AND (('unknown_instrument' = ANY (waiting.codes) AND instrument.instrument_id IS NOT NULL)
        OR ('unknown_original' = ANY (waiting.codes) AND original.instrument_id IS NOT NULL))
 ORDER BY waiting.opened_at, waiting.case_id
 LIMIT %(limit)s
