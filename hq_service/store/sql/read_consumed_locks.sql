-- Which of some locks were spent on some instruments, and by which business key. By instrument: a
-- posting is not found by its lock alone.
SELECT spent.instrument_id, spent.lock_id,
       spent.store_id, spent.terminal_id, spent.transaction_id, spent.line
  FROM postings AS spent
  JOIN unnest(%(buckets)s::int[], %(instrument_ids)s::uuid[]) AS wanted (bucket, instrument_id)
    ON spent.bucket = wanted.bucket
   AND spent.instrument_id = wanted.instrument_id
 WHERE spent.lock_id = ANY (%(lock_ids)s::uuid[])
   AND spent.entry = 'original'
