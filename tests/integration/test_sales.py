"""Every operation in two phases: the lock's purpose first, then the conclusion."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import Card, Hq, a_name, a_number, sale_line


def test_a_gift_card_is_issued_with_a_number_that_hq_makes(hq: Hq) -> None:
    till, sale = hq.till(), a_name("X")
    lock = till.lock_new(sale, 300_00)
    assert lock.status_code == 201, lock.json
    assert (lock.json["instrument"]["status"], lock.json["max_amount_minor"]) == ("pending", 300_00)
    card = hq.card_of(lock)
    again = till.lock_new(sale, 300_00)
    assert (again.status_code, again.json["number"]) == (200, card.number)
    assert hq.balance(card) == 0
    done = till.conclude(sale, sale_line(lock, 300_00, operation="issue"))
    assert done.status_code == 201, done.json
    assert hq.balance(card) == 300_00
    repeat = till.conclude(sale, sale_line(lock, 300_00, operation="issue"))
    assert (repeat.status_code, repeat.json) == (200, done.json)
    assert hq.balance(card) == 300_00


def test_a_gift_card_is_issued_with_the_number_on_it(hq: Hq) -> None:
    till, number = hq.till(), a_number()
    lock = till.lock_new("X1", 100, number=number)
    assert lock.json["number"] is None
    assert till.conclude("X1", sale_line(lock, 100, operation="issue")).status_code == 201
    assert hq.balance(hq.card_of(lock, number)) == 100
    again = till.lock_new("X2", 100, number=number)
    assert (again.status_code, again.json["code"]) == (409, "instrument_already_active")


def test_an_abandoned_issue_leaves_no_money_on_the_card(hq: Hq) -> None:
    till, number = hq.till(), a_number()
    lock = till.lock_new("X1", 500, number=number)
    card = hq.card_of(lock, number)
    assert till.release(card, "X1", lock.json["lock_id"]).status_code == 200
    assert hq.balance(card) == 0
    other = hq.till().lock(card, "X9")
    assert (other.status_code, other.json["code"]) == (409, "instrument_not_active")
    relocked = hq.till().lock_new("X3", 200, number=number)
    assert relocked.status_code == 201


def test_an_abandoned_memo_leaves_no_orphan(hq: Hq) -> None:
    till = hq.till()
    lock = till.lock_new("X1", 80_00, kind="credit_memo")
    memo = hq.card_of(lock)
    voided = till.void(memo, "X1")
    assert voided.status_code == 201, voided.json
    assert hq.sql("SELECT count(*) FROM postings WHERE instrument_id = %s", memo.instrument_id) == [
        (0,)
    ]
    assert till.lock_new("X1", 80_00, kind="credit_memo").json["code"] == "voided"


def test_the_numbers_of_memos_are_hqs_alone(hq: Hq) -> None:
    answer = hq.till().lock_new("X1", 100, kind="credit_memo", number=a_number())
    assert answer.status_code == 422
    assert answer.json["errors"][0]["pointer"] == "/number"


def test_a_card_is_loaded(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    lock = till.lock(card, "X1", purpose="load", amount_minor=50)
    done = till.conclude("X1", sale_line(lock, 50, operation="load"))
    assert done.json["lines"][0]["balance_after_minor"] == 150
    assert hq.balance(card) == 150


@pytest.mark.parametrize("purpose", ["load", "refund", "cash_out"])
def test_a_credit_memo_is_issued_and_redeemed_and_nothing_else(hq: Hq, purpose: str) -> None:
    memo = hq.issue(100, kind="credit_memo")
    more = {} if purpose == "cash_out" else {"amount_minor": 10}
    answer = hq.till().lock(memo, "X1", purpose=purpose, **more)
    assert (answer.status_code, answer.json["code"]) == (409, "operation_not_allowed")


def test_a_conclusion_needs_the_purpose_it_was_locked_for(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    lock = till.lock(card, "X1", purpose="load", amount_minor=50)
    answer = till.conclude("X1", sale_line(lock, 50))
    assert (answer.status_code, answer.json["code"]) == (409, "lock_lost")
    assert answer.json["errors"][0]["pointer"] == "/lines/0"


def redeemed(hq: Hq, card: Card, amount_minor: int) -> dict[str, Any]:
    till, sale = hq.till(), a_name("X")
    lock = till.lock(card, sale)
    assert till.redeem(card, sale, amount_minor, lock.json["lock_id"]).status_code == 201
    return till.key_of(sale)


def refund(hq: Hq, card: Card, amount_minor: int, **more: Any) -> Any:
    till, sale = hq.till(), a_name("X")
    lock = till.lock(card, sale, purpose="refund", amount_minor=amount_minor)
    done = till.conclude(sale, sale_line(lock, amount_minor, operation="refund", **more))
    if done.status_code != 201:
        till.void(card, sale)
    return done


def test_linked_refunds_never_give_back_more_than_the_original(hq: Hq) -> None:
    card, other = hq.issue(100), hq.issue(0 + 1)
    original = redeemed(hq, card, 60)
    assert refund(hq, card, 40, original=original).status_code == 201
    too_much = refund(hq, other, 21, original=original)
    assert (too_much.status_code, too_much.json["code"]) == (409, "refund_exceeds_original")
    assert refund(hq, other, 20, original=original).status_code == 201
    assert (hq.balance(card), hq.balance(other)) == (80, 21)


def test_a_voided_refund_can_be_given_again(hq: Hq) -> None:
    card = hq.issue(100)
    original = redeemed(hq, card, 60)
    till = hq.till()
    lock = till.lock(card, "R1", purpose="refund", amount_minor=60)
    line = sale_line(lock, 60, operation="refund", original=original)
    assert till.conclude("R1", line).status_code == 201
    assert till.void(card, "R1").status_code == 201
    assert hq.balance(card) == 40
    assert refund(hq, card, 60, original=original).status_code == 201
    assert hq.balance(card) == 100


def test_a_refund_of_a_line_that_hq_does_not_know_is_refused(hq: Hq) -> None:
    card = hq.issue(100)
    answer = refund(hq, card, 10, original=hq.till().key_of("never"))
    assert (answer.status_code, answer.json["code"]) == (409, "unknown_original")


def test_an_unlinked_refund_needs_a_reason(hq: Hq) -> None:
    card = hq.issue(100)
    answer = refund(hq, card, 10)
    assert answer.status_code == 422
    assert answer.json["errors"][0]["pointer"] == "/lines/0/reason"
    assert refund(hq, card, 10, reason="no receipt").status_code == 201
    assert hq.balance(card) == 110


def test_cash_out_takes_the_whole_balance_up_to_the_threshold(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(40_00)
    answer = till.lock(card, "X1", purpose="cash_out")
    assert (answer.status_code, answer.json["code"]) == (409, "cash_out_not_allowed")
    hq.set_parameters(gift_card_cash_out_threshold_minor={"SEK": 50_00})
    lock = till.lock(card, "X1", purpose="cash_out")
    part = till.conclude("X1", sale_line(lock, 30_00, operation="cash_out"))
    assert (part.status_code, part.json["code"]) == (409, "cash_out_not_whole")
    done = till.conclude("X1", sale_line(lock, 40_00, operation="cash_out"))
    assert done.status_code == 201
    assert hq.balance(card) == 0
    rich = till.lock(hq.issue(50_01), "X2", purpose="cash_out")
    assert rich.json["code"] == "cash_out_not_allowed"


def test_a_sale_on_several_instruments_is_concluded_all_or_none(hq: Hq) -> None:
    till, one, two = hq.till(), hq.issue(100), hq.issue(100)
    locks = [till.lock(one, "X1", 1), till.lock(two, "X1", 2)]
    too_much = till.conclude("X1", sale_line(locks[0], 60, 1), sale_line(locks[1], 101, 2))
    assert (too_much.status_code, too_much.json["code"]) == (409, "insufficient_balance")
    assert too_much.json["errors"][0]["pointer"] == "/lines/1"
    assert (hq.balance(one), hq.balance(two)) == (100, 100)
    done = till.conclude("X1", sale_line(locks[0], 60, 1), sale_line(locks[1], 100, 2))
    assert done.status_code == 201
    assert [line["balance_after_minor"] for line in done.json["lines"]] == [40, 0]


def test_lines_that_were_settled_before_count_as_done(hq: Hq) -> None:
    till, one, two = hq.till(), hq.issue(100), hq.issue(100)
    locks = [till.lock(one, "X1", 1), till.lock(two, "X1", 2)]
    assert till.redeem(one, "X1", 60, locks[0].json["lock_id"]).status_code == 201
    done = till.conclude("X1", sale_line(locks[0], 60, 1), sale_line(locks[1], 30, 2))
    assert done.status_code == 201
    assert (hq.balance(one), hq.balance(two)) == (40, 70)
    again = till.conclude("X1", sale_line(locks[0], 60, 1), sale_line(locks[1], 30, 2))
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (200, "true")


@pytest.mark.parametrize(
    ("lines", "pointer"), [((1, 1), "/lines/1/line"), ((1, 2), "/lines/1/instrument_id")]
)
def test_a_line_or_an_instrument_that_comes_twice_is_refused(
    hq: Hq, lines: tuple[int, int], pointer: str
) -> None:
    till, card = hq.till(), hq.issue(100)
    lock = till.lock(card, "X1", 1)
    answer = till.conclude("X1", sale_line(lock, 10, lines[0]), sale_line(lock, 20, lines[1]))
    assert answer.status_code == 422
    assert pointer in [error["pointer"] for error in answer.json["errors"]]


def test_a_till_that_lost_an_answer_asks_what_became_of_its_sale(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    lock = till.lock(card, "X1")
    path = f"/v1/transactions/{till.store_id}/{till.terminal_id}/X1"
    assert till.get(path).json["code"] == "transaction_not_found"
    till.redeem(card, "X1", 30, lock.json["lock_id"])
    told = till.get(path).json["lines"]
    assert [(line["outcome"], line["amount_minor"]) for line in told] == [("applied", 30)]
    till.void(card, "X1")
    told = till.get(path).json["lines"]
    assert [line["outcome"] for line in told] == ["applied", "voided"]
    assert hq.till().get(path).status_code == 404


def test_what_the_till_took_in_another_currency_is_stored_as_told(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    lock = till.lock(card, "X1")
    tender = {"amount_minor": 9, "currency": "EUR", "exchange_rate": "11.1111"}
    assert till.conclude("X1", sale_line(lock, 100, tender=tender)).status_code == 201
    rows = hq.sql(
        "SELECT tender_amount_minor, tender_currency, exchange_rate FROM postings"
        " WHERE instrument_id = %s AND operation = 'redeem'",
        card.instrument_id,
    )
    assert rows == [(9, "EUR", "11.1111")]
