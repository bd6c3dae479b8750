"""Distribute the Commerce parameters, watch the registers, and keep an audit.

Which revision a store has applied, offline profiles, what a till tells of itself, cache resets,
distribution schedules with their sessions, and a chain of audit entries that nobody can edit.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE offline_profiles (
    offline_profile_id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    version int NOT NULL,
    values jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    retired_at timestamptz,
    CONSTRAINT pk_offline_profiles PRIMARY KEY (offline_profile_id),
    CONSTRAINT ck_offline_profiles_id_not_empty CHECK (offline_profile_id <> ''),
    CONSTRAINT ck_offline_profiles_version_positive CHECK (version > 0),
    CONSTRAINT ck_offline_profiles_values_object CHECK (jsonb_typeof(values) = 'object')
);

-- What the store's tills are served: the last revision whose package the store has applied.
ALTER TABLE stores
    ADD COLUMN version int NOT NULL DEFAULT 1,
    ADD COLUMN time_zone text NOT NULL DEFAULT 'UTC',
    ADD COLUMN applied_revision int NOT NULL DEFAULT 0,
    ADD COLUMN applied_at timestamptz;
ALTER TABLE stores
    ADD CONSTRAINT ck_stores_version_positive CHECK (version > 0),
    ADD CONSTRAINT ck_stores_applied_revision_not_negative CHECK (applied_revision >= 0);
-- Until now whatever was saved was served at once; nobody falls back behind that.
UPDATE stores
   SET applied_revision = (
           SELECT coalesce(max(revision), 0) FROM parameter_revisions AS saved
            WHERE saved.store_id IS NULL OR saved.store_id = stores.store_id
       );

ALTER TABLE terminals
    ADD COLUMN version int NOT NULL DEFAULT 1,
    ADD COLUMN offline_profile_id text COLLATE "C";
ALTER TABLE terminals
    ADD CONSTRAINT ck_terminals_version_positive CHECK (version > 0),
    ADD CONSTRAINT fk_terminals_offline_profile_id_offline_profiles
        FOREIGN KEY (offline_profile_id) REFERENCES offline_profiles (offline_profile_id);

ALTER TABLE api_keys ADD COLUMN replaced_by text COLLATE "C";

-- What a till told of itself with its last heartbeat: one row, written as a whole. The revision
-- is the last that it told, and the tip of each journal the highest that it ever told.
ALTER TABLE terminal_presence
    ADD COLUMN parameters_fetched_at timestamptz,
    ADD COLUMN reported_revision int,
    ADD COLUMN revision_reported_at timestamptz,
    ADD COLUMN reported_at timestamptz,
    ADD COLUMN report_sent_at timestamptz,
    ADD COLUMN connection_state text,
    ADD COLUMN connection_state_since timestamptz,
    ADD COLUMN pending_count int,
    ADD COLUMN pending_amounts_minor jsonb,
    ADD COLUMN oldest_pending_at timestamptz,
    ADD COLUMN last_sync_at timestamptz,
    ADD COLUMN last_sync_status text,
    ADD COLUMN last_sync_message text,
    ADD COLUMN journal_tips jsonb,
    ADD COLUMN offline_profile_version int;
ALTER TABLE terminal_presence
    ADD CONSTRAINT ck_terminal_presence_report_all_or_nothing CHECK (
        num_nonnulls(reported_at, report_sent_at, connection_state, connection_state_since,
                     pending_count, pending_amounts_minor, last_sync_status, journal_tips) IN (0, 8)
    ),
    ADD CONSTRAINT ck_terminal_presence_reported_revision_with_instant
        CHECK (num_nonnulls(reported_revision, revision_reported_at) IN (0, 2)),
    ADD CONSTRAINT ck_terminal_presence_reported_revision_not_negative
        CHECK (reported_revision >= 0),
    ADD CONSTRAINT ck_terminal_presence_connection_state
        CHECK (connection_state IN ('online', 'offline')),
    ADD CONSTRAINT ck_terminal_presence_last_sync_status
        CHECK (last_sync_status IN ('none', 'succeeded', 'failed')),
    ADD CONSTRAINT ck_terminal_presence_pending_count_not_negative CHECK (pending_count >= 0),
    ADD CONSTRAINT ck_terminal_presence_offline_profile_version_not_negative
        CHECK (offline_profile_version >= 0);

-- "Fetch the parameters, whatever your copy says": store and terminal null mean all of them.
CREATE TABLE cache_resets (
    cache_reset_id uuid NOT NULL,
    store_id text COLLATE "C",
    terminal_id text COLLATE "C",
    reset_at timestamptz NOT NULL,
    reset_by text NOT NULL,
    reason text NOT NULL,
    CONSTRAINT pk_cache_resets PRIMARY KEY (cache_reset_id),
    CONSTRAINT fk_cache_resets_store_id_stores
        FOREIGN KEY (store_id) REFERENCES stores (store_id),
    CONSTRAINT fk_cache_resets_store_id_terminals
        FOREIGN KEY (store_id, terminal_id) REFERENCES terminals (store_id, terminal_id),
    CONSTRAINT ck_cache_resets_terminal_has_store
        CHECK (terminal_id IS NULL OR store_id IS NOT NULL)
);
CREATE INDEX ix_cache_resets_reset_at ON cache_resets (reset_at);

CREATE TABLE distribution_schedules (
    schedule_id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    version int NOT NULL,
    job_ids text[] NOT NULL,
    is_active boolean NOT NULL,
    every_seconds int,
    cron text,
    next_run_at timestamptz,
    created_at timestamptz NOT NULL,
    CONSTRAINT pk_distribution_schedules PRIMARY KEY (schedule_id),
    CONSTRAINT ck_distribution_schedules_id_not_empty CHECK (schedule_id <> ''),
    CONSTRAINT ck_distribution_schedules_version_positive CHECK (version > 0),
    CONSTRAINT ck_distribution_schedules_has_jobs CHECK (cardinality(job_ids) > 0),
    CONSTRAINT ck_distribution_schedules_one_recurrence
        CHECK (num_nonnulls(every_seconds, cron) <= 1),
    CONSTRAINT ck_distribution_schedules_every_seconds_positive CHECK (every_seconds > 0)
);
CREATE INDEX ix_distribution_schedules_due ON distribution_schedules (next_run_at)
    WHERE next_run_at IS NOT NULL;

CREATE TABLE distribution_runs (
    run_id uuid NOT NULL,
    schedule_id text COLLATE "C" NOT NULL,
    started_at timestamptz NOT NULL,
    started_by text NOT NULL,
    CONSTRAINT pk_distribution_runs PRIMARY KEY (run_id),
    CONSTRAINT fk_distribution_runs_schedule_id_distribution_schedules
        FOREIGN KEY (schedule_id) REFERENCES distribution_schedules (schedule_id)
);

-- One store's part of a run, for one job. The package is kept as it was sent: its checksum is of
-- these bytes.
CREATE TABLE distribution_sessions (
    session_id uuid NOT NULL,
    run_id uuid NOT NULL,
    store_id text COLLATE "C" NOT NULL,
    job_id text NOT NULL,
    direction text NOT NULL,
    status text NOT NULL,
    parameters_revision int,
    package bytea,
    checksum_sha256 bytea,
    try_count int NOT NULL DEFAULT 0,
    message text,
    rerun_for uuid,
    replaced_by uuid,
    created_at timestamptz NOT NULL,
    requested_at timestamptz,
    downloaded_at timestamptz,
    applied_at timestamptz,
    ended_at timestamptz,
    CONSTRAINT pk_distribution_sessions PRIMARY KEY (session_id),
    CONSTRAINT fk_distribution_sessions_run_id_distribution_runs
        FOREIGN KEY (run_id) REFERENCES distribution_runs (run_id),
    CONSTRAINT fk_distribution_sessions_store_id_stores
        FOREIGN KEY (store_id) REFERENCES stores (store_id),
    CONSTRAINT ck_distribution_sessions_direction CHECK (direction IN ('download', 'upload')),
    CONSTRAINT ck_distribution_sessions_status CHECK (
        status IN ('started', 'available', 'requested', 'downloaded', 'uploaded', 'applied',
                   'canceled', 'create_failed', 'download_failed', 'upload_failed', 'apply_failed',
                   'no_data')
    ),
    CONSTRAINT ck_distribution_sessions_download_has_package CHECK (
        num_nonnulls(package, checksum_sha256) = CASE direction WHEN 'download' THEN 2 ELSE 0 END
    ),
    CONSTRAINT ck_distribution_sessions_checksum_length CHECK (octet_length(checksum_sha256) = 32),
    CONSTRAINT ck_distribution_sessions_try_count_not_negative CHECK (try_count >= 0),
    CONSTRAINT ck_distribution_sessions_applied_at_when_applied
        CHECK ((status = 'applied') = (applied_at IS NOT NULL))
);
CREATE INDEX ix_distribution_sessions_open ON distribution_sessions (store_id, created_at)
    WHERE ended_at IS NULL;
CREATE INDEX ix_distribution_sessions_run_id ON distribution_sessions (run_id);
-- Which package a store applied last, however long the history.
CREATE INDEX ix_distribution_sessions_applied
    ON distribution_sessions (store_id, applied_at) WHERE applied_at IS NOT NULL;

-- Cases by age whatever their state, and those of the same instrument or business key.
CREATE INDEX ix_cases_opened_at ON cases (opened_at, case_id);
CREATE INDEX ix_cases_instrument_id ON cases (instrument_id, opened_at);
CREATE INDEX ix_cases_business_key ON cases (store_id, terminal_id, transaction_id, line);

-- Each entry's hash is made of the one before: taking one out, or changing it, breaks the chain.
CREATE TABLE audit_entries (
    number bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject text COLLATE "C" NOT NULL,
    detail text NOT NULL,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT pk_audit_entries PRIMARY KEY (number),
    CONSTRAINT ck_audit_entries_number_positive CHECK (number > 0),
    CONSTRAINT ck_audit_entries_hash_lengths
        CHECK (octet_length(previous_hash) = 32 AND octet_length(hash) = 32)
);
CREATE INDEX ix_audit_entries_subject ON audit_entries (subject, number);

CREATE FUNCTION refuse_to_edit_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit entries are appended, never edited or deleted';
END
$$;
CREATE TRIGGER audit_entries_are_appended BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_edit_audit();
"""

