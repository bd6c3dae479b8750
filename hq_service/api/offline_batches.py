"""Offline batches: what sync jobs post."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from flask import request
from marshmallow import fields, validate

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint, keyring, settings
from hq_service.api.bodies import read_body, read_json
from hq_service.api.problems import pointers
from hq_service.api.schemas import selling
from hq_service.api.schemas.common import StrictSchema, identifier
from hq_service.api.selling import REPLAYED
from hq_service.domain.actors import Role
from hq_service.domain.errors import InvalidRequest, TooLarge
from hq_service.domain.reading import read_line
from hq_service.operations import offline_batches
from hq_service.operations.clock import now
from hq_service.operations.offline_batches import PAGE_LINES_MAX, BatchState, Envelope

blueprint = Blueprint("offline-batches", "What sync jobs post")
auth.protect(blueprint)

Answer = dict[str, Any]


class EnvelopeSchema(StrictSchema):
    """The envelope; its lines are read one by one."""

    batch_id = identifier()
    store_id = identifier()
    lines = fields.Raw(required=True)


class PageSchema(StrictSchema):
    """Which page of lines."""

    after = fields.Integer(load_default=-1, validate=validate.Range(-1, 2**31 - 1))
    limit = fields.Integer(load_default=PAGE_LINES_MAX, validate=validate.Range(1, PAGE_LINES_MAX))


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
    envelope, raw_lines = _envelope(body)
    lines = [
        read_line(raw, position, envelope.store_id, keyring(), received_at)
        for position, raw in enumerate(raw_lines)
    ]
    actor = auth.current_actor()
    is_new = offline_batches.post(
        envelope,
        lines,
        actor,
        keyring(),
        received_at,
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
    return _members(offline_batches.state(store_id, batch_id, auth.current_actor()))


@blueprint.route("/v1/offline-batches/<store_id>/<batch_id>/lines", methods=["GET"])
@auth.allow(Role.SYNC, Role.TERMINAL, Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(PageSchema, location="query")
@blueprint.response(200, selling.LineResultsSchema)
def get_lines(page: Mapping[str, int], store_id: str, batch_id: str) -> Answer:
    """Tell what the lines of a batch came to, in the sender's order."""
    results = offline_batches.lines(
        store_id, batch_id, auth.current_actor(), after=page["after"], limit=page["limit"]
    )
    is_last = len(results) < page["limit"]
    return {"results": results, "next_after": None if is_last else results[-1]["position"]}


def _envelope(body: bytes) -> tuple[Envelope, list[Any]]:
    raw = read_json(body)
    found = EnvelopeSchema().validate(raw) if isinstance(raw, dict) else {"": ["Not an object."]}
    if found:
        raise InvalidRequest(
            errors=[{"pointer": place, "detail": text} for place, text in pointers(found)]
        )
    lines = raw["lines"]
    if not isinstance(lines, list) or not lines:
        raise InvalidRequest(
            errors=[{"pointer": "/lines", "detail": "must be an array of at least one line"}]
        )
    if len(lines) > settings().batch_lines_max:
        raise TooLarge(f"A batch has at most {settings().batch_lines_max} lines; send several.")
    return Envelope(raw["store_id"], raw["batch_id"], hashlib.sha256(body).digest()), lines


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
