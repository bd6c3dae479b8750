"""The fold: what judgements do to instruments, locks, postings and cases, line after line.

Pure: it works on copies and returns what changed, ready to be stored. Online, a line is a batch of
one; what it may not do there is said by `judgement.refusal_online`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from hq_service.domain.journals import Journal
from hq_service.domain.judgement import (
    Context,
    Judgement,
    Known,
    LockEffect,
    OnlineRefusal,
    fund,
    gone_lock,
    granted_issue,
    is_reserved_for_another,
    judge,
    refusal_online,
)
from hq_service.domain.model import (
    CREDITS,
    DEBITS,
    BusinessKey,
    EndedLock,
    Entry,
    Instrument,
    InstrumentStatus,
    Kind,
    Line,
    Lock,
    LockEnd,
    Operation,
    Place,
    Posting,
    UnreadableLine,
    Void,
    newborn,
)
from hq_service.domain.numbers import last4
from hq_service.domain.outcomes import (
    Code,
    LineResult,
    Outcome,
    case_id_of,
    case_id_of_quarantined,
    case_id_of_unreadable,
    case_id_of_void,
)


@dataclass(slots=True)
class Settlement:
    """What a fold did, ready to be stored.

    Shapes: ``results`` in the order of the lines given; ``instruments`` only those that changed,
    as they are afterwards; ``created`` are new ones; ``closed_cases`` case of a voided line -> the
    outcome that it is about (one that became another's since is not closed);
    ``journals`` (terminal, journal) -> what has arrived of it now.
    """

    results: list[LineResult] = field(default_factory=list)
    postings: list[Posting] = field(default_factory=list)
    instruments: dict[UUID, Instrument] = field(default_factory=dict)
    created: dict[UUID, Instrument] = field(default_factory=dict)
    ended_locks: list[EndedLock] = field(default_factory=list)
    freed_locks: list[tuple[UUID, Lock]] = field(default_factory=list)
    voids: list[Void] = field(default_factory=list)
    closed_cases: dict[UUID, str] = field(default_factory=dict)
    journals: dict[tuple[str, str], Journal] = field(default_factory=dict)

    @property
    def may_end_a_wait(self) -> bool:
        """Tell whether held lines may have waited for this: money moved, or a line is held now and
        what it waits for may have come meanwhile.
        """
        return bool(self.postings) or any(one.outcome == Outcome.HELD for one in self.results)


def settle(
    lines: Sequence[Line | UnreadableLine],
    instruments: Mapping[UUID, Instrument],
    known: Known,
    context: Context,
) -> Settlement:
    """Settle lines in the order given; splitting the list anywhere comes to the same.

    Shapes:  ``instruments`` only those found; they and ``known`` are not changed.
    Returns: one result per line, in the same order.
    Raises:  nothing: every doubt is an outcome.
    """
    fold = _Fold(instruments, known, context)
    for line in lines:
        if isinstance(line, UnreadableLine):  # row 1
            fold.quarantine(line)
        else:
            fold.take(line)
    return fold.settlement


def hold_back(line: Line, known: Known, context: Context) -> Settlement:
    """Hold a line that cannot be posted, whatever the rules say of it: it must stop no other."""
    fold = _Fold({}, known, context)
    judgement = Judgement(Outcome.HELD, (Code.UNPOSTABLE,), lock_effect=LockEffect.KEPT)
    fold.settlement.results.append(fold.apply(line, None, judgement))
    if line.place is not None:
        fold.arrive(line.place)
    return fold.settlement


def conclude(
    lines: Sequence[Line],
    instruments: Mapping[UUID, Instrument],
    known: Known,
    context: Context,
) -> Settlement | dict[int, OnlineRefusal]:
    """Conclude the lines of one sale online, all or none.

    Returns: the settlement; or, by place in ``lines``, why which of them are refused.
    """
    fold = _Fold(instruments, known, context)
    refusals = {}
    for place, line in enumerate(lines):
        instrument = fold.current(line.instrument_id)
        judgement = judge(line, instrument, fold.known, context)
        refusal = refusal_online(judgement, line, instrument)
        if refusal is None:
            fold.settlement.results.append(fold.apply(line, instrument, judgement))
        else:
            refusals[place] = refusal
    return refusals or fold.settlement


def apply_held(
    line: Line,
    instruments: Mapping[UUID, Instrument],
    known: Known,
    context: Context,
    *,
    under: BusinessKey | None,
) -> Settlement | None:
    """Post a held line after all, by funding and doubts alone. None if that cannot be: a void, an
    instrument that is not there, in another currency or closed to credits, or a linked refund
    whose original was voided meanwhile, or whose own key is taken: nobody would find it beside its
    original.

    ``under`` is the business key of HQ's own that the posting gets when the line's is taken.
    """
    fold = _Fold(instruments, known, context)
    instrument = fold.current(line.instrument_id)
    if instrument is None or instrument.currency != line.currency or line.is_void:
        return None
    if line.original is not None and (under is not None or line.original in known.voided):
        return None
    judgement = fund(line, instrument, fold.known, context)
    if not judgement.posts:
        return None
    judgement = replace(judgement, codes=(*judgement.codes, Code.APPLIED_BY_HAND))
    fold.resolution_key = under
    fold.settlement.results.append(fold.apply(line, instrument, judgement))
    return fold.settlement


# What becomes of an instrument that is worth nothing when money comes back to it: a used memo is
# good again for what was redeemed (its remainder stays another memo); what nobody may spend is kept
# until somebody decides.
_HOLDS_MONEY_AS: Mapping[str, str] = {
    InstrumentStatus.APPLIED: InstrumentStatus.ACTIVE,
    InstrumentStatus.CLOSED: InstrumentStatus.BLOCKED,
    InstrumentStatus.PENDING: InstrumentStatus.BLOCKED,
}
_BEFORE_ITS_ISSUE: Mapping[str, str] = {InstrumentStatus.ACTIVE: InstrumentStatus.PENDING}
_ISSUE_AND_ITS_REVERSAL = 2
"""The version of an instrument on which nothing else was ever posted."""


class _Fold:
    """The working copies of one settlement."""

    def __init__(
        self, instruments: Mapping[UUID, Instrument], known: Known, context: Context
    ) -> None:
        self.before = instruments
        self.known = known.copy()
        self.context = context
        self.settlement = Settlement()
        self.resolution_key: BusinessKey | None = None

    def current(self, instrument_id: UUID) -> Instrument | None:
        """Return the instrument as the lines so far have left it."""
        return self.settlement.instruments.get(instrument_id) or self.before.get(instrument_id)

    def own(self, instrument: Instrument) -> Instrument:
        """Return the working copy of an instrument that is going to be changed."""
        instrument_id = instrument.instrument_id
        working = self.settlement.instruments.get(instrument_id)
        if working is None:
            working = self.settlement.instruments[instrument_id] = instrument.copy()
        return working

    def quarantine(self, line: UnreadableLine) -> None:
        """Count a line that nobody can read; its place in the journal has arrived all the same."""
        case_id = case_id_of_unreadable(line, self.context.batch_id)
        self.settlement.results.append(
            LineResult(Outcome.QUARANTINED, (Code.UNREADABLE,), case_id=case_id)
        )
        if line.place is not None and self.speaks_for(line.store_id, line.place):
            self.arrive(line.place)

    def take(self, line: Line) -> None:
        """Judge one line and apply the judgement to the working copies."""
        instrument = self.current(line.instrument_id)
        judgement = judge(line, instrument, self.known, self.context)
        if self.may_be_a_repeat(line):
            # It makes no key known, so only its place tells it from a new one.
            judgement = replace(judgement, lock_effect=LockEffect.NONE)
        self.settlement.results.append(self.apply(line, instrument, judgement))
        if line.place is not None and judgement.outcome is not Outcome.QUARANTINED:
            self.arrive(line.place)

    def may_be_a_repeat(self, line: Line) -> bool:
        """Tell whether a release may have come before, and frees another lock than it meant to.

        One that names its lock cannot: that lock ends once.
        """
        is_unnamed = line.operation == Operation.RELEASE and line.lock_id is None
        return is_unnamed and self.has_arrived(line.place)

    def speaks_for(self, store_id: str, place: Place) -> bool:
        """Tell whether the sender may speak for the terminal of a place."""
        return (store_id, place.terminal_id) in self.context.terminals

    def has_arrived(self, place: Place | None) -> bool:
        """Tell whether a number of a journal arrived before."""
        if place is None:
            return False
        journal = self.known.journals.get((place.terminal_id, place.journal_id))
        return journal is not None and place.sequence in journal

    def arrive(self, place: Place) -> None:
        """Note that a number of a journal has arrived."""
        name = (place.terminal_id, place.journal_id)
        journal = self.known.journals.get(name)
        if journal is None:
            journal = self.known.journals[name] = Journal()
        if journal.add(place.sequence):
            self.settlement.journals[name] = journal

    def apply(self, line: Line, instrument: Instrument | None, judgement: Judgement) -> LineResult:
        """Carry out a judgement; a duplicate is answered with the result that it repeats."""
        result = self.result_of(line, judgement)
        if instrument is None and judgement.posts:
            instrument = granted_issue(line, self.context.grant(line))
            assert instrument is not None  # nothing else is posted on an unknown instrument
            self.settlement.created[instrument.instrument_id] = instrument
        if judgement.voids:
            self.void(line, result)
        if instrument is not None:
            if judgement.posts:
                self.post(line, self.own(instrument), judgement, result)
            elif judgement.reverses is not None:
                self.undo(line, self.own(instrument), judgement, result)
            if judgement.lock_effect is LockEffect.RELEASED:
                self.release(line, self.current(line.instrument_id) or instrument)
        if judgement.posts or judgement.outcome is Outcome.HELD:
            self.known.results.setdefault(line.key, {})[line.content] = result
        return result

    def result_of(self, line: Line, judgement: Judgement) -> LineResult:
        """Return what is answered for a line."""
        if judgement.original is not None:
            return judgement.original.repeated()
        result = LineResult(
            judgement.outcome,
            judgement.codes,
            judgement.funded_minor,
            judgement.shortfall_minor,
            undone=judgement.reverses,
        )
        if not result.needs_case:
            return result
        if judgement.outcome is Outcome.QUARANTINED:
            result.case_id = case_id_of_quarantined(line.key, line.content)
        elif judgement.reverses is not None:
            result.case_id = case_id_of_void(line.key, judgement.reverses)
        else:
            result.case_id = case_id_of(line.key, line.content)
        return result

    def post(
        self, line: Line, instrument: Instrument, judgement: Judgement, result: LineResult
    ) -> None:
        """Write the posting; spend the lock it names; split a memo that was used in part."""
        sign = -1 if line.operation in DEBITS else 1
        entry = Entry.ORIGINAL if self.resolution_key is None else Entry.RESOLUTION
        self.book(line, instrument, entry, sign * judgement.funded_minor, judgement)
        if judgement.lock_id is not None:
            spent = (instrument.instrument_id, judgement.lock_id)
            self.known.consumed_locks[spent] = line.key
        lock = instrument.lock
        if lock is not None and lock.lock_id == judgement.lock_id:
            instrument.lock = None
            self.settlement.freed_locks.append((instrument.instrument_id, lock))
        if line.operation in CREDITS and instrument.status == InstrumentStatus.PENDING:
            instrument.status = InstrumentStatus.ACTIVE
        if line.operation in DEBITS and instrument.kind == Kind.CREDIT_MEMO:
            # One that gave nothing was not used, and one that another holds a grant on is theirs.
            is_theirs = is_reserved_for_another(instrument, line.key, self.context)
            if judgement.funded_minor and not is_theirs:
                self.use_credit_memo(line, instrument, result)
        if line.original is not None:
            refunded_minor = self.known.refunded_minor.get(line.original, 0)
            self.known.refunded_minor[line.original] = refunded_minor + line.amount_minor
        result.balance_after_minor = instrument.balance_minor

    def book(
        self,
        line: Line,
        instrument: Instrument,
        entry: Entry,
        change_minor: int,
        judgement: Judgement | None = None,
        related_instrument_id: UUID | None = None,
    ) -> None:
        """Change the balance and append the posting that says so."""
        instrument.balance_minor += change_minor
        instrument.version += 1
        shortfall_minor = judgement.shortfall_minor + judgement.cancelled_minor if judgement else 0
        self.settlement.postings.append(
            Posting(
                instrument_id=instrument.instrument_id,
                version=instrument.version,
                key=self.resolution_key or line.key,
                entry=entry,
                operation=line.operation,
                currency=instrument.currency,
                amount_minor=abs(change_minor) + shortfall_minor,
                funded_minor=abs(change_minor),
                shortfall_minor=shortfall_minor,
                change_minor=change_minor,
                balance_after_minor=instrument.balance_minor,
                codes=judgement.codes if judgement else (),
                posted_at=self.context.now,
                concluded_at=line.concluded_at,
                lock_id=judgement.lock_id if judgement else None,
                locked_at=judgement.locked_at if judgement else None,
                original=line.key if self.resolution_key else line.original,
                related_instrument_id=related_instrument_id,
                tender=line.tender,
            )
        )

    def undo(
        self, line: Line, instrument: Instrument, judgement: Judgement, result: LineResult
    ) -> None:
        """Write the reversing posting of a voided key.

        What was voided while it was short leaves nothing to decide: its case is closed.
        """
        undone = judgement.reverses
        assert undone is not None  # the caller looked
        sign = 1 if undone.operation in DEBITS else -1
        reversal = replace(line, operation=undone.operation, original=undone.original, tender=None)
        self.book(reversal, instrument, Entry.REVERSAL, sign * judgement.funded_minor, judgement)
        if judgement.restored_minor:
            self.book(reversal, instrument, Entry.REMAINDER_IN, judgement.restored_minor)
        if instrument.balance_minor:
            instrument.status = _HOLDS_MONEY_AS.get(instrument.status, instrument.status)
        is_unused = instrument.version == _ISSUE_AND_ITS_REVERSAL and not instrument.balance_minor
        if undone.operation == Operation.ISSUE and is_unused:
            instrument.status = _BEFORE_ITS_ISSUE.get(instrument.status, instrument.status)
        if undone.original is not None:
            self.known.refunded_minor[undone.original] = (
                self.known.refunded_minor.get(undone.original, 0) - undone.amount_minor
            )
        result.balance_after_minor = instrument.balance_minor

    def void(self, line: Line, result: LineResult) -> None:
        """Remember that a key shall have no effect; what it left to decide is decided thereby."""
        self.known.voided[line.key] = result
        self.settlement.voids.append(
            Void(
                line.key,
                line.instrument_id,
                line.reason or line.status,
                self.context.now,
                self.context.actor,
            )
        )
        for told in self.known.results.get(line.key, {}).values():
            if told.case_id is not None:
                self.settlement.closed_cases[told.case_id] = told.outcome

    def use_credit_memo(self, line: Line, memo: Instrument, result: LineResult) -> None:
        """Mark a memo as used; what is left of it goes where the parameter says.

        Source: a credit memo can be used only one time; for the rest the system issues a new
        credit memo with a new number (Dynamics, payment methods).
        """
        if memo.status == InstrumentStatus.APPLIED:
            return
        status = memo.status
        partial_use = self.context.parameters.credit_memo_partial_use
        # One that has a remainder already keeps the rest: the old number leads to one memo only.
        if memo.balance_minor and (partial_use == "retain" or memo.remainder_id is not None):
            return
        memo.status = InstrumentStatus.APPLIED
        remaining_minor = memo.balance_minor
        if not remaining_minor:
            return
        if partial_use == "forfeit":
            self.book(line, memo, Entry.REMAINDER_OUT, -remaining_minor)
            result.forfeited_minor = remaining_minor
            return
        number = self.context.keyring.remainder_number_for(self.resolution_key or line.key)
        remainder = newborn(
            self.context.keyring.instrument_id(Kind.CREDIT_MEMO, number),
            Kind.CREDIT_MEMO,
            memo.currency,
            last4(number),
        )
        # A blocked memo does not become a good one by being used in part.
        is_doubtful = status in (InstrumentStatus.BLOCKED, InstrumentStatus.EXPIRED)
        remainder.status = status if is_doubtful else InstrumentStatus.ACTIVE
        remainder_id = remainder.instrument_id
        self.book(
            line,
            memo,
            Entry.REMAINDER_OUT,
            -remaining_minor,
            related_instrument_id=remainder_id,
        )
        self.book(
            line,
            remainder,
            Entry.REMAINDER_IN,
            remaining_minor,
            related_instrument_id=memo.instrument_id,
        )
        memo.remainder_id = remainder_id
        result.remainder_id = remainder_id
        self.settlement.created[remainder_id] = remainder
        self.settlement.instruments[remainder_id] = remainder

    def release(self, line: Line, instrument: Instrument) -> None:
        """End the own lock, if it was taken for this very line and is the one that it names.

        A repeated old line must not free a lock that the same transaction took later.
        """
        lock = instrument.lock
        if lock is None or lock.key != line.key or line.lock_id not in (None, lock.lock_id):
            return
        self.own(instrument).lock = None
        end = LockEnd.VOIDED if line.key in self.known.voided else LockEnd.RELEASED
        self.settlement.ended_locks.append(
            EndedLock(instrument.instrument_id, lock, end, self.context.now, self.context.actor)
        )
        self.settlement.freed_locks.append((instrument.instrument_id, lock))
        owner = (instrument.instrument_id, *line.key[:3])
        self.known.gone_locks.setdefault(owner, []).append(gone_lock(lock, end))
