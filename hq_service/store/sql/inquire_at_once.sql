-- The balance of an instrument, if the caller's key is a live one: one row with the caller and the
-- instrument, or none. A used memo leads on to its remainder, which takes a look at that.
SELECT caller.role, caller.store_id, caller.terminal_id,
       instrument.currency, instrument.number_last4, instrument.status, instrument.balance_minor,
       instrument.lock_id IS NOT NULL
  FROM api_keys AS caller, instruments AS instrument
 WHERE caller.key_id = $1 AND caller.secret_sha256 = $2 AND caller.revoked_at IS NULL
   AND (caller.expires_at IS NULL OR caller.expires_at > $5)
   AND instrument.bucket = $3 AND instrument.instrument_id = $4
   AND instrument.remainder_id IS NULL
