-- List a live lock; one that it displaces is replaced. No row, if its key was voided meanwhile:
-- a void that came first has committed before this statement began, as it held the row. Nor if the
-- terminal or its store was retired meanwhile: this insert waited for the retirement to commit.
INSERT INTO live_locks (
    bucket, instrument_id, lock_id, store_id, terminal_id, locked_at, amount_minor, grant_until
)
SELECT %(bucket)s, %(instrument_id)s, %(lock_id)s, %(store_id)s, %(terminal_id)s, %(locked_at)s,
       %(amount_minor)s, %(grant_until)s
 WHERE NOT EXISTS (SELECT 1
                     FROM voids
                    WHERE store_id = %(store_id)s AND terminal_id = %(terminal_id)s
                      AND transaction_id = %(transaction_id)s AND line = %(line)s)
   AND EXISTS (SELECT 1
                 FROM terminals AS terminal
                 JOIN stores AS store
                   ON store.store_id = terminal.store_id
                WHERE terminal.store_id = %(store_id)s AND terminal.terminal_id = %(terminal_id)s
                  AND terminal.retired_at IS NULL AND store.retired_at IS NULL)
ON CONFLICT (bucket, instrument_id) DO UPDATE
   SET lock_id = excluded.lock_id,
       store_id = excluded.store_id,
       terminal_id = excluded.terminal_id,
       locked_at = excluded.locked_at,
       amount_minor = excluded.amount_minor,
       grant_until = excluded.grant_until
