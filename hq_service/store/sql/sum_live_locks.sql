-- What the live locks of some registers amount to, by register and currency. A grant is unspent
-- unless it has run out in a store whose parameters free it then; exposure is what
-- domain/locking.py says it is, and a test compares the two.
SELECT listed.store_id, listed.terminal_id, instrument.currency,
       count(*) AS locks_count,
       count(*) FILTER (WHERE granted.is_unspent) AS grants_count,
       coalesce(
           sum(least(instrument.lock_amount_minor, instrument.balance_minor)) FILTER (
               WHERE granted.is_unspent AND instrument.lock_purpose = ANY (%(debits)s::text[])
           ), 0
       ) AS exposure_minor,
       min(listed.locked_at) FILTER (WHERE granted.is_unspent) AS oldest_grant_at,
       min(listed.grant_until) FILTER (
           WHERE granted.is_unspent AND listed.grant_until >= %(now)s
       ) AS next_horizon_at,
       count(*) FILTER (
           WHERE granted.is_unspent AND listed.grant_until < %(now)s
       ) AS past_horizon_count
  FROM live_locks AS listed
  JOIN unnest(%(store_ids)s::text[], %(terminal_ids)s::text[]) AS wanted (store_id, terminal_id)
    ON wanted.store_id = listed.store_id
   AND wanted.terminal_id = listed.terminal_id
  JOIN instruments AS instrument
    ON instrument.bucket = listed.bucket
   AND instrument.instrument_id = listed.instrument_id
   AND instrument.lock_id = listed.lock_id
 CROSS JOIN LATERAL (
       SELECT listed.grant_until IS NOT NULL
              AND NOT (listed.grant_until < %(now)s
                       AND listed.store_id = ANY (%(releasing_store_ids)s::text[])) AS is_unspent
       ) AS granted
 GROUP BY listed.store_id, listed.terminal_id, instrument.currency
 ORDER BY listed.store_id, listed.terminal_id, instrument.currency
