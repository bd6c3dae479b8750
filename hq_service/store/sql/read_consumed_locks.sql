-- Which of some locks were spent, on which instrument and by which business key.
SELECT spent.instrument_id, spent.lock_id,
       spent.store_id, spent.terminal_id, spent.transaction_id, spent.line
  FROM postings AS spent
  JOIN unnest(%(buckets)s::int[], %(lock_ids)s::uuid[]) AS wanted (bucket, lock_id)
    ON spent.bucket = wanted.bucket
   AND spent.lock_id = wanted.lock_id
   AND spent.entry = 'original'
