-- One instrument as it is now, locking nothing: for balance inquiries and refusals.
SELECT instrument_id, kind, currency, number_last4, status, balance_minor, version, remainder_id,
       lock_id, lock_store_id, lock_terminal_id, lock_transaction_id, lock_line, lock_purpose,
       lock_amount_minor, locked_at, lock_grant_until, lock_grant_revision
  FROM instruments
 WHERE bucket = %(bucket)s
   AND instrument_id = %(instrument_id)s
