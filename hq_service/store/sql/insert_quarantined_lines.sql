-- Append the lines of a chunk that could not be understood.
INSERT INTO quarantined_lines (
    store_id, batch_id, position, codes, reason, masked_text, case_id, settled_at
)
SELECT %(store_id)s, %(batch_id)s, position, string_to_array(codes, ' '), reason, masked_text,
       case_id, %(settled_at)s
  FROM unnest(
           %(positions)s::int[], %(codes)s::text[], %(reasons)s::text[], %(masked_texts)s::text[],
           %(case_ids)s::uuid[]
       ) AS quarantined (position, codes, reason, masked_text, case_id)
