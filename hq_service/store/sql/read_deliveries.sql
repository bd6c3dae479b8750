-- What is known of what registers have delivered, by store and register after one. All of it in one
-- statement: what a till told, what of it is being settled and what has arrived must be of one
-- moment, or else a batch on its way between them would be seen nowhere.
WITH page AS (
    SELECT terminal.store_id, terminal.terminal_id, terminal.name, terminal.supports_offline,
           terminal.created_at, least(terminal.retired_at, store.retired_at) AS retired_at,
           presence.last_seen_at, presence.acknowledged_revision,
           presence.reported_revision,
           presence.reported_at, presence.report_sent_at, presence.connection_state,
           presence.connection_state_since, presence.pending_count,
           presence.pending_amounts_minor, presence.oldest_pending_at, presence.last_sync_at,
           presence.last_sync_status, presence.last_sync_message, presence.journal_tips,
           presence.offline_profile_version, store.time_zone
      FROM terminals AS terminal
      JOIN stores AS store
        ON store.store_id = terminal.store_id
      LEFT JOIN terminal_presence AS presence
        ON presence.store_id = terminal.store_id
       AND presence.terminal_id = terminal.terminal_id
     WHERE (terminal.store_id, terminal.terminal_id) > (%(after_store)s, %(after_terminal)s)
       AND (%(store_id)s::text IS NULL OR terminal.store_id = %(store_id)s)
     ORDER BY terminal.store_id, terminal.terminal_id
     LIMIT %(limit)s
), arrived AS (
    SELECT journal.store_id, journal.terminal_id,
           jsonb_object_agg(journal.journal_id, journal.arrived::text) AS journals
      FROM terminal_journals AS journal
      JOIN page
        ON page.store_id = journal.store_id
       AND page.terminal_id = journal.terminal_id
     GROUP BY journal.store_id, journal.terminal_id
), granted AS (
    SELECT listed.store_id, listed.terminal_id, array_agg(listed.locked_at) AS granted_at
      FROM live_locks AS listed
      JOIN page
        ON page.store_id = listed.store_id
       AND page.terminal_id = listed.terminal_id
      JOIN instruments AS instrument
        ON instrument.bucket = listed.bucket
       AND instrument.instrument_id = listed.instrument_id
       AND instrument.lock_id = listed.lock_id
     WHERE listed.grant_until IS NOT NULL
     GROUP BY listed.store_id, listed.terminal_id
), opened AS (
    SELECT cases.store_id, cases.terminal_id, count(*) AS open_cases_count
      FROM cases
      JOIN page
        ON page.store_id = cases.store_id
       AND page.terminal_id = cases.terminal_id
     WHERE cases.resolved_at IS NULL
     GROUP BY cases.store_id, cases.terminal_id
)
SELECT page.*, arrived.journals, granted.granted_at, coalesce(opened.open_cases_count, 0),
       (SELECT count(*)
          FROM offline_batches AS batch
         WHERE batch.store_id = page.store_id
           AND batch.settled_at IS NULL
           AND coalesce(batch.sender_terminal_id, page.terminal_id) = page.terminal_id)
  FROM page
  LEFT JOIN arrived
    ON arrived.store_id = page.store_id
   AND arrived.terminal_id = page.terminal_id
  LEFT JOIN granted
    ON granted.store_id = page.store_id
   AND granted.terminal_id = page.terminal_id
  LEFT JOIN opened
    ON opened.store_id = page.store_id
   AND opened.terminal_id = page.terminal_id
 ORDER BY page.store_id, page.terminal_id
