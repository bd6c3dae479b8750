-- What has arrived of those journals of some terminals of which something is missing: most are
-- without gaps, and there are more of them from day to day.
SELECT terminal_id, journal_id, arrived::text
  FROM terminal_journals
 WHERE store_id = %(store_id)s
   AND terminal_id = ANY (%(terminal_ids)s::text[])
   AND arrived <> int8multirange(int8range(1, upper(arrived)))
 ORDER BY terminal_id, journal_id
