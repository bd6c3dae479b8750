"""Connection status, exposure and completeness, for administrators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint
from hq_service.api.names import require_possible
from hq_service.api.schemas import connection as schemas
from hq_service.domain.actors import Role
from hq_service.domain.completeness import Completeness, Summary
from hq_service.domain.connection import (
    ConnectionState,
    LockFigures,
    RegisterPresence,
    Report,
)
from hq_service.operations import completeness, connection
from hq_service.operations.clock import now
from hq_service.operations.connection import RegisterStatus, StoreExposure

blueprint = Blueprint("admin-connection", "Connection status and completeness")
auth.protect(blueprint)

Answer = dict[str, Any]


@blueprint.route("/v1/admin/connection-status", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(schemas.ConnectionPageSchema, location="query")
@blueprint.response(200, schemas.ConnectionStatusSchema)
def list_connection_status(page: Mapping[str, Any]) -> Answer:
    """Tell of every register whether it is online, what it told last, and what it may be spending
    offline.
    """
    as_of = now()
    state = ConnectionState(page["state"]) if page["state"] else None
    found, end = connection.list_registers(**{**page, "state": state}, now=as_of)
    return {
        "as_of": as_of,
        "registers": [_status(one) for one in found],
        "next_after": "/".join(end) if end else None,
    }


@blueprint.route("/v1/admin/stores/<store_id>/exposure", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, schemas.StoreExposureSchema)
def show_exposure(store_id: str) -> Answer:
    """Tell what the registers of a store may be spending offline at this moment."""
    require_possible("store_not_found", store_id)
    as_of = now()
    return {"as_of": as_of, **_exposure(connection.exposure(store_id, as_of))}


@blueprint.route("/v1/admin/completeness", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(schemas.CompletenessPageSchema, location="query")
@blueprint.response(200, schemas.CompletenessSchema)
def report_completeness(page: Mapping[str, Any]) -> Answer:
    """Tell which registers have not delivered everything up to a business date, and why not.

    Registers that were created after the date are left out, and those that were retired before it
    if nothing of them is left that HQ knows of.
    """
    as_of = now()
    summary, found, end = completeness.report(**page)
    return {
        "business_date": page["business_date"],
        "as_of": as_of,
        "summary": _summary(summary),
        "registers": [_completeness(one) for one in found],
        "next_after": "/".join(end) if end else None,
    }


def _status(one: RegisterStatus) -> Answer:
    register = one.register
    return {
        **_place(register),
        "supports_offline": register.supports_offline,
        "state": one.state,
        "since": one.since,
        "last_seen_at": register.last_seen_at,
        "report": _report(register.report),
        "live_locks_count": one.locks_count,
        "unspent_grants_count": one.grants_count,
        "exposures_minor": one.exposures_minor,
        "journal_gaps_count": one.journal_gaps_count,
        "acknowledged_revision": register.acknowledged_revision,
        "reported_revision": register.reported_revision,
    }


def _place(register: RegisterPresence) -> Answer:
    return {name: getattr(register, name) for name in ("store_id", "terminal_id", "name")}


def _report(told: Report | None) -> Answer | None:
    if told is None:
        return None
    members = {name: getattr(told, name) for name in Report.__slots__}
    names = ("at", "status", "message")
    return {**members, "last_sync": {name: members[f"last_sync_{name}"] for name in names}}


def _exposure(found: StoreExposure) -> Answer:
    of_register = {
        one.register.terminal_id: [_of_currency([lock]) for lock in one.locks if lock.grants_count]
        for one in found.registers
    }
    locks = [lock for one in found.registers for lock in one.locks if lock.grants_count]
    currencies = sorted({lock.currency for lock in locks})
    return {
        "store_id": found.store_id,
        "by_currency": [
            _of_currency([lock for lock in locks if lock.currency == currency])
            for currency in currencies
        ],
        "registers": [
            {
                **_place(one.register),
                "state": one.state,
                "since": one.since,
                "by_currency": of_register[one.register.terminal_id],
            }
            for one in found.registers
        ],
    }


def _of_currency(locks: Sequence[LockFigures]) -> Answer:
    horizons = [one.next_horizon_at for one in locks if one.next_horizon_at is not None]
    granted: list[datetime] = [one.oldest_grant_at for one in locks if one.oldest_grant_at]
    return {
        "currency": locks[0].currency,
        "unspent_grants_count": sum(one.grants_count for one in locks),
        "exposure_minor": sum(one.exposure_minor for one in locks),
        "oldest_grant_at": min(granted),
        "next_horizon_at": min(horizons, default=None),
        "past_horizon_count": sum(one.past_horizon_count for one in locks),
    }


def _summary(summary: Summary) -> Answer:
    stores, registers = summary.stores_count, summary.registers_count
    return {
        "stores_count": stores,
        "stores_complete_count": summary.stores_complete_count,
        "stores_incomplete_count": stores - summary.stores_complete_count,
        "registers_count": registers,
        "registers_complete_count": summary.registers_complete_count,
        "registers_incomplete_count": registers - summary.registers_complete_count,
        "registers_left_out_count": summary.registers_left_out_count,
    }


def _completeness(one: Completeness) -> Answer:
    register = one.delivery.register
    return {
        **_place(register),
        "day_ends_at": one.day_ends_at,
        "is_complete": one.is_complete,
        "reasons": list(one.reasons),
        "retired_at": register.retired_at,
        "last_seen_at": register.last_seen_at,
        "report": _report(register.report),
        "journal_gaps_count": one.journal_gaps_count,
        "journals_behind_count": one.journals_behind_count,
        "unsettled_batches_count": one.delivery.unsettled_batches_count,
        "live_grants_count": one.live_grants_count,
        "open_cases_count": one.delivery.open_cases_count,
    }
