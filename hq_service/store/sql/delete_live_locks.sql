-- Strike freed locks off the list.
DELETE FROM live_locks AS live
 USING unnest(%(buckets)s::int[], %(instrument_ids)s::uuid[], %(lock_ids)s::uuid[])
       AS freed (bucket, instrument_id, lock_id)
 WHERE live.bucket = freed.bucket
   AND live.instrument_id = freed.instrument_id
   AND live.lock_id = freed.lock_id
