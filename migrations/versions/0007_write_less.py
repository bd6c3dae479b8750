"""Write less for each posting and each lock: what is written for every sale is paid at every sale.

The foreign keys of postings and live locks lock the row of the instrument a second time, which the
same statement has just changed; nothing deletes an instrument. A spent lock is found by the
postings of its instrument, and an original by an index of its own. PostgreSQL parses and plans
every CHECK of a table anew for every statement that writes to it; the body of a function it
compiles once per session, so the rules of a row are one function. Why, and what it saves:
``docs/decisions/0014-what-is-written-for-every-sale-is-little.md``.
"""

from collections.abc import Mapping

from alembic import context, op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Rule -> what must not be false of a row; as they were before, and are again after a downgrade.
INSTRUMENT_RULES = {
    "ck_instruments_bucket": """
        bucket = ((get_byte(uuid_send(instrument_id), 0) << 2)
                  | (get_byte(uuid_send(instrument_id), 1) >> 6))""",
    "ck_instruments_kind": "kind IN ('gift_card', 'credit_memo')",
    "ck_instruments_currency": "currency ~ '^[A-Z]{3}$'",
    "ck_instruments_number_last4_only": "length(number_last4) = 4",
    "ck_instruments_status": """
        status IN ('pending', 'active', 'blocked', 'expired', 'closed')
        OR (status = 'applied' AND kind = 'credit_memo')""",
    "ck_instruments_balance_not_negative": "balance_minor >= 0",
    "ck_instruments_worthless_has_no_balance": """
        status NOT IN ('pending', 'applied', 'closed') OR balance_minor = 0""",
    "ck_instruments_version_not_negative": "version >= 0",
    "ck_instruments_remainder_of_memo": "remainder_id IS NULL OR kind = 'credit_memo'",
    "ck_instruments_lock_all_or_nothing": """
        num_nonnulls(lock_id, lock_store_id, lock_terminal_id, lock_transaction_id, lock_line,
                     lock_purpose, lock_amount_minor, locked_at) IN (0, 8)""",
    "ck_instruments_grant_needs_lock": """
        num_nonnulls(lock_grant_until, lock_grant_revision) IN (0, 2)
        AND (lock_grant_until IS NULL OR lock_id IS NOT NULL)""",
    "ck_instruments_lock_purpose": """
        lock_purpose IN ('redeem', 'load', 'issue', 'refund', 'cash_out')""",
    "ck_instruments_lock_amount_not_negative": "lock_amount_minor >= 0",
}
POSTING_RULES = {
    "ck_postings_entry": """
        entry IN ('original', 'reversal', 'remainder_out', 'remainder_in', 'resolution')""",
    "ck_postings_operation": """
        operation IN ('redeem', 'issue', 'load', 'refund', 'cash_out', 'recover')""",
    "ck_postings_amount_is_funded_and_shortfall": """
        amount_minor = funded_minor + shortfall_minor""",
    "ck_postings_amounts_not_negative": "funded_minor >= 0 AND shortfall_minor >= 0",
    "ck_postings_change_is_funded": "abs(change_minor) = funded_minor",
    "ck_postings_balance_after_not_negative": "balance_after_minor >= 0",
    "ck_postings_version_positive": "version > 0",
    "ck_postings_lock_id_with_locked_at": "num_nonnulls(lock_id, locked_at) IN (0, 2)",
    "ck_postings_original_all_or_nothing": """
        num_nonnulls(original_store_id, original_terminal_id, original_transaction_id,
                     original_line) IN (0, 4)""",
    "ck_postings_tender_all_or_nothing": """
        num_nonnulls(tender_amount_minor, tender_currency, exchange_rate) IN (0, 3)""",
}
# An array takes its place also when it is empty.
NEW_POSTING_RULES = {"ck_postings_codes_not_empty": "codes <> '{}'"}
INSTRUMENT_COLUMNS = {
    "bucket": "int",
    "instrument_id": "uuid",
    "kind": "text",
    "currency": "text",
    "number_last4": "text",
    "status": "text",
    "balance_minor": "bigint",
    "version": "bigint",
    "remainder_id": "uuid",
    "lock_id": "uuid",
    "lock_store_id": "text",
    "lock_terminal_id": "text",
    "lock_transaction_id": "text",
    "lock_line": "int",
    "lock_purpose": "text",
    "lock_amount_minor": "bigint",
    "locked_at": "timestamptz",
    "lock_grant_until": "timestamptz",
    "lock_grant_revision": "int",
}
POSTING_COLUMNS = {
    "entry": "text",
    "operation": "text",
    "amount_minor": "bigint",
    "funded_minor": "bigint",
    "shortfall_minor": "bigint",
    "change_minor": "bigint",
    "balance_after_minor": "bigint",
    "version": "bigint",
    "lock_id": "uuid",
    "locked_at": "timestamptz",
    "original_store_id": "text",
    "original_terminal_id": "text",
    "original_transaction_id": "text",
    "original_line": "int",
    "tender_amount_minor": "bigint",
    "tender_currency": "text",
    "exchange_rate": "text",
    "codes": "text[]",
}


