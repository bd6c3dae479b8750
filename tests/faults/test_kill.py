"""Processes that are killed while tills trade, and everything that was ever sent told again.

The service runs as in production. Its clients behave as tills do: they repeat a request that was
not answered, conclude offline what stays unanswered, and deliver it in batches.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from hq_service.embedded_postgres import ThrowawayPostgres
from hq_service.operations import offline_batches
from tests.faults.service import Answer, RunningService, environment, run_hq, wait_until
from tests.invariants import Rows, assert_invariants
from tests.support import Card, Hq, Till, a_name, place_for_data, psycopg_url, running

CLIENTS = 6
OWN_CARDS = 45
SHARED_CARDS = 30
ISSUED_MINOR = 1_000_00
CHUNK_LINES = 3
BATCH_LINES = 8
SALES_PER_PHASE = 40
SALES_PER_CLIENT_MAX = 400
"""In one scenario: no client goes on for ever."""

INSTANTS = (
    *("posted_at", "settled_at", "held_at", "ended_at"),
    *("opened_at", "received_at", "created_at"),
)


@dataclass
class Sale:
    """A lock, and the redemption that was sent under it or was written into a journal."""

    till: Till
    card: Card
    transaction_id: str
    amount_minor: int
    lock_id: str = ""
    is_sent: bool = False
    is_journaled: bool = False
    told: Any = None

    @property
    def lock_body(self) -> bytes:
        wish = {"kind": self.card.kind, "number": self.card.number, "purpose": "redeem"}
        return orjson.dumps({**self.till.key_of(self.transaction_id), **wish})

    @property
    def redemption_body(self) -> bytes:
        wish = {
            "instrument_id": self.card.instrument_id,
            "lock_id": self.lock_id,
            "amount_minor": self.amount_minor,
            "currency": self.card.currency,
        }
        return orjson.dumps({**self.till.key_of(self.transaction_id), **wish})


@dataclass
class Batch:
    """Bytes that were sent as an offline batch; ``told`` is the first answer that came."""

    key: str
    body: bytes
    told: Any = None


@dataclass
class Record:
    """Everything that was ever sent, and what was answered."""

    sales: list[Sale] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    unanswered_locks: list[Sale] = field(default_factory=list)


class Trading:
    """The clients of one scenario."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.answers: list[Answer] = []
        self.stopping = threading.Event()
        self._concluded = 0

    def trade(self, till: Till, sync_key: str, cards: Sequence[Card]) -> None:
        """Sell until told to stop."""
        chance = random.Random(till.terminal_id)
        journal: list[dict[str, Any]] = []
        for _ in range(SALES_PER_CLIENT_MAX):
            if self.stopping.is_set():
                break
            sale = Sale(till, chance.choice(cards), a_name("X"), chance.randint(1, 50))
            if self._sell(sale, journal, chance):
                self._concluded += 1
            if len(journal) >= BATCH_LINES:
                self._deliver(till, sync_key, journal)
        if journal:
            self._deliver(till, sync_key, journal)

    def wait_for_more(self, sales_count: int) -> None:
        """Return when so many more sales are concluded: the service is alive."""
        wanted = self._concluded + sales_count
        wait_until(lambda: self._concluded >= wanted, f"{sales_count} more sales")

    def wait_for_answer(self, is_wanted: Callable[[Answer], bool]) -> None:
        seen = len(self.answers)
        wait_until(lambda: any(map(is_wanted, self.answers[seen:])), "such answer")

    def _sell(self, sale: Sale, journal: list[dict[str, Any]], chance: random.Random) -> bool:
        """Lock and conclude, online or offline; tell whether it is certain that it went well."""
        record = self.scene.record
        locked = self._ask("/v1/locks", sale.till.key, sale.lock_body)
        if locked.status not in (200, 201):
            if locked.status != 423:
                record.unanswered_locks.append(sale)
            return False
        sale.lock_id = locked.body["lock_id"]
        record.sales.append(sale)
        if chance.random() < 0.75:
            sale.is_sent = True
            answer = self._ask("/v1/redemptions", sale.till.key, sale.redemption_body)
            if answer.status in (200, 201):
                sale.told = answer.body
        # Without an answer the till concludes offline, unless it is switched off just then; with
        # one it may forget that it had it.
        if chance.random() < (0.1 if sale.told else 0.7) or not sale.is_sent:
            sale.is_journaled = True
            line = sale.till.offline_line(sale.card, sale.transaction_id, sale.amount_minor)
            grant = locked.body["offline"]["grant"]
            journal.append({**line, "lock_id": sale.lock_id, "grant": grant})
        return sale.told is not None

    def _deliver(self, till: Till, sync_key: str, journal: list[dict[str, Any]]) -> None:
        """Post the journal; what stays unanswered is delivered again with the next batch."""
        envelope = {"store_id": till.store_id, "batch_id": a_name("batch"), "lines": journal}
        batch = Batch(sync_key, orjson.dumps(envelope))
        self.scene.record.batches.append(batch)
        answer = self._ask("/v1/offline-batches", batch.key, batch.body)
        if answer.status in (200, 201):
            batch.told = answer.body
            journal.clear()

    def _ask(self, path: str, key: str, body: bytes) -> Answer:
        for _ in range(3):
            answer = self.scene.service.post(path, key, body)
            self.answers.append(answer)
            if not answer.is_lost and answer.status != 503:
                break
            self.stopping.wait(0.05)
        return answer


