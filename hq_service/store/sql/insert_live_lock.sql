-- List a live lock; one that it displaces is replaced.
INSERT INTO live_locks (
    bucket, instrument_id, lock_id, store_id, terminal_id, locked_at, amount_minor, grant_until
)
VALUES (
    %(bucket)s, %(instrument_id)s, %(lock_id)s, %(store_id)s, %(terminal_id)s, %(locked_at)s,
    %(amount_minor)s, %(grant_until)s
)
ON CONFLICT (bucket, instrument_id) DO UPDATE
   SET lock_id = excluded.lock_id,
       store_id = excluded.store_id,
       terminal_id = excluded.terminal_id,
       locked_at = excluded.locked_at,
       amount_minor = excluded.amount_minor,
       grant_until = excluded.grant_until
