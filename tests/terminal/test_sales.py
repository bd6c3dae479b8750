"""Sales with HQ: each line is locked when it is added, and all are concluded together."""

from __future__ import annotations

import pytest

from hq_service.terminal.refusals import NotPossible, Refused
from hq_service.terminal.store import SaleState
from tests.support import a_number
from tests.terminal.shop import CASH_OUT_MINOR, Fate, Shop


def test_a_card_is_locked_when_it_is_added_and_unlocked_when_the_sale_is_concluded(
    shop: Shop,
) -> None:
    till, card = shop.till(), shop.card(500_00)
    sale = till.terminal.begin_sale()
    line = sale.redeem("gift_card", card.number, 120_00)
    assert (line.max_amount_minor, line.number_last4) == (500_00, card.number[-4:])
    assert shop.locked_by(till) == 1
    receipt = sale.conclude()
    assert [one.balance_after_minor for one in receipt.lines] == [380_00]
    assert not receipt.is_offline
    assert shop.hq.balance(card) == 380_00
    assert shop.locked_by(till) == 0


def test_a_sale_redeems_issues_loads_refunds_and_cashes_out(shop: Shop) -> None:
    till = shop.till()
    paying, loaded, refunded, small = (
        shop.card(amount) for amount in (500_00, 10_00, 0 + 1, 40_00)
    )
    first = till.terminal.begin_sale()
    taken = first.redeem("gift_card", paying.number, 200_00)
    first.conclude()
    sale = till.terminal.begin_sale()
    sale.redeem("gift_card", paying.number, 50_00)
    sale.load(loaded.number, 90_00)
    original = till.terminal.key_of(first, taken.line)
    sale.refund(refunded.number, 30_00, original=original)
    issued = sale.issue("gift_card", 25_00, "SEK")
    named = a_number()
    sale.issue("gift_card", 15_00, "SEK", number=named)
    cashed = sale.cash_out(small.number)
    assert cashed.amount_minor == 40_00 <= CASH_OUT_MINOR
    receipt = sale.conclude()
    assert len(receipt.lines) == 6
    assert shop.hq.balance(paying) == 250_00
    assert shop.hq.balance(loaded) == 100_00
    assert shop.hq.balance(refunded) == 30_01
    assert shop.hq.balance(small) == 0
    assert issued.made_number is not None
    assert till.terminal.balance("gift_card", issued.made_number)["balance_minor"] == 25_00
    assert till.terminal.balance("gift_card", named)["balance_minor"] == 15_00


def test_what_is_left_of_a_credit_memo_is_on_the_receipt_also_when_it_is_asked_for_again(
    shop: Shop,
) -> None:
    till, memo = shop.till(), shop.card(300_00, "credit_memo")
    sale = till.terminal.begin_sale()
    sale.redeem("credit_memo", memo.number, 100_00)
    [line] = sale.conclude().lines
    assert line.remainder_number is not None
    assert till.terminal.balance("credit_memo", line.remainder_number)["balance_minor"] == 200_00
    found = till.terminal.find_sale(sale.transaction_id)
    assert found is not None
    assert found.conclude().lines[0].remainder_number == line.remainder_number


def test_a_card_that_another_till_holds_is_refused_and_the_sale_goes_on(shop: Shop) -> None:
    one, other, card, another = shop.till(), shop.till(), shop.card(100), shop.card(100)
    one.terminal.begin_sale().redeem("gift_card", card.number)
    sale = other.terminal.begin_sale()
    with pytest.raises(Refused) as refused:
        sale.redeem("gift_card", card.number, 50)
    assert refused.value.code == "instrument_locked"
    assert refused.value.members["holder"]["terminal_id"] == one.register.terminal_id
    sale.redeem("gift_card", another.number, 50)
    assert sale.conclude().lines[0].amount_minor == 50


def test_amounts_above_what_is_locked_are_refused_at_the_till(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = till.terminal.begin_sale()
    line = sale.redeem("gift_card", card.number)
    requests_count = len(till.line.sent)
    with pytest.raises(NotPossible, match=r"100\.01 SEK is more than 100\.00 SEK") as refused:
        sale.set_amount(line.line, 100_01)
    assert refused.value.code == "above_grant"
    assert len(till.line.sent) == requests_count
    sale.set_amount(line.line, 100_00)
    sale.conclude()


def test_a_line_without_an_amount_is_not_concluded(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = till.terminal.begin_sale()
    sale.redeem("gift_card", card.number)
    with pytest.raises(NotPossible) as refused:
        sale.conclude()
    assert {line: one.code for line, one in refused.value.reasons.items()} == {1: "no_amount"}


def test_a_removed_line_gives_its_lock_back_and_a_voided_sale_all_of_them(shop: Shop) -> None:
    till, cards = shop.till(), [shop.card(100_00) for _ in range(3)]
    sale = till.terminal.begin_sale()
    lines = [sale.redeem("gift_card", card.number, 10_00) for card in cards]
    sale.remove(lines[0].line)
    assert shop.locked_by(till) == 2
    sale.void()
    assert sale.state is SaleState.VOIDED
    assert shop.locked_by(till) == 0
    assert [shop.hq.balance(card) for card in cards] == [100_00] * 3
    assert till.journal == []


def test_a_concluded_sale_can_be_voided_and_everything_comes_back(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = till.terminal.begin_sale()
    sale.redeem("gift_card", card.number, 60_00)
    sale.conclude()
    found = till.terminal.find_sale(sale.transaction_id)
    assert found is not None
    found.void()
    assert shop.hq.balance(card) == 100_00


def test_a_lost_answer_is_repeated_under_the_same_key_and_content(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = till.terminal.begin_sale()
    till.line.next.append(Fate.ANSWER_LOST)
    sale.redeem("gift_card", card.number, 60_00)
    till.line.next.append(Fate.ANSWER_LOST)
    assert not sale.conclude().is_offline
    for path in ("/v1/locks", "/v1/transactions"):
        first, second = till.line.posted_to(path)
        assert first.content == second.content
    assert shop.hq.balance(card) == 40_00
    assert till.warnings == []


def test_what_hq_refuses_to_conclude_is_told_by_line_and_the_sale_is_open(shop: Shop) -> None:
    till, good, bad = shop.till(), shop.card(100_00), shop.card(100_00)
    sale = till.terminal.begin_sale()
    sale.redeem("gift_card", good.number, 60_00)
    blocked = sale.redeem("gift_card", bad.number, 60_00)
    shop.hq.sql(
        "UPDATE instruments SET status = 'blocked' WHERE instrument_id = %s", bad.instrument_id
    )
    with pytest.raises(Refused) as refused:
        sale.conclude()
    assert refused.value.lines == {blocked.line: "instrument_blocked"}
    assert sale.state is SaleState.OPEN
    sale.remove(blocked.line)
    sale.conclude()
    assert (shop.hq.balance(good), shop.locked_by(till)) == (40_00, 0)


def test_a_till_has_one_sale_at_a_time_and_each_has_a_name_of_its_own(shop: Shop) -> None:
    till = shop.till()
    sale = till.terminal.begin_sale("receipt-1")
    with pytest.raises(NotPossible, match="receipt-1 is not finished"):
        till.terminal.begin_sale()
    sale.void()
    with pytest.raises(NotPossible, match="give each a name of its own"):
        till.terminal.begin_sale("receipt-1")
    names = set()
    for _ in range(3):
        sale = till.terminal.begin_sale()
        names.add(sale.transaction_id)
        sale.conclude()
    assert len(names) == 3
