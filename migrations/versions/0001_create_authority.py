"""Create the tables of the balance and lock authority.

Hot tables (`instruments`, `live_locks`, `lock_events`, `postings`, `voids`, `offline_lines`) carry
`bucket` in every key, so that the same migration runs on plain PostgreSQL and on Citus; the rules
and the test that checks them are in docs/architecture.md and tests/migrations.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# The top ten bits of the instrument id, as hq_service.domain.numbers.bucket_of computes them.
BUCKET_OF_INSTRUMENT = (
    "bucket = ((get_byte(uuid_send(instrument_id), 0) << 2)"
    " | (get_byte(uuid_send(instrument_id), 1) >> 6))"
)

COLD_TABLES = """
CREATE TABLE stores (
    store_id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL,
    retired_at timestamptz,
    CONSTRAINT pk_stores PRIMARY KEY (store_id),
    -- HQ books under its own name; a store of that name could spend HQ's business keys.
    CONSTRAINT ck_stores_store_id_not_reserved CHECK (store_id <> 'HQ' AND store_id <> '')
);

CREATE TABLE terminals (
    store_id text COLLATE "C" NOT NULL,
    terminal_id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    supports_offline boolean NOT NULL,
    created_at timestamptz NOT NULL,
    retired_at timestamptz,
    CONSTRAINT pk_terminals PRIMARY KEY (store_id, terminal_id),
    CONSTRAINT fk_terminals_store_id_stores FOREIGN KEY (store_id) REFERENCES stores (store_id),
    CONSTRAINT ck_terminals_terminal_id_not_empty CHECK (terminal_id <> '')
);

-- One small row per terminal: its heartbeat renews every lock it holds.
CREATE TABLE terminal_presence (
    store_id text COLLATE "C" NOT NULL,
    terminal_id text COLLATE "C" NOT NULL,
    last_seen_at timestamptz,
    acknowledged_revision int,
    CONSTRAINT pk_terminal_presence PRIMARY KEY (store_id, terminal_id),
    CONSTRAINT fk_terminal_presence_store_id_terminals
        FOREIGN KEY (store_id, terminal_id) REFERENCES terminals (store_id, terminal_id)
) WITH (fillfactor = 50);

CREATE TABLE parameter_revisions (
    revision int NOT NULL,
    store_id text COLLATE "C",
    values jsonb NOT NULL,
    changes jsonb NOT NULL,
    reason text NOT NULL,
    changed_at timestamptz NOT NULL,
    changed_by text NOT NULL,
    CONSTRAINT pk_parameter_revisions PRIMARY KEY (revision),
    CONSTRAINT fk_parameter_revisions_store_id_stores
        FOREIGN KEY (store_id) REFERENCES stores (store_id),
    CONSTRAINT ck_parameter_revisions_revision_positive CHECK (revision > 0),
    CONSTRAINT ck_parameter_revisions_values_object CHECK (jsonb_typeof(values) = 'object'),
    CONSTRAINT ck_parameter_revisions_reason_not_empty CHECK (reason <> '')
);

-- Every revision that a terminal was ever served: a claim of an offline line is checked here.
CREATE TABLE parameter_acknowledgements (
    store_id text COLLATE "C" NOT NULL,
    terminal_id text COLLATE "C" NOT NULL,
    revision int NOT NULL,
    acknowledged_at timestamptz NOT NULL,
    CONSTRAINT pk_parameter_acknowledgements PRIMARY KEY (store_id, terminal_id, revision),
    CONSTRAINT fk_parameter_acknowledgements_store_id_terminals
        FOREIGN KEY (store_id, terminal_id) REFERENCES terminals (store_id, terminal_id)
);

