"""Note which number secret the data is made with, and undo what voids undo.

Under another secret no instrument is found any more, and every card "does not exist": the service
must refuse to start instead. A void takes back the loss that a store had absorbed, and what was
forfeited of a memo; the double-entry view says both.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE number_secret (
    is_the_only_one boolean NOT NULL DEFAULT true,
    fingerprint bytea NOT NULL,
    noted_at timestamptz NOT NULL,
    CONSTRAINT pk_number_secret PRIMARY KEY (is_the_only_one),
    CONSTRAINT ck_number_secret_is_the_only_one CHECK (is_the_only_one),
    CONSTRAINT ck_number_secret_fingerprint_length CHECK (octet_length(fingerprint) = 32)
);

ALTER TABLE cases ADD COLUMN undone_at timestamptz;
ALTER TABLE cases ADD CONSTRAINT ck_cases_undone_is_absorbed
    CHECK (undone_at IS NULL OR resolution IS NOT DISTINCT FROM 'absorb');
"""

DOWNGRADE = """
ALTER TABLE cases DROP COLUMN undone_at;
DROP TABLE number_secret;
"""

LEGS = """
CREATE OR REPLACE VIEW ledger_entries AS
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
"""

BREAKAGE_BEFORE = """
 UNION ALL
SELECT booked_store, currency, 'breakage', posted_at, 0, funded_minor
  FROM legs
 WHERE entry = 'remainder_out' AND related_instrument_id IS NULL
"""

BREAKAGE = """
 UNION ALL
SELECT booked_store, currency, 'breakage', posted_at,
       CASE entry WHEN 'remainder_in' THEN funded_minor ELSE 0 END,
       CASE entry WHEN 'remainder_in' THEN 0 ELSE funded_minor END
  FROM legs
 WHERE entry IN ('remainder_out', 'remainder_in') AND related_instrument_id IS NULL
"""

ABSORBED = """
 UNION ALL
SELECT store_id, currency, account, resolved_at,
       CASE WHEN account = 'store_loss' THEN shortfall_minor - recovered_minor ELSE 0 END,
       CASE WHEN account = 'store_loss' THEN 0 ELSE shortfall_minor - recovered_minor END
  FROM cases
 CROSS JOIN (VALUES ('store_loss'), ('offline_shortfall')) AS absorbed (account)
 WHERE resolution = 'absorb'
"""

UNDONE = """
 UNION ALL
SELECT store_id, currency, account, undone_at,
       CASE WHEN account = 'store_loss' THEN 0 ELSE shortfall_minor - recovered_minor END,
       CASE WHEN account = 'store_loss' THEN shortfall_minor - recovered_minor ELSE 0 END
  FROM cases
 CROSS JOIN (VALUES ('store_loss'), ('offline_shortfall')) AS undone (account)
 WHERE undone_at IS NOT NULL
"""


def upgrade() -> None:
    op.execute(UPGRADE)
    op.execute(LEGS + BREAKAGE + ABSORBED + UNDONE)


def downgrade() -> None:
    op.execute(LEGS + BREAKAGE_BEFORE + ABSORBED)
    op.execute(DOWNGRADE)
