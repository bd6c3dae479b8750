-- Write back what a settlement changed; their rows are locked by load_instruments_for_update.
UPDATE instruments AS instrument
   SET balance_minor = changed.balance_minor,
       version = changed.version,
       status = changed.status,
       remainder_id = changed.remainder_id,
       lock_id = CASE WHEN changed.is_locked THEN lock_id END,
       lock_store_id = CASE WHEN changed.is_locked THEN lock_store_id END,
       lock_terminal_id = CASE WHEN changed.is_locked THEN lock_terminal_id END,
       lock_transaction_id = CASE WHEN changed.is_locked THEN lock_transaction_id END,
       lock_line = CASE WHEN changed.is_locked THEN lock_line END,
       lock_purpose = CASE WHEN changed.is_locked THEN lock_purpose END,
       lock_amount_minor = CASE WHEN changed.is_locked THEN lock_amount_minor END,
       locked_at = CASE WHEN changed.is_locked THEN locked_at END,
       lock_grant_until = CASE WHEN changed.is_locked THEN lock_grant_until END,
       lock_grant_revision = CASE WHEN changed.is_locked THEN lock_grant_revision END
  FROM unnest(
           %(buckets)s::int[], %(instrument_ids)s::uuid[], %(balances_minor)s::bigint[],
           %(versions)s::bigint[], %(statuses)s::text[], %(remainder_ids)s::uuid[],
           %(are_locked)s::boolean[]
       ) AS changed (
           bucket, instrument_id, balance_minor, version, status, remainder_id, is_locked
       )
 WHERE instrument.bucket = changed.bucket
   AND instrument.instrument_id = changed.instrument_id
