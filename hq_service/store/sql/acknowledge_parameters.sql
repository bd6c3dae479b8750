-- Remember that a terminal was served a revision: the newest one beside its presence, and when it
-- fetched last, if it did.
INSERT INTO terminal_presence
       (store_id, terminal_id, last_seen_at, acknowledged_revision, parameters_fetched_at)
VALUES (%(store_id)s, %(terminal_id)s, %(now)s, %(revision)s, %(fetched_at)s)
ON CONFLICT (store_id, terminal_id) DO UPDATE
   SET last_seen_at = greatest(terminal_presence.last_seen_at, excluded.last_seen_at),
       acknowledged_revision =
           greatest(terminal_presence.acknowledged_revision, excluded.acknowledged_revision),
       parameters_fetched_at =
           greatest(terminal_presence.parameters_fetched_at, excluded.parameters_fetched_at)
