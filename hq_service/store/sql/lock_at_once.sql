-- A lock to redeem, if everything is as it should be; the function is in migration 0005.
SELECT number_last4, currency, balance_minor, last_seen_at, parameters_revision
  FROM lock_at_once($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
