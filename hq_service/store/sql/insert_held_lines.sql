-- Append the held lines of a chunk: they make their keys known.
INSERT INTO held_lines (
    bucket, instrument_id, store_id, batch_id, position, terminal_id, transaction_id, line,
    operation, amount_minor, currency, codes, case_id, original_store_id, original_terminal_id,
    original_transaction_id, original_line, held_at
)
SELECT bucket, instrument_id, store_id, %(batch_id)s, position, terminal_id, transaction_id, line,
       operation, amount_minor, currency, string_to_array(codes, ' '), case_id, original_store_id,
       original_terminal_id, original_transaction_id, original_line, %(held_at)s
  FROM unnest(
           %(buckets)s::int[], %(instrument_ids)s::uuid[], %(store_ids)s::text[],
           %(positions)s::int[], %(terminal_ids)s::text[], %(transaction_ids)s::text[],
           %(lines)s::int[], %(operations)s::text[], %(amounts_minor)s::bigint[],
           %(currencies)s::text[], %(codes)s::text[], %(case_ids)s::uuid[],
           %(original_store_ids)s::text[], %(original_terminal_ids)s::text[],
           %(original_transaction_ids)s::text[], %(original_lines)s::int[]
       ) AS held (
           bucket, instrument_id, store_id, position, terminal_id, transaction_id, line, operation,
           amount_minor, currency, codes, case_id, original_store_id, original_terminal_id,
           original_transaction_id, original_line
       )
