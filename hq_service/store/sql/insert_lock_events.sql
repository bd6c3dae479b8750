-- Append how locks ended otherwise than by a posting.
INSERT INTO lock_events (
    bucket, instrument_id, lock_id, store_id, terminal_id, transaction_id, line, purpose,
    amount_minor, locked_at, grant_until, grant_revision, ended, ended_at, ended_by, reason
)
SELECT bucket, instrument_id, lock_id, store_id, terminal_id, transaction_id, line, purpose,
       amount_minor, locked_at, grant_until, grant_revision, ended, ended_at, ended_by, reason
  FROM unnest(
           %(buckets)s::int[], %(instrument_ids)s::uuid[], %(lock_ids)s::uuid[],
           %(store_ids)s::text[], %(terminal_ids)s::text[], %(transaction_ids)s::text[],
           %(lines)s::int[], %(purposes)s::text[], %(amounts_minor)s::bigint[],
           %(locked_at)s::timestamptz[], %(grants_until)s::timestamptz[],
           %(grant_revisions)s::int[], %(ended)s::text[], %(ended_at)s::timestamptz[],
           %(ended_by)s::text[], %(reasons)s::text[]
       ) AS event (
           bucket, instrument_id, lock_id, store_id, terminal_id, transaction_id, line, purpose,
           amount_minor, locked_at, grant_until, grant_revision, ended, ended_at, ended_by, reason
       )
