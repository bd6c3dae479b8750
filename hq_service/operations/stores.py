"""Stores: created, edited, retired, taken into use again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hq_service.domain.audit import Action
from hq_service.domain.distribution import (
    JOB_BY_ID,
    MESSAGE_LENGTH_MAX,
    Direction,
    canceled,
)
from hq_service.domain.errors import NotFound, PreconditionRequired, Refused
from hq_service.domain.journals import Journal
from hq_service.domain.registers import Accepted, Store, StoreAtStake, live_locks, together
from hq_service.operations.changes import Change, not_as_seen, old_and_new, record, require_free
from hq_service.store import distribution, journals, parameters, registers, terminals
from hq_service.store.database import Connection, confirm_durable, reading, transactional


@reading
def show(_connection: Connection, store_id: str) -> Store:
    """Return a store.

    Raises:  NotFound ``store_not_found``.
    """
    return existing_store(store_id)


@reading
def page(_connection: Connection, *, after: str, limit: int, with_retired: bool) -> list[Store]:
    """Return stores by id, after an id."""
    return registers.list_stores(after=after, limit=limit, with_retired=with_retired)


@transactional
def create(
    connection: Connection, store_id: str, name: str, time_zone: str, change: Change
) -> Store:
    """Create a store; it starts with the Commerce parameters as they are saved.

    Raises:  Refused ``already_exists``, also for an id that differs only in capitals.
    """
    # Before anything is read: of two that differ only in capitals and come at once, one is refused.
    registers.keep_stores_as_they_are(connection)
    require_free(store_id, registers.stores_alike(store_id))
    terminals.add_store(store_id, name, change.now, time_zone=time_zone)
    new = {"name": name, "time_zone": time_zone}
    record(connection, change, Action.STORE_CREATED, subject_of(store_id), new=new)
    return existing_store(store_id)


@transactional
def edit(
    connection: Connection,
    store_id: str,
    changes: Mapping[str, Any],
    seen_version: int | None,
    change: Change,
) -> Store:
    """Change a store's name or time zone.

    Raises:  NotFound; Refused ``retired``; PreconditionRequired without a seen version,
             PreconditionFailed when somebody edited meanwhile.
    """
    before = existing_store(store_id)
    if seen_version is None:
        raise PreconditionRequired()
    if not registers.edit_store(store_id, seen_version, changes):
        raise not_as_seen(existing_store(store_id), seen_version)
    told = old_and_new(before, changes)
    record(connection, change, Action.STORE_EDITED, subject_of(store_id), **told)
    return existing_store(store_id)


@reading
def at_stake(connection: Connection, store_id: str, now: datetime) -> tuple[Store, StoreAtStake]:
    """Return what is not settled of a store: what retiring it would leave behind.

    Raises:  NotFound ``store_not_found``.
    """
    store = existing_store(store_id)
    return store, _at_stake(connection, store_id, journals.read(connection, store_id), now)


@transactional
def retire(connection: Connection, store_id: str, accepted: Accepted, change: Change) -> Store:
    """Retire a store, accepting what is left of it: from now on nothing is locked or granted in
    it. What is under way is concluded, and what its tills have pending is settled as ever: facts
    are never lost.

    One that is retired already stays as it is.

    Raises:  NotFound; Refused ``store_not_clear`` with what is at stake now.
    """
    existing_store(store_id)
    if not registers.retire_store(store_id, change.now):
        confirm_durable(connection)
        return existing_store(store_id)
    ended = _cancel_downloads(store_id, change)
    # The journals wait for batches that are being settled; behind them the locks, as a batch that
    # has its journals may wait for a card that is just being locked.
    names = list(journals.read(connection, store_id))
    arrived = journals.load_for_update(connection, store_id, names) if names else {}
    registers.await_locks(connection)
    left = _at_stake(connection, store_id, arrived, change.now)
    if left.to_accept != accepted:
        raise Refused(code="store_not_clear", at_stake=figures(left))
    told = {"at_stake": figures(left), "canceled_sessions": ended}
    record(connection, change, Action.STORE_RETIRED, subject_of(store_id), **told)
    return existing_store(store_id)


@transactional
def reactivate(connection: Connection, store_id: str, change: Change) -> Store:
    """Take a retired store into use again. One that is in use stays as it is."""
    existing_store(store_id)
    if registers.reactivate_store(store_id):
        record(connection, change, Action.STORE_REACTIVATED, subject_of(store_id))
    else:
        confirm_durable(connection)
    return existing_store(store_id)


def figures(left: StoreAtStake) -> dict[str, Any]:
    """Return what is at stake as answers and the audit tell it."""
    return {
        "registers_count": left.registers_count,
        "gaps_count": left.gaps_count,
        "live_locks_count": left.live.locks_count,
        "live_grants_count": left.live.grants_count,
        "exposures_minor": dict(left.live.exposures_minor),
        "open_cases_count": left.open_cases_count,
        "pending_told_count": left.pending.told_count,
        "pending_count": left.pending.count,
        "pending_amounts_minor": left.pending.amounts_minor,
        "oldest_pending_at": left.pending.oldest_at,
    }


def existing_store(store_id: str) -> Store:
    """Return a store, inside a transaction.

    Raises:  NotFound ``store_not_found``.
    """
    store = registers.read_store(store_id)
    if store is None:
        raise NotFound(code="store_not_found")
    return store


def subject_of(store_id: str) -> str:
    """Return what the audit calls a store."""
    return f"store:{store_id}"


def _cancel_downloads(store_id: str, change: Change) -> list[str]:
    """End the download sessions of a store that are open; return their ids.

    Uploads stay: what the tills have pending is still to be posted.
    """
    downloads = [
        one
        for one in distribution.lock_open_sessions([store_id], list(JOB_BY_ID))
        if one.direction is Direction.DOWNLOAD
    ]
    message = f"Canceled: the store was retired. {change.reason}"[:MESSAGE_LENGTH_MAX]
    distribution.update_sessions(canceled(one, message, None, change.now) for one in downloads)
    return [str(one.session_id) for one in downloads]


def _at_stake(
    connection: Connection,
    store_id: str,
    arrived: Mapping[tuple[str, str], Journal],
    now: datetime,
) -> StoreAtStake:
    locked = registers.locked_instruments(connection, store_id, None)
    in_force = parameters.in_force_at(store_id, parameters.latest_revision(store_id))
    return StoreAtStake(
        registers_count=registers.count_registers(store_id),
        gaps_count=sum(len(list(journal.gaps())) for journal in arrived.values()),
        live=live_locks(locked, in_force, now),
        open_cases_count=registers.count_open_cases(store_id, None),
        pending=together(terminals.told_in_store(store_id)),
    )
