-- Remember that a terminal was heard of, and what it told, as a whole. A report that was sent before
-- the one that is there came late: it is a sign of life and no more. Only a till whose clock was set
-- back sends such reports for longer than a lease; then the newest that HQ received counts.
--
-- Tips are never forgotten: of each journal the highest that was ever told stays, of at most
-- tips_kept_max journals. What is still behind stays first, and of that what the till does not name
-- any more: what it names it will tell again.
--
-- A till that acts on an older revision than it acknowledged never got the newer one, or is another
-- device: it acknowledges fallback_revision from now on, and has not fetched.
INSERT INTO terminal_presence AS present
       (store_id, terminal_id, last_seen_at, acknowledged_revision, reported_revision,
        revision_reported_at, reported_at, report_sent_at, connection_state,
        connection_state_since, pending_count, pending_amounts_minor, oldest_pending_at,
        last_sync_at, last_sync_status, last_sync_message, journal_tips, offline_profile_version)
VALUES (%(store_id)s, %(terminal_id)s, %(now)s, %(acknowledged_revision)s, %(reported_revision)s,
        %(revision_reported_at)s, %(now)s, %(sent_at)s, %(connection_state)s, %(now)s,
        %(pending_count)s, %(pending_amounts_minor)s, %(oldest_pending_at)s, %(last_sync_at)s,
        %(last_sync_status)s, %(last_sync_message)s, %(journal_tips)s,
        %(offline_profile_version)s)
ON CONFLICT (store_id, terminal_id) DO UPDATE
   SET last_seen_at = greatest(present.last_seen_at, excluded.last_seen_at),
       journal_tips = (
           SELECT coalesce(jsonb_object_agg(kept.journal_id, kept.tip), '{}'::jsonb)
             FROM (SELECT told.journal_id, max(told.tip::bigint) AS tip
                     FROM (SELECT key AS journal_id, value AS tip, FALSE AS is_named
                             FROM jsonb_each_text(present.journal_tips)
                            UNION ALL
                           SELECT key, value, TRUE
                             FROM jsonb_each_text(excluded.journal_tips)) AS told
                     LEFT JOIN terminal_journals AS journal
                       ON journal.store_id = excluded.store_id
                      AND journal.terminal_id = excluded.terminal_id
                      AND journal.journal_id = told.journal_id
                    GROUP BY told.journal_id
                    ORDER BY max(told.tip::bigint) >= coalesce(max(upper(journal.arrived)), 1) DESC,
                             bool_or(told.is_named), told.journal_id
                    LIMIT %(tips_kept_max)s) AS kept
       ),
       (acknowledged_revision, parameters_fetched_at, reported_revision, revision_reported_at,
        reported_at, report_sent_at, connection_state, connection_state_since, pending_count,
        pending_amounts_minor, oldest_pending_at, last_sync_at, last_sync_status,
        last_sync_message, offline_profile_version) = (
           SELECT CASE WHEN newer.is_late THEN present.acknowledged_revision
                       WHEN newer.is_behind THEN %(fallback_revision)s::int
                       ELSE greatest(present.acknowledged_revision,
                                     excluded.acknowledged_revision) END,
                  CASE WHEN NOT newer.is_behind THEN present.parameters_fetched_at END,
                  CASE WHEN newer.tells_revision THEN excluded.reported_revision
                       ELSE present.reported_revision END,
                  CASE WHEN newer.tells_revision THEN excluded.revision_reported_at
                       ELSE present.revision_reported_at END,
                  (newer.told).reported_at, (newer.told).report_sent_at,
                  (newer.told).connection_state,
                  -- Silence for longer than the lease ended the state that it was in.
                  CASE WHEN (newer.told).connection_state = present.connection_state
                        AND excluded.last_seen_at <= present.last_seen_at
                                                     + %(lease_seconds)s * interval '1 s'
                       THEN present.connection_state_since
                       ELSE excluded.connection_state_since END,
                  (newer.told).pending_count, (newer.told).pending_amounts_minor,
                  (newer.told).oldest_pending_at, (newer.told).last_sync_at,
                  (newer.told).last_sync_status, (newer.told).last_sync_message,
                  (newer.told).offline_profile_version
             FROM (SELECT late.is_late,
                          CASE WHEN late.is_late THEN present ELSE excluded END AS told,
                          NOT late.is_late AND excluded.reported_revision IS NOT NULL
                              AS tells_revision,
                          NOT late.is_late
                              AND coalesce(
                                  excluded.reported_revision < present.acknowledged_revision,
                                  FALSE
                              )
                              AND excluded.revision_reported_at
                                  > coalesce(present.parameters_fetched_at, '-infinity')
                              AS is_behind
                     FROM (SELECT coalesce(
                                      excluded.report_sent_at < present.report_sent_at
                                      AND excluded.reported_at
                                          <= present.reported_at
                                             + %(lease_seconds)s * interval '1 s',
                                      FALSE
                                  ) AS is_late) AS late) AS newer
       )
RETURNING present.parameters_fetched_at
