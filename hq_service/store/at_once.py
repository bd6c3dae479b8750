"""The statements of what tills ask all day: each is a whole operation."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from hq_service.domain.actors import Actor, Presented, Role
from hq_service.domain.model import BusinessKey, Instrument, Lock
from hq_service.domain.numbers import bucket_of, uuid_of
from hq_service.store import prepared
from hq_service.store.terminals import LockFacts, RegisterFacts


class Seen(NamedTuple):
    """What every lease depends on: when the terminal was last heard of, and the revision of the
    parameters that is in force in its store.
    """

    last_seen_at: datetime | None
    parameters_revision: int


class Locked(NamedTuple):
    """What there is on the instrument that was locked."""

    number_last4: str
    currency: str
    balance_minor: int


class NotLocked(NamedTuple):
    """Why an instrument may not have been locked: what the rules decide by."""

    instrument: Instrument
    facts: LockFacts


def redeem(
    key: BusinessKey,
    instrument_id: str,
    lock_id: str,
    amount_minor: int,
    currency: str,
    presented: Presented,
    now: datetime,
) -> int | None:
    """Redeem a gift card under its lock and return the balance after it; None, and nothing is
    changed, if not all is in order.

    Raises:  NotTried, OutcomeUnknown.
    """
    row = prepared.written(
        "redeem_at_once",
        (
            *_caller(presented),
            *_key(key),
            str(bucket_of(uuid_of(instrument_id))),
            instrument_id,
            lock_id,
            str(amount_minor),
            currency,
            now,
        ),
    )
    return row[0] if row is not None else None


def lock(
    lock: Lock, kind: str, instrument_id: UUID, register: RegisterFacts, presented: Presented
) -> Locked | NotLocked | None:
    """Lock an instrument that is free; else nothing is changed and no row locked. None if not even
    the rules could be asked.

    ``register`` is what the lock rests on: if that is not so any more, nothing is done.

    Raises:  NotTried, OutcomeUnknown.
    """
    terminal = register.terminal
    row = prepared.written(
        "lock_at_once",
        (
            *_caller(presented),
            *_key(lock.key),
            str(bucket_of(instrument_id)),
            instrument_id,
            kind,
            lock.lock_id,
            lock.locked_at,
            lock.grant_until,
            None if lock.grant_revision is None else str(lock.grant_revision),
            terminal.supports_offline,
            None if terminal.acknowledged_revision is None else str(terminal.acknowledged_revision),
            str(register.parameters_revision),
        ),
    )
    if row is None:
        return None
    is_given, number_last4, currency, balance_minor, *rest = row
    if is_given:
        return Locked(number_last4, currency, balance_minor)
    status, version, *rest = rest
    held = Lock(*rest[:10]) if rest[0] is not None else None
    holder_last_seen_at, *known = rest[10:]
    return NotLocked(
        Instrument(
            instrument_id, kind, currency, number_last4, status, balance_minor, version, None, held
        ),
        LockFacts(terminal, holder_last_seen_at, register.parameters_revision, *known),
    )


def balance(
    kind: str, instrument_id: UUID, presented: Presented, now: datetime
) -> tuple[Actor, Instrument, bool] | None:
    """Return who asks, an instrument, and whether it is locked; None if not all is in order.

    Raises:  NotTried.
    """
    row = prepared.read(
        "inquire_at_once",
        (*_caller(presented), str(bucket_of(instrument_id)), instrument_id, now),
    )
    if row is None:
        return None
    role, store_id, terminal_id, currency, number_last4, status, balance_minor, is_locked = row
    instrument = Instrument(
        instrument_id, kind, currency, number_last4, status, balance_minor, 0, None, None
    )
    return Actor(Role(role), presented.key_id, store_id, terminal_id), instrument, is_locked


def seen(store_id: str, terminal_id: str) -> Seen:
    """Return what the lease of a terminal depends on.

    Raises:  NotTried.
    """
    row = prepared.read("read_seen", (store_id, terminal_id))
    assert row is not None  # it has no condition
    return Seen(*row)


def touch(store_id: str, terminal_id: str, now: datetime) -> None:
    """Remember that a terminal was heard of now.

    Raises:  NotTried, OutcomeUnknown.
    """
    prepared.written("touch_at_once", (store_id, terminal_id, now))


def _caller(presented: Presented) -> tuple[str, bytes]:
    return presented.key_id, presented.secret_sha256


def _key(key: BusinessKey) -> tuple[str, str, str, str]:
    # Numbers as texts: the driver has several types for them, and a plan for each.
    return key.store_id, key.terminal_id, key.transaction_id, str(key.line)
