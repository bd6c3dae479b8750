-- When a terminal was last heard of, and the revision that is in force in its store.
SELECT (SELECT last_seen_at
          FROM terminal_presence
         WHERE store_id = $1 AND terminal_id = $2),
       (SELECT coalesce(max(revision), 0)
          FROM parameter_revisions
         WHERE store_id IS NULL OR store_id = $1)
