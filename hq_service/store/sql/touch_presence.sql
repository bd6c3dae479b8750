-- Remember that a terminal was heard of.
INSERT INTO terminal_presence (store_id, terminal_id, last_seen_at)
VALUES (%(store_id)s, %(terminal_id)s, %(now)s)
ON CONFLICT (store_id, terminal_id) DO UPDATE
   SET last_seen_at = greatest(terminal_presence.last_seen_at, excluded.last_seen_at)
