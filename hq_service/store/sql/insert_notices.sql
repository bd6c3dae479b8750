-- Open one case per terminal and batch for what its lines have in common.
INSERT INTO cases (
    case_id, outcome, codes, store_id, terminal_id, shortfall_minor, batch_id, opened_at, detail
)
SELECT case_id, 'noticed', ARRAY[code], %(store_id)s, terminal_id, 0, %(batch_id)s, %(now)s, detail
  FROM unnest(%(case_ids)s::uuid[], %(codes)s::text[], %(terminal_ids)s::text[],
              %(details)s::text[]) AS noticed (case_id, code, terminal_id, detail)
    ON CONFLICT (case_id) DO NOTHING
