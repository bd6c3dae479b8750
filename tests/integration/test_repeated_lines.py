"""Repeated lines: looked up before anything is locked, and answered as if they were not."""

from __future__ import annotations

import random
from typing import Any
from uuid import uuid4

from tests.support import Card, Hq, Till, a_name

Body = dict[str, Any]


def posted(hq: Hq, till: Till, lines: list[Body]) -> list[Body]:
    answer = hq.post_batch(till.store_id, lines)
    assert answer.status_code == 201, answer.json
    results: list[Body] = answer.json["results"]
    return results


def elsewhere(till: Till, lines: list[Body]) -> list[Body]:
    """Return lines as if they came at numbers that have not arrived: nobody expects repeats."""
    journal_id = a_name("journal")
    return [
        {**line, "journal_id": journal_id, "sequence": number}
        for number, line in enumerate(lines, start=1)
    ]


def test_a_repeat_is_answered_alike_at_the_place_where_it_was_written_and_at_any_other(
    hq: Hq,
) -> None:
    till, dice = hq.till(), random.Random(11)
    cards = [hq.issue(50) for _ in range(4)]
    memos = [hq.issue(100, kind="credit_memo") for _ in range(3)]
    unknown = Card("gift_card", "6006123456789012", str(uuid4()), "SEK")
    lines = [
        till.offline_line(
            dice.choice([*cards, *memos, unknown]),
            f"X{number}",
            dice.choice([5, 20, 70]),
            operation=dice.choice(["redeem", "redeem", "redeem", "load", "void", "release"]),
            status=dice.choice(["concluded"] * 5 + ["voided", "suspended", "training"]),
        )
        for number in range(80)
    ]
    # A sale that is voided, a linked refund, and a key that stands for two things.
    sold = till.offline_line(cards[0], "sold", 5)
    lines += [sold, till.offline_line(cards[0], "sold", 5, operation="void")]
    bought = till.offline_line(cards[1], "bought", 5)
    original = {"store_id": till.store_id, "terminal_id": till.terminal_id}
    original |= {"transaction_id": "bought", "line": 1}
    lines += [
        bought,
        till.offline_line(cards[1], "back", 5, operation="refund", original=original),
        till.offline_line(cards[2], "bought", 5),
    ]
    first = posted(hq, till, lines)
    outcomes = {(one["outcome"], bool(one["remainder_id"]), bool(one["case_id"])) for one in first}
    assert {("applied", True, True), ("applied", False, True), ("held", False, True)} <= outcomes
    balances = [hq.balance(card) for card in cards]
    again = posted(hq, till, lines)
    assert again == posted(hq, till, elsewhere(till, lines))
    assert {one["outcome"] for one in again} >= {"duplicate"}
    dice.shuffle(lines)
    shuffled = posted(hq, till, lines)
    by_place = {(one["transaction_id"], one["line"], one["instrument_id"]): one for one in again}
    for one in shuffled:
        told = by_place[one["transaction_id"], one["line"], one["instrument_id"]]
        if told["outcome"] == "duplicate" and one["transaction_id"] != "sold":
            assert {**one, "position": 0} == {**told, "position": 0}
    assert [hq.balance(card) for card in cards] == balances


def test_another_sale_under_the_number_and_the_key_of_one_that_arrived_is_held(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    line = till.offline_line(card, "X1", 10)
    other = {**line, "amount_minor": 20}
    posted(hq, till, [line])
    for lines in ([other], [line, other], [other, line]):
        told = {one["outcome"]: one for one in posted(hq, till, lines)}
        outcome = "held" if len(lines) == 1 else "duplicate"
        assert outcome in told
    # The other one is known by now, too: as what it was.
    again = posted(hq, till, [line, other])
    assert [one["original_outcome"] for one in again] == ["applied", "held"]
    assert hq.balance(card) == 90


def test_a_repeat_frees_the_lock_of_its_own_line_and_no_other(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    line = till.offline_line(card, "X1", 10)
    posted(hq, till, [line])
    assert till.lock(card, "X2").status_code == 201
    [told] = posted(hq, till, [line])
    assert told["outcome"] == "duplicate"
    assert len(till.get("/v1/locks").json["locks"]) == 1
    # No till gets a lock for a line that is posted; if there is one all the same, it is freed.
    hq.sql(
        "UPDATE instruments SET lock_transaction_id = 'X1' WHERE instrument_id = %s"
        " RETURNING lock_id",
        card.instrument_id,
    )
    assert posted(hq, till, [line]) == [told]
    assert till.get("/v1/locks").json["locks"] == []
    assert hq.balance(card) == 90
