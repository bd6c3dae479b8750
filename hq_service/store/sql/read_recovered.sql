-- How much of the shortfalls of some cases was recovered.
SELECT case_id, recovered_minor
  FROM cases
 WHERE case_id = ANY (%(case_ids)s::uuid[])
   AND recovered_minor > 0
