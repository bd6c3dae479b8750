-- A redemption online, if everything is as it should be: the caller's key is a live one of this
-- terminal, the card is active and carries this very lock, the amount is within both, and nothing
-- is known of the business key. Otherwise no row, nothing is changed, and the rules decide.
-- The lock's id is on the row itself: whoever waited for the row looks at it again. What else
-- could have come in between would have taken the lock away.
WITH caller AS (
    SELECT 1
      FROM api_keys
     WHERE key_id = $1 AND secret_sha256 = $2 AND role = 'terminal' AND store_id = $3
       AND terminal_id = $4 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $12)
), paid AS (
    UPDATE instruments AS card
       SET balance_minor = balance_minor - $10,
           version = version + 1,
           lock_id = NULL, lock_store_id = NULL, lock_terminal_id = NULL,
           lock_transaction_id = NULL, lock_line = NULL, lock_purpose = NULL,
           lock_amount_minor = NULL, locked_at = NULL, lock_grant_until = NULL,
           lock_grant_revision = NULL
     WHERE bucket = $7 AND instrument_id = $8
       AND lock_id = $9 AND lock_store_id = $3 AND lock_terminal_id = $4
       AND lock_transaction_id = $5 AND lock_line = $6 AND lock_purpose = 'redeem'
       AND lock_amount_minor >= $10 AND balance_minor >= $10 AND currency = $11
       AND kind = 'gift_card' AND status = 'active'
       AND (lock_grant_until IS NULL OR lock_grant_until >= $12)
       AND EXISTS (SELECT FROM caller)
       AND NOT EXISTS (SELECT FROM postings
                        WHERE store_id = $3 AND terminal_id = $4 AND transaction_id = $5
                          AND line = $6 AND entry = 'original')
       AND NOT EXISTS (SELECT FROM voids
                        WHERE store_id = $3 AND terminal_id = $4 AND transaction_id = $5
                          AND line = $6)
       AND NOT EXISTS (SELECT FROM held_lines
                        WHERE store_id = $3 AND terminal_id = $4 AND transaction_id = $5
                          AND line = $6)
    RETURNING card.bucket, card.instrument_id, card.version, card.balance_minor
), freed AS (
    DELETE FROM live_locks AS live
     USING paid
     WHERE live.bucket = $7 AND live.instrument_id = $8 AND live.lock_id = $9
    RETURNING live.locked_at
), posted AS (
    INSERT INTO postings (
        bucket, instrument_id, version, store_id, terminal_id, transaction_id, line, entry,
        operation, currency, amount_minor, funded_minor, shortfall_minor, change_minor,
        balance_after_minor, posted_at, concluded_at, lock_id, locked_at
    )
    SELECT bucket, instrument_id, version, $3, $4, $5, $6, 'original', 'redeem', $11, $10, $10, 0,
           -$10, balance_minor, $12, $12, $9, freed.locked_at
      FROM paid
      LEFT JOIN freed ON true
)
SELECT balance_minor FROM paid
