"""Running distribution schedules, and what administrators do about the sessions.

Rows are locked in one order: the schedule, stores by id, sessions by id; the audit comes last.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from hq_service.domain.audit import Action
from hq_service.domain.distribution import (
    JOB_BY_ID,
    Job,
    Package,
    Schedule,
    Session,
    SessionFilter,
    canceled,
    is_still_wanted,
    may_be_underway,
    opened,
)
from hq_service.domain.errors import InvalidRequest, NotFound, Refused
from hq_service.domain.numbers import uuid7
from hq_service.operations import packages
from hq_service.operations.changes import Change, record
from hq_service.operations.recurrence import next_run_at
from hq_service.operations.schedules import subject_of
from hq_service.store import distribution
from hq_service.store.database import Connection, reading, transactional

REPLACED = "Replaced by a newer session."


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a schedule, how many sessions of which status it made, and how many that had not
    ended it left as they were.
    """

    run_id: UUID
    schedule_id: str
    started_at: datetime
    started_by: str
    counts: Mapping[str, int]
    kept_count: int


@transactional
def run_now(
    connection: Connection, schedule_id: str, store_ids: Sequence[str] | None, change: Change
) -> Run:
    """Make a session per job of a schedule and store in use; of some stores, or of all.

    A session of the same job and store that has not ended yet is replaced, unless it carries just
    the same: then it is left as it is.

    Raises:  NotFound; Refused ``schedule_inactive``; InvalidRequest with a pointer to each store
             that is none, or is retired.
    """
    schedule = distribution.lock_schedule(schedule_id)
    if schedule is None:
        raise NotFound(code="schedule_not_found")
    if not schedule.is_active:
        raise Refused(code="schedule_inactive")
    if store_ids is not None:
        _require_stores(store_ids)
    run = _run(schedule, store_ids, change.actor.name, change.now)
    record(
        connection,
        change,
        Action.SCHEDULE_RUN,
        subject_of(schedule_id),
        run_id=run.run_id,
        store_ids=list(store_ids) if store_ids is not None else None,
    )
    return run


@reading
def due(_connection: Connection, now: datetime) -> list[str]:
    """Return the schedules whose next run has come, the longest waiting first."""
    return distribution.due_schedules(now)


@transactional
def run_due(
    _connection: Connection, schedule_id: str, started_by: str, now: datetime
) -> Run | None:
    """Run a recurring schedule if it is still due and no other worker has it; else None.

    That it ran and when it runs next are one commit: it is never run twice for one due time.
    """
    schedule = distribution.lock_due_schedule(schedule_id, now)
    if schedule is None:
        return None
    due_at = schedule.next_run_at
    next_at = next_run_at(schedule.every_seconds, schedule.cron, due_at, now)
    distribution.set_next_run(schedule_id, next_at)
    return _run(schedule, None, started_by, now)


@reading
def list_sessions(
    _connection: Connection, filters: SessionFilter, *, after: UUID | None, limit: int
) -> list[Session]:
    """Return sessions, the newest first, behind an id; those without data only if asked for."""
    return distribution.list_sessions(filters, after=after, limit=limit)


@reading
def show_session(_connection: Connection, session_id: UUID) -> Session:
    """Return a session.

    Raises:  NotFound ``session_not_found``.
    """
    return _existing(session_id)


@transactional
def rerun(connection: Connection, session_id: UUID, change: Change) -> Session:
    """Make a session anew for the same job and store, of what is saved now. It replaces the one
    that has not ended yet, and it is there to be fetched also if the store has the same already.

    Raises:  NotFound; Refused ``retired`` for a store that is.
    """
    again = _existing(session_id)
    store = distribution.lock_store(again.store_id)
    if store.retired_at is not None:
        raise Refused(code="retired")
    job = JOB_BY_ID[again.job_id]
    older = distribution.lock_open_sessions([store.store_id], [job.job_id])
    package = packages.make([store], [job]).get((store.store_id, job.job_id))
    made = opened(
        uuid7(change.now, os.urandom(10)),
        (again.run_id, again.schedule_id),
        store.store_id,
        job,
        package,
        applied_last=None,
        is_wanted_anyway=True,
        rerun_for=again.session_id,
        now=change.now,
    )
    distribution.update_sessions(
        canceled(one, REPLACED, made.session_id, change.now) for one in older
    )
    distribution.add_sessions([(made, package.data if package else None)])
    _record_session(connection, change, Action.SESSION_RERUN, again, session_id=made.session_id)
    return made


