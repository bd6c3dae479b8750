-- New instruments, without a lock. One that exists already is left alone and not counted.
INSERT INTO instruments (
    bucket, instrument_id, kind, currency, number_last4, status, balance_minor, version, created_at
)
SELECT bucket, instrument_id, kind, currency, number_last4, status, balance_minor, version,
       %(created_at)s
  FROM unnest(
           %(buckets)s::int[], %(instrument_ids)s::uuid[], %(kinds)s::text[],
           %(currencies)s::text[], %(numbers_last4)s::text[], %(statuses)s::text[],
           %(balances_minor)s::bigint[], %(versions)s::bigint[]
       ) AS created (
           bucket, instrument_id, kind, currency, number_last4, status, balance_minor, version
       )
    ON CONFLICT DO NOTHING
