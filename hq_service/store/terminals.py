"""Terminals, their presence, and which parameters they acknowledged."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Engine, select

from hq_service.domain.model import BusinessKey, Lock, Terminal
from hq_service.domain.registers import Pending
from hq_service.store import parameters, prepared, tables
from hq_service.store.arrays import array
from hq_service.store.database import Connection, db, engine
from hq_service.store.statements import statement

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LockFacts:
    """What a lock request is decided by, besides its instrument."""

    terminal: Terminal
    holder_last_seen_at: datetime | None
    parameters_revision: int
    is_voided: bool
    is_concluded: bool
    is_holder_voided: bool


def read_lock_facts(
    connection: Connection, key: BusinessKey, holder: Lock | None
) -> LockFacts | None:
    """Return what is known of the terminal, the key and the lock's holder.

    None if there is no such terminal.
    """
    row = connection.execute(
        statement("read_lock_facts"),
        {
            **key._asdict(),
            "holder_store_id": holder.store_id if holder else None,
            "holder_terminal_id": holder.terminal_id if holder else None,
            "holder_transaction_id": holder.transaction_id if holder else None,
            "holder_line": holder.line if holder else None,
        },
    ).fetchone()
    if row is None:
        return None
    supports_offline, retired, last_seen_at, acknowledged, holder_seen_at, revision, *known = row
    terminal = Terminal(
        key.store_id, key.terminal_id, supports_offline, retired, last_seen_at, acknowledged
    )
    return LockFacts(terminal, holder_seen_at, revision, *known)


class RegisterFacts(NamedTuple):
    """What a lock at a register depends on: its grant on the terminal, its lease on the revision of
    the parameters that is in force in the store.
    """

    terminal: Terminal
    parameters_revision: int


REGISTERS_KEPT_MAX = 10_000
SEEN_KEPT_MAX = timedelta(seconds=30)
"""How long a process relies on a terminal having been seen: a lease may be made shorter."""


@dataclass(slots=True)
class _Kept:
    """What is kept of the registers of one database, the one looked up longest ago first.

    What their locks depend on may be out of date: the statement that uses it looks whether it is.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    facts: OrderedDict[tuple[str, str], RegisterFacts] = field(default_factory=OrderedDict)
    seen_until: OrderedDict[tuple[str, str], datetime] = field(default_factory=OrderedDict)

    def keep(self, kept: OrderedDict[tuple[str, str], T], name: tuple[str, str], one: T) -> None:
        """Keep something of a register, and let go of what is too much."""
        with self.lock:
            kept[name] = one
            kept.move_to_end(name)
            while len(kept) > REGISTERS_KEPT_MAX:
                kept.popitem(last=False)


_kept: weakref.WeakKeyDictionary[Engine, _Kept] = weakref.WeakKeyDictionary()


def _kept_here() -> _Kept:
    at_work = engine()
    return _kept.get(at_work) or _kept.setdefault(at_work, _Kept())


def register_facts(store_id: str, terminal_id: str) -> RegisterFacts | None:
    """Return what a register's locks depend on, as it was when this process looked last.

    Raises:  NotTried.
    """
    kept, name = _kept_here(), (store_id, terminal_id)
    found = kept.facts.get(name)
    if found is not None:
        return found
    row = prepared.read("read_register_facts", name)
    if row is None:
        return None
    supports_offline, acknowledged, revision = row
    terminal = Terminal(store_id, terminal_id, supports_offline, acknowledged_revision=acknowledged)
    read = RegisterFacts(terminal, revision)
    kept.keep(kept.facts, name, read)
    return read


def forget_register_facts(store_id: str, terminal_id: str) -> None:
    """Look again the next time."""
    kept = _kept_here()
    with kept.lock:
        kept.facts.pop((store_id, terminal_id), None)


def is_known_as_seen(store_id: str, terminal_id: str, now: datetime) -> bool:
    """Tell whether this process knows that the lease of a terminal need not be renewed yet."""
    until = _kept_here().seen_until.get((store_id, terminal_id))
    return until is not None and now < until


