"""Advanced offline switching: slow answers and the health check switch the till, too."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from hq_service.terminal.client import Client
from hq_service.terminal.health import SLOW_SHARE
from hq_service.terminal.proxy import Fate as ProxyFate
from hq_service.terminal.proxy import Proxy
from hq_service.terminal.refusals import NotPossible
from hq_service.terminal.sync import Synchroniser
from tests.terminal.shop import Fate, Line, Shop, Till

TIME_OUT_SECONDS = 6
"""Short, so that a slow answer can be waited for; where nothing is slow, it is the default."""

NOBODY_URL = "http://127.0.0.1:1"
SLOW_SECONDS = TIME_OUT_SECONDS * SLOW_SHARE + 0.1


def advanced_till(shop: Shop, **profile: Any) -> Till:
    """Start a till with advanced offline switching that has fetched its profile."""
    till = shop.till(**{"enable_advanced_offline_switching": True, **profile})
    till.terminal.begin_sale().void()
    return till


@contextmanager
def looking_after(shop: Shop, till: Till) -> Iterator[tuple[Synchroniser, Line]]:
    """Give a synchroniser that does its work when it is told, and its line to HQ."""
    line = Line(shop.url, till.register.key)
    one = Synchroniser(till.terminal, line, chance=random.Random(7))
    try:
        yield one, line
    finally:
        one.stop()


@contextmanager
def slow_line_of(till: Till) -> Iterator[Proxy]:
    """Let the till reach HQ past a proxy that takes its time."""
    with Proxy(till.line.url) as proxy:
        till.line.url = proxy.url
        yield proxy


def checks(line: Line) -> int:
    return len([one for one in line.sent if one.path == "/readyz"])


def is_online(till: Till) -> bool:
    return till.terminal.connection_status().is_online


# --- slow answers ---------------------------------------------------------------------------------


def test_a_slow_answer_counts_and_switches_the_till_and_the_sale_goes_on(shop: Shop) -> None:
    till, card, other = (
        advanced_till(shop, time_out_interval_seconds=TIME_OUT_SECONDS),
        shop.card(100_00),
        shop.card(100_00),
    )
    sale = till.terminal.begin_sale()
    with slow_line_of(till) as proxy:
        proxy.plan("POST", "/v1/locks", answer_delay_seconds=SLOW_SECONDS)
        line = sale.redeem("gift_card", card.number, 60_00)
    assert line.may_conclude_offline
    assert not is_online(till)
    [warning] = till.warnings
    assert warning.transaction_id == sale.transaction_id
    assert warning.sentence.startswith("HQ answers slowly: it took ")
    with pytest.raises(NotPossible, match="offline mode"):
        sale.redeem("gift_card", other.number, 1)
    assert sale.conclude().is_offline
    assert len(till.line.posted_to("/v1/locks")) == 1


def test_a_sale_whose_conclusion_is_answered_slowly_is_concluded_with_hq(shop: Shop) -> None:
    till, card = advanced_till(shop, time_out_interval_seconds=TIME_OUT_SECONDS), shop.card(100_00)
    sale = till.terminal.begin_sale()
    sale.redeem("gift_card", card.number, 60_00)
    with slow_line_of(till) as proxy:
        proxy.plan("POST", "/v1/transactions", answer_delay_seconds=SLOW_SECONDS)
        assert not sale.conclude().is_offline
    assert (shop.hq.balance(card), till.journal) == (40_00, [])
    assert not is_online(till)


def test_without_advanced_switching_a_slow_answer_is_an_answer(shop: Shop) -> None:
    profile = {"time_out_interval_seconds": TIME_OUT_SECONDS}
    till = advanced_till(shop, enable_advanced_offline_switching=False, **profile)
    card = shop.card(100_00)
    sale = till.terminal.begin_sale()
    with slow_line_of(till) as proxy:
        proxy.plan("POST", "/v1/locks", answer_delay_seconds=SLOW_SECONDS)
        sale.redeem("gift_card", card.number, 60_00)
    assert is_online(till)
    assert till.warnings == []


# --- the health check -----------------------------------------------------------------------------


def test_health_is_looked_after_at_the_interval_and_whatever_the_cashier_does(shop: Shop) -> None:
    till = advanced_till(shop, system_health_check_interval_minutes=7, time_out_interval_seconds=20)
    with looking_after(shop, till) as (synchroniser, line):
        synchroniser.do_what_is_due()
        assert checks(line) == 1
        for minutes, expected in ((6, 1), (2, 2), (6, 2), (2, 3)):
            till.clock.go_on(minutes=minutes)
            synchroniser.do_what_is_due()
            assert checks(line) == expected
    assert line.waited[0] == 20
    assert is_online(till)


@pytest.mark.parametrize("fate", [Fate.REQUEST_LOST, Fate.BUSY, Fate.ANOTHER_ANSWERS])
def test_when_hq_is_not_well_the_till_switches_before_a_sale_has_to_find_out(
    shop: Shop, fate: Fate
) -> None:
    till, card = advanced_till(shop), shop.card(100_00)
    sale = till.terminal.begin_sale()
    sale.redeem("gift_card", card.number, 60_00)
    with looking_after(shop, till) as (synchroniser, line):
        line.always = fate
        synchroniser.do_what_is_due()
    assert not is_online(till)
    assert [warning.transaction_id for warning in till.warnings] == [sale.transaction_id]
    requests_count = len(till.line.sent)
    assert sale.conclude().is_offline
    assert len(till.line.sent) == requests_count


def test_a_service_that_answers_and_says_that_it_is_not_ready_is_not_well(shop: Shop) -> None:
    till = advanced_till(shop)
    [noted] = shop.hq.sql("DELETE FROM number_secret RETURNING fingerprint, noted_at")
    with Client(shop.url) as client:
        till.terminal.check_health(client)
    shop.hq.sql("INSERT INTO number_secret (fingerprint, noted_at) VALUES (%s, %s)", *noted)
    assert "it answered 503 to the health check" in till.warnings[0].sentence
    assert not is_online(till)


def test_when_hq_answers_the_health_check_slowly_the_till_switches(shop: Shop) -> None:
    till = advanced_till(shop, time_out_interval_seconds=TIME_OUT_SECONDS)
    with Proxy(shop.url) as proxy, Client(proxy.url) as client:
        proxy.plan("GET", "/readyz", answer_delay_seconds=SLOW_SECONDS)
        till.terminal.check_health(client)
        assert not is_online(till)
        assert "answers slowly" in till.warnings[0].sentence
        proxy.plan("GET", "/readyz", ProxyFate.REFUSED)
        till.terminal.check_health(client)
        assert not is_online(till)


def test_without_advanced_switching_nobody_looks_after_health(shop: Shop) -> None:
    till = advanced_till(shop, enable_advanced_offline_switching=False)
    with looking_after(shop, till) as (synchroniser, line):
        line.always = Fate.REQUEST_LOST
        synchroniser.do_what_is_due()
        assert checks(line) == 0
    assert is_online(till)


def test_the_till_comes_back_as_soon_as_hq_is_well_and_delivers_what_is_pending(
    shop: Shop,
) -> None:
    till, card = advanced_till(shop, system_health_check_interval_minutes=1), shop.card(100_00)
    sale = till.terminal.begin_sale()
    sale.redeem("gift_card", card.number, 60_00)
    till.line.always = Fate.REQUEST_LOST
    assert sale.conclude().is_offline
    with looking_after(shop, till) as (synchroniser, line):
        line.always = Fate.REQUEST_LOST
        synchroniser.do_what_is_due()
        assert not is_online(till)
        line.always = Fate.DELIVERED
        till.clock.go_on(seconds=61)  # the reconnection attempt interval is far longer
        synchroniser.do_what_is_due()
    assert is_online(till)
    assert (till.journal, shop.hq.balance(card)) == ([], 40_00)


def test_in_the_middle_of_a_sale_the_till_stays_offline_until_the_next_one_begins(
    shop: Shop,
) -> None:
    till, card = advanced_till(shop), shop.card(100_00)
    sale = till.terminal.begin_sale()
    sale.redeem("gift_card", card.number, 60_00)
    with looking_after(shop, till) as (synchroniser, line):
        line.next.append(Fate.REQUEST_LOST)
        synchroniser.do_what_is_due()
        till.clock.go_on(minutes=5)
        synchroniser.do_what_is_due()
        assert checks(line) == 2
    assert not is_online(till)
    assert sale.conclude().is_offline
    till.clock.go_on(seconds=1)
    till.terminal.begin_sale()
    assert is_online(till)


def test_after_disconnect_no_health_check_is_sent_and_none_under_way_reconnects(
    shop: Shop,
) -> None:
    till = advanced_till(shop)
    till.terminal.link.go_offline_between_sales("test")
    with (
        Proxy(shop.url) as proxy,
        ThreadPoolExecutor(1) as other,
        Client(proxy.url, till.register.key) as client,
    ):
        gate = proxy.hold("GET", "/readyz")
        under_way = other.submit(till.terminal.check_health, client)
        assert gate.wait_until_reached()
        till.terminal.disconnect()
        gate.let_go()
        under_way.result()
        till.terminal.check_health(client)
        assert proxy.counts == {ProxyFate.DELIVERED: 1}
    assert till.terminal.connection_status().is_manual


def test_a_reconnection_under_way_does_not_undo_a_disconnect(shop: Shop) -> None:
    till = advanced_till(shop)
    till.terminal.link.go_offline_between_sales("test")
    with (
        Proxy(shop.url) as proxy,
        ThreadPoolExecutor(1) as other,
        Client(proxy.url, till.register.key) as client,
    ):
        gate = proxy.hold("POST", "/v1/heartbeats")
        under_way = other.submit(till.terminal.check_health, client)
        assert gate.wait_until_reached()
        till.terminal.disconnect()
        gate.let_go()
        under_way.result()
    assert till.terminal.connection_status().is_manual
    assert till.terminal.connect().is_online


def test_a_switch_that_the_cashier_was_warned_of_is_not_warned_of_again(shop: Shop) -> None:
    till, card = advanced_till(shop), shop.card(100_00)
    sale = till.terminal.begin_sale()
    sale.redeem("gift_card", card.number, 60_00)
    with (
        Proxy(shop.url) as proxy,
        ThreadPoolExecutor(1) as other,
        Client(NOBODY_URL) as nobody,
    ):
        till.line.url = proxy.url
        gate = proxy.hold("POST", "/v1/transactions", ProxyFate.REQUEST_LOST)
        concluding = other.submit(sale.conclude)
        assert gate.wait_until_reached()
        till.terminal.check_health(nobody)
        proxy.go_down()
        gate.let_go()
        assert concluding.result().is_offline
    assert len(till.warnings) == 1


def test_the_health_check_does_not_shorten_the_pauses_of_what_fails(shop: Shop) -> None:
    till = advanced_till(shop, system_health_check_interval_minutes=1)
    with looking_after(shop, till) as (synchroniser, line):
        line.always = Fate.REQUEST_LOST
        pauses = []
        for _ in range(5):
            synchroniser.do_what_is_due()
            pauses.append((synchroniser._due_at["heartbeat"] - till.clock()).total_seconds())
            till.clock.go_on(seconds=61)
    assert checks(line) == 5
    assert pauses[4] >= 7  # at the fifth failure in a row: 16 s, scattered by half
