"""The heart: what one line comes to, decided in one place, one rule after the other.

Two convictions: an offline line is a fact, it is never rejected and never lost (doubt about
funding posts now, with a shortfall and a case; doubt about existence holds the line); and nothing
is clamped (a balance never goes below zero and a shortfall never disappears). The rules in words:
``docs/settlement.md``. What a judgement does to the balance: ``settlement.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from hq_service.domain.grants import Grant
from hq_service.domain.journals import Journal
from hq_service.domain.keyring import Keyring
from hq_service.domain.locking import is_past_horizon
from hq_service.domain.model import (
    CREDITS,
    DEBITS,
    BusinessKey,
    Content,
    Instrument,
    InstrumentStatus,
    Kind,
    Line,
    Lock,
    LockEnd,
    Operation,
    Terminal,
    TransactionStatus,
    newborn,
)
from hq_service.domain.money import AMOUNT_MINOR_MAX
from hq_service.domain.outcomes import Code, LineResult, Outcome
from hq_service.domain.parameters import Parameters


class LockEffect(StrEnum):
    """What a judgement does to the line's own lock."""

    NONE = "none"
    KEPT = "kept"
    RELEASED = "released"
    CONSUMED = "consumed"


# Judgement and _Proof are made for every line and never changed: to freeze them would cost more
# than the judging.
@dataclass(slots=True)
class Judgement:
    """What one line comes to.

    ``original`` is set for duplicates: the result they repeat. ``lock_id`` and ``locked_at`` name
    the lock that the posting spends, live or gone: one lock funds one line. ``voids`` says that
    the key shall have no effect; ``reverses`` is the posting that is undone thereby, and
    ``cancelled_minor`` what of its shortfall was still open.
    """

    outcome: Outcome
    codes: tuple[str, ...] = ()
    funded_minor: int = 0
    shortfall_minor: int = 0
    lock_effect: LockEffect = LockEffect.NONE
    posts: bool = False
    voids: bool = False
    lock_id: UUID | None = None
    locked_at: datetime | None = None
    original: LineResult | None = None
    reverses: Content | None = None
    cancelled_minor: int = 0
    restored_minor: int = 0


@dataclass(frozen=True, slots=True)
class GoneLock:
    """A lock of the line's transaction that ended otherwise than by a posting."""

    lock_id: UUID
    locked_at: datetime
    end: str
    grant_until: datetime | None
    grant_revision: int | None
    purpose: str
    amount_minor: int


