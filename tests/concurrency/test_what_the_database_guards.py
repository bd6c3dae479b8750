"""What no rule can see to: the order of row locks, unique keys, and who comes second.

Each of these fails if one clause of one statement is left out (``tests/mutants``).
"""

from __future__ import annotations

import pytest

from tests.concurrency.test_races import (
    another_service,
    forced_to_meet,
    held,
    locked,
    post_batch,
    row_of,
    sold,
    started,
    statuses,
    tills_in_one_store,
    wait_for_waiting,
)
from tests.support import Card, Hq, Till, a_name, on_its_own, sale_line

pytestmark = pytest.mark.usefixtures("whole_afterwards")


def test_rows_are_locked_by_id_also_where_a_plan_would_read_them_otherwise(
    hq: Hq, database_url: str
) -> None:
    high, low = a_higher_card_before_a_lower_one(hq)
    till = hq.till()
    # What is left is a hash join: it reads the cards as they lie on their pages, the higher first.
    with (
        another_service(database_url, "enable_nestloop=off%20-c%20enable_mergejoin=off") as other,
        started(1) as start,
        held(hq, row_of(low)),
    ):
        posted = start(lambda: post_batch(other, till.store_id, sold(till, high, low)))
        wait_for_waiting(hq, 1)
        with held(hq, row_of(high) + " NOWAIT"):
            pass  # it has not taken the higher one before the lower one
    assert posted.result().json["counts"] == {"applied": 2}


def a_higher_card_before_a_lower_one(hq: Hq) -> tuple[Card, Card]:
    """Return two cards, the one with the higher id issued first."""
    first = hq.issue(500_00)
    while (second := hq.issue(500_00)).instrument_id > first.instrument_id:
        first = second
    return first, second


def test_a_chunk_that_waited_for_a_card_knows_what_was_posted_meanwhile(hq: Hq) -> None:
    # The balance is enough for both: only what is known of the key tells that it is one sale.
    card, (till, other) = hq.issue(500_00), tills_in_one_store(hq, 2)
    line = till.offline_line(card, "X1", 100_00)
    with started(2) as start, held(hq, row_of(card)):
        first = start(lambda: post_batch(hq, till.store_id, [line]))
        wait_for_waiting(hq, 1)
        second = start(lambda: post_batch(hq, other.store_id, [line]))
        wait_for_waiting(hq, 2)
    counts = [answer.result().json["counts"] for answer in (first, second)]
    assert counts == [{"applied": 1}, {"duplicate": 1}]
    assert hq.balance(card) == 400_00


def test_a_refund_waits_for_another_refund_of_the_same_line_to_another_card(hq: Hq) -> None:
    card, (till, other) = hq.issue(500_00), tills_in_one_store(hq, 2)
    assert till.redeem(card, "X1", 60_00, locked(till, card, "X1")).status_code == 201
    refunds = [
        (one, one.lock(hq.issue(1), "R1", purpose="refund", amount_minor=60_00))
        for one in (till, other)
    ]
    calls = [
        lambda one=one, lock=lock: on_its_own(hq, one).conclude(
            "R1", sale_line(lock, 60_00, operation="refund", original=till.key_of("X1"))
        )
        for one, lock in refunds
    ]
    # Both have read what was refunded before either is committed, unless the second has to wait.
    answers = forced_to_meet(hq, calls, on="LOCK TABLE live_locks IN SHARE MODE")
    assert statuses(answers) == {201: 1, 409: 1}
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.json["errors"][0]["code"] == "refund_exceeds_original"


@pytest.mark.parametrize("resolution", ["absorb", "recover"])
def test_of_two_administrators_who_cover_one_shortfall_at_once_one_is_told(
    hq: Hq, resolution: str
) -> None:
    card, case_id = a_shortfall(hq, hq.till())
    load(hq, card, 500_00)
    calls = [
        lambda: on_its_own(hq, hq.admin).post(
            f"/v1/admin/cases/{case_id}/resolutions",
            {"resolution": resolution, "reason": "looked into it"},
        )
    ] * 2
    answers = forced_to_meet(hq, calls, on="LOCK TABLE cases IN SHARE MODE")
    assert statuses(answers) == {200: 1, 409: 1}
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.json["code"] == "case_resolved"
    assert hq.balance(card) == (500_00 if resolution == "absorb" else 460_00)


def a_shortfall(hq: Hq, till: Till) -> tuple[Card, str]:
    """Return a card with nothing on it, and the case of the 40.00 that it could not give."""
    card = hq.issue(10_00)
    answer = post_batch(hq, till.store_id, [till.offline_line(card, "X1", 50_00)])
    (result,) = answer.json["results"]
    assert result["shortfall_minor"] == 40_00
    return card, result["case_id"]


def load(hq: Hq, card: Card, amount_minor: int) -> None:
    till = hq.till()
    line = till.offline_line(card, "L1", amount_minor, operation="load")
    assert post_batch(hq, till.store_id, [line]).json["counts"] == {"applied": 1}


def test_a_question_that_was_answered_is_not_asked_again_when_its_line_comes_again(
    hq: Hq,
) -> None:
    till = hq.till()
    unreadable = {**till.offline_line(hq.issue(1), "X1", 1), "amount_minor": "ten"}
    (first,) = post_batch(hq, till.store_id, [unreadable]).json["results"]
    assert hq.resolve(first["case_id"], "dismiss").status_code == 200
    (again,) = post_batch(hq, till.store_id, [unreadable], a_name("again")).json["results"]
    assert (again["outcome"], again["case_id"]) == ("quarantined", first["case_id"])
    assert hq.case(first["case_id"])["resolution"] == "dismiss"
