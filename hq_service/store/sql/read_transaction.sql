-- What HQ knows of the lines of one transaction: postings, held lines and voids.
SELECT line, operation, instrument_id, amount_minor, currency,
       CASE entry WHEN 'original' THEN 'applied' ELSE 'voided' END AS outcome,
       coalesce(codes, '{}') AS codes, funded_minor, shortfall_minor, balance_after_minor,
       posted_at AS known_at
  FROM postings
 WHERE store_id = %(store_id)s AND terminal_id = %(terminal_id)s
   AND transaction_id = %(transaction_id)s
   AND (entry = 'original' OR entry = 'reversal')  -- each has its own index
 UNION ALL
SELECT line, operation, instrument_id, amount_minor, currency, 'held', codes, 0, 0, NULL, held_at
  FROM held_lines
 WHERE store_id = %(store_id)s AND terminal_id = %(terminal_id)s
   AND transaction_id = %(transaction_id)s
 UNION ALL
SELECT line, 'void', instrument_id, 0, NULL, 'voided', ARRAY['voided'], 0, 0, NULL, voided_at
  FROM voids
 WHERE store_id = %(store_id)s AND terminal_id = %(terminal_id)s
   AND transaction_id = %(transaction_id)s
   AND NOT EXISTS (SELECT 1
                     FROM postings AS reversal
                    WHERE reversal.store_id = voids.store_id
                      AND reversal.terminal_id = voids.terminal_id
                      AND reversal.transaction_id = voids.transaction_id
                      AND reversal.line = voids.line
                      AND reversal.entry = 'reversal')
 ORDER BY line, known_at, outcome
 LIMIT 1000
