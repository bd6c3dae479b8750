-- The instruments whose live lock a register holds, or any of a store, locking nothing: what they
-- may be spending.
SELECT instrument.instrument_id, instrument.kind, instrument.currency, instrument.number_last4,
       instrument.status, instrument.balance_minor, instrument.version, instrument.remainder_id,
       instrument.lock_id, instrument.lock_store_id, instrument.lock_terminal_id,
       instrument.lock_transaction_id, instrument.lock_line, instrument.lock_purpose,
       instrument.lock_amount_minor, instrument.locked_at, instrument.lock_grant_until,
       instrument.lock_grant_revision
  FROM live_locks AS listed
  JOIN instruments AS instrument
    ON instrument.bucket = listed.bucket
   AND instrument.instrument_id = listed.instrument_id
   AND instrument.lock_id = listed.lock_id
 WHERE listed.store_id = %(store_id)s
   AND listed.terminal_id = coalesce(%(terminal_id)s::text, listed.terminal_id)