def function_over(
    table: str, function: str, columns: Mapping[str, str], rules: Mapping[str, str]
) -> str:
    """Return what puts rules on a table as one CHECK, by a function of the row's columns.

    The function refuses a row as a CHECK of the broken rule's name would, the first by name if
    several are broken, and its error has no values of the row.
    """
    in_order = sorted(rules.items())  # as PostgreSQL goes through checks, also until one overflows
    sound = " AND ".join(f"({rule})" for _, rule in in_order)
    searched = " ".join(f"WHEN ({rule}) IS FALSE THEN '{name}'" for name, rule in in_order)
    return f"""
CREATE FUNCTION {function}({", ".join(f"{name} {kind}" for name, kind in columns.items())})
RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    broken text;
BEGIN
    -- One expression for a sound row, of which nothing is false; NULL passes, as in a CHECK.
    IF ({sound}) IS NOT FALSE THEN
        RETURN true;
    END IF;
    broken := CASE {searched} END;
    RAISE EXCEPTION 'new row for relation "{table}" violates check constraint "%"', broken
        USING ERRCODE = 'check_violation', TABLE = '{table}', CONSTRAINT = broken;
END $$;
ALTER TABLE {table} ADD CONSTRAINT ck_{table} CHECK ({function}({", ".join(columns)}));
"""


def dropped(table: str, rules: Mapping[str, str]) -> str:
    return f"ALTER TABLE {table} {', '.join(f'DROP CONSTRAINT {name}' for name in rules)};"


def added(table: str, rules: Mapping[str, str]) -> str:
    checks = ", ".join(f"ADD CONSTRAINT {name} CHECK ({rule})" for name, rule in rules.items())
    return f"ALTER TABLE {table} {checks};"