CREATE TABLE api_keys (
    key_id text COLLATE "C" NOT NULL,
    secret_sha256 bytea NOT NULL,
    role text NOT NULL,
    store_id text COLLATE "C",
    terminal_id text COLLATE "C",
    label text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT pk_api_keys PRIMARY KEY (key_id),
    CONSTRAINT fk_api_keys_store_id_stores FOREIGN KEY (store_id) REFERENCES stores (store_id),
    CONSTRAINT fk_api_keys_store_id_terminals
        FOREIGN KEY (store_id, terminal_id) REFERENCES terminals (store_id, terminal_id),
    CONSTRAINT ck_api_keys_secret_is_sha256 CHECK (octet_length(secret_sha256) = 32),
    -- A role says exactly which of store and terminal its key is bound to.
    CONSTRAINT ck_api_keys_role_scope CHECK (
        (role = 'terminal' AND store_id IS NOT NULL AND terminal_id IS NOT NULL)
        OR (role = 'sync' AND store_id IS NOT NULL AND terminal_id IS NULL)
        OR (role IN ('admin', 'auditor') AND store_id IS NULL AND terminal_id IS NULL)
    )
);

-- What administrators issue, by their own reference: two issues of one reference at once, with two
-- numbers, meet here. The unique key of postings has the bucket in it and would let both through.
CREATE TABLE issue_references (
    reference text COLLATE "C" NOT NULL,
    issued_at timestamptz NOT NULL,
    issued_by text NOT NULL,
    CONSTRAINT pk_issue_references PRIMARY KEY (reference)
);

CREATE TABLE offline_batches (
    store_id text COLLATE "C" NOT NULL,
    batch_id text COLLATE "C" NOT NULL,
    -- Of the decompressed body as it came, so that a reused batch_id is told from a repeat.
    body_sha256 bytea NOT NULL,
    lines_count int NOT NULL,
    -- How many lines, in settlement order, have been settled: a crash is resumed from here.
    settled_count int NOT NULL DEFAULT 0,
    received_at timestamptz NOT NULL,
    received_by text NOT NULL,
    -- What was in force then: a batch that is finished later is judged as it would have been.
    parameters_revision int NOT NULL,
    -- The sender's key was a terminal's: it may speak for no other terminal.
    sender_terminal_id text COLLATE "C",
    settled_at timestamptz,
    CONSTRAINT pk_offline_batches PRIMARY KEY (store_id, batch_id),
    CONSTRAINT fk_offline_batches_store_id_stores
        FOREIGN KEY (store_id) REFERENCES stores (store_id),
    CONSTRAINT ck_offline_batches_body_sha256_length CHECK (octet_length(body_sha256) = 32),
    CONSTRAINT ck_offline_batches_lines_count_positive CHECK (lines_count > 0),
    CONSTRAINT ck_offline_batches_settled_count_range
        CHECK (settled_count BETWEEN 0 AND lines_count),
    CONSTRAINT ck_offline_batches_settled_at_when_done
        CHECK ((settled_at IS NOT NULL) = (settled_count = lines_count))
);
CREATE INDEX ix_offline_batches_unsettled ON offline_batches (store_id, received_at)
    WHERE settled_at IS NULL;

-- The lines as received, numbers replaced by ids or masked: durable before anything is judged.
CREATE TABLE offline_batch_parts (
    store_id text COLLATE "C" NOT NULL,
    batch_id text COLLATE "C" NOT NULL,
    part int NOT NULL,
    lines bytea NOT NULL,
    CONSTRAINT pk_offline_batch_parts PRIMARY KEY (store_id, batch_id, part),
    CONSTRAINT fk_offline_batch_parts_store_id_offline_batches
        FOREIGN KEY (store_id, batch_id) REFERENCES offline_batches (store_id, batch_id)
);

CREATE TABLE quarantined_lines (
    store_id text COLLATE "C" NOT NULL,
    batch_id text COLLATE "C" NOT NULL,
    position int NOT NULL,
    codes text[] NOT NULL,
    reason text NOT NULL,
    masked_text text NOT NULL,
    case_id uuid NOT NULL,
    settled_at timestamptz NOT NULL,
    CONSTRAINT pk_quarantined_lines PRIMARY KEY (store_id, batch_id, position),
    CONSTRAINT fk_quarantined_lines_store_id_offline_batches
        FOREIGN KEY (store_id, batch_id) REFERENCES offline_batches (store_id, batch_id)
);

