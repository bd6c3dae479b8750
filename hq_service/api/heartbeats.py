"""Heartbeats, as tills send them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint
from hq_service.api.schemas.heartbeats import HeartbeatAnswerSchema, HeartbeatSchema
from hq_service.domain.actors import Role
from hq_service.domain.connection import Heartbeat, SyncStatus, ToldState
from hq_service.domain.journals import Journal
from hq_service.operations import heartbeats
from hq_service.operations.clock import now

blueprint = Blueprint("heartbeats", "What tills tell of themselves")
auth.protect(blueprint)

GAPS_TOLD_MAX = 20

Answer = dict[str, Any]


@blueprint.route("/v1/heartbeats", methods=["POST"])
@auth.allow(Role.TERMINAL)
@blueprint.arguments(HeartbeatSchema)
@blueprint.response(200, HeartbeatAnswerSchema)
def take_heartbeat(told: Mapping[str, Any]) -> Answer:
    """Keep what a till tells of itself, renew its lease, and tell it what HQ has for it."""
    answer = heartbeats.take(_heartbeat(told), auth.current_actor(), now())
    return {
        "server_time": answer.server_time,
        "parameters": {"revision": answer.applied_revision, "reset_cache": answer.reset_cache},
        "offline_profile_version": answer.offline_profile_version,
        "journals": [_arrived(*one) for one in sorted(answer.journals.items())],
        "upload_requested": answer.upload_requested,
        "next_heartbeat_seconds": answer.next_heartbeat_seconds,
        "register_retired": answer.register_retired,
    }


def _heartbeat(told: Mapping[str, Any]) -> Heartbeat:
    members = {name: value for name, value in told.items() if name != "last_sync"}
    last_sync = told["last_sync"]
    return Heartbeat(
        **{**members, "connection_state": ToldState(members["connection_state"])},
        last_sync_at=last_sync["at"],
        last_sync_status=SyncStatus(last_sync["status"]),
        last_sync_message=last_sync["message"],
    )


def _arrived(journal_id: str, journal: Journal) -> Answer:
    gaps = journal.gaps()
    told = [{"first": first, "last": last} for first, last in islice(gaps, GAPS_TOLD_MAX)]
    return {
        "journal_id": journal_id,
        "acknowledged_through": journal.acknowledged_through,
        "gaps": told,
        "gaps_count": len(told) + sum(1 for _ in gaps),
    }
