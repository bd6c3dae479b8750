-- The instruments that a dry run touches, as they are now, locking nothing.
SELECT instrument.instrument_id, kind, currency, number_last4, status, balance_minor, version,
       remainder_id, lock_id, lock_store_id, lock_terminal_id, lock_transaction_id, lock_line,
       lock_purpose, lock_amount_minor, locked_at, lock_grant_until, lock_grant_revision
  FROM instruments AS instrument
  JOIN unnest(%(buckets)s::int[], %(instrument_ids)s::uuid[]) AS wanted (bucket, instrument_id)
    ON instrument.bucket = wanted.bucket
   AND instrument.instrument_id = wanted.instrument_id
