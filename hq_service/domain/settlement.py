"""The heart: what becomes of a line, and what that does to its instrument.

`judge` decides one line, one rule per line of code, in the order of precedence; `settle` is the
fold over many. Both are pure. Online, a line is a batch of one and its refusals are values of
`refusal_online`. The rules in words: ``docs/settlement.md``.

Two convictions: an offline line is a fact, it is never rejected and never lost (doubt about
funding posts now, with a shortfall and a case; doubt about existence holds the line); and nothing
is clamped (a balance never goes below zero and a shortfall never disappears).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from hq_service.domain.grants import Grant
from hq_service.domain.keyring import Keyring
from hq_service.domain.locking import is_past_horizon
from hq_service.domain.model import (
    CREDITS,
    DEBITS,
    BusinessKey,
    Content,
    EndedLock,
    Entry,
    Instrument,
    InstrumentStatus,
    Kind,
    Line,
    Lock,
    LockEnd,
    Operation,
    Posting,
    Terminal,
    TransactionStatus,
    UnreadableLine,
)
from hq_service.domain.numbers import last4
from hq_service.domain.parameters import Parameters


class Outcome(StrEnum):
    """What became of one line. There is no "rejected"."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    HELD = "held"
    QUARANTINED = "quarantined"


class Code(StrEnum):
    """What else there is to say of an outcome: a closed list."""

    UNREADABLE = "unreadable"
    FOREIGN_TERMINAL = "foreign_terminal"
    VOIDED = "voided"
    BUSINESS_KEY_REUSED = "business_key_reused"
    UNKNOWN_INSTRUMENT = "unknown_instrument"
    CURRENCY_MISMATCH = "currency_mismatch"
    LOCK_ALREADY_USED = "lock_already_used"
    OVER_GRANT = "over_grant"
    STALE_LOCK = "stale_lock"
    LOCK_BROKEN = "lock_broken"
    LOCK_RECONSTRUCTED = "lock_reconstructed"
    NO_LOCK = "no_lock"
    GRANT_INVALID = "grant_invalid"
    CONTENDED = "contended"
    INSTRUMENT_BLOCKED = "instrument_blocked"
    INSTRUMENT_EXPIRED = "instrument_expired"
    INSTRUMENT_CLOSED = "instrument_closed"
    INSTRUMENT_APPLIED = "instrument_applied"
    OFFLINE_NOT_PERMITTED = "offline_not_permitted"
    TOO_OLD = "too_old"
    CLOCK_SKEW = "clock_skew"
    SEQUENCE_REUSED = "sequence_reused"


CASE_CODES = frozenset(
    {
        Code.OVER_GRANT,
        Code.LOCK_BROKEN,
        Code.NO_LOCK,
        Code.CONTENDED,
        Code.OFFLINE_NOT_PERMITTED,
        Code.GRANT_INVALID,
        Code.SEQUENCE_REUSED,
        Code.INSTRUMENT_BLOCKED,
        Code.INSTRUMENT_EXPIRED,
        Code.INSTRUMENT_CLOSED,
        Code.INSTRUMENT_APPLIED,
    }
)
"""The codes that leave a question for an administrator, also when the line is fully funded."""


class LockEffect(StrEnum):
    """What a judgement does to the line's own lock."""

    NONE = "none"
    KEPT = "kept"
    RELEASED = "released"
    CONSUMED = "consumed"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one line comes to.

    ``original`` is set for duplicates: the result they repeat. ``lock_id`` and ``locked_at`` name
    the lock that the posting spends, live or gone: one lock funds one line.
    """

    outcome: Outcome
    codes: tuple[str, ...] = ()
    funded_minor: int = 0
    shortfall_minor: int = 0
    lock_effect: LockEffect = LockEffect.NONE
    posts: bool = False
    lock_id: UUID | None = None
    locked_at: datetime | None = None
    original: LineResult | None = None


@dataclass(slots=True)
class LineResult:
    """What is answered for one line, and told again when the line is repeated."""

    outcome: str
    codes: tuple[str, ...] = ()
    funded_minor: int = 0
    shortfall_minor: int = 0
    balance_after_minor: int | None = None
    case_id: UUID | None = None
    remainder_id: UUID | None = None
    original_outcome: str | None = None

    @property
    def needs_case(self) -> bool:
        """Tell whether the line leaves a question for an administrator."""
        return (
            self.outcome in (Outcome.HELD, Outcome.QUARANTINED)
            or self.shortfall_minor > 0
            or not CASE_CODES.isdisjoint(self.codes)
        )


@dataclass(frozen=True, slots=True)
class GoneLock:
    """A lock of the line's transaction that ended otherwise than by a posting."""

    lock_id: UUID
    locked_at: datetime
    end: str
    grant_until: datetime | None
    grant_revision: int | None


