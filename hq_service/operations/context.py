"""What a judgement depends on, gathered once per operation."""

from __future__ import annotations

from datetime import datetime, timedelta

from hq_service.domain.actors import Actor
from hq_service.domain.judgement import Context
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import BusinessKey, Terminal
from hq_service.domain.parameters import Parameters
from hq_service.store import parameters, terminals
from hq_service.store.database import Connection

TOUCHES_PER_LEASE = 10
"""Presence is written at most once per tenth of the lease, so that the hot path hardly pays."""


def online_context(key: BusinessKey, actor: Actor, keyring: Keyring, now: datetime) -> Context:
    """Return the context of a command that its terminal sends itself."""
    in_force = parameters.in_force_at(key.store_id, parameters.latest_revision(key.store_id))
    terminal = Terminal(key.store_id, key.terminal_id, supports_offline=True)
    return Context(
        received_at=now,
        now=now,
        parameters=in_force,
        terminals={(key.store_id, key.terminal_id): terminal},
        parameters_at={},
        keyring=keyring,
        actor=actor.name,
        is_offline=False,
    )


def touch_if_due(
    connection: Connection,
    key: BusinessKey,
    last_seen_at: datetime | None,
    in_force: Parameters,
    now: datetime,
) -> datetime:
    """Renew the lease of a terminal that was just heard of, unless that was done recently.

    Returns: when the terminal was last seen, as it is stored now.
    """
    if last_seen_at is not None and not is_touch_due(last_seen_at, in_force, now):
        return last_seen_at
    terminals.touch(connection, key.store_id, key.terminal_id, now)
    return now


def is_touch_due(last_seen_at: datetime | None, in_force: Parameters, now: datetime) -> bool:
    """Tell whether the lease of a terminal that was just heard of is to be renewed."""
    return last_seen_at is None or now - last_seen_at >= touched_for(in_force)


def touched_for(in_force: Parameters) -> timedelta:
    """Return how long a lease is good enough after it was renewed."""
    return timedelta(seconds=in_force.lease_seconds / TOUCHES_PER_LEASE)
