"""Taking and releasing locks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from hq_service.domain import locking
from hq_service.domain.actors import Actor
from hq_service.domain.errors import Forbidden, NotFound, Refused, Unavailable
from hq_service.domain.keyring import Keyring
from hq_service.domain.locking import Acquisition, LockRefusal, LockRequest, LockState
from hq_service.domain.model import (
    BusinessKey,
    EndedLock,
    Instrument,
    Line,
    Lock,
    LockEnd,
    Operation,
)
from hq_service.domain.numbers import uuid7
from hq_service.domain.parameters import Parameters
from hq_service.domain.reading import NO_CURRENCY
from hq_service.domain.settlement import OnlineRefusal, conclude
from hq_service.operations.context import online_context, touch_if_due
from hq_service.operations.finding import find
from hq_service.store import instruments, parameters, settlements, terminals
from hq_service.store.database import Connection, confirm_durable, transactional
from hq_service.store.terminals import LockFacts

LOCK_ATTEMPTS = 3
RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True, slots=True)
class LockAnswer:
    """A lock that the terminal holds, and what it may do under it.

    ``is_new`` is false when the same business key had it already; ``grant`` is the signed right to
    conclude offline, None when that is not permitted.
    """

    instrument: Instrument
    lock: Lock
    is_new: bool
    grant: str | None
    lease_ends_at: datetime
    lease_seconds: int


@transactional
def acquire(
    connection: Connection,
    request: LockRequest,
    kind: str,
    number: str,
    actor: Actor,
    keyring: Keyring,
    now: datetime,
) -> LockAnswer:
    """Lock an instrument for one line of a POS transaction.

    A refusal takes no row lock and writes nothing: the decision is made on a plain read, and the
    write goes through only if the row is still as it was read.

    Raises:  NotFound, Refused (the codes of LockRefusal), Forbidden, Unavailable when the row
             changed under every attempt.
    """
    require_terminal(actor, request.key)
    for _ in range(LOCK_ATTEMPTS):
        instrument = find(connection, kind, number, keyring)
        if instrument is None:
            raise NotFound(code="instrument_not_found")
        facts = terminals.read_lock_facts(connection, request.key, instrument.lock)
        if facts is None or facts.terminal.retired:
            raise Forbidden("This register is retired or unknown.", code="terminal_retired")
        acquisition = _decide(request, instrument, facts, now)
        if acquisition.lock is None:
            raise _refused(acquisition, instrument.lock, facts, now)
        if not acquisition.is_new:
            confirm_durable(connection)
            return _answer(acquisition.lock, instrument, facts, keyring, is_new=False)
        if instruments.set_lock(connection, instrument, acquisition.lock):
            _end_displaced(connection, instrument, acquisition, actor, now)
            touch_if_due(connection, facts.terminal, _in_force(facts), now)
            return _answer(acquisition.lock, instrument, facts, keyring, is_new=True)
    raise Unavailable(
        "Other terminals keep changing this instrument. Repeat the request.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


@transactional
def release(
    connection: Connection,
    key: BusinessKey,
    instrument_id: UUID,
    lock_id: UUID,
    actor: Actor,
    keyring: Keyring,
    now: datetime,
) -> bool:
    """Give a lock back without using it. Returns whether it was released by an earlier request.

    Raises:  Refused ``lock_lost`` when the instrument no longer carries this lock.
    """
    require_terminal(actor, key)
    line = Line(key, Operation.RELEASE, instrument_id, 0, NO_CURRENCY, lock_id=lock_id)
    found, known = settlements.load(connection, [line], {})
    context = online_context(key, actor, keyring, now)
    settlement = conclude(line, found.get(instrument_id), known, context)
    if isinstance(settlement, OnlineRefusal):
        ended = instruments.read_lock_event(connection, instrument_id, lock_id)
        if ended is not None and ended == (LockEnd.RELEASED, *key):
            confirm_durable(connection)
            return True
        raise Refused(code=settlement)
    with connection.pipeline():
        settlements.save(connection, settlement, now)
    return False


def require_terminal(actor: Actor, key: BusinessKey) -> None:
    """Refuse a terminal that speaks for another one."""
    if not actor.speaks_for(key.store_id, key.terminal_id):
        raise Forbidden(
            "This API key may not speak for that store and terminal.", code="foreign_terminal"
        )


def _decide(
    request: LockRequest, instrument: Instrument, facts: LockFacts, now: datetime
) -> Acquisition:
    acknowledged = facts.terminal.acknowledged_revision
    granting = (
        None if acknowledged is None else parameters.in_force_at(request.key.store_id, acknowledged)
    )
    return locking.acquire(
        request,
        instrument,
        is_voided=facts.is_voided,
        is_concluded=facts.is_concluded,
        holder_last_seen_at=facts.holder_last_seen_at,
        terminal=facts.terminal,
        granting=granting,
        parameters=_in_force(facts),
        lock_id=uuid7(now, os.urandom(10)),
        now=now,
    )


def _in_force(facts: LockFacts) -> Parameters:
    return parameters.in_force_at(facts.terminal.store_id, facts.parameters_revision)


def _refused(
    acquisition: Acquisition, held: Lock | None, facts: LockFacts, now: datetime
) -> Refused:
    if acquisition.refusal != LockRefusal.INSTRUMENT_LOCKED or held is None:
        return Refused(code=acquisition.refusal)
    ends_at = locking.lease_ends_at(held, facts.holder_last_seen_at, _in_force(facts))
    remaining = (ends_at - now) / timedelta(seconds=1)
    return Refused(
        code=acquisition.refusal,
        holder={
            "store_id": held.store_id,
            "terminal_id": held.terminal_id,
            "locked_at": held.locked_at,
            "presumed_offline": acquisition.holder_state is LockState.SUSPECT,
        },
        retry_after_seconds=min(max(1, int(remaining)), _in_force(facts).lease_seconds),
    )


def _end_displaced(
    connection: Connection,
    instrument: Instrument,
    acquisition: Acquisition,
    actor: Actor,
    now: datetime,
) -> None:
    if acquisition.displaced is None or acquisition.displaced_end is None:
        return
    ended = EndedLock(
        instrument.instrument_id, acquisition.displaced, acquisition.displaced_end, now, actor.name
    )
    instruments.insert_lock_events(connection, [ended])


def _answer(
    lock: Lock, instrument: Instrument, facts: LockFacts, keyring: Keyring, *, is_new: bool
) -> LockAnswer:
    in_force = _in_force(facts)
    grant = locking.grant_of(lock, instrument)
    last_seen_at = lock.locked_at if is_new else facts.terminal.last_seen_at
    return LockAnswer(
        instrument=instrument,
        lock=lock,
        is_new=is_new,
        grant=keyring.sign(grant) if grant else None,
        lease_ends_at=locking.lease_ends_at(lock, last_seen_at, in_force),
        lease_seconds=in_force.lease_seconds,
    )
