"""Heartbeats: what a till tells of itself, and what HQ has for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from hq_service.domain import connection as rules
from hq_service.domain.actors import Actor
from hq_service.domain.connection import HEARTBEATS_PER_LEASE, TIPS_MAX, Heartbeat
from hq_service.domain.errors import Forbidden, InvalidRequest
from hq_service.domain.journals import Journal
from hq_service.store import journals, parameters, presence
from hq_service.store.database import Connection, transactional

JOURNALS_TOLD_MAX = TIPS_MAX
"""As many as a till may name, so that each that it names is told."""


@dataclass(frozen=True, slots=True)
class HeartbeatAnswer:
    """What HQ has for a till; ``journals`` is up to where theirs have arrived, by id."""

    server_time: datetime
    applied_revision: int
    reset_cache: bool
    offline_profile_version: int
    journals: Mapping[str, Journal]
    upload_requested: bool
    next_heartbeat_seconds: int
    register_retired: bool


@transactional
def take(
    connection: Connection, heartbeat: Heartbeat, actor: Actor, now: datetime
) -> HeartbeatAnswer:
    """Keep what a till tells, renew its lease, and return what HQ has for it.

    One row is written, whatever the number of the till's locks: the lease is the terminal's. What a
    retired register tells is kept, too: what is left in it is to be known.

    Raises:  Forbidden ``terminal_retired`` for a register that HQ does not know; InvalidRequest
             with a pointer to what cannot be.
    """
    store_id, terminal_id = actor.store_id, actor.terminal_id
    assert store_id is not None  # the keys of terminals have both
    assert terminal_id is not None
    reported = heartbeat.parameter_revision
    facts = presence.read_heartbeat_facts(connection, store_id, terminal_id, reported)
    if facts is None:
        raise Forbidden("This register is unknown.", code="terminal_retired")
    in_force = parameters.in_force_at(store_id, facts.saved_revision)
    faults = rules.faults(heartbeat, now, in_force.clock_skew_seconds_max)
    if faults:
        raise InvalidRequest(
            errors=[{"pointer": pointer, "detail": fault} for pointer, fault in faults.items()]
        )
    acknowledges = rules.is_acknowledged(
        reported,
        applied=facts.applied_revision,
        known=facts.acknowledged_revision,
        was_served_to_it=facts.was_served_to_it,
        was_applied_in_store=facts.was_applied_in_store,
    )
    fetched_at = presence.record_heartbeat(
        connection,
        store_id,
        terminal_id,
        heartbeat,
        acknowledged_revision=reported if acknowledges else None,
        fallback_revision=reported if facts.was_served_to_it else None,
        lease_seconds=in_force.lease_seconds,
        now=now,
    )
    named = sorted(heartbeat.journal_tips)
    known = journals.read_of_terminal(connection, store_id, terminal_id, named, JOURNALS_TOLD_MAX)
    return HeartbeatAnswer(
        server_time=now,
        applied_revision=facts.applied_revision,
        reset_cache=rules.is_reset_open(facts.cache_reset_at, fetched_at),
        offline_profile_version=facts.offline_profile_version,
        journals={**dict.fromkeys(named, Journal()), **known},
        upload_requested=facts.is_upload_requested,
        next_heartbeat_seconds=in_force.lease_seconds // HEARTBEATS_PER_LEASE,
        register_retired=facts.is_retired,
    )
