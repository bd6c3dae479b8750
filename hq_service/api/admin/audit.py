"""The audit, for those who look over administrators' shoulders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint
from hq_service.api.pages import one_page
from hq_service.api.schemas.audit import NEWEST, AuditEntriesSchema, AuditPageSchema
from hq_service.domain.actors import Role
from hq_service.domain.audit import AuditEntry
from hq_service.operations import audit
from hq_service.operations.audit import EntryFilter

blueprint = Blueprint("admin-audit", "The audit")
auth.protect(blueprint)

Answer = dict[str, Any]


@blueprint.route("/v1/admin/audit-entries", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(AuditPageSchema, location="query")
@blueprint.response(200, AuditEntriesSchema)
def list_entries(page: Mapping[str, Any]) -> Answer:
    """Tell who did what to what, and why: in the order of the chain, or the newest first."""
    found = audit.list_entries(
        EntryFilter(page["subject"], page["action"], page["actor"], page["recorded_from"]),
        after=page["after"],
        limit=page["limit"] + 1,
        newest_first=page["order"] == NEWEST,
    )
    told, next_after = one_page(found, page["limit"], lambda entry: entry.number)
    return {"entries": [members(entry) for entry in told], "next_after": next_after}


def members(entry: AuditEntry) -> Answer:
    """Return what an answer tells of an entry."""
    return {
        "number": entry.number,
        "recorded_at": entry.recorded_at,
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "detail": entry.told,
        "hash": entry.hash.hex(),
    }
