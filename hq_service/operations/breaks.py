"""Breaking a lock: what an administrator is shown first, and what they then do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from hq_service.domain import locking
from hq_service.domain.actors import Actor
from hq_service.domain.errors import NotFound, Refused
from hq_service.domain.locking import LockState
from hq_service.domain.model import EndedLock, Instrument, Lock, LockEnd
from hq_service.store import instruments, parameters, terminals
from hq_service.store.database import Connection, reading, transactional


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A live lock, as an administrator is shown it.

    ``exposure_minor`` is what its holder may be spending offline at this moment, so what breaking
    it can cost.
    """

    instrument: Instrument
    lock: Lock
    state: LockState
    exposure_minor: int
    holder_last_seen_at: datetime | None
    lease_ends_at: datetime


@reading
def show_lock(connection: Connection, instrument_id: UUID, now: datetime) -> HeldLock:
    """Return the live lock of an instrument, with its exposure and its holder's last sign of life.

    Raises:  NotFound ``lock_not_found``.
    """
    instrument = instruments.read(connection, instrument_id)
    if instrument is None or instrument.lock is None:
        raise NotFound(code="lock_not_found")
    return _held(instrument, instrument.lock, now)


@transactional
def break_lock(
    connection: Connection,
    instrument_id: UUID,
    lock_id: UUID,
    accepted_exposure_minor: int,
    reason: str,
    actor: Actor,
    now: datetime,
) -> HeldLock:
    """End a lock although its holder may still need it; its late batch is recognised.

    ``accepted_exposure_minor`` is the exposure that the administrator was shown.

    Raises:  NotFound ``lock_not_found``; Refused ``exposure_changed``.
    """
    rows = instruments.load(connection, [instrument_id], for_update=True).fetchall()
    instrument = instruments.instrument_from(rows[0]) if rows else None
    lock = instrument.lock if instrument is not None else None
    if instrument is None or lock is None or lock.lock_id != lock_id:
        raise NotFound(code="lock_not_found")
    broken = _held(instrument, lock, now)
    if broken.exposure_minor != accepted_exposure_minor:
        raise Refused(code="exposure_changed", exposure_minor=broken.exposure_minor)
    instrument.lock = None
    with connection.pipeline():
        instruments.update(connection, [instrument])
        instruments.delete_live_locks(connection, [(instrument_id, lock)])
        instruments.insert_lock_events(
            connection,
            [EndedLock(instrument_id, lock, LockEnd.BROKEN, now, actor.name, reason)],
        )
    return broken


def _held(instrument: Instrument, lock: Lock, now: datetime) -> HeldLock:
    in_force = parameters.in_force_at(lock.store_id, parameters.latest_revision(lock.store_id))
    seen = terminals.presence(lock.store_id, lock.terminal_id)
    last_seen_at = seen.last_seen_at if seen else None
    return HeldLock(
        instrument=instrument,
        lock=lock,
        state=locking.state_of(lock, last_seen_at, in_force, now),
        exposure_minor=locking.exposure_minor(lock, instrument, in_force, now),
        holder_last_seen_at=last_seen_at,
        lease_ends_at=locking.lease_ends_at(lock, last_seen_at, in_force),
    )
