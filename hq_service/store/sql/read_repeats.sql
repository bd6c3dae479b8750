-- What was posted under the keys of some lines, by the place of the line: of those whose terminal has
-- no live lock on the instrument, so that nothing is left to be done when they are repeated. Locks no
-- row: a posting that is seen once is there for ever.
SELECT wanted.place::int,
       posting.operation, posting.instrument_id, posting.amount_minor, posting.currency,
       posting.original_store_id, posting.original_terminal_id, posting.original_transaction_id,
       posting.original_line, posting.codes, posting.funded_minor, posting.shortfall_minor,
       CASE WHEN remainder.version IS NULL THEN posting.balance_after_minor
            ELSE remainder.balance_after_minor END,
       remainder.related_instrument_id,
       CASE WHEN remainder.related_instrument_id IS NULL THEN coalesce(remainder.funded_minor, 0)
            ELSE 0 END
  FROM unnest(%(store_ids)s::text[], %(terminal_ids)s::text[], %(transaction_ids)s::text[],
              %(lines)s::int[]) WITH ORDINALITY
       AS wanted (store_id, terminal_id, transaction_id, line, place)
  JOIN postings AS posting
    ON posting.store_id = wanted.store_id
   AND posting.terminal_id = wanted.terminal_id
   AND posting.transaction_id = wanted.transaction_id
   AND posting.line = wanted.line
   AND posting.entry = 'original'
  LEFT JOIN postings AS remainder
    ON remainder.store_id = posting.store_id
   AND remainder.terminal_id = posting.terminal_id
   AND remainder.transaction_id = posting.transaction_id
   AND remainder.line = posting.line
   AND remainder.entry = 'remainder_out'
   AND remainder.bucket = posting.bucket
 WHERE NOT EXISTS (SELECT 1
                     FROM live_locks AS lock
                    WHERE lock.bucket = posting.bucket
                      AND lock.instrument_id = posting.instrument_id
                      AND lock.store_id = posting.store_id
                      AND lock.terminal_id = posting.terminal_id)
