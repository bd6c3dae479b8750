"""Offline batches: what sync jobs post."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from flask import Flask, Response, current_app, request
from marshmallow import validate

from hq_service.api import auth
from hq_service.api.answers import written
from hq_service.api.blueprints import Blueprint, keyring, settings
from hq_service.api.bodies import NDJSON, batch_pieces
from hq_service.api.headers import LOCATION_TOLD, REPLAY_TOLD, REPLAYED
from hq_service.api.names import require_possible
from hq_service.api.schemas import selling
from hq_service.api.schemas.common import QueryInteger, StrictSchema
from hq_service.domain.actors import Role
from hq_service.domain.errors import HqError, Unavailable
from hq_service.domain.model import Line, UnreadableLine
from hq_service.domain.outcomes import LineResult
from hq_service.domain.reading import Envelope
from hq_service.operations import offline_batches, waiting
from hq_service.operations.batch_lines import BatchReader, Lines, ReceivedLines
from hq_service.operations.clock import now
from hq_service.operations.offline_batches import PAGE_LINES_MAX, BatchState

blueprint = Blueprint("offline-batches", "What sync jobs post")
auth.protect(blueprint)

Answer = dict[str, Any]
Judged = tuple[Line | UnreadableLine, LineResult]

KEPT = (
    "The batch is kept, and the database is away or too busy to settle it now. Repeat it with the"
    " same bytes: it goes on where it stopped, and you learn its results."
)

# What is told of a result: answers are written as they are, no schema leaves anything out.
_TOLD = [name for name in LineResult.__slots__ if name in selling.LineResultSchema().fields]

# What is being settled behind its answer, by application, store and batch.
_settling: set[tuple[Flask, str, str]] = set()
_settling_lock = threading.Lock()

logger = logging.getLogger(__name__)


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
            "application/json": {"schema": {"$ref": "#/components/schemas/OfflineBatchRequest"}},
            "application/x-ndjson": {"schema": {"type": "string"}},
        },
    }
)
@blueprint.response(201, selling.OfflineBatchSchema, headers=LOCATION_TOLD)
@blueprint.alt_response(
    200,
    schema=selling.OfflineBatchSchema,
    description="Received before: the same results; or a dry run: what it would come to",
    headers={**LOCATION_TOLD, **REPLAY_TOLD},
)
@blueprint.alt_response(
    202,
    schema=selling.OfflineBatchStateSchema,
    description="Kept, and being settled",
    headers={**LOCATION_TOLD, **REPLAY_TOLD},
)
def post_batch() -> Response:
    """Settle the transactions that tills concluded offline, each exactly once.

    JSON, or NDJSON whose first line is the envelope; gzip is taken. No line is rejected: what is
    in doubt is posted with a case, held or quarantined, and the other lines go on. A large batch
    is kept and answered with 202; its Location tells how far it is.
    """
    content_type, pieces = batch_pieces(request, bytes_max=settings().batch_body_bytes_max)
    reader = BatchReader(
        keyring(),
        now(),
        lines_max=settings().batch_lines_max,
        kept_max=settings().batch_synchronous_lines_max,
    )
    envelope, lines = reader.read(pieces, is_ndjson=content_type == NDJSON)
    received_at = now()  # a slow sender has taken its time
    actor = auth.current_actor()
    if envelope.dry_run:
        judged = offline_batches.dry_run(envelope, lines.kept, actor, keyring(), received_at)
        return written(200, _rehearsed(envelope, judged, received_at))
    is_new = offline_batches.receive(envelope, lines, actor, received_at)
    try:
        response = _settled(envelope, lines, received_at, is_new=is_new)
    except Unavailable as error:
        raise Unavailable(KEPT, **error.members) from error
    response.headers["Location"] = f"/v1/offline-batches/{envelope.store_id}/{envelope.batch_id}"
    response.headers.update({} if is_new else REPLAYED)
    return response


def _settled(
    envelope: Envelope, lines: ReceivedLines, received_at: datetime, *, is_new: bool
) -> Response:
    """Settle a batch that was received, a large one behind the answer; return the answer."""
    store_id, batch_id = envelope.store_id, envelope.batch_id
    actor = auth.current_actor()
    if len(lines) > settings().batch_synchronous_lines_max:
        state = offline_batches.state(store_id, batch_id, actor)
        if state.settled_at is not None:
            # Whoever settled it may have ended before they looked.
            waiting.judge_again_behind(keyring(), received_at)
            return written(200, _members(state))
        settle_in_background(store_id, batch_id)
        return written(202, _members(state))
    settle_now(store_id, batch_id, received_at, lines.kept if is_new else None)
    state, results = offline_batches.state_with_lines(store_id, batch_id, actor, limit=len(lines))
    return written(201 if is_new else 200, {**_members(state), "results": results})


def settle_now(store_id: str, batch_id: str, at: datetime, lines: Lines | None = None) -> None:
    """Settle a batch and whatever is unsettled before it, and what waited for them.

    Shapes:  ``lines`` as `offline_batches.settle_batch` takes them.
    """
    may_end_a_wait = offline_batches.settle_store(
        store_id, batch_id, keyring(), at, chunk_lines=settings().settle_chunk_lines, lines=lines
    )
    if may_end_a_wait:
        waiting.judge_again_behind(keyring(), at)


def settle_in_background(store_id: str, batch_id: str) -> None:
    """Settle a large batch behind its answer, unless that is under way: senders repeat themselves.

    If the process ends meanwhile, nothing is lost: posting the batch again goes on where it
    stopped, and so does ``hq settle-pending``.
    """
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    this = (app, store_id, batch_id)
    with _settling_lock:
        if this in _settling:
            return
        _settling.add(this)

    def run() -> None:
        try:
            with app.app_context():
                settle_now(store_id, batch_id, now())
        except Exception as error:  # noqa: BLE001 - nobody waits for this thread
            # The text of an error may hold what a line held: only its type, or its code.
            told = error.code if isinstance(error, HqError) else type(error).__name__
            extra = {"action": "settle", "store_id": store_id, "batch_id": batch_id}
            logger.warning("settling goes on later", extra={**extra, "outcome": told})
        finally:
            with _settling_lock:
                _settling.discard(this)

    threading.Thread(target=run, name=f"settle-{store_id}", daemon=True).start()


@blueprint.route("/v1/offline-batches/<store_id>/<batch_id>", methods=["GET"])
@auth.allow(Role.SYNC, Role.TERMINAL, Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, selling.OfflineBatchStateSchema)
def get_batch(store_id: str, batch_id: str) -> Answer:
    """Tell how far a batch is settled."""
    require_possible("batch_not_found", store_id, batch_id)
    return _members(offline_batches.state(store_id, batch_id, auth.current_actor()))


@blueprint.route("/v1/offline-batches/<store_id>/<batch_id>/lines", methods=["GET"])
@auth.allow(Role.SYNC, Role.TERMINAL, Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(PageSchema, location="query")
@blueprint.response(200, selling.LineResultsSchema)
def get_lines(page: Mapping[str, int], store_id: str, batch_id: str) -> Response:
    """Tell what the lines of a batch came to, in the sender's order."""
    require_possible("batch_not_found", store_id, batch_id)
    results, next_after = offline_batches.lines(
        store_id, batch_id, auth.current_actor(), after=page["after"], limit=page["limit"]
    )
    return written(200, {"results": results, "next_after": next_after})


