"""The things that the rules speak of: instruments, locks, lines, postings."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID


class Kind(StrEnum):
    """What an instrument is."""

    GIFT_CARD = "gift_card"
    CREDIT_MEMO = "credit_memo"


class InstrumentStatus(StrEnum):
    """Where an instrument is in its life; only ``active`` ones are spent online."""

    PENDING = "pending"  # locked for issue, worth nothing yet
    ACTIVE = "active"
    BLOCKED = "blocked"
    EXPIRED = "expired"
    CLOSED = "closed"
    APPLIED = "applied"  # a credit memo that was used; its remainder is another memo


class Operation(StrEnum):
    """What one line of a transaction does to one instrument."""

    REDEEM = "redeem"
    ISSUE = "issue"
    LOAD = "load"
    REFUND = "refund"
    CASH_OUT = "cash_out"
    RELEASE = "release"
    VOID = "void"


RECOVER = "recover"
"""The operation of the posting by which HQ recovers a shortfall; no till ever sends it."""

DEBITS = frozenset({Operation.REDEEM, Operation.CASH_OUT})
CREDITS = frozenset({Operation.ISSUE, Operation.LOAD, Operation.REFUND})


class Purpose(StrEnum):
    """What a lock was taken for: the operation that may conclude under it."""

    REDEEM = "redeem"
    LOAD = "load"
    ISSUE = "issue"
    REFUND = "refund"
    CASH_OUT = "cash_out"


class TransactionStatus(StrEnum):
    """How a POS transaction ended at the till (Dynamics: RetailEntryStatus)."""

    CONCLUDED = "concluded"
    VOIDED = "voided"
    CANCELLED = "cancelled"
    SUSPENDED = "suspended"
    TRAINING = "training"


class Entry(StrEnum):
    """Which of the postings of one business key a posting is."""

    ORIGINAL = "original"
    REVERSAL = "reversal"
    REMAINDER_OUT = "remainder_out"
    REMAINDER_IN = "remainder_in"
    RESOLUTION = "resolution"


class LockEnd(StrEnum):
    """How a lock ended when no posting consumed it."""

    RELEASED = "released"
    VOIDED = "voided"
    LAPSED = "lapsed"
    HORIZON = "horizon"
    BROKEN = "broken"


HQ = "HQ"
"""Store and terminal of the postings that headquarters makes itself."""


class BusinessKey(NamedTuple):
    """The identity of a line, online and offline alike, for ever."""

    store_id: str
    terminal_id: str
    transaction_id: str
    line: int


class Tender(NamedTuple):
    """What the till took in another currency; stored as told and never recomputed.

    ``exchange_rate`` is the till's own decimal text.
    """

    amount_minor: int
    currency: str
    exchange_rate: str


class Place(NamedTuple):
    """Where a terminal wrote a line: its journal, and the number in it."""

    terminal_id: str
    journal_id: str
    sequence: int


class Content(NamedTuple):
    """What a business key stands for; a repeat must have the same content.

    The lock, sequence, times, tender, grant and revision are not in it: an online redeem and its
    offline replay must match.
    """

    operation: str
    instrument_id: UUID
    amount_minor: int
    currency: str
    original: BusinessKey | None


@dataclass(slots=True)
class Lock:
    """The live lock that one transaction holds on an instrument."""

    lock_id: UUID
    store_id: str
    terminal_id: str
    transaction_id: str
    line: int
    purpose: str
    amount_minor: int
    locked_at: datetime
    grant_until: datetime | None = None
    grant_revision: int | None = None

    @property
    def key(self) -> BusinessKey:
        """Return the business key that the lock was taken for."""
        return BusinessKey(self.store_id, self.terminal_id, self.transaction_id, self.line)

    def belongs_to(self, key: BusinessKey) -> bool:
        """Tell whether the lock is the *own lock* of the key's transaction."""
        return (
            self.transaction_id == key.transaction_id
            and self.terminal_id == key.terminal_id
            and self.store_id == key.store_id
        )


@dataclass(slots=True)
class Instrument:
    """A gift card or credit memo as its row says, its live lock included.

    Units: ``balance_minor`` in the currency's smallest unit; ``version`` counts its postings.
    """

    instrument_id: UUID
    kind: str
    currency: str
    number_last4: str
    status: str
    balance_minor: int
    version: int
    remainder_id: UUID | None
    lock: Lock | None

    def copy(self) -> Instrument:
        """Return an instrument of its own, to be changed; a lock is never changed, but taken."""
        return Instrument(
            self.instrument_id,
            self.kind,
            self.currency,
            self.number_last4,
            self.status,
            self.balance_minor,
            self.version,
            self.remainder_id,
            self.lock,
        )


