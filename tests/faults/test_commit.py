"""Commits that stall, are cancelled or lose their server: what the service may say then.

A commit is made to wait for ever by asking PostgreSQL for a standby that does not exist. What was
asked for must never be told as done while it waits, and never as not done.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import orjson
import psycopg
import pytest
from flask import Flask
from sqlalchemy import event
from werkzeug.test import TestResponse

from hq_service.app import create_app
from hq_service.embedded_postgres import ThrowawayPostgres
from hq_service.operations import locks
from hq_service.store.database import db, watchdog
from tests.faults.service import (
    PATIENCE_SECONDS,
    RunningService,
    environment,
    run_hq,
    wait_until,
)
from tests.support import (
    Caller,
    Hq,
    a_name,
    a_number,
    place_for_data,
    psycopg_url,
    test_settings,
)

pytestmark = pytest.mark.usefixtures("whole_afterwards")

DEADLINE_SECONDS = 1
NEVER_SECONDS = 3_600.0

WAITING = "application_name = 'hq-service' AND wait_event = 'SyncRep'"

C = TypeVar("C", bound=Caller)
Command = Callable[[], TestResponse]

COMMANDS = ("lock", "redeem", "release", "batch", "issue")


@pytest.fixture(scope="module")
def postgres() -> Iterator[ThrowawayPostgres]:
    # Durable, because without fsync the tests' servers do not wait for standbys either.
    with ThrowawayPostgres(place_for_data(), fsync=True) as server:
        yield server


@pytest.fixture(scope="module")
def database_url(postgres: ThrowawayPostgres) -> str:
    run_hq(environment(postgres.url), "db", "init")
    return postgres.url


@pytest.fixture(scope="module")
def app(database_url: str) -> Iterator[Flask]:
    usual = watchdog.deadline_seconds
    app = create_app(
        test_settings(database_url, threads=8, commit_deadline_seconds=DEADLINE_SECONDS)
    )
    yield app
    watchdog.deadline_seconds = usual
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def operator(database_url: str) -> Operator:
    return Operator(psycopg_url(database_url))


class Operator:
    """A person with a superuser's session on the database server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Let every commit wait for a standby that does not exist, while the body runs.

        Enter it after the threads that commit: else a test that fails waits for them for ever.
        """
        try:
            self._set_standby("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            self._wait_for_stall()
            yield
        finally:
            self._set_standby("ALTER SYSTEM RESET synchronous_standby_names")
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            wait_until(lambda: self.sql(waiting) == [], "end of all waiting commits")

    def _wait_for_stall(self) -> None:
        """Try until a commit waits: the server takes a setting over in its own time."""
        with closing(psycopg.connect(self.url, autocommit=True)) as probe:
            probe.execute("SET synchronous_commit = on")
            session = f"SELECT 1 FROM pg_stat_activity WHERE pid = {probe.info.backend_pid}"

            def waits() -> bool:
                probe.pgconn.send_query(b"SELECT pg_logical_emit_message(true, 'probe', '')")
                ended = f"{session} AND (wait_event = 'SyncRep' OR state = 'idle')"
                wait_until(lambda: self.sql(ended) != [], "end of a probe")
                if self.sql(f"{session} AND wait_event = 'SyncRep'"):
                    return True
                while probe.pgconn.get_result():
                    pass
                return False

            wait_until(waits, "stall of commits")

    def wait_for_waiting_commits(self, count: int) -> list[int]:
        """Return the process ids of the service's sessions whose commits wait."""
        found: list[int] = []

        def are_waiting() -> bool:
            rows = self.sql(f"SELECT pid FROM pg_stat_activity WHERE {WAITING}")
            found[:] = [pid for (pid,) in rows]
            return len(found) == count

        wait_until(are_waiting, f"{count} waiting commits")
        return found

    def _set_standby(self, statement: str) -> None:
        self.sql(statement)
        self.sql("SELECT pg_reload_conf()")


