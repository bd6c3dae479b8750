"""What a resolution of a case would do: planned under the rules first, then shown or stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from hq_service.domain.actors import Actor
from hq_service.domain.errors import Refused
from hq_service.domain.judgement import Context
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import HQ, BusinessKey, Instrument, Line, Operation, Posting, Terminal
from hq_service.domain.outcomes import LineResult, Outcome
from hq_service.domain.reading import NO_CURRENCY
from hq_service.domain.resolving import Case, Resolution, possible_resolutions, recover
from hq_service.domain.settlement import Settlement, apply_held, settle
from hq_service.operations.finding import REMAINDERS_MAX
from hq_service.operations.offline_batches import named_lock_ids
from hq_service.operations.waiting import take_over
from hq_service.store import batches, cases, instruments, parameters, settlements
from hq_service.store.database import Connection


@dataclass(frozen=True, slots=True)
class Plan:
    """What a resolution does, before any of it is stored.

    ``applied`` is what a held line has come to; ``opened`` is a case that the resolution itself
    leaves; ``recovered_minor`` is taken off the open shortfall, ``cancels`` all that is left of it.
    """

    settlement: Settlement = field(default_factory=Settlement)
    applied: LineResult | None = None
    opened: tuple[Line, LineResult] | None = None
    recovered_minor: int = 0
    cancels: bool = False


@dataclass(frozen=True, slots=True)
class Preview:
    """What a resolution would do now; ``refusal`` says why it cannot be done.

    ``open_minor`` is the shortfall that would stay open; ``resolves`` whether the case would be
    closed.
    """

    resolution: Resolution
    refusal: str | None = None
    postings: Sequence[Posting] = ()
    frees_lock: bool = False
    open_minor: int = 0
    resolves: bool = False


def plan(
    connection: Connection,
    case: Case,
    resolution: Resolution,
    reason: str,
    context: Context,
    *,
    for_update: bool,
) -> Plan:
    """Return what a resolution does. Locks the rows that it is made on, unless it is for show.

    Raises:  Refused ``resolution_not_possible`` or ``instrument_locked``.
    """
    possible = possible_resolutions(case.outcome, case.operation, case.open_minor, case.codes)
    if resolution not in possible:
        raise Refused(code="resolution_not_possible", possible_resolutions=list(possible))
    make = _PLANS.get((resolution, case.outcome == Outcome.HELD))
    return make(_Planning(connection, case, reason, context, for_update)) if make else Plan()


def take(
    case: Case, planned: Plan, resolution: Resolution, actor: str, reason: str, now: datetime
) -> None:
    """Let a case say what its resolution has come to; recovered in part, it stays open."""
    if planned.applied is not None:
        take_over(case, planned.applied, resolution, actor, reason, now, is_looked_at=True)
        return
    case.recovered_minor += planned.recovered_minor
    if planned.cancels:
        case.shortfall_minor = case.recovered_minor
    if resolution is not Resolution.RECOVER or not case.open_minor:
        case.resolution = resolution
        case.resolved_at = now
        case.resolved_by = actor
        case.resolution_reason = reason


def save(connection: Connection, case: Case, planned: Plan, context: Context) -> None:
    """Store what a resolution did, and what its case has come to."""
    with connection.pipeline():
        settlements.save(connection, planned.settlement, context.now, context.actor)
        if planned.opened is not None:
            cases.insert(connection, None, [planned.opened], context.now)
        cases.update(connection, case)


def preview(
    connection: Connection, case: Case, resolution: Resolution, context: Context
) -> Preview:
    """Return what a resolution would do now, under the same rules, storing nothing."""
    try:
        planned = plan(connection, case, resolution, "", context, for_update=False)
    except Refused as refused:
        return Preview(resolution, refused.detail or refused.code, open_minor=case.open_minor)
    after = replace(case)
    take(after, planned, resolution, context.actor, "", context.now)
    return Preview(
        resolution,
        postings=planned.settlement.postings,
        frees_lock=bool(planned.settlement.freed_locks),
        open_minor=0 if after.resolved_at is not None else after.open_minor,
        resolves=after.resolved_at is not None,
    )


def posting_members(posting: Posting) -> dict[str, Any]:
    """Return what the audit and a preview say of a posting."""
    return {
        "instrument_id": str(posting.instrument_id),
        "entry": str(posting.entry),
        "operation": str(posting.operation),
        "currency": posting.currency,
        "amount_minor": posting.amount_minor,
        "funded_minor": posting.funded_minor,
        "shortfall_minor": posting.shortfall_minor,
        "change_minor": posting.change_minor,
        "balance_after_minor": posting.balance_after_minor,
    }


def context_of(case: Case, actor: Actor, keyring: Keyring, now: datetime) -> Context:
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


@dataclass(frozen=True, slots=True)
class _Planning:
    """What every plan is made from."""

    connection: Connection
    case: Case
    reason: str
    context: Context
    for_update: bool


def _recover(given: _Planning) -> Plan:
    case = given.case
    instrument = _last_remainder(given)
    posting = recover(
        instrument,
        case.open_minor,
        line_key=_key_of(case),
        posting_key=_own_key(given),
        context=given.context,
        now=given.context.now,
    )
    if posting is None:
        is_reserved = instrument.balance_minor > 0
        raise Refused(
            "A live granted lock reserves the balance; its holder may be spending it."
            if is_reserved
            else "There is nothing on the instrument to recover.",
            code="instrument_locked" if is_reserved else "resolution_not_possible",
        )
    changed = {instrument.instrument_id: instrument}
    settlement = Settlement(postings=[posting], instruments=changed)
    return Plan(settlement, recovered_minor=posting.amount_minor)


def _reverse(given: _Planning) -> Plan:
    """Undo a posting: somebody found that it was posted before under another key."""
    return replace(_settle_instead(given, Operation.VOID), cancels=True)


def _release(given: _Planning) -> Plan:
    """Resolving a held line releases its own lock."""
    return _settle_instead(given, Operation.RELEASE)


def _settle_instead(given: _Planning, operation: Operation) -> Plan:
    case = given.case
    assert case.instrument_id is not None  # cases of lines have one
    line = Line(_key_of(case), operation, case.instrument_id, 0, NO_CURRENCY, reason=given.reason)
    found, known = settlements.load(given.connection, [line], [], for_update=given.for_update)
    settlement = settle([line], found, known, given.context)
    result = settlement.results[0]
    if result.outcome == Outcome.HELD:
        raise Refused(
            "The line cannot be undone any more: " + ", ".join(result.codes),
            code="resolution_not_possible",
        )
    # A credit that was spent already is taken back, and leaves a case of its own.
    opened = (line, result) if result.needs_case else None
    return Plan(settlement, opened=opened)


def _apply(given: _Planning) -> Plan:
    case, context = given.case, given.context
    assert case.batch_id is not None  # only lines of batches are held
    assert case.position is not None
    line = batches.line_at(case.store_id, case.batch_id, case.position)
    assert isinstance(line, Line)  # a held line was read
    named = named_lock_ids([line], context)
    found, known = settlements.load(given.connection, [line], named, for_update=given.for_update)
    is_taken = known.posted(line.key) is not None or line.key in known.voided
    under = _own_key(given) if is_taken else None
    settlement = apply_held(line, found, known, context, under=under)
    if settlement is None:
        raise Refused(
            "Nothing can be posted for this line: it is a void, its instrument is not there, is in"
            " another currency or takes no money any more, or it is a refund whose key is taken.",
            code="resolution_not_possible",
        )
    return Plan(settlement, applied=settlement.results[0])


_PLANS: Mapping[tuple[Resolution, bool], Callable[[_Planning], Plan]] = {
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


def _own_key(given: _Planning) -> BusinessKey:
    """Return the next business key of HQ's own for a case."""
    transaction_id = given.case.case_id.hex
    line = 1 + cases.count_postings(given.connection, transaction_id)
    return BusinessKey(HQ, HQ, transaction_id, line)


def _last_remainder(given: _Planning) -> Instrument:
    """Return the instrument of a case, its row locked; of a used memo, what is left of it."""
    assert given.case.instrument_id is not None
    wanted: UUID = given.case.instrument_id
    for _ in range(REMAINDERS_MAX):
        rows: Sequence[tuple[object, ...]] = instruments.load(
            given.connection, [wanted], for_update=given.for_update
        ).fetchall()
        instrument = replace(instruments.instrument_from(rows[0]))
        if instrument.balance_minor or instrument.remainder_id is None:
            return instrument
        wanted = instrument.remainder_id
    return instrument