@dataclass(slots=True)
class Known:
    """What HQ knows of the keys, locks and journals that a chunk names, read after its row locks.

    Shapes: ``results`` key -> content -> result, postings and held lines alike; ``voided`` keys
    that shall have no effect -> what their void came to; ``gone_locks`` (instrument, store,
    terminal, transaction) -> how its locks ended, oldest first; ``consumed_locks`` (instrument,
    lock id) -> the key that spent it: a lock is its instrument's, and says nothing of another;
    ``refunded_minor`` original key -> what linked refunds have given back; ``recovered_minor``
    case -> how much of its shortfall was recovered; ``journals`` (terminal, journal) -> what has
    arrived of it.
    """

    results: dict[BusinessKey, dict[Content, LineResult]] = field(default_factory=dict)
    voided: dict[BusinessKey, LineResult] = field(default_factory=dict)
    gone_locks: dict[tuple[UUID, str, str, str], list[GoneLock]] = field(default_factory=dict)
    consumed_locks: dict[tuple[UUID, UUID], BusinessKey] = field(default_factory=dict)
    refunded_minor: dict[BusinessKey, int] = field(default_factory=dict)
    recovered_minor: dict[UUID, int] = field(default_factory=dict)
    journals: dict[tuple[str, str], Journal] = field(default_factory=dict)

    def copy(self) -> Known:
        """Return knowledge of its own, to go on learning from."""
        return Known(
            results={key: dict(results) for key, results in self.results.items()},
            voided=dict(self.voided),
            gone_locks={owner: list(gone) for owner, gone in self.gone_locks.items()},
            consumed_locks=dict(self.consumed_locks),
            refunded_minor=dict(self.refunded_minor),
            recovered_minor=dict(self.recovered_minor),
            journals={name: journal.copy() for name, journal in self.journals.items()},
        )

    def posted(self, key: BusinessKey) -> tuple[Content, LineResult] | None:
        """Return what was posted under a key, None if nothing was."""
        for content, result in self.results.get(key, {}).items():
            if result.outcome == Outcome.APPLIED:
                return content, result
        return None

    def is_spent(self, instrument_id: UUID, lock_id: UUID, key: BusinessKey) -> bool:
        """Tell whether another key has spent a lock of an instrument."""
        return self.consumed_locks.get((instrument_id, lock_id), key) != key


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
    batch_id: str = ""
    # The same for all lines, so made once: between these two instants a till's clock is believed.
    oldest_at: datetime = field(init=False)
    newest_at: datetime = field(init=False)
    _grants: dict[tuple[str, str, str], Grant | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        age = timedelta(hours=self.parameters.offline_age_hours_max)
        skew = timedelta(seconds=self.parameters.clock_skew_seconds_max)
        object.__setattr__(self, "oldest_at", self.received_at - age)
        object.__setattr__(self, "newest_at", self.received_at + skew)

    def grant(self, line: Line) -> Grant | None:
        """Return the grant that a line shows if HQ signed it for its terminal; verified once."""
        if line.grant is None:
            return None
        shown = (line.grant, line.key.store_id, line.key.terminal_id)
        if shown not in self._grants:
            self._grants[shown] = self.keyring.grant(line.grant, line.key)
        return self._grants[shown]


def judge(line: Line, instrument: Instrument | None, known: Known, context: Context) -> Judgement:
    """Decide what one readable line comes to: exactly one of the first rules, in this order;
    otherwise one way of funding, and every doubt that holds adds its code.

    Shapes:  ``instrument`` as it is when this line's turn comes, None if HQ does not know it.
    Source:  the numbers are the rows of ``docs/settlement.md``.
             1   an unknown or retired register is not lost: Register page, "Support offline"
             V   POS operations 211 and 1221 (void payment, void transaction), in any order
             5   POS operations 503 and 504 (suspend), training mode: TransactionStatus of the POS
             2   at-least-once delivery: save, then purge (POS offline synchronisation)
             3   merging overwrites duplicate transaction ids in Dynamics; here both are kept
             4   V before its line: order does not matter
             6   an unknown card is never created by a sale
             7   GiftCardCurrencyMismatch
             10  one lock, one sale: "cannot be used on multiple terminals at the same time"
             8   "synchronisation will also unlock the gift card"
             9, 11, 12, 13, 14  undocumented in Dynamics: our own, for late and conflicting sales
             15  the card's status is judged, the sale stays a fact
             16  Commerce parameters, tab Posting: "Allow concluding ... in offline mode"
             17  a lock or a grant proves what it was given for, and nothing else
    """
    key = line.key
    if (key.store_id, key.terminal_id) not in context.terminals:  # 1
        return Judgement(Outcome.QUARANTINED, (Code.FOREIGN_TERMINAL,))
    if line.status == TransactionStatus.TRAINING:  # 5: never moves money, still counted
        return Judgement(Outcome.APPLIED)
    if line.is_void:  # V
        return _judge_void(line, instrument, known, context)
    if line.operation == Operation.RELEASE:  # 5
        return Judgement(Outcome.APPLIED, lock_effect=LockEffect.RELEASED)
    if line.status == TransactionStatus.SUSPENDED:  # 5
        return Judgement(Outcome.APPLIED, lock_effect=LockEffect.KEPT)
    results = known.results.get(key)
    if results:
        original = results.get(line.content)
        if original is not None:  # 2
            return Judgement(Outcome.DUPLICATE, lock_effect=LockEffect.RELEASED, original=original)
        return Judgement(Outcome.HELD, (Code.BUSINESS_KEY_REUSED,))  # 3
    if key in known.voided:  # 4
        return Judgement(Outcome.APPLIED, (Code.VOIDED,), lock_effect=LockEffect.RELEASED)
    return judge_funding(line, instrument, known, context)


def may_be_a_repeat(line: Line, journals: Mapping[tuple[str, str], Journal]) -> bool:
    """Tell whether a line is worth being looked up before anything is locked for it: it moves money
    (row 2 decides on it) and its number in the journal has arrived before.

    Shapes:  ``journals`` (terminal, journal) -> what has arrived of it.
    """
    place = line.place
    if place is None or line.status != TransactionStatus.CONCLUDED:
        return False
    journal = journals.get((place.terminal_id, place.journal_id))
    return (
        journal is not None
        and place.sequence in journal
        and line.operation not in (Operation.VOID, Operation.RELEASE)
    )


def judge_funding(
    line: Line, instrument: Instrument | None, known: Known, context: Context
) -> Judgement:
    """Decide on a line whose key is new: rows 6, 7 and 10, then funding and doubts."""
    grant = context.grant(line)
    if instrument is None:
        instrument = granted_issue(line, grant)
    if instrument is None:  # 6
        return Judgement(Outcome.HELD, (Code.UNKNOWN_INSTRUMENT,))
    if instrument.currency != line.currency:  # 7
        return Judgement(Outcome.HELD, (Code.CURRENCY_MISMATCH,), lock_effect=LockEffect.KEPT)
    doubt = _doubt_of_refund(line, known)
    if doubt is not None:
        return Judgement(Outcome.HELD, (doubt,), lock_effect=LockEffect.KEPT)
    for lock_id in (line.lock_id, grant.lock_id if grant else None):
        if lock_id is not None and known.is_spent(line.instrument_id, lock_id, line.key):  # 10
            return Judgement(Outcome.HELD, (Code.LOCK_ALREADY_USED,))
    return fund(line, instrument, known, context)


def fund(line: Line, instrument: Instrument, known: Known, context: Context) -> Judgement:
    """Fund a line and add every doubt that holds: steps 2 to 4, whatever step 1 would say."""
    grant = context.grant(line)
    proof = _proof(line, instrument, grant, known, context)
    return _fund(line, instrument, proof, known, context)


def granted_issue(line: Line, grant: Grant | None) -> Instrument | None:
    """Return the instrument that a granted issue creates: HQ promised it and forgot it."""
    if grant is None or line.operation != Operation.ISSUE or not _covers(grant, line):
        return None
    if line.amount_minor > grant.amount_minor:
        return None
    return newborn(grant.instrument_id, grant.kind, grant.currency, grant.number_last4)


def _judge_void(
    line: Line, instrument: Instrument | None, known: Known, context: Context
) -> Judgement:
    """Row V: the key shall have no effect, whatever comes first."""
    told = known.voided.get(line.key)
    if told is not None:
        return Judgement(Outcome.DUPLICATE, lock_effect=LockEffect.RELEASED, original=told)
    posted = known.posted(line.key)
    if posted is None:
        return Judgement(
            Outcome.APPLIED, (Code.VOIDED,), lock_effect=LockEffect.RELEASED, voids=True
        )
    content, result = posted
    if content.instrument_id != line.instrument_id or instrument is None:
        return Judgement(Outcome.HELD, (Code.BUSINESS_KEY_REUSED,))
    if content.operation in DEBITS:
        return _give_back(line.key, content, result, instrument, known)
    if content.original is not None and content.original in known.voided:
        # The void of the original has given back that much less: it is even already.
        return Judgement(
            Outcome.APPLIED, (Code.VOIDED,), lock_effect=LockEffect.RELEASED, voids=True
        )
    available = available_minor(instrument, line.key, context)
    funded_minor = min(content.amount_minor, available)
    return Judgement(
        Outcome.APPLIED,
        (Code.VOIDED,),
        funded_minor=funded_minor,
        shortfall_minor=content.amount_minor - funded_minor,
        lock_effect=LockEffect.RELEASED,
        voids=True,
        reverses=content,
    )


def _give_back(
    key: BusinessKey, content: Content, result: LineResult, instrument: Instrument, known: Known
) -> Judgement:
    """Return how a debit is undone: what it took comes back, less what linked refunds have given
    back already; what was short is short no more.
    """
    recovered_minor = known.recovered_minor.get(result.case_id, 0) if result.case_id else 0
    funded_minor = result.funded_minor + recovered_minor - known.refunded_minor.get(key, 0)
    if funded_minor < 0:  # a sale that fell short was refunded for more than it took
        return Judgement(Outcome.HELD, (Code.REFUND_EXCEEDS_ORIGINAL,), lock_effect=LockEffect.KEPT)
    codes = [Code.VOIDED]
    if instrument.status == InstrumentStatus.CLOSED and funded_minor + result.forfeited_minor:
        codes.append(Code.INSTRUMENT_CLOSED)  # somebody has to decide where the money goes
    return Judgement(
        Outcome.APPLIED,
        tuple(codes),
        funded_minor=funded_minor,
        lock_effect=LockEffect.RELEASED,
        voids=True,
        reverses=content,
        cancelled_minor=result.shortfall_minor - recovered_minor,
        restored_minor=result.forfeited_minor,
    )


def _doubt_of_refund(line: Line, known: Known) -> str | None:
    """Return why a linked refund waits: its original is not there, or not worth that much."""
    if line.original is None:
        return None
    posted = known.posted(line.original)
    if posted is None or line.original in known.voided or posted[0].operation not in DEBITS:
        return Code.UNKNOWN_ORIGINAL
    if posted[0].currency != line.currency:
        return Code.CURRENCY_MISMATCH
    refunded_minor = known.refunded_minor.get(line.original, 0) + line.amount_minor
    return Code.REFUND_EXCEEDS_ORIGINAL if refunded_minor > posted[0].amount_minor else None


@dataclass(slots=True)
class _Proof:
    """What a line can show for itself: a lock that lives, one that is gone, a grant, or nothing.

    ``purpose`` and ``amount_minor`` are what that was given for; ``until`` and ``revision`` those
    of the grant that went with the lock, None without one.
    """

    code: str | None = None
    own: Lock | None = None
    lock_id: UUID | None = None
    locked_at: datetime | None = None
    purpose: str | None = None
    amount_minor: int | None = None
    until: datetime | None = None
    revision: int | None = None


def _proof(
    line: Line, instrument: Instrument, grant: Grant | None, known: Known, context: Context
) -> _Proof:
    """Return which of rows 8, 11, 12 and 13 is the line's (9 is 8 above the lock's amount)."""
    own = own_lock(instrument, line.key, context)
    if own is not None:  # 8
        return _Proof(
            None,
            own,
            own.lock_id,
            own.locked_at,
            own.purpose,
            own.amount_minor,
            own.grant_until,
            own.grant_revision,
        )
    gone = _gone_lock(line, instrument, known)
    if gone is not None:  # 11
        return _Proof(
            Code.LOCK_BROKEN if gone.end == LockEnd.BROKEN else Code.STALE_LOCK,
            None,
            gone.lock_id,
            gone.locked_at,
            gone.purpose,
            gone.amount_minor,
            gone.grant_until,
            gone.grant_revision,
        )
    if (
        grant is not None
        and _covers(grant, line)
        and not known.is_spent(line.instrument_id, grant.lock_id, line.key)
    ):  # 12
        return _Proof(
            Code.LOCK_RECONSTRUCTED,
            None,
            grant.lock_id,
            grant.issued_at,
            grant.purpose,
            grant.amount_minor,
            grant.until,
            grant.revision,
        )
    return _Proof(Code.NO_LOCK)  # 13


def _covers(grant: Grant, line: Line) -> bool:
    """Tell whether a grant is for this line's transaction, operation and instrument."""
    return (
        grant.key[:3] == line.key[:3]
        and grant.purpose == line.operation
        and grant.instrument_id == line.instrument_id
        and grant.currency == line.currency
    )


def _fund(
    line: Line, instrument: Instrument, proof: _Proof, known: Known, context: Context
) -> Judgement:
    """Fund a line that is going to be posted, and add every doubt of rows 14 to 16."""
    status_code = _STATUS_CODES.get(instrument.status)
    hindrance = _hindrance_of_credit(line, instrument) if line.operation in CREDITS else None
    if hindrance is not None:
        return Judgement(Outcome.HELD, (hindrance,), lock_effect=LockEffect.KEPT)
    codes: list[str] = [] if proof.code is None else [proof.code]
    if proof.amount_minor is not None and line.amount_minor > proof.amount_minor:  # 9
        codes.append(Code.OVER_GRANT)
    if proof.purpose is not None and proof.purpose != line.operation:  # 17
        codes.append(Code.NOT_AS_LOCKED)
    if context.is_offline:
        codes += _grant_doubts(line, context)
    if is_reserved_for_another(instrument, line.key, context):  # 14
        codes.append(Code.CONTENDED)
    if status_code is not None:  # 15
        codes.append(status_code)
    if context.is_offline:
        codes += _doubts_of_permission_and_time(line, instrument, proof, context)
        if _is_sequence_reused(line, known):  # 16
            codes.append(Code.SEQUENCE_REUSED)
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


def _hindrance_of_credit(line: Line, instrument: Instrument) -> str | None:
    """Return why money cannot be put on an instrument: where it is, it must not be lost.

    Source: an existing credit memo is never topped up (Dynamics, refund to a credit memo).
    """
    status_code = _STATUS_CODES.get(instrument.status)
    if status_code in _CLOSED_TO_CREDITS:
        return status_code
    if instrument.kind == Kind.CREDIT_MEMO and line.operation != Operation.ISSUE:
        return Code.OPERATION_NOT_ALLOWED
    is_too_much = instrument.balance_minor + line.amount_minor > AMOUNT_MINOR_MAX
    return Code.BALANCE_LIMIT_EXCEEDED if is_too_much else None


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
    if not is_reserved_for_another(instrument, key, context):
        return instrument.balance_minor
    lock = instrument.lock
    reserved_minor = lock.amount_minor if lock is not None and lock.purpose in DEBITS else 0
    return max(0, instrument.balance_minor - reserved_minor)


def is_reserved_for_another(instrument: Instrument, key: BusinessKey, context: Context) -> bool:
    """Tell whether another transaction holds the instrument with a grant that still counts."""
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
        if not known.is_spent(instrument.instrument_id, one.lock_id, key)
    ]
    if gone:
        return next((one for one in gone if one.lock_id == line.lock_id), gone[-1])
    lock = instrument.lock
    if lock is not None and lock.belongs_to(key):  # live on its row, but its horizon has passed
        return gone_lock(lock, LockEnd.HORIZON)
    return None


