-- The header of a batch.
SELECT store_id, batch_id, body_sha256, lines_count, settled_count, received_at, received_by,
       parameters_revision, sender_terminal_id, settled_at, control_totals
  FROM offline_batches
 WHERE store_id = %(store_id)s
   AND batch_id = %(batch_id)s
