-- Write back how far a batch is settled; its row is locked by lock_batch.
UPDATE offline_batches
   SET settled_count = %(settled_count)s,
       settled_at = %(settled_at)s
 WHERE store_id = %(store_id)s
   AND batch_id = %(batch_id)s
