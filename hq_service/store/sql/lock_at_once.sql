-- A lock to redeem, if everything is as it should be; or what the rules refuse it by. The function is
-- in migration 0007.
SELECT *
  FROM lock_at_once($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
