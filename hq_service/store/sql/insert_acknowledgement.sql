-- Remember every revision that a terminal was ever served.
INSERT INTO parameter_acknowledgements (store_id, terminal_id, revision, acknowledged_at)
VALUES (%(store_id)s, %(terminal_id)s, %(revision)s, %(now)s)
ON CONFLICT DO NOTHING
