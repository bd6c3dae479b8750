"""Revisions of the Commerce parameters. They are immutable, so what was read once is kept."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, func, or_, select

from hq_service.domain.parameters import Parameters, in_force
from hq_service.store import tables
from hq_service.store.database import Connection, db

Revision = tables.ParameterRevision


CACHED_MAX = 10_000
# Per database: one process may serve several, as tests do.
_cached: weakref.WeakKeyDictionary[Engine, dict[tuple[str | None, int], Parameters]] = (
    weakref.WeakKeyDictionary()
)


def latest_revision(store_id: str | None) -> int:
    """Return the newest revision that says something for a store, 0 before the first edit."""
    newest = select(func.coalesce(func.max(Revision.revision), 0)).where(_says(store_id))
    return db.session.scalar(newest) or 0


def in_force_at(store_id: str | None, revision: int) -> Parameters:
    """Return the parameters of a store (or of the company) as a revision leaves them."""
    cached = _cached.setdefault(db.engine, {})
    parameters = cached.get((store_id, revision))
    if parameters is None:
        override = _values(store_id, revision) if store_id is not None else {}
        parameters = in_force(revision, _values(None, revision), override)
        if len(cached) < CACHED_MAX:
            cached[(store_id, revision)] = parameters
    return parameters


def all_of_store(store_id: str) -> dict[int, Parameters]:
    """Return the parameters of a store at every revision that says something for it."""
    revisions = db.session.scalars(select(Revision.revision).where(_says(store_id))).all()
    return {revision: in_force_at(store_id, revision) for revision in (0, *revisions)}


def _values(store_id: str | None, revision: int) -> Mapping[str, Any]:
    scope = Revision.store_id.is_(None) if store_id is None else Revision.store_id == store_id
    values = db.session.scalar(
        select(Revision.values)
        .where(scope, Revision.revision <= revision)
        .order_by(Revision.revision.desc())
        .limit(1)
    )
    return values or {}


def _says(store_id: str | None) -> ColumnElement[bool]:
    if store_id is None:
        return Revision.store_id.is_(None)
    return or_(Revision.store_id.is_(None), Revision.store_id == store_id)


def lock_for_edit(connection: Connection) -> int:
    """Let only one edit at a time number its revision; return the newest number of all."""
    # Cold and short: an edit is a person pressing a button.
    connection.execute("LOCK TABLE parameter_revisions IN SHARE ROW EXCLUSIVE MODE")
    return db.session.scalar(select(func.coalesce(func.max(Revision.revision), 0))) or 0


def add(
    revision: int,
    store_id: str | None,
    values: Mapping[str, Any],
    changes: Mapping[str, Any],
    *,
    reason: str,
    changed_at: datetime,
    changed_by: str,
) -> None:
    """Append a revision."""
    db.session.add(
        Revision(
            revision=revision,
            store_id=store_id,
            values=dict(values),
            changes=dict(changes),
            reason=reason,
            changed_at=changed_at,
            changed_by=changed_by,
        )
    )
