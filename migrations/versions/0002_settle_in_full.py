"""Settle every operation in full.

Tenders in another currency, linked refunds, journals of terminals, notices, resolutions of cases,
and the double-entry view over postings and resolved cases.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UPGRADE = """
ALTER TABLE postings
    ADD COLUMN tender_amount_minor bigint,
    ADD COLUMN tender_currency text,
    ADD COLUMN exchange_rate text;
ALTER TABLE postings ADD CONSTRAINT ck_postings_tender_all_or_nothing
    CHECK (num_nonnulls(tender_amount_minor, tender_currency, exchange_rate) IN (0, 3));
ALTER TABLE postings DROP CONSTRAINT ck_postings_operation;
ALTER TABLE postings ADD CONSTRAINT ck_postings_operation
    CHECK (operation IN ('redeem', 'issue', 'load', 'refund', 'cash_out', 'recover'));
-- Linked refunds are few; how much of a line they gave back is read here.
CREATE INDEX ix_postings_original
    ON postings (original_store_id, original_terminal_id, original_transaction_id, original_line)
    WHERE original_store_id IS NOT NULL;

ALTER TABLE offline_lines
    ADD COLUMN reason text,
    ADD COLUMN tender_amount_minor bigint,
    ADD COLUMN tender_currency text,
    ADD COLUMN exchange_rate text;

ALTER TABLE quarantined_lines
    ADD COLUMN terminal_id text COLLATE "C",
    ADD COLUMN transaction_id text COLLATE "C",
    ADD COLUMN line int,
    ADD COLUMN journal_id text COLLATE "C",
    ADD COLUMN sequence bigint;

ALTER TABLE offline_batches ADD COLUMN control_totals jsonb;

-- Which numbers of a till's journal have arrived; a gap means that something is still out there.
CREATE TABLE terminal_journals (
    store_id text COLLATE "C" NOT NULL,
    terminal_id text COLLATE "C" NOT NULL,
    journal_id text COLLATE "C" NOT NULL,
    arrived int8multirange NOT NULL,
    CONSTRAINT pk_terminal_journals PRIMARY KEY (store_id, terminal_id, journal_id),
    CONSTRAINT fk_terminal_journals_store_id_terminals
        FOREIGN KEY (store_id, terminal_id) REFERENCES terminals (store_id, terminal_id)
);

ALTER TABLE cases
    ADD COLUMN recovered_minor bigint NOT NULL DEFAULT 0,
    ADD COLUMN detail text;
ALTER TABLE cases DROP CONSTRAINT ck_cases_outcome;
ALTER TABLE cases ADD CONSTRAINT ck_cases_outcome
    CHECK (outcome IN ('applied', 'held', 'quarantined', 'noticed'));
ALTER TABLE cases DROP CONSTRAINT ck_cases_key_all_or_nothing;
ALTER TABLE cases ADD CONSTRAINT ck_cases_key_all_or_nothing CHECK (
    num_nonnulls(transaction_id, line, operation, instrument_id, amount_minor, currency) IN (0, 6)
    AND (transaction_id IS NULL OR terminal_id IS NOT NULL)
);
ALTER TABLE cases ADD CONSTRAINT ck_cases_recovered_range
    CHECK (recovered_minor BETWEEN 0 AND shortfall_minor);
ALTER TABLE cases DROP CONSTRAINT ck_cases_resolution;
-- The first five are an administrator's; the others HQ's own: the question went away by itself.
ALTER TABLE cases ADD CONSTRAINT ck_cases_resolution CHECK (
    resolution IN ('absorb', 'recover', 'confirm_duplicate', 'apply', 'dismiss',
                   'voided', 'arrived')
);
-- What waits for something to arrive is looked for whenever something arrives.
CREATE INDEX ix_cases_waiting ON cases (instrument_id)
    WHERE resolved_at IS NULL AND outcome = 'held';