DOWNGRADE = """
DROP TABLE audit_entries;
DROP FUNCTION refuse_to_edit_audit();
DROP INDEX ix_cases_opened_at, ix_cases_instrument_id, ix_cases_business_key;
DROP TABLE distribution_sessions;
DROP TABLE distribution_runs;
DROP TABLE distribution_schedules;
DROP TABLE cache_resets;
ALTER TABLE terminal_presence
    DROP COLUMN parameters_fetched_at, DROP COLUMN reported_revision,
    DROP COLUMN revision_reported_at, DROP COLUMN reported_at, DROP COLUMN report_sent_at,
    DROP COLUMN connection_state, DROP COLUMN connection_state_since,
    DROP COLUMN pending_count, DROP COLUMN pending_amounts_minor, DROP COLUMN oldest_pending_at,
    DROP COLUMN last_sync_at, DROP COLUMN last_sync_status, DROP COLUMN last_sync_message,
    DROP COLUMN journal_tips, DROP COLUMN offline_profile_version;
ALTER TABLE api_keys DROP COLUMN replaced_by;
ALTER TABLE terminals DROP COLUMN version, DROP COLUMN offline_profile_id;
ALTER TABLE stores DROP COLUMN version, DROP COLUMN time_zone, DROP COLUMN applied_revision,
    DROP COLUMN applied_at;
DROP TABLE offline_profiles;
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
