-- Append business keys that shall have no effect.
INSERT INTO voids (
    bucket, instrument_id, store_id, terminal_id, transaction_id, line, reason, voided_at, voided_by
)
SELECT bucket, instrument_id, store_id, terminal_id, transaction_id, line, reason, %(voided_at)s,
       %(voided_by)s
  FROM unnest(
           %(buckets)s::int[], %(instrument_ids)s::uuid[], %(store_ids)s::text[],
           %(terminal_ids)s::text[], %(transaction_ids)s::text[], %(lines)s::int[],
           %(reasons)s::text[]
       ) AS voided (bucket, instrument_id, store_id, terminal_id, transaction_id, line, reason)
