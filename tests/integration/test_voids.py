"""A void means "this business key shall have no effect", in whatever order things arrive."""

from __future__ import annotations

from tests.support import Hq, a_name, sale_line


def test_a_concluded_redemption_is_given_back(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    lock = till.lock(card, "X1")
    till.redeem(card, "X1", 70, lock.json["lock_id"])
    voided = till.void(card, "X1")
    assert voided.status_code == 201
    assert (voided.json["funded_minor"], voided.json["balance_after_minor"]) == (70, 100)
    again = till.void(card, "X1")
    assert again.status_code == 200
    assert hq.balance(card) == 100


def test_a_void_that_comes_first_keeps_its_line_from_having_an_effect(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    lock = till.lock(card, "X1")
    assert till.void(card, "X1").status_code == 201
    late = till.redeem(card, "X1", 70, lock.json["lock_id"])
    assert (late.status_code, late.json["code"]) == (409, "voided")
    batch = hq.post_batch(till.store_id, [till.offline_line(card, "X1", 70)])
    assert batch.json["results"][0]["codes"] == ["voided"]
    assert hq.balance(card) == 100
    assert hq.till().lock(card, a_name("X")).status_code == 201


def test_a_sale_voided_offline_after_its_online_redeem_gives_the_money_back(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    lock = till.lock(card, "X1")
    till.redeem(card, "X1", 70, lock.json["lock_id"])
    line = till.offline_line(card, "X1", 70, status="voided")
    first = hq.post_batch(till.store_id, [line])
    assert first.json["results"][0]["codes"] == ["voided"]
    assert hq.balance(card) == 100
    again = hq.post_batch(till.store_id, [line])
    assert again.json["results"][0]["outcome"] == "duplicate"
    assert hq.balance(card) == 100


def test_a_void_line_in_a_batch_works_in_either_order(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    sale = till.offline_line(card, "X1", 40)
    void = till.offline_line(card, "X1", 1, operation="void")
    del void["amount_minor"], void["currency"]
    for lines in ([void], [sale]):
        assert hq.post_batch(till.store_id, lines).status_code == 201
    assert hq.balance(card) == 100
    sale, void = till.offline_line(card, "X2", 40), {**void, "transaction_id": "X2"}
    void["sequence"] = till.sequence + 1
    hq.post_batch(till.store_id, [sale, void])
    assert hq.balance(card) == 100


def test_voiding_a_spent_load_falls_short_with_a_case(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(10)
    lock = till.lock(card, "L1", purpose="load", amount_minor=90)
    till.conclude("L1", sale_line(lock, 90, operation="load"))
    other = hq.till()
    spending = other.lock(card, "X1")
    other.redeem(card, "X1", 80, spending.json["lock_id"])
    voided = till.void(card, "L1")
    assert (voided.json["funded_minor"], voided.json["shortfall_minor"]) == (20, 70)
    case = hq.case(voided.json["case_id"])
    assert (case["shortfall_minor"], case["operation"]) == (70, "void")
    assert hq.balance(card) == 0


def test_voiding_an_issue_leaves_the_card_pending(hq: Hq) -> None:
    till = hq.till()
    lock = till.lock_new("X1", 100)
    card = hq.card_of(lock)
    till.conclude("X1", sale_line(lock, 100, operation="issue"))
    assert till.void(card, "X1").status_code == 201
    assert hq.sql(
        "SELECT status, balance_minor FROM instruments WHERE instrument_id = %s",
        card.instrument_id,
    ) == [("pending", 0)]


def test_a_reversed_memo_is_good_again_and_its_remainder_stays(hq: Hq) -> None:
    till, memo = hq.till(), hq.issue(100, kind="credit_memo")
    lock = till.lock(memo, "X1")
    done = till.redeem(memo, "X1", 30, lock.json["lock_id"])
    remainder = done.json["remainder"]
    assert till.void(memo, "X1").status_code == 201
    assert hq.balance(memo) == 30
    answer = hq.admin.post(
        "/v1/balance-inquiries", {"kind": "credit_memo", "number": remainder["number"]}
    )
    assert answer.json["balance_minor"] == 70


def test_a_void_of_a_key_that_was_spent_on_another_card_is_refused(hq: Hq) -> None:
    till, card, other = hq.till(), hq.issue(100), hq.issue(100)
    lock = till.lock(card, "X1")
    till.redeem(card, "X1", 70, lock.json["lock_id"])
    answer = till.void(other, "X1")
    assert (answer.status_code, answer.json["code"]) == (422, "business_key_reused")
    assert hq.balance(card) == 30


def test_a_void_of_a_shortfall_cancels_it_and_closes_its_case(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(10)
    line = till.offline_line(card, "X1", 50)
    result = hq.post_batch(till.store_id, [line]).json["results"][0]
    assert result["shortfall_minor"] == 40
    hq.post_batch(till.store_id, [till.offline_line(card, "X1", 50, status="cancelled")])
    case = hq.case(result["case_id"])
    assert case["resolution"] == "voided"
    assert hq.balance(card) == 10


def test_one_terminal_cannot_void_anothers_lines(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    body = {**till.key_of("X1"), "instrument_id": card.instrument_id, "reason": "mine now"}
    assert hq.till(till.store_id).post("/v1/voids", body).json["code"] == "foreign_terminal"
