-- Append what the lines of a chunk came to.
INSERT INTO offline_batch_results (
    store_id, batch_id, settled_before, first_position, last_position, settled_at, counts,
    journals, results
)
VALUES (
    %(store_id)s, %(batch_id)s, %(settled_before)s, %(first_position)s, %(last_position)s,
    %(settled_at)s, %(counts)s, %(journals)s, %(results)b
)
