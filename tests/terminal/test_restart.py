"""A till that ends at any point goes on where it was, or voids; HQ comes to the same."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hq_service.terminal.refusals import NotPossible
from hq_service.terminal.store import LineState, SaleState
from hq_service.terminal.sync import let_go_of_strays, upload
from tests.support import Card
from tests.terminal.killed import KILLED
from tests.terminal.shop import Fate, Shop, Till

ROOT = Path(__file__).resolve().parents[2]
ISSUED_MINOR = 100_00
SIGNS = {"redeem": -1, "load": 1}

Order = Callable[..., str]


@pytest.fixture(scope="module")
def order() -> Iterator[Order]:
    """Give orders to the process that is killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.terminal.killed"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def give(**order: Any) -> str:
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    yield give
    _, errors = process.communicate()
    assert errors == "", errors


def finish(shop: Shop, till: Till, *, by_voiding: bool) -> None:
    """Do what a cashier does after a restart, and synchronise."""
    terminal = till.terminal
    sale = terminal.resume()
    if sale is not None and by_voiding:
        sale.void()
    elif sale is not None:
        for line in sale.lines:
            if line.amount_minor is None:
                sale.remove(line.line)
        sale.conclude()
    assert terminal.store.unfinished_sale() is None
    assert terminal.connect().is_online
    upload(till.line, terminal.store, terminal.setup, terminal.clock)
    let_go_of_strays(till.line, terminal.store, terminal.clock)
    assert till.journal == []


def truth_of(till: Till, cards: dict[str, Card]) -> dict[str, int]:
    """Return what the till knows that it sold of its newest sale, by instrument."""
    sold = {card.instrument_id: 0 for card in cards.values()}
    rows = till.terminal.store._rows("SELECT transaction_id FROM sales")
    for (transaction_id,) in rows:
        sale = till.terminal.store.sale(transaction_id)
        assert sale is not None
        for line in sale.lines:
            if line.state is LineState.CONCLUDED and line.instrument_id in sold:
                sold[line.instrument_id] += SIGNS[line.operation] * (line.amount_minor or 0)
    return sold


def worth_of(shop: Shop, card: Card) -> int:
    """Return the balance of a card; of a memo, with the memos that its rest went to."""
    [(balance_minor,)] = shop.hq.sql(
        "SELECT sum(balance_minor)::bigint FROM instruments WHERE instrument_id = %s"
        " OR instrument_id IN"
        " (SELECT related_instrument_id FROM postings WHERE instrument_id = %s)",
        card.instrument_id,
        card.instrument_id,
    )
    return int(balance_minor)


@pytest.mark.parametrize("story", ["online", "lost answers"])
def test_a_till_that_is_killed_at_any_point_ends_equal_with_hq(
    shop: Shop, order: Order, story: str
) -> None:
    till = shop.till()
    till.terminal.close()
    for kill_at in itertools.count(1):
        cards = {
            "card": shop.card(ISSUED_MINOR),
            "memo": shop.card(ISSUED_MINOR, "credit_memo"),
            "other": shop.card(ISSUED_MINOR),
        }
        came = order(
            url=shop.url,
            key=till.register.key,
            directory=str(till.directory),
            store_id=shop.store_id,
            terminal_id=till.register.terminal_id,
            story=story,
            numbers=[card.number for card in cards.values()],
            kill_at=kill_at,
        )
        is_over = came != KILLED
        assert not is_over or int(came) < kill_at, (story, kill_at, came)
        till = shop.start(till.register)
        finish(shop, till, by_voiding=kill_at % 2 == 1)
        sold = truth_of(till, cards)
        for card in cards.values():
            expected = ISSUED_MINOR + sold[card.instrument_id]
            assert worth_of(shop, card) == expected, (story, kill_at, card.kind)
        assert shop.locked_by(till) == 0, (story, kill_at)
        assert shop.cases() == [], (story, kill_at)
        till.terminal.close()
        if is_over:
            break
    assert kill_at > 30  # the setup, each line, the conclusion: all of it was looked at


