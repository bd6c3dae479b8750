"""Give a lock in one statement, if everything is as it should be.

A function and not one statement with several parts: what may have been committed while it waited
for the row of the instrument, a void of the same business key or a retirement, must be seen by the
part behind it, and the parts of one statement all see the moment at which it began.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE FUNCTION lock_at_once(
    the_key_id text, the_secret_sha256 bytea, the_store_id text, the_terminal_id text,
    the_transaction_id text, the_line int, the_bucket int, the_instrument_id uuid, the_kind text,
    the_lock_id uuid, the_moment timestamptz, the_grant_until timestamptz, the_grant_revision int,
    expected_support boolean, expected_revision int
) RETURNS TABLE (
    number_last4 text, currency text, balance_minor bigint, last_seen_at timestamptz,
    parameters_revision int
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    card record;
BEGIN
    -- A card that is locked already matches nothing: no row lock is taken, nothing is written.
    UPDATE instruments
       SET lock_id = the_lock_id, lock_store_id = the_store_id,
           lock_terminal_id = the_terminal_id, lock_transaction_id = the_transaction_id,
           lock_line = the_line, lock_purpose = 'redeem', lock_amount_minor = balance_minor,
           locked_at = the_moment, lock_grant_until = the_grant_until,
           lock_grant_revision = the_grant_revision
     WHERE bucket = the_bucket AND instrument_id = the_instrument_id
       AND kind = the_kind AND status = 'active' AND lock_id IS NULL
       AND EXISTS (SELECT FROM api_keys
                    WHERE key_id = the_key_id AND secret_sha256 = the_secret_sha256
                      AND role = 'terminal' AND store_id = the_store_id
                      AND terminal_id = the_terminal_id AND revoked_at IS NULL
                      AND (expires_at IS NULL OR expires_at > the_moment))
    RETURNING instruments.number_last4, instruments.currency, instruments.balance_minor INTO card;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- Now with everything that was committed meanwhile.
    INSERT INTO live_locks (
        bucket, instrument_id, lock_id, store_id, terminal_id, locked_at, amount_minor, grant_until
    )
    SELECT the_bucket, the_instrument_id, the_lock_id, the_store_id, the_terminal_id, the_moment,
           card.balance_minor, the_grant_until
      FROM terminals AS terminal
      JOIN stores AS store
        ON store.store_id = terminal.store_id
      LEFT JOIN terminal_presence AS presence
        ON presence.store_id = terminal.store_id AND presence.terminal_id = terminal.terminal_id
     WHERE terminal.store_id = the_store_id AND terminal.terminal_id = the_terminal_id
       AND terminal.retired_at IS NULL AND store.retired_at IS NULL
       AND terminal.supports_offline = expected_support
       AND presence.acknowledged_revision IS NOT DISTINCT FROM expected_revision
       AND NOT EXISTS (SELECT FROM voids
                        WHERE store_id = the_store_id AND terminal_id = the_terminal_id
                          AND transaction_id = the_transaction_id AND line = the_line)
       AND NOT EXISTS (SELECT FROM postings
                        WHERE store_id = the_store_id AND terminal_id = the_terminal_id
                          AND transaction_id = the_transaction_id AND line = the_line
                          AND entry = 'original');
    IF NOT FOUND THEN
        RAISE EXCEPTION 'not at once' USING ERRCODE = 'HQ001';
    END IF;
    RETURN QUERY
    SELECT card.number_last4, card.currency, card.balance_minor,
           (SELECT presence.last_seen_at
              FROM terminal_presence AS presence
             WHERE presence.store_id = the_store_id AND presence.terminal_id = the_terminal_id),
           (SELECT coalesce(max(revision), 0)
              FROM parameter_revisions
             WHERE store_id IS NULL OR store_id = the_store_id);
END $$
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute("DROP FUNCTION lock_at_once")