def newborn(instrument_id: UUID, kind: str, currency: str, number_last4: str) -> Instrument:
    """Return an instrument that is not worth anything yet."""
    return Instrument(
        instrument_id=instrument_id,
        kind=kind,
        currency=currency,
        number_last4=number_last4,
        status=InstrumentStatus.PENDING,
        balance_minor=0,
        version=0,
        remainder_id=None,
        lock=None,
    )


@dataclass(slots=True)
class Line:
    """One line as a till or a sync job presents it, online or offline.

    ``position`` is its place in the sender's array; ``journal_id`` and ``sequence``, and with them
    ``place``, where the terminal wrote the line, are null online. ``original`` is the line that a
    linked refund gives back; ``reason`` why a refund has none, or why a line is voided.
    """

    key: BusinessKey
    operation: str
    instrument_id: UUID
    amount_minor: int
    currency: str
    status: str = TransactionStatus.CONCLUDED
    lock_id: UUID | None = None
    original: BusinessKey | None = None
    grant: str | None = None
    parameter_revision: int | None = None
    concluded_at: datetime | None = None
    journal_id: str | None = None
    sequence: int | None = None
    position: int = 0
    reason: str | None = None
    tender: Tender | None = None
    # Made once: settling a line asks for it again and again.
    place: Place | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.place = (
            None
            if self.journal_id is None or self.sequence is None
            else Place(self.key.terminal_id, self.journal_id, self.sequence)
        )

    @property
    def is_void(self) -> bool:
        """Tell whether the line says that its business key shall have no effect."""
        return self.operation == Operation.VOID or self.status in _VOID_STATUSES

    @property
    def content(self) -> Content:
        """Return what a repeat of this line must be equal in."""
        return Content(
            self.operation, self.instrument_id, self.amount_minor, self.currency, self.original
        )


_VOID_STATUSES = frozenset({TransactionStatus.VOIDED, TransactionStatus.CANCELLED})


@dataclass(slots=True)
class UnreadableLine:
    """A line that nobody could understand, kept with its card numbers masked.

    ``place`` is known if at least that could be read: the journal goes on behind it. ``key`` is
    known of a line that was read, but whose sender may not speak for its terminal.
    """

    store_id: str
    position: int
    masked_text: str
    reason: str
    place: Place | None = None
    key: BusinessKey | None = None


@dataclass(slots=True)
class Posting:
    """One immutable balance change, with the balance after it.

    ``amount_minor = funded_minor + shortfall_minor``; ``change_minor`` is what the balance moved
    by: plus or minus ``funded_minor``.
    """

    instrument_id: UUID
    version: int
    key: BusinessKey
    entry: str
    operation: str
    currency: str
    amount_minor: int
    funded_minor: int
    shortfall_minor: int
    change_minor: int
    balance_after_minor: int
    codes: tuple[str, ...]
    posted_at: datetime
    concluded_at: datetime | None = None
    lock_id: UUID | None = None
    locked_at: datetime | None = None
    original: BusinessKey | None = None
    related_instrument_id: UUID | None = None
    tender: Tender | None = None

    @property
    def content(self) -> Content:
        """Return what a repeat of the posted line must be equal in."""
        return Content(
            self.operation, self.instrument_id, self.amount_minor, self.currency, self.original
        )


@dataclass(slots=True)
class EndedLock:
    """A lock that ended otherwise than by a posting."""

    instrument_id: UUID
    lock: Lock
    end: str
    ended_at: datetime
    ended_by: str
    reason: str | None = None


@dataclass(slots=True)
class Void:
    """That a business key shall have no effect, whether or not it is known."""

    key: BusinessKey
    instrument_id: UUID
    reason: str
    voided_at: datetime
    voided_by: str


@dataclass(frozen=True, slots=True)
class Terminal:
    """What HQ knows of a register: whether it may trade offline, and when it was last heard of."""

    store_id: str
    terminal_id: str
    supports_offline: bool
    retired: bool = False
    last_seen_at: datetime | None = None
    acknowledged_revision: int | None = None
    served_revisions: frozenset[int] = field(default_factory=frozenset)
