"""The chain of audit entries: appended, never edited."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from hq_service.domain.audit import Action, AuditEntry, link
from hq_service.store import tables
from hq_service.store.database import Connection, db

Entry = tables.AuditEntry


def append(
    connection: Connection,
    key: bytes,
    *,
    recorded_at: datetime,
    actor: str,
    action: Action,
    subject: str,
    detail: Mapping[str, Any],
) -> None:
    """Append a link to the chain; call it last in a transaction.

    One appends at a time: whoever holds this lock must not wait for another one.
    """
    db.session.flush()  # what is still to be written takes its row locks first
    connection.execute("LOCK TABLE audit_entries IN SHARE ROW EXCLUSIVE MODE")
    newest = db.session.scalar(select(Entry).order_by(Entry.number.desc()).limit(1))
    made = link(
        _entry(newest) if newest else None,
        recorded_at=recorded_at,
        actor=actor,
        action=action,
        subject=subject,
        detail=detail,
        key=key,
    )
    db.session.add(Entry(**{name: getattr(made, name) for name in AuditEntry.__slots__}))
    db.session.flush()


def newest_number() -> int:
    """Return the number of the newest entry, 0 if there is none."""
    return db.session.scalar(select(func.coalesce(func.max(Entry.number), 0))) or 0


def page(
    *,
    after: int | None,
    limit: int,
    subject: str | None = None,
    action: str | None = None,
    actor: str | None = None,
    recorded_from: datetime | None = None,
    newest_first: bool = False,
) -> list[AuditEntry]:
    """Return entries in the order of their numbers, or the other way round, behind a number."""
    wanted = select(Entry).order_by(Entry.number.desc() if newest_first else Entry.number)
    if after is not None:
        wanted = wanted.where(Entry.number < after if newest_first else Entry.number > after)
    for column, value in ((Entry.subject, subject), (Entry.action, action), (Entry.actor, actor)):
        if value is not None:
            wanted = wanted.where(column == value)
    if recorded_from is not None:
        wanted = wanted.where(Entry.recorded_at >= recorded_from)
    return [_entry(one) for one in db.session.scalars(wanted.limit(limit))]


def _entry(row: tables.AuditEntry) -> AuditEntry:
    return AuditEntry(**{name: getattr(row, name) for name in AuditEntry.__slots__})
