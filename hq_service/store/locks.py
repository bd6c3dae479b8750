"""Live locks, listed for people, and for tills that start anew. No decision reads this."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import and_, select, tuple_

from hq_service.domain.locking import LockFilter
from hq_service.domain.model import Instrument
from hq_service.store import tables
from hq_service.store.database import db
from hq_service.store.instruments import instrument_from

Live = tables.LiveLock
Held = tables.Instrument
Presence = tables.TerminalPresence

# In the order that `instrument_from` reads.
_INSTRUMENT = (
    Held.instrument_id,
    Held.kind,
    Held.currency,
    Held.number_last4,
    Held.status,
    Held.balance_minor,
    Held.version,
    Held.remainder_id,
    Held.lock_id,
    Held.lock_store_id,
    Held.lock_terminal_id,
    Held.lock_transaction_id,
    Held.lock_line,
    Held.lock_purpose,
    Held.lock_amount_minor,
    Held.locked_at,
    Held.lock_grant_until,
    Held.lock_grant_revision,
)


def page(
    wanted: LockFilter, *, after: tuple[datetime, UUID] | None, limit: int
) -> list[tuple[Instrument, datetime | None]]:
    """Return locked instruments and when their holders were last heard of, oldest locks first.

    Shapes:  ``after`` is the (locked_at, instrument_id) that the page before ended with.
    """
    found = (
        select(Presence.last_seen_at, *_INSTRUMENT)
        .select_from(Live)
        .join(
            Held,
            and_(
                Held.bucket == Live.bucket,
                Held.instrument_id == Live.instrument_id,
                Held.lock_id == Live.lock_id,
            ),
        )
        .outerjoin(
            Presence,
            and_(Presence.store_id == Live.store_id, Presence.terminal_id == Live.terminal_id),
        )
        .order_by(Live.locked_at, Live.instrument_id)
        .limit(limit)
    )
    if after is not None:
        found = found.where(tuple_(Live.locked_at, Live.instrument_id) > after)
    if wanted.store_id is not None:
        found = found.where(Live.store_id == wanted.store_id)
    if wanted.terminal_id is not None:
        found = found.where(Live.terminal_id == wanted.terminal_id)
    if wanted.transaction_id is not None:
        found = found.where(Held.lock_transaction_id == wanted.transaction_id)
    if wanted.kind is not None:
        found = found.where(Held.kind == wanted.kind)
    if wanted.is_granted is not None:
        has_grant = Live.grant_until.is_not(None)
        found = found.where(has_grant if wanted.is_granted else ~has_grant)
    if wanted.locked_before is not None:
        found = found.where(Live.locked_at < wanted.locked_before)
    return [(instrument_from(row[1:]), row[0]) for row in db.session.execute(found)]
