"""Held lines that wait: judged again when there is something new, and only then."""

from __future__ import annotations

from typing import Any

import pytest

from hq_service.domain.errors import Unavailable
from hq_service.domain.settlement import settle
from hq_service.operations import waiting
from tests.acting import issue_by_hq, loaded, posted, redeemed, settled, unissued_card
from tests.support import Card, Hq, Till, a_name

pytestmark = pytest.mark.usefixtures("whole_afterwards")

MANY = 1_000


@pytest.fixture
def judged_again(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The transactions whose waiting lines were judged again."""
    seen: list[str] = []

    def watched(lines: Any, *rest: Any, **more: Any) -> Any:
        seen.extend(line.key.transaction_id for line in lines)
        return settle(lines, *rest, **more)

    monkeypatch.setattr(waiting, "settle", watched)
    return seen


def something_arrives(hq: Hq) -> None:
    """Post a line that nobody waits for: whatever can go on now goes on."""
    till = hq.till()
    assert settled(hq, till, till.offline_line(hq.issue(10), "Q1", 1))["outcome"] == "applied"


def a_line_that_waits_for_its_card(hq: Hq, **more: Any) -> tuple[Till, Card, str]:
    till, card = hq.till(), unissued_card()
    result = settled(hq, till, till.offline_line(card, "W1", 5, **more))
    assert result["codes"] == ["unknown_instrument"]
    return till, card, result["case_id"]


def refund_of(till: Till, card: Card, transaction_id: str, amount: int = 1) -> dict[str, Any]:
    original = till.key_of("X1")
    return till.offline_line(card, transaction_id, amount, operation="refund", original=original)


def test_a_refund_of_a_voided_line_is_not_judged_again(hq: Hq, judged_again: list[str]) -> None:
    till, card = hq.till(), hq.issue(100)
    redeemed(till, card, "X1", 50)
    till.void(card, "X1")
    result = settled(hq, till, refund_of(till, card, "voided"))
    assert result["codes"] == ["unknown_original"]
    something_arrives(hq)
    assert "voided" not in judged_again
    assert hq.case(result["case_id"])["outcome"] == "held"


def test_a_refund_of_a_line_that_took_nothing_is_not_judged_again(
    hq: Hq, judged_again: list[str]
) -> None:
    till, card = hq.till(), hq.issue(100)
    loaded(till, card, "X1", 50)
    result = settled(hq, till, refund_of(till, card, "load"))
    assert result["codes"] == ["unknown_original"]
    something_arrives(hq)
    assert "load" not in judged_again
    assert hq.case(result["case_id"])["outcome"] == "held"


def test_a_line_whose_card_came_in_another_currency_says_so_and_waits_no_more(
    hq: Hq, judged_again: list[str]
) -> None:
    _, card, case_id = a_line_that_waits_for_its_card(hq, currency="EUR")
    issue_by_hq(hq, card, 50)
    something_arrives(hq)
    case = hq.case(case_id)
    assert (case["outcome"], case["codes"]) == ("held", ["currency_mismatch"])
    assert case["resolution"] is None
    assert judged_again.count("W1") == 1
    something_arrives(hq)
    assert judged_again.count("W1") == 1
    assert hq.balance(card) == 50


def test_a_refund_whose_original_came_smaller_than_it_says_so(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    result = settled(hq, till, refund_of(till, card, "R1", 60))
    assert result["codes"] == ["unknown_original"]
    assert settled(hq, till, till.offline_line(card, "X1", 50))["outcome"] == "applied"
    case = hq.case(result["case_id"])
    assert (case["outcome"], case["codes"]) == ("held", ["refund_exceeds_original"])
    assert hq.balance(card) == 50


def test_a_line_that_is_held_for_another_reason_now_is_a_duplicate_when_it_comes_again(
    hq: Hq,
) -> None:
    till, card = hq.till(), unissued_card()
    line = till.offline_line(card, "W1", 5, currency="EUR")
    case_id = settled(hq, till, line)["case_id"]
    issue_by_hq(hq, card, 50)
    something_arrives(hq)
    again = settled(hq, till, line)
    assert (again["outcome"], again["original_outcome"]) == ("duplicate", "held")
    assert again["case_id"] == case_id


def test_a_thousand_lines_that_wait_for_ever_keep_no_other_store_waiting(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    redeemed(till, card, "X1", 50)
    till.void(card, "X1")
    results = posted(hq, till, *(refund_of(till, card, f"R{n}") for n in range(MANY)))
    assert {tuple(one["codes"]) for one in results} == {("unknown_original",)}
    _, late, case_id = a_line_that_waits_for_its_card(hq)
    issue_by_hq(hq, late, 50)
    something_arrives(hq)
    assert hq.case(case_id)["outcome"] == "applied"
    assert hq.balance(late) == 45


def test_a_line_that_cannot_be_judged_stops_neither_the_batch_nor_the_next_line(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    till, cards = hq.till(), [unissued_card() for _ in range(3)]
    lines = [till.offline_line(card, f"W{n}", 5) for n, card in enumerate(cards)]
    cases = [one["case_id"] for one in posted(hq, till, *lines)]

    def fails_for_one(judged: Any, *rest: Any, **more: Any) -> Any:
        if any(line.key == (*till.key_of("W1").values(),) for line in judged):
            raise ArithmeticError
        return settle(judged, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(waiting, "settle", fails_for_one)
        for card in cards:
            issue_by_hq(hq, card, 50)
        something_arrives(hq)
    assert [hq.case(one)["outcome"] for one in cases] == ["applied", "held", "applied"]
    assert [hq.balance(card) for card in cards] == [45, 50, 45]
    something_arrives(hq)
    assert hq.case(cases[1])["outcome"] == "applied"
    assert hq.balance(cards[1]) == 45


def test_a_batch_behind_which_nobody_could_look_is_looked_behind_when_it_comes_again(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    till, card = hq.till(), hq.issue(100)
    waits = settled(hq, till, refund_of(till, card, "W1"))
    assert waits["codes"] == ["unknown_original"]
    original, batch_id = till.offline_line(card, "X1", 5), a_name("batch")
    with monkeypatch.context() as patch:
        patch.setattr(waiting, "judge_again", away)
        assert hq.post_batch(till.store_id, [original], batch_id).status_code == 201
    assert hq.case(waits["case_id"])["outcome"] == "held"
    # Another batch in which nothing is new brings nothing that somebody may wait for.
    assert hq.post_batch(till.store_id, [original]).status_code == 201
    assert hq.case(waits["case_id"])["outcome"] == "held"
    assert hq.post_batch(till.store_id, [original], batch_id).status_code == 200
    assert hq.case(waits["case_id"])["outcome"] == "applied"


def away(*_: Any) -> int:
    raise Unavailable("away")
