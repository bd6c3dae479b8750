"""Offline profiles, and which registers use them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select, update

from hq_service.domain.offline_profiles import OfflineProfile, complete
from hq_service.store import tables
from hq_service.store.database import Connection, db

Profiles = tables.OfflineProfile
Registers = tables.Terminal


def read(offline_profile_id: str) -> OfflineProfile | None:
    """Return a profile, None if there is no such profile."""
    wanted = select(Profiles).where(Profiles.offline_profile_id == offline_profile_id)
    # What an UPDATE of this transaction left, not what the session remembers.
    row = db.session.scalar(wanted.execution_options(populate_existing=True))
    return _profile(row) if row else None


def page(*, after: str, limit: int, with_retired: bool) -> list[OfflineProfile]:
    """Return profiles by id, after an id."""
    wanted = select(Profiles).where(Profiles.offline_profile_id > after)
    if not with_retired:
        wanted = wanted.where(Profiles.retired_at.is_(None))
    wanted = wanted.order_by(Profiles.offline_profile_id).limit(limit)
    return [_profile(row) for row in db.session.scalars(wanted)]


def every() -> dict[str, OfflineProfile]:
    """Return every profile by id, retired ones included: there are few."""
    return {row.offline_profile_id: _profile(row) for row in db.session.scalars(select(Profiles))}


def add(profile: OfflineProfile) -> None:
    """Insert a profile."""
    values = {name: getattr(profile, name) for name in OfflineProfile.__slots__}
    db.session.add(Profiles(**values))
    db.session.flush()


def edit(offline_profile_id: str, seen_version: int, changes: Mapping[str, Any]) -> bool:
    """Change a profile that is not retired, if it still has a version; tell whether it had."""
    guarded = (
        update(Profiles)
        .where(
            Profiles.offline_profile_id == offline_profile_id,
            Profiles.version == seen_version,
            Profiles.retired_at.is_(None),
        )
        .values(version=Profiles.version + 1, **changes)
    )
    return bool(db.session.execute(guarded.returning(Profiles.version)).first())


def retire(offline_profile_id: str, now: datetime) -> bool:
    """Retire a profile; tell whether it was not retired yet."""
    guarded = (
        update(Profiles)
        .where(Profiles.offline_profile_id == offline_profile_id, Profiles.retired_at.is_(None))
        .values(version=Profiles.version + 1, retired_at=now)
    )
    return bool(db.session.execute(guarded.returning(Profiles.version)).first())


def keep_registers_as_they_are(connection: Connection) -> None:
    """Let no register be created or edited until this transaction ends.

    Cold and short; tills are not held up, they only read registers.
    """
    connection.execute("LOCK TABLE terminals IN SHARE ROW EXCLUSIVE MODE")


def users(offline_profile_id: str, limit: int) -> list[tuple[str, str]]:
    """Return (store, terminal) of the first registers that use a profile and are not retired."""
    wanted = (
        select(Registers.store_id, Registers.terminal_id)
        .where(Registers.offline_profile_id == offline_profile_id, Registers.retired_at.is_(None))
        .order_by(Registers.store_id, Registers.terminal_id)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in db.session.execute(wanted)]


def _profile(row: tables.OfflineProfile) -> OfflineProfile:
    return OfflineProfile(
        row.offline_profile_id,
        row.name,
        row.version,
        complete(row.values),
        row.created_at,
        row.retired_at,
    )
