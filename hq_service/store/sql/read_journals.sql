-- What has arrived of the journals of a store, or of some of its terminals.
SELECT terminal_id, journal_id, arrived::text
  FROM terminal_journals
 WHERE store_id = %(store_id)s
   AND (%(terminal_ids)s::text[] IS NULL OR terminal_id = ANY (%(terminal_ids)s::text[]))
 ORDER BY terminal_id, journal_id
