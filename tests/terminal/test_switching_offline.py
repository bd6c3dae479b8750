"""The sentences of the document "POS offline functionality" that concern the till, one by one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hq_service.domain.connection import ToldState
from hq_service.domain.glossary import LANGUAGES
from hq_service.terminal.client import Client
from hq_service.terminal.proxy import Proxy
from hq_service.terminal.refusals import NotPossible
from hq_service.terminal.sale import Sale
from hq_service.terminal.store import SaleState
from hq_service.terminal.sync import let_go_of_strays, upload
from tests.support import Card
from tests.terminal.shop import Fate, Shop, Till


def begin_with_locked(shop: Shop, till: Till, *cards: Card, amount_minor: int = 60_00) -> Sale:
    sale = till.terminal.begin_sale()
    for card in cards:
        sale.redeem(card.kind, card.number, amount_minor)
    return sale


def post_pending(till: Till) -> None:
    terminal = till.terminal
    till.line.always = Fate.DELIVERED
    upload(till.line, terminal.store, terminal.setup, terminal.clock)


def codes_of(refused: pytest.ExceptionInfo[NotPossible]) -> dict[int, str]:
    return {line: reason.code for line, reason in refused.value.reasons.items()}


# --- "A till is put into offline mode when the store's server is not available" -------------------


def test_a_till_whose_service_is_gone_is_offline_by_itself_and_back_when_it_is_there_again(
    shop: Shop,
) -> None:
    till, card = shop.till(), shop.card(100_00)
    with Proxy(shop.url) as proxy:
        till.line.url = proxy.url
        sale = begin_with_locked(shop, till, card)
        proxy.go_down()
        assert sale.conclude().is_offline
        status = till.terminal.connection_status()
        assert (status.header(), status.is_manual) == ("Connection status: offline mode", False)
        assert proxy.url in (status.reason or "")
        till.clock.go_on(seconds=301)
        till.terminal.begin_sale().void()
        assert not till.terminal.connection_status().is_online
        proxy.come_up()
        till.clock.go_on(seconds=301)
        till.terminal.begin_sale().void()
        assert till.terminal.connection_status().is_online
        post_pending(till)
    assert (shop.hq.balance(card), shop.locked_by(till)) == (40_00, 0)


# --- "If a data request fails within the time-out interval ... switches automatically" ------------


def test_a_data_request_that_times_out_in_mid_sale_switches_and_the_sale_goes_on(
    shop: Shop,
) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = begin_with_locked(shop, till, card)
    till.line.always = Fate.REQUEST_LOST
    receipt = sale.conclude()
    assert receipt.is_offline
    assert sale.state is SaleState.CONCLUDED_OFFLINE
    assert not till.terminal.connection_status().is_online
    assert shop.hq.balance(card) == 100_00
    post_pending(till)
    assert shop.hq.balance(card) == 40_00
    assert shop.locked_by(till) == 0
    assert shop.cases() == []


def test_the_cashier_is_warned_before_the_till_switches(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = begin_with_locked(shop, till, card)
    till.line.always = Fate.REQUEST_LOST
    seen = []
    till.terminal.link._on_warning = lambda warning: seen.append(
        (warning.transaction_id, till.terminal.connection_status().state)
    )
    sale.conclude()
    assert seen == [(sale.transaction_id, ToldState.ONLINE)]


def test_without_prompt_in_the_offline_profile_the_switch_is_silent(shop: Shop) -> None:
    till, card = shop.till(prompt_on_seamless_offline=False), shop.card(100_00)
    sale = begin_with_locked(shop, till, card)
    till.line.always = Fate.REQUEST_LOST
    assert sale.conclude().is_offline
    assert till.warnings == []


def test_a_warning_that_raises_leaves_nothing_behind(shop: Shop) -> None:
    till, kept, removed, lost = shop.till(), *(shop.card(100_00) for _ in range(3))
    sale = begin_with_locked(shop, till, kept, removed)

    def raise_it(_warning: object) -> None:
        raise RuntimeError

    till.terminal.link._on_warning = raise_it
    till.line.always = Fate.ANSWER_LOST
    with pytest.raises(RuntimeError):
        sale.redeem("gift_card", lost.number, 1)
    with pytest.raises(RuntimeError):
        sale.remove(2)
    till.terminal.link._on_warning = None
    assert sale.conclude().is_offline
    post_pending(till)
    let_go_of_strays(till.line, till.terminal.store, till.clock)
    assert shop.locked_by(till) == 0
    assert [shop.hq.balance(card) for card in (kept, removed, lost)] == [40_00, 100_00, 100_00]


@contextmanager
def a_server_that_never_answers() -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_the_time_out_interval_and_the_retries_are_those_of_the_offline_profile(
    shop: Shop,
) -> None:
    till = shop.till(time_out_interval_seconds=1, retry_count_to_offline=2)
    card = shop.card(100_00)
    sale = begin_with_locked(shop, till, card)
    attempts = len(till.line.posted_to("/v1/transactions"))
    with a_server_that_never_answers() as url:
        till.line.url = url
        receipt = sale.conclude()
    assert receipt.is_offline
    assert len(till.line.posted_to("/v1/transactions")) - attempts == 3
    assert till.line.waited[-3:] == [1, 1, 1]
    assert "did not answer within 1 s" in till.warnings[0].sentence


@pytest.mark.parametrize("fate", [Fate.BUSY, Fate.ANOTHER_ANSWERS])
def test_an_answer_that_is_none_switches_as_well(shop: Shop, fate: Fate) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = begin_with_locked(shop, till, card)
    till.line.always = fate
    assert sale.conclude().is_offline
    assert len(till.warnings) == 1


def test_a_refusal_of_hq_does_not_switch(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    till.terminal.begin_sale()
    with Client(shop.url, "not-a-key") as stranger:
        till.terminal.link.client = stranger
        asked = till.terminal.link.ask("POST", "/v1/locks", {"number": card.number})
    assert asked.answer is not None
    assert asked.answer.status == 401
    assert till.terminal.connection_status().is_online


# --- what may be done offline -------------------------------------------------------------------


def test_nothing_can_be_started_offline(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    till.terminal.disconnect()
    sale = till.terminal.begin_sale()
    requests_count = len(till.line.sent)
    for start in (
        lambda: sale.redeem("gift_card", card.number, 1),
        lambda: sale.issue("gift_card", 100, "SEK"),
        lambda: sale.load(card.number, 100),
        lambda: sale.refund(card.number, 100, reason="broken"),
        lambda: sale.cash_out(card.number),
    ):
        with pytest.raises(NotPossible, match="offline mode") as refused:
            start()
        assert refused.value.code == "nothing_starts_offline"
        assert card.number not in str(refused.value)
    assert len(till.line.sent) == requests_count
    assert sale.lines == []


def test_a_lock_that_is_not_answered_is_not_in_the_sale_and_does_not_stay_at_hq(
    shop: Shop,
) -> None:
    till, first, second = shop.till(), shop.card(100_00), shop.card(100_00)
    sale = begin_with_locked(shop, till, first)
    till.line.always = Fate.ANSWER_LOST
    with pytest.raises(NotPossible) as refused:
        sale.redeem("gift_card", second.number, 10_00)
    assert refused.value.code == "lock_unanswered"
    assert len(till.warnings) == 1
    assert sale.conclude().is_offline
    assert shop.locked_by(till) == 2
    post_pending(till)
    assert let_go_of_strays(till.line, till.terminal.store, till.clock) == 1
    assert shop.locked_by(till) == 0
    assert (shop.hq.balance(first), shop.hq.balance(second)) == (40_00, 100_00)


def test_without_a_grant_a_line_says_in_the_words_of_the_documents_why_it_must_be_removed(
    shop: Shop,
) -> None:
    shop.set_parameters(allow_concluding_credit_memo_transactions_offline=False)
    till, card, memo = shop.till(), shop.card(100_00), shop.card(50_00, "credit_memo")
    sale = till.terminal.begin_sale()
    kept = sale.redeem("gift_card", card.number, 60_00)
    removed = sale.redeem("credit_memo", memo.number, 50_00)
    assert (kept.may_conclude_offline, removed.may_conclude_offline) == (True, False)
    till.line.always = Fate.ANSWER_LOST  # so HQ has concluded both
    with pytest.raises(NotPossible) as refused:
        sale.conclude()
    assert codes_of(refused) == {removed.line: "parameter_is_no"}
    sentence = refused.value.reasons[removed.line].sentence
    assert '"Allow concluding credit memo transactions in offline mode" is No' in sentence
    sale.remove(removed.line)
    assert sale.conclude().is_offline
    assert [line["operation"] for line in till.journal] == ["void", "redeem"]
    post_pending(till)
    assert (shop.hq.balance(card), shop.hq.balance(memo)) == (40_00, 50_00)
    assert shop.locked_by(till) == 0


def test_a_register_without_support_offline_concludes_nothing_offline(shop: Shop) -> None:
    till, card = shop.till(supports_offline=False), shop.card(100_00)
    sale = begin_with_locked(shop, till, card)
    till.line.always = Fate.REQUEST_LOST
    with pytest.raises(NotPossible, match='"Support offline" is No') as refused:
        sale.conclude()
    assert codes_of(refused) == {1: "register_without_offline_support"}
    sale.void()
    assert [line["operation"] for line in till.journal] == ["void"]
    post_pending(till)
    assert (shop.hq.balance(card), shop.locked_by(till)) == (100_00, 0)


def test_a_right_that_ran_out_is_not_used(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = begin_with_locked(shop, till, card)
    till.terminal.disconnect()
    till.clock.go_on(hours=73)
    with pytest.raises(NotPossible, match="ran out") as refused:
        sale.conclude()
    assert codes_of(refused) == {1: "grant_ran_out"}


def test_amounts_above_the_grant_are_refused_at_the_till_offline_too(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = begin_with_locked(shop, till, card)
    till.terminal.disconnect()
    with pytest.raises(NotPossible) as refused:
        sale.set_amount(1, 100_01)
    assert refused.value.code == "above_grant"
    sale.set_amount(1, 100_00)
    sale.conclude()
    post_pending(till)
    assert (shop.hq.balance(card), shop.cases()) == (0, [])


def test_what_was_sent_to_be_concluded_keeps_its_amount(shop: Shop) -> None:
    shop.set_parameters(allow_concluding_gift_card_transactions_offline=False)
    till, card = shop.till(), shop.card(100_00)
    sale = begin_with_locked(shop, till, card)
    till.line.always = Fate.ANSWER_LOST
    with pytest.raises(NotPossible):
        sale.conclude()
    with pytest.raises(NotPossible) as refused:
        sale.set_amount(1, 10_00)
    assert refused.value.code == "already_sent"
    till.line.always = Fate.DELIVERED
    assert till.terminal.connect().is_online
    assert not sale.conclude().is_offline
    assert shop.hq.balance(card) == 40_00


def test_a_line_removed_offline_is_a_release_in_the_journal(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = begin_with_locked(shop, till, card)
    till.terminal.disconnect()
    sale.remove(1)
    sale.conclude()
    assert [line["operation"] for line in till.journal] == ["release"]
    post_pending(till)
    assert (shop.hq.balance(card), shop.locked_by(till)) == (100_00, 0)


def test_everything_that_was_locked_online_can_be_concluded_offline(shop: Shop) -> None:
    till, paying, loaded, small = shop.till(), shop.card(100_00), shop.card(1_00), shop.card(20_00)
    memo = shop.card(80_00, "credit_memo")
    sale = begin_with_locked(shop, till, paying)
    sale.load(loaded.number, 30_00)
    sale.cash_out(small.number)
    sale.redeem("credit_memo", memo.number, 50_00)
    issued = sale.issue("gift_card", 25_00, "SEK")
    assert issued.made_number is not None
    till.line.always = Fate.REQUEST_LOST
    assert len(sale.conclude().lines) == 5
    assert [line["sequence"] for line in till.journal] == [1, 2, 3, 4, 5]
    post_pending(till)
    balances = [shop.hq.balance(card) for card in (paying, loaded, small)]
    assert balances == [40_00, 31_00, 0]
    assert shop.hq.balance(memo) == 30_00  # of the memo that the rest is on
    till.terminal.connect()
    assert till.terminal.balance("gift_card", issued.made_number)["balance_minor"] == 25_00
    assert shop.cases() == []


def test_a_sale_concluded_offline_can_be_voided_offline(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = begin_with_locked(shop, till, card)
    till.terminal.disconnect()
    sale.conclude()
    found = till.terminal.find_sale(sale.transaction_id)
    assert found is not None
    found.void()
    assert [line["operation"] for line in till.journal] == ["redeem", "void"]
    post_pending(till)
    assert (shop.hq.balance(card), shop.locked_by(till)) == (100_00, 0)


# --- "tries to connect ... after the interval ... only at the beginning of a transaction" ---------


def test_the_till_tries_to_reconnect_only_at_the_beginning_of_a_transaction(shop: Shop) -> None:
    till, card, other = shop.till(), shop.card(100_00), shop.card(100_00)
    sale = begin_with_locked(shop, till, card, other)
    till.line.always = Fate.REQUEST_LOST
    sale.remove(2)
    till.line.always = Fate.DELIVERED
    till.clock.go_on(seconds=301)
    requests_count = len(till.line.sent)
    with pytest.raises(NotPossible):
        sale.redeem("gift_card", other.number, 1)
    sale.set_amount(1, 50_00)
    sale.conclude()
    till.terminal.connection_status()
    assert len(till.line.sent) == requests_count
    till.terminal.begin_sale().void()
    assert till.line.sent[requests_count].path == "/v1/heartbeats"
    assert till.terminal.connection_status().is_online


def test_the_till_tries_to_reconnect_only_after_the_interval(shop: Shop) -> None:
    till, card = shop.till(reconnection_attempt_interval_seconds=100), shop.card(100_00)
    sale = begin_with_locked(shop, till, card)
    till.line.always = Fate.REQUEST_LOST
    sale.conclude()
    for later, is_tried in ((99, False), (2, True), (99, False), (2, True)):
        till.clock.go_on(seconds=later)
        requests_count = len(till.line.sent)
        till.terminal.begin_sale().conclude()
        assert (len(till.line.sent) > requests_count) is is_tried, later
        assert not till.terminal.connection_status().is_online
    till.line.always = Fate.DELIVERED
    till.clock.go_on(seconds=101)
    till.terminal.begin_sale().conclude()
    assert till.terminal.connection_status().is_online


# --- operation 917, and the status header ---------------------------------------------------------


def test_operation_917_is_called_disconnect_online_and_connect_offline(shop: Shop) -> None:
    till = shop.till()
    button = till.terminal.connection_status().button()
    assert (button.operation, button.text) == (917, "Disconnect")
    assert till.terminal.disconnect().button().text == "Connect"
    assert till.terminal.connect().button().text == "Disconnect"


def test_the_button_and_the_header_are_in_the_words_of_the_swedish_document(shop: Shop) -> None:
    till = shop.till()
    assert till.terminal.connection_status().button("sv").text == "Koppla från"
    offline = till.terminal.disconnect()
    assert offline.button("sv").text == "Anslut"
    assert offline.header("sv") == "Anslutningsstatus: offlineläge"
    assert all(offline.header(language) for language in LANGUAGES)


def test_a_manual_disconnect_stays_until_connect_and_nothing_is_sent_meanwhile(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = begin_with_locked(shop, till, card)
    till.terminal.disconnect()
    requests_count = len(till.line.sent)
    sale.conclude()
    till.clock.go_on(hours=10)
    for _ in range(3):
        till.terminal.begin_sale().conclude()
    assert len(till.line.sent) == requests_count
    assert till.terminal.connection_status().is_manual
    assert till.terminal.connection_status().reconnects_at is None
    till.clock.go_on(hours=-10)
    assert till.terminal.connect().is_online


def test_connect_without_hq_leaves_the_till_offline_and_trying_by_itself(shop: Shop) -> None:
    till = shop.till()
    till.terminal.disconnect()
    till.line.always = Fate.REQUEST_LOST
    status = till.terminal.connect()
    assert (status.is_online, status.is_manual) == (False, False)
    assert status.reconnects_at is not None


def test_switching_before_sign_in_is_for_the_offline_profile_to_allow(shop: Shop) -> None:
    till = shop.till()
    with pytest.raises(NotPossible) as refused:
        till.terminal.disconnect(is_signed_in=False)
    assert refused.value.code == "not_signed_in"
    allowing = shop.till(allow_manual_switch_to_offline_before_sign_in=True)
    allowing.terminal.begin_sale().void()  # the first sale fetches the profile
    assert not allowing.terminal.disconnect(is_signed_in=False).is_online


def test_the_status_header_says_how_the_till_works_at_the_moment(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = begin_with_locked(shop, till, card)
    assert till.terminal.connection_status().header() == "Connection status: online"
    till.line.always = Fate.REQUEST_LOST
    sale.conclude()
    status = till.terminal.connection_status()
    assert status.header() == "Connection status: offline mode"
    assert status.reason == "HQ did not answer within the time-out."
    assert (status.pending_transactions_count, status.since is not None) == (1, True)
