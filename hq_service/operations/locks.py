"""Taking and releasing locks, and telling a terminal those that it holds."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from hq_service.domain import locking
from hq_service.domain.actors import Actor
from hq_service.domain.errors import Forbidden, InvalidRequest, NotFound, Refused, Unavailable
from hq_service.domain.keyring import Keyring
from hq_service.domain.locking import (
    Acquisition,
    LockFilter,
    LockRefusal,
    LockRequest,
    LockState,
)
from hq_service.domain.model import (
    BusinessKey,
    EndedLock,
    Instrument,
    Kind,
    Line,
    Lock,
    LockEnd,
    Operation,
    Purpose,
    newborn,
)
from hq_service.domain.numbers import last4, uuid7
from hq_service.domain.parameters import Parameters
from hq_service.domain.reading import NO_CURRENCY
from hq_service.operations.concluding import conclude_lines, refusal, require_terminal
from hq_service.operations.context import touch_if_due
from hq_service.operations.finding import find, normalised
from hq_service.store import instruments, locks, parameters, terminals
from hq_service.store.database import Connection, confirm_durable, transactional
from hq_service.store.instruments import LockWrite
from hq_service.store.terminals import LockFacts

LOCK_ATTEMPTS = 3
RETRY_AFTER_SECONDS = 1

Place = tuple[datetime, UUID]


@dataclass(frozen=True, slots=True)
class LockAnswer:
    """A lock that the terminal holds, and what it may do under it.

    ``is_new`` is false when the same business key had it already; ``grant`` is the signed right to
    conclude offline, None when that is not permitted; ``made_number`` is the number that HQ made
    for an issue, told to the terminal whose key made it and to nobody else.
    """

    instrument: Instrument
    lock: Lock
    is_new: bool
    grant: str | None
    lease_ends_at: datetime
    lease_seconds: int
    made_number: str | None = None


@transactional
def acquire(
    connection: Connection,
    request: LockRequest,
    kind: str,
    number: str | None,
    actor: Actor,
    keyring: Keyring,
    now: datetime,
) -> LockAnswer:
    """Lock an instrument for one line of a POS transaction.

    A refusal takes no lock of an instrument's row and writes nothing: the decision is made on a
    plain read, and the write goes through only if the row is still as it was read. What is refused
    because it was overtaken, by a void of its key or by a retirement, is rolled back.

    Raises:  NotFound, Refused (the codes of LockRefusal), Forbidden, Unavailable when the row
             changed under every attempt.
    """
    require_terminal(actor, request.key)
    made_number = _number_to_make(request, kind, number, keyring)
    for _ in range(LOCK_ATTEMPTS):
        instrument = _find_or_create(
            connection, request, kind, made_number or number or "", keyring, now
        )
        facts = _of_a_register_in_use(
            terminals.read_lock_facts(connection, request.key, instrument.lock)
        )
        acquisition = _decide(request, instrument, facts, now)
        if acquisition.lock is None:
            raise _refused(acquisition, instrument.lock, facts, now)
        if acquisition.is_new:
            written = instruments.set_lock(connection, instrument, acquisition.lock)
            if written is LockWrite.ROW_CHANGED:
                continue
            if written is LockWrite.OVERTAKEN:
                # By which of both, only the refused one asks.
                _of_a_register_in_use(terminals.read_lock_facts(connection, request.key, None))
                raise Refused(code=LockRefusal.VOIDED)
            _end_displaced(connection, instrument, acquisition, actor, now)
        else:
            confirm_durable(connection)
        last_seen_at = touch_if_due(
            connection, request.key, facts.terminal.last_seen_at, _in_force(facts), now
        )
        answer = _answer(acquisition, instrument, facts, keyring, last_seen_at)
        return replace(answer, made_number=made_number)
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
    answers = conclude_lines(connection, [line], actor, keyring, now)
    if isinstance(answers, list):
        return False
    ended = instruments.read_lock_event(connection, instrument_id, lock_id)
    if ended is None or ended != (LockEnd.RELEASED, *key):
        raise refusal(answers[0])
    confirm_durable(connection)
    return True


def _of_a_register_in_use(facts: LockFacts | None) -> LockFacts:
    if facts is None or facts.terminal.retired:
        raise Forbidden(
            "This register is retired or unknown, or its store is retired.",
            code="terminal_retired",
        )
    return facts


@transactional
def held_by_terminal(
    connection: Connection,
    actor: Actor,
    transaction_id: str | None,
    keyring: Keyring,
    *,
    after: Place | None,
    limit: int,
) -> tuple[list[LockAnswer], Place | None]:
    """Return the live locks of the calling terminal, the oldest first, as their requests were
    answered, and the place where the page ends; None on the last.

    For a till that starts anew, or lost an answer. It is no command: no lease is renewed by it.
    """
    store_id, terminal_id = actor.store_id, actor.terminal_id
    assert store_id is not None  # the key of a terminal names both
    assert terminal_id is not None
    wanted = LockFilter(store_id, terminal_id, transaction_id=transaction_id)
    in_force = parameters.in_force_at(store_id, parameters.latest_revision(store_id))
    found = locks.page(wanted, after=after, limit=limit + 1)
    told = [
        _told_again(instrument, in_force, keyring, last_seen_at)
        for instrument, last_seen_at in found[:limit]
    ]
    if told:
        confirm_durable(connection)
    is_last = len(found) <= limit
    return told, None if is_last else _place_of(told[-1])


def _place_of(answer: LockAnswer) -> Place:
    return answer.lock.locked_at, answer.instrument.instrument_id


def _number_to_make(
    request: LockRequest, kind: str, number: str | None, keyring: Keyring
) -> str | None:
    """Return the number that HQ makes for an issue, None if the till names one.

    The numbers of credit memos are HQ's alone (Dynamics: issueCreditMemo returns the number).
    """
    if request.purpose != Purpose.ISSUE:
        return None
    if number is None:
        return keyring.number_made_for(kind, request.key)
    if kind == Kind.CREDIT_MEMO:
        fault = {"pointer": "/number", "detail": "HQ makes the numbers of credit memos"}
        raise InvalidRequest(errors=[fault])
    return None


def _find_or_create(
    connection: Connection,
    request: LockRequest,
    kind: str,
    number: str,
    keyring: Keyring,
    now: datetime,
) -> Instrument:
    """Return the instrument to lock; an issue creates it, pending and worth nothing."""
    if request.purpose != Purpose.ISSUE:
        instrument = find(connection, kind, number, keyring)
        if instrument is None:
            raise NotFound(code="instrument_not_found")
        return instrument
    normalised_number = normalised(number)
    instrument_id = keyring.instrument_id(kind, normalised_number)
    instrument = instruments.read(connection, instrument_id)
    if instrument is None:
        assert request.currency is not None  # the schema asks for it
        instrument = newborn(instrument_id, kind, request.currency, last4(normalised_number))
        instruments.insert(connection, [instrument], now)
        # Another terminal's, if it was faster.
        instrument = instruments.read(connection, instrument_id) or instrument
    return instrument


def refusal_of(
    request: LockRequest, instrument: Instrument, facts: LockFacts, now: datetime
) -> Refused | None:
    """Return how a lock request is refused, None if it is not."""
    acquisition = _decide(request, instrument, facts, now)
    if acquisition.lock is not None:
        return None
    return _refused(acquisition, instrument.lock, facts, now)


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
        is_holder_voided=facts.is_holder_voided,
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
    if acquisition.refusal == LockRefusal.BUSINESS_KEY_REUSED:
        return Refused(
            "This business key holds a lock for something else. Use a line of its own.",
            code=acquisition.refusal,
        )
    if acquisition.refusal != LockRefusal.INSTRUMENT_LOCKED or held is None:
        return Refused(code=acquisition.refusal)
    in_force = _in_force(facts)
    is_offline = acquisition.holder_state is LockState.SUSPECT
    ends_at = locking.lease_ends_at(held, facts.holder_last_seen_at, in_force)
    # One that is presumed offline frees the card when its batch comes: nobody knows when.
    remaining = in_force.lease_seconds if is_offline else (ends_at - now) / timedelta(seconds=1)
    return Refused(
        code=acquisition.refusal,
        holder={
            "store_id": held.store_id,
            "terminal_id": held.terminal_id,
            "locked_at": held.locked_at,
            "presumed_offline": is_offline,
        },
        retry_after_seconds=min(max(1, int(remaining)), in_force.lease_seconds),
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
    acquisition: Acquisition,
    instrument: Instrument,
    facts: LockFacts,
    keyring: Keyring,
    last_seen_at: datetime,
) -> LockAnswer:
    assert acquisition.lock is not None  # a refusal was raised
    return lock_answer(
        instrument,
        acquisition.lock,
        _in_force(facts),
        keyring,
        last_seen_at,
        is_new=acquisition.is_new,
    )


def _told_again(
    instrument: Instrument, in_force: Parameters, keyring: Keyring, last_seen_at: datetime | None
) -> LockAnswer:
    lock = instrument.lock
    assert lock is not None  # it is in the list by its lock
    answer = lock_answer(instrument, lock, in_force, keyring, last_seen_at, is_new=False)
    return replace(answer, made_number=_number_made(lock, instrument, keyring))


def _number_made(lock: Lock, instrument: Instrument, keyring: Keyring) -> str | None:
    """Return the number that HQ made for the key of an issue; None if the till had named one."""
    if lock.purpose != Purpose.ISSUE:
        return None
    number = keyring.number_made_for(instrument.kind, lock.key)
    is_its_own = keyring.instrument_id(instrument.kind, number) == instrument.instrument_id
    return number if is_its_own else None


def lock_answer(
    instrument: Instrument,
    lock: Lock,
    in_force: Parameters,
    keyring: Keyring,
    last_seen_at: datetime | None,
    *,
    is_new: bool,
) -> LockAnswer:
    """Return what a terminal is told of a lock that it holds."""
    grant = locking.grant_of(lock, instrument)
    return LockAnswer(
        instrument=instrument,
        lock=lock,
        is_new=is_new,
        grant=keyring.sign(grant) if grant else None,
        lease_ends_at=locking.lease_ends_at(lock, last_seen_at, in_force),
        lease_seconds=in_force.lease_seconds,
    )
