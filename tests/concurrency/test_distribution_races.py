"""Runs, acknowledgements and cancellations that meet on the same store, with real commits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from hq_service.domain.parameters import in_force
from hq_service.operations.distribution import Run, run_due
from hq_service.store import parameters
from hq_service.store.database import db
from tests.concurrency.test_races import (
    deadlocks,
    forced_to_meet,
    held,
    started,
    statuses,
    wait_for_waiting,
)
from tests.support import Caller, Hq, SyncJob, on_its_own, running, together

MANY = 8
SESSIONS = "/v1/admin/distribution-sessions"


@pytest.fixture(scope="module")
def app(database_url: str) -> Iterator[Flask]:
    with running(database_url, threads=MANY + 4) as app:
        yield app


@pytest.fixture
def no_deadlock(hq: Hq) -> Iterator[None]:
    before = deadlocks(hq)
    yield
    assert deadlocks(hq) == before


@pytest.fixture
def handed_out(hq: Hq) -> tuple[str, SyncJob, str, str]:
    """A schedule, and the sync job of a store that fetched a session's package, with both."""
    sync = hq.sync(hq.make_store())
    schedule_id = hq.make_schedule("1110")
    seen = hq.admin.get("/v1/admin/parameters").headers["ETag"]
    body = {"parameters": {"lease_seconds": 600}, "reason": "test"}
    assert hq.admin.patch("/v1/admin/parameters", body, If_Match=seen).status_code == 200
    assert hq.run_now(schedule_id).status_code == 201
    [session] = sync.to_do()
    package = sync.fetch(session["session_id"])
    return schedule_id, sync, session["session_id"], hashlib.sha256(package.data).hexdigest()


def row_of_store(hq: Hq, session_id: str) -> str:
    store_id = shown(hq, session_id)["store_id"]
    return f"SELECT 1 FROM stores WHERE store_id = '{store_id}' FOR UPDATE"


def shown(hq: Hq, session_id: str) -> dict[str, Any]:
    found: dict[str, Any] = hq.admin.get(f"{SESSIONS}/{session_id}").json
    return found


def applied(hq: Hq, sync: SyncJob, session_id: str, checksum: str) -> TestResponse:
    return on_its_own(hq, sync).tell(session_id, "applied", checksum_sha256=checksum)


def cancel(hq: Hq, admin: Caller, session_id: str) -> TestResponse:
    path = f"{SESSIONS}/{session_id}/cancellations"
    return on_its_own(hq, admin).post(path, {"reason": "test"})


def test_the_same_acknowledgement_many_times_at_once_is_one(
    hq: Hq, no_deadlock: None, handed_out: tuple[str, SyncJob, str, str]
) -> None:
    _, sync, session_id, checksum = handed_out
    calls = [lambda: applied(hq, sync, session_id, checksum)] * MANY
    answers = forced_to_meet(hq, calls, on=row_of_store(hq, session_id))
    assert statuses(answers) == {200: MANY}
    assert all(answer.json == answers[0].json for answer in answers)


def test_a_failure_told_many_times_at_once_is_one_try(
    hq: Hq, handed_out: tuple[str, SyncJob, str, str]
) -> None:
    _, sync, session_id, _ = handed_out
    calls = [lambda: on_its_own(hq, sync).tell(session_id, "apply_failed")] * MANY
    answers = forced_to_meet(hq, calls, on=row_of_store(hq, session_id))
    assert statuses(answers) == {200: MANY}
    assert shown(hq, session_id)["try_count"] == 1


def test_a_package_fetched_many_times_at_once_is_one_try(hq: Hq) -> None:
    sync = hq.sync(hq.make_store())
    assert hq.run_now(hq.make_schedule("1110")).status_code == 201
    [session] = sync.to_do()
    session_id = session["session_id"]
    row = f"SELECT 1 FROM distribution_sessions WHERE session_id = '{session_id}' FOR UPDATE"
    calls = [lambda: on_its_own(hq, sync).fetch(session_id)] * MANY
    answers = forced_to_meet(hq, calls, on=row)
    assert len({answer.data for answer in answers}) == 1
    assert shown(hq, session_id)["try_count"] == 1