def gone_lock(lock: Lock, end: LockEnd) -> GoneLock:
    """Return what stays known of a lock that ended otherwise than by a posting."""
    return GoneLock(
        lock.lock_id,
        lock.locked_at,
        end,
        lock.grant_until,
        lock.grant_revision,
        lock.purpose,
        lock.amount_minor,
    )


def _grant_doubts(line: Line, context: Context) -> list[str]:
    """Return the code for a grant that fails its check: it counts as absent, and is told."""
    if line.grant is None:
        return []
    grant = context.grant(line)
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
    if concluded_at < context.oldest_at or (proof.until is not None and concluded_at > proof.until):
        codes.append(Code.TOO_OLD)
    if concluded_at > context.newest_at:
        codes.append(Code.CLOCK_SKEW)
    return codes


def _is_sequence_reused(line: Line, known: Known) -> bool:
    place = line.place
    if place is None:
        return False
    journal = known.journals.get((place.terminal_id, place.journal_id))
    return journal is not None and place.sequence in journal


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
    UNKNOWN_ORIGINAL = "unknown_original"
    REFUND_EXCEEDS_ORIGINAL = "refund_exceeds_original"
    OPERATION_NOT_ALLOWED = "operation_not_allowed"
    BALANCE_LIMIT_EXCEEDED = "balance_limit_exceeded"
    LOCK_LOST = "lock_lost"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    CASH_OUT_NOT_WHOLE = "cash_out_not_whole"
    INSTRUMENT_BLOCKED = "instrument_blocked"
    INSTRUMENT_EXPIRED = "instrument_expired"
    INSTRUMENT_CLOSED = "instrument_closed"
    INSTRUMENT_APPLIED = "instrument_applied"