-- Double entry: for every posting, legs whose debits and credits are equal. Liability is what is
-- owed to the holders of instruments; store_clearing what the store's sales and returns claim;
-- offline_shortfall what a store gave away that no instrument covered.
CREATE VIEW ledger_entries AS
WITH legs AS (
    SELECT posting.*,
           CASE WHEN entry = 'resolution' THEN original_store_id ELSE store_id END AS booked_store,
           operation IN ('redeem', 'cash_out') AS is_debit
      FROM postings AS posting
)
SELECT booked_store AS store_id, currency, 'liability' AS account, posted_at AS booked_at,
       CASE WHEN change_minor < 0 THEN funded_minor ELSE 0 END AS debit_minor,
       CASE WHEN change_minor > 0 THEN funded_minor ELSE 0 END AS credit_minor
  FROM legs
 UNION ALL
SELECT booked_store, currency, 'store_clearing', posted_at,
       CASE WHEN is_debit = (entry = 'reversal') THEN amount_minor ELSE 0 END,
       CASE WHEN is_debit = (entry = 'reversal') THEN 0 ELSE amount_minor END
  FROM legs
 WHERE entry IN ('original', 'reversal', 'resolution') AND operation <> 'recover'
 UNION ALL
SELECT booked_store, currency, 'offline_shortfall', posted_at,
       CASE WHEN is_debit AND entry = 'reversal' THEN 0 ELSE shortfall_minor END,
       CASE WHEN is_debit AND entry = 'reversal' THEN shortfall_minor ELSE 0 END
  FROM legs
 WHERE shortfall_minor > 0
 UNION ALL
SELECT booked_store, currency, 'offline_shortfall', posted_at, 0, funded_minor
  FROM legs
 WHERE operation = 'recover'
 UNION ALL
SELECT booked_store, currency, 'breakage', posted_at, 0, funded_minor
  FROM legs
 WHERE entry = 'remainder_out' AND related_instrument_id IS NULL
 UNION ALL
SELECT store_id, currency, account, resolved_at,
       CASE WHEN account = 'store_loss' THEN shortfall_minor - recovered_minor ELSE 0 END,
       CASE WHEN account = 'store_loss' THEN 0 ELSE shortfall_minor - recovered_minor END
  FROM cases
 CROSS JOIN (VALUES ('store_loss'), ('offline_shortfall')) AS absorbed (account)
 WHERE resolution = 'absorb';
"""

DOWNGRADE = """
DROP VIEW ledger_entries;
DROP INDEX ix_cases_waiting;
ALTER TABLE cases DROP CONSTRAINT ck_cases_resolution;
ALTER TABLE cases ADD CONSTRAINT ck_cases_resolution CHECK (
    resolution IN ('absorb', 'recover', 'confirm_duplicate', 'apply', 'dismiss')
);
ALTER TABLE cases DROP CONSTRAINT ck_cases_key_all_or_nothing;
ALTER TABLE cases ADD CONSTRAINT ck_cases_key_all_or_nothing CHECK (
    num_nonnulls(terminal_id, transaction_id, line, operation, instrument_id, amount_minor,
                 currency) IN (0, 7)
);
ALTER TABLE cases DROP CONSTRAINT ck_cases_outcome;
ALTER TABLE cases ADD CONSTRAINT ck_cases_outcome
    CHECK (outcome IN ('applied', 'held', 'quarantined'));
ALTER TABLE cases DROP COLUMN recovered_minor, DROP COLUMN detail;
DROP TABLE terminal_journals;
ALTER TABLE offline_batches DROP COLUMN control_totals;
ALTER TABLE quarantined_lines DROP COLUMN terminal_id, DROP COLUMN transaction_id,
    DROP COLUMN line, DROP COLUMN journal_id, DROP COLUMN sequence;
ALTER TABLE offline_lines DROP COLUMN reason, DROP COLUMN tender_amount_minor,
    DROP COLUMN tender_currency, DROP COLUMN exchange_rate;
DROP INDEX ix_postings_original;
ALTER TABLE postings DROP CONSTRAINT ck_postings_operation;
ALTER TABLE postings ADD CONSTRAINT ck_postings_operation CHECK (
    operation IN ('redeem', 'issue', 'load', 'refund', 'cash_out', 'void')
);
ALTER TABLE postings DROP COLUMN tender_amount_minor, DROP COLUMN tender_currency,
    DROP COLUMN exchange_rate;
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