def know_as_seen(store_id: str, terminal_id: str, due_at: datetime, now: datetime) -> None:
    """Remember that the lease of a terminal need not be renewed before an instant."""
    kept = _kept_here()
    kept.keep(kept.seen_until, (store_id, terminal_id), min(due_at, now + SEEN_KEPT_MAX))


def touch(connection: Connection, store_id: str, terminal_id: str, now: datetime) -> None:
    """Remember that a terminal was heard of now."""
    connection.execute(
        statement("touch_presence"),
        {"store_id": store_id, "terminal_id": terminal_id, "now": now},
    )


def acknowledge_parameters(
    connection: Connection, store_id: str, terminal_id: str, revision: int, now: datetime
) -> None:
    """Remember that a terminal has a revision of the parameters, without having fetched it now."""
    served = _served(store_id, terminal_id, revision, now)
    connection.execute(statement("acknowledge_parameters"), {**served, "fetched_at": None})
    connection.execute(statement("insert_acknowledgement"), served)


def note_parameters_fetch(
    connection: Connection,
    store_id: str,
    terminal_id: str,
    revision: int,
    now: datetime,
    *,
    is_new: bool,
) -> None:
    """Remember that a terminal fetched the parameters now, and that it has a revision of them.

    ``is_new`` says that this revision is not the newest that it acknowledged before.
    """
    served = _served(store_id, terminal_id, revision, now)
    connection.execute(statement("acknowledge_parameters"), {**served, "fetched_at": now})
    if is_new:
        connection.execute(statement("insert_acknowledgement"), served)


def _served(store_id: str, terminal_id: str, revision: int, now: datetime) -> dict[str, Any]:
    return {"store_id": store_id, "terminal_id": terminal_id, "revision": revision, "now": now}


def presence(store_id: str, terminal_id: str) -> tables.TerminalPresence | None:
    """Return when a terminal was last heard of and what it acknowledged; None if never."""
    return db.session.get(tables.TerminalPresence, (store_id, terminal_id))


def told_in_store(store_id: str) -> list[Pending]:
    """Return what each till of a store told last to be pending."""
    row = tables.TerminalPresence
    wanted = select(row.pending_count, row.pending_amounts_minor, row.oldest_pending_at).where(
        row.store_id == store_id, row.pending_count.is_not(None)
    )
    return [Pending(1, *told) for told in db.session.execute(wanted)]


def of_store(
    connection: Connection, store_id: str, terminal_ids: Iterable[str], at: datetime
) -> dict[tuple[str, str], Terminal]:
    """Return some registers of a store by (store, terminal), as they were at an instant."""
    rows = connection.execute(
        statement("read_registers_at"),
        {"store_id": store_id, "terminal_ids": array(terminal_ids), "at": at},
    )
    return {
        (store_id, terminal_id): Terminal(
            store_id,
            terminal_id,
            supports_offline,
            is_retired,
            served_revisions=frozenset(served),
        )
        for terminal_id, supports_offline, is_retired, served in rows.fetchall()
    }


def store_exists(store_id: str) -> bool:
    """Tell whether HQ knows a store."""
    return db.session.get(tables.Store, store_id) is not None


def applied_revision(store_id: str | None) -> int:
    """Return the last parameter revision whose package a store has applied."""
    store = db.session.get(tables.Store, store_id) if store_id is not None else None
    return store.applied_revision if store is not None else 0


def add_store(store_id: str, name: str, now: datetime, *, time_zone: str = "UTC") -> None:
    """Create a store. It starts with the parameters as they are saved: there is no older copy in
    it that a distribution would have to replace.
    """
    newest = parameters.latest_revision(None)
    db.session.add(
        tables.Store(
            store_id=store_id,
            name=name,
            time_zone=time_zone,
            created_at=now,
            applied_revision=newest,
            applied_at=now if newest else None,
        )
    )
    db.session.flush()  # without relationships nobody orders parents before children


def add(
    store_id: str, terminal_id: str, name: str, *, supports_offline: bool, now: datetime
) -> None:
    """Create a register."""
    db.session.add(
        tables.Terminal(
            store_id=store_id,
            terminal_id=terminal_id,
            name=name,
            supports_offline=supports_offline,
            created_at=now,
        )
    )
    db.session.flush()