CREATE TABLE cases (
    case_id uuid NOT NULL,
    outcome text NOT NULL,
    codes text[] NOT NULL,
    -- The business key; null for a line that could not be read.
    store_id text COLLATE "C" NOT NULL,
    terminal_id text COLLATE "C",
    transaction_id text COLLATE "C",
    line int,
    operation text,
    instrument_id uuid,
    amount_minor bigint,
    shortfall_minor bigint NOT NULL,
    currency text,
    batch_id text COLLATE "C",
    position int,
    opened_at timestamptz NOT NULL,
    resolution text,
    resolved_at timestamptz,
    resolved_by text,
    resolution_reason text,
    CONSTRAINT pk_cases PRIMARY KEY (case_id),
    CONSTRAINT ck_cases_outcome CHECK (outcome IN ('applied', 'held', 'quarantined')),
    CONSTRAINT ck_cases_key_all_or_nothing CHECK (
        num_nonnulls(terminal_id, transaction_id, line, operation, instrument_id, amount_minor,
                     currency) IN (0, 7)
    ),
    CONSTRAINT ck_cases_shortfall_range
        CHECK (shortfall_minor BETWEEN 0 AND coalesce(amount_minor, 0)),
    CONSTRAINT ck_cases_resolution CHECK (
        resolution IN ('absorb', 'recover', 'confirm_duplicate', 'apply', 'dismiss')
    ),
    CONSTRAINT ck_cases_resolution_all_or_nothing CHECK (
        num_nonnulls(resolution, resolved_at, resolved_by, resolution_reason) IN (0, 4)
    )
);
CREATE INDEX ix_cases_open ON cases (store_id, opened_at) WHERE resolved_at IS NULL;
"""

HOT_TABLES = f"""
-- The live lock is columns of the instrument's own row: a lock read from a joined table beside
-- FOR UPDATE is stale after a wait. No column that lock or redeem changes may be indexed: that
-- would end every HOT update.
CREATE TABLE instruments (
    instrument_id uuid NOT NULL,
    balance_minor bigint NOT NULL,
    version bigint NOT NULL,
    bucket int NOT NULL,
    kind text NOT NULL,
    currency text NOT NULL,
    number_last4 text NOT NULL,
    status text NOT NULL,
    created_at timestamptz NOT NULL,
    remainder_id uuid,
    lock_id uuid,
    lock_store_id text COLLATE "C",
    lock_terminal_id text COLLATE "C",
    lock_transaction_id text COLLATE "C",
    lock_line int,
    lock_purpose text,
    lock_amount_minor bigint,
    locked_at timestamptz,
    lock_grant_until timestamptz,
    lock_grant_revision int,
    CONSTRAINT pk_instruments PRIMARY KEY (bucket, instrument_id),
    CONSTRAINT ck_instruments_bucket CHECK ({BUCKET_OF_INSTRUMENT}),
    CONSTRAINT ck_instruments_kind CHECK (kind IN ('gift_card', 'credit_memo')),
    CONSTRAINT ck_instruments_currency CHECK (currency ~ '^[A-Z]{{3}}$'),
    CONSTRAINT ck_instruments_number_last4_only CHECK (length(number_last4) = 4),
    CONSTRAINT ck_instruments_status CHECK (
        status IN ('pending', 'active', 'blocked', 'expired', 'closed')
        OR (status = 'applied' AND kind = 'credit_memo')
    ),
    CONSTRAINT ck_instruments_balance_not_negative CHECK (balance_minor >= 0),
    CONSTRAINT ck_instruments_worthless_has_no_balance
        CHECK (status NOT IN ('pending', 'applied', 'closed') OR balance_minor = 0),
    CONSTRAINT ck_instruments_version_not_negative CHECK (version >= 0),
    CONSTRAINT ck_instruments_remainder_of_memo
        CHECK (remainder_id IS NULL OR kind = 'credit_memo'),
    CONSTRAINT ck_instruments_lock_all_or_nothing CHECK (
        num_nonnulls(lock_id, lock_store_id, lock_terminal_id, lock_transaction_id, lock_line,
                     lock_purpose, lock_amount_minor, locked_at) IN (0, 8)
    ),
    CONSTRAINT ck_instruments_grant_needs_lock CHECK (
        num_nonnulls(lock_grant_until, lock_grant_revision) IN (0, 2)
        AND (lock_grant_until IS NULL OR lock_id IS NOT NULL)
    ),
    CONSTRAINT ck_instruments_lock_purpose
        CHECK (lock_purpose IN ('redeem', 'load', 'issue', 'refund', 'cash_out')),
    CONSTRAINT ck_instruments_lock_amount_not_negative CHECK (lock_amount_minor >= 0)
) WITH (fillfactor = 80);

