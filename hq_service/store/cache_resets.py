"""Cache resets, and which of the registers that they concern have fetched since."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, func, or_, select, tuple_

from hq_service.domain.connection import CacheReset, CacheResetProgress
from hq_service.store import tables
from hq_service.store.database import db

Resets = tables.CacheReset
Register = tables.Terminal
Stores = tables.Store
Presence = tables.TerminalPresence

_RESET = tuple(getattr(Resets, name) for name in CacheReset.__slots__)
_NEWEST_FIRST = (Resets.reset_at.desc(), Resets.cache_reset_id.desc())


def add(reset: CacheReset) -> None:
    """Insert a cache reset."""
    db.session.add(Resets(**{name: getattr(reset, name) for name in CacheReset.__slots__}))
    db.session.flush()


def progress_of(cache_reset_id: UUID) -> CacheResetProgress | None:
    """Return how far a cache reset has come, None if there is no such reset."""
    found = _progress(select(*_RESET).where(Resets.cache_reset_id == cache_reset_id))
    return found[0] if found else None


def page(
    *, store_id: str | None, after: tuple[datetime, UUID] | None, limit: int
) -> list[CacheResetProgress]:
    """Return cache resets, the newest first, with how far they have come. One statement.

    Shapes:  ``after`` is the (reset_at, cache_reset_id) that the page before ended with;
             ``store_id`` leaves out those of other stores.
    """
    chosen = select(*_RESET).order_by(*_NEWEST_FIRST).limit(limit)
    if store_id is not None:
        chosen = chosen.where(or_(Resets.store_id.is_(None), Resets.store_id == store_id))
    if after is not None:
        chosen = chosen.where(tuple_(Resets.reset_at, Resets.cache_reset_id) < after)
    return _progress(chosen)


def _progress(chosen: Select[Any]) -> list[CacheResetProgress]:
    """Return chosen resets with how many registers they concern that are in use now, and how many
    of those have fetched since.
    """
    reset = chosen.subquery()
    concerns = and_(
        Register.retired_at.is_(None),
        Stores.retired_at.is_(None),
        Register.created_at <= reset.c.reset_at,
        or_(reset.c.store_id.is_(None), Register.store_id == reset.c.store_id),
        or_(reset.c.terminal_id.is_(None), Register.terminal_id == reset.c.terminal_id),
    )
    is_its_presence = and_(
        Presence.store_id == Register.store_id, Presence.terminal_id == Register.terminal_id
    )
    # A fetch at the very moment of the reset may have been answered before it.
    has_fetched = Presence.parameters_fetched_at > reset.c.reset_at
    counted = (
        select(
            func.count().label("concerned_count"),
            func.count().filter(has_fetched).label("fetched_count"),
        )
        .select_from(Register)
        .join(Stores, Stores.store_id == Register.store_id)
        .outerjoin(Presence, is_its_presence)
        .where(concerns)
        .lateral()
    )
    rows = db.session.execute(
        select(reset, counted.c.concerned_count, counted.c.fetched_count)
        .select_from(reset)
        .join(counted, counted.c.concerned_count.is_not(None))
        .order_by(reset.c.reset_at.desc(), reset.c.cache_reset_id.desc())
    )
    return [
        CacheResetProgress(CacheReset(*row[: len(_RESET)]), *row[len(_RESET) :]) for row in rows
    ]
