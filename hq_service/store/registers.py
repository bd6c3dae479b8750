"""Stores and registers as administrators keep them.

An edit is one guarded UPDATE: it goes through only if the row still has the version that the
editor saw. Ids are never used twice, so nothing is ever deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, update

from hq_service.domain.model import Instrument
from hq_service.domain.registers import Register, Store
from hq_service.store import instruments, tables
from hq_service.store.database import Connection, db
from hq_service.store.statements import statement

Stores = tables.Store
Registers = tables.Terminal
Table = type[tables.Store] | type[tables.Terminal]

_STORE = tuple(getattr(Stores, name) for name in Store.__slots__)
_REGISTER = tuple(getattr(Registers, name) for name in Register.__slots__)


def read_store(store_id: str) -> Store | None:
    """Return a store, None if there is no such store."""
    row = db.session.execute(select(*_STORE).where(Stores.store_id == store_id)).first()
    return Store(*row) if row else None


def keep_stores_as_they_are(connection: Connection) -> None:
    """Let no store be created or changed until this transaction ends. Cold and short; tills are not
    held up, they only read stores.
    """
    connection.execute("LOCK TABLE stores IN SHARE ROW EXCLUSIVE MODE")


def stores_alike(store_id: str) -> list[str]:
    """Return the ids of stores that differ from an id at most in capitals."""
    alike = func.lower(Stores.store_id) == store_id.lower()
    return list(db.session.scalars(select(Stores.store_id).where(alike).order_by(Stores.store_id)))


def list_stores(*, after: str, limit: int, with_retired: bool) -> list[Store]:
    """Return stores by id, after an id."""
    wanted = select(*_STORE).where(Stores.store_id > after)
    wanted = _page(
        wanted, Stores.store_id, Stores.retired_at, limit=limit, with_retired=with_retired
    )
    return [Store(*row) for row in db.session.execute(wanted)]


def edit_store(store_id: str, seen_version: int, changes: Mapping[str, Any]) -> bool:
    """Change a store that is not retired, if it still has a version; tell whether it had."""
    return _changed(Stores, changes, Stores.store_id == store_id, _is_as_seen(Stores, seen_version))


def retire_store(store_id: str, now: datetime) -> bool:
    """Retire a store; tell whether it was not retired yet."""
    return _changed(
        Stores, {"retired_at": now}, Stores.store_id == store_id, Stores.retired_at.is_(None)
    )


def reactivate_store(store_id: str) -> bool:
    """Take a store into use again; tell whether it was retired."""
    was_retired = Stores.retired_at.is_not(None)
    return _changed(Stores, {"retired_at": None}, Stores.store_id == store_id, was_retired)


def read_register(store_id: str, terminal_id: str) -> Register | None:
    """Return a register, None if there is no such register."""
    row = db.session.execute(select(*_REGISTER).where(_is(store_id, terminal_id))).first()
    return Register(*row) if row else None


def registers_alike(store_id: str, terminal_id: str) -> list[str]:
    """Return the ids of registers of a store that differ from an id at most in capitals."""
    wanted = select(Registers.terminal_id).where(
        Registers.store_id == store_id, func.lower(Registers.terminal_id) == terminal_id.lower()
    )
    return list(db.session.scalars(wanted.order_by(Registers.terminal_id)))


def list_registers(store_id: str, *, after: str, limit: int, with_retired: bool) -> list[Register]:
    """Return the registers of a store by id, after an id."""
    wanted = select(*_REGISTER).where(Registers.store_id == store_id, Registers.terminal_id > after)
    wanted = _page(
        wanted, Registers.terminal_id, Registers.retired_at, limit=limit, with_retired=with_retired
    )
    return [Register(*row) for row in db.session.execute(wanted)]


def add_register(register: Register) -> None:
    """Insert a register."""
    values = {name: getattr(register, name) for name in Register.__slots__}
    db.session.add(Registers(**values))
    db.session.flush()


def edit_register(
    store_id: str, terminal_id: str, seen_version: int, changes: Mapping[str, Any]
) -> bool:
    """Change a register that is not retired, if it still has a version; tell whether it had."""
    as_seen = _is_as_seen(Registers, seen_version)
    return _changed(Registers, changes, _is(store_id, terminal_id), as_seen)


def retire_register(store_id: str, terminal_id: str, now: datetime) -> bool:
    """Retire a register; tell whether it was not retired yet."""
    is_live = Registers.retired_at.is_(None)
    changes = {"retired_at": now}
    return _changed(Registers, changes, _is(store_id, terminal_id), is_live)


def reactivate_register(store_id: str, terminal_id: str) -> bool:
    """Take a register into use again; tell whether it was retired."""
    was_retired = Registers.retired_at.is_not(None)
    changes = {"retired_at": None}
    return _changed(Registers, changes, _is(store_id, terminal_id), was_retired)


def count_registers(store_id: str) -> int:
    """Return how many registers a store has, retired ones included."""
    wanted = select(func.count()).select_from(Registers).where(Registers.store_id == store_id)
    return db.session.scalar(wanted) or 0


def count_open_cases(store_id: str, terminal_id: str | None) -> int:
    """Return how many cases of a register are open; None means any of the store."""
    wanted = select(func.count()).where(
        tables.Case.store_id == store_id, tables.Case.resolved_at.is_(None)
    )
    if terminal_id is not None:
        wanted = wanted.where(tables.Case.terminal_id == terminal_id)
    return db.session.scalar(wanted) or 0


def await_locks(connection: Connection) -> None:
    """Wait for the locks that are being given, and let no other be given until this transaction
    ends. What is read afterwards counts them all.
    """
    connection.execute(statement("await_locks"))


def locked_instruments(
    connection: Connection, store_id: str, terminal_id: str | None
) -> list[Instrument]:
    """Return the instruments whose live lock a register holds; None means any of the store."""
    rows = connection.execute(
        statement("read_locked_of_register"), {"store_id": store_id, "terminal_id": terminal_id}
    )
    return [instruments.instrument_from(row) for row in rows.fetchall()]


def _is(store_id: str, terminal_id: str) -> ColumnElement[bool]:
    return (Registers.store_id == store_id) & (Registers.terminal_id == terminal_id)


def _is_as_seen(row: Table, seen_version: int) -> ColumnElement[bool]:
    return (row.version == seen_version) & row.retired_at.is_(None)


def _changed(
    row: Table,
    changes: Mapping[str, Any],
    *conditions: ColumnElement[bool],
) -> bool:
    # Whoever waited here for another edit is judged by the row as that one left it.
    guarded = update(row).where(*conditions).values(version=row.version + 1, **changes)
    return bool(db.session.execute(guarded.returning(row.version)).first())


def _page(
    wanted: Select[Any], key: Any, retired_at: Any, *, limit: int, with_retired: bool
) -> Select[Any]:
    if not with_retired:
        wanted = wanted.where(retired_at.is_(None))
    return wanted.order_by(key).limit(limit)
