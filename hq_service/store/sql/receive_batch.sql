-- Store the header of a batch as received, with the newest revision that says something for its
-- store. No row if one with the same id is there already, whatever its content, or no such store.
INSERT INTO offline_batches (
    store_id, batch_id, body_sha256, lines_count, received_at, received_by, parameters_revision,
    sender_terminal_id, control_totals
)
SELECT store.store_id, %(batch_id)s, %(body_sha256)s, %(lines_count)s, %(received_at)s,
       %(received_by)s,
       (SELECT coalesce(max(revision), 0)
          FROM parameter_revisions AS saved
         WHERE saved.store_id IS NULL
            OR saved.store_id = store.store_id),
       %(sender_terminal_id)s, %(control_totals)s::jsonb
  FROM stores AS store
 WHERE store.store_id = %(store_id)s
    ON CONFLICT DO NOTHING
RETURNING batch_id