@dataclass
class Scene:
    """A durable database, the service on it, tills with their cards, and what they remember."""

    postgres: ThrowawayPostgres
    service: RunningService
    tills: Sequence[Till]
    sync_key: str
    own_cards: Mapping[str, Sequence[Card]]
    shared_cards: Sequence[Card]
    record: Record = field(default_factory=Record)

    @property
    def cards(self) -> list[Card]:
        return [card for cards in self.own_cards.values() for card in cards] + [*self.shared_cards]

    @contextmanager
    def trading(self) -> Iterator[Trading]:
        """Let all tills trade while the body runs."""
        trading = Trading(self)
        with ThreadPoolExecutor(CLIENTS) as threads:
            clients = [
                threads.submit(
                    trading.trade,
                    till,
                    self.sync_key,
                    [*self.own_cards[till.terminal_id], *self.shared_cards],
                )
                for till in self.tills
            ]
            try:
                yield trading
            finally:
                trading.stopping.set()
        for client in clients:
            client.result()

    def bring_up(self) -> None:
        """Start whatever a test that failed left behind dead."""
        self.postgres.start()
        if self.service.master is None:
            self.service.start()
        self.service.wait_until_ready()

    def sql(self, query: str) -> Rows:
        return rows_of(self.postgres.url, query)


@pytest.fixture(scope="module")
def postgres() -> Iterator[ThrowawayPostgres]:
    with ThrowawayPostgres(place_for_data(), fsync=True) as server:
        yield server


@pytest.fixture(scope="module")
def prepared_scene(
    postgres: ThrowawayPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    settings = {"HQ_SETTLE_CHUNK_LINES": str(CHUNK_LINES), "HQ_LOG_LEVEL": "ERROR"}
    environ = environment(postgres.url, **settings)
    run_hq(environ, "db", "init")
    with in_process(postgres.url) as app:
        hq = Hq(app)
        hq.set_parameters(
            allow_concluding_gift_card_transactions_offline=True,
            allow_concluding_credit_memo_transactions_offline=True,
        )
        store_id = hq.make_store()
        tills = [hq.till(store_id) for _ in range(CLIENTS)]
        for till in tills:
            assert till.get("/v1/parameters").status_code == 200
        own_cards = {
            till.terminal_id: [hq.issue(ISSUED_MINOR) for _ in range(OWN_CARDS)] for till in tills
        }
        shared_cards = [hq.issue(ISSUED_MINOR) for _ in range(SHARED_CARDS)]
        sync_key = hq.sync(store_id).key
    log_file = tmp_path_factory.mktemp("service") / "log"
    with RunningService(environ, log_file) as service:
        yield Scene(postgres, service, tills, sync_key, own_cards, shared_cards)


@pytest.fixture
def scene(prepared_scene: Scene) -> Iterator[Scene]:
    prepared_scene.bring_up()
    yield prepared_scene
    assert_invariants(prepared_scene.sql)


def test_a_killed_worker_is_replaced(scene: Scene) -> None:
    with scene.trading() as trading:
        for _ in range(4):
            trading.wait_for_more(SALES_PER_PHASE)
            victim = scene.service.workers()[0]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda victim=victim: is_replaced(scene.service, victim), "new worker")
        trading.wait_for_more(SALES_PER_PHASE)
    assert_told_as_promised(trading.answers, may_be_lost=True)


