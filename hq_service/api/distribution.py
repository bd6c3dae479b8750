"""Distribution as a store's sync job sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import Response

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint
from hq_service.api.headers import CHECKSUM_TOLD
from hq_service.api.pages import one_page
from hq_service.api.schemas.distribution import (
    AcknowledgementSchema,
    PackageSchema,
    SessionSchema,
    SessionsSchema,
    ToDoPageSchema,
)
from hq_service.domain.actors import Role
from hq_service.domain.distribution import JOB_BY_ID, Session, SessionStatus
from hq_service.operations import deliveries
from hq_service.operations.clock import now

blueprint = Blueprint("distribution", "Distribution, for the sync jobs of stores")
auth.protect(blueprint)

Answer = dict[str, Any]


@blueprint.route("/v1/distribution-sessions", methods=["GET"])
@auth.allow(Role.SYNC)
@blueprint.arguments(ToDoPageSchema, location="query")
@blueprint.response(200, SessionsSchema)
def list_to_do(page: Mapping[str, Any]) -> Answer:
    """Tell what the caller's store has to do, the oldest first."""
    found = deliveries.to_do(auth.current_actor(), after=page["after"], limit=page["limit"] + 1)
    return page_members(found, page["limit"])


@blueprint.route("/v1/distribution-sessions/<uuid:session_id>/package", methods=["GET"])
@auth.allow(Role.SYNC)
@blueprint.response(200, PackageSchema, headers=CHECKSUM_TOLD)
def fetch_package(session_id: UUID) -> Any:
    """Give the package of a download session, and count a try.

    The ETag is the SHA-256 of exactly these bytes. Fetching again is safe, and the same try until
    a failure is told.
    """
    session, package = deliveries.fetch(session_id, auth.current_actor(), now())
    response = Response(package, content_type="application/json")
    response.headers["ETag"] = f'"{_hexadecimal(session.checksum_sha256)}"'
    return response


@blueprint.route("/v1/distribution-sessions/<uuid:session_id>/acknowledgements", methods=["POST"])
@auth.allow(Role.SYNC)
@blueprint.arguments(AcknowledgementSchema)
@blueprint.response(200, SessionSchema)
def acknowledge(wish: Mapping[str, Any], session_id: UUID) -> Answer:
    """Take down what became of a session at the store. The same again is answered the same."""
    checksum = wish["checksum_sha256"]
    session = deliveries.acknowledge(
        session_id,
        SessionStatus(wish["status"]),
        bytes.fromhex(checksum) if checksum is not None else None,
        wish["message"],
        auth.current_actor(),
        now(),
    )
    return members(session)


def page_members(found: list[Session], limit: int) -> Answer:
    """Return what an answer tells of a page of sessions, of which one more was looked for."""
    told, next_after = one_page(found, limit, lambda session: session.session_id)
    return {"sessions": [members(session) for session in told], "next_after": next_after}


def members(session: Session) -> Answer:
    """Return what an answer tells of a session."""
    told = {name: getattr(session, name) for name in Session.__slots__}
    return {
        **told,
        "job_name": JOB_BY_ID[session.job_id].name,
        "checksum_sha256": _hexadecimal(session.checksum_sha256),
    }


def _hexadecimal(checksum: bytes | None) -> str | None:
    return checksum.hex() if checksum is not None else None
