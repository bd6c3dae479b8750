"""Distribution schedules: created, edited, read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hq_service.domain.audit import Action
from hq_service.domain.distribution import (
    DEFAULT_SCHEDULE_ID,
    DEFAULT_SCHEDULE_JOBS,
    DEFAULT_SCHEDULE_NAME,
    Schedule,
    faults_of_jobs,
)
from hq_service.domain.errors import (
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    Refused,
)
from hq_service.operations.changes import Change, old_and_new, record
from hq_service.operations.recurrence import fault_of_cron, next_run_at
from hq_service.store import distribution
from hq_service.store.database import Connection, reading, transactional

_RECURRENCE = ("every_seconds", "cron")


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """A schedule to create."""

    schedule_id: str
    name: str
    job_ids: Sequence[str]
    is_active: bool
    every_seconds: int | None
    cron: str | None


@reading
def show(_connection: Connection, schedule_id: str) -> Schedule:
    """Return a schedule.

    Raises:  NotFound ``schedule_not_found``.
    """
    return existing_schedule(schedule_id)


@reading
def page(_connection: Connection, *, after: str, limit: int) -> list[Schedule]:
    """Return schedules by id, after an id."""
    return distribution.list_schedules(after=after, limit=limit)


@transactional
def create(connection: Connection, wish: NewSchedule, change: Change) -> Schedule:
    """Create a schedule.

    Raises:  InvalidRequest with a pointer to each fault; Refused ``already_exists``.
    """
    members = {name: getattr(wish, name) for name in NewSchedule.__slots__}
    _require_sound(members, change.now)
    made = Schedule(
        **members | {"job_ids": tuple(wish.job_ids)},
        version=1,
        next_run_at=_first_run(wish.is_active, wish.every_seconds, wish.cron, change.now),
        created_at=change.now,
    )
    if not distribution.add_schedule(made):
        raise Refused(code="already_exists")
    del members["schedule_id"]
    subject = subject_of(made.schedule_id)
    record(connection, change, Action.SCHEDULE_CREATED, subject, new=members)
    return made


@transactional
def edit(
    connection: Connection,
    schedule_id: str,
    changes: Mapping[str, Any],
    seen_version: int | None,
    change: Change,
) -> Schedule:
    """Change a schedule. Of interval and cron expression, giving one takes the other away.

    Raises:  NotFound; InvalidRequest with a pointer to each fault; PreconditionRequired without a
             seen version, PreconditionFailed when somebody edited meanwhile.
    """
    before = existing_schedule(schedule_id)
    if seen_version is None:
        raise PreconditionRequired()
    _require_sound(changes, change.now)
    told = dict(changes)
    for name, other in (_RECURRENCE, reversed(_RECURRENCE)):
        if changes.get(name) is not None and getattr(before, other) is not None:
            told[other] = None
    written = dict(told)
    if told.keys() & {"is_active", *_RECURRENCE}:
        is_active, every_seconds, cron = (
            told.get(name, getattr(before, name)) for name in ("is_active", *_RECURRENCE)
        )
        written["next_run_at"] = _first_run(is_active, every_seconds, cron, change.now)
    if not distribution.edit_schedule(schedule_id, seen_version, written):
        raise PreconditionFailed(current_version=existing_schedule(schedule_id).version)
    differences = old_and_new(before, told)
    subject = subject_of(schedule_id)
    record(connection, change, Action.SCHEDULE_EDITED, subject, **differences)
    return existing_schedule(schedule_id)


def ensure_default(now: datetime) -> None:
    """Make sure, inside a transaction, that there is a schedule to run at all.

    One that is there stays as it is: administrators may have edited it.
    """
    distribution.add_schedule(
        Schedule(
            schedule_id=DEFAULT_SCHEDULE_ID,
            name=DEFAULT_SCHEDULE_NAME,
            version=1,
            job_ids=tuple(job.job_id for job in DEFAULT_SCHEDULE_JOBS),
            is_active=True,
            every_seconds=None,
            cron=None,
            next_run_at=None,
            created_at=now,
        )
    )


def existing_schedule(schedule_id: str) -> Schedule:
    """Return a schedule, inside a transaction.

    Raises:  NotFound ``schedule_not_found``.
    """
    schedule = distribution.read_schedule(schedule_id)
    if schedule is None:
        raise NotFound(code="schedule_not_found")
    return schedule


def subject_of(schedule_id: str) -> str:
    """Return what the audit calls a schedule."""
    return f"schedule:{schedule_id}"


def _first_run(
    is_active: bool, every_seconds: int | None, cron: str | None, now: datetime
) -> datetime | None:
    return next_run_at(every_seconds, cron, None, now) if is_active else None


def _require_sound(members: Mapping[str, Any], now: datetime) -> None:
    faults = {
        f"/job_ids/{place}": fault
        for place, fault in faults_of_jobs(members.get("job_ids", ())).items()
    }
    cron = members.get("cron")
    if cron is not None:
        fault = fault_of_cron(cron, now)
        if members.get("every_seconds") is not None:
            fault = "must not come with every_seconds: a schedule recurs in one way"
        if fault:
            faults["/cron"] = fault
    if faults:
        errors = [{"pointer": pointer, "detail": detail} for pointer, detail in faults.items()]
        raise InvalidRequest(errors=errors)
