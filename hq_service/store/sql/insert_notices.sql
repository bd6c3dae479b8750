-- Open one case per terminal and batch for what its lines have in common. A gap that is told
-- already is not told again by every later batch.
INSERT INTO cases (
    case_id, outcome, codes, store_id, terminal_id, shortfall_minor, batch_id, opened_at, detail
)
SELECT case_id, 'noticed', ARRAY[code], %(store_id)s, terminal_id, 0, %(batch_id)s, %(now)s, detail
  FROM unnest(%(case_ids)s::uuid[], %(codes)s::text[], %(terminal_ids)s::text[],
              %(details)s::text[]) AS noticed (case_id, code, terminal_id, detail)
 WHERE code <> 'sequence_gap'
    OR NOT EXISTS (SELECT 1
                     FROM cases AS told
                    WHERE told.store_id = %(store_id)s
                      AND told.terminal_id = noticed.terminal_id
                      AND told.codes = ARRAY['sequence_gap']
                      AND told.resolved_at IS NULL)
    ON CONFLICT (case_id) DO NOTHING
