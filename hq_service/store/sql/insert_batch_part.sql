-- Append one part of the lines of a batch as received.
INSERT INTO offline_batch_parts (store_id, batch_id, part, lines)
VALUES (%(store_id)s, %(batch_id)s, %(part)s, %(lines)b)
