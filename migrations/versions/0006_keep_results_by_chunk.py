"""Keep what the lines of a batch came to by chunk, and rows only for held lines.

A row for every settled line, with an index entry, was a third of what settling writes; only held
lines are ever looked up by their business key. All others are read as they were settled: together.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BUCKET_OF_INSTRUMENT = (
    "bucket = ((get_byte(uuid_send(instrument_id), 0) << 2)"
    " | (get_byte(uuid_send(instrument_id), 1) >> 6))"
)
MOVED_TOGETHER = 1_000
"""Lines per row of what was settled before: as many as a chunk had."""

UPGRADE = f"""
-- What the lines of a chunk came to: one JSON array per line, in the order of their positions.
CREATE TABLE offline_batch_results (
    store_id text COLLATE "C" NOT NULL,
    batch_id text COLLATE "C" NOT NULL,
    -- How many lines of the batch were settled before the first of these.
    settled_before int NOT NULL,
    first_position int NOT NULL,
    last_position int NOT NULL,
    settled_at timestamptz NOT NULL,
    -- How many of them came to which outcome; which journals they continued.
    counts jsonb NOT NULL,
    journals jsonb NOT NULL,
    results bytea NOT NULL,
    CONSTRAINT pk_offline_batch_results PRIMARY KEY (store_id, batch_id, settled_before),
    CONSTRAINT fk_offline_batch_results_store_id_offline_batches
        FOREIGN KEY (store_id, batch_id) REFERENCES offline_batches (store_id, batch_id),
    CONSTRAINT ck_offline_batch_results_settled_before_not_negative CHECK (settled_before >= 0),
    CONSTRAINT ck_offline_batch_results_positions_in_order
        CHECK (first_position BETWEEN 0 AND last_position)
);

INSERT INTO offline_batch_results (
    store_id, batch_id, settled_before, first_position, last_position, settled_at, counts,
    journals, results
)
SELECT store_id, batch_id, part * {MOVED_TOGETHER}, min(position), max(position), max(settled_at),
       jsonb_strip_nulls(jsonb_build_object(
           'applied', nullif(count(*) FILTER (WHERE outcome = 'applied'), 0),
           'duplicate', nullif(count(*) FILTER (WHERE outcome = 'duplicate'), 0),
           'held', nullif(count(*) FILTER (WHERE outcome = 'held'), 0),
           'quarantined', nullif(count(*) FILTER (WHERE outcome = 'quarantined'), 0))),
       coalesce(
           jsonb_agg(DISTINCT jsonb_build_array(terminal_id, journal_id))
               FILTER (WHERE journal_id IS NOT NULL),
           '[]'),
       convert_to(
           json_agg(json_build_array(
               position, terminal_id, transaction_id, line, instrument_id, outcome,
               original_outcome, codes, funded_minor, shortfall_minor, balance_after_minor,
               case_id, remainder_id, reason) ORDER BY position)::text,
           'UTF8')
  FROM (SELECT *, (row_number() OVER (PARTITION BY store_id, batch_id ORDER BY position) - 1)
                  / {MOVED_TOGETHER} AS part
          FROM (SELECT store_id, batch_id, position, terminal_id, journal_id, transaction_id, line,
                       instrument_id, outcome, original_outcome, codes, funded_minor,
                       shortfall_minor, balance_after_minor, case_id, remainder_id,
                       NULL AS reason, settled_at
                  FROM offline_lines
                 UNION ALL
                SELECT store_id, batch_id, position, terminal_id, NULL, transaction_id, line,
                       NULL, 'quarantined', NULL, codes, 0,
                       0, NULL, case_id, NULL,
                       reason, settled_at
                  FROM quarantined_lines) AS settled) AS parted
 GROUP BY store_id, batch_id, part;

