-- What has arrived of the journals of a store.
SELECT terminal_id, journal_id, arrived::text
  FROM terminal_journals
 WHERE store_id = %(store_id)s
 ORDER BY terminal_id, journal_id
