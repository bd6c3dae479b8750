"""Lines that cannot be posted: they are held with a case, and every other line goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.acting import (
    loaded,
    posted,
    redeemed,
    settled,
    state_of,
    void_line,
)
from tests.support import Hq, a_name, sale_line

pytestmark = pytest.mark.usefixtures("whole_afterwards")

BALANCE_MAX = 2**53 - 1


@contextmanager
def unpostable(hq: Hq, transaction_id: str) -> Iterator[None]:
    """Let the database itself refuse whatever is posted of one transaction, for a while."""
    hq.sql(
        "ALTER TABLE postings ADD CONSTRAINT ck_postings_of_this_test"
        f" CHECK (transaction_id <> '{transaction_id}') NOT VALID"
    )
    try:
        yield
    finally:
        hq.sql("ALTER TABLE postings DROP CONSTRAINT ck_postings_of_this_test")


# Balances that no JSON reader could keep.


def test_a_load_above_the_limit_of_a_balance_is_held_and_stops_no_other_line(hq: Hq) -> None:
    till, card, other = hq.till(), hq.issue(1), hq.issue(100)
    results = posted(
        hq,
        till,
        till.offline_line(card, "L1", BALANCE_MAX - 1, operation="load"),
        till.offline_line(card, "L2", 1, operation="load"),
        till.offline_line(other, "G1", 10),
    )
    assert [one["outcome"] for one in results] == ["applied", "held", "applied"]
    assert results[1]["codes"] == ["balance_limit_exceeded"]
    assert hq.case(results[1]["case_id"])["resolution"] is None
    assert (hq.balance(card), hq.balance(other)) == (BALANCE_MAX, 90)


def test_a_held_load_above_the_limit_is_not_applied_by_hand_either(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(BALANCE_MAX)
    held = settled(hq, till, till.offline_line(card, "L1", 1, operation="load"))
    answer = hq.resolve(held["case_id"], "apply")
    assert (answer.status_code, answer.json["code"]) == (409, "resolution_not_possible")
    assert hq.balance(card) == BALANCE_MAX
    assert hq.resolve(held["case_id"], "dismiss").status_code == 200


def test_a_load_above_the_limit_of_a_balance_is_refused_online(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(BALANCE_MAX)
    lock = till.lock(card, "L1", purpose="load", amount_minor=1)
    answer = till.conclude("L1", sale_line(lock, 1, operation="load"))
    assert (answer.status_code, answer.json["code"]) == (409, "balance_limit_exceeded")
    assert hq.balance(card) == BALANCE_MAX


def test_many_loads_of_the_largest_amount_are_settled_and_so_is_the_next_batch(hq: Hq) -> None:
    till, card, good = hq.till(), hq.issue(1), hq.issue(100)
    lines = [
        till.offline_line(card, f"L{number}", BALANCE_MAX, operation="load")
        for number in range(1_030)
    ]
    assert {one["outcome"] for one in posted(hq, till, *lines)} == {"held"}
    assert settled(hq, till, till.offline_line(good, "G1", 10))["outcome"] == "applied"
    assert hq.balance(card) == 1


def test_money_comes_back_to_a_card_that_was_filled_up_meanwhile(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(BALANCE_MAX)
    redeemed(till, card, "X1", 10)
    loaded(till, card, "L1", 10)
    assert till.void(card, "X1").status_code == 201
    assert till.void(card, "L1").status_code == 201
    assert state_of(hq, card) == ("active", BALANCE_MAX)


# Whatever else the database refuses.


def test_a_line_that_the_database_refuses_is_held_and_every_other_is_settled(hq: Hq) -> None:
    till, cards = hq.till(), [hq.issue(100) for _ in range(3)]
    bad = a_name("bad")
    names = ["G1", bad, "G2"]
    lines = [till.offline_line(card, name, 10) for card, name in zip(cards, names, strict=True)]
    with unpostable(hq, bad):
        results = posted(hq, till, *lines)
        assert [one["outcome"] for one in results] == ["applied", "held", "applied"]
        assert results[1]["codes"] == ["unpostable"]
        assert settled(hq, till, till.offline_line(cards[0], "G3", 10))["outcome"] == "applied"
    assert [hq.balance(card) for card in cards] == [80, 100, 90]
    case = hq.case(results[1]["case_id"])
    assert (case["outcome"], case["codes"], case["resolution"]) == ("held", ["unpostable"], None)


def test_a_line_that_the_database_refused_is_applied_by_hand_later(hq: Hq) -> None:
    till, card, bad = hq.till(), hq.issue(100), a_name("bad")
    line = till.offline_line(card, bad, 10)
    with unpostable(hq, bad):
        held = settled(hq, till, line)
    again = settled(hq, till, line)
    assert (again["outcome"], again["case_id"]) == ("duplicate", held["case_id"])
    assert hq.resolve(held["case_id"], "apply").json["outcome"] == "applied"
    assert hq.balance(card) == 90


def test_the_lines_around_one_that_the_database_refuses_build_on_each_other(hq: Hq) -> None:
    till, card, memo, bad = hq.till(), hq.issue(10), hq.issue(50, kind="credit_memo"), a_name("bad")
    with unpostable(hq, bad):
        results = posted(
            hq,
            till,
            till.offline_line(card, "L1", 90, operation="load"),
            till.offline_line(memo, "M1", 20),
            till.offline_line(card, bad, 5),
            till.offline_line(card, "X1", 100),
            void_line(till, card, "L1"),
        )
    assert [one["outcome"] for one in results] == [
        "applied",
        "applied",
        "held",
        "applied",
        "applied",
    ]
    assert [one["funded_minor"] for one in results] == [90, 20, 0, 100, 0]
    assert results[4]["shortfall_minor"] == 90
    assert (hq.balance(card), hq.balance(memo)) == (0, 30)
    journal = hq.sql(
        "SELECT arrived::text FROM terminal_journals WHERE store_id = %s", till.store_id
    )
    assert journal == [("{[1,6)}",)]


def test_a_batch_in_which_every_line_is_refused_is_settled_all_the_same(hq: Hq) -> None:
    till, card, bad = hq.till(), hq.issue(100), a_name("bad")
    lines = [till.offline_line(card, bad, 10, line=number) for number in range(1, 6)]
    with unpostable(hq, bad):
        results = posted(hq, till, *lines)
    assert [one["codes"] for one in results] == [["unpostable"]] * 5
    assert len({one["case_id"] for one in results}) == 5
    assert hq.balance(card) == 100
