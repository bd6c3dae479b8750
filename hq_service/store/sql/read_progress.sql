-- How many lines of each chunk of a batch came to which outcome, and which journals it continued.
SELECT counts, journals
  FROM offline_batch_results
 WHERE store_id = %(store_id)s
   AND batch_id = %(batch_id)s
