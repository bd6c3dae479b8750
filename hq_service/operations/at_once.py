"""What tills ask all day, tried in one statement before it is carried out in full.

Each of these does exactly what the operation in full would do, or nothing at all and returns None:
then the operation in full decides, and says what is wrong. Who calls is found out by the same
statement.
Source: docs/decisions/0012-what-tills-ask-all-day-is-one-statement.md.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from hq_service.domain.actors import Actor, Presented
from hq_service.domain.errors import HqError, OutcomeUnknown, Unavailable
from hq_service.domain.keyring import Keyring
from hq_service.domain.locking import LockRequest, new_lock
from hq_service.domain.model import BusinessKey, Instrument, InstrumentStatus
from hq_service.domain.numbers import normalise, uuid7
from hq_service.domain.parameters import Parameters
from hq_service.operations.context import is_touch_due, touched_for
from hq_service.operations.locks import LockAnswer, lock_answer, refusal_of
from hq_service.store import at_once, parameters, terminals
from hq_service.store.at_once import NotLocked
from hq_service.store.prepared import NotTried


@dataclass(frozen=True, slots=True)
class Redemption:
    """A redemption as a terminal asks for it, with its UUIDs in small letters."""

    key: BusinessKey
    instrument_id: str
    lock_id: str
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class Balance:
    """What a balance inquiry is answered with, and who asked."""

    actor: Actor
    instrument: Instrument
    is_locked: bool


def redeem(wish: Redemption, presented: Presented, now: datetime) -> int | None:
    """Conclude a redemption; return the balance after it, None if that is not so simple.

    Raises:  OutcomeUnknown.
    """
    try:
        balance_minor = at_once.redeem(
            wish.key,
            wish.instrument_id,
            wish.lock_id,
            wish.amount_minor,
            wish.currency,
            presented,
            now,
        )
    except NotTried:
        return None
    if balance_minor is not None:
        # It is done; the next request of the terminal tries again.
        with suppress(HqError, NotTried):
            _keep_seen(wish.key, now)
    return balance_minor


def lock(
    request: LockRequest,
    kind: str,
    number: str,
    presented: Presented,
    keyring: Keyring,
    now: datetime,
) -> LockAnswer | None:
    """Lock a free instrument for a redemption; None if that is not so simple.

    Raises:  Refused, as the lock in full does; OutcomeUnknown.
    """
    key = request.key
    normalised_number = normalise(number)
    if normalised_number is None:
        return None
    instrument_id = keyring.instrument_id(kind, normalised_number)
    found = Instrument(instrument_id, kind, "", "", InstrumentStatus.ACTIVE, 0, 0, None, None)
    try:
        register = terminals.register_facts(key.store_id, key.terminal_id)
        if register is None:
            return None
        in_force = _in_force(key.store_id, register.parameters_revision)
        terminal = register.terminal
        acknowledged = terminal.acknowledged_revision
        granting = None if acknowledged is None else _in_force(key.store_id, acknowledged)
        taken = new_lock(request, found, terminal, granting, uuid7(now, os.urandom(10)), now)
        locked = at_once.lock(taken, kind, instrument_id, register, presented)
    except (NotTried, Unavailable):
        terminals.forget_register_facts(key.store_id, key.terminal_id)
        return None
    if locked is None:
        terminals.forget_register_facts(key.store_id, key.terminal_id)
        return None
    if isinstance(locked, NotLocked):
        refusal = refusal_of(request, locked.instrument, locked.facts, now)
        if refusal is not None:
            raise refusal
        return None
    found.number_last4, found.currency = locked.number_last4, locked.currency
    found.balance_minor = taken.amount_minor = locked.balance_minor
    # It is given; the next request of the terminal tries again.
    with suppress(HqError, NotTried):
        _keep_seen(key, now)
    # Whenever the terminal was seen before: from now on its lease runs.
    return lock_answer(found, taken, in_force, keyring, now, is_new=True)


def inquire_balance(
    kind: str, number: str, presented: Presented, keyring: Keyring, now: datetime
) -> Balance | None:
    """Return an instrument as it is now; None if that is not so simple."""
    normalised_number = normalise(number)
    if normalised_number is None:
        return None
    instrument_id = keyring.instrument_id(kind, normalised_number)
    try:
        told = at_once.balance(kind, instrument_id, presented, now)
    except NotTried:
        return None
    return Balance(*told) if told is not None else None


def _keep_seen(key: BusinessKey, now: datetime) -> None:
    """Renew the terminal's lease, unless that was done recently, which this process may know."""
    if terminals.is_known_as_seen(key.store_id, key.terminal_id, now):
        return
    seen = at_once.seen(key.store_id, key.terminal_id)
    in_force = _in_force(key.store_id, seen.parameters_revision)
    last_seen_at = seen.last_seen_at
    if is_touch_due(last_seen_at, in_force, now):
        with suppress(NotTried, OutcomeUnknown):  # the next request touches again
            at_once.touch(key.store_id, key.terminal_id, now)
            last_seen_at = now
    if last_seen_at is not None:
        due_at = last_seen_at + touched_for(in_force)
        terminals.know_as_seen(key.store_id, key.terminal_id, due_at, now)


def _in_force(store_id: str, revision: int) -> Parameters:
    kept = parameters.kept_at(store_id, revision)
    return kept if kept is not None else parameters.read_at(store_id, revision)
