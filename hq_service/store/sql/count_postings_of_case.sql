-- How many postings HQ has made for a case.
SELECT count(*)
  FROM postings
 WHERE store_id = 'HQ' AND terminal_id = 'HQ' AND transaction_id = %(transaction_id)s
   AND (entry = 'original' OR entry <> 'original')  -- each has its own index
