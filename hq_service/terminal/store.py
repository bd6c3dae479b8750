"""The till's own store: one SQLite file, written before anything is sent.

What is written here survives the end of the process at any point (WAL, synchronous=FULL). Card
numbers are never written: an instrument is named by its id, and people see the last four digits.
Grants are, so the file is for the till's own account only.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hq_service.domain.model import BusinessKey, Operation, Tender

FILE_NAME = "till.sqlite3"
SCHEMA_VERSION = 1
ENDED_SALES_KEPT = timedelta(days=30)
"""How long a sale can still be found after it ended and HQ has everything of it."""

_SCHEMA = """
    CREATE TABLE facts (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;
    CREATE TABLE sales (
        transaction_id TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        begun_at TEXT NOT NULL,
        ended_at TEXT
    ) STRICT;
    CREATE TABLE lines (
        transaction_id TEXT NOT NULL REFERENCES sales,
        line INTEGER NOT NULL,
        operation TEXT NOT NULL,
        kind TEXT NOT NULL,
        state TEXT NOT NULL,
        is_doubtful INTEGER NOT NULL,
        is_sent INTEGER NOT NULL,
        is_void_owed INTEGER NOT NULL,
        asked_at TEXT NOT NULL,
        amount_minor INTEGER,
        currency TEXT,
        max_amount_minor INTEGER,
        instrument_id TEXT,
        number_last4 TEXT,
        lock_id TEXT,
        grant_text TEXT,
        grant_until TEXT,
        original TEXT,
        reason TEXT,
        tender TEXT,
        balance_after_minor INTEGER,
        PRIMARY KEY (transaction_id, line)
    ) STRICT;
    CREATE TABLE journal (
        sequence INTEGER PRIMARY KEY,
        transaction_id TEXT NOT NULL,
        concluded_at TEXT NOT NULL,
        currency TEXT,
        amount_minor INTEGER NOT NULL,
        text TEXT NOT NULL,
        batch_id TEXT,
        is_sent INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE batches (
        batch_id TEXT PRIMARY KEY,
        body BLOB NOT NULL,
        lines_count INTEGER NOT NULL
    ) STRICT;
"""


class StoreRefused(Exception):
    """The store cannot be opened; the message says why and what to do."""


class SaleState(StrEnum):
    """How far a till has come with a sale."""

    OPEN = "open"
    CONCLUDING = "concluding"  # sent to HQ; whether it was concluded is not known yet
    CONCLUDED = "concluded"
    CONCLUDED_OFFLINE = "concluded_offline"
    VOIDING = "voiding"
    VOIDED = "voided"


UNFINISHED = (SaleState.OPEN, SaleState.CONCLUDING, SaleState.VOIDING)


class LineState(StrEnum):
    """How far a till has come with a line of a sale."""

    ASKED = "asked"  # for its lock
    LOCKED = "locked"
    GIVEN_UP = "given_up"  # it never came into the sale
    REMOVING = "removing"
    REMOVED = "removed"
    CONCLUDED = "concluded"
    VOIDED = "voided"


@dataclass(slots=True)
class StoredLine:
    """A line of a sale, and the lock that it holds.

    ``is_doubtful`` when a request for the lock went unanswered, so that it may arrive yet;
    ``is_sent`` when the line was sent to be concluded, and HQ may have done so;
    ``is_void_owed`` when a lock of the key may turn up at HQ although the line is not in the sale.
    """

    transaction_id: str
    line: int
    operation: str
    kind: str
    asked_at: datetime
    state: LineState = LineState.ASKED
    is_doubtful: bool = True
    is_sent: bool = False
    is_void_owed: bool = False
    amount_minor: int | None = None
    currency: str | None = None
    max_amount_minor: int | None = None
    instrument_id: str | None = None
    number_last4: str | None = None
    lock_id: str | None = None
    grant_text: str | None = field(default=None, repr=False)
    grant_until: datetime | None = None
    original: BusinessKey | None = None
    reason: str | None = None
    tender: Tender | None = None
    balance_after_minor: int | None = None


@dataclass(slots=True)
class StoredSale:
    """A sale with its lines, in their order."""

    transaction_id: str
    state: SaleState
    begun_at: datetime
    ended_at: datetime | None = None
    lines: list[StoredLine] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """An offline batch under way: its id and bytes stay the same until HQ has answered."""

    batch_id: str
    body: bytes = field(repr=False)
    lines_count: int


@dataclass(frozen=True, slots=True)
class Pending:
    """What HQ has not confirmed yet; amounts by currency, in its smallest unit."""

    transactions_count: int
    lines_count: int
    amounts_minor: Mapping[str, int]
    oldest_at: datetime | None


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What becomes a line of the journal; ``members`` are as HQ reads them."""

    transaction_id: str
    line: int
    operation: str
    instrument_id: str
    concluded_at: datetime
    amount_minor: int | None = None
    currency: str | None = None
    members: Mapping[str, Any] = field(default_factory=dict)


_LINE_COLUMNS = tuple(one.name for one in fields(StoredLine))
_INSTANTS = frozenset({"asked_at", "grant_until"})
_FLAGS = frozenset({"is_doubtful", "is_sent", "is_void_owed"})
_SAVE_LINE = (
    f"INSERT OR REPLACE INTO lines ({', '.join(_LINE_COLUMNS)})"  # noqa: S608 - constants
    f" VALUES ({', '.join(f':{name}' for name in _LINE_COLUMNS)})"
)


class TillStore:
    """The open store of one till. A second process is refused while it is open."""

    def __init__(
        self, directory: Path, store_id: str | None = None, terminal_id: str | None = None
    ) -> None:
        """Open the store in a directory, or make it for a till.

        Without names it is opened only if it is there.

        Raises:  StoreRefused.
        """
        self.path = directory / FILE_NAME
        if store_id is None and not self.path.exists():
            raise StoreRefused(f"There is no till's store in {directory}: name the directory.")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # For the till's own account only: it holds rights to spend.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        self._mutex = threading.RLock()
        self._database = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=0
        )
        try:
            self._open(store_id, terminal_id)
        except BaseException:
            self._database.close()
            raise

    def _open(self, store_id: str | None, terminal_id: str | None) -> None:
        try:
            # Before the journal mode: the lock is taken with the first statement and kept.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._prepare(store_id, terminal_id)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise StoreRefused(
                    f"{self.path} is in use by another process: end that till, or that sync, first."
                ) from error
            raise StoreRefused(
                f"{self.path} cannot be opened: {error}. See that its disk is there and writable."
            ) from error
        except sqlite3.DatabaseError as error:
            raise StoreRefused(
                f"{self.path} is no till's store: {error}. Move it away; what was in it and never"
                " sent is on the receipts."
            ) from error

    def _prepare(self, store_id: str | None, terminal_id: str | None) -> None:
        with self.writing():
            [version] = self._database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._make(store_id, terminal_id)
            elif version != SCHEMA_VERSION:
                raise StoreRefused(
                    f"{self.path} is of version {version}, and this program knows"
                    f" {SCHEMA_VERSION}: open it with the program that wrote it."
                )
        self.store_id: str = self.fact("store_id")
        self.terminal_id: str = self.fact("terminal_id")
        self.journal_id: str = self.fact("journal_id")
        if store_id is not None and (store_id, terminal_id) != (self.store_id, self.terminal_id):
            raise StoreRefused(
                f"{self.path} is the store of register {self.terminal_id} in {self.store_id}:"
                " give every register a directory of its own."
            )

    def _make(self, store_id: str | None, terminal_id: str | None) -> None:
        if store_id is None or terminal_id is None:
            raise StoreRefused(f"{self.path} is empty: no till has used it yet.")
        for statement in _SCHEMA.split(";"):
            self._database.execute(statement)
        born = {
            "store_id": store_id,
            "terminal_id": terminal_id,
            "journal_id": uuid.uuid4().hex,
            "last_sequence": 0,
            "acknowledged_through": 0,
            "sales_count": 0,
        }
        for name, value in born.items():
            self.set_fact(name, value)
        self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the store; another process may open it then."""
        with self._mutex:
            self._database.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write several things, all or none of them, and on disk when it is over."""
        with self._mutex:
            if self._database.in_transaction:
                yield  # a part of somebody's whole
                return
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._mutex:
            return self._database.execute(query, values).fetchall()

    # --- single facts ---------------------------------------------------------------------------

    def fact(self, name: str, default: Any = None) -> Any:
        """Return what was noted under a name."""
        rows = self._rows("SELECT value FROM facts WHERE name = ?", name)
        return json.loads(rows[0][0]) if rows else default

    def set_fact(self, name: str, value: Any) -> None:
        """Note something that JSON can hold."""
        with self.writing():
            self._database.execute(
                "INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)",
                (name, json.dumps(value)),
            )

    # --- sales ----------------------------------------------------------------------------------

    def begin_sale(self, transaction_id: str | None, now: datetime) -> StoredSale:
        """Add a sale, under a name that no other sale of this register ever has.

        Raises:  ValueError for a name that was used before.
        """
        with self.writing():
            count = self.fact("sales_count") + 1
            # The journal's id, because a register that gets another store counts from 1 again.
            name = transaction_id or f"{self.journal_id[:12]}-{count}"
            if self._rows("SELECT 1 FROM sales WHERE transaction_id = ?", name):
                raise ValueError(name)
            self.set_fact("sales_count", count)
            self._database.execute(
                "INSERT INTO sales (transaction_id, state, begun_at) VALUES (?, ?, ?)",
                (name, SaleState.OPEN, now.isoformat()),
            )
        return StoredSale(name, SaleState.OPEN, now)

    def unfinished_sale(self) -> StoredSale | None:
        """Return the sale that is neither concluded nor voided; a till has one at most."""
        marks = ", ".join("?" * len(UNFINISHED))
        rows = self._rows(f"SELECT transaction_id FROM sales WHERE state IN ({marks})", *UNFINISHED)  # noqa: S608
        return self.sale(rows[0][0]) if rows else None

    def sale(self, transaction_id: str) -> StoredSale | None:
        """Return a sale by its name, None if the till does not know it (any more)."""
        rows = self._rows(
            "SELECT state, begun_at, ended_at FROM sales WHERE transaction_id = ?", transaction_id
        )
        if not rows:
            return None
        state, begun_at, ended_at = rows[0]
        lines = self._lines("WHERE transaction_id = ? ORDER BY line", transaction_id)
        return StoredSale(
            transaction_id, SaleState(state), _instant(begun_at), _instant_or_none(ended_at), lines
        )

    def save_sale(self, sale: StoredSale) -> None:
        """Keep the state of a sale and all its lines, at once."""
        with self.writing():
            self._database.execute(
                "UPDATE sales SET state = ?, ended_at = ? WHERE transaction_id = ?",
                (sale.state, _text_or_none(sale.ended_at), sale.transaction_id),
            )
            for line in sale.lines:
                self.save_line(line)

    def save_line(self, line: StoredLine) -> None:
        """Keep a line as it is now."""
        values = {name: getattr(line, name) for name in _LINE_COLUMNS}
        for name in _INSTANTS:
            values[name] = _text_or_none(values[name])
        for name in ("original", "tender"):
            values[name] = json.dumps(values[name]) if values[name] is not None else None
        with self.writing():
            self._database.execute(_SAVE_LINE, values)

    def lines_owed(self) -> list[StoredLine]:
        """Return lines that are in no sale, but of which a lock may turn up at HQ."""
        return self._lines("WHERE is_void_owed = 1 ORDER BY asked_at")

    def _lines(self, where: str, *values: Any) -> list[StoredLine]:
        query = f"SELECT {', '.join(_LINE_COLUMNS)} FROM lines {where}"  # noqa: S608 - constants
        return [_line(row) for row in self._rows(query, *values)]

    # --- the journal ----------------------------------------------------------------------------

    def write(self, entries: Iterable[JournalEntry]) -> None:
        """Append to the journal: numbered without a gap, each line as it will be sent."""
        with self.writing():
            sequence = self.fact("last_sequence")
            for entry in entries:
                sequence += 1
                money = {"amount_minor": entry.amount_minor, "currency": entry.currency}
                document = {
                    "terminal_id": self.terminal_id,
                    "journal_id": self.journal_id,
                    "sequence": sequence,
                    "transaction_id": entry.transaction_id,
                    "line": entry.line,
                    "operation": entry.operation,
                    "instrument_id": entry.instrument_id,
                    **(money if entry.amount_minor is not None else {}),
                    "concluded_at": entry.concluded_at.isoformat(),
                    **entry.members,
                }
                self._database.execute(
                    "INSERT INTO journal"
                    " (sequence, transaction_id, concluded_at, currency, amount_minor, text)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        sequence,
                        entry.transaction_id,
                        entry.concluded_at.isoformat(),
                        entry.currency,
                        entry.amount_minor or 0,
                        json.dumps(document, separators=(",", ":")),
                    ),
                )
            self.set_fact("last_sequence", sequence)

    def journal(self) -> list[Mapping[str, Any]]:
        """Return every line that is still kept, as it is sent, in order."""
        rows = self._rows("SELECT text FROM journal ORDER BY sequence")
        return [json.loads(text) for (text,) in rows]

    def pending(self) -> Pending:
        """Return what HQ has not confirmed yet."""
        with self._mutex:
            [(transactions_count, lines_count, oldest_at)] = self._rows(
                "SELECT count(DISTINCT transaction_id), count(*), min(concluded_at) FROM journal"
            )
            amounts = self._rows(
                "SELECT currency, sum(amount_minor) FROM journal"
                " WHERE currency IS NOT NULL GROUP BY currency"
            )
        return Pending(transactions_count, lines_count, dict(amounts), _instant_or_none(oldest_at))

    @property
    def last_sequence(self) -> int:
        """Return the highest number that was written into the journal; 0 for none."""
        return int(self.fact("last_sequence"))

    @property
    def acknowledged_through(self) -> int:
        """Return up to where HQ has said that it has everything."""
        return int(self.fact("acknowledged_through"))

    # --- batches --------------------------------------------------------------------------------

    def batch_under_way(self, transactions_max: int, lines_max: int) -> StoredBatch | None:
        """Return the batch that HQ has not answered yet, else a new one; None if all is sent.

        The lines of a transaction stay together, unless they are more than ``lines_max``.
        """
        with self.writing():
            rows = self._rows("SELECT batch_id, body, lines_count FROM batches LIMIT 1")
            if rows:
                return StoredBatch(*rows[0])
            chosen = self._next_lines(transactions_max, lines_max)
            if not chosen:
                return None
            batch = self._batch_of([text for _, text in chosen])
            self._database.execute(
                "INSERT INTO batches (batch_id, body, lines_count) VALUES (?, ?, ?)",
                (batch.batch_id, batch.body, batch.lines_count),
            )
            self._database.executemany(
                "UPDATE journal SET batch_id = ? WHERE sequence = ?",
                [(batch.batch_id, sequence) for sequence, _ in chosen],
            )
            return batch

    def _next_lines(self, transactions_max: int, lines_max: int) -> list[tuple[int, str]]:
        rows = self._rows(
            "SELECT sequence, transaction_id, text FROM journal WHERE is_sent = 0"
            " ORDER BY sequence LIMIT ?",
            lines_max,
        )
        chosen: list[tuple[int, str]] = []
        transactions: set[str] = set()
        for sequence, transaction_id, text in rows:
            transactions.add(transaction_id)
            if len(transactions) > transactions_max:
                break
            chosen.append((sequence, text))
        return chosen

    def _batch_of(self, texts: Sequence[str]) -> StoredBatch:
        batch_id = uuid.uuid4().hex
        lines = [json.loads(text) for text in texts]
        amounts: dict[str, int] = {}
        for line in lines:
            if line.get("amount_minor"):
                amounts[line["currency"]] = amounts.get(line["currency"], 0) + line["amount_minor"]
        envelope = {
            "store_id": self.store_id,
            "batch_id": batch_id,
            "control_totals": {"lines_count": len(lines), "amounts_minor": amounts},
            "lines": lines,
        }
        body = json.dumps(envelope, separators=(",", ":")).encode()
        return StoredBatch(batch_id, body, len(lines))

    def batch_answered(self, batch_id: str) -> None:
        """Note that HQ has a batch: its lines are sent, and stay until they are acknowledged."""
        with self.writing():
            self._database.execute("UPDATE journal SET is_sent = 1 WHERE batch_id = ?", (batch_id,))
            self._database.execute("DELETE FROM batches WHERE batch_id = ?", (batch_id,))

    def batch_refused(self, batch_id: str) -> None:
        """Note that HQ did not take a batch at all: its lines go into others."""
        with self.writing():
            self._database.execute(
                "UPDATE journal SET batch_id = NULL WHERE batch_id = ?", (batch_id,)
            )
            self._database.execute("DELETE FROM batches WHERE batch_id = ?", (batch_id,))

    def acknowledge(self, through: int, gaps: Iterable[tuple[int, int]], now: datetime) -> int:
        """Purge what HQ says that it has, send again what it says is missing; return how many
        lines were purged.

        A line that was never sent is kept whatever HQ says: then this is a copy of another store.
        """
        with self.writing():
            for first, last in gaps:
                self._database.execute(
                    "UPDATE journal SET is_sent = 0, batch_id = NULL"
                    " WHERE is_sent = 1 AND sequence BETWEEN ? AND ?",
                    (first, last),
                )
            purged = self._database.execute(
                "DELETE FROM journal WHERE is_sent = 1 AND sequence <= ?", (through,)
            ).rowcount
            if through > self.acknowledged_through:
                self.set_fact("acknowledged_through", min(through, self.last_sequence))
            self._forget_ended_sales(now)
        return purged

    def _forget_ended_sales(self, now: datetime) -> None:
        old = (
            "SELECT transaction_id FROM sales WHERE ended_at < ?"
            " AND transaction_id NOT IN (SELECT transaction_id FROM journal)"
            " AND transaction_id NOT IN (SELECT transaction_id FROM lines WHERE is_void_owed = 1)"
        )
        before = (now - ENDED_SALES_KEPT).isoformat()
        self._database.execute(f"DELETE FROM lines WHERE transaction_id IN ({old})", (before,))  # noqa: S608
        self._database.execute(f"DELETE FROM sales WHERE transaction_id IN ({old})", (before,))  # noqa: S608


def journal_entry(
    line: StoredLine,
    operation: Operation,
    concluded_at: datetime,
    members: Mapping[str, Any],
) -> JournalEntry:
    """Return what a line of a sale becomes in the journal."""
    assert line.instrument_id is not None  # it was locked
    has_money = operation not in (Operation.RELEASE, Operation.VOID)
    return JournalEntry(
        line.transaction_id,
        line.line,
        operation,
        line.instrument_id,
        concluded_at,
        line.amount_minor if has_money else None,
        line.currency if has_money else None,
        members,
    )


def _line(row: Sequence[Any]) -> StoredLine:
    values = dict(zip(_LINE_COLUMNS, row, strict=True))
    values["state"] = LineState(values["state"])
    for name in _INSTANTS:
        values[name] = _instant_or_none(values[name])
    for name in _FLAGS:
        values[name] = bool(values[name])
    if values["original"] is not None:
        values["original"] = BusinessKey(*json.loads(values["original"]))
    if values["tender"] is not None:
        values["tender"] = Tender(*json.loads(values["tender"]))
    return StoredLine(**values)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _instant_or_none(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None


def _text_or_none(instant: datetime | None) -> str | None:
    return instant.isoformat() if instant is not None else None