def is_replaced(service: RunningService, worker: int) -> bool:
    workers = service.workers()
    return len(workers) == 2 and worker not in workers


def test_the_service_survives_the_crash_of_a_database_session(scene: Scene) -> None:
    with scene.trading() as trading:
        for _ in range(5):
            trading.wait_for_more(SALES_PER_PHASE)
            wait_until(lambda: is_session_killed(scene), "session to kill")
        trading.wait_for_more(SALES_PER_PHASE)
    assert_told_as_promised(trading.answers, may_be_lost=False)


def is_session_killed(scene: Scene) -> bool:
    """Kill the session that was busy last; PostgreSQL then ends all of them and recovers."""
    busiest = f"SELECT pid FROM {SESSIONS} ORDER BY query_start DESC LIMIT 1"
    try:
        ((pid,),) = scene.sql(busiest)
        os.kill(pid, signal.SIGKILL)
    except (psycopg.OperationalError, ProcessLookupError, ValueError):
        return False  # still recovering, ended meanwhile, none there
    return True


def test_the_service_survives_the_end_of_its_database_sessions(scene: Scene) -> None:
    with scene.trading() as trading:
        for _ in range(10):
            trading.wait_for_more(SALES_PER_PHASE // 2)
            assert scene.sql(f"SELECT pg_terminate_backend(pid) FROM {SESSIONS}")
        trading.wait_for_more(SALES_PER_PHASE)
    assert_told_as_promised(trading.answers, may_be_lost=False)


def test_while_the_database_is_dead_everybody_is_told_to_come_back(scene: Scene) -> None:
    with scene.trading() as trading:
        for _ in range(2):
            trading.wait_for_more(SALES_PER_PHASE)
            scene.postgres.kill()
            try:
                trading.wait_for_answer(lambda answer: answer.status == 503)
                wait_until(lambda: scene.service.get("/readyz").status == 503, "unreadiness")
                assert_told_as_promised([scene.service.get("/readyz")], may_be_lost=False)
                assert scene.service.get("/healthz").status == 200
            finally:
                scene.postgres.start()
            scene.service.wait_until_ready()
        trading.wait_for_more(SALES_PER_PHASE)
    assert_told_as_promised(trading.answers, may_be_lost=False)


def test_nothing_is_lost_when_the_whole_service_is_killed(scene: Scene) -> None:
    with scene.trading() as trading:
        for _ in range(3):
            trading.wait_for_more(SALES_PER_PHASE)
            scene.service.kill()
            trading.wait_for_answer(lambda answer: answer.is_lost)
            scene.service.start()
        trading.wait_for_more(SALES_PER_PHASE)
    assert_told_as_promised(trading.answers, may_be_lost=True)


def test_nothing_is_lost_when_service_and_database_are_killed_at_once(scene: Scene) -> None:
    with scene.trading() as trading:
        for _ in range(3):
            trading.wait_for_more(SALES_PER_PHASE)
            with ThreadPoolExecutor(2) as threads:
                ends = [threads.submit(end) for end in (scene.postgres.kill, scene.service.kill)]
            assert [end.result() for end in ends] == [None, None]
            scene.postgres.start()
            scene.service.start()
        trading.wait_for_more(SALES_PER_PHASE)
    assert_told_as_promised(trading.answers, may_be_lost=True)


def assert_told_as_promised(answers: Sequence[Answer], *, may_be_lost: bool) -> None:
    """Check that nobody was told anything but success, "locked" or "come back"."""
    allowed = {200, 201, 423, 503} | ({0} if may_be_lost else set())
    wrong = [answer for answer in answers if answer.status not in allowed]
    assert not wrong, (Counter(answer.status for answer in answers), wrong[:5])
    for answer in answers:
        if answer.status == 503:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.body["code"] in ("unavailable", "outcome_unknown")
            assert int(answer.headers["retry-after"]) > 0


def test_after_everything_each_key_is_told_again_and_nothing_is_applied_twice(
    scene: Scene,
) -> None:
    with scene.trading() as trading:  # so that this test says something also when run alone
        trading.wait_for_more(SALES_PER_PHASE)
    run_hq(scene.service.environ, "settle-pending")
    assert scene.sql("SELECT batch_id FROM offline_batches WHERE settled_at IS NULL") == []
    first = told_again(scene)
    assert_as_told_before(scene, first)
    before = contents(scene.postgres.url)
    second = told_again(scene)
    assert contents(scene.postgres.url) == before
    for kind in ("redemptions", "batches"):
        assert all(answer.is_replay for answer in second[kind])
        assert [answer.body for answer in second[kind]] == [answer.body for answer in first[kind]]
    assert_balances_as_the_tills_know_them(scene)


def told_again(scene: Scene) -> dict[str, list[Answer]]:
    """Repeat whatever was ever sent, answered or not, with the same content."""
    record = scene.record
    sent = [sale for sale in record.sales if sale.is_sent]
    post = scene.service.post
    with ThreadPoolExecutor(CLIENTS) as threads:
        return {
            "redemptions": list(
                threads.map(
                    lambda sale: post("/v1/redemptions", sale.till.key, sale.redemption_body), sent
                )
            ),
            "batches": list(
                threads.map(
                    lambda batch: post("/v1/offline-batches", batch.key, batch.body),
                    record.batches,
                )
            ),
            "locks": list(
                threads.map(
                    lambda sale: post("/v1/locks", sale.till.key, sale.lock_body),
                    record.unanswered_locks,
                )
            ),
        }


def assert_as_told_before(scene: Scene, again: Mapping[str, Sequence[Answer]]) -> None:
    sent = [sale for sale in scene.record.sales if sale.is_sent]
    for earlier, answer in [
        *zip(sent, again["redemptions"], strict=True),
        *zip(scene.record.batches, again["batches"], strict=True),
    ]:
        # Also of what was never answered: its lock is held, so it can be applied now.
        assert answer.status in (200, 201), answer
        assert answer.is_replay == (answer.status == 200)
        if earlier.told is not None:
            assert answer.is_replay
            # How far a journal has arrived is told as it is now.
            moving = {"journals": None}
            assert {**answer.body, **moving} == {**earlier.told, **moving}
    for answer in again["batches"]:
        for line in answer.body["results"]:
            assert line["outcome"] in ("applied", "duplicate")
            assert (line["codes"], line["shortfall_minor"]) == ([], 0)
    assert {answer.status for answer in again["locks"]} <= {200, 201, 423}


def assert_balances_as_the_tills_know_them(scene: Scene) -> None:
    spent: Counter[str] = Counter()
    concluded = [sale for sale in scene.record.sales if sale.is_sent or sale.is_journaled]
    assert len(concluded) == len(scene.record.sales)
    for sale in concluded:
        spent[sale.card.instrument_id] += sale.amount_minor
    expected = {
        card.instrument_id: ISSUED_MINOR - spent[card.instrument_id] for card in scene.cards
    }
    rows = scene.sql("SELECT instrument_id::text, balance_minor FROM instruments")
    assert dict(rows) == expected
    posted = "SELECT count(*) FROM postings WHERE operation = 'redeem' AND entry = 'original'"
    assert scene.sql(posted) == [(len(concluded),)]
    assert scene.sql("SELECT case_id FROM cases") == []


@dataclass(frozen=True)
class Delivery:
    """A batch with every kind of line, and a database in which it waits to be posted."""

    postgres: ThrowawayPostgres
    database: str
    key: str
    body: bytes
    card_in_second_chunk: Card

    def copy(self) -> str:
        """Return the URL of a database of its own, the same in every row."""
        return self.postgres.create_database(a_name("copy").replace("-", "_"), self.database)


@pytest.fixture(scope="module")
def delivery(postgres: ThrowawayPostgres) -> Delivery:
    url = postgres.create_database("delivery")
    run_hq(environment(url), "db", "init")
    with in_process(url) as app:
        hq = Hq(app)
        hq.set_parameters(allow_concluding_gift_card_transactions_offline=True)
        till = hq.till()
        assert till.get("/v1/parameters").status_code == 200
        cards = [hq.issue(500_00) for _ in range(5)]
        memo = hq.issue(500_00, kind="credit_memo")
        locks = [till.lock(card, f"X{place}").json for place, card in enumerate(cards)]
        proofs = [{"lock_id": lock["lock_id"], "grant": lock["offline"]["grant"]} for lock in locks]
        taken = till.redeem(cards[3], "X3", 120_00, locks[3]["lock_id"])
        assert taken.status_code == 201
        unknown = Card("gift_card", "", "99999999-9999-4999-8999-999999999999", "SEK")
        lines: list[Any] = [
            till.offline_line(cards[0], "X0", 120_00, **proofs[0]),
            till.offline_line(cards[1], "X9", 30_00),  # another transaction has the lock
            till.offline_line(unknown, "X9", 10_00, line=2),
            till.offline_line(cards[0], "X9", 10_00, line=3),
            till.offline_line(cards[2], "X2", 600_00, **proofs[2]),  # more than there is
            till.offline_line(cards[3], "X3", 120_00, **proofs[3]),  # concluded online already
            till.offline_line(memo, "X9", 120_00, line=4),
            till.offline_line(cards[0], "X0", 130_00, **proofs[0]),  # other content
            till.offline_line(cards[4], "X4", 0, **proofs[4], operation="release"),
            till.offline_line(cards[1], "X1", 120_00, **proofs[1]),
            till.offline_line(cards[4], "X9", 10_00, line=5),
        ]
        lines.append("nonsense, card 6006000000000001")
        body = orjson.dumps({"store_id": till.store_id, "batch_id": "B1", "lines": lines})
        key = hq.sync(till.store_id).key
    # A line that nobody can read is settled first: the chunks begin with lines 1, 3, 6 and 9.
    return Delivery(postgres, "delivery", key, body, cards[2])


@pytest.fixture(scope="module")
def undisturbed(delivery: Delivery) -> tuple[Any, dict[str, Rows]]:
    """What the batch comes to when nothing happens: its results and every row."""
    url = delivery.copy()
    with in_process(url) as app:
        answer = post_to(app, delivery)
    assert answer.status_code == 201
    assert answer.json["counts"] == {"applied": 8, "duplicate": 1, "held": 2, "quarantined": 1}
    return answer.json["results"], contents(url, without=INSTANTS)


class Killed(BaseException):
    """The end of a process, as far as one can have it without ending this one."""


@pytest.mark.parametrize("chunk", [1, 2, 4])
@pytest.mark.parametrize("is_posted_again", [True, False])
def test_a_batch_that_ends_within_a_chunk_is_finished_as_if_nothing_had_happened(
    delivery: Delivery,
    undisturbed: tuple[Any, dict[str, Rows]],
    monkeypatch: pytest.MonkeyPatch,
    chunk: int,
    is_posted_again: bool,
) -> None:
    results, rows = undisturbed
    url = delivery.copy()
    with in_process(url) as app:
        with monkeypatch.context() as patch:
            patch.setattr(offline_batches, "_save_results", killed_at_call(chunk))
            with pytest.raises(Killed):
                post_to(app, delivery)
        settled = CHUNK_LINES * (chunk - 1)
        assert rows_of(url, "SELECT settled_count FROM offline_batches") == [(settled,)]
        if is_posted_again:
            answer = post_to(app, delivery)
            assert answer.status_code == 200
            assert answer.json["results"] == results
    if not is_posted_again:
        assert "1 batches were pending" in settle_pending(url)
    assert contents(url, without=INSTANTS) == rows
    assert_invariants(lambda query: rows_of(url, query))


def killed_at_call(number: int) -> Callable[..., None]:
    """Return what stores the results of chunks, until it is called so often."""
    genuine, calls = offline_batches._save_results, iter(range(1, number + 1))

    def save_results(*arguments: Any) -> None:
        genuine(*arguments)
        if next(calls) == number:
            raise Killed

    return save_results


def test_a_batch_whose_service_is_killed_between_chunks_is_finished_by_settle_pending(
    delivery: Delivery, undisturbed: tuple[Any, dict[str, Rows]], tmp_path: Path
) -> None:
    results, rows = undisturbed
    url = delivery.copy()
    environ = environment(url, HQ_SETTLE_CHUNK_LINES=str(CHUNK_LINES))
    settled = "SELECT settled_count FROM offline_batches"
    with RunningService(environ, tmp_path / "log") as service:
        with started_beside(url, delivery.card_in_second_chunk) as start:
            posting = start(
                lambda: service.post("/v1/offline-batches", delivery.key, delivery.body)
            )
            waiting = f"SELECT 1 FROM {SESSIONS} WHERE wait_event_type = 'Lock'"
            wait_until(lambda: rows_of(url, waiting) == [(1,)], "waiting second chunk")
            service.kill()
        assert posting.result().is_lost
        assert rows_of(url, settled) == [(CHUNK_LINES,)]
        assert "1 batches were pending" in settle_pending(url)
        assert "0 batches were pending" in settle_pending(url)
        assert contents(url, without=INSTANTS) == rows
        service.start()
        again = service.post("/v1/offline-batches", delivery.key, delivery.body)
    assert (again.status, again.is_replay) == (200, True)
    assert again.body["results"] == results
    assert_invariants(lambda query: rows_of(url, query))


@contextmanager
def started_beside(
    url: str, card: Card
) -> Iterator[Callable[[Callable[[], Answer]], Future[Answer]]]:
    """Give a function that starts a call beside the test, while the row of a card is held."""
    row = f"SELECT 1 FROM instruments WHERE instrument_id = '{card.instrument_id}' FOR UPDATE"
    with ThreadPoolExecutor(1) as threads, psycopg.connect(psycopg_url(url)) as beside:
        beside.execute(row.encode())
        yield threads.submit
        beside.rollback()


def settle_pending(url: str) -> str:
    environ = environment(url, HQ_SETTLE_CHUNK_LINES=str(CHUNK_LINES))
    return run_hq(environ, "settle-pending")


def post_to(app: Flask, delivery: Delivery) -> TestResponse:
    headers = {"Authorization": f"Bearer {delivery.key}"}
    return app.test_client().post(
        "/v1/offline-batches",
        data=delivery.body,
        content_type="application/json",
        headers=headers,
    )


SESSIONS = (
    "(SELECT * FROM pg_stat_activity WHERE application_name = 'hq-service'"
    " AND datname = current_database()) AS sessions"
)


@contextmanager
def in_process(url: str) -> Iterator[Flask]:
    """Run the service in this process, and leave no connection behind."""
    with running(url, settle_chunk_lines=CHUNK_LINES) as app:
        yield app


def rows_of(url: str, query: str) -> Rows:
    with psycopg.connect(psycopg_url(url), autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def contents(url: str, without: Sequence[str] = ()) -> dict[str, Rows]:
    """Return every row of every table as text, in one order, some columns left out."""
    tables = rows_of(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    dropped = "".join(f" - '{name}'" for name in without)
    return {
        table: rows_of(url, f"SELECT (to_jsonb(one){dropped})::text FROM {table} AS one ORDER BY 1")
        for (table,) in tables
    }