def test_applied_and_failed_at_once_leave_it_applied(
    hq: Hq, handed_out: tuple[str, SyncJob, str, str]
) -> None:
    _, sync, session_id, checksum = handed_out
    calls = [
        lambda: applied(hq, sync, session_id, checksum),
        lambda: on_its_own(hq, sync).tell(session_id, "apply_failed"),
    ]
    fact, failure = forced_to_meet(hq, calls, on=row_of_store(hq, session_id))
    assert fact.status_code == 200
    # Whichever came first: that it was applied is a fact, and the failure came too late or before.
    assert failure.status_code in (200, 409)
    assert shown(hq, session_id)["status"] == "applied"


def test_a_cancellation_that_meets_an_acknowledgement_never_hides_that_it_was_applied(
    hq: Hq, no_deadlock: None, handed_out: tuple[str, SyncJob, str, str]
) -> None:
    _, sync, session_id, checksum = handed_out
    calls = [
        lambda: applied(hq, sync, session_id, checksum),
        lambda: cancel(hq, hq.admin, session_id),
    ]
    fact, canceled = forced_to_meet(hq, calls, on=row_of_store(hq, session_id))
    assert fact.status_code == 200
    found = shown(hq, session_id)
    assert found["status"] == "applied"
    store = "SELECT applied_revision FROM stores WHERE store_id = %s"
    assert hq.sql(store, found["store_id"]) == [(found["parameters_revision"],)]
    # Refused if it came second; else the session tells that it had been canceled.
    assert canceled.status_code == (200 if found["message"] else 409)


@pytest.mark.parametrize("has_changed", [True, False])
@pytest.mark.parametrize("run_comes_first", [True, False])
def test_a_run_that_meets_an_acknowledgement_loses_neither(
    hq: Hq,
    no_deadlock: None,
    handed_out: tuple[str, SyncJob, str, str],
    run_comes_first: bool,
    has_changed: bool,
) -> None:
    schedule_id, sync, session_id, checksum = handed_out
    store_id = shown(hq, session_id)["store_id"]
    if has_changed:
        hq.save_parameters(lease_seconds=601)
    admin = on_its_own(hq, hq.admin)
    body = {"reason": "test", "store_ids": [store_id]}
    calls = [
        lambda: admin.post(f"/v1/admin/distribution-schedules/{schedule_id}/runs", body),
        lambda: applied(hq, sync, session_id, checksum),
    ]
    ordered = calls if run_comes_first else calls[::-1]
    with started(2) as start, held(hq, row_of_store(hq, session_id)):
        running = []
        for place, call in enumerate(ordered, start=1):
            running.append(start(call))
            wait_for_waiting(hq, place)
    answers = [one.result() for one in running]
    run, fact = answers if run_comes_first else answers[::-1]
    assert (run.status_code, fact.status_code) == (201, 200)
    assert shown(hq, session_id)["status"] == "applied"
    told = (run.json["counts"], run.json["kept_count"])
    if has_changed:
        assert told == ({"available": 1}, 0)
    else:
        # First, the run leaves the session as it is; second, it finds that the store has the same.
        assert told == (({}, 1) if run_comes_first else ({"no_data": 1}, 0))


@pytest.mark.parametrize("has_changed", [True, False])
def test_runs_that_meet_a_failure_neither_lose_it_nor_count_it_twice(
    hq: Hq, no_deadlock: None, handed_out: tuple[str, SyncJob, str, str], has_changed: bool
) -> None:
    schedule_id, sync, session_id, _ = handed_out
    if has_changed:
        hq.save_parameters(lease_seconds=602)
    path = f"/v1/admin/distribution-schedules/{schedule_id}/runs"
    body = {"reason": "test", "store_ids": [shown(hq, session_id)["store_id"]]}
    calls = [
        *[lambda: on_its_own(hq, hq.admin).post(path, body)] * 3,
        lambda: on_its_own(hq, sync).tell(session_id, "apply_failed", message="disk full"),
    ]
    *runs, failure = forced_to_meet(hq, calls, on=row_of_store(hq, session_id))
    assert statuses(runs) == {201: 3}
    found = shown(hq, session_id)
    [to_do] = sync.to_do()
    if has_changed:
        # Told first, the failure stays in the message of what was replaced then.
        assert found["status"] == "canceled"
        assert failure.status_code == (200 if "disk full" in found["message"] else 409)
        assert to_do["session_id"] == found["replaced_by"]
        assert sum(run.json["kept_count"] for run in runs) == 2
    else:
        assert (failure.status_code, found["status"]) == (200, "apply_failed")
        assert (found["try_count"], found["message"]) == (1, "disk full")
        assert to_do == found
        assert sum(run.json["kept_count"] for run in runs) == 3


