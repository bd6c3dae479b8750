-- Append the settled lines of a chunk with their outcomes.
INSERT INTO offline_lines (
    bucket, instrument_id, store_id, batch_id, position, terminal_id, journal_id, sequence,
    transaction_id, line, status, operation, amount_minor, currency, lock_id, concluded_at,
    outcome, original_outcome, codes, funded_minor, shortfall_minor, balance_after_minor, case_id,
    remainder_id, original_store_id, original_terminal_id, original_transaction_id, original_line,
    reason, tender_amount_minor, tender_currency, exchange_rate, settled_at
)
SELECT bucket, instrument_id, store_id, %(batch_id)s, position, terminal_id, journal_id, sequence,
       transaction_id, line, status, operation, amount_minor, currency, lock_id, concluded_at,
       outcome, original_outcome, string_to_array(codes, ' '), funded_minor, shortfall_minor,
       balance_after_minor, case_id, remainder_id, original_store_id, original_terminal_id,
       original_transaction_id, original_line, reason, tender_amount_minor, tender_currency,
       exchange_rate, %(settled_at)s
  FROM unnest(
           %(buckets)s::int[], %(instrument_ids)s::uuid[], %(store_ids)s::text[],
           %(positions)s::int[], %(terminal_ids)s::text[], %(journal_ids)s::text[],
           %(sequences)s::bigint[], %(transaction_ids)s::text[], %(lines)s::int[],
           %(statuses)s::text[], %(operations)s::text[], %(amounts_minor)s::bigint[],
           %(currencies)s::text[], %(lock_ids)s::uuid[], %(concluded_at)s::timestamptz[],
           %(outcomes)s::text[], %(original_outcomes)s::text[], %(codes)s::text[],
           %(funded_minor)s::bigint[], %(shortfalls_minor)s::bigint[],
           %(balances_after_minor)s::bigint[], %(case_ids)s::uuid[], %(remainder_ids)s::uuid[],
           %(original_store_ids)s::text[], %(original_terminal_ids)s::text[],
           %(original_transaction_ids)s::text[], %(original_lines)s::int[], %(reasons)s::text[],
           %(tender_amounts_minor)s::bigint[], %(tender_currencies)s::text[],
           %(exchange_rates)s::text[]
       ) AS settled (
           bucket, instrument_id, store_id, position, terminal_id, journal_id, sequence,
           transaction_id, line, status, operation, amount_minor, currency, lock_id, concluded_at,
           outcome, original_outcome, codes, funded_minor, shortfall_minor, balance_after_minor,
           case_id, remainder_id, original_store_id, original_terminal_id,
           original_transaction_id, original_line, reason, tender_amount_minor, tender_currency,
           exchange_rate
       )
