-- The batches of a store that are received and not settled, in order of arrival, as one array.
SELECT coalesce(array_agg(batch_id ORDER BY received_at, batch_id), '{}')
  FROM offline_batches
 WHERE store_id = $1
   AND settled_at IS NULL
