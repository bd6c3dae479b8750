-- What has arrived of the journals of a store, or of those of one batch.
SELECT journal.terminal_id, journal.journal_id, journal.arrived::text
  FROM terminal_journals AS journal
 WHERE journal.store_id = %(store_id)s
   AND (%(batch_id)s::text IS NULL
        OR EXISTS (SELECT 1
                     FROM offline_lines AS line
                    WHERE line.store_id = journal.store_id
                      AND line.batch_id = %(batch_id)s
                      AND line.terminal_id = journal.terminal_id
                      AND line.journal_id = journal.journal_id))
 ORDER BY journal.terminal_id, journal.journal_id
