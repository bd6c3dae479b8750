-- What else a lock request is decided by: the terminal (retired if its store is), the holder's
-- presence, the parameter revision in force for the store, what is known of the business key, and
-- whether the holder's was voided.
SELECT terminal.supports_offline,
       coalesce(terminal.retired_at, store.retired_at) IS NOT NULL,
       presence.last_seen_at,
       presence.acknowledged_revision,
       (SELECT last_seen_at
          FROM terminal_presence AS holder
         WHERE holder.store_id = %(holder_store_id)s
           AND holder.terminal_id = %(holder_terminal_id)s),
       (SELECT coalesce(max(revision), 0)
          FROM parameter_revisions
         WHERE store_id IS NULL OR store_id = %(store_id)s),
       EXISTS (SELECT 1
                 FROM voids
                WHERE store_id = %(store_id)s AND terminal_id = %(terminal_id)s
                  AND transaction_id = %(transaction_id)s AND line = %(line)s),
       EXISTS (SELECT 1
                 FROM postings
                WHERE store_id = %(store_id)s AND terminal_id = %(terminal_id)s
                  AND transaction_id = %(transaction_id)s AND line = %(line)s
                  AND entry = 'original'),
       EXISTS (SELECT 1
                 FROM voids
                WHERE store_id = %(holder_store_id)s AND terminal_id = %(holder_terminal_id)s
                  AND transaction_id = %(holder_transaction_id)s AND line = %(holder_line)s)
  FROM terminals AS terminal
  JOIN stores AS store
    ON store.store_id = terminal.store_id
  LEFT JOIN terminal_presence AS presence
    ON presence.store_id = terminal.store_id
   AND presence.terminal_id = terminal.terminal_id
 WHERE terminal.store_id = %(store_id)s
   AND terminal.terminal_id = %(terminal_id)s
