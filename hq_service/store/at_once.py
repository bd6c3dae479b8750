"""The statements of what tills ask all day: each is a whole operation."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from hq_service.domain.actors import Actor, Presented, Role
from hq_service.domain.model import BusinessKey, Instrument, Lock, Terminal
from hq_service.domain.numbers import bucket_of
from hq_service.store import prepared


class Seen(NamedTuple):
    """What every lease depends on: when the terminal was last heard of, and the revision of the
    parameters that is in force in its store.
    """

    last_seen_at: datetime | None
    parameters_revision: int


class Paid(NamedTuple):
    """What a redemption left on the card."""

    balance_minor: int
    seen: Seen


class Locked(NamedTuple):
    """What there is on the instrument that was locked."""

    number_last4: str
    currency: str
    balance_minor: int
    seen: Seen


def redeem(
    key: BusinessKey,
    instrument_id: str,
    lock_id: str,
    amount_minor: int,
    currency: str,
    presented: Presented,
    now: datetime,
) -> Paid | None:
    """Redeem a gift card under its lock; None, and nothing is changed, if not all is in order.

    Raises:  NotTried, OutcomeUnknown.
    """
    row = prepared.written(
        "redeem_at_once",
        (
            *_caller(presented),
            *_key(key),
            str(bucket_of(UUID(instrument_id))),
            instrument_id,
            lock_id,
            str(amount_minor),
            currency,
            now,
        ),
    )
    return Paid(row[0], Seen(*row[1:])) if row is not None else None


def lock(
    lock: Lock, kind: str, instrument_id: UUID, terminal: Terminal, presented: Presented
) -> Locked | None:
    """Lock an instrument that is free; None, and nothing is changed, if not all is in order.

    ``terminal`` is what the lock's grant rests on: if that is not so any more, nothing is done.

    Raises:  NotTried, OutcomeUnknown.
    """
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
        ),
    )
    if row is None:
        return None
    number_last4, currency, balance_minor, *seen = row
    return Locked(number_last4, currency, balance_minor, Seen(*seen))


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
