"""Distribution schedules, their runs, and one session per store and job.

Rows are locked in one order, whoever works on them: a schedule, stores by id, sessions by id; the
audit comes last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    TableValuedAlias,
    Text,
    cast,
    column,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql

from hq_service.domain.distribution import (
    Direction,
    Schedule,
    Session,
    SessionFilter,
    SessionStatus,
)
from hq_service.domain.registers import Register, Store
from hq_service.store import tables
from hq_service.store.database import db

Schedules = tables.DistributionSchedule
Runs = tables.DistributionRun
Sessions = tables.DistributionSession
Stores = tables.Store
Registers = tables.Terminal

# Written in bulk, row by row the same columns; the mapper would part them by what is null.
_SESSIONS = tables.Base.metadata.tables[Sessions.__tablename__]
_SCHEDULE = tuple(getattr(Schedules, name) for name in Schedule.__slots__)
_STORE = tuple(getattr(Stores, name) for name in Store.__slots__)
_REGISTER = tuple(getattr(Registers, name) for name in Register.__slots__)
# Not columns of its own: the size of the package instead of the package, and what it is part of.
_DERIVED: dict[str, Any] = {
    "package_bytes": func.octet_length(Sessions.package),
    "schedule_id": Runs.schedule_id,
}
_SESSION = tuple(
    _DERIVED[name] if name in _DERIVED else getattr(Sessions, name) for name in Session.__slots__
)
_CHANGING = (
    "status",
    "try_count",
    "message",
    "replaced_by",
    "requested_at",
    "downloaded_at",
    "applied_at",
    "ended_at",
)


def add_schedule(schedule: Schedule) -> bool:
    """Insert a schedule; return whether its id was free."""
    values = {name: getattr(schedule, name) for name in Schedule.__slots__}
    values["job_ids"] = list(schedule.job_ids)
    added = db.session.execute(
        postgresql.insert(Schedules)
        .values(values)
        .on_conflict_do_nothing()
        .returning(Schedules.schedule_id)
    )
    return added.first() is not None


def read_schedule(schedule_id: str) -> Schedule | None:
    """Return a schedule, None if there is no such schedule."""
    return _schedule_from(select(*_SCHEDULE).where(Schedules.schedule_id == schedule_id))


def list_schedules(*, after: str, limit: int) -> list[Schedule]:
    """Return schedules by id, after an id."""
    wanted = select(*_SCHEDULE).where(Schedules.schedule_id > after)
    rows = db.session.execute(wanted.order_by(Schedules.schedule_id).limit(limit))
    return [_schedule(row) for row in rows]


def edit_schedule(schedule_id: str, seen_version: int, changes: dict[str, Any]) -> bool:
    """Change a schedule, if it still has a version; tell whether it had."""
    as_seen = (Schedules.schedule_id == schedule_id) & (Schedules.version == seen_version)
    # Whoever waited here for another edit is judged by the row as that one left it.
    guarded = update(Schedules).where(as_seen).values(version=Schedules.version + 1, **changes)
    return db.session.execute(guarded.returning(Schedules.version)).first() is not None


def lock_schedule(schedule_id: str) -> Schedule | None:
    """Return a schedule with its row lock, None if there is no such schedule."""
    wanted = select(*_SCHEDULE).where(Schedules.schedule_id == schedule_id)
    return _schedule_from(wanted.with_for_update(key_share=True))


def due_schedules(now: datetime) -> list[str]:
    """Return the ids of the schedules that are due, the longest waiting first."""
    wanted = select(Schedules.schedule_id).where(Schedules.next_run_at <= now)
    order = (Schedules.next_run_at, Schedules.schedule_id)
    return list(db.session.scalars(wanted.order_by(*order)))


def lock_due_schedule(schedule_id: str, now: datetime) -> Schedule | None:
    """Return a schedule with its row lock if it is due; None if it is not, or if another worker
    has it.
    """
    wanted = select(*_SCHEDULE).where(
        Schedules.schedule_id == schedule_id, Schedules.next_run_at <= now
    )
    return _schedule_from(wanted.with_for_update(key_share=True, skip_locked=True))


def set_next_run(schedule_id: str, next_run_at: datetime | None) -> None:
    """Say when a schedule is run next; that is no edit, its version stays."""
    changed = update(Schedules).where(Schedules.schedule_id == schedule_id)
    db.session.execute(changed.values(next_run_at=next_run_at))


def add_run(run_id: UUID, schedule_id: str, started_by: str, now: datetime) -> None:
    """Insert a run."""
    db.session.execute(
        insert(Runs).values(
            run_id=run_id, schedule_id=schedule_id, started_at=now, started_by=started_by
        )
    )


def read_stores(store_ids: Sequence[str]) -> dict[str, Store]:
    """Return some stores by id, retired ones included."""
    wanted = select(*_STORE).where(Stores.store_id.in_(store_ids))
    return {row.store_id: Store(*row) for row in db.session.execute(wanted)}


def lock_stores(store_ids: Sequence[str] | None) -> list[Store]:
    """Return stores in use with their row locks, in order of their ids; None means all.

    Whoever makes, ends or acknowledges sessions of a store holds its row, so that runs,
    cancellations and what the store tells come one after the other.
    """
    wanted = select(*_STORE).where(Stores.retired_at.is_(None))
    if store_ids is not None:
        wanted = wanted.where(Stores.store_id.in_(store_ids))
    # No key is changed: registers, keys and batches of the store go on being written.
    wanted = wanted.order_by(Stores.store_id).with_for_update(key_share=True)
    return [Store(*row) for row in db.session.execute(wanted)]


def lock_store(store_id: str) -> Store:
    """Return one store with its row lock, also a retired one."""
    wanted = select(*_STORE).where(Stores.store_id == store_id)
    return Store(*db.session.execute(wanted.with_for_update(key_share=True)).one())


def raise_applied_revision(store_id: str, revision: int, now: datetime) -> None:
    """Say which revision of the parameters a store has applied; it never goes back.

    ``applied_at`` stays with the first time: that is since when the store has it.
    """
    raised = update(Stores).where(Stores.store_id == store_id, Stores.applied_revision < revision)
    db.session.execute(raised.values(applied_revision=revision, applied_at=now))


def registers_of(store_ids: Sequence[str]) -> dict[str, list[Register]]:
    """Return the registers of stores by store, in order of their ids, retired ones included."""
    wanted = select(*_REGISTER).where(Registers.store_id.in_(store_ids))
    found: dict[str, list[Register]] = {store_id: [] for store_id in store_ids}
    for row in db.session.execute(wanted.order_by(Registers.store_id, Registers.terminal_id)):
        found[row.store_id].append(Register(*row))
    return found


def lock_open_sessions(store_ids: Sequence[str], job_ids: Sequence[str]) -> list[Session]:
    """Return the sessions of stores and jobs that have not ended, with their row locks."""
    wanted = _sessions().where(
        Sessions.store_id.in_(store_ids), Sessions.job_id.in_(job_ids), Sessions.ended_at.is_(None)
    )
    wanted = wanted.order_by(Sessions.session_id).with_for_update(of=Sessions)
    return [_session(row) for row in db.session.execute(wanted)]


def applied_last(
    store_ids: Sequence[str], job_ids: Sequence[str]
) -> dict[tuple[str, str], bytes | None]:
    """Return the checksum of the package that each store applied last of each job."""
    place = (Sessions.store_id, Sessions.job_id)
    wanted = (
        select(*place, Sessions.checksum_sha256)
        .ext(postgresql.distinct_on(*place))
        .where(
            Sessions.store_id.in_(store_ids),
            Sessions.job_id.in_(job_ids),
            Sessions.applied_at.is_not(None),
        )
        .order_by(*place, Sessions.applied_at.desc(), Sessions.session_id.desc())
    )
    return {(row.store_id, row.job_id): row.checksum_sha256 for row in db.session.execute(wanted)}


def add_sessions(made: Iterable[tuple[Session, bytes | None]]) -> None:
    """Insert sessions with their packages, in one statement however many there are."""
    rows = [
        {name: getattr(session, name) for name in Session.__slots__ if name not in _DERIVED}
        | {"package": package}
        for session, package in made
    ]
    if rows:
        told = _table_of(rows)
        db.session.execute(insert(_SESSIONS).from_select(told.c.keys(), select(*told.c)))


def update_sessions(changed: Iterable[Session]) -> None:
    """Write back what sessions have become, in one statement however many there are."""
    rows = [{name: getattr(one, name) for name in ("session_id", *_CHANGING)} for one in changed]
    if rows:
        told = _table_of(rows)
        as_told = update(_SESSIONS).where(_SESSIONS.c.session_id == told.c.session_id)
        db.session.execute(as_told.values({name: told.c[name] for name in _CHANGING}))


def _table_of(rows: Sequence[Mapping[str, Any]]) -> TableValuedAlias:
    """Return rows of the sessions' columns as a table: an array for each column."""
    types = {name: _SESSIONS.c[name].type for name in rows[0]}
    # A collation is the column's; an array has none.
    types = {name: Text() if isinstance(one, Text) else one for name, one in types.items()}
    arrays = [
        cast([row[name] for row in rows], postgresql.ARRAY(of_type))
        for name, of_type in types.items()
    ]
    columns = [column(name, of_type) for name, of_type in types.items()]
    return func.unnest(*arrays).table_valued(*columns, name="told").render_derived()


