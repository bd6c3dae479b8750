-- Close cases whose question went away by itself.
UPDATE cases
   SET resolution = closed.resolution,
       resolved_at = %(now)s,
       resolved_by = %(actor)s,
       resolution_reason = %(reason)s
  FROM unnest(%(case_ids)s::uuid[], %(resolutions)s::text[]) AS closed (case_id, resolution)
 WHERE cases.case_id = closed.case_id
   AND cases.resolved_at IS NULL
