"""Live locks, for administrators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint
from hq_service.api.changes import change
from hq_service.api.schemas.locks import (
    BrokenLockSchema,
    HeldLockSchema,
    HeldLocksSchema,
    LockBreakSchema,
    LockPageSchema,
)
from hq_service.api.schemas.queries import after_text
from hq_service.api.selling import instrument_members
from hq_service.domain.actors import Role
from hq_service.domain.locking import LockFilter, LockState
from hq_service.operations import breaks
from hq_service.operations.breaks import HeldLock
from hq_service.operations.clock import now

blueprint = Blueprint("admin-locks", "Live locks, for administrators")
auth.protect(blueprint)

Answer = dict[str, Any]


@blueprint.route("/v1/admin/locks", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(LockPageSchema, location="query")
@blueprint.response(200, HeldLocksSchema)
def list_locks(page: Mapping[str, Any]) -> Answer:
    """Tell the live locks, the oldest first: who holds what, since when, at what risk."""
    found, place = breaks.list_locks(
        LockFilter(
            page["store_id"],
            page["terminal_id"],
            page["kind"],
            page["is_granted"],
            page["locked_before"],
        ),
        LockState(page["state"]) if page["state"] else None,
        after=page["after"],
        limit=page["limit"],
        now=now(),
    )
    return {"locks": [members(held) for held in found], "next_after": after_text(place)}


@blueprint.route("/v1/admin/locks/<uuid:instrument_id>", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, HeldLockSchema)
def show_lock(instrument_id: UUID) -> Answer:
    """Tell the live lock of an instrument: its holder, its exposure, the last sign of life."""
    return members(breaks.show_lock(instrument_id, now()))


@blueprint.route("/v1/admin/lock-breaks", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(LockBreakSchema)
@blueprint.response(201, BrokenLockSchema)
def break_lock(wish: Mapping[str, Any]) -> Answer:
    """Break a lock, with a reason, accepting the exposure that was shown.

    It is told as it was when it was broken, in the state ``broken``.
    """
    broken = breaks.break_lock(
        wish["instrument_id"], wish["lock_id"], wish["accepted_exposure_minor"], change(wish)
    )
    return members(broken)


def members(held: HeldLock) -> Answer:
    """Return what an answer tells of a live lock."""
    lock = held.lock
    return {
        "lock_id": lock.lock_id,
        **lock.key._asdict(),
        "purpose": lock.purpose,
        "state": held.state,
        "locked_at": lock.locked_at,
        "lease_ends_at": held.lease_ends_at,
        "grant_until": lock.grant_until,
        "holder_last_seen_at": held.holder_last_seen_at,
        "exposure_minor": held.exposure_minor,
        "instrument": instrument_members(held.instrument),
    }
