"""A lock and a grant prove the operation and the amount that they were given for, nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.acting import (
    break_lock,
    is_free,
    loaded,
    posted,
    redeemed,
    release_line,
    remainder_of,
    settled,
    sold_instrument,
    state_of,
)
from tests.support import Card, Hq, Till, sale_line

pytestmark = pytest.mark.usefixtures("whole_afterwards")

FORGET_THE_LOCK = """
    UPDATE instruments
       SET lock_id = NULL, lock_store_id = NULL, lock_terminal_id = NULL,
           lock_transaction_id = NULL, lock_line = NULL, lock_purpose = NULL,
           lock_amount_minor = NULL, locked_at = NULL, lock_grant_until = NULL,
           lock_grant_revision = NULL
     WHERE instrument_id = %s
"""


def forget_lock(hq: Hq, card: Card) -> None:
    """Let HQ know nothing of a lock, as after a restore from a backup."""
    hq.sql("DELETE FROM live_locks WHERE instrument_id = %s", card.instrument_id)
    hq.sql(FORGET_THE_LOCK, card.instrument_id)


def forget_instrument(hq: Hq, card: Card) -> None:
    """Let HQ know nothing of an instrument that was only locked yet."""
    hq.sql("DELETE FROM live_locks WHERE instrument_id = %s", card.instrument_id)
    hq.sql("DELETE FROM instruments WHERE instrument_id = %s", card.instrument_id)


def grant_of(lock: TestResponse) -> str:
    """Return the grant that went with a lock."""
    assert lock.status_code == 201, lock.json
    grant: str = lock.json["offline"]["grant"]
    assert grant is not None
    return grant


def a_till_that_may_trade_offline(hq: Hq) -> Till:
    till = hq.till()
    hq.allow_offline(till)
    return till


def lock_that_paid(hq: Hq, till: Till, transaction_id: str) -> str | None:
    rows = hq.sql(
        "SELECT lock_id::text FROM postings WHERE entry = 'original' AND store_id = %s"
        " AND terminal_id = %s AND transaction_id = %s",
        till.store_id,
        till.terminal_id,
        transaction_id,
    )
    found: str | None = rows[0][0]
    return found


# A lock that lives.


@pytest.mark.parametrize(
    ("operation", "amount_minor", "balance_minor"), [("cash_out", 100, 0), ("load", 40, 140)]
)
def test_a_line_under_a_lock_to_redeem_that_does_something_else_is_told(
    hq: Hq, operation: str, amount_minor: int, balance_minor: int
) -> None:
    till, card = a_till_that_may_trade_offline(hq), hq.issue(100)
    lock = till.lock(card, "X1")
    line = till.offline_line(card, "X1", amount_minor, operation=operation)
    result = settled(hq, till, line)
    assert (result["outcome"], result["funded_minor"]) == ("applied", amount_minor)
    assert "not_as_locked" in result["codes"]
    assert hq.case(result["case_id"])["resolution"] is None
    assert lock_that_paid(hq, till, "X1") == lock.json["lock_id"]
    assert is_free(hq, card)
    assert hq.balance(card) == balance_minor


def test_a_line_that_redeems_under_a_lock_to_load_is_told(hq: Hq) -> None:
    till, card = a_till_that_may_trade_offline(hq), hq.issue(100)
    lock = till.lock(card, "X1", purpose="load", amount_minor=50)
    line = till.offline_line(card, "X1", 80, grant=grant_of(lock))
    result = settled(hq, till, line)
    assert {"not_as_locked", "over_grant"} <= set(result["codes"])
    assert (result["funded_minor"], hq.balance(card)) == (80, 20)
    assert is_free(hq, card)


def test_a_line_that_does_what_its_lock_was_for_is_told_nothing(hq: Hq) -> None:
    till, card = a_till_that_may_trade_offline(hq), hq.issue(100)
    lock = till.lock(card, "X1", purpose="load", amount_minor=50)
    line = till.offline_line(card, "X1", 50, operation="load", grant=grant_of(lock))
    result = settled(hq, till, line)
    assert (result["codes"], result["case_id"]) == ([], None)


# A lock that is gone.


def test_a_load_above_the_amount_of_its_released_lock_is_told(hq: Hq) -> None:
    till, card = a_till_that_may_trade_offline(hq), hq.issue(10)
    lock = till.lock(card, "X1", purpose="load", amount_minor=50)
    till.release(card, "X1", lock.json["lock_id"])
    line = till.offline_line(card, "X1", 999_999, operation="load", grant=grant_of(lock))
    result = settled(hq, till, line)
    assert {"stale_lock", "over_grant"} <= set(result["codes"])
    assert "not_as_locked" not in result["codes"]
    assert hq.case(result["case_id"])["resolution"] is None


def test_a_load_within_the_amount_of_its_released_lock_is_only_late(hq: Hq) -> None:
    till, card = a_till_that_may_trade_offline(hq), hq.issue(10)
    lock = till.lock(card, "X1", purpose="load", amount_minor=50)
    till.release(card, "X1", lock.json["lock_id"])
    line = till.offline_line(card, "X1", 50, operation="load", grant=grant_of(lock))
    assert settled(hq, till, line)["codes"] == ["stale_lock"]


def test_a_load_after_the_release_of_a_lock_to_redeem_is_told(hq: Hq) -> None:
    till, card = a_till_that_may_trade_offline(hq), hq.issue(100)
    lock = till.lock(card, "X1")
    till.release(card, "X1", lock.json["lock_id"])
    result = settled(hq, till, till.offline_line(card, "X1", 40, operation="load"))
    assert {"stale_lock", "not_as_locked"} <= set(result["codes"])
    assert hq.case(result["case_id"])["resolution"] is None


def test_a_redemption_after_a_lock_to_load_was_broken_is_told(hq: Hq) -> None:
    till, card = a_till_that_may_trade_offline(hq), hq.issue(100)
    till.lock(card, "X1", purpose="load", amount_minor=20)
    break_lock(hq, card)
    result = settled(hq, till, till.offline_line(card, "X1", 30))
    assert {"lock_broken", "not_as_locked", "over_grant"} <= set(result["codes"])
    assert hq.balance(card) == 70


# A lock of another card.


@pytest.mark.parametrize("is_one_batch", [True, False])
def test_a_lock_that_was_spent_on_one_card_says_nothing_of_another(
    hq: Hq, is_one_batch: bool
) -> None:
    till, card, other = a_till_that_may_trade_offline(hq), hq.issue(100), hq.issue(100)
    lock = till.lock(card, "X1")
    lines = [
        till.offline_line(card, "X1", 10, lock_id=lock.json["lock_id"]),
        till.offline_line(other, "X1", 20, line=2, lock_id=lock.json["lock_id"]),
    ]
    if is_one_batch:
        results = posted(hq, till, *lines)
    else:
        results = [settled(hq, till, line) for line in lines]
    assert [one["outcome"] for one in results] == ["applied", "applied"]
    assert results[1]["codes"] == ["no_lock", "offline_not_permitted"]
    assert (hq.balance(card), hq.balance(other)) == (90, 80)


# A grant without a lock.


def test_a_grant_to_redeem_is_none_to_load(hq: Hq) -> None:
    till, card = a_till_that_may_trade_offline(hq), hq.issue(100)
    grant = grant_of(till.lock(card, "X1"))
    forget_lock(hq, card)
    result = settled(hq, till, till.offline_line(card, "X1", 40, operation="load", grant=grant))
    assert {"no_lock", "grant_invalid"} <= set(result["codes"])
    assert "lock_reconstructed" not in result["codes"]
    assert lock_that_paid(hq, till, "X1") is None


def test_a_grant_to_load_is_none_to_redeem(hq: Hq) -> None:
    till, card = a_till_that_may_trade_offline(hq), hq.issue(100)
    grant = grant_of(till.lock(card, "X1", purpose="load", amount_minor=50))
    forget_lock(hq, card)
    result = settled(hq, till, till.offline_line(card, "X1", 40, grant=grant))
    assert {"no_lock", "grant_invalid"} <= set(result["codes"])
    assert hq.balance(card) == 60


def test_a_load_above_its_grant_is_told(hq: Hq) -> None:
    till, card = a_till_that_may_trade_offline(hq), hq.issue(10)
    grant = grant_of(till.lock(card, "X1", purpose="load", amount_minor=50))
    forget_lock(hq, card)
    line = till.offline_line(card, "X1", 999_999, operation="load", grant=grant)
    result = settled(hq, till, line)
    assert {"lock_reconstructed", "over_grant"} <= set(result["codes"])
    assert hq.case(result["case_id"])["resolution"] is None


def test_a_redemption_above_its_grant_is_told_although_the_card_covers_it(hq: Hq) -> None:
    till, card = a_till_that_may_trade_offline(hq), hq.issue(100)
    grant = grant_of(till.lock(card, "X1"))
    forget_lock(hq, card)
    loaded(hq.till(), card, "L1", 500)
    result = settled(hq, till, till.offline_line(card, "X1", 600, grant=grant))
    assert {"lock_reconstructed", "over_grant"} <= set(result["codes"])
    assert (result["funded_minor"], result["shortfall_minor"]) == (600, 0)
    assert hq.case(result["case_id"])["resolution"] is None


def test_a_redemption_within_its_grant_is_told_nothing_but_that_hq_forgot(hq: Hq) -> None:
    till, card = a_till_that_may_trade_offline(hq), hq.issue(100)
    grant = grant_of(till.lock(card, "X1"))
    forget_lock(hq, card)
    result = settled(hq, till, till.offline_line(card, "X1", 100, grant=grant))
    assert (result["codes"], result["case_id"]) == (["lock_reconstructed"], None)


@pytest.mark.parametrize(("amount_minor", "is_created"), [(60, True), (100, True), (101, False)])
def test_a_grant_creates_a_card_up_to_its_amount(
    hq: Hq, amount_minor: int, is_created: bool
) -> None:
    till = a_till_that_may_trade_offline(hq)
    lock = till.lock_new("X1", 100)
    card = hq.card_of(lock)
    forget_instrument(hq, card)
    line = till.offline_line(card, "X1", amount_minor, operation="issue", grant=grant_of(lock))
    result = settled(hq, till, line)
    if is_created:
        assert (result["outcome"], hq.balance(card)) == ("applied", amount_minor)
    else:
        assert (result["outcome"], result["codes"]) == ("held", ["unknown_instrument"])


def test_a_grant_to_redeem_creates_no_card(hq: Hq) -> None:
    till = a_till_that_may_trade_offline(hq)
    card = sold_instrument(hq, till, "I1", 10)
    grant = grant_of(till.lock(card, "X1"))
    hq.sql("DELETE FROM live_locks WHERE instrument_id = %s", card.instrument_id)
    hq.sql("DELETE FROM postings WHERE instrument_id = %s", card.instrument_id)
    hq.sql("DELETE FROM instruments WHERE instrument_id = %s", card.instrument_id)
    result = settled(hq, till, till.offline_line(card, "X1", 10, operation="issue", grant=grant))
    assert (result["outcome"], result["codes"]) == ("held", ["unknown_instrument"])
    assert not hq.sql("SELECT 1 FROM instruments WHERE instrument_id = %s", card.instrument_id)


# Credit memos: issued, and used once.


@pytest.mark.parametrize("is_locked", [False, True])
def test_nothing_is_loaded_onto_a_memo_in_a_batch(hq: Hq, is_locked: bool) -> None:
    till, memo = a_till_that_may_trade_offline(hq), hq.issue(100, kind="credit_memo")
    if is_locked:
        till.lock(memo, "X1")
    result = settled(hq, till, till.offline_line(memo, "X1", 40, operation="load"))
    assert (result["outcome"], result["codes"]) == ("held", ["operation_not_allowed"])
    assert (state_of(hq, memo), hq.case(result["case_id"])["resolution"]) == (("active", 100), None)


@pytest.mark.parametrize("is_linked", [False, True])
def test_nothing_is_refunded_to_a_memo_in_a_batch(hq: Hq, is_linked: bool) -> None:
    till, memo, card = hq.till(), hq.issue(100, kind="credit_memo"), hq.issue(50)
    redeemed(till, card, "X1", 50)
    more = {"original": till.key_of("X1")} if is_linked else {"reason": "no receipt"}
    line = till.offline_line(memo, "R1", 40, operation="refund", **more)
    result = settled(hq, till, line)
    assert (result["outcome"], result["codes"]) == ("held", ["operation_not_allowed"])
    assert state_of(hq, memo) == ("active", 100)


def test_a_cash_out_of_a_part_of_a_memo_in_a_batch_uses_the_memo(hq: Hq) -> None:
    till, memo = a_till_that_may_trade_offline(hq), hq.issue(100, kind="credit_memo")
    till.lock(memo, "X1")
    result = settled(hq, till, till.offline_line(memo, "X1", 40, operation="cash_out"))
    assert (result["outcome"], result["funded_minor"]) == ("applied", 40)
    assert "not_as_locked" in result["codes"]
    assert result["remainder_id"] == remainder_of(hq, memo)
    assert (state_of(hq, memo), hq.balance(memo)) == (("applied", 0), 60)


def test_a_cash_out_of_a_whole_memo_in_a_batch_uses_it_up(hq: Hq) -> None:
    till, memo = hq.till(), hq.issue(100, kind="credit_memo")
    result = settled(hq, till, till.offline_line(memo, "X1", 100, operation="cash_out"))
    assert (result["outcome"], result["remainder_id"]) == ("applied", None)
    assert state_of(hq, memo) == ("applied", 0)


# A key that is asked for again.


def test_a_lock_that_is_asked_for_again_for_another_purpose_is_refused(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    lock = till.lock(card, "X1")
    other = till.lock(card, "X1", purpose="load", amount_minor=50)
    assert (other.status_code, other.json["code"]) == (422, "business_key_reused")
    again = till.lock(card, "X1")
    assert (again.status_code, again.json["lock_id"]) == (200, lock.json["lock_id"])
    assert till.redeem(card, "X1", 100, lock.json["lock_id"]).status_code == 201


def test_a_lock_that_is_asked_for_again_for_another_amount_is_refused(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    assert till.lock(card, "X1", purpose="load", amount_minor=50).status_code == 201
    other = till.lock(card, "X1", purpose="load", amount_minor=60)
    assert (other.status_code, other.json["code"]) == (422, "business_key_reused")
    assert till.lock(card, "X1", purpose="load", amount_minor=50).status_code == 200


def test_an_issue_that_is_asked_for_again_for_another_amount_is_refused(hq: Hq) -> None:
    till = hq.till()
    lock = till.lock_new("X1", 300)
    other = till.lock_new("X1", 500)
    assert (other.status_code, other.json["code"]) == (422, "business_key_reused")
    again = till.lock_new("X1", 300)
    assert (again.status_code, again.json["number"]) == (200, lock.json["number"])
    assert till.conclude("X1", sale_line(lock, 300, operation="issue")).status_code == 201


def test_a_new_memo_and_the_rest_of_a_used_one_under_one_key_are_two_memos(hq: Hq) -> None:
    till, memo = hq.till(), hq.issue(100, kind="credit_memo")
    issue = till.lock_new("X1", 500, kind="credit_memo")
    new = hq.card_of(issue)
    lock = till.lock(memo, "X1")
    assert (issue.status_code, lock.status_code) == (201, 201)
    remainder = till.redeem(memo, "X1", 30, lock.json["lock_id"]).json["remainder"]
    assert remainder["instrument_id"] != new.instrument_id
    assert remainder["number"] != new.number
    assert (state_of(hq, new), hq.balance(memo)) == (("pending", 0), 70)
    assert not is_free_for_issue(hq, new)


def is_free_for_issue(hq: Hq, card: Card) -> bool:
    return not hq.sql(
        "SELECT 1 FROM instruments WHERE instrument_id = %s AND lock_id IS NOT NULL",
        card.instrument_id,
    )


# A till whose journal begins anew.


def a_reimaged_till(hq: Hq) -> tuple[Till, Card, Any]:
    """Return a till that counts from 1 again in the same journal, and what it has locked since."""
    till, card = hq.till(), hq.issue(100)
    settled(hq, till, till.offline_line(card, "X1", 10))
    till.sequence = 0
    lock = till.lock(card, "X9")
    assert lock.status_code == 201
    return till, card, lock.json


def test_a_release_at_a_reused_place_frees_the_lock_that_it_names(hq: Hq) -> None:
    till, card, lock = a_reimaged_till(hq)
    line = release_line(till, card, "X9", lock_id=lock["lock_id"])
    assert line["sequence"] == 1
    assert settled(hq, till, line)["outcome"] == "applied"
    assert is_free(hq, card)


def test_a_release_at_a_reused_place_that_names_no_lock_frees_none(hq: Hq) -> None:
    till, card, lock = a_reimaged_till(hq)
    assert settled(hq, till, release_line(till, card, "X9"))["outcome"] == "applied"
    assert not is_free(hq, card)
    assert till.redeem(card, "X9", 10, lock["lock_id"]).status_code == 201


def test_a_release_that_comes_again_does_not_free_a_later_lock_of_its_key(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    lock = till.lock(card, "X1")
    line = release_line(till, card, "X1", lock_id=lock.json["lock_id"])
    settled(hq, till, line)
    later = till.lock(card, "X1")
    assert later.status_code == 201
    settled(hq, till, line)
    assert not is_free(hq, card)
