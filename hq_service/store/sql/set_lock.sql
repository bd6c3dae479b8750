-- Give a lock, if the row is still what the rules decided on; otherwise no row, and they decide
-- again. The condition names columns of this row only: they are read again after a wait, a joined
-- table would not be.
UPDATE instruments
   SET lock_id = %(lock_id)s,
       lock_store_id = %(store_id)s,
       lock_terminal_id = %(terminal_id)s,
       lock_transaction_id = %(transaction_id)s,
       lock_line = %(line)s,
       lock_purpose = %(purpose)s,
       lock_amount_minor = %(amount_minor)s,
       locked_at = %(locked_at)s,
       lock_grant_until = %(grant_until)s,
       lock_grant_revision = %(grant_revision)s
 WHERE bucket = %(bucket)s
   AND instrument_id = %(instrument_id)s
   AND version = %(seen_version)s
   AND status = %(seen_status)s
   AND lock_id IS NOT DISTINCT FROM %(seen_lock_id)s::uuid