-- Held lines make their keys known; they are few. No foreign key to instruments: an unknown
-- instrument must fit.
CREATE TABLE held_lines (
    bucket int NOT NULL,
    position int NOT NULL,
    instrument_id uuid NOT NULL,
    amount_minor bigint NOT NULL,
    held_at timestamptz NOT NULL,
    line int NOT NULL,
    store_id text COLLATE "C" NOT NULL,
    batch_id text COLLATE "C" NOT NULL,
    terminal_id text COLLATE "C" NOT NULL,
    transaction_id text COLLATE "C" NOT NULL,
    operation text NOT NULL,
    currency text NOT NULL,
    codes text[] NOT NULL,
    case_id uuid NOT NULL,
    original_store_id text COLLATE "C",
    original_terminal_id text COLLATE "C",
    original_transaction_id text COLLATE "C",
    original_line int,
    -- Found by business key and by batch, never by bucket, so the bucket comes last.
    CONSTRAINT pk_held_lines PRIMARY KEY (store_id, batch_id, position, bucket),
    CONSTRAINT ck_held_lines_bucket CHECK ({BUCKET_OF_INSTRUMENT})
);
INSERT INTO held_lines (
    bucket, position, instrument_id, amount_minor, held_at, line, store_id, batch_id, terminal_id,
    transaction_id, operation, currency, codes, case_id, original_store_id, original_terminal_id,
    original_transaction_id, original_line
)
SELECT bucket, position, instrument_id, amount_minor, settled_at, line, store_id, batch_id,
       terminal_id, transaction_id, operation, currency, codes, case_id, original_store_id,
       original_terminal_id, original_transaction_id, original_line
  FROM offline_lines
 WHERE outcome = 'held';
CREATE INDEX ix_held_lines_business_key
    ON held_lines (store_id, terminal_id, transaction_id, line);

DROP TABLE offline_lines;
"""

DOWNGRADE = f"""
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
    reason text,
    tender_amount_minor bigint,
    tender_currency text,
    exchange_rate text,
    CONSTRAINT pk_offline_lines PRIMARY KEY (store_id, batch_id, position, bucket),
    CONSTRAINT ck_offline_lines_bucket CHECK ({BUCKET_OF_INSTRUMENT}),
    CONSTRAINT ck_offline_lines_outcome CHECK (outcome IN ('applied', 'duplicate', 'held')),
    CONSTRAINT ck_offline_lines_held_has_case CHECK (outcome <> 'held' OR case_id IS NOT NULL),
    CONSTRAINT ck_offline_lines_shortfall_has_case
        CHECK (shortfall_minor = 0 OR case_id IS NOT NULL)
);

-- What a line came to is with its results, what it was with the batch as it was received.
INSERT INTO offline_lines (
    bucket, position, instrument_id, amount_minor, funded_minor, shortfall_minor,
    balance_after_minor, concluded_at, settled_at, sequence, line, store_id, batch_id, terminal_id,
    transaction_id, journal_id, status, operation, currency, outcome, original_outcome, codes,
    lock_id, case_id, remainder_id, original_store_id, original_terminal_id,
    original_transaction_id, original_line, reason, tender_amount_minor, tender_currency,
    exchange_rate
)
WITH settled AS (
    SELECT kept.store_id, kept.batch_id, kept.settled_at, (one ->> 0)::int AS position,
           (one ->> 4)::uuid AS instrument_id, one
      FROM offline_batch_results AS kept
     CROSS JOIN jsonb_array_elements(convert_from(kept.results, 'UTF8')::jsonb) AS told (one)
     WHERE one ->> 5 <> 'quarantined'
), sent AS (
    SELECT part.store_id, part.batch_id, (line ->> 0)::int AS position, line
      FROM offline_batch_parts AS part
     CROSS JOIN jsonb_array_elements(convert_from(part.lines, 'UTF8')::jsonb) AS told (line)
)
SELECT (get_byte(uuid_send(instrument_id), 0) << 2) | (get_byte(uuid_send(instrument_id), 1) >> 6),
       settled.position, instrument_id, (line ->> 6)::bigint, (one ->> 8)::bigint,
       (one ->> 9)::bigint, (one ->> 10)::bigint, (line ->> 13)::timestamptz, settled_at,
       (line ->> 15)::bigint, (one ->> 3)::int, settled.store_id, settled.batch_id, one ->> 1,
       one ->> 2, line ->> 14, line ->> 8, line ->> 4, line ->> 7, one ->> 5, one ->> 6,
       ARRAY (SELECT jsonb_array_elements_text(one -> 7)), (line ->> 9)::uuid, (one ->> 11)::uuid,
       (one ->> 12)::uuid, line #>> '{{10,0}}', line #>> '{{10,1}}', line #>> '{{10,2}}',
       (line #>> '{{10,3}}')::int, line ->> 16, (line #>> '{{17,0}}')::bigint,
       line #>> '{{17,1}}', line #>> '{{17,2}}'
  FROM settled
  JOIN sent
    ON sent.store_id = settled.store_id
   AND sent.batch_id = settled.batch_id
   AND sent.position = settled.position;

CREATE INDEX ix_offline_lines_held
    ON offline_lines (store_id, terminal_id, transaction_id, line) WHERE outcome = 'held';
DROP TABLE held_lines, offline_batch_results;
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
