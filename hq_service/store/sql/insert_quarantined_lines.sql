-- Append the lines of a chunk that could not be understood.
INSERT INTO quarantined_lines (
    store_id, batch_id, position, codes, reason, masked_text, case_id, settled_at, terminal_id,
    transaction_id, line, journal_id, sequence
)
SELECT %(store_id)s, %(batch_id)s, position, string_to_array(codes, ' '), reason, masked_text,
       case_id, %(settled_at)s, terminal_id, transaction_id, line, journal_id,
       sequence
  FROM unnest(
           %(positions)s::int[], %(codes)s::text[], %(reasons)s::text[], %(masked_texts)s::text[],
           %(case_ids)s::uuid[], %(terminal_ids)s::text[], %(transaction_ids)s::text[],
           %(lines)s::int[], %(journal_ids)s::text[], %(sequences)s::bigint[]
       ) AS quarantined (
           position, codes, reason, masked_text, case_id, terminal_id, transaction_id, line,
           journal_id, sequence
       )
