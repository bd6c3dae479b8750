"""Lock, redeem, release and settle, over HTTP on a real database."""

from __future__ import annotations

from tests.support import Hq, a_name


def test_a_locked_card_is_redeemed_and_free_again(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(500_00)
    lock = till.lock(card, "X1")
    assert lock.status_code == 201
    assert lock.json["max_amount_minor"] == 500_00
    redeemed = till.redeem(card, "X1", 120_00, lock.json["lock_id"])
    assert redeemed.status_code == 201
    assert redeemed.json["balance_after_minor"] == 380_00
    assert hq.till().lock(card, a_name("X")).status_code == 201
