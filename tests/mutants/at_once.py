"""Defects of the statements that do at once what tills ask all day."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

REDEEM = "hq_service/store/sql/redeem_at_once.sql"
LOCK = "migrations/versions/0007_write_less.py"
TESTS = "tests/integration/test_at_once.py"
PLAIN = f"{TESTS}::test_the_plain_request_comes_to_the_same_after_whatever_was_before"


def _after(past: str, path: str) -> tuple[str, ...]:
    return (f"{PLAIN}[{past}-{path}]",)


def _unknown(table: str, more: str = "") -> str:
    return (
        f"       AND NOT EXISTS (SELECT FROM {table}\n"
        "                        WHERE store_id = $3 AND terminal_id = $4 AND transaction_id = $5\n"
        f"                          AND line = $6{more})\n"
    )


def _unknown_to_lock(table: str, more: str = "") -> str:
    return (
        f"       AND NOT EXISTS (SELECT FROM {table}\n"
        "                        WHERE store_id = the_store_id AND terminal_id = the_terminal_id\n"
        "                          AND transaction_id = the_transaction_id AND line = the_line"
        f"{more})"
    )


AT_ONCE = (
    Mutant(
        "a-key-that-was-used-on-another-card-redeems-at-once",
        "One sale takes its money from two cards.",
        REDEEM,
        _unknown("postings", " AND entry = 'original'"),
        "",
        _after("key_used_on_another_card_meanwhile", "/v1/redemptions"),
    ),
    Mutant(
        "a-voided-key-redeems-at-once",
        "A sale that was voided takes its money all the same.",
        REDEEM,
        _unknown("voids"),
        "",
        _after("voided_on_another_card_meanwhile", "/v1/redemptions"),
    ),
    Mutant(
        "a-held-key-redeems-at-once",
        "What waits for an administrator is posted beside it.",
        REDEEM,
        _unknown("held_lines"),
        "",
        _after("locked_and_held", "/v1/redemptions"),
    ),
    Mutant(
        "a-blocked-card-redeems-at-once",
        "The status of the card is left to the rules, which are not asked.",
        REDEEM,
        "       AND kind = 'gift_card' AND status = 'active'\n",
        "       AND kind = 'gift_card'\n",
        _after("locked_and_blocked", "/v1/redemptions"),
    ),
    Mutant(
        "a-revoked-key-redeems-at-once",
        "An API key is looked up, and not whether it was revoked.",
        REDEEM,
        " AND revoked_at IS NULL AND",
        " AND",
        _after("key_revoked", "/v1/redemptions"),
    ),
    Mutant(
        "a-voided-key-locks-at-once",
        "A lock is given for a key that shall have no effect.",
        LOCK,
        _unknown_to_lock("voids") + "\n",
        "",
        _after("voided_before", "/v1/locks"),
    ),
    Mutant(
        "a-concluded-key-locks-at-once",
        "A lock is given for a line that has been concluded.",
        LOCK,
        "\n" + _unknown_to_lock("postings", "\n                          AND entry = 'original'"),
        "",
        _after("redeemed", "/v1/locks"),
    ),
    Mutant(
        "a-retired-register-locks-at-once",
        "Whether the register is in use is not looked at.",
        LOCK,
        "       AND terminal.retired_at IS NULL AND store.retired_at IS NULL\n"
        "       AND terminal.supports_offline",
        "       AND terminal.supports_offline",
        _after("retired_before", "/v1/locks"),
    ),
    Mutant(
        "a-lock-at-once-goes-by-what-the-register-had-acknowledged-once",
        "What a grant rests on is kept in the process, and nobody looks whether it is still so.",
        LOCK,
        "       AND presence.acknowledged_revision IS NOT DISTINCT FROM expected_revision\n",
        "",
        (f"{TESTS}::test_a_register_that_acknowledged_something_since_is_granted_by_that",),
    ),
    Mutant(
        "a-lease-at-once-goes-by-what-was-in-force-once",
        "A lease rests on what is kept in the process, and nobody looks whether it is still so.",
        LOCK,
        "       AND NOT EXISTS (SELECT FROM parameter_revisions\n"
        "                        WHERE revision > expected_parameters_revision\n",
        "       AND NOT EXISTS (SELECT FROM parameter_revisions\n"
        "                        WHERE false AND revision > expected_parameters_revision\n",
        (f"{TESTS}::test_a_lease_is_as_long_as_what_was_saved_since_says",),
    ),
)