@dataclass(slots=True)
class Known:
    """What HQ knows of the keys and locks that a chunk names, read after its row locks.

    Shapes: ``results`` key -> content -> result, postings and held lines alike; ``voided`` keys
    that shall have no effect; ``gone_locks`` (instrument, store, terminal, transaction) -> how its
    locks ended, oldest first; ``consumed_locks`` lock id -> the key that spent it.
    """

    results: dict[BusinessKey, dict[Content, LineResult]] = field(default_factory=dict)
    voided: set[BusinessKey] = field(default_factory=set)
    gone_locks: dict[tuple[UUID, str, str, str], list[GoneLock]] = field(default_factory=dict)
    consumed_locks: dict[UUID, BusinessKey] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """Everything else a judgement depends on; the same for a whole batch, so that a batch cut
    anywhere and finished later comes to the same.

    ``received_at`` is when HQ received the lines and what they are judged by; ``now`` is when they
    are posted. ``terminals`` are those the sender may speak for. ``parameters_at`` holds the
    store's parameters by revision.
    """

    received_at: datetime
    now: datetime
    parameters: Parameters
    terminals: Mapping[tuple[str, str], Terminal]
    parameters_at: Mapping[int, Parameters]
    keyring: Keyring
    actor: str
    is_offline: bool = True


def judge(line: Line, instrument: Instrument | None, known: Known, context: Context) -> Judgement:
    """Decide what one readable line comes to. Numbers are the rows of ``docs/settlement.md``.

    Shapes:  ``instrument`` as it is when this line's turn comes, None if HQ does not know it.
    Returns: exactly one of the first rules; otherwise one way of funding, plus the doubts.
    Source:  documents "Seamless offline switch" (synchronising also unlocks the card);
             ``docs/settlement.md`` gives the source of each row.
    """
    key = line.key
    if (key.store_id, key.terminal_id) not in context.terminals:  # 1
        return Judgement(Outcome.QUARANTINED, (Code.FOREIGN_TERMINAL,))
    if line.status == TransactionStatus.TRAINING:  # 5: never moves money, still counted
        return Judgement(Outcome.APPLIED)
    if line.status == TransactionStatus.SUSPENDED:  # 5
        return Judgement(Outcome.APPLIED, lock_effect=LockEffect.KEPT)
    if line.operation == Operation.RELEASE:  # 5
        return Judgement(Outcome.APPLIED, lock_effect=LockEffect.RELEASED)
    results = known.results.get(key)
    if results:
        original = results.get(line.content)
        if original is not None:  # 2
            return Judgement(Outcome.DUPLICATE, lock_effect=LockEffect.RELEASED, original=original)
        return Judgement(Outcome.HELD, (Code.BUSINESS_KEY_REUSED,))  # 3
    if key in known.voided:  # 4
        return Judgement(Outcome.APPLIED, (Code.VOIDED,), lock_effect=LockEffect.RELEASED)
    if instrument is None:  # 6
        return Judgement(Outcome.HELD, (Code.UNKNOWN_INSTRUMENT,))
    if instrument.currency != line.currency:  # 7
        return Judgement(Outcome.HELD, (Code.CURRENCY_MISMATCH,), lock_effect=LockEffect.KEPT)
    grant = context.keyring.grant(line.grant, key) if line.grant else None
    named_lock_id = line.lock_id or (grant.lock_id if grant else None)
    spent_by = known.consumed_locks.get(named_lock_id) if named_lock_id else None
    if spent_by is not None and spent_by != key:  # 10
        return Judgement(Outcome.HELD, (Code.LOCK_ALREADY_USED,))
    return _fund(line, instrument, _proof(line, instrument, grant, known, context), context)


@dataclass(frozen=True, slots=True)
class _Proof:
    """What a line can show for itself: a lock that lives, one that is gone, a grant, or nothing.

    ``until`` and ``revision`` are those of the grant that went with the lock; None without one.
    """

    code: str | None = None
    own: Lock | None = None
    lock_id: UUID | None = None
    locked_at: datetime | None = None
    until: datetime | None = None
    revision: int | None = None


