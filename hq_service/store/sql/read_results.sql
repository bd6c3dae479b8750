-- What the lines at some positions of a batch came to, with others of the same chunks.
SELECT results
  FROM offline_batch_results
 WHERE store_id = %(store_id)s
   AND batch_id = %(batch_id)s
   AND last_position >= %(first_position)s
   AND first_position <= %(last_position)s