def test_an_unconcluded_sale_is_continued_by_the_lock_that_it_holds(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = till.terminal.begin_sale()
    sale.redeem("gift_card", card.number, 60_00)
    till = shop.restart(till)
    with pytest.raises(NotPossible, match="is not finished"):
        till.terminal.begin_sale()
    resumed = till.terminal.resume()
    assert resumed is not None
    assert resumed.transaction_id == sale.transaction_id
    assert [(line.line, line.amount_minor) for line in resumed.lines] == [(1, 60_00)]
    resumed.conclude()
    assert (shop.hq.balance(card), shop.locked_by(till)) == (40_00, 0)


def test_a_lock_whose_answer_the_till_did_not_live_to_hear_is_found_at_hq(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = till.terminal.begin_sale()
    issued = sale.issue("gift_card", 20_00, "SEK")
    line = sale._sale.lines[0]
    line.state, line.lock_id, line.instrument_id = LineState.ASKED, None, None
    till.terminal.store.save_line(line)  # as it was before the answer
    till = shop.restart(till)
    resumed = till.terminal.resume()
    assert resumed is not None
    assert resumed.lines[0].made_number == issued.made_number
    resumed.redeem("gift_card", card.number, 20_00)
    resumed.conclude()
    assert till.terminal.balance("gift_card", issued.made_number or "")["balance_minor"] == 20_00


def test_the_number_of_an_unconcluded_issue_is_told_again_after_a_restart(shop: Shop) -> None:
    till = shop.till()
    issued = till.terminal.begin_sale().issue("gift_card", 20_00, "SEK")
    assert issued.made_number is not None
    till = shop.restart(till)
    resumed = till.terminal.resume()
    assert resumed is not None
    [line] = resumed.conclude().lines
    assert line.made_number == issued.made_number
    kept = b"".join(path.read_bytes() for path in till.directory.iterdir())
    assert issued.made_number.encode() not in kept


def test_an_issue_whose_number_was_never_printed_is_voided_and_nothing_is_lost(shop: Shop) -> None:
    till = shop.till()
    sale = till.terminal.begin_sale()
    issued = sale.issue("gift_card", 20_00, "SEK")
    sale.conclude()
    till = shop.restart(till)
    found = till.terminal.find_sale(sale.transaction_id)
    assert found is not None
    [line] = found.conclude().lines
    assert line.made_number is None  # HQ tells it no more
    found.void()
    assert till.terminal.balance("gift_card", issued.made_number or "")["balance_minor"] == 0
    again = till.terminal.begin_sale()
    other = again.issue("gift_card", 20_00, "SEK")
    again.conclude()
    assert other.made_number != issued.made_number
    assert till.terminal.balance("gift_card", other.made_number or "")["balance_minor"] == 20_00


def test_the_number_of_a_remainder_is_told_again_after_a_restart_online_and_offline(
    shop: Shop,
) -> None:
    till, memos = shop.till(), [shop.card(100_00, "credit_memo") for _ in range(2)]
    sales = []
    for memo, is_cut_off in zip(memos, (False, True), strict=True):
        sale = till.terminal.begin_sale()
        sale.redeem("credit_memo", memo.number, 60_00)
        till.line.always = Fate.REQUEST_LOST if is_cut_off else Fate.DELIVERED
        sales.append((sale.transaction_id, sale.conclude().is_offline))
    assert [is_offline for _, is_offline in sales] == [False, True]
    till = shop.restart(till)
    assert till.terminal.connect().is_online
    online, offline = (till.terminal.find_sale(name) for name, _ in sales)
    assert online is not None
    assert offline is not None
    assert offline.conclude().is_offline
    assert offline.conclude().lines[0].remainder_number is None
    assert shop.hq.balance(memos[1]) == 100_00  # HQ was asked, and nothing more
    upload(till.line, till.terminal.store, till.terminal.setup, till.terminal.clock)
    for sale in (online, offline):
        [line] = sale.conclude().lines
        assert line.balance_after_minor == 0
        number = line.remainder_number or ""
        assert till.terminal.balance("credit_memo", number)["balance_minor"] == 40_00
    assert shop.cases() == []


def test_a_sale_that_was_being_concluded_is_repeated_exactly(shop: Shop) -> None:
    till, memo = shop.till(), shop.card(100_00, "credit_memo")
    sale = till.terminal.begin_sale()
    sale.redeem("credit_memo", memo.number, 60_00)
    sale._conclude_online(sale._active())  # HQ has it, and the till ends before it knows
    [first] = till.line.posted_to("/v1/transactions")
    till = shop.restart(till)
    resumed = till.terminal.resume()
    assert resumed is not None
    assert resumed.state is SaleState.CONCLUDING
    [line] = resumed.conclude().lines
    [again] = till.line.posted_to("/v1/transactions")
    assert again.content == first.content
    assert line.remainder_number is not None
    assert shop.hq.balance(memo) == 40_00


def test_an_offline_till_is_offline_after_a_restart_and_goes_on_by_its_grants(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    till.terminal.begin_sale().redeem("gift_card", card.number, 60_00)
    till.terminal.disconnect()
    till = shop.restart(till)
    assert till.terminal.connection_status().is_manual
    resumed = till.terminal.resume()
    assert resumed is not None
    assert resumed.conclude().is_offline
    assert till.line.sent == []
    assert len(till.journal) == 1


def test_without_hq_a_restarted_till_switches_and_goes_on(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    till.terminal.begin_sale().redeem("gift_card", card.number, 60_00)
    till = shop.restart(till)
    till.line.always = Fate.REQUEST_LOST
    resumed = till.terminal.resume()
    assert resumed is not None
    assert len(till.warnings) == 1
    assert resumed.conclude().is_offline


def test_a_voiding_that_was_interrupted_is_finished(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = till.terminal.begin_sale()
    sale.redeem("gift_card", card.number, 60_00)
    sale._sale.state = SaleState.VOIDING
    till.terminal.store.save_sale(sale._sale)
    till = shop.restart(till)
    assert till.terminal.resume() is None
    assert shop.locked_by(till) == 0
    till.terminal.begin_sale()
