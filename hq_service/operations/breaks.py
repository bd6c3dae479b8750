"""Live locks: listed, looked at, and broken."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from hq_service.domain import locking
from hq_service.domain.audit import Action
from hq_service.domain.errors import NotFound, Refused
from hq_service.domain.locking import LockFilter, LockState
from hq_service.domain.model import EndedLock, Instrument, Lock, LockEnd
from hq_service.domain.parameters import Parameters
from hq_service.operations.changes import Change, record
from hq_service.store import instruments, locks, parameters, terminals
from hq_service.store.database import Connection, reading, transactional

PART_LOCKS = 500
PARTS_MAX = 20
"""How many locks are looked at for one page of a state, in how many parts."""

Place = tuple[datetime, UUID]


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A live lock, as an administrator is shown it.

    ``exposure_minor`` is what its holder may be spending offline at this moment, so what breaking
    it can cost. Of one that was just broken all but the state is as it was shown before.
    """

    instrument: Instrument
    lock: Lock
    state: LockState | Literal[LockEnd.BROKEN]
    exposure_minor: int
    holder_last_seen_at: datetime | None
    lease_ends_at: datetime


@reading
def list_locks(
    _connection: Connection,
    wanted: LockFilter,
    state: LockState | None,
    *,
    after: Place | None,
    limit: int,
    now: datetime,
) -> tuple[list[HeldLock], Place | None]:
    """Return live locks, the oldest first, and the place where the page ends; None on the last.

    A state is derived from the clock and stored nowhere: where one is asked for, part after part
    is read until the page is full. A page that has looked at `PARTS_MAX` parts ends there, full or
    not, and says where.
    """
    told: list[HeldLock] = []
    in_force: dict[str, Parameters] = {}
    part_locks = limit + 1 if state is None else PART_LOCKS
    for _ in range(PARTS_MAX):
        part = locks.page(wanted, after=after, limit=part_locks)
        held = [(one, one.lock, seen_at) for one, seen_at in part if one.lock is not None]
        further = {lock.store_id for _, lock, _ in held} - in_force.keys()
        if further:
            in_force |= parameters.in_force_now(further)
        for instrument, lock, last_seen_at in held:
            one = _held(instrument, lock, last_seen_at, in_force[lock.store_id], now)
            if state in (None, one.state):
                if len(told) == limit:
                    return told, _place_of(told[-1])
                told.append(one)
            after = _place_of(one)
        if len(part) < part_locks:
            return told, None
    return told, after


@reading
def show_lock(connection: Connection, instrument_id: UUID, now: datetime) -> HeldLock:
    """Return the live lock of an instrument, with its exposure and its holder's last sign of life.

    Raises:  NotFound ``lock_not_found``.
    """
    instrument = instruments.read(connection, instrument_id)
    if instrument is None or instrument.lock is None:
        raise NotFound(code="lock_not_found")
    return held_lock(instrument, instrument.lock, now)


@transactional
def break_lock(
    connection: Connection,
    instrument_id: UUID,
    lock_id: UUID,
    accepted_exposure_minor: int,
    change: Change,
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
    held = held_lock(instrument, lock, change.now)
    if held.exposure_minor != accepted_exposure_minor:
        raise Refused(code="exposure_changed", exposure_minor=held.exposure_minor)
    instrument.lock = None
    with connection.pipeline():
        instruments.update(connection, [instrument])
        instruments.delete_live_locks(connection, [(instrument_id, lock)])
        instruments.insert_lock_events(
            connection,
            [
                EndedLock(
                    instrument_id,
                    lock,
                    LockEnd.BROKEN,
                    change.now,
                    change.actor.name,
                    change.reason,
                )
            ],
        )
    record(connection, change, Action.LOCK_BROKEN, f"lock:{lock_id}", **_detail(held))
    return replace(held, state=LockEnd.BROKEN)


def held_lock(instrument: Instrument, lock: Lock, now: datetime) -> HeldLock:
    """Return the live lock of an instrument as an administrator is shown it."""
    in_force = parameters.in_force_at(lock.store_id, parameters.latest_revision(lock.store_id))
    seen = terminals.presence(lock.store_id, lock.terminal_id)
    return _held(instrument, lock, seen.last_seen_at if seen else None, in_force, now)


def _held(
    instrument: Instrument,
    lock: Lock,
    last_seen_at: datetime | None,
    in_force: Parameters,
    now: datetime,
) -> HeldLock:
    return HeldLock(
        instrument=instrument,
        lock=lock,
        state=locking.state_of(lock, last_seen_at, in_force, now),
        exposure_minor=locking.exposure_minor(lock, instrument, in_force, now),
        holder_last_seen_at=last_seen_at,
        lease_ends_at=locking.lease_ends_at(lock, last_seen_at, in_force),
    )


def _place_of(held: HeldLock) -> Place:
    return held.lock.locked_at, held.instrument.instrument_id


def _detail(held: HeldLock) -> dict[str, object]:
    """Return what the audit says of a lock that is broken: whose it was, and what that can cost."""
    lock, instrument = held.lock, held.instrument
    return {
        "instrument_id": instrument.instrument_id,
        "number_last4": instrument.number_last4,
        **lock.key._asdict(),
        "purpose": lock.purpose,
        "state": held.state,
        "locked_at": lock.locked_at,
        "grant_until": lock.grant_until,
        "holder_last_seen_at": held.holder_last_seen_at,
        "exposure_minor": held.exposure_minor,
        "currency": instrument.currency,
    }