-- One small row per live lock, for lists, exposure and alarms; no decision ever reads it.
CREATE TABLE live_locks (
    bucket int NOT NULL,
    instrument_id uuid NOT NULL,
    lock_id uuid NOT NULL,
    store_id text COLLATE "C" NOT NULL,
    terminal_id text COLLATE "C" NOT NULL,
    locked_at timestamptz NOT NULL,
    amount_minor bigint NOT NULL,
    grant_until timestamptz,
    CONSTRAINT pk_live_locks PRIMARY KEY (bucket, instrument_id),
    CONSTRAINT fk_live_locks_bucket_instruments
        FOREIGN KEY (bucket, instrument_id) REFERENCES instruments (bucket, instrument_id)
);

-- How a lock ended otherwise than by a posting; the posting is the record of consumption.
CREATE TABLE lock_events (
    bucket int NOT NULL,
    instrument_id uuid NOT NULL,
    lock_id uuid NOT NULL,
    store_id text COLLATE "C" NOT NULL,
    terminal_id text COLLATE "C" NOT NULL,
    transaction_id text COLLATE "C" NOT NULL,
    line int NOT NULL,
    purpose text NOT NULL,
    amount_minor bigint NOT NULL,
    locked_at timestamptz NOT NULL,
    grant_until timestamptz,
    grant_revision int,
    ended text NOT NULL,
    ended_at timestamptz NOT NULL,
    ended_by text NOT NULL,
    reason text,
    CONSTRAINT pk_lock_events PRIMARY KEY (bucket, instrument_id, lock_id),
    CONSTRAINT fk_lock_events_bucket_instruments
        FOREIGN KEY (bucket, instrument_id) REFERENCES instruments (bucket, instrument_id),
    CONSTRAINT ck_lock_events_ended
        CHECK (ended IN ('released', 'voided', 'lapsed', 'horizon', 'broken')),
    CONSTRAINT ck_lock_events_broken_has_reason CHECK (ended <> 'broken' OR reason IS NOT NULL)
);

-- Every balance change, for ever; also the record that makes a repeat a repeat.
CREATE TABLE postings (
    instrument_id uuid NOT NULL,
    version bigint NOT NULL,
    amount_minor bigint NOT NULL,
    funded_minor bigint NOT NULL,
    shortfall_minor bigint NOT NULL,
    change_minor bigint NOT NULL,
    balance_after_minor bigint NOT NULL,
    posted_at timestamptz NOT NULL,
    concluded_at timestamptz,
    bucket int NOT NULL,
    line int NOT NULL,
    store_id text COLLATE "C" NOT NULL,
    terminal_id text COLLATE "C" NOT NULL,
    transaction_id text COLLATE "C" NOT NULL,
    entry text NOT NULL,
    operation text NOT NULL,
    currency text NOT NULL,
    codes text[] NOT NULL,
    lock_id uuid,
    locked_at timestamptz,
    original_store_id text COLLATE "C",
    original_terminal_id text COLLATE "C",
    original_transaction_id text COLLATE "C",
    original_line int,
    related_instrument_id uuid,
    CONSTRAINT pk_postings PRIMARY KEY (bucket, instrument_id, version),
    -- The business key alone is a prefix, so a key reused on another instrument is seen.
    CONSTRAINT uq_postings_business_key
        UNIQUE (store_id, terminal_id, transaction_id, line, entry, bucket),
    CONSTRAINT fk_postings_bucket_instruments
        FOREIGN KEY (bucket, instrument_id) REFERENCES instruments (bucket, instrument_id),
    CONSTRAINT ck_postings_entry CHECK (
        entry IN ('original', 'reversal', 'remainder_out', 'remainder_in', 'resolution')
    ),
    CONSTRAINT ck_postings_operation CHECK (
        operation IN ('redeem', 'issue', 'load', 'refund', 'cash_out', 'void')
    ),
    CONSTRAINT ck_postings_amount_is_funded_and_shortfall
        CHECK (amount_minor = funded_minor + shortfall_minor),
    CONSTRAINT ck_postings_amounts_not_negative
        CHECK (funded_minor >= 0 AND shortfall_minor >= 0),
    CONSTRAINT ck_postings_change_is_funded CHECK (abs(change_minor) = funded_minor),
    CONSTRAINT ck_postings_balance_after_not_negative CHECK (balance_after_minor >= 0),
    CONSTRAINT ck_postings_version_positive CHECK (version > 0),
    CONSTRAINT ck_postings_lock_id_with_locked_at
        CHECK (num_nonnulls(lock_id, locked_at) IN (0, 2)),
    CONSTRAINT ck_postings_original_all_or_nothing CHECK (
        num_nonnulls(original_store_id, original_terminal_id, original_transaction_id,
                     original_line) IN (0, 4)
    )
);
-- One lock funds one line.
CREATE UNIQUE INDEX uq_postings_lock_id ON postings (bucket, lock_id)
    WHERE lock_id IS NOT NULL AND entry = 'original';

