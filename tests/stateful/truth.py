"""What the tills of a store know of their own sales: the truth that HQ must come to in the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from tests.support import Card, Till

START = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)

DEBITS = frozenset({"redeem"})

Content = tuple[str, str, int, str, tuple[Any, ...] | None]
JournalLine = dict[str, Any]


class Clock:
    """HQ's time and every till's; it stands still unless a schedule moves it."""

    def __init__(self) -> None:
        self.instant = START

    def now(self, _zone: object = None) -> datetime:
        return self.instant

    def go_on(self, seconds: int = 1) -> None:
        self.instant += timedelta(seconds=seconds)


class Fate(StrEnum):
    """What becomes of a message between a till and HQ."""

    DELIVERED = "delivered"
    ANSWER_LOST = "answer lost"
    REQUEST_LOST = "request lost"


class Standing(StrEnum):
    """How far a till has come with a line of its own."""

    ASKED = "asked for its lock, no answer"
    LOCKED = "locked"
    DOUBTFUL = "concluded online, no answer"
    REFUSED = "refused"
    SOLD = "concluded online"
    SOLD_OFFLINE = "concluded offline"
    GIVEN_UP = "given up"


@dataclass(eq=False)
class Sale:
    """One line of a transaction, as its till knows it.

    ``sent`` are the contents of online commands whose answer may be missing; ``told`` is the first
    answer to a conclusion. ``is_void_owed`` and ``is_release_owed`` say that HQ has not confirmed
    it yet: the till has to write it into its journal before it can forget.
    """

    till: StoreTill
    transaction_id: str
    line: int
    card: Card
    operation: str
    amount_minor: int
    original: Sale | None = None
    standing: Standing = Standing.ASKED
    instrument_id: str = ""
    lock_id: str | None = None
    grant: str | None = None
    max_amount_minor: int = 0
    told: dict[str, Any] | None = None
    sent: list[Content] = field(default_factory=list)
    is_concluded_at_hq: bool = False
    is_voided: bool = False
    is_void_owed: bool = False
    is_release_owed: bool = False
    is_reversed_by_hq: bool = False
    is_absorbed: bool = False
    wants_new_number: bool = False

    def __str__(self) -> str:
        return f"{self.till.name} {self.transaction_id}/{self.line}"

    @property
    def key(self) -> dict[str, Any]:
        return self.till.caller.key_of(self.transaction_id, self.line)

    @property
    def place(self) -> tuple[str, str, int]:
        return (self.till.caller.terminal_id, self.transaction_id, self.line)

    @property
    def is_debit(self) -> bool:
        return self.operation in DEBITS

    @property
    def is_sold(self) -> bool:
        """Tell whether goods have changed hands and nobody took that back."""
        is_concluded = self.standing in (Standing.SOLD, Standing.SOLD_OFFLINE)
        return is_concluded and not self.is_voided

    @property
    def content(self) -> Content:
        original = tuple(self.original.key.values()) if self.original else None
        currency = self.card.currency
        return (self.operation, self.instrument_id, self.amount_minor, currency, original)

    def take_lock(self, answer: dict[str, Any]) -> None:
        """Remember a lock that HQ gave."""
        self.standing = Standing.LOCKED
        self.lock_id = answer["lock_id"]
        self.grant = answer["offline"]["grant"]
        self.max_amount_minor = answer["max_amount_minor"]
        self.instrument_id = answer["instrument"]["instrument_id"]
        if answer["number"]:
            self.card = Card(self.card.kind, answer["number"], self.instrument_id, "SEK")

    def lock_request(self) -> dict[str, Any]:
        body = {**self.key, "kind": self.card.kind, "purpose": self.operation}
        if not self.wants_new_number:
            body["number"] = self.card.number
        if not self.is_debit:
            body["amount_minor"] = self.amount_minor
        if self.operation == "issue":
            body["currency"] = self.card.currency
        return body

    def online_line(self) -> dict[str, Any]:
        return {
            "line": self.line,
            "operation": self.operation,
            "instrument_id": self.instrument_id,
            "lock_id": self.lock_id,
            "amount_minor": self.amount_minor,
            "currency": self.card.currency,
            **self._ground(),
        }

    def offline_line(self, concluded_at: datetime) -> JournalLine:
        proof = {"grant": self.grant} if self.grant else {}
        return self.till.write(
            {
                **self._name(concluded_at),
                "operation": self.operation,
                "amount_minor": self.amount_minor,
                "currency": self.card.currency,
                **proof,
                **self._ground(),
            }
        )

    def void_line(self, concluded_at: datetime) -> JournalLine:
        return self.till.write({**self._name(concluded_at), "operation": "void"})

    def release_line(self, concluded_at: datetime) -> JournalLine:
        named = {"lock_id": self.lock_id} if self.lock_id else {}
        return self.till.write({**self._name(concluded_at), "operation": "release", **named})

    def _name(self, concluded_at: datetime) -> JournalLine:
        return {
            "transaction_id": self.transaction_id,
            "line": self.line,
            "instrument_id": self.instrument_id or self.card.instrument_id,
            "concluded_at": concluded_at.isoformat(),
        }

    def _ground(self) -> dict[str, Any]:
        """Return what a refund is for: its original, or a reason for having none."""
        if self.operation != "refund":
            return {}
        return {"original": self.original.key} if self.original else {"reason": "no receipt"}


@dataclass(eq=False)
class StoreTill:
    """A till, its sales and its journal; it forgets nothing before HQ acknowledges it."""

    name: str
    caller: Till
    sales: list[Sale] = field(default_factory=list)
    journal: list[JournalLine] = field(default_factory=list)
    arrived: set[int] = field(default_factory=set)
    acknowledged_through: int = 0

    def open_sale(self, card: Card, operation: str, amount_minor: int, *, joins: bool) -> Sale:
        """Start a line: of a transaction of its own, or of the one that is open at the till."""
        last = self.sales[-1] if self.sales else None
        if joins and last is not None and last.standing is not Standing.GIVEN_UP:
            place = last.transaction_id, last.line + 1
        else:
            place = f"X{len(self.sales) + 1}", 1
        sale = Sale(self, *place, card, operation, amount_minor, instrument_id=card.instrument_id)
        self.sales.append(sale)
        return sale

    def write(self, line: JournalLine) -> JournalLine:
        """Append a line to the journal."""
        self.caller.sequence += 1
        written = {
            "terminal_id": self.caller.terminal_id,
            "journal_id": self.caller.journal_id,
            "sequence": self.caller.sequence,
            **line,
        }
        self.journal.append(written)
        return written

    @property
    def pending(self) -> list[JournalLine]:
        """Return the lines that the till may not forget yet."""
        return [line for line in self.journal if line["sequence"] > self.acknowledged_through]

    def contiguous(self) -> int:
        """Return up to which number every line has reached HQ."""
        through = 0
        while through + 1 in self.arrived:
            through += 1
        return through
