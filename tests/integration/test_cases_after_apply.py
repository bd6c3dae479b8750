"""A held line that an administrator applied stays what they made it, whatever comes later."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acting import (
    account,
    entries_of,
    loaded,
    redeemed,
    remainder_of,
    settled,
    state_of,
    void_line,
)
from tests.support import Card, Hq, Till

pytestmark = pytest.mark.usefixtures("whole_afterwards")


def a_held_line(
    hq: Hq, balance_minor: int, redeemed_minor: int = 20, held_minor: int = 30
) -> tuple[Till, Card, dict[str, Any]]:
    """Return a till, its card, and the line X1 that is held: the till had sold another as X1."""
    till, card = hq.till(), hq.issue(balance_minor)
    redeemed(till, card, "X1", redeemed_minor)
    line = till.offline_line(card, "X1", held_minor)
    result = settled(hq, till, line)
    assert (result["outcome"], result["codes"]) == ("held", ["business_key_reused"])
    return till, card, {**result, "sent": line}


def refused(hq: Hq, case_id: str, resolution: str) -> str:
    """Try a resolution that is not possible and return the code of the refusal."""
    answer = hq.resolve(case_id, resolution)
    assert answer.status_code == 409, answer.json
    code: str = answer.json["code"]
    return code


def test_a_line_that_was_applied_in_full_is_decided(hq: Hq) -> None:
    till, card, held = a_held_line(hq, 100)
    applied = hq.resolve(held["case_id"], "apply")
    assert (applied.json["outcome"], applied.json["resolution"]) == ("applied", "apply")
    assert applied.json["resolved_at"] is not None
    for resolution in ("confirm_duplicate", "dismiss", "apply"):
        assert refused(hq, held["case_id"], resolution) == "case_resolved"
    assert hq.balance(card) == 50
    assert entries_of(hq, till, "X1") == [("original", -20)]


def test_a_line_for_another_card_that_was_applied_in_full_is_decided(hq: Hq) -> None:
    till, card, other = hq.till(), hq.issue(100), hq.issue(100)
    redeemed(till, card, "X1", 20)
    held = settled(hq, till, till.offline_line(other, "X1", 30))
    assert hq.resolve(held["case_id"], "apply").json["resolution"] == "apply"
    assert refused(hq, held["case_id"], "confirm_duplicate") == "case_resolved"
    assert (hq.balance(card), hq.balance(other)) == (80, 70)


def test_a_line_that_was_applied_and_fell_short_can_only_be_covered(hq: Hq) -> None:
    till, card, held = a_held_line(hq, 30)
    applied = hq.resolve(held["case_id"], "apply").json
    assert (applied["shortfall_minor"], applied["resolution"]) == (20, None)
    assert "applied_by_hand" in applied["codes"]
    assert applied["possible_resolutions"] == ["absorb", "recover"]
    for resolution in ("confirm_duplicate", "dismiss", "apply"):
        assert refused(hq, held["case_id"], resolution) == "resolution_not_possible"
    assert account(hq, till.store_id, "offline_shortfall") == 20
    assert hq.balance(card) == 0
    assert entries_of(hq, till, "X1") == [("original", -20)]
    assert hq.resolve(held["case_id"], "absorb").json["resolution"] == "absorb"
    assert account(hq, till.store_id, "offline_shortfall") == 0
    assert account(hq, till.store_id, "store_loss") == 20


def test_a_line_that_was_applied_and_fell_short_is_recovered(hq: Hq) -> None:
    till, card, held = a_held_line(hq, 30)
    hq.resolve(held["case_id"], "apply")
    loaded(hq.till(), card, "L1", 100)
    assert hq.resolve(held["case_id"], "recover").json["resolution"] == "recover"
    assert hq.balance(card) == 80
    assert account(hq, till.store_id, "offline_shortfall") == 0


def test_a_line_that_was_applied_by_hand_is_a_duplicate_when_it_comes_again(hq: Hq) -> None:
    till, card, held = a_held_line(hq, 100)
    hq.resolve(held["case_id"], "apply")
    again = settled(hq, till, held["sent"])
    assert (again["outcome"], again["case_id"]) == ("duplicate", held["case_id"])
    assert hq.balance(card) == 50


@pytest.mark.parametrize("is_offline", [False, True])
def test_a_void_of_the_key_leaves_open_what_was_applied_under_hqs_own(
    hq: Hq, is_offline: bool
) -> None:
    till, card, held = a_held_line(hq, 30)
    hq.resolve(held["case_id"], "apply")
    if is_offline:
        assert settled(hq, till, void_line(till, card, "X1"))["funded_minor"] == 20
    else:
        assert till.void(card, "X1").json["funded_minor"] == 20
    case = hq.case(held["case_id"])
    assert (case["shortfall_minor"], case["resolution"]) == (20, None)
    assert account(hq, till.store_id, "offline_shortfall") == 20
    assert hq.resolve(held["case_id"], "recover").json["resolution"] == "recover"
    assert hq.balance(card) == 0


def test_a_void_of_the_key_does_not_undo_what_was_absorbed_under_hqs_own(hq: Hq) -> None:
    till, card, held = a_held_line(hq, 30)
    hq.resolve(held["case_id"], "apply")
    hq.resolve(held["case_id"], "absorb")
    assert till.void(card, "X1").status_code == 201
    assert account(hq, till.store_id, "store_loss") == 20
    assert hq.case(held["case_id"])["undone_at"] is None
    assert hq.balance(card) == 20


def test_a_linked_refund_whose_key_is_taken_is_not_applied(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    redeemed(till, card, "X1", 100)
    first, second = (
        till.offline_line(card, "R1", amount, operation="refund", original=till.key_of("X1"))
        for amount in (40, 60)
    )
    assert settled(hq, till, first)["outcome"] == "applied"
    held = settled(hq, till, second)
    assert held["codes"] == ["business_key_reused"]
    assert refused(hq, held["case_id"], "apply") == "resolution_not_possible"
    assert (hq.balance(card), hq.case(held["case_id"])["resolution"]) == (40, None)
    rest = till.offline_line(card, "R2", 60, operation="refund", original=till.key_of("X1"))
    assert settled(hq, till, rest)["outcome"] == "applied"
    assert hq.resolve(held["case_id"], "dismiss").status_code == 200
    assert hq.balance(card) == 100


def test_a_refund_whose_original_was_voided_meanwhile_is_not_applied(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    redeemed(till, card, "X1", 100)
    line = till.offline_line(card, "R1", 120, operation="refund", original=till.key_of("X1"))
    held = settled(hq, till, line)
    assert held["codes"] == ["refund_exceeds_original"]
    assert till.void(card, "X1").status_code == 201
    assert refused(hq, held["case_id"], "apply") == "resolution_not_possible"
    assert (hq.balance(card), hq.case(held["case_id"])["resolution"]) == (100, None)
    assert hq.resolve(held["case_id"], "dismiss").status_code == 200


def test_a_memo_that_is_used_in_part_under_hqs_own_key_gets_a_rest_of_its_own(hq: Hq) -> None:
    till = hq.till()
    first, second = (hq.issue(100, kind="credit_memo") for _ in range(2))
    redeemed(till, first, "X1", 30)
    held = settled(hq, till, till.offline_line(second, "X1", 20))
    applied = hq.resolve(held["case_id"], "apply")
    assert (applied.status_code, applied.json["resolution"]) == (200, "apply")
    assert remainder_of(hq, first) != remainder_of(hq, second)
    assert (hq.balance(first), hq.balance(second)) == (70, 80)
    assert (state_of(hq, first), state_of(hq, second)) == (("applied", 0), ("applied", 0))


def test_two_held_lines_of_one_key_are_applied_on_two_memos(hq: Hq) -> None:
    till = hq.till()
    memos = [hq.issue(100, kind="credit_memo") for _ in range(3)]
    redeemed(till, memos[0], "X1", 30)
    for amount, memo in zip((20, 10), memos[1:], strict=True):
        held = settled(hq, till, till.offline_line(memo, "X1", amount))
        assert hq.resolve(held["case_id"], "apply").status_code == 200
    assert [hq.balance(memo) for memo in memos] == [70, 80, 90]
    assert len({remainder_of(hq, memo) for memo in memos}) == 3


@pytest.mark.parametrize("way", ["void", "voided"])
def test_a_held_void_is_not_applied(hq: Hq, way: str) -> None:
    till, card, other = hq.till(), hq.issue(100), hq.issue(100)
    redeemed(till, card, "X1", 70)
    if way == "void":
        line = void_line(till, other, "X1")
    else:
        line = till.offline_line(other, "X1", 50, status=way)
    held = settled(hq, till, line)
    assert (held["outcome"], held["codes"]) == ("held", ["business_key_reused"])
    assert refused(hq, held["case_id"], "apply") == "resolution_not_possible"
    assert (hq.balance(card), hq.balance(other)) == (30, 100)
    assert hq.resolve(held["case_id"], "dismiss").status_code == 200


def test_a_line_of_a_voided_key_that_was_held_before_is_decided_by_the_void(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    held = settled(hq, till, till.offline_line(card, "X1", 30, currency="EUR"))
    assert till.void(card, "X1").status_code == 201
    assert hq.case(held["case_id"])["resolution"] == "voided"