-- Business keys that shall have no effect, known before or not.
CREATE TABLE voids (
    bucket int NOT NULL,
    instrument_id uuid NOT NULL,
    store_id text COLLATE "C" NOT NULL,
    terminal_id text COLLATE "C" NOT NULL,
    transaction_id text COLLATE "C" NOT NULL,
    line int NOT NULL,
    reason text NOT NULL,
    voided_at timestamptz NOT NULL,
    voided_by text NOT NULL,
    CONSTRAINT pk_voids PRIMARY KEY (store_id, terminal_id, transaction_id, line, bucket),
    CONSTRAINT ck_voids_bucket CHECK ({BUCKET_OF_INSTRUMENT})
);

-- One row per settled line of a batch, with its outcome. No foreign key to instruments: an
-- unknown instrument must fit.
CREATE TABLE offline_lines (
    bucket int NOT NULL,
    position int NOT NULL,
    instrument_id uuid NOT NULL,
    amount_minor bigint NOT NULL,
    funded_minor bigint NOT NULL,
    shortfall_minor bigint NOT NULL,
    balance_after_minor bigint,
    concluded_at timestamptz,
    settled_at timestamptz NOT NULL,
    sequence bigint,
    line int NOT NULL,
    store_id text COLLATE "C" NOT NULL,
    batch_id text COLLATE "C" NOT NULL,
    terminal_id text COLLATE "C" NOT NULL,
    transaction_id text COLLATE "C" NOT NULL,
    journal_id text COLLATE "C",
    status text NOT NULL,
    operation text NOT NULL,
    currency text NOT NULL,
    outcome text NOT NULL,
    original_outcome text,
    codes text[] NOT NULL,
    lock_id uuid,
    case_id uuid,
    remainder_id uuid,
    original_store_id text COLLATE "C",
    original_terminal_id text COLLATE "C",
    original_transaction_id text COLLATE "C",
    original_line int,
    -- Read by batch and never by bucket, so the bucket comes last; one index less per line.
    CONSTRAINT pk_offline_lines PRIMARY KEY (store_id, batch_id, position, bucket),
    CONSTRAINT ck_offline_lines_bucket CHECK ({BUCKET_OF_INSTRUMENT}),
    CONSTRAINT ck_offline_lines_outcome CHECK (outcome IN ('applied', 'duplicate', 'held')),
    CONSTRAINT ck_offline_lines_held_has_case CHECK (outcome <> 'held' OR case_id IS NOT NULL),
    CONSTRAINT ck_offline_lines_shortfall_has_case
        CHECK (shortfall_minor = 0 OR case_id IS NOT NULL)
);
-- Held lines make their keys known; they are few.
CREATE INDEX ix_offline_lines_held
    ON offline_lines (store_id, terminal_id, transaction_id, line) WHERE outcome = 'held';
"""


def upgrade() -> None:
    op.execute(COLD_TABLES)
    op.execute(HOT_TABLES)


def downgrade() -> None:
    op.execute(
        "DROP TABLE offline_lines, voids, postings, lock_events, live_locks, instruments, cases,"
        " quarantined_lines, offline_batch_parts, offline_batches, issue_references, api_keys,"
        " parameter_acknowledgements, parameter_revisions, terminal_presence, terminals, stores"
    )
