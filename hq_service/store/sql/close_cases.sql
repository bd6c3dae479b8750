-- Close the cases of voided lines: nobody has to decide them any more. A held line that was applied
-- under a key of HQ's own is another question by now. What a store had absorbed is its loss no more.
UPDATE cases
   SET resolution = coalesce(resolution, 'voided'),
       resolved_at = coalesce(resolved_at, %(now)s),
       resolved_by = coalesce(resolved_by, %(actor)s),
       resolution_reason = coalesce(resolution_reason, 'the line was voided'),
       undone_at = CASE WHEN resolution = 'absorb' THEN %(now)s::timestamptz ELSE undone_at END
  FROM unnest(%(case_ids)s::uuid[], %(outcomes)s::text[]) AS closed (case_id, outcome)
 WHERE cases.case_id = closed.case_id
   AND cases.outcome = closed.outcome
   AND (cases.resolved_at IS NULL OR (cases.resolution = 'absorb' AND cases.undone_at IS NULL))