UPGRADE = """
ALTER TABLE live_locks DROP CONSTRAINT fk_live_locks_bucket_instruments;
ALTER TABLE postings DROP CONSTRAINT fk_postings_bucket_instruments;
ALTER TABLE postings DROP CONSTRAINT uq_postings_business_key;
DROP INDEX uq_postings_lock_id;
ALTER TABLE postings ALTER COLUMN codes DROP NOT NULL;
UPDATE postings SET codes = NULL WHERE codes = '{}';
CREATE UNIQUE INDEX uq_postings_business_key
    ON postings (store_id, terminal_id, transaction_id, line, bucket)
    WHERE entry = 'original';
CREATE UNIQUE INDEX uq_postings_business_key_and_entry
    ON postings (store_id, terminal_id, transaction_id, line, entry, bucket)
    WHERE entry <> 'original';

DROP FUNCTION lock_at_once;
CREATE FUNCTION lock_at_once(
    the_key_id text, the_secret_sha256 bytea, the_store_id text, the_terminal_id text,
    the_transaction_id text, the_line int, the_bucket int, the_instrument_id uuid, the_kind text,
    the_lock_id uuid, the_moment timestamptz, the_grant_until timestamptz, the_grant_revision int,
    expected_support boolean, expected_revision int, expected_parameters_revision int
) RETURNS TABLE (
    is_given boolean, number_last4 text, currency text, balance_minor bigint,
    -- Of one that is not given, also what the rules refuse it by.
    status text, version bigint,
    lock_id uuid, lock_store_id text, lock_terminal_id text, lock_transaction_id text,
    lock_line int, lock_purpose text, lock_amount_minor bigint, locked_at timestamptz,
    lock_grant_until timestamptz, lock_grant_revision int,
    holder_last_seen_at timestamptz, is_voided boolean, is_concluded boolean,
    is_holder_voided boolean
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
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
    RETURNING instruments.number_last4, instruments.currency, instruments.balance_minor
         INTO number_last4, currency, balance_minor;
    IF NOT FOUND THEN
        RETURN QUERY
        SELECT false, card.number_last4, card.currency, card.balance_minor,
               card.status, card.version,
               card.lock_id, card.lock_store_id, card.lock_terminal_id, card.lock_transaction_id,
               card.lock_line, card.lock_purpose, card.lock_amount_minor, card.locked_at,
               card.lock_grant_until, card.lock_grant_revision, holder.last_seen_at,
               EXISTS (SELECT FROM voids
                        WHERE store_id = the_store_id AND terminal_id = the_terminal_id
                          AND transaction_id = the_transaction_id AND line = the_line),
               EXISTS (SELECT FROM postings
                        WHERE store_id = the_store_id AND terminal_id = the_terminal_id
                          AND transaction_id = the_transaction_id AND line = the_line
                          AND entry = 'original'),
               EXISTS (SELECT FROM voids AS void
                        WHERE void.store_id = card.lock_store_id
                          AND void.terminal_id = card.lock_terminal_id
                          AND void.transaction_id = card.lock_transaction_id
                          AND void.line = card.lock_line)
          FROM api_keys AS caller
          JOIN terminals AS terminal
            ON terminal.store_id = caller.store_id AND terminal.terminal_id = caller.terminal_id
          JOIN stores AS store
            ON store.store_id = terminal.store_id
          JOIN instruments AS card
            ON card.bucket = the_bucket AND card.instrument_id = the_instrument_id
          LEFT JOIN terminal_presence AS holder
            ON holder.store_id = card.lock_store_id
           AND holder.terminal_id = card.lock_terminal_id
         WHERE caller.key_id = the_key_id AND caller.secret_sha256 = the_secret_sha256
           AND caller.role = 'terminal' AND caller.store_id = the_store_id
           AND caller.terminal_id = the_terminal_id AND caller.revoked_at IS NULL
           AND (caller.expires_at IS NULL OR caller.expires_at > the_moment)
           AND card.kind = the_kind AND card.remainder_id IS NULL
           AND terminal.retired_at IS NULL AND store.retired_at IS NULL
           AND NOT EXISTS (SELECT FROM parameter_revisions
                            WHERE revision > expected_parameters_revision
                              AND (store_id IS NULL OR store_id = the_store_id));
        RETURN;
    END IF;
    -- Now with everything that was committed meanwhile: this statement waits for a retirement that
    -- is under way, and looks at nothing before that.
    INSERT INTO live_locks (
        bucket, instrument_id, lock_id, store_id, terminal_id, locked_at, amount_minor, grant_until
    )
    SELECT the_bucket, the_instrument_id, the_lock_id, the_store_id, the_terminal_id, the_moment,
           balance_minor, the_grant_until
      FROM terminals AS terminal
      JOIN stores AS store
        ON store.store_id = terminal.store_id
      LEFT JOIN terminal_presence AS presence
        ON presence.store_id = terminal.store_id AND presence.terminal_id = terminal.terminal_id
     WHERE terminal.store_id = the_store_id AND terminal.terminal_id = the_terminal_id
       AND terminal.retired_at IS NULL AND store.retired_at IS NULL
       AND terminal.supports_offline = expected_support
       AND presence.acknowledged_revision IS NOT DISTINCT FROM expected_revision
       AND NOT EXISTS (SELECT FROM parameter_revisions
                        WHERE revision > expected_parameters_revision
                          AND (store_id IS NULL OR store_id = the_store_id))
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
    is_given := true;
    RETURN NEXT;
END $$
"""

DOWNGRADE = """
ALTER TABLE instruments DROP CONSTRAINT ck_instruments;
ALTER TABLE postings DROP CONSTRAINT ck_postings;
DROP FUNCTION is_sound_instrument, is_sound_posting;
UPDATE postings SET codes = '{}' WHERE codes IS NULL;
ALTER TABLE postings ALTER COLUMN codes SET NOT NULL;
DROP INDEX uq_postings_business_key, uq_postings_business_key_and_entry;
ALTER TABLE postings
    ADD CONSTRAINT uq_postings_business_key
        UNIQUE (store_id, terminal_id, transaction_id, line, entry, bucket),
    ADD CONSTRAINT fk_postings_bucket_instruments
        FOREIGN KEY (bucket, instrument_id) REFERENCES instruments (bucket, instrument_id);
CREATE UNIQUE INDEX uq_postings_lock_id ON postings (bucket, lock_id)
    WHERE lock_id IS NOT NULL AND entry = 'original';
ALTER TABLE live_locks
    ADD CONSTRAINT fk_live_locks_bucket_instruments
        FOREIGN KEY (bucket, instrument_id) REFERENCES instruments (bucket, instrument_id);
DROP FUNCTION lock_at_once;
"""


def upgrade() -> None:
    op.execute(UPGRADE)
    rules = {**POSTING_RULES, **NEW_POSTING_RULES}
    op.execute(dropped("instruments", INSTRUMENT_RULES))
    op.execute(dropped("postings", POSTING_RULES))
    op.execute(
        function_over("instruments", "is_sound_instrument", INSTRUMENT_COLUMNS, INSTRUMENT_RULES)
    )
    op.execute(function_over("postings", "is_sound_posting", POSTING_COLUMNS, rules))


def downgrade() -> None:
    op.execute(DOWNGRADE)
    op.execute(added("instruments", INSTRUMENT_RULES))
    op.execute(added("postings", POSTING_RULES))
    op.execute(context.script.get_revision("0005").module.UPGRADE)
