-- Remember that a terminal was heard of.
INSERT INTO terminal_presence (store_id, terminal_id, last_seen_at)
VALUES ($1, $2, $3)
ON CONFLICT (store_id, terminal_id) DO UPDATE
   SET last_seen_at = greatest(terminal_presence.last_seen_at, excluded.last_seen_at)
RETURNING last_seen_at
