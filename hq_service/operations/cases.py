"""Cases for administrators: look at one, list them, resolve one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from hq_service.domain.actors import Actor
from hq_service.domain.errors import NotFound, Refused
from hq_service.domain.judgement import Context
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import HQ, BusinessKey, Instrument, Line, Operation, Terminal
from hq_service.domain.outcomes import LineResult, Outcome
from hq_service.domain.reading import NO_CURRENCY
from hq_service.domain.resolving import Case, Resolution, possible_resolutions, recover
from hq_service.domain.settlement import apply_held, settle
from hq_service.operations.finding import REMAINDERS_MAX
from hq_service.operations.offline_batches import named_lock_ids
from hq_service.operations.waiting import take_over
from hq_service.store import batches, cases, instruments, parameters, settlements
from hq_service.store.database import Connection, reading, transactional


@reading
def show(connection: Connection, case_id: UUID) -> Case:
    """Return a case.

    Raises:  NotFound.
    """
    case = cases.read(connection, case_id)
    if case is None:
        raise NotFound(code="case_not_found")
    return case


@reading
def list_open(
    connection: Connection, store_id: str | None, *, after: UUID | None, limit: int
) -> list[Case]:
    """Return open cases, of one store or of all, by id, after an id."""
    return cases.read_open(connection, store_id, after=after, limit=limit)


@transactional
def resolve(
    connection: Connection,
    case_id: UUID,
    resolution: Resolution,
    reason: str,
    actor: Actor,
    keyring: Keyring,
    now: datetime,
) -> Case:
    """Resolve a case, with a reason. What is recovered in part leaves it open for the rest.

    Raises:  NotFound; Refused ``case_resolved``, ``resolution_not_possible``, or
             ``instrument_locked`` when a live grant reserves what would be recovered.
    """
    case = cases.lock(connection, case_id)
    if case is None:
        raise NotFound(code="case_not_found")
    if case.resolved_at is not None:
        raise Refused(code="case_resolved")
    possible = possible_resolutions(case.outcome, case.operation, case.open_minor)
    if resolution not in possible:
        raise Refused(code="resolution_not_possible", possible_resolutions=list(possible))
    carry_out = _CARRY_OUT.get((resolution, case.outcome == Outcome.HELD))
    context = _context(case, actor, keyring, now)
    result = carry_out(connection, case, reason, context) if carry_out else None
    if result is not None:
        take_over(case, result, resolution, actor.name, reason, now)
    elif resolution is not Resolution.RECOVER or not case.open_minor:
        case.resolution = resolution
        case.resolved_at = now
        case.resolved_by = actor.name
        case.resolution_reason = reason
    cases.update(connection, case)
    return case


def _context(case: Case, actor: Actor, keyring: Keyring, now: datetime) -> Context:
    """Return what a resolution is judged by: the rules of now, for the line's own terminal."""
    revision = parameters.latest_revision(case.store_id)
    terminals = {}
    if case.terminal_id is not None:
        key = (case.store_id, case.terminal_id)
        terminals[key] = Terminal(*key, supports_offline=True)
    return Context(
        received_at=now,
        now=now,
        parameters=parameters.in_force_at(case.store_id, revision),
        terminals=terminals,
        parameters_at=parameters.all_of_store(case.store_id),
        keyring=keyring,
        actor=actor.name,
    )


def _recover(
    connection: Connection, case: Case, _reason: str, context: Context
) -> LineResult | None:
    key = _key_of(case)
    instrument = _last_remainder(connection, case)
    posting = recover(
        instrument,
        case.open_minor,
        line_key=key,
        posting_key=_own_key(connection, case),
        context=context,
        now=context.now,
    )
    if posting is None:
        is_reserved = instrument.balance_minor > 0
        raise Refused(
            "A live granted lock reserves the balance; its holder may be spending it."
            if is_reserved
            else "There is nothing on the instrument to recover.",
            code="instrument_locked" if is_reserved else "resolution_not_possible",
        )
    settlements.insert_postings(connection, [posting], context.now)
    instruments.update(connection, [instrument])
    case.recovered_minor += posting.amount_minor
    return None


def _reverse(
    connection: Connection, case: Case, reason: str, context: Context
) -> LineResult | None:
    """Undo a posting: somebody found that it was posted before under another key."""
    _settle_instead(connection, case, Operation.VOID, reason, context)
    case.shortfall_minor = case.recovered_minor
    return None


def _release(
    connection: Connection, case: Case, reason: str, context: Context
) -> LineResult | None:
    """Resolving a held line releases its own lock."""
    _settle_instead(connection, case, Operation.RELEASE, reason, context)
    return None


def _settle_instead(
    connection: Connection, case: Case, operation: Operation, reason: str, context: Context
) -> None:
    assert case.instrument_id is not None  # cases of lines have one
    line = Line(_key_of(case), operation, case.instrument_id, 0, NO_CURRENCY, reason=reason)
    found, known = settlements.load(connection, [line], [])
    settlement = settle([line], found, known, context)
    result = settlement.results[0]
    with connection.pipeline():
        settlements.save(connection, settlement, context.now, context.actor)
        if result.shortfall_minor:  # a credit that was spent already is taken back
            cases.insert(connection, None, [(line, result)], context.now)


def _apply(connection: Connection, case: Case, _reason: str, context: Context) -> LineResult | None:
    assert case.batch_id is not None  # only lines of batches are held
    assert case.position is not None
    line = batches.line_at(case.store_id, case.batch_id, case.position)
    assert isinstance(line, Line)  # a held line was read
    found, known = settlements.load(connection, [line], named_lock_ids([line], context.keyring))
    is_taken = known.posted(line.key) is not None or line.key in known.voided
    under = _own_key(connection, case) if is_taken else None
    settlement = apply_held(line, found, known, context, under=under)
    if settlement is None:
        raise Refused(
            "There is no such instrument, or it is in another currency.",
            code="resolution_not_possible",
        )
    with connection.pipeline():
        settlements.save(connection, settlement, context.now, context.actor)
    return settlement.results[0]


_CARRY_OUT: dict[
    tuple[Resolution, bool], Callable[[Connection, Case, str, Context], LineResult | None]
] = {
    (Resolution.RECOVER, False): _recover,
    (Resolution.CONFIRM_DUPLICATE, False): _reverse,
    (Resolution.CONFIRM_DUPLICATE, True): _release,
    (Resolution.DISMISS, True): _release,
    (Resolution.APPLY, True): _apply,
}


def _key_of(case: Case) -> BusinessKey:
    key = case.key
    assert key is not None  # notices and unreadable lines can only be dismissed
    return key


def _own_key(connection: Connection, case: Case) -> BusinessKey:
    """Return the next business key of HQ's own for a case."""
    transaction_id = case.case_id.hex
    return BusinessKey(HQ, HQ, transaction_id, 1 + cases.count_postings(connection, transaction_id))


def _last_remainder(connection: Connection, case: Case) -> Instrument:
    """Return the instrument of a case, its row locked; of a used memo, what is left of it."""
    assert case.instrument_id is not None
    wanted = case.instrument_id
    for _ in range(REMAINDERS_MAX):
        rows: Sequence[tuple[object, ...]] = instruments.load(
            connection, [wanted], for_update=True
        ).fetchall()
        instrument = replace(instruments.instrument_from(rows[0]))
        if instrument.balance_minor or instrument.remainder_id is None:
            return instrument
        wanted = instrument.remainder_id
    return instrument