def test_uploads_that_are_replaced_and_applied_at_once_lose_nothing(
    hq: Hq, no_deadlock: None
) -> None:
    sync = hq.sync(hq.make_store())
    assert hq.run_now(hq.make_schedule("P-0001")).status_code == 201
    [session] = sync.to_do()
    session_id = session["session_id"]
    assert sync.tell(session_id, "uploaded").status_code == 200
    calls = [
        lambda: on_its_own(hq, sync).tell(session_id, "applied"),
        lambda: on_its_own(hq, hq.admin).post(
            f"{SESSIONS}/{session_id}/reruns", {"reason": "test"}
        ),
    ]
    fact, rerun = forced_to_meet(hq, calls, on=row_of_store(hq, session_id))
    assert (fact.status_code, rerun.status_code) == (200, 201)
    assert shown(hq, session_id)["status"] == "applied"
    assert [one["session_id"] for one in sync.to_do()] == [rerun.json["session_id"]]


def test_runs_of_the_same_jobs_at_once_leave_one_session_to_do(hq: Hq, no_deadlock: None) -> None:
    syncs = [hq.sync(hq.make_store()) for _ in range(3)]
    schedules = [hq.make_schedule("1110", "1070", "1090") for _ in range(MANY)]
    calls = [
        lambda schedule_id=schedule_id: on_its_own(hq, hq.admin).post(
            f"/v1/admin/distribution-schedules/{schedule_id}/runs", {"reason": "test"}
        )
        for schedule_id in schedules
    ]
    assert statuses(together(calls)) == {201: MANY}
    for sync in syncs:
        assert [one["job_id"] for one in sync.to_do()] == ["1110", "1070", "1090"]


def test_several_workers_never_run_a_due_schedule_twice(hq: Hq) -> None:
    hq.make_store()
    schedules = [hq.make_schedule("1110", every_seconds=3_600) for _ in range(5)]
    hq.sql("UPDATE distribution_schedules SET next_run_at = now() WHERE every_seconds = 3600")
    now = datetime.now(UTC) + timedelta(seconds=5)

    def work() -> list[Run | None]:
        with hq.app.app_context():
            return [run_due(schedule_id, "worker", now) for schedule_id in schedules]

    ran = [run.schedule_id for one in together([work] * MANY) for run in one if run is not None]
    assert sorted(ran) == sorted(schedules)


def test_a_worker_passes_over_a_schedule_that_another_one_is_running(hq: Hq) -> None:
    schedule_id = hq.make_schedule("1110", every_seconds=3_600)
    row = f"SELECT 1 FROM distribution_schedules WHERE schedule_id = '{schedule_id}' FOR UPDATE"
    now = datetime.now(UTC) + timedelta(days=1)
    with hq.app.app_context():
        with held(hq, row):
            assert run_due(schedule_id, "worker", now) is None
        assert run_due(schedule_id, "worker", now) is not None


def test_what_is_kept_of_the_parameters_is_what_is_saved_while_others_edit_them(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parameters, "STORES_KEPT_MAX", 2)
    stores = [hq.make_store() for _ in range(4)]

    def edit() -> int:
        editor = Hq(hq.app)
        for place in range(20):
            where = (None, *stores)[place % 5]
            editor.save_parameters(where, lease_seconds=5_000 + place)
        return 0

    def read() -> int:
        wrong = 0
        for place in range(60):
            store_id = stores[place % 4]
            with hq.app.app_context():
                revision = parameters.latest_revision(store_id)
                found = parameters.in_force_at(store_id, revision)
                layers = [parameters.values_at(scope, revision) for scope in (None, store_id)]
                everything = parameters.all_of_store(store_id)
                wrong += found != in_force(revision, *layers) or everything[revision] != found
                db.session.rollback()
        return wrong

    assert together([edit, *[read] * 4]) == [0] * 5