def _proof(
    line: Line, instrument: Instrument, grant: Grant | None, known: Known, context: Context
) -> _Proof:
    """Return which of rows 8, 11, 12 and 13 is the line's (9 is 8 above the lock's amount)."""
    own = own_lock(instrument, line.key, context)
    if own is not None:  # 8
        return _Proof(None, own, own.lock_id, own.locked_at, own.grant_until, own.grant_revision)
    gone = _gone_lock(line, instrument, known)
    if gone is not None:  # 11
        code = Code.LOCK_BROKEN if gone.end == LockEnd.BROKEN else Code.STALE_LOCK
        return _Proof(
            code, None, gone.lock_id, gone.locked_at, gone.grant_until, gone.grant_revision
        )
    if grant is not None and _covers(grant, line):  # 12
        return _Proof(
            Code.LOCK_RECONSTRUCTED,
            None,
            grant.lock_id,
            grant.issued_at,
            grant.until,
            grant.revision,
        )
    return _Proof(Code.NO_LOCK)  # 13


def _covers(grant: Grant, line: Line) -> bool:
    """Tell whether a grant is for this line's transaction and instrument."""
    return (
        grant.key[:3] == line.key[:3]
        and grant.instrument_id == line.instrument_id
        and grant.currency == line.currency
    )


def _fund(line: Line, instrument: Instrument, proof: _Proof, context: Context) -> Judgement:
    """Fund a line that is going to be posted, and add every doubt of rows 14 to 16."""
    codes: list[str] = []
    if proof.code is not None:
        codes.append(proof.code)
    elif proof.own is not None and line.amount_minor > proof.own.amount_minor:  # 9
        codes.append(Code.OVER_GRANT)
    status_code = _STATUS_CODES.get(instrument.status)
    if line.operation in CREDITS and status_code in _CLOSED_TO_CREDITS:
        return Judgement(Outcome.HELD, (status_code,), lock_effect=LockEffect.KEPT)
    if context.is_offline:
        codes += _grant_doubts(line, context)
    if _is_reserved_for_another(instrument, line.key, context):  # 14
        codes.append(Code.CONTENDED)
    if status_code is not None:  # 15
        codes.append(status_code)
    if context.is_offline:
        codes += _doubts_of_permission_and_time(line, instrument, proof, context)
    funded_minor = line.amount_minor
    if line.operation in DEBITS:
        funded_minor = min(line.amount_minor, available_minor(instrument, line.key, context))
    return Judgement(
        Outcome.APPLIED,
        tuple(codes),
        funded_minor=funded_minor,
        shortfall_minor=line.amount_minor - funded_minor,
        lock_effect=LockEffect.CONSUMED if proof.own else LockEffect.NONE,
        posts=True,
        lock_id=proof.lock_id,
        locked_at=proof.locked_at,
    )


_STATUS_CODES: Mapping[str, str] = {
    InstrumentStatus.BLOCKED: Code.INSTRUMENT_BLOCKED,
    InstrumentStatus.EXPIRED: Code.INSTRUMENT_EXPIRED,
    InstrumentStatus.CLOSED: Code.INSTRUMENT_CLOSED,
    InstrumentStatus.APPLIED: Code.INSTRUMENT_APPLIED,
}
_CLOSED_TO_CREDITS = frozenset(
    {Code.INSTRUMENT_EXPIRED, Code.INSTRUMENT_CLOSED, Code.INSTRUMENT_APPLIED}
)
_WORTH_NOTHING = frozenset({InstrumentStatus.CLOSED, InstrumentStatus.APPLIED})


def own_lock(instrument: Instrument, key: BusinessKey, context: Context) -> Lock | None:
    """Return the live lock if it is the key's own: active, suspect, or lapsed and untaken."""
    lock = instrument.lock
    if lock is None or not lock.belongs_to(key):
        return None
    return None if is_past_horizon(lock, context.parameters, context.received_at) else lock


def available_minor(instrument: Instrument, key: BusinessKey, context: Context) -> int:
    """Return what a debit may take: the balance less what another's granted lock reserves."""
    if instrument.status in _WORTH_NOTHING:
        return 0
    if not _is_reserved_for_another(instrument, key, context):
        return instrument.balance_minor
    lock = instrument.lock
    reserved_minor = lock.amount_minor if lock is not None and lock.purpose in DEBITS else 0
    return max(0, instrument.balance_minor - reserved_minor)


