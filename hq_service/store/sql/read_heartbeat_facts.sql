-- What the answer to a heartbeat depends on: the register (retired if its store is) and its offline
-- profile, what its store has applied and what is saved, what the till acknowledged, whether the
-- revision that it reports was served to it, or was ever applied in its store, the newest cache
-- reset that concerns it, and whether an upload session waits for its store.
SELECT coalesce(terminal.retired_at, store.retired_at) IS NOT NULL AS is_retired,
       store.applied_revision,
       (SELECT coalesce(max(revision), 0)
          FROM parameter_revisions
         WHERE store_id IS NULL OR store_id = terminal.store_id) AS saved_revision,
       presence.acknowledged_revision,
       EXISTS (SELECT 1
                 FROM parameter_acknowledgements AS served
                WHERE served.store_id = terminal.store_id
                  AND served.terminal_id = terminal.terminal_id
                  AND served.revision = %(reported_revision)s::int) AS was_served_to_it,
       coalesce(%(reported_revision)s::int = store.applied_revision, FALSE)
           OR EXISTS (SELECT 1
                        FROM parameter_acknowledgements AS served
                       WHERE served.store_id = terminal.store_id
                         AND served.revision = %(reported_revision)s::int)
           OR EXISTS (SELECT 1
                        FROM distribution_sessions AS session
                       WHERE session.store_id = terminal.store_id
                         AND session.parameters_revision = %(reported_revision)s::int
                         AND session.applied_at IS NOT NULL) AS was_applied_in_store,
       (SELECT max(reset.reset_at)
          FROM cache_resets AS reset
         WHERE reset.reset_at >= terminal.created_at
           AND (reset.store_id IS NULL OR reset.store_id = terminal.store_id)
           AND (reset.terminal_id IS NULL OR reset.terminal_id = terminal.terminal_id))
           AS cache_reset_at,
       coalesce(profile.version, 0) AS offline_profile_version,
       EXISTS (SELECT 1
                 FROM distribution_sessions AS session
                WHERE session.store_id = terminal.store_id
                  AND session.direction = 'upload'
                  AND session.ended_at IS NULL) AS is_upload_requested
  FROM terminals AS terminal
  JOIN stores AS store
    ON store.store_id = terminal.store_id
  LEFT JOIN offline_profiles AS profile
    ON profile.offline_profile_id = terminal.offline_profile_id
  LEFT JOIN terminal_presence AS presence
    ON presence.store_id = terminal.store_id
   AND presence.terminal_id = terminal.terminal_id
 WHERE terminal.store_id = %(store_id)s
   AND terminal.terminal_id = %(terminal_id)s
