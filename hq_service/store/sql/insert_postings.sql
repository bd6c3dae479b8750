-- Append postings. A key that slipped in meanwhile raises 23505 and the whole is judged again.
INSERT INTO postings (
    bucket, instrument_id, version, store_id, terminal_id, transaction_id, line, entry, operation,
    currency, amount_minor, funded_minor, shortfall_minor, change_minor, balance_after_minor,
    codes, posted_at, concluded_at, lock_id, locked_at, original_store_id, original_terminal_id,
    original_transaction_id, original_line, related_instrument_id, tender_amount_minor,
    tender_currency, exchange_rate
)
SELECT bucket, instrument_id, version, store_id, terminal_id, transaction_id, line, entry,
       operation, currency, amount_minor, funded_minor, shortfall_minor, change_minor,
       balance_after_minor, string_to_array(codes, ' '), %(posted_at)s, concluded_at, lock_id,
       locked_at, original_store_id, original_terminal_id, original_transaction_id, original_line,
       related_instrument_id, tender_amount_minor, tender_currency, exchange_rate
  FROM unnest(
           %(buckets)s::int[], %(instrument_ids)s::uuid[], %(versions)s::bigint[],
           %(store_ids)s::text[], %(terminal_ids)s::text[], %(transaction_ids)s::text[],
           %(lines)s::int[], %(entries)s::text[], %(operations)s::text[], %(currencies)s::text[],
           %(amounts_minor)s::bigint[], %(funded_minor)s::bigint[], %(shortfalls_minor)s::bigint[],
           %(changes_minor)s::bigint[], %(balances_after_minor)s::bigint[], %(codes)s::text[],
           %(concluded_at)s::timestamptz[], %(lock_ids)s::uuid[], %(locked_at)s::timestamptz[],
           %(original_store_ids)s::text[], %(original_terminal_ids)s::text[],
           %(original_transaction_ids)s::text[], %(original_lines)s::int[],
           %(related_instrument_ids)s::uuid[], %(tender_amounts_minor)s::bigint[],
           %(tender_currencies)s::text[], %(exchange_rates)s::text[]
       ) AS posting (
           bucket, instrument_id, version, store_id, terminal_id, transaction_id, line, entry,
           operation, currency, amount_minor, funded_minor, shortfall_minor, change_minor,
           balance_after_minor, codes, concluded_at, lock_id, locked_at, original_store_id,
           original_terminal_id, original_transaction_id, original_line, related_instrument_id,
           tender_amount_minor, tender_currency, exchange_rate
       )