def _is_reserved_for_another(instrument: Instrument, key: BusinessKey, context: Context) -> bool:
    lock = instrument.lock
    if lock is None or lock.grant_until is None or lock.belongs_to(key):
        return False
    return not is_past_horizon(lock, context.parameters, context.received_at)


def _gone_lock(line: Line, instrument: Instrument, known: Known) -> GoneLock | None:
    """Return how the transaction's lock ended: the one that the line names, else the last."""
    key = line.key
    gone = [
        one
        for one in known.gone_locks.get((instrument.instrument_id, *key[:3]), ())
        if known.consumed_locks.get(one.lock_id, key) == key
    ]
    if gone:
        return next((one for one in gone if one.lock_id == line.lock_id), gone[-1])
    lock = instrument.lock
    if lock is not None and lock.belongs_to(key):  # live on its row, but its horizon has passed
        return GoneLock(
            lock.lock_id, lock.locked_at, LockEnd.HORIZON, lock.grant_until, lock.grant_revision
        )
    return None


def _grant_doubts(line: Line, context: Context) -> list[str]:
    """Return the code for a grant that fails its check: it counts as absent, and is told."""
    if line.grant is None:
        return []
    grant = context.keyring.grant(line.grant, line.key)
    return [] if grant is not None and _covers(grant, line) else [Code.GRANT_INVALID]


def _doubts_of_permission_and_time(
    line: Line, instrument: Instrument, proof: _Proof, context: Context
) -> list[str]:
    """Return the codes of row 16; none of them changes the funding."""
    codes: list[str] = []
    if not _is_permitted_offline(line, instrument, proof, context):
        codes.append(Code.OFFLINE_NOT_PERMITTED)
    concluded_at = line.concluded_at
    if concluded_at is None:
        return codes
    limits = context.parameters
    oldest = context.received_at - timedelta(hours=limits.offline_age_hours_max)
    if concluded_at < oldest or (proof.until is not None and concluded_at > proof.until):
        codes.append(Code.TOO_OLD)
    if concluded_at > context.received_at + timedelta(seconds=limits.clock_skew_seconds_max):
        codes.append(Code.CLOCK_SKEW)
    return codes


def _is_permitted_offline(
    line: Line, instrument: Instrument, proof: _Proof, context: Context
) -> bool:
    """Judge permission by the revision the line claims, if it was served to that terminal and is
    not older than the grant's; else by the grant's; without a grant: not permitted.
    """
    if proof.revision is None:
        return False
    revision = proof.revision
    claimed = line.parameter_revision
    terminal = context.terminals[(line.key.store_id, line.key.terminal_id)]
    if claimed is not None and claimed >= revision and claimed in terminal.served_revisions:
        revision = claimed
    parameters = context.parameters_at.get(revision)
    return parameters is not None and parameters.allows_concluding_offline(instrument.kind)


class OnlineRefusal(StrEnum):
    """Why an online command is refused; nothing is written then. Problem codes of the same name."""

    VOIDED = "voided"
    BUSINESS_KEY_REUSED = "business_key_reused"
    HELD = "held"
    INSTRUMENT_NOT_FOUND = "instrument_not_found"
    CURRENCY_MISMATCH = "currency_mismatch"
    LOCK_LOST = "lock_lost"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    INSTRUMENT_BLOCKED = "instrument_blocked"
    INSTRUMENT_EXPIRED = "instrument_expired"
    INSTRUMENT_CLOSED = "instrument_closed"
    INSTRUMENT_APPLIED = "instrument_applied"


def refusal_online(
    judgement: Judgement, line: Line, instrument: Instrument | None
) -> OnlineRefusal | None:
    """Return why an online command is refused, None if it stands: row 2, or row 8 in full.

    The lock that the command names must be the live one: it is the fencing token.

    A stale online command is refused because its sender is there to be told; the same line in an
    offline batch is a fact.
    """
    codes = judgement.codes
    lock = instrument.lock if instrument is not None else None
    if line.operation == Operation.RELEASE:
        is_own = lock is not None and lock.lock_id == line.lock_id and lock.key == line.key
        return None if is_own else OnlineRefusal.LOCK_LOST
    if judgement.outcome is Outcome.DUPLICATE:
        is_posted = judgement.original is not None and (
            judgement.original.outcome == Outcome.APPLIED
        )
        return None if is_posted else OnlineRefusal.HELD
    for code, refusal in _REFUSAL_OF_CODE.items():
        if code in codes:
            return refusal
    if judgement.lock_effect is not LockEffect.CONSUMED or lock is None:
        return OnlineRefusal.LOCK_LOST
    if lock.lock_id != line.lock_id or lock.purpose != line.operation:
        return OnlineRefusal.LOCK_LOST
    if judgement.shortfall_minor or Code.OVER_GRANT in codes:
        return OnlineRefusal.INSUFFICIENT_BALANCE
    return None