def read_session(session_id: UUID) -> Session | None:
    """Return a session, None if there is no such session."""
    row = db.session.execute(_sessions().where(Sessions.session_id == session_id)).first()
    return _session(row) if row else None


def lock_session(session_id: UUID) -> Session:
    """Return a session that is there, with its row lock."""
    wanted = _sessions().where(Sessions.session_id == session_id).with_for_update(of=Sessions)
    return _session(db.session.execute(wanted).one())


def package_of(session_id: UUID) -> bytes:
    """Return the package of a download session, as it was made."""
    found = db.session.scalar(select(Sessions.package).where(Sessions.session_id == session_id))
    assert found is not None  # a CHECK says so
    return found


def list_sessions(filters: SessionFilter, *, after: UUID | None, limit: int) -> list[Session]:
    """Return sessions, the newest first, behind an id: ids are in order of time.

    Those without data only if they are asked for by their status.
    """
    wanted = _sessions().order_by(Sessions.session_id.desc()).limit(limit)
    if after is not None:
        wanted = wanted.where(Sessions.session_id < after)
    return [_session(row) for row in db.session.execute(wanted.where(*_conditions(filters)))]


def open_sessions(store_id: str, *, after: UUID | None, limit: int) -> list[Session]:
    """Return what a store has to do, the oldest first, behind an id."""
    wanted = _sessions().where(Sessions.store_id == store_id, Sessions.ended_at.is_(None))
    if after is not None:
        wanted = wanted.where(Sessions.session_id > after)
    wanted = wanted.order_by(Sessions.session_id).limit(limit)
    return [_session(row) for row in db.session.execute(wanted)]


