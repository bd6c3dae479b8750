-- Close the notices of gaps of terminals whose journals have none any more.
UPDATE cases
   SET resolution = 'arrived',
       resolved_at = %(now)s,
       resolved_by = 'HQ',
       resolution_reason = 'what was missing has arrived'
 WHERE store_id = %(store_id)s
   AND terminal_id = ANY (%(terminal_ids)s::text[])
   AND outcome = 'noticed'
   AND codes = ARRAY['sequence_gap']
   AND resolved_at IS NULL
