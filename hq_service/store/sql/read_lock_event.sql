-- How one lock ended, if it ended otherwise than by a posting.
SELECT ended, store_id, terminal_id, transaction_id, line
  FROM lock_events
 WHERE bucket = %(bucket)s
   AND instrument_id = %(instrument_id)s
   AND lock_id = %(lock_id)s
