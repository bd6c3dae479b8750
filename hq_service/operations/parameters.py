"""Reading and editing the Commerce parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hq_service.domain.actors import Actor, Role
from hq_service.domain.errors import InvalidRequest, PreconditionFailed, PreconditionRequired
from hq_service.domain.parameters import Parameters, faults
from hq_service.store import parameters, terminals
from hq_service.store.database import Connection, reading, transactional


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of some parameters; ``seen_revision`` is what the editor saw (If-Match)."""

    changes: Mapping[str, Any]
    reason: str
    seen_revision: int | None


@transactional
def read_for_till(connection: Connection, actor: Actor, now: datetime) -> Parameters:
    """Return the parameters for the actor's store; a terminal thereby acknowledges them.

    Grants go by what a terminal acknowledged and by nothing else.
    """
    store_id = actor.store_id
    in_force = parameters.in_force_at(store_id, parameters.latest_revision(store_id))
    if actor.role is Role.TERMINAL and store_id is not None and actor.terminal_id is not None:
        seen = terminals.presence(store_id, actor.terminal_id)
        if seen is None or seen.acknowledged_revision != in_force.revision:
            terminals.acknowledge_parameters(
                connection, store_id, actor.terminal_id, in_force.revision, now
            )
    return in_force


@reading
def read_for_administrator(_connection: Connection) -> Parameters:
    """Return the company-wide parameters, saved last."""
    return parameters.in_force_at(None, parameters.latest_revision(None))


@transactional
def edit(connection: Connection, wish: Edit, actor: Actor, now: datetime) -> Parameters:
    """Append a company-wide revision with some parameters changed.

    Raises:  PreconditionRequired without a seen revision, PreconditionFailed when somebody edited
             meanwhile, InvalidRequest with a pointer to each faulty value.
    """
    if wish.seen_revision is None:
        raise PreconditionRequired()
    found = faults(wish.changes)
    if found:
        raise InvalidRequest(
            errors=[
                {"pointer": f"/parameters/{name}", "detail": fault} for name, fault in found.items()
            ]
        )
    newest = parameters.lock_for_edit(connection)
    saved = parameters.in_force_at(None, parameters.latest_revision(None))
    if saved.revision != wish.seen_revision:
        raise PreconditionFailed(current_revision=saved.revision)
    parameters.add(
        newest + 1,
        None,
        {**saved.values(), **wish.changes},
        wish.changes,
        reason=wish.reason,
        changed_at=now,
        changed_by=actor.name,
    )
    return Parameters(newest + 1, **{**saved.values(), **wish.changes})