def _conditions(filters: SessionFilter) -> list[ColumnElement[bool]]:
    columns: dict[str, Any] = {
        "store_id": Sessions.store_id,
        "job_id": Sessions.job_id,
        "status": Sessions.status,
        "schedule_id": Runs.schedule_id,
        "run_id": Sessions.run_id,
    }
    asked = {name: getattr(filters, name) for name in SessionFilter.__slots__}
    conditions = [columns[name] == value for name, value in asked.items() if value is not None]
    if filters.status is None:
        conditions.append(Sessions.status != SessionStatus.NO_DATA)
    return conditions


def _sessions() -> Select[Any]:
    return select(*_SESSION).join(Runs, Runs.run_id == Sessions.run_id)


def _session(row: Any) -> Session:
    values = dict(zip(Session.__slots__, row, strict=True))
    values["direction"] = Direction(values["direction"])
    values["status"] = SessionStatus(values["status"])
    return Session(**values)


def _schedule_from(wanted: Select[Any]) -> Schedule | None:
    row = db.session.execute(wanted).first()
    return _schedule(row) if row else None


def _schedule(row: Any) -> Schedule:
    values = dict(zip(Schedule.__slots__, row, strict=True))
    return Schedule(**values | {"job_ids": tuple(values["job_ids"])})
