-- How many lines of a batch came to which outcome.
SELECT outcome, count(*)
  FROM offline_lines
 WHERE store_id = %(store_id)s AND batch_id = %(batch_id)s
 GROUP BY outcome
 UNION ALL
SELECT 'quarantined', count(*)
  FROM quarantined_lines
 WHERE store_id = %(store_id)s AND batch_id = %(batch_id)s
HAVING count(*) > 0