def commands(hq: Hq) -> dict[str, Command]:
    """Return one command of each kind, prepared so that nothing but itself is left to do.

    Each may be given any number of times: it is the same business key with the same content.
    """
    till, cards = hq.till(), [hq.issue(500_00) for _ in range(4)]
    locks = [till.lock(card, f"X{place}").json["lock_id"] for place, card in enumerate(cards[:2])]
    body = {
        "store_id": till.store_id,
        "batch_id": a_name("batch"),
        "lines": [till.offline_line(cards[2], "X2", 120_00)],
    }
    wish = {
        "reference": a_name("issue"),
        "kind": "gift_card",
        "number": a_number(),
        "currency": "SEK",
        "amount_minor": 500_00,
    }
    sync = hq.sync(till.store_id)
    return {
        "lock": lambda: alone(hq, till).lock(cards[3], "X3"),
        "redeem": lambda: alone(hq, till).redeem(cards[0], "X0", 120_00, locks[0]),
        "release": lambda: alone(hq, till).release(cards[1], "X1", locks[1]),
        "batch": lambda: alone(hq, sync).post("/v1/offline-batches", body),
        "issue": lambda: alone(hq, hq.admin).post("/v1/admin/instruments", wish),
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commit_that_stalls_is_told_as_unknown_in_time(
    hq: Hq, operator: Operator, name: str
) -> None:
    attempts = [commands(hq)[name] for _ in range(3)]
    with started(1) as start, operator.stalled():
        for given in attempts:
            started_at = time.monotonic()
            assert_unknown(start(given).result(PATIENCE_SECONDS))
            elapsed_seconds = time.monotonic() - started_at
            if elapsed_seconds < DEADLINE_SECONDS + 1:
                break
            # A busy machine may be late, but not every time.
            assert given is not attempts[-1], elapsed_seconds
    assert_applied_before(given())


def test_who_only_reads_is_answered_while_commits_stall(
    hq: Hq, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "deadline_seconds", NEVER_SECONDS)
    till, other = hq.till(), hq.till()
    held, spent = hq.issue(500_00), hq.issue(500_00)
    till.lock(held, "X1")
    lock_id = till.lock(spent, "X2").json["lock_id"]
    stalled = [lambda: alone(hq, till).redeem(spent, "X2", 120_00, lock_id), commands(hq)["batch"]]
    reads: list[Command] = [
        lambda: alone(hq, hq.admin).get("/v1/admin/parameters"),
        lambda: hq.app.test_client().get("/readyz"),
        lambda: alone(hq, other).lock(held, "X1"),
    ]
    with started(3) as start, operator.stalled():
        waiting = [start(command) for command in stalled]
        operator.wait_for_waiting_commits(2)
        answers = [start(read).result(PATIENCE_SECONDS) for read in reads]
        assert [answer.status_code for answer in answers] == [200, 200, 423]
        # What is not confirmed is not told.
        assert start(lambda: hq.balance(spent)).result(PATIENCE_SECONDS) == 500_00
    assert [answer.result().status_code for answer in waiting] == [201, 201]
    assert hq.balance(spent) == 380_00


def test_what_became_of_a_sale_is_not_told_before_a_standby_has_it(
    hq: Hq, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "deadline_seconds", NEVER_SECONDS)
    till, card = hq.till(), hq.issue(500_00)
    lock_id = till.lock(card, "X1").json["lock_id"]
    assert till.redeem(card, "X1", 120_00, lock_id).status_code == 201
    path = f"/v1/transactions/{till.store_id}/{till.terminal_id}/X1"
    with started(1) as start, operator.stalled():
        # The till takes the answer as final: after a failover it must still be true.
        waiting = start(lambda: alone(hq, till).get(path))
        operator.wait_for_waiting_commits(1)
        assert not waiting.done()
    assert waiting.result(PATIENCE_SECONDS).json["lines"][0]["outcome"] == "applied"


@pytest.mark.parametrize("way", ["pg_cancel_backend", "pg_terminate_backend"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_commit_whose_wait_is_ended_by_an_operator_is_told_as_unknown(
    hq: Hq, operator: Operator, monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    command = commands(hq)[name]
    monkeypatch.setattr(watchdog, "deadline_seconds", NEVER_SECONDS)
    with started(1) as start, operator.stalled():
        waiting = start(command)
        (pid,) = operator.wait_for_waiting_commits(1)
        operator.sql(f"SELECT {way}({pid})")
        assert_unknown(waiting.result(PATIENCE_SECONDS))
        monkeypatch.undo()
        # It shows on this server now, but no standby has it: telling it again must wait as well.
        assert_unknown(start(command).result(PATIENCE_SECONDS))
    assert_applied_before(command())


def test_a_success_that_only_survived_a_crash_is_not_told_before_a_standby_has_it(
    hq: Hq, operator: Operator
) -> None:
    given = commands(hq)
    redeemed = "SELECT count(*) FROM postings WHERE operation = 'redeem'"
    ((before,),) = operator.sql(redeemed)

    def is_told_by_the_database() -> bool:
        try:
            return operator.sql(redeemed) == [(before + 1,)]
        except psycopg.OperationalError:
            return False  # still recovering

    with started(1) as start, operator.stalled():
        for name in COMMANDS:
            assert_unknown(start(given[name]).result(PATIENCE_SECONDS))
        pid = operator.wait_for_waiting_commits(len(COMMANDS))[0]
        assert not is_told_by_the_database()
        os.kill(pid, signal.SIGKILL)  # PostgreSQL ends all sessions and recovers
        wait_until(is_told_by_the_database, "redemption after recovery")
        for name in COMMANDS:
            assert_unknown(start(given[name]).result(PATIENCE_SECONDS))
    for name in COMMANDS:
        assert_applied_before(given[name]())


def test_a_worker_that_is_aborted_cancels_no_commit(
    hq: Hq, operator: Operator, database_url: str, tmp_path: Path, postgres: ThrowawayPostgres
) -> None:
    till, card = hq.till(), hq.issue(500_00)
    lock_id = till.lock(card, "X1").json["lock_id"]
    body = orjson.dumps(
        {
            **till.key_of("X1"),
            "instrument_id": card.instrument_id,
            "lock_id": lock_id,
            "amount_minor": 120_00,
            "currency": card.currency,
        }
    )
    posted = f"SELECT count(*) FROM postings WHERE lock_id = '{lock_id}'"
    settings = {"HQ_WORKERS": "1", "HQ_THREADS": "1", "HQ_COMMIT_DEADLINE_SECONDS": "60"}
    environ = environment(database_url, **settings)
    logged_before = len(postgres.log_file.read_text())
    with RunningService(environ, tmp_path / "service.log") as service:
        with started(1) as start, operator.stalled():
            waiting = start(lambda: service.post("/v1/redemptions", till.key, body))
            operator.wait_for_waiting_commits(1)
            (worker,) = service.workers()
            # At once: not after the deadline, nor when gunicorn loses its patience after 30 s.
            aborted_at = time.monotonic()
            os.kill(worker, signal.SIGABRT)
            assert waiting.result(PATIENCE_SECONDS).is_lost
            wait_until(lambda: worker not in service.workers(), "end of the worker")
            assert time.monotonic() - aborted_at < 15
            # Its session still waits: nobody sees what no standby has.
            operator.wait_for_waiting_commits(1)
            assert operator.sql(posted) == [(0,)]
            assert "canceling" not in postgres.log_file.read_text()[logged_before:]
        service.wait_until_ready()
        answer = service.post("/v1/redemptions", till.key, body)
    assert (answer.status, answer.is_replay) == (200, True)
    assert operator.sql(posted) == [(1,)]


def test_a_database_that_is_away_is_told_and_the_service_recovers_by_itself(
    hq: Hq, postgres: ThrowawayPostgres
) -> None:
    given = commands(hq)
    postgres.stop()
    try:
        answers = {name: given[name]() for name in COMMANDS}
        answers["readiness"] = hq.client.get("/readyz")
        answers["parameters"] = hq.admin.get("/v1/admin/parameters")
    finally:
        postgres.start()
    for answer in answers.values():
        assert_unavailable(answer)
    assert hq.client.get("/healthz").status_code == 200
    assert hq.client.get("/readyz").status_code == 200
    statuses = {name: given[name]().status_code for name in COMMANDS}
    assert statuses == {name: 200 if name == "release" else 201 for name in COMMANDS}


@pytest.mark.parametrize("way", ["pg_cancel_backend", "pg_terminate_backend"])
def test_a_request_that_is_ended_before_its_commit_is_told_as_not_applied(
    hq: Hq, operator: Operator, in_full: None, way: str
) -> None:
    till, card = hq.till(), hq.issue(500_00)
    lock_id = till.lock(card, "X1").json["lock_id"]

    def redeem() -> TestResponse:
        return alone(hq, till).redeem(card, "X1", 120_00, lock_id)

    row = f"SELECT 1 FROM instruments WHERE instrument_id = '{card.instrument_id}' FOR UPDATE"
    locked = "application_name = 'hq-service' AND wait_event_type = 'Lock'"
    with started(1) as start, psycopg.connect(operator.url) as beside:
        beside.execute(row.encode())
        waiting = start(redeem)
        ended = f"SELECT {way}(pid) FROM pg_stat_activity WHERE {locked}"
        wait_until(lambda: operator.sql(ended) == [(True,)], "session that waits for the row")
        assert_unavailable(waiting.result())
        beside.rollback()
    assert hq.balance(card) == 500_00
    assert redeem().status_code == 201


def test_a_request_whose_only_statement_is_ended_is_unknown_until_it_is_repeated(
    hq: Hq, operator: Operator
) -> None:
    till, card = hq.till(), hq.issue(500_00)
    lock_id = till.lock(card, "X1").json["lock_id"]
    row = f"SELECT 1 FROM instruments WHERE instrument_id = '{card.instrument_id}' FOR UPDATE"
    locked = "application_name = 'hq-service' AND wait_event_type = 'Lock'"
    with started(1) as start, psycopg.connect(operator.url) as beside:
        beside.execute(row.encode())
        waiting = start(lambda: alone(hq, till).redeem(card, "X1", 120_00, lock_id))
        ended = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {locked}"
        wait_until(lambda: operator.sql(ended) == [(True,)], "session that waits for the row")
        assert_unknown(waiting.result())
        beside.rollback()
    assert hq.balance(card) == 500_00
    assert till.redeem(card, "X1", 120_00, lock_id).status_code == 201


def test_a_refusal_whose_session_ends_under_it_is_still_a_refusal(
    hq: Hq, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, other, card = hq.till(), hq.till(), hq.issue(500_00)
    assert holder.lock(card, "X1").status_code == 201
    genuine = locks._refused
    sessions = "FROM pg_stat_activity WHERE application_name = 'hq-service'"

    def refused(*facts: Any) -> Exception:
        operator.sql(f"SELECT pg_terminate_backend(pid) {sessions}")
        wait_until(lambda: operator.sql(f"SELECT pid {sessions}") == [], "end of the sessions")
        return genuine(*facts)

    monkeypatch.setattr(locks, "_refused", refused)
    answer = other.lock(card, "X1")
    assert answer.status_code == 423, answer.json
    assert other.lock(hq.issue(500_00), "X2").status_code == 201


class Gate:
    """A place where a thread is held up once it has come there, at most until the body ends."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.is_open = threading.Event()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_error: object) -> None:
        self.is_open.set()

    def pass_through(self) -> None:
        self.reached.set()
        self.is_open.wait(PATIENCE_SECONDS)


@contextmanager
def gates_after_commits() -> Iterator[Callable[[Gate, Command], Command]]:
    """Give a function that puts a gate behind the commit of a command.

    There the connection is back in the pool and may serve others, but the command is not over.
    """
    mine = threading.local()

    def committed(_session: object) -> None:
        mine.has_committed = True

    def ended(_session: object, _transaction: object) -> None:
        if getattr(mine, "has_committed", False) and hasattr(mine, "gate"):
            mine.gate.pass_through()
            del mine.gate

    def gated(gate: Gate, command: Command) -> Command:
        def run() -> TestResponse:
            mine.gate = gate
            return command()

        return run

    event.listen(db.session, "after_commit", committed)
    event.listen(db.session, "after_transaction_end", ended)
    try:
        yield gated
    finally:
        event.remove(db.session, "after_commit", committed)
        event.remove(db.session, "after_transaction_end", ended)


@pytest.fixture
def narrow_hq(database_url: str, app: Flask) -> Iterator[Hq]:
    """The service with one connection for all of its threads."""
    narrow = create_app(
        test_settings(database_url, threads=1, commit_deadline_seconds=DEADLINE_SECONDS)
    )
    yield Hq(narrow)
    with narrow.app_context():
        db.engine.dispose()


def test_a_commit_is_watched_although_the_one_before_it_on_the_connection_ends_late(
    narrow_hq: Hq, operator: Operator, in_full: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = commands(narrow_hq)["redeem"], commands(narrow_hq)["redeem"]
    monkeypatch.setattr(watchdog, "deadline_seconds", NEVER_SECONDS)
    with gates_after_commits() as gated, started(2) as start, Gate() as gate:
        earlier = start(gated(gate, first))
        assert gate.reached.wait(PATIENCE_SECONDS)
        monkeypatch.setattr(watchdog, "deadline_seconds", 5)
        with operator.stalled():
            later = start(second)
            operator.wait_for_waiting_commits(1)
            gate.is_open.set()
            assert earlier.result(PATIENCE_SECONDS).status_code == 201
            assert not wait([later], timeout=PATIENCE_SECONDS).not_done
    assert_unknown(later.result())


def test_the_notice_of_one_commit_is_not_taken_for_that_of_another(
    narrow_hq: Hq, operator: Operator, in_full: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = commands(narrow_hq)["redeem"], commands(narrow_hq)["redeem"]
    monkeypatch.setattr(watchdog, "deadline_seconds", NEVER_SECONDS)
    with gates_after_commits() as gated, started(2) as start, Gate() as gate, Gate() as other:
        confirmed = start(gated(gate, first))
        assert gate.reached.wait(PATIENCE_SECONDS)
        with operator.stalled():
            cancelled = start(gated(other, second))
            (pid,) = operator.wait_for_waiting_commits(1)
            operator.sql(f"SELECT pg_cancel_backend({pid})")
            assert other.reached.wait(PATIENCE_SECONDS)
            gate.is_open.set()
            assert confirmed.result(PATIENCE_SECONDS).status_code == 201
    assert_unknown(cancelled.result())


def test_a_commit_whose_wait_is_ended_is_unknown_in_whatever_language_the_server_says_it(
    hq: Hq, operator: Operator
) -> None:
    till, card = hq.till(), hq.issue(500_00)
    lock_id = till.lock(card, "X1").json["lock_id"]
    # What a cancelled wait is called under lc_messages = 'sv_SE'; said here at a commit that does
    # not wait, because the server of the tests may have no translations.
    operator.sql(f"""
        CREATE FUNCTION say_it_in_swedish() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE WARNING 'avbryter väntan på synkron replikering efter användarens önskemål'
                USING ERRCODE = '01000';
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER swedish AFTER INSERT ON postings
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
            WHEN (NEW.lock_id = '{lock_id}') EXECUTE FUNCTION say_it_in_swedish();
    """)
    try:
        assert_unknown(till.redeem(card, "X1", 120_00, lock_id))
    finally:
        operator.sql("DROP FUNCTION say_it_in_swedish CASCADE")


def assert_unknown(answer: TestResponse) -> None:
    assert answer.status_code == 503, answer.json
    assert answer.mimetype == "application/problem+json"
    assert answer.json["code"] == "outcome_unknown"
    assert answer.json["retryable"] is True
    assert int(answer.headers["Retry-After"]) > 0


def assert_unavailable(answer: TestResponse) -> None:
    assert answer.status_code == 503, answer.json
    assert answer.mimetype == "application/problem+json"
    assert answer.json["code"] == "unavailable"
    assert int(answer.headers["Retry-After"]) > 0


def assert_applied_before(answer: TestResponse) -> None:
    assert answer.status_code == 200, answer.json
    assert answer.headers["Idempotency-Replayed"] == "true"


@contextmanager
def started(threads_count: int) -> Iterator[Callable[[Callable[[], Any]], Future[Any]]]:
    """Give a function that starts a call beside the test; all are awaited at the end."""
    with ThreadPoolExecutor(threads_count) as threads:
        yield threads.submit


def alone(hq: Hq, caller: C) -> C:
    """Return the same caller with a connection of its own, for a thread of its own."""
    return replace(caller, client=hq.app.test_client())
