"""Reading and editing the Commerce parameters, and telling how far a change has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from hq_service.domain.actors import Actor, Role
from hq_service.domain.audit import Action
from hq_service.domain.errors import (
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    Refused,
)
from hq_service.domain.parameters import (
    DEFINITION_BY_NAME,
    ChangedValue,
    ChangeState,
    Parameters,
    changed,
    changes_of,
    faults,
    in_force,
    latest_effective_at,
    state_of,
    story_of,
)
from hq_service.operations.changes import Change, record
from hq_service.store import parameters, registers, terminals
from hq_service.store.database import Connection, confirm_durable, reading, transactional
from hq_service.store.parameters import Edited, TerminalRow


@dataclass(frozen=True, slots=True)
class TillParameters:
    """What a store's tills are served, and since when their store has it."""

    parameters: Parameters
    applied_at: datetime | None


@dataclass(frozen=True, slots=True)
class Saved:
    """The newest revision that says something for a store."""

    revision: int
    saved_at: datetime | None


@dataclass(frozen=True, slots=True)
class Distributed:
    """The newest revision that a store has applied; ``applied_at`` is None when none was, and for
    what was there before there was a distribution.
    """

    revision: int
    applied_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoreParameters:
    """The parameters of one store as saved, what the store sets itself, and what has arrived."""

    store_id: str
    parameters: Parameters
    overrides: Mapping[str, Any]
    saved: Saved
    distributed: Distributed


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Who changed what, when and why; ``store_id`` None is company-wide."""

    revision: int
    store_id: str | None
    changed_at: datetime
    changed_by: str
    reason: str
    changes: Sequence[ChangedValue]


@dataclass(frozen=True, slots=True)
class TerminalState:
    """What one terminal has, and by when it has what is distributed to its store."""

    terminal_id: str
    state: ChangeState
    revision: int | None
    acknowledged_at: datetime | None
    latest_effective_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoreState:
    """How far the newest saved change has come in a store."""

    store_id: str
    saved: Saved
    distributed: Distributed
    terminals: Sequence[TerminalState]


@transactional
def read_for_till(connection: Connection, actor: Actor, now: datetime) -> TillParameters:
    """Return the parameters for the actor's store; a terminal thereby acknowledges them.

    Grants go by what a terminal acknowledged and by nothing else. Each fetch is noted, whether it
    brings something new or not: a cache reset waits for it.
    """
    store_id, terminal_id = actor.store_id, actor.terminal_id
    assert store_id is not None  # the keys of terminals and sync jobs have one
    applied = parameters.distributed_to(store_id, terminal_id)
    assert applied is not None  # and it refers to a store
    served = parameters.in_force_at(store_id, applied.revision)
    if actor.role is Role.TERMINAL and terminal_id is not None:
        is_new = applied.acknowledged_revision != served.revision
        terminals.note_parameters_fetch(
            connection, store_id, terminal_id, served.revision, now, is_new=is_new
        )
    return TillParameters(served, applied.applied_at)


@reading
def read_for_administrator(_connection: Connection) -> Parameters:
    """Return the company-wide parameters, saved last."""
    return parameters.in_force_at(None, parameters.latest_revision(None))


@reading
def read_of_store(_connection: Connection, store_id: str) -> StoreParameters:
    """Return the parameters of a store, saved last.

    Raises:  NotFound ``store_not_found``.
    """
    return _of_store(store_id)


@transactional
def edit(
    connection: Connection, wished: Mapping[str, Any], seen_revision: int | None, change: Change
) -> Parameters:
    """Append a company-wide revision with some parameters changed; none if nothing is changed.

    ``seen_revision`` is what the editor saw (If-Match).

    Raises:  PreconditionRequired without a seen revision, PreconditionFailed when somebody edited
             meanwhile, InvalidRequest with a pointer to each faulty value.
    """
    _check(wished, seen_revision, is_override=False)
    newest = parameters.lock_for_edit(connection)
    saved = parameters.in_force_at(None, parameters.latest_revision(None))
    _check_seen(seen_revision, saved.revision)
    before = saved.values()
    changes = changes_of(before, wished)
    if not changes:
        confirm_durable(connection)
        return saved
    _save(connection, newest + 1, None, before, changes, change)
    return in_force(newest + 1, before, changes)


@transactional
def edit_of_store(
    connection: Connection,
    store_id: str,
    wished: Mapping[str, Any],
    seen_revision: int | None,
    change: Change,
) -> StoreParameters:
    """Append a revision of what a store sets itself; null takes an override back. None is
    appended if nothing is changed. ``seen_revision`` is what the editor saw (If-Match).

    Raises:  NotFound ``store_not_found``; PreconditionRequired without a seen revision,
             PreconditionFailed when somebody edited meanwhile, for the company or the store;
             InvalidRequest with a pointer to each faulty value; Refused ``retired``.
    """
    store = registers.read_store(store_id)
    if store is None:
        raise NotFound(code="store_not_found")
    _check(wished, seen_revision, is_override=True)
    newest = parameters.lock_for_edit(connection)
    saved_revision = parameters.latest_revision(store_id)
    _check_seen(seen_revision, saved_revision)
    if store.retired_at is not None:
        raise Refused(code="retired")
    before = parameters.values_at(store_id, saved_revision)
    changes = changes_of(before, wished)
    if changes:
        _save(connection, newest + 1, store_id, before, changes, change)
    else:
        confirm_durable(connection)
    return _of_store(store_id, is_saving=bool(changes))


@reading
def history(
    _connection: Connection,
    *,
    store_id: str | None,
    name: str | None,
    after: int | None,
    limit: int,
) -> list[HistoryEntry]:
    """Return who changed what, newest first: of all scopes or what one store sets itself, of all
    parameters or one. ``after`` is the revision where the page before ended.

    Raises:  NotFound ``store_not_found``; InvalidRequest for a name that is no parameter's.
    """
    if store_id is not None and not terminals.store_exists(store_id):
        raise NotFound(code="store_not_found")
    if name is not None and name not in DEFINITION_BY_NAME:
        fault = {"pointer": "/name", "detail": "is not a Commerce parameter"}
        raise InvalidRequest(errors=[fault])
    found = parameters.edits(store_id=store_id, name=name, after=after, limit=limit)
    return [_history_entry(one) for one in found]


@reading
def states(
    _connection: Connection,
    *,
    store_id: str | None,
    after: tuple[str, str] | None,
    limit: int,
) -> tuple[list[StoreState], tuple[str, str] | None]:
    """Return how far the newest change has come, by store and terminal in use.

    Returns: the states, at most ``limit`` terminals, and where the next page begins: after that
             (store, terminal); None on the last. A store that did not fit on the page is continued
             on the next.
    Raises:  NotFound ``store_not_found``.
    """
    if store_id is not None and not terminals.store_exists(store_id):
        raise NotFound(code="store_not_found")
    rows = parameters.terminal_rows(store_id=store_id, after=after, limit=limit + 1)
    told = rows[:limit]
    found = [
        _store_state(list(of_store)) for _, of_store in groupby(told, lambda row: row.store_id)
    ]
    is_last = len(rows) <= limit
    return found, None if is_last else (told[-1].store_id, told[-1].terminal_id or "")


def _check(wished: Mapping[str, Any], seen_revision: int | None, *, is_override: bool) -> None:
    if seen_revision is None:
        raise PreconditionRequired()
    found = faults(wished, is_override=is_override)
    if found:
        raise InvalidRequest(
            errors=[
                {"pointer": f"/parameters/{name}", "detail": fault} for name, fault in found.items()
            ]
        )


def _check_seen(seen_revision: int | None, revision: int) -> None:
    if seen_revision != revision:
        raise PreconditionFailed(current_revision=revision)


def _save(
    connection: Connection,
    revision: int,
    store_id: str | None,
    before: Mapping[str, Any],
    changes: Mapping[str, Any],
    change: Change,
) -> None:
    parameters.add(
        revision,
        store_id,
        changed(before, changes),
        changes,
        reason=change.reason,
        changed_at=change.now,
        changed_by=change.actor.name,
    )
    story = story_of(before, changes, is_override=store_id is not None)
    record(
        connection,
        change,
        Action.PARAMETERS_EDITED,
        f"parameters:{store_id or 'company'}",
        revision=revision,
        old={one.name: one.old for one in story},
        new={one.name: one.new for one in story},
    )


def _of_store(store_id: str, *, is_saving: bool = False) -> StoreParameters:
    """Return the parameters of a store; ``is_saving`` while a revision is not committed yet."""
    distributed = parameters.distributed_to(store_id)
    if distributed is None:
        raise NotFound(code="store_not_found")
    revision = parameters.latest_revision(store_id)
    overrides = parameters.values_at(store_id, revision)
    # What may still be rolled back is not kept: its number would be given again.
    of_store = (
        in_force(revision, parameters.values_at(None, revision), overrides)
        if is_saving
        else parameters.in_force_at(store_id, revision)
    )
    return StoreParameters(
        store_id,
        of_store,
        {name: value for name, value in overrides.items() if name in DEFINITION_BY_NAME},
        Saved(revision, parameters.saved_at(revision)),
        Distributed(distributed.revision, distributed.applied_at),
    )


def _history_entry(one: Edited) -> HistoryEntry:
    return HistoryEntry(
        one.revision,
        one.store_id,
        one.changed_at,
        one.changed_by,
        one.reason,
        story_of(one.values_before, one.changes, is_override=one.store_id is not None),
    )


def _store_state(rows: Sequence[TerminalRow]) -> StoreState:
    first = rows[0]
    return StoreState(
        first.store_id,
        Saved(first.saved_revision, first.saved_at),
        Distributed(first.distributed_revision, first.applied_at),
        [
            TerminalState(
                row.terminal_id,
                state_of(
                    row.saved_revision,
                    row.distributed_revision,
                    row.acknowledged.revision if row.acknowledged else None,
                ),
                row.acknowledged.revision if row.acknowledged else None,
                row.acknowledged_at,
                latest_effective_at(row.distributed_revision, row.applied_at, row.acknowledged),
            )
            for row in rows
            if row.terminal_id is not None
        ],
    )
