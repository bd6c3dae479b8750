-- What a grant depends on at one register: none if HQ does not know it.
SELECT terminal.supports_offline, presence.acknowledged_revision
  FROM terminals AS terminal
  LEFT JOIN terminal_presence AS presence
    ON presence.store_id = terminal.store_id
   AND presence.terminal_id = terminal.terminal_id
 WHERE terminal.store_id = $1
   AND terminal.terminal_id = $2
