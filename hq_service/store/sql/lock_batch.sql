-- The header of a batch with its row lock: one settles it at a time.
SELECT store_id, batch_id, lines_count, settled_count, received_at, received_by,
       parameters_revision, sender_terminal_id, settled_at, control_totals
  FROM offline_batches
 WHERE store_id = %(store_id)s
   AND batch_id = %(batch_id)s
   FOR UPDATE