def refusal_online(
    judgement: Judgement, line: Line, instrument: Instrument | None
) -> OnlineRefusal | None:
    """Return why an online command is refused, None if it stands: row 2, V, or row 8 in full.

    The lock that the command names must be the live one: it is the fencing token. A stale online
    command is refused because its sender is there to be told; the same line in an offline batch is
    a fact.
    """
    codes = judgement.codes
    lock = instrument.lock if instrument is not None else None
    if line.is_void:
        return None if judgement.outcome is not Outcome.HELD else _REFUSAL_OF_CODE[codes[0]]
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
    if judgement.lock_effect is not LockEffect.CONSUMED or lock is None or instrument is None:
        return OnlineRefusal.LOCK_LOST
    if lock.lock_id != line.lock_id or lock.purpose != line.operation:
        return OnlineRefusal.LOCK_LOST
    if judgement.shortfall_minor or Code.OVER_GRANT in codes:
        return OnlineRefusal.INSUFFICIENT_BALANCE
    if line.operation == Operation.CASH_OUT and line.amount_minor != instrument.balance_minor:
        return OnlineRefusal.CASH_OUT_NOT_WHOLE
    return None


_REFUSAL_OF_CODE: Mapping[str, OnlineRefusal] = {
    Code.VOIDED: OnlineRefusal.VOIDED,
    Code.BUSINESS_KEY_REUSED: OnlineRefusal.BUSINESS_KEY_REUSED,
    Code.UNKNOWN_INSTRUMENT: OnlineRefusal.INSTRUMENT_NOT_FOUND,
    Code.CURRENCY_MISMATCH: OnlineRefusal.CURRENCY_MISMATCH,
    Code.UNKNOWN_ORIGINAL: OnlineRefusal.UNKNOWN_ORIGINAL,
    Code.REFUND_EXCEEDS_ORIGINAL: OnlineRefusal.REFUND_EXCEEDS_ORIGINAL,
    Code.OPERATION_NOT_ALLOWED: OnlineRefusal.OPERATION_NOT_ALLOWED,
    Code.BALANCE_LIMIT_EXCEEDED: OnlineRefusal.BALANCE_LIMIT_EXCEEDED,
    Code.INSTRUMENT_BLOCKED: OnlineRefusal.INSTRUMENT_BLOCKED,
    Code.INSTRUMENT_EXPIRED: OnlineRefusal.INSTRUMENT_EXPIRED,
    Code.INSTRUMENT_CLOSED: OnlineRefusal.INSTRUMENT_CLOSED,
    Code.INSTRUMENT_APPLIED: OnlineRefusal.INSTRUMENT_APPLIED,
}
