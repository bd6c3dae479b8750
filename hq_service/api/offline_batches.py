"""Offline batches: what sync jobs post."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import request
from marshmallow import validate

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint, keyring, settings
from hq_service.api.bodies import read_body
from hq_service.api.schemas import selling
from hq_service.api.schemas.common import QueryInteger, StrictSchema
from hq_service.api.selling import REPLAYED
from hq_service.domain.actors import Role
from hq_service.domain.errors import NotFound
from hq_service.domain.reading import is_identifier
from hq_service.operations import offline_batches
from hq_service.operations.clock import now
from hq_service.operations.offline_batches import PAGE_LINES_MAX, BatchState

blueprint = Blueprint("offline-batches", "What sync jobs post")
auth.protect(blueprint)

Answer = dict[str, Any]


class PageSchema(StrictSchema):
    """Which page of lines."""

    after = QueryInteger(load_default=-1, validate=validate.Range(-1, 2**31 - 1))
    limit = QueryInteger(load_default=PAGE_LINES_MAX, validate=validate.Range(1, PAGE_LINES_MAX))


@blueprint.route("/v1/offline-batches", methods=["POST"])
@auth.allow(Role.SYNC, Role.TERMINAL)
@blueprint.doc(
    requestBody={
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/OfflineBatchRequest"}}
        },
    }
)
@blueprint.response(201, selling.OfflineBatchSchema)
@blueprint.alt_response(
    200, schema=selling.OfflineBatchSchema, description="Received before; the same results"
)
def post_batch() -> tuple[Answer, int, dict[str, str]]:
    """Settle the transactions that tills concluded offline, each exactly once.

    No line is rejected: what is in doubt is posted with a case, held or quarantined, and the
    other lines go on.
    """
    body = read_body(request, bytes_max=settings().batch_body_bytes_max)
    received_at = now()
    actor = auth.current_actor()
    envelope, is_new = offline_batches.post(
        body,
        actor,
        keyring(),
        received_at,
        lines_max=settings().batch_lines_max,
        chunk_lines=settings().settle_chunk_lines,
    )
    state = offline_batches.state(envelope.store_id, envelope.batch_id, actor)
    answer = {**_members(state), "results": _all_results(state)}
    location = f"/v1/offline-batches/{envelope.store_id}/{envelope.batch_id}"
    if is_new:
        return answer, 201, {"Location": location}
    return answer, 200, {"Location": location, **REPLAYED}


@blueprint.route("/v1/offline-batches/<store_id>/<batch_id>", methods=["GET"])
@auth.allow(Role.SYNC, Role.TERMINAL, Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, selling.OfflineBatchStateSchema)
def get_batch(store_id: str, batch_id: str) -> Answer:
    """Tell how far a batch is settled."""
    _require_possible(store_id, batch_id)
    return _members(offline_batches.state(store_id, batch_id, auth.current_actor()))


@blueprint.route("/v1/offline-batches/<store_id>/<batch_id>/lines", methods=["GET"])
@auth.allow(Role.SYNC, Role.TERMINAL, Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(PageSchema, location="query")
@blueprint.response(200, selling.LineResultsSchema)
def get_lines(page: Mapping[str, int], store_id: str, batch_id: str) -> Answer:
    """Tell what the lines of a batch came to, in the sender's order."""
    _require_possible(store_id, batch_id)
    results = offline_batches.lines(
        store_id, batch_id, auth.current_actor(), after=page["after"], limit=page["limit"]
    )
    is_last = len(results) < page["limit"]
    return {"results": results, "next_after": None if is_last else results[-1]["position"]}


def _require_possible(store_id: str, batch_id: str) -> None:
    """Refuse names that no batch can have; the database would fail on a NUL."""
    if not is_identifier(store_id) or not is_identifier(batch_id):
        raise NotFound(code="batch_not_found")


def _members(state: BatchState) -> Answer:
    return {
        "store_id": state.store_id,
        "batch_id": state.batch_id,
        "received_at": state.received_at,
        "settled_at": state.settled_at,
        "lines_count": state.lines_count,
        "settled_count": state.settled_count,
        "counts": state.counts,
    }


def _all_results(state: BatchState) -> list[Answer]:
    return offline_batches.lines(
        state.store_id,
        state.batch_id,
        auth.current_actor(),
        after=-1,
        limit=state.lines_count,
    )
