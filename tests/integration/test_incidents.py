"""What went wrong elsewhere, in public, each as a test of what must not go wrong here.

The names in the docstrings are the issues in the projects that had them.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import Hq, Till, a_name, on_its_own, sale_line, together


def test_the_same_card_is_not_spent_twice_by_two_tills_at_once(hq: Hq) -> None:
    """spree 13734, spree 11284, medusa 16347, odoo 79235, POSNext 198."""
    card = hq.issue(100)
    tills = [on_its_own(hq, hq.till()) for _ in range(6)]

    def sell(till: Till) -> int:
        lock = till.lock(card, "X1")
        if lock.status_code != 201:
            return 0
        return 100 * (till.redeem(card, "X1", 100, lock.json["lock_id"]).status_code == 201)

    sold = together([lambda till=till: sell(till) for till in tills])
    assert sum(sold) == 100
    assert hq.balance(card) == 0


def test_no_card_ever_goes_below_zero(hq: Hq) -> None:
    """Azuriom Plugin-Shop 285."""
    till, card = hq.till(), hq.issue(10)
    lines = [till.offline_line(card, f"X{number}", 7) for number in range(5)]
    results = hq.post_batch(till.store_id, lines).json["results"]
    assert sum(one["funded_minor"] for one in results) == 10
    assert sum(one["shortfall_minor"] for one in results) == 25
    assert hq.balance(card) == 0


def test_a_closed_card_gives_nothing(hq: Hq) -> None:
    """opensourcepos 4640."""
    till, card = hq.till(), hq.issue(10)
    lock = till.lock(card, "X1")
    till.redeem(card, "X1", 10, lock.json["lock_id"])
    hq.sql("UPDATE instruments SET status = 'closed' WHERE instrument_id = %s", card.instrument_id)
    assert till.lock(card, "X2").json["code"] == "instrument_closed"
    result = hq.post_batch(till.store_id, [till.offline_line(card, "X3", 5)]).json["results"][0]
    assert (result["funded_minor"], result["shortfall_minor"]) == (0, 5)


def test_two_refunds_of_one_line_at_once_give_back_no_more_than_it(hq: Hq) -> None:
    """eventyay 2824."""
    till, card = hq.till(), hq.issue(100)
    lock = till.lock(card, "X1")
    till.redeem(card, "X1", 60, lock.json["lock_id"])
    targets = [hq.issue(1) for _ in range(4)]
    tills = [on_its_own(hq, hq.till()) for _ in targets]
    locks = [
        one.lock(target, "R1", purpose="refund", amount_minor=60)
        for one, target in zip(tills, targets, strict=True)
    ]

    def refund(one: Till, locked: Any) -> int:
        line = sale_line(locked, 60, operation="refund", original=till.key_of("X1"))
        return one.conclude("R1", line).status_code

    calls = [
        lambda one=one, locked=locked: refund(one, locked)
        for one, locked in zip(tills, locks, strict=True)
    ]
    assert sorted(together(calls)) == [201, 409, 409, 409]
    assert sum(hq.balance(target) for target in targets) == 64


def test_a_double_click_redeems_once(hq: Hq) -> None:
    """affiliatewp-store-credit 67, stripe-terminal-android 747."""
    till, card = hq.till(), hq.issue(100)
    lock_id = till.lock(card, "X1").json["lock_id"]
    clicks = [on_its_own(hq, till) for _ in range(4)]
    answers = together([lambda one=one: one.redeem(card, "X1", 30, lock_id) for one in clicks])
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert {answer.json["balance_after_minor"] for answer in answers} == {70}
    assert hq.balance(card) == 70


def test_two_windows_that_sync_the_same_sales_post_them_once(hq: Hq) -> None:
    """odoo 152259, odoo 222372, erpnext 12971, solana-developer-platform 751."""
    till, card = hq.till(), hq.issue(100)
    lines = [till.offline_line(card, f"X{number}", 10) for number in range(4)]
    for _ in range(5):
        assert hq.post_batch(till.store_id, lines).status_code == 201
    assert hq.balance(card) == 60


def test_a_card_sold_offline_and_synced_twice_is_issued_once(hq: Hq) -> None:
    """odoo 235956, odoo 108240."""
    till = hq.till()
    hq.allow_offline(till)
    lock = till.lock_new("X1", 50)
    card = hq.card_of(lock)
    line = till.offline_line(card, "X1", 50, operation="issue")
    hq.post_batch(till.store_id, [line])
    hq.post_batch(till.store_id, [line])
    assert hq.balance(card) == 50


def test_one_invalid_sale_does_not_block_the_queue(hq: Hq) -> None:
    """erpnext 11000, erpnext 11225."""
    till, card = hq.till(), hq.issue(100)
    good = [till.offline_line(card, f"X{number}", 10) for number in range(3)]
    bad: list[Any] = [None, {"operation": "redeem"}, {**good[0], "amount_minor": "ten"}, [], 7]
    answer = hq.post_batch(till.store_id, [bad[0], good[0], *bad[1:4], good[1], bad[4], good[2]])
    assert answer.json["counts"] == {"applied": 3, "quarantined": 5}
    assert hq.balance(card) == 70


def test_the_same_key_twice_in_one_batch_is_one_posting(hq: Hq) -> None:
    """formance stack 1633."""
    till, card = hq.till(), hq.issue(100)
    line = till.offline_line(card, "X1", 30)
    results = hq.post_batch(till.store_id, [line, line, line]).json["results"]
    assert [one["outcome"] for one in results] == ["applied", "duplicate", "duplicate"]
    assert hq.balance(card) == 70


def test_a_void_twice_gives_back_once_and_nothing_comes_after_it(hq: Hq) -> None:
    """blnk 41, blnk 42."""
    till, card = hq.till(), hq.issue(100)
    lock = till.lock(card, "X1")
    till.redeem(card, "X1", 30, lock.json["lock_id"])
    assert [till.void(card, "X1").status_code for _ in range(3)] == [201, 200, 200]
    assert hq.balance(card) == 100
    late = hq.post_batch(till.store_id, [till.offline_line(card, "X1", 30)]).json["results"][0]
    assert late["outcome"] == "duplicate"
    assert hq.balance(card) == 100


def test_nothing_is_concluded_above_what_was_locked(hq: Hq) -> None:
    """blnk 62, blnk 181."""
    till, card = hq.till(), hq.issue(100)
    lock = till.lock(card, "X1", purpose="load", amount_minor=40)
    answer = till.conclude("X1", sale_line(lock, 41, operation="load"))
    assert (answer.status_code, answer.json["code"]) == (409, "insufficient_balance")
    assert hq.balance(card) == 100


def test_a_refused_command_stays_refused_and_occupies_no_key(hq: Hq) -> None:
    """blnk 182."""
    till, card = hq.till(), hq.issue(100)
    lock_id = till.lock(card, "X1").json["lock_id"]
    assert till.redeem(card, "X1", 101, lock_id).json["code"] == "insufficient_balance"
    assert till.redeem(card, "X1", 100, lock_id).status_code == 201
    assert till.redeem(card, "X1", 101, lock_id).json["code"] == "business_key_reused"


def test_a_reused_key_with_other_content_is_never_told_the_old_answer(hq: Hq) -> None:
    """midaz-sdk-golang 236."""
    till, card = hq.till(), hq.issue(100)
    lock_id = till.lock(card, "X1").json["lock_id"]
    till.redeem(card, "X1", 10, lock_id)
    answer = till.redeem(card, "X1", 11, lock_id)
    assert (answer.status_code, answer.json["code"]) == (422, "business_key_reused")
    other = hq.issue(100)
    line = till.offline_line(other, "X1", 10)
    result = hq.post_batch(till.store_id, [line]).json["results"][0]
    assert result["codes"] == ["business_key_reused"]
    assert hq.balance(other) == 100


def test_a_lock_is_held_until_the_sale_is_posted(hq: Hq) -> None:
    """spree_store_credit_payment_method 9: a lock released too early."""
    till, card = hq.till(), hq.issue(100)
    lock = till.lock(card, "X1")
    till.redeem(card, "X1", 101, lock.json["lock_id"])
    assert hq.till().lock(card, a_name("X")).status_code == 423


@pytest.mark.parametrize("times", [1, 5])
def test_a_retried_batch_pays_nobody_twice(hq: Hq, times: int) -> None:
    """opencart 4812, erpnext 15699."""
    till, card = hq.till(), hq.issue(100)
    lines = [till.offline_line(card, "X1", 30)]
    batch_id = a_name("batch")
    statuses = [hq.post_batch(till.store_id, lines, batch_id).status_code for _ in range(times)]
    assert statuses == [201, 200, 200, 200, 200][:times]
    assert hq.balance(card) == 70