_REFUSAL_OF_CODE: Mapping[str, OnlineRefusal] = {
    Code.VOIDED: OnlineRefusal.VOIDED,
    Code.BUSINESS_KEY_REUSED: OnlineRefusal.BUSINESS_KEY_REUSED,
    Code.UNKNOWN_INSTRUMENT: OnlineRefusal.INSTRUMENT_NOT_FOUND,
    Code.CURRENCY_MISMATCH: OnlineRefusal.CURRENCY_MISMATCH,
    Code.INSTRUMENT_BLOCKED: OnlineRefusal.INSTRUMENT_BLOCKED,
    Code.INSTRUMENT_EXPIRED: OnlineRefusal.INSTRUMENT_EXPIRED,
    Code.INSTRUMENT_CLOSED: OnlineRefusal.INSTRUMENT_CLOSED,
    Code.INSTRUMENT_APPLIED: OnlineRefusal.INSTRUMENT_APPLIED,
}


def case_id_of(key: BusinessKey, content: Content) -> UUID:
    """Return the id of the case of a line: the same line makes no second case."""
    original = list(content.original) if content.original else None
    fields = [*key, content.operation, content.instrument_id.hex, content.amount_minor]
    text = json.dumps(["case", *fields, content.currency, original])
    return UUID(bytes=hashlib.sha256(text.encode("utf-8")).digest()[:16])


def case_id_of_unreadable(line: UnreadableLine) -> UUID:
    """Return the id of the case of a line that could not be read: its masked text is all it has."""
    text = json.dumps(["unreadable", line.store_id, line.masked_text])
    return UUID(bytes=hashlib.sha256(text.encode("utf-8")).digest()[:16])


@dataclass(slots=True)
class Settlement:
    """What a fold did, ready to be stored.

    Shapes: ``results`` in the order of the lines given; ``instruments`` only those that changed,
    as they are afterwards; ``created`` are new ones.
    """

    results: list[LineResult] = field(default_factory=list)
    postings: list[Posting] = field(default_factory=list)
    instruments: dict[UUID, Instrument] = field(default_factory=dict)
    created: dict[UUID, Instrument] = field(default_factory=dict)
    ended_locks: list[EndedLock] = field(default_factory=list)
    freed_locks: list[tuple[UUID, Lock]] = field(default_factory=list)


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
        if isinstance(line, UnreadableLine):  # 1
            case_id = case_id_of_unreadable(line)
            fold.settlement.results.append(
                LineResult(Outcome.QUARANTINED, (Code.UNREADABLE,), case_id=case_id)
            )
        else:
            fold.take(line)
    return fold.settlement


def conclude(
    line: Line, instrument: Instrument | None, known: Known, context: Context
) -> Settlement | OnlineRefusal:
    """Conclude one line online: a settlement of one, or the reason why it is refused."""
    judgement = judge(line, instrument, known, context)
    refusal = refusal_online(judgement, line, instrument)
    if refusal is not None:
        return refusal
    found = {instrument.instrument_id: instrument} if instrument is not None else {}
    fold = _Fold(found, known, context)
    fold.settlement.results.append(fold.apply(line, instrument, judgement))
    return fold.settlement


