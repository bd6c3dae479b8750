"""Instruments and their live locks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any
from uuid import UUID

from hq_service.domain.model import EndedLock, Instrument, Lock
from hq_service.domain.numbers import bucket_of
from hq_service.store.arrays import array
from hq_service.store.database import Connection
from hq_service.store.statements import statement


class LockWrite(StrEnum):
    """What became of the attempt to give a lock."""

    GIVEN = "given"
    ROW_CHANGED = "row_changed"
    # Roll back, as the row carries the lock by now: its key was voided meanwhile, or its terminal
    # or its store retired.
    OVERTAKEN = "overtaken"


def read(connection: Connection, instrument_id: UUID) -> Instrument | None:
    """Return an instrument as it is now, locking nothing; None if HQ does not know it."""
    row = connection.execute(
        statement("read_instrument"),
        {"bucket": bucket_of(instrument_id), "instrument_id": instrument_id},
    ).fetchone()
    return instrument_from(row) if row else None


def load(connection: Connection, ids: Iterable[UUID], *, for_update: bool) -> Any:
    """Send the statement that reads some instruments; ``for_update`` locks their rows, in id order.

    Returns: a cursor that `loaded` reads, so that a pipeline can go on.
    """
    wanted = sorted(set(ids), key=attrgetter("int"))
    return connection.execute(
        statement("load_instruments_for_update" if for_update else "read_instruments"),
        {
            "buckets": array(map(bucket_of, wanted)),
            "instrument_ids": array(wanted),
        },
        binary=True,
    )


def loaded(cursor: Any) -> dict[UUID, Instrument]:
    """Return the instruments that were found, by id."""
    return {row[0]: instrument_from(row) for row in cursor.fetchall()}


def instrument_from(row: Sequence[Any]) -> Instrument:
    """Return the instrument of a row of ``read_instrument`` or its sibling for update."""
    lock = Lock(*row[8:]) if row[8] is not None else None
    identity = row[0], row[1], row[2], row[3]
    return Instrument(*identity, row[4], row[5], row[6], row[7], lock)


def insert(connection: Connection, created: Sequence[Instrument], now: datetime) -> int:
    """Insert new instruments, without locks; return how many of them were new."""
    cursor = connection.execute(
        statement("insert_instruments"),
        {
            "buckets": array(bucket_of(one.instrument_id) for one in created),
            "instrument_ids": array(one.instrument_id for one in created),
            "kinds": array(one.kind for one in created),
            "currencies": array(one.currency for one in created),
            "numbers_last4": array(one.number_last4 for one in created),
            "statuses": array(one.status for one in created),
            "balances_minor": array(one.balance_minor for one in created),
            "versions": array(one.version for one in created),
            "created_at": now,
        },
    )
    return cursor.rowcount


def claim_reference(connection: Connection, reference: str, actor: str, now: datetime) -> None:
    """Claim the reference of an issue; another claim of it waits until this one is decided."""
    claimed = {"reference": reference, "actor": actor, "now": now}
    connection.execute(statement("claim_reference"), claimed)


def update(connection: Connection, changed: Sequence[Instrument]) -> None:
    """Write back balance, status, remainder and whether the lock is still there."""
    connection.execute(
        statement("update_instruments"),
        {
            "buckets": array(bucket_of(one.instrument_id) for one in changed),
            "instrument_ids": array(one.instrument_id for one in changed),
            "balances_minor": array(one.balance_minor for one in changed),
            "versions": array(one.version for one in changed),
            "statuses": array(one.status for one in changed),
            "remainder_ids": array(one.remainder_id for one in changed),
            "are_locked": array(one.lock is not None for one in changed),
        },
    )


def set_lock(connection: Connection, seen: Instrument, lock: Lock) -> LockWrite:
    """Give a lock if the row is still as it was seen, and neither was its key voided meanwhile nor
    its terminal or store retired.
    """
    bucket = bucket_of(seen.instrument_id)
    cursor = connection.execute(
        statement("set_lock"),
        {
            "bucket": bucket,
            "instrument_id": seen.instrument_id,
            "seen_version": seen.version,
            "seen_status": seen.status,
            "seen_lock_id": seen.lock.lock_id if seen.lock else None,
            "lock_id": lock.lock_id,
            "store_id": lock.store_id,
            "terminal_id": lock.terminal_id,
            "transaction_id": lock.transaction_id,
            "line": lock.line,
            "purpose": lock.purpose,
            "amount_minor": lock.amount_minor,
            "locked_at": lock.locked_at,
            "grant_until": lock.grant_until,
            "grant_revision": lock.grant_revision,
        },
    )
    if cursor.rowcount != 1:
        return LockWrite.ROW_CHANGED
    listed = connection.execute(
        statement("insert_live_lock"),
        {
            "bucket": bucket,
            "instrument_id": seen.instrument_id,
            "lock_id": lock.lock_id,
            "store_id": lock.store_id,
            "terminal_id": lock.terminal_id,
            "transaction_id": lock.transaction_id,
            "line": lock.line,
            "locked_at": lock.locked_at,
            "amount_minor": lock.amount_minor,
            "grant_until": lock.grant_until,
        },
    )
    return LockWrite.GIVEN if listed.rowcount == 1 else LockWrite.OVERTAKEN


def delete_live_locks(connection: Connection, freed: Sequence[tuple[UUID, Lock]]) -> None:
    """Strike freed locks off the list of live ones."""
    connection.execute(
        statement("delete_live_locks"),
        {
            "buckets": array(bucket_of(instrument_id) for instrument_id, _ in freed),
            "instrument_ids": array(instrument_id for instrument_id, _ in freed),
            "lock_ids": array(lock.lock_id for _, lock in freed),
        },
    )


def insert_lock_events(connection: Connection, ended: Sequence[EndedLock]) -> None:
    """Append how locks ended otherwise than by a posting."""
    locks = [one.lock for one in ended]
    connection.execute(
        statement("insert_lock_events"),
        {
            "buckets": array(bucket_of(one.instrument_id) for one in ended),
            "instrument_ids": array(one.instrument_id for one in ended),
            "lock_ids": array(lock.lock_id for lock in locks),
            "store_ids": array(lock.store_id for lock in locks),
            "terminal_ids": array(lock.terminal_id for lock in locks),
            "transaction_ids": array(lock.transaction_id for lock in locks),
            "lines": array(lock.line for lock in locks),
            "purposes": array(lock.purpose for lock in locks),
            "amounts_minor": array(lock.amount_minor for lock in locks),
            "locked_at": array(lock.locked_at for lock in locks),
            "grants_until": array(lock.grant_until for lock in locks),
            "grant_revisions": array(lock.grant_revision for lock in locks),
            "ended": array(one.end for one in ended),
            "ended_at": array(one.ended_at for one in ended),
            "ended_by": array(one.ended_by for one in ended),
            "reasons": array(one.reason for one in ended),
        },
    )


def read_lock_event(
    connection: Connection, instrument_id: UUID, lock_id: UUID
) -> tuple[str, str, str, str, int] | None:
    """Return how a lock ended and the business key it was for; None if it did not end so."""
    return connection.execute(
        statement("read_lock_event"),
        {
            "bucket": bucket_of(instrument_id),
            "instrument_id": instrument_id,
            "lock_id": lock_id,
        },
    ).fetchone()
