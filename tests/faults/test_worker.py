"""`hq worker` as a process: what it does, what it says, and how it ends."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from hq_service import worker
from hq_service.app import create_app
from hq_service.domain.actors import Actor, Role
from hq_service.domain.errors import Unavailable
from hq_service.domain.keyring import Keyring
from hq_service.operations import distribution, offline_batches
from hq_service.operations.batch_lines import BatchReader
from hq_service.operations.database import prepare
from hq_service.store.database import db
from hq_service.worker import Worker, WrongSecret
from tests.faults.service import ROOT, environment, run_hq, wait_until
from tests.support import GRANT_KEYS, KEYRING, Hq, a_name, test_settings

PATIENCE_SECONDS = 60


@pytest.fixture(scope="module", autouse=True)
def prepared(database_url: str) -> None:
    """The database as `hq db init` leaves it."""
    run_hq(environment(database_url), "db", "init")


@contextmanager
def working(database_url: str, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker beside the test; it is ended at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "hq_service", "worker", *arguments],
            cwd=ROOT,
            env=environment(database_url),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE_SECONDS)


def lines_of(log: Path) -> list[dict[str, Any]]:
    """Return what a worker logged so far; the last line may be half written."""
    found = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            found.append({"message": line})
    return found


def said(log: Path, message: str) -> list[dict[str, Any]]:
    return [line for line in lines_of(log) if line["message"] == message]


def ended_by(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    process.send_signal(number)
    return process.wait(PATIENCE_SECONDS)


def make_due(hq: Hq, *schedule_ids: str) -> None:
    """Make these schedules due, and no other."""
    hq.sql("UPDATE distribution_schedules SET next_run_at = NULL")
    hq.sql(
        "UPDATE distribution_schedules SET next_run_at = now() WHERE schedule_id = ANY (%s)",
        list(schedule_ids),
    )


def leave_unsettled(hq: Hq) -> str:
    """Receive a batch, and settle nothing of it: as after a crash."""
    till, card = hq.till(), hq.issue(500)
    batch_id = a_name("batch")
    body = {
        "store_id": till.store_id,
        "batch_id": batch_id,
        "lines": [till.offline_line(card, "X1", 100)],
    }
    with hq.app.app_context():
        now = datetime.now(UTC)
        reader = BatchReader(KEYRING, now, lines_max=10, kept_max=10)
        read = reader.read([json.dumps(body).encode()], is_ndjson=False)
        assert offline_batches.receive(*read, Actor(Role.SYNC, "test", till.store_id), now)
    return batch_id


def is_settled(hq: Hq, batch_id: str) -> bool:
    query = "SELECT settled_at IS NOT NULL FROM offline_batches WHERE batch_id = %s"
    return hq.sql(query, batch_id) == [(True,)]


def test_once_does_what_there_is_to_do_says_so_and_then_nothing(
    hq: Hq, database_url: str, tmp_path: Path
) -> None:
    sync = hq.sync(hq.make_store())
    schedule_id = hq.make_schedule("1110", every_seconds=3_600)
    make_due(hq, schedule_id)
    batch_id = leave_unsettled(hq)
    log = tmp_path / "log"
    with working(database_url, log, "--once") as process:
        assert process.wait(PATIENCE_SECONDS) == 0, log.read_text()
    [ran] = said(log, "ran a distribution schedule")
    assert (ran["action"], ran["schedule_id"]) == ("run_schedule", schedule_id)
    assert ran["sessions"]["available"] >= 1
    [finished] = said(log, "finished offline batches")
    assert (finished["settled"], finished["failed"]) == (1, 0)
    assert is_settled(hq, batch_id)
    assert [one["schedule_id"] for one in sync.to_do()] == [schedule_id]
    with working(database_url, log, "--once") as process:
        assert process.wait(PATIENCE_SECONDS) == 0
    assert log.read_text() == "", "nothing to do, nothing to say"


def test_it_goes_on_until_sigterm_and_ends_in_good_order(
    hq: Hq, database_url: str, tmp_path: Path
) -> None:
    hq.make_store()
    schedule_id = hq.make_schedule("1110", every_seconds=3_600)
    log = tmp_path / "log"
    with working(database_url, log, "--every-seconds", "1") as process:
        for runs_count in (1, 2):
            make_due(hq, schedule_id)
            wait_until(
                lambda: len(said(log, "ran a distribution schedule")) == runs_count,  # noqa: B023
                f"run number {runs_count}",
            )
        assert ended_by(process, signal.SIGTERM) == 0
    first, second = said(log, "ran a distribution schedule")
    sessions_count = sum(first["sessions"].values()) + first["kept_count"]
    assert (second["sessions"], second["kept_count"]) == ({}, sessions_count)
    assert {line["level"] for line in lines_of(log)} == {"INFO"}


def test_several_workers_run_a_due_schedule_once(hq: Hq, database_url: str, tmp_path: Path) -> None:
    hq.make_store()
    schedules = [hq.make_schedule("1110", every_seconds=3_600) for _ in range(4)]
    logs = [tmp_path / "one", tmp_path / "other"]
    arguments = ("--every-seconds", "1")
    with working(database_url, logs[0], *arguments), working(database_url, logs[1], *arguments):
        make_due(hq, *schedules)

        def runs() -> int:
            query = "SELECT count(*) FROM distribution_runs WHERE schedule_id = ANY (%s)"
            [(count,)] = hq.sql(query, schedules)
            return int(count)

        wait_until(lambda: runs() >= len(schedules), "run of each schedule")
    told = [
        line["schedule_id"] for log in logs for line in said(log, "ran a distribution schedule")
    ]
    assert len(told) == len(set(told))
    assert runs() == len(schedules)


def test_while_the_database_is_away_it_waits_and_says_so(tmp_path: Path) -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        url = f"postgresql://hq:hq@127.0.0.1:{nobody_listens.getsockname()[1]}/hq"
        log = tmp_path / "log"
        with working(url, log) as process:
            wait_until(lambda: len(said(log, "the database is away")) >= 2, "second warning")
            assert ended_by(process, signal.SIGTERM) == 0
    waits = [line["retry_after_seconds"] for line in said(log, "the database is away")]
    assert waits[:2] == [1, 2]


def test_once_without_its_database_fails(tmp_path: Path) -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        url = f"postgresql://hq:hq@127.0.0.1:{nobody_listens.getsockname()[1]}/hq"
        with working(url, tmp_path / "log", "--once") as process:
            assert process.wait(PATIENCE_SECONDS) == 1
    assert "Not everything could be done" in (tmp_path / "log").read_text()


def test_it_does_nothing_to_data_of_another_number_secret(app: Flask) -> None:
    other = Keyring(os.urandom(32), GRANT_KEYS)
    with app.app_context(), pytest.raises(WrongSecret):
        Worker(other, 1_000, 10).work()


def test_it_waits_for_a_database_that_is_not_prepared(
    server: Any, template: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.create_database(a_name("hq_bare"), template)
    app = create_app(test_settings(url))
    with app.app_context():
        one = a_worker()
        assert one.work() == (1, "number_secret: not noted yet; run `hq db init`")
        assert prepare(KEYRING, datetime.now(UTC))
        assert one.work() == (0, None)
        db.engine.dispose()
    assert caplog.text == "", "whoever asked is told; the loop says it"


def a_worker() -> Worker:
    return Worker(KEYRING, 1_000, 1)


def test_an_error_in_one_piece_is_logged_and_the_others_are_done(
    hq: Hq, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hq.make_store()
    bad, good = (hq.make_schedule("1110", every_seconds=3_600) for _ in range(2))
    make_due(hq, bad, good)
    batch_id = leave_unsettled(hq)
    run_due = distribution.run_due

    def fails(schedule_id: str, *arguments: Any) -> Any:
        if schedule_id == bad:
            raise ZeroDivisionError("6006000000000001")
        return run_due(schedule_id, *arguments)

    monkeypatch.setattr(worker.distribution, "run_due", fails)
    with hq.app.app_context(), caplog.at_level(logging.INFO):
        assert a_worker().work() == (1, None)
    [failure] = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert (failure.action, failure.error) == ("run_schedule", "ZeroDivisionError")  # type: ignore[attr-defined]
    assert "6006000000000001" not in caplog.text
    ran = [getattr(one, "schedule_id", None) for one in caplog.records]
    assert good in ran
    assert is_settled(hq, batch_id)


def test_it_comes_back_when_the_database_does(
    app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, rounds = a_worker(), []

    def away(_now: datetime) -> list[str]:
        rounds.append(len(rounds))
        if len(rounds) < 3:
            raise Unavailable()
        one.ending.set()
        return []

    waits: list[float | None] = []
    monkeypatch.setattr(worker.distribution, "due", away)
    monkeypatch.setattr(one.ending, "wait", waits.append)
    with app.app_context():
        one.run()
    assert waits == [1, 2, 1], "backing off, and its usual pace when the database is back"
    assert caplog.text.count("the database is away") == 2


def test_it_ends_after_the_piece_of_work_that_it_is_at(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    hq.make_store()
    schedules = [hq.make_schedule("1110", every_seconds=3_600) for _ in range(3)]
    make_due(hq, *schedules)
    one, run_due, done = a_worker(), distribution.run_due, []

    def told_to_end(schedule_id: str, *arguments: Any) -> Any:
        one.ending.set()
        done.append(run_due(schedule_id, *arguments))
        return done[-1]

    monkeypatch.setattr(worker.distribution, "run_due", told_to_end)
    with hq.app.app_context():
        one.run()
    [run] = done
    assert run is not None
    left = "SELECT count(*) FROM distribution_schedules WHERE next_run_at <= now()"
    assert hq.sql(left) == [(2,)]
