"""What is pending goes up, whatever gets lost; what HQ has for a till comes down."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hq_service.domain.connection import SyncStatus
from hq_service.terminal.client import Client, Unreachable
from hq_service.terminal.downloads import do_sessions
from hq_service.terminal.refusals import NotPossible
from hq_service.terminal.sync import (
    BACK_OFF_SECONDS_MAX,
    OWED_KEPT,
    BackOff,
    Stopped,
    Synchroniser,
    Uploaded,
    let_go_of_strays,
    upload,
)
from tests.faults.service import wait_until
from tests.support import Card
from tests.terminal.shop import Fate, Line, Shop, Till


def sell_offline(till: Till, *cards: Card) -> None:
    """Make a sale of each card that is locked with HQ and concluded without."""
    for card in cards:
        sale = till.terminal.begin_sale()
        sale.redeem(card.kind, card.number, 10_00)
        till.terminal.disconnect()
        assert sale.conclude().is_offline
        till.terminal.connect()


def post(till: Till) -> Uploaded:
    terminal = till.terminal
    return upload(till.line, terminal.store, terminal.setup, terminal.clock)


def batches(till: Till) -> list[bytes | None]:
    return [one.content for one in till.line.posted_to("/v1/offline-batches")]


@contextmanager
def synchroniser_of(shop: Shop, till: Till) -> Iterator[tuple[Synchroniser, Line]]:
    """Give a synchroniser that does its work when it is told, and its line to HQ."""
    line = Line(shop.url, till.register.key)
    one = Synchroniser(till.terminal, line, chance=random.Random(7))
    try:
        yield one, line
    finally:
        one.stop()


# --- uploading ------------------------------------------------------------------------------------


def test_a_batch_is_repeated_byte_for_byte_until_it_is_answered_also_after_a_restart(
    shop: Shop,
) -> None:
    till, card = shop.till(), shop.card(100_00)
    sell_offline(till, card)
    till.line.next.append(Fate.ANSWER_LOST)
    with pytest.raises(Unreachable):
        post(till)
    assert len(till.journal) == 1
    [first] = batches(till)
    till = shop.restart(till)
    post(till)
    assert batches(till) == [first]
    assert till.journal == []
    assert shop.hq.balance(card) == 90_00


def test_an_upload_takes_as_many_transactions_as_the_offline_profile_says(shop: Shop) -> None:
    till, cards = shop.till(upload_transaction_size=2), [shop.card(100_00) for _ in range(5)]
    sell_offline(till, *cards)
    assert post(till).batches_count == 3
    sizes = [len(json.loads(body or b"")["lines"]) for body in batches(till)]
    assert sizes == [2, 2, 1]
    assert [shop.hq.balance(card) for card in cards] == [90_00] * 5


def test_what_hq_says_is_missing_is_sent_again_and_nothing_is_purged_before(shop: Shop) -> None:
    till, cards = shop.till(), [shop.card(100_00) for _ in range(2)]
    sell_offline(till, *cards)
    # As if HQ had been restored from a backup that is older than the first line.
    till.terminal.store._database.execute("UPDATE journal SET is_sent = 1 WHERE sequence = 1")
    post(till)
    sent = [[line["sequence"] for line in json.loads(one or b"")["lines"]] for one in batches(till)]
    assert sent == [[2], [1]]
    assert till.journal == []
    assert till.terminal.store.acknowledged_through == 2
    assert [shop.hq.balance(card) for card in cards] == [90_00] * 2
    assert shop.cases() == []


def test_a_refused_upload_stops_says_why_and_keeps_everything(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sell_offline(till, card)
    before = till.journal
    terminal = till.terminal
    sentence = r"A valid API key is needed .* all 1 lines are kept"
    with Client(shop.url, "not-a-key") as stranger, pytest.raises(Stopped, match=sentence):
        upload(stranger, terminal.store, terminal.setup, terminal.clock)
    assert till.journal == before
    last = terminal.connection_status().last_sync
    assert last.status is SyncStatus.FAILED
    assert last.message is not None
    assert "A valid API key is needed" in last.message
    post(till)
    assert till.journal == []


def test_the_pause_after_failures_doubles_is_scattered_and_never_less_than_hq_asks_for() -> None:
    pauses = [BackOff(random.Random(seed)) for seed in range(20)]
    first = [one.failed() for one in pauses]
    assert len(set(first)) == 20
    assert all(0.5 <= seconds <= 1 for seconds in first)
    one = BackOff(random.Random(1))
    limits = [1, 2, 4, 8, 16, 32, 60, 60]
    for limit in limits:
        assert limit / 2 <= one.failed() <= limit
    assert one.failed(300) == 300
    one.succeeded()
    assert one.failed() <= 1 < BACK_OFF_SECONDS_MAX


def test_the_connection_status_shows_the_last_attempt_to_synchronise(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    assert till.terminal.connection_status().last_sync.status is SyncStatus.NONE
    sell_offline(till, card)
    till.line.next.append(Fate.REQUEST_LOST)
    with pytest.raises(Unreachable):
        post(till)
    failed = till.terminal.connection_status()
    assert failed.last_sync.status is SyncStatus.FAILED
    assert failed.last_sync.message == "HQ did not answer within the time-out."
    assert failed.pending_transactions_count == 1
    post(till)
    succeeded = till.terminal.connection_status()
    assert succeeded.last_sync.status is SyncStatus.SUCCEEDED
    assert succeeded.last_sync.at is not None
    assert succeeded.pending_transactions_count == 0


# --- beside a running till ------------------------------------------------------------------------


def test_transactions_are_uploaded_while_the_till_runs_and_only_then(shop: Shop) -> None:
    till, cards = shop.till(), [shop.card(100_00) for _ in range(2)]
    sell_offline(till, cards[0])
    with Synchroniser(till.terminal, Client(shop.url, till.register.key)) as running:
        wait_until(lambda: till.journal == [], "upload")
        assert running.stopped_because is None
    assert "synchroniser" not in {thread.name for thread in threading.enumerate()}
    sell_offline(till, cards[1])
    till = shop.restart(till)
    assert len(till.journal) == 1
    assert [shop.hq.balance(card) for card in cards] == [90_00, 100_00]
    with Synchroniser(till.terminal, Client(shop.url, till.register.key)):
        wait_until(lambda: till.journal == [], "upload after the restart")
    assert shop.hq.balance(cards[1]) == 90_00


def test_synchronisation_starts_with_the_first_sign_in_and_not_before(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sell_offline(till, card)
    till = shop.restart(till)
    till.terminal.connection_status()
    assert till.line.sent == []  # the till shows its sign-in page
    assert "synchroniser" not in {thread.name for thread in threading.enumerate()}
    with Synchroniser(till.terminal, Client(shop.url, till.register.key)):
        wait_until(lambda: till.journal == [], "upload")
    assert shop.hq.balance(card) == 90_00


def test_what_a_schedule_distributes_reaches_the_tills_copy_by_the_packages_of_its_store(
    shop: Shop, tmp_path: Path
) -> None:
    till, card = shop.till(), shop.card(100_00)
    shop.hq.save_parameters(shop.store_id, allow_concluding_gift_card_transactions_offline=False)
    schedule = shop.hq.make_schedule("1110", "1090")
    assert shop.hq.run_now(schedule, shop.store_id).status_code == 201
    till.terminal.begin_sale().void()
    assert till.terminal.setup.allows_offline("gift_card")  # no package was fetched yet
    with Client(shop.url, shop.sync_key) as sync_job:
        done = do_sessions(sync_job, tmp_path, lambda: True)
    assert sorted(done) == [("1090", "applied"), ("1110", "applied")]
    kept = json.loads((tmp_path / "packages" / "1110.json").read_bytes())
    assert "allow_concluding_gift_card_transactions_offline" in json.dumps(kept)
    till.terminal.setup.fetch(till.line)
    assert not till.terminal.setup.allows_offline("gift_card")
    assert not till.terminal.begin_sale().redeem("gift_card", card.number).may_conclude_offline


def test_a_till_that_comes_back_uploads_at_once(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = till.terminal.begin_sale()
    sale.redeem("gift_card", card.number, 10_00)
    with Synchroniser(till.terminal, Client(shop.url, till.register.key)):
        till.line.always = Fate.REQUEST_LOST
        sale.conclude()
        assert len(till.journal) == 1
        till.line.always = Fate.DELIVERED
        till.clock.go_on(seconds=301)
        till.terminal.begin_sale().void()
        wait_until(lambda: till.journal == [], "upload")


def test_transactions_are_uploaded_at_the_interval_of_the_offline_profile(shop: Shop) -> None:
    till = shop.till(transaction_upload_interval_seconds=40)
    cards = [shop.card(100_00) for _ in range(3)]
    with synchroniser_of(shop, till) as (synchroniser, line):
        till.terminal._listeners.clear()  # who comes back uploads at once, and nobody has told
        for card, seconds, expected in zip(cards, (0, 39, 2), (1, 1, 2), strict=True):
            sell_offline(till, card)
            till.clock.go_on(seconds=seconds)
            synchroniser.do_what_is_due()
            assert len(line.posted_to("/v1/offline-batches")) == expected
    assert till.journal == []
    assert [shop.hq.balance(card) for card in cards] == [90_00] * 3


def test_an_offline_till_sends_heartbeats_and_uploads_nothing(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sale = till.terminal.begin_sale()
    sale.redeem("gift_card", card.number, 10_00)
    till.line.always = Fate.REQUEST_LOST
    sale.conclude()
    with synchroniser_of(shop, till) as (synchroniser, line):
        synchroniser.do_what_is_due()
        assert [one.path for one in line.sent] == ["/v1/heartbeats"]
        report = shop.shown(till)["report"]
        assert report["connection_state"] == "offline"
        assert (report["pending_count"], report["pending_amounts_minor"]) == (1, {"SEK": 10_00})
        till.terminal.disconnect()
        till.clock.go_on(hours=1)
        synchroniser.do_what_is_due()
        assert len(line.sent) == 1


def test_hq_sees_state_pending_and_last_synchronisation_of_the_till(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sell_offline(till, card)
    with synchroniser_of(shop, till) as (synchroniser, _line):
        synchroniser.do_what_is_due()
        assert shop.shown(till)["report"]["last_sync"]["status"] == "none"
        synchroniser.wake()
        synchroniser.do_what_is_due()
    report = shop.shown(till)["report"]
    assert (report["connection_state"], report["pending_count"]) == ("online", 0)
    assert report["last_sync"]["status"] == "succeeded"


def test_after_a_refusal_nothing_is_uploaded_until_somebody_has_looked(shop: Shop) -> None:
    till, card = shop.till(), shop.card(100_00)
    sell_offline(till, card)
    line = Line(shop.url, "not-a-key")
    synchroniser = Synchroniser(till.terminal, line)
    for _ in range(3):
        synchroniser.do_what_is_due()
        till.clock.go_on(minutes=2)
    assert synchroniser.stopped_because is not None
    assert len(line.posted_to("/v1/offline-batches")) == 1
    synchroniser.wake()
    synchroniser.do_what_is_due()
    assert len(line.posted_to("/v1/offline-batches")) == 2
    synchroniser.stop()
    assert len(till.journal) == 1


def test_a_reset_cache_makes_the_till_fetch_the_parameters_with_its_next_heartbeat(
    shop: Shop,
) -> None:
    till = shop.till()
    with synchroniser_of(shop, till) as (synchroniser, line):
        synchroniser.do_what_is_due()
        assert till.terminal.setup.allows_offline("gift_card")
        shop.set_parameters(allow_concluding_gift_card_transactions_offline=False)
        till.clock.go_on(minutes=6)
        synchroniser.do_what_is_due()
        assert till.terminal.setup.allows_offline("gift_card")  # its copy is good for a day
        reset = {"reason": "test", "store_id": shop.store_id}
        assert shop.hq.admin.post("/v1/admin/cache-resets", reset).status_code == 201
        till.clock.go_on(minutes=6)
        synchroniser.do_what_is_due()
        assert not till.terminal.setup.allows_offline("gift_card")
        assert line.sent[-1].path == "/v1/register"


def test_another_offline_profile_is_fetched_with_the_next_heartbeat(shop: Shop) -> None:
    till = shop.till()
    with synchroniser_of(shop, till) as (synchroniser, _line):
        synchroniser.do_what_is_due()
        assert till.terminal.setup.profile["upload_transaction_size"] == 100
        shop.set_profile(till.register, upload_transaction_size=7)
        till.clock.go_on(minutes=6)
        synchroniser.do_what_is_due()
        assert till.terminal.setup.profile["upload_transaction_size"] == 7


def test_a_paused_synchronisation_downloads_no_parameters_and_uploads_all_the_same(
    shop: Shop,
) -> None:
    till, card = shop.till(pause_offline_synchronization=True), shop.card(100_00)
    till.terminal.begin_sale().void()  # fetches both, not knowing of the pause yet
    sell_offline(till, card)
    with synchroniser_of(shop, till) as (synchroniser, line):
        shop.hq.admin.post("/v1/admin/cache-resets", {"reason": "test", "store_id": shop.store_id})
        synchroniser.do_what_is_due()
        paths = [one.path for one in line.sent]
    assert "/v1/parameters" not in paths
    assert "/v1/register" in paths
    assert till.journal == []


def test_an_upload_session_makes_the_till_post_what_is_pending(shop: Shop) -> None:
    till, cards = shop.till(), [shop.card(100_00) for _ in range(2)]
    sell_offline(till, cards[0])
    with synchroniser_of(shop, till) as (synchroniser, _line):
        synchroniser.do_what_is_due()
        sell_offline(till, cards[1])
        synchroniser._put_off("upload", 3_600)
        till.clock.go_on(seconds=20)
        synchroniser.do_what_is_due()
        assert len(till.journal) == 1  # its time has not come
        assert shop.hq.run_now(shop.hq.make_schedule("P-0001"), shop.store_id).status_code == 201
        synchroniser._due_at["heartbeat"] = till.clock()
        synchroniser.do_what_is_due()
        assert till.journal == []


def test_a_lock_that_nobody_heard_of_is_looked_for_as_long_as_its_request_may_arrive(
    shop: Shop,
) -> None:
    till, card = shop.till(), shop.card(100_00)
    till.line.sent.clear()
    sale = till.terminal.begin_sale()
    till.line.always = Fate.REQUEST_LOST
    with pytest.raises(NotPossible):
        sale.redeem("gift_card", card.number, 1)
    sale.void()
    till.line.always = Fate.DELIVERED
    assert let_go_of_strays(till.line, till.terminal.store, till.clock) == 0
    [owed] = till.terminal.store.lines_owed()
    # The request arrives after all, late.
    late = till.line.posted_to("/v1/locks")[-1]
    with Client(shop.url, till.register.key) as network:
        assert network.post("/v1/locks", late.content or b"").status == 201
    assert shop.locked_by(till) == 1
    assert let_go_of_strays(till.line, till.terminal.store, till.clock) == 1
    assert shop.locked_by(till) == 0
    owed.is_void_owed = True
    till.terminal.store.save_line(owed)
    till.clock.go_on(seconds=OWED_KEPT.total_seconds() + 60)
    assert let_go_of_strays(till.line, till.terminal.store, till.clock) == 0
    assert till.terminal.store.lines_owed() == []
