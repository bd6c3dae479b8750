"""Voids and reversals: money that is given back arrives, once, and the books agree with it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acting import (
    account,
    entries_of,
    loaded,
    partial_use,
    posted,
    redeemed,
    refund,
    remainder_of,
    set_status,
    settled,
    sold_instrument,
    state_of,
    void_line,
)
from tests.support import Card, Hq, Till, sale_line

pytestmark = pytest.mark.usefixtures("whole_afterwards")

TOLD = ("codes", "funded_minor", "shortfall_minor", "balance_after_minor", "case_id")


def told(answer: Any) -> dict[str, Any]:
    """Return what an answer to a void says, but for whether it is the first."""
    return {name: answer[name] for name in TOLD}


def voided(till: Till, card: Card, transaction_id: str) -> Any:
    """Void a line online, for the first time."""
    answer = till.void(card, transaction_id)
    assert answer.status_code == 201, answer.json
    return answer.json


def a_short_sale(
    hq: Hq, balance_minor: int = 10, amount_minor: int = 50
) -> tuple[Till, Card, dict[str, Any]]:
    """Return a till, a card, and what the sale X1 came to that the card did not cover."""
    till, card = hq.till(), hq.issue(balance_minor)
    result = settled(hq, till, till.offline_line(card, "X1", amount_minor))
    assert result["shortfall_minor"] == amount_minor - balance_minor
    return till, card, result


# Money that comes back to an instrument on which it was not left.


def test_a_redemption_is_given_back_to_a_card_whose_issue_was_voided(hq: Hq) -> None:
    till = hq.till()
    card = sold_instrument(hq, till, "I1", 100)
    redeemed(till, card, "X1", 100)
    assert voided(till, card, "I1")["shortfall_minor"] == 100
    assert state_of(hq, card) == ("active", 0)
    assert voided(till, card, "X1")["funded_minor"] == 100
    assert state_of(hq, card) == ("active", 100)


def test_the_issue_and_the_redemption_of_a_card_are_voided_in_one_batch_with_a_good_line(
    hq: Hq,
) -> None:
    till, other = hq.till(), hq.issue(50)
    card = sold_instrument(hq, till, "I1", 100)
    redeemed(till, card, "X1", 100)
    results = posted(
        hq,
        till,
        void_line(till, card, "I1"),
        void_line(till, card, "X1"),
        till.offline_line(other, "G1", 10),
    )
    assert [one["outcome"] for one in results] == ["applied"] * 3
    assert hq.balance(other) == 40
    assert account(hq, till.store_id, "offline_shortfall") == 100
    assert hq.case(results[0]["case_id"])["shortfall_minor"] == 100


def test_a_sale_is_voided_before_the_issue_that_paid_for_it(hq: Hq) -> None:
    till = hq.till()
    card = sold_instrument(hq, till, "I1", 100)
    redeemed(till, card, "X1", 100)
    assert voided(till, card, "X1")["funded_minor"] == 100
    assert voided(till, card, "I1")["shortfall_minor"] == 0
    assert state_of(hq, card) == ("active", 0)


def test_a_card_that_was_never_used_is_pending_again_when_its_issue_is_voided(hq: Hq) -> None:
    till = hq.till()
    card = sold_instrument(hq, till, "I1", 100)
    voided(till, card, "I1")
    assert state_of(hq, card) == ("pending", 0)


@pytest.mark.parametrize("status", ["blocked", "expired"])
def test_the_void_of_its_issue_makes_no_card_good_that_was_not(hq: Hq, status: str) -> None:
    till = hq.till()
    card = sold_instrument(hq, till, "I1", 100)
    set_status(hq, card, status)
    voided(till, card, "I1")
    assert state_of(hq, card) == (status, 0)


def test_an_issue_by_mistake_onto_a_card_in_use_is_undone_and_the_card_stays_in_use(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    result = settled(hq, till, till.offline_line(card, "S1", 5, operation="issue"))
    redeemed(hq.till(), card, "X1", 105)
    assert hq.resolve(result["case_id"], "confirm_duplicate").status_code == 200
    assert state_of(hq, card) == ("active", 0)
    taken = hq.till().lock_new("N1", 10, number=card.number)
    assert (taken.status_code, taken.json["code"]) == (409, "instrument_already_active")


def test_a_used_memo_to_which_money_comes_back_is_good_again(hq: Hq) -> None:
    till, memo = hq.till(), hq.issue(100, kind="credit_memo")
    redeemed(till, memo, "X1", 100)
    assert state_of(hq, memo) == ("applied", 0)
    voided(till, memo, "X1")
    assert state_of(hq, memo) == ("active", 100)


@pytest.mark.parametrize("kind", ["gift_card", "credit_memo"])
def test_money_that_comes_back_to_a_closed_instrument_is_blocked_and_told(
    hq: Hq, kind: str
) -> None:
    till, card = hq.till(), hq.issue(100, kind=kind)
    redeemed(till, card, "X1", 100)
    set_status(hq, card, "closed")
    answer = voided(till, card, "X1")
    assert set(answer["codes"]) == {"voided", "instrument_closed"}
    assert state_of(hq, card) == ("blocked", 100)
    case = hq.case(answer["case_id"])
    assert (case["resolution"], case["shortfall_minor"]) == (None, 0)
    assert hq.resolve(answer["case_id"], "dismiss").status_code == 200


def test_money_that_comes_back_to_a_closed_card_in_a_batch_stops_no_other_line(hq: Hq) -> None:
    till, card, other = hq.till(), hq.issue(100), hq.issue(50)
    redeemed(till, card, "X1", 100)
    set_status(hq, card, "closed")
    results = posted(
        hq,
        till,
        till.offline_line(card, "X1", 100, status="voided"),
        till.offline_line(other, "G1", 10),
    )
    assert [one["outcome"] for one in results] == ["applied", "applied"]
    assert "instrument_closed" in results[0]["codes"]
    assert hq.case(results[0]["case_id"])["resolution"] is None
    assert (state_of(hq, card), hq.balance(other)) == (("blocked", 100), 40)


@pytest.mark.parametrize("status", ["blocked", "expired"])
@pytest.mark.parametrize("kind", ["gift_card", "credit_memo"])
def test_money_that_comes_back_leaves_blocked_and_expired_ones_what_they_are(
    hq: Hq, kind: str, status: str
) -> None:
    till, card = hq.till(), hq.issue(100, kind=kind)
    with partial_use(hq, "retain"):
        redeemed(till, card, "X1", 30)
    set_status(hq, card, status)
    voided(till, card, "X1")
    assert state_of(hq, card) == (status, 100)


def test_a_shortfall_of_which_nothing_was_funded_is_voided_on_a_closed_card(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(10)
    redeemed(till, card, "X0", 10)
    set_status(hq, card, "closed")
    result = settled(hq, till, till.offline_line(card, "X1", 50))
    assert result["shortfall_minor"] == 50
    assert voided(till, card, "X1")["funded_minor"] == 0
    assert state_of(hq, card) == ("closed", 0)
    assert hq.case(result["case_id"])["resolution"] == "voided"


# A line that was refunded, and then voided.


def test_a_line_that_was_refunded_in_full_has_nothing_left_to_give_back(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    redeemed(till, card, "X1", 100)
    assert refund(till, card, "R1", 100, till.key_of("X1")).status_code == 201
    answer = voided(till, card, "X1")
    assert (answer["funded_minor"], answer["balance_after_minor"]) == (0, 100)
    assert entries_of(hq, till, "X1") == [("original", -100), ("reversal", 0)]
    assert account(hq, till.store_id, "store_clearing") == 0


def test_a_line_that_was_refunded_in_part_gives_back_the_rest(hq: Hq) -> None:
    till, card, other = hq.till(), hq.issue(100), hq.issue(1)
    redeemed(till, card, "X1", 100)
    assert refund(till, other, "R1", 30, till.key_of("X1")).status_code == 201
    assert voided(till, card, "X1")["funded_minor"] == 70
    assert entries_of(hq, till, "X1") == [("original", -100), ("reversal", 70)]
    assert (hq.balance(card), hq.balance(other)) == (70, 31)


def test_a_refunded_sale_that_turns_out_voided_in_a_batch_gives_back_the_rest(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    lines = [
        till.offline_line(card, "X1", 100),
        till.offline_line(card, "R1", 60, operation="refund", original=till.key_of("X1")),
        till.offline_line(card, "X1", 100, status="voided"),
    ]
    results = posted(hq, till, *lines)
    assert [one["funded_minor"] for one in results] == [100, 60, 40]
    assert hq.balance(card) == 100


def test_a_line_that_was_voided_first_is_not_refunded(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    redeemed(till, card, "X1", 100)
    voided(till, card, "X1")
    answer = refund(till, card, "R1", 100, till.key_of("X1"))
    assert (answer.status_code, answer.json["code"]) == (409, "unknown_original")
    line = till.offline_line(card, "R2", 100, operation="refund", original=till.key_of("X1"))
    result = settled(hq, till, line)
    assert (result["outcome"], result["codes"]) == ("held", ["unknown_original"])
    assert hq.balance(card) == 100


def test_a_refund_whose_original_was_voided_is_voided_without_taking_anything(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    redeemed(till, card, "X1", 100)
    assert refund(till, card, "R1", 30, till.key_of("X1")).status_code == 201
    voided(till, card, "X1")
    answer = voided(till, card, "R1")
    assert (answer["funded_minor"], answer["shortfall_minor"]) == (0, 0)
    assert entries_of(hq, till, "R1") == [("original", 30)]
    assert hq.balance(card) == 100
    assert till.void(card, "R1").status_code == 200
    assert till.lock(card, "R1").json["code"] == "voided"


def test_a_sale_gives_back_everything_once_its_refund_is_voided(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    redeemed(till, card, "X1", 100)
    assert refund(till, card, "R1", 30, till.key_of("X1")).status_code == 201
    assert voided(till, card, "R1")["funded_minor"] == 30
    assert voided(till, card, "X1")["funded_minor"] == 100
    assert hq.balance(card) == 100


def test_a_short_sale_that_was_refunded_for_more_than_it_took_is_not_voided(hq: Hq) -> None:
    till, card, result = a_short_sale(hq)
    assert refund(till, card, "R1", 50, till.key_of("X1")).status_code == 201
    answer = till.void(card, "X1")
    assert (answer.status_code, answer.json["code"]) == (409, "refund_exceeds_original")
    held = settled(hq, till, void_line(till, card, "X1"))
    assert (held["outcome"], held["codes"]) == ("held", ["refund_exceeds_original"])
    duplicate = hq.resolve(result["case_id"], "confirm_duplicate")
    assert duplicate.status_code == 409, duplicate.json
    assert entries_of(hq, till, "X1") == [("original", -10)]
    assert (hq.balance(card), hq.case(result["case_id"])["resolution"]) == (50, None)


def test_a_short_sale_that_was_recovered_and_refunded_is_voided(hq: Hq) -> None:
    till, card, result = a_short_sale(hq)
    assert refund(till, card, "R1", 50, till.key_of("X1")).status_code == 201
    assert hq.resolve(result["case_id"], "recover").json["recovered_minor"] == 40
    assert voided(till, card, "X1")["funded_minor"] == 0
    assert hq.balance(card) == 10
    assert account(hq, till.store_id, "offline_shortfall") == 0


# Shortfalls that were decided before the line was voided.


def test_a_shortfall_that_was_absorbed_is_undone_with_its_line(hq: Hq) -> None:
    till, card, result = a_short_sale(hq)
    assert hq.resolve(result["case_id"], "absorb").json["undone_at"] is None
    assert account(hq, till.store_id, "store_loss") == 40
    assert voided(till, card, "X1")["funded_minor"] == 10
    assert account(hq, till.store_id, "offline_shortfall") == 0
    assert account(hq, till.store_id, "store_loss") == 0
    case = hq.case(result["case_id"])
    assert case["resolution"] == "absorb"
    assert case["undone_at"] is not None


def test_what_was_recovered_before_the_rest_was_absorbed_is_given_back(hq: Hq) -> None:
    till, card, result = a_short_sale(hq)
    loaded(hq.till(), card, "L1", 15)
    assert hq.resolve(result["case_id"], "recover").json["recovered_minor"] == 15
    assert hq.resolve(result["case_id"], "absorb").json["resolution"] == "absorb"
    assert account(hq, till.store_id, "store_loss") == 25
    settled(hq, till, till.offline_line(card, "X1", 50, status="cancelled"))
    assert hq.balance(card) == 25
    assert account(hq, till.store_id, "offline_shortfall") == 0
    assert account(hq, till.store_id, "store_loss") == 0
    assert hq.case(result["case_id"])["undone_at"] is not None


def test_a_shortfall_that_was_recovered_is_undone_with_its_line(hq: Hq) -> None:
    till, card, result = a_short_sale(hq)
    loaded(hq.till(), card, "L1", 100)
    assert hq.resolve(result["case_id"], "recover").json["resolution"] == "recover"
    assert voided(till, card, "X1")["funded_minor"] == 50
    assert hq.balance(card) == 110
    assert account(hq, till.store_id, "offline_shortfall") == 0


@pytest.mark.parametrize("way", ["void", "voided", "cancelled"])
def test_the_case_of_a_spent_credit_says_void_however_it_was_voided(hq: Hq, way: str) -> None:
    till, card = hq.till(), hq.issue(10)
    loaded(till, card, "L1", 90)
    redeemed(hq.till(), card, "X1", 80)
    if way == "void":
        line = void_line(till, card, "L1")
    else:
        line = till.offline_line(card, "L1", 90, operation="load", status=way)
    result = settled(hq, till, line)
    assert (result["funded_minor"], result["shortfall_minor"]) == (20, 70)
    case = hq.case(result["case_id"])
    assert (case["operation"], case["amount_minor"], case["shortfall_minor"]) == ("void", 90, 70)
    assert case["possible_resolutions"] == ["absorb", "recover"]


def test_a_duplicate_load_that_was_spent_leaves_the_case_of_its_void(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(10)
    result = settled(hq, till, till.offline_line(card, "L1", 90, operation="load"))
    redeemed(hq.till(), card, "X1", 80)
    assert hq.resolve(result["case_id"], "confirm_duplicate").status_code == 200
    assert hq.balance(card) == 0
    assert account(hq, till.store_id, "offline_shortfall") == 70


# Memos: what was left of them.


@pytest.mark.parametrize("is_offline", [False, True])
def test_a_reversed_memo_keeps_what_its_next_use_leaves(hq: Hq, is_offline: bool) -> None:
    till, memo = hq.till(), hq.issue(100, kind="credit_memo")
    redeemed(till, memo, "X1", 30)
    first = remainder_of(hq, memo)
    voided(till, memo, "X1")
    if is_offline:
        result = settled(hq, till, till.offline_line(memo, "X2", 10))
        assert result["remainder_id"] is None
    else:
        assert redeemed(till, memo, "X2", 10).json["remainder"] is None
    assert state_of(hq, memo) == ("active", 20)
    assert (remainder_of(hq, memo), hq.balance(memo)) == (first, 20)
    redeemed(till, memo, "X3", 20)
    assert state_of(hq, memo) == ("applied", 0)
    assert (remainder_of(hq, memo), hq.balance(memo)) == (first, 70)


def test_a_memo_that_is_used_up_again_and_reversed_again_has_one_remainder(hq: Hq) -> None:
    till, memo = hq.till(), hq.issue(100, kind="credit_memo")
    redeemed(till, memo, "X1", 30)
    first = remainder_of(hq, memo)
    for number in range(2, 5):
        voided(till, memo, f"X{number - 1}")
        redeemed(till, memo, f"X{number}", 30)
        assert (remainder_of(hq, memo), state_of(hq, memo)) == (first, ("applied", 0))
    assert hq.balance(memo) == 70


def test_the_void_of_a_line_that_a_used_memo_gave_nothing_makes_it_no_good_one(hq: Hq) -> None:
    till, late, memo = hq.till(), hq.till(), hq.issue(100, kind="credit_memo")
    redeemed(till, memo, "X1", 30)
    result = settled(hq, late, late.offline_line(memo, "Z1", 50))
    assert (result["funded_minor"], result["shortfall_minor"]) == (0, 50)
    voided(late, memo, "Z1")
    assert state_of(hq, memo) == ("applied", 0)
    assert hq.balance(memo) == 70
    assert late.lock(memo, "Z2").json["max_amount_minor"] == 70


def test_the_void_of_the_issue_of_a_used_memo_leaves_its_number_leading_on(hq: Hq) -> None:
    till = hq.till()
    memo = sold_instrument(hq, till, "I1", 100, kind="credit_memo")
    redeemed(till, memo, "X1", 30)
    answer = voided(till, memo, "I1")
    assert (answer["funded_minor"], answer["shortfall_minor"]) == (0, 100)
    assert state_of(hq, memo) == ("applied", 0)
    assert hq.balance(memo) == 70
    assert till.lock(memo, "X2").json["max_amount_minor"] == 70


@pytest.mark.parametrize("is_offline", [False, True])
def test_what_was_forfeited_of_a_memo_comes_back_with_what_it_paid(
    hq: Hq, is_offline: bool
) -> None:
    till, memo = hq.till(), hq.issue(100, kind="credit_memo")
    with partial_use(hq, "forfeit"):
        redeemed(till, memo, "X1", 30)
        assert account(hq, till.store_id, "breakage") == -70
        if is_offline:
            settled(hq, till, till.offline_line(memo, "X1", 30, status="voided"))
        else:
            voided(till, memo, "X1")
        assert state_of(hq, memo) == ("active", 100)
        assert account(hq, till.store_id, "breakage") == 0
        assert account(hq, till.store_id, "store_clearing") == 0
        again = till.void(memo, "X1")
        assert (again.status_code, hq.balance(memo)) == (200, 100)
        redeemed(till, memo, "X2", 60)
    assert state_of(hq, memo) == ("applied", 0)
    assert account(hq, till.store_id, "breakage") == -40


def test_what_was_forfeited_of_a_memo_comes_back_although_its_sale_was_refunded(hq: Hq) -> None:
    till, memo, card = hq.till(), hq.issue(100, kind="credit_memo"), hq.issue(1)
    with partial_use(hq, "forfeit"):
        redeemed(till, memo, "X1", 30)
    assert refund(till, card, "R1", 30, till.key_of("X1")).status_code == 201
    voided(till, memo, "X1")
    assert (state_of(hq, memo), hq.balance(card)) == (("active", 70), 31)
    assert account(hq, till.store_id, "breakage") == 0


def test_a_memo_that_was_cashed_out_in_a_batch_is_given_back(hq: Hq) -> None:
    till, memo = hq.till(), hq.issue(100, kind="credit_memo")
    settled(hq, till, till.offline_line(memo, "X1", 40, operation="cash_out"))
    redeemed(till, memo, "X2", 60)
    assert voided(till, memo, "X1")["funded_minor"] == 40
    assert state_of(hq, memo) == ("active", 40)


# A void that comes again.


def test_a_void_that_comes_again_is_answered_like_the_first(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    redeemed(till, card, "X1", 70)
    first = voided(till, card, "X1")
    redeemed(hq.till(), card, "X2", 55)
    again = till.void(card, "X1")
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (200, "true")
    assert told(again.json) == told(first)
    assert (first["funded_minor"], first["balance_after_minor"]) == (70, 100)


def test_the_void_of_a_spent_load_that_comes_again_names_the_same_case(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(10)
    loaded(till, card, "L1", 90)
    redeemed(hq.till(), card, "X1", 80)
    first = voided(till, card, "L1")
    assert first["case_id"] is not None
    loaded(hq.till(), card, "L2", 500)
    again = till.void(card, "L1")
    assert (again.status_code, told(again.json)) == (200, told(first))
    for line in (
        void_line(till, card, "L1"),
        till.offline_line(card, "L1", 90, operation="load", status="voided"),
    ):
        result = settled(hq, till, line)
        assert (result["outcome"], result["original_outcome"]) == ("duplicate", "applied")
        assert told(result) == told(first)
    assert hq.balance(card) == 500


def test_the_void_of_a_closed_card_that_comes_again_opens_no_second_case(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    redeemed(till, card, "X1", 100)
    set_status(hq, card, "closed")
    first = voided(till, card, "X1")
    again = till.void(card, "X1")
    assert (again.status_code, told(again.json)) == (200, told(first))
    cases = hq.admin.get(f"/v1/admin/cases?store_id={till.store_id}").json["cases"]
    assert [one["case_id"] for one in cases] == [first["case_id"]]


def test_a_void_in_a_batch_that_comes_again_is_a_duplicate_of_the_first(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    redeemed(till, card, "X1", 70)
    line = void_line(till, card, "X1")
    first, again = posted(hq, till, line, line)
    assert (first["outcome"], again["outcome"]) == ("applied", "duplicate")
    later = settled(hq, till, line)
    assert later["outcome"] == "duplicate"
    assert told(again) == told(later) == told(first)
    online = till.void(card, "X1")
    assert (online.status_code, told(online.json)) == (200, told(first))


def test_a_void_that_came_before_its_line_is_answered_alike_again(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    first = voided(till, card, "X1")
    lock = hq.till().lock(card, "X2")
    assert lock.status_code == 201
    again = till.void(card, "X1")
    assert (again.status_code, told(again.json)) == (200, told(first))
    assert (first["funded_minor"], first["case_id"]) == (0, None)


def test_a_refund_of_a_line_that_is_voided_later_is_known_when_it_comes_again(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    redeemed(till, card, "X1", 100)
    lock = till.lock(card, "R1", purpose="refund", amount_minor=100)
    line = sale_line(lock, 100, operation="refund", original=till.key_of("X1"))
    assert till.conclude("R1", line).status_code == 201
    voided(till, card, "X1")
    again = till.conclude("R1", line)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (200, "true")
    assert hq.balance(card) == 100


def test_the_issue_of_a_card_that_another_till_has_reserved_falls_short_when_it_is_voided(
    hq: Hq,
) -> None:
    till, other = hq.till(), hq.till()
    hq.allow_offline(other)
    issued = till.lock_new("I1", 100)
    card = hq.card_of(issued)
    assert till.conclude("I1", sale_line(issued, 100, operation="issue")).status_code == 201
    assert other.lock(card, "Y1").json["offline"]["allowed"]
    answer = voided(till, card, "I1")
    assert (answer["funded_minor"], answer["shortfall_minor"]) == (0, 100)
    assert state_of(hq, card) == ("active", 100)
