-- Open cases, in the order of their ids so that two batches with the same ones do not deadlock;
-- one that is there already, open or resolved, is the same question.
INSERT INTO cases (
    case_id, outcome, codes, store_id, terminal_id, transaction_id, line, operation,
    instrument_id, amount_minor, shortfall_minor, currency, batch_id, position, opened_at
)
SELECT case_id, outcome, string_to_array(codes, ' '), store_id, terminal_id, transaction_id, line,
       operation, instrument_id, amount_minor, shortfall_minor, currency, %(batch_id)s, position,
       %(opened_at)s
  FROM unnest(
           %(case_ids)s::uuid[], %(outcomes)s::text[], %(codes)s::text[], %(store_ids)s::text[],
           %(terminal_ids)s::text[], %(transaction_ids)s::text[], %(lines)s::int[],
           %(operations)s::text[], %(instrument_ids)s::uuid[], %(amounts_minor)s::bigint[],
           %(shortfalls_minor)s::bigint[], %(currencies)s::text[], %(positions)s::int[]
       ) AS opened (
           case_id, outcome, codes, store_id, terminal_id, transaction_id, line, operation,
           instrument_id, amount_minor, shortfall_minor, currency, position
       )
 ORDER BY case_id
    ON CONFLICT (case_id) DO NOTHING