def _rehearsed(envelope: Envelope, judged: Sequence[Judged], received_at: datetime) -> Answer:
    """Return the answer to a dry run: what would have been stored, and was not."""
    results = [
        {
            "position": line.position,
            "terminal_id": line.place.terminal_id if line.place else None,
            "transaction_id": line.key.transaction_id if line.key else None,
            "line": line.key.line if line.key else None,
            "instrument_id": getattr(line, "instrument_id", None),
            "reason": line.reason if isinstance(line, UnreadableLine) else None,
            **{name: getattr(result, name) for name in _TOLD},
        }
        for line, result in judged
    ]
    counts = Counter(str(result.outcome) for _, result in judged)
    return {
        "store_id": envelope.store_id,
        "batch_id": envelope.batch_id,
        "dry_run": True,
        "received_at": received_at,
        "settled_at": None,
        "lines_count": len(results),
        "settled_count": 0,
        "counts": counts,
        "journals": [],
        "results": results,
    }


def _members(state: BatchState) -> Answer:
    return {
        "store_id": state.store_id,
        "batch_id": state.batch_id,
        "dry_run": False,
        "received_at": state.received_at,
        "settled_at": state.settled_at,
        "lines_count": state.lines_count,
        "settled_count": state.settled_count,
        "counts": state.counts,
        "journals": [
            {
                "terminal_id": terminal_id,
                "journal_id": journal_id,
                "acknowledged_through": journal.acknowledged_through,
                "gaps": [{"first": first, "last": last} for first, last in journal.gaps()],
            }
            for (terminal_id, journal_id), journal in state.journals.items()
        ],
    }
