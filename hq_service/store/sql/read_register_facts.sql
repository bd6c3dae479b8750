-- What a grant depends on at one register, and the revision that is in force in its store: none if
-- HQ does not know it.
SELECT terminal.supports_offline, presence.acknowledged_revision,
       (SELECT coalesce(max(revision), 0)
          FROM parameter_revisions
         WHERE store_id IS NULL OR store_id = $1)
  FROM terminals AS terminal
  LEFT JOIN terminal_presence AS presence
    ON presence.store_id = terminal.store_id
   AND presence.terminal_id = terminal.terminal_id
 WHERE terminal.store_id = $1
   AND terminal.terminal_id = $2