@transactional
def cancel_session(connection: Connection, session_id: UUID, change: Change) -> Session:
    """End a session: its package is not handed out any more.

    Raises:  NotFound; Refused ``session_ended``.
    """
    session = _existing(session_id)
    distribution.lock_store(session.store_id)
    session = distribution.lock_session(session_id)
    if session.ended_at is not None:
        raise Refused(code="session_ended", session_status=session.status)
    ended = canceled(session, f"Canceled: {change.reason}", None, change.now)
    distribution.update_sessions([ended])
    old = {"status": session.status}
    _record_session(connection, change, Action.SESSION_CANCELED, session, old=old)
    return ended


def _run(
    schedule: Schedule, store_ids: Sequence[str] | None, started_by: str, now: datetime
) -> Run:
    """Make a run and its sessions; the schedule's row is locked."""
    run_id = uuid7(now, os.urandom(10))
    distribution.add_run(run_id, schedule.schedule_id, started_by, now)
    stores = distribution.lock_stores(store_ids)
    names = [store.store_id for store in stores]
    jobs = [JOB_BY_ID[job_id] for job_id in schedule.job_ids if job_id in JOB_BY_ID]
    job_ids = [job.job_id for job in jobs]
    older: dict[tuple[str, str], list[Session]] = {}
    for one in distribution.lock_open_sessions(names, job_ids):
        older.setdefault((one.store_id, one.job_id), []).append(one)
    carried = packages.make(stores, jobs)
    places = [(store.store_id, job) for store in stores for job in jobs]
    kept = {
        (store_id, job.job_id): of_place[-1]
        for store_id, job in places
        if (of_place := older.get((store_id, job.job_id)))
        and is_still_wanted(of_place[-1], carried.get((store_id, job.job_id)))
    }
    missing = [(store_id, job) for store_id, job in places if (store_id, job.job_id) not in kept]
    made = _sessions((run_id, schedule.schedule_id), missing, carried, older, now)
    there = kept | {(session.store_id, session.job_id): session for session, _ in made}
    distribution.update_sessions(
        canceled(one, REPLACED, there[place].session_id, now)
        for place, of_place in older.items()
        for one in of_place
        if one is not there[place]
    )
    distribution.add_sessions(made)
    counts = Counter(str(session.status) for session, _ in made)
    return Run(run_id, schedule.schedule_id, now, started_by, counts, len(kept))


def _sessions(
    made_by: tuple[UUID, str],
    places: Sequence[tuple[str, Job]],
    carried: Mapping[tuple[str, str], Package],
    older: Mapping[tuple[str, str], Sequence[Session]],
    now: datetime,
) -> list[tuple[Session, bytes | None]]:
    """Return a new session with its package for each store and job of ``places``."""
    if not places:
        return []
    names = sorted({store_id for store_id, _ in places})
    applied = distribution.applied_last(names, sorted({job.job_id for _, job in places}))
    # Ids in order: a store is told its jobs in the order in which the schedule names them.
    ids = sorted(uuid7(now, os.urandom(10)) for _ in places)
    made = []
    for session_id, (store_id, job) in zip(ids, places, strict=True):
        place = (store_id, job.job_id)
        package = carried.get(place)
        session = opened(
            session_id,
            made_by,
            store_id,
            job,
            package,
            applied_last=applied.get(place),
            is_wanted_anyway=any(may_be_underway(one, package) for one in older.get(place, ())),
            rerun_for=None,
            now=now,
        )
        made.append((session, package.data if package else None))
    return made


def _require_stores(store_ids: Sequence[str]) -> None:
    known = distribution.read_stores(store_ids)
    errors = []
    for place, store_id in enumerate(store_ids):
        store = known.get(store_id)
        if store is None or store.retired_at is not None:
            fault = "is not a store" if store is None else "is retired"
            errors.append({"pointer": f"/store_ids/{place}", "detail": fault})
    if errors:
        raise InvalidRequest(errors=errors)


def _existing(session_id: UUID) -> Session:
    session = distribution.read_session(session_id)
    if session is None:
        raise NotFound(code="session_not_found")
    return session


def _record_session(
    connection: Connection, change: Change, action: Action, session: Session, **detail: object
) -> None:
    about = {"store_id": session.store_id, "job_id": session.job_id}
    record(connection, change, action, f"session:{session.session_id}", **about, **detail)