class _Fold:
    """The working copies of one settlement."""

    def __init__(
        self, instruments: Mapping[UUID, Instrument], known: Known, context: Context
    ) -> None:
        self.before = instruments
        self.known = Known(
            results={key: dict(results) for key, results in known.results.items()},
            voided=set(known.voided),
            gone_locks={owner: list(gone) for owner, gone in known.gone_locks.items()},
            consumed_locks=dict(known.consumed_locks),
        )
        self.context = context
        self.settlement = Settlement()

    def current(self, instrument_id: UUID) -> Instrument | None:
        """Return the instrument as the lines so far have left it."""
        return self.settlement.instruments.get(instrument_id) or self.before.get(instrument_id)

    def take(self, line: Line) -> None:
        """Judge one line and apply the judgement to the working copies."""
        instrument = self.current(line.instrument_id)
        judgement = judge(line, instrument, self.known, self.context)
        self.settlement.results.append(self.apply(line, instrument, judgement))

    def apply(self, line: Line, instrument: Instrument | None, judgement: Judgement) -> LineResult:
        """Carry out a judgement; a duplicate is answered with the result that it repeats."""
        if judgement.original is not None:
            result = replace(
                judgement.original,
                outcome=judgement.outcome,
                original_outcome=judgement.original.outcome,
            )
        else:
            result = LineResult(
                judgement.outcome,
                judgement.codes,
                judgement.funded_minor,
                judgement.shortfall_minor,
            )
            if result.needs_case:
                result.case_id = case_id_of(line.key, line.content)
        if instrument is not None:
            changed = self.working_copy(instrument)
            if judgement.posts:
                self.post(line, changed, judgement, result)
            elif judgement.lock_effect is LockEffect.RELEASED:
                self.release(line, changed)
            if changed != instrument:
                self.settlement.instruments[changed.instrument_id] = changed
        if judgement.posts or judgement.outcome is Outcome.HELD:
            self.known.results.setdefault(line.key, {})[line.content] = result
        return result

    def working_copy(self, instrument: Instrument) -> Instrument:
        """Return a copy to change, or the one that this settlement already made."""
        mine = self.settlement.instruments.get(instrument.instrument_id)
        return replace(mine or instrument)

    def post(
        self, line: Line, instrument: Instrument, judgement: Judgement, result: LineResult
    ) -> None:
        """Write the posting; spend the lock it names; split a memo that was used in part."""
        sign = -1 if line.operation in DEBITS else 1
        self.book(line, instrument, Entry.ORIGINAL, sign * judgement.funded_minor, judgement)
        if judgement.lock_id is not None:
            self.known.consumed_locks[judgement.lock_id] = line.key
        lock = instrument.lock
        if lock is not None and lock.lock_id == judgement.lock_id:
            instrument.lock = None
            self.settlement.freed_locks.append((instrument.instrument_id, lock))
        if line.operation in CREDITS and instrument.status == InstrumentStatus.PENDING:
            instrument.status = InstrumentStatus.ACTIVE
        if line.operation == Operation.REDEEM and instrument.kind == Kind.CREDIT_MEMO:
            self.use_credit_memo(line, instrument, result)
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
        shortfall_minor = judgement.shortfall_minor if judgement else 0
        self.settlement.postings.append(
            Posting(
                instrument_id=instrument.instrument_id,
                version=instrument.version,
                key=line.key,
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
                original=line.original,
                related_instrument_id=related_instrument_id,
            )
        )

    def use_credit_memo(self, line: Line, memo: Instrument, result: LineResult) -> None:
        """Mark a memo as used; what is left of it goes where the parameter says.

        Source: a credit memo can be used only one time; for the rest the system issues a new
        credit memo with a new number (Dynamics, payment methods).
        """
        if memo.status == InstrumentStatus.APPLIED:
            return
        partial_use = self.context.parameters.credit_memo_partial_use
        if memo.balance_minor and partial_use == "retain":
            return
        memo.status = InstrumentStatus.APPLIED
        remaining_minor = memo.balance_minor
        if not remaining_minor:
            return
        if partial_use == "forfeit":
            self.book(line, memo, Entry.REMAINDER_OUT, -remaining_minor)
            return
        number = self.context.keyring.number_made_for(Kind.CREDIT_MEMO, line.key)
        remainder = Instrument(
            instrument_id=self.context.keyring.instrument_id(Kind.CREDIT_MEMO, number),
            kind=Kind.CREDIT_MEMO,
            currency=memo.currency,
            number_last4=last4(number),
            status=InstrumentStatus.ACTIVE,
            balance_minor=0,
            version=0,
            remainder_id=None,
            lock=None,
        )
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
        instrument.lock = None
        end = LockEnd.VOIDED if line.key in self.known.voided else LockEnd.RELEASED
        self.settlement.ended_locks.append(
            EndedLock(instrument.instrument_id, lock, end, self.context.now, self.context.actor)
        )
        self.settlement.freed_locks.append((instrument.instrument_id, lock))
        owner = (instrument.instrument_id, *line.key[:3])
        self.known.gone_locks.setdefault(owner, []).append(
            GoneLock(lock.lock_id, lock.locked_at, end, lock.grant_until, lock.grant_revision)
        )
