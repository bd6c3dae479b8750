-- Close the notices of gaps of terminals whose journals have none any more. Such a case is about no
-- line: that is what the index of cases by business key finds it by.
UPDATE cases
   SET resolution = 'arrived',
       resolved_at = %(now)s,
       resolved_by = 'HQ',
       resolution_reason = 'what was missing has arrived'
 WHERE store_id = %(store_id)s
   AND terminal_id = ANY (%(terminal_ids)s::text[])
   AND transaction_id IS NULL
   AND line IS NULL
   AND outcome = 'noticed'
   AND codes = ARRAY['sequence_gap']
   AND resolved_at IS NULL
