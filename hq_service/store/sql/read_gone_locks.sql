-- How the locks of some transactions on some instruments ended, oldest first, and who spent them
-- afterwards all the same.
SELECT gone.instrument_id, gone.store_id, gone.terminal_id, gone.transaction_id, gone.lock_id,
       gone.locked_at, gone.ended, gone.grant_until, gone.grant_revision,
       gone.purpose, gone.amount_minor,
       spent.store_id, spent.terminal_id, spent.transaction_id, spent.line
  FROM lock_events AS gone
  JOIN unnest(%(buckets)s::int[], %(instrument_ids)s::uuid[], %(store_ids)s::text[],
              %(terminal_ids)s::text[], %(transaction_ids)s::text[])
       AS wanted (bucket, instrument_id, store_id, terminal_id, transaction_id)
    ON gone.bucket = wanted.bucket
   AND gone.instrument_id = wanted.instrument_id
   AND gone.store_id = wanted.store_id
   AND gone.terminal_id = wanted.terminal_id
   AND gone.transaction_id = wanted.transaction_id
  LEFT JOIN postings AS spent
    ON spent.bucket = gone.bucket
   AND spent.instrument_id = gone.instrument_id
   AND spent.lock_id = gone.lock_id
   AND spent.entry = 'original'
 ORDER BY gone.ended_at, gone.lock_id
