"""Every error as a problem document (RFC 9457), and the one table of their codes.

``docs/problems.md`` has a row for each; a test compares the two.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from flask import Flask, Response, g
from flask_smorest import Api
from werkzeug.exceptions import HTTPException

from hq_service.api.headers import RETRY_TOLD
from hq_service.domain import errors
from hq_service.domain.reading import pointer_to

CONTENT_TYPE = "application/problem+json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """A kind of problem: its HTTP status, a title, and what Dynamics calls it, if it does."""

    status: int
    title: str
    retryable: bool = False
    dynamics_code: str | None = None


_DYNAMICS = "Microsoft_Dynamics_Commerce_Runtime_"

PROBLEMS: Mapping[str, Problem] = {
    "malformed_body": Problem(400, "The body cannot be read"),
    "unauthenticated": Problem(401, "A valid API key is needed"),
    "forbidden": Problem(403, "This API key may not do this"),
    "foreign_terminal": Problem(403, "Not this key's store and terminal"),
    "foreign_store": Problem(403, "Not this key's store"),
    "terminal_retired": Problem(
        403, "The register or its store is retired", dynamics_code=f"{_DYNAMICS}TerminalNotFound"
    ),
    "not_found": Problem(404, "Not found"),
    "instrument_not_found": Problem(404, "No such instrument"),
    "batch_not_found": Problem(404, "No such batch"),
    "transaction_not_found": Problem(404, "No such transaction"),
    "case_not_found": Problem(404, "No such case"),
    "lock_not_found": Problem(404, "No such live lock"),
    "store_not_found": Problem(404, "No such store"),
    "register_not_found": Problem(
        404, "No such register", dynamics_code=f"{_DYNAMICS}TerminalNotFound"
    ),
    "offline_profile_not_found": Problem(404, "No such offline profile"),
    "key_not_found": Problem(404, "No such API key"),
    "schedule_not_found": Problem(404, "No such distribution schedule"),
    "session_not_found": Problem(404, "No such session"),
    "package_not_found": Problem(404, "An upload session has no package"),
    "method_not_allowed": Problem(405, "The method is not allowed here"),
    "refused": Problem(409, "A rule refuses it"),
    "lock_lost": Problem(409, "The instrument no longer carries this lock"),
    "insufficient_balance": Problem(
        409,
        "The balance does not cover the amount",
        dynamics_code=f"{_DYNAMICS}PaymentAmountExceedsGiftBalance",
    ),
    "currency_mismatch": Problem(
        409,
        "The instrument is in another currency",
        dynamics_code=f"{_DYNAMICS}GiftCardCurrencyMismatch",
    ),
    "voided": Problem(
        409,
        "This business key was voided",
        dynamics_code=f"{_DYNAMICS}PaymentAlreadyVoided",
    ),
    "held": Problem(409, "This line is held in a case"),
    "already_concluded": Problem(409, "This line is already concluded"),
    "instrument_already_in_transaction": Problem(
        409,
        "The instrument is already in this transaction",
        dynamics_code=f"{_DYNAMICS}NoMoreThanOneOperationWithAGiftCard",
    ),
    "instrument_already_active": Problem(409, "The instrument was issued before"),
    "instrument_not_active": Problem(409, "The instrument is not active yet"),
    "instrument_blocked": Problem(409, "The instrument is blocked"),
    "instrument_expired": Problem(409, "The instrument has expired"),
    "instrument_closed": Problem(409, "The instrument is closed"),
    "instrument_applied": Problem(409, "The credit memo was used"),
    "instrument_exists": Problem(409, "The number is taken"),
    "operation_not_allowed": Problem(409, "Not with this kind of instrument"),
    "cash_out_not_allowed": Problem(409, "The balance may not be cashed out"),
    "cash_out_not_whole": Problem(409, "Only the whole balance is cashed out"),
    "unknown_original": Problem(409, "There is no such line to refund"),
    "refund_exceeds_original": Problem(
        409,
        "More than the original line",
        dynamics_code=f"{_DYNAMICS}RefundAmountMoreThanAllowed",
    ),
    "balance_limit_exceeded": Problem(409, "The balance would be above the limit"),
    "exposure_changed": Problem(409, "The exposure is not what was shown"),
    "resolution_not_possible": Problem(409, "The case cannot be resolved like this"),
    "case_resolved": Problem(409, "The case is resolved already"),
    "already_exists": Problem(409, "The id is taken"),
    "retired": Problem(409, "It is retired"),
    "register_not_clear": Problem(409, "What is at stake is not what was accepted"),
    "store_not_clear": Problem(409, "What is at stake is not what was accepted"),
    "offline_profile_in_use": Problem(409, "Registers use this offline profile"),
    "key_not_live": Problem(409, "The API key is revoked, expired or replaced"),
    "last_administrator": Problem(409, "It is the last administrator's key"),
    "schedule_inactive": Problem(409, "The distribution schedule is not active"),
    "session_ended": Problem(409, "The session has ended"),
    "acknowledgement_not_possible": Problem(409, "The session cannot become that now"),
    "checksum_mismatch": Problem(409, "These are not the bytes of the package"),
    "precondition_failed": Problem(412, "It was changed meanwhile"),
    "payload_too_large": Problem(413, "The body is too large"),
    "unsupported_media_type": Problem(415, "The content type is not supported"),
    "validation_failed": Problem(422, "The request does not fit its schema"),
    "business_key_reused": Problem(422, "The business key stands for something else"),
    "batch_id_reused": Problem(422, "The batch_id stands for other bytes"),
    "instrument_locked": Problem(423, "Another transaction holds the instrument", retryable=True),
    "precondition_required": Problem(428, "If-Match is needed"),
    "internal_error": Problem(500, "An internal error", retryable=True),
    "unavailable": Problem(
        503,
        "The database is away or too busy",
        retryable=True,
        dynamics_code=f"{_DYNAMICS}HeadquarterCommunicationFailure",
    ),
    "outcome_unknown": Problem(503, "Whether it was applied is not known", retryable=True),
}

REMEDIES: Mapping[str, str] = {
    "malformed_body": "Send one JSON document in UTF-8, with each member once.",
    "unauthenticated": "Send the header Authorization: Bearer and a key that is not revoked.",
    "forbidden": "Use a key with another role.",
    "foreign_terminal": "Name the store and terminal that the key stands for.",
    "foreign_store": "Name the store that the key stands for.",
    "terminal_retired": "Use another register; this one, or its store, is retired.",
    "not_found": "Check the path; /openapi.json has them all.",
    "instrument_not_found": "Check kind and number.",
    "batch_not_found": "Check store_id and batch_id.",
    "method_not_allowed": "Use a method that the header Allow names.",
    "refused": "Do not repeat it unchanged.",
    "lock_lost": "Void the line, lock the instrument again and repeat under a new line.",
    "insufficient_balance": "Ask for no more than the lock's max_amount_minor.",
    "currency_mismatch": "Use the currency of the instrument.",
    "voided": "Use a new line; a voided business key never has an effect.",
    "held": "An administrator resolves the case; do not repeat the line under another key.",
    "already_concluded": "Repeat the conclusion to learn its result; it needs no lock.",
    "instrument_already_in_transaction": "Conclude or release the first line before the second.",
    "instrument_already_active": "Load the instrument instead of issuing it.",
    "instrument_not_active": "Conclude the issue of the instrument first.",
    "instrument_blocked": "Take another tender.",
    "instrument_expired": "Take another tender.",
    "instrument_closed": "Take another tender.",
    "instrument_applied": "Take another tender; a credit memo is used once.",
    "instrument_exists": "Choose another number, or leave it out and HQ makes one.",
    "transaction_not_found": "Check the business key; nothing of it has arrived at HQ.",
    "case_not_found": "Check case_id.",
    "lock_not_found": "Look the instrument up again; it is not locked by that lock any more.",
    "store_not_found": "Check store_id.",
    "register_not_found": "Check store_id and terminal_id.",
    "offline_profile_not_found": "Check offline_profile_id.",
    "key_not_found": "Check key_id.",
    "already_exists": "Choose another id, or edit the one that is there.",
    "retired": "Reactivate it first, or take another one.",
    "register_not_clear": "Look at what is at stake now, and accept exactly that.",
    "store_not_clear": "Look at what is at stake now, and accept exactly that.",
    "offline_profile_in_use": "Give the registers another profile first.",
    "key_not_live": "Look at the key: it says when it ended, and which key replaced it.",
    "last_administrator": "Create another administrator's key first.",
    "schedule_not_found": "Check schedule_id.",
    "session_not_found": "Look at the list of sessions again.",
    "package_not_found": "Post what is pending, then acknowledge uploaded.",
    "schedule_inactive": "Set is_active to true first, or run another schedule.",
    "session_ended": "Look at the session: it says how it ended; an administrator can rerun it.",
    "acknowledgement_not_possible": "Tell one of possible_acknowledgements.",
    "checksum_mismatch": "Fetch the package again, and apply exactly those bytes.",
    "operation_not_allowed": "A credit memo is issued and redeemed, nothing else.",
    "cash_out_not_allowed": "Redeem it; the threshold for cashing out is a Commerce parameter.",
    "cash_out_not_whole": "Ask for exactly the lock's max_amount_minor.",
    "unknown_original": "Check the original's business key, or refund without one, with a reason.",
    "refund_exceeds_original": "Refund no more than is left of the original line.",
    "balance_limit_exceeded": "Put less on the instrument; a balance is below 2^53.",
    "exposure_changed": "Look at the lock again, and confirm the exposure that it has now.",
    "resolution_not_possible": "Look at the case: its possible_resolutions say what is.",
    "case_resolved": "Look at the case: it says who resolved it, how and why.",
    "precondition_failed": "Read it again, look at what changed, and edit that.",
    "payload_too_large": "Send less at a time; the README has the limits.",
    "unsupported_media_type": "Send application/json without Content-Encoding.",
    "validation_failed": "Mend what errors point at and send it again.",
    "business_key_reused": "Give every line of every transaction a business key of its own.",
    "batch_id_reused": "Give every batch an id of its own; repeat a batch with the same bytes.",
    "instrument_locked": "Wait for Retry-After, or take another tender.",
    "precondition_required": "Send If-Match with the ETag that you read.",
    "internal_error": "Repeat it with the same business key; tell the operator the request_id.",
    "unavailable": "Wait for Retry-After and repeat it with the same business key.",
    "outcome_unknown": "Repeat it with the same business key to find out.",
}
"""What to do about it, for every code; a raiser may say it better."""

_CODE_OF_HTTP = {
    400: "malformed_body",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "validation_failed",
}


@dataclass(frozen=True, slots=True)
class Document:
    """A problem document, ready to be sent with its headers."""

    status: int
    content: bytes
    headers: Mapping[str, str]


def document_of(
    code: str, detail: str | None, members: Mapping[str, Any], request_id: str | None
) -> Document:
    """Return a problem document; ``retry_after_seconds`` in ``members`` becomes Retry-After."""
    kind = PROBLEMS[code]
    document = {
        "type": f"/problems/{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail or REMEDIES.get(code) or kind.title,
        "code": code,
        "request_id": request_id,
        "retryable": kind.retryable,
    }
    if kind.dynamics_code is not None:
        document["dynamics_code"] = kind.dynamics_code
    headers = {}
    if "retry_after_seconds" in members:
        headers["Retry-After"] = str(members["retry_after_seconds"])
    if kind.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="hq"'
    return Document(kind.status, orjson.dumps({**document, **members}), headers)


def problem(
    code: str,
    detail: str | None = None,
    members: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer the current request with a problem document, and note its code for the log."""
    document = document_of(code, detail, members or {}, g.get("request_id"))
    g.outcome = code
    return Response(
        document.content,
        status=document.status,
        content_type=CONTENT_TYPE,
        headers={**(headers or {}), **document.headers},
    )


def register(app: Flask) -> None:
    """Let the application answer every error as a problem document, and describe it so."""
    _describe(app)

    @app.errorhandler(errors.HqError)
    def hq_error(error: errors.HqError) -> Response:
        return problem(error.code, error.detail, error.members)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        fallback = "malformed_body" if 400 <= status < 500 else "internal_error"
        code = _CODE_OF_HTTP.get(status, fallback)
        members: dict[str, Any] = {}
        messages = getattr(error, "data", {}).get("messages")  # put there by the schema parser
        if messages:
            members["errors"] = [
                {"pointer": pointer, "detail": text} for pointer, text in pointers(messages)
            ]
        headers = {
            name: value
            for name, value in error.get_headers()
            if name in ("Allow", "Retry-After", "Accept")
        }
        return problem(code, None, members, headers)

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        # The text of the error may hold what the request held: only its type and where it was.
        logger.error(
            "internal error",
            extra={
                "action": "internal_error",
                "error": type(error.__cause__ or error).__name__,
                "frames": traceback.format_tb(error.__traceback__),
            },
        )
        return problem("internal_error")


def _describe(app: Flask) -> None:
    """Give errors their content type and headers in the OpenAPI description, too.

    The generator knows one content type for everything; of the responses that it shares between
    endpoints all are errors.
    """
    for registered in app.extensions["flask-smorest"]["apis"].values():
        shared = registered["ext_obj"].spec.components.responses
        for one in shared.values():
            one["content"][CONTENT_TYPE] = one["content"].pop("application/json")
        shared[Api.DEFAULT_ERROR_RESPONSE_NAME]["headers"] = dict(RETRY_TOLD)


def pointers(messages: object, prefix: str = "") -> list[tuple[str, str]]:
    """Return the faults of a schema as JSON pointers and sentences."""
    if isinstance(messages, Mapping):
        found = []
        for name, inner in messages.items():
            is_place = name not in ("json", "query", "_schema")
            place = prefix + pointer_to(name) if is_place else prefix
            found += pointers(inner, place)
        return found
    if isinstance(messages, list | tuple):
        return [pair for one in messages for pair in pointers(one, prefix)]
    return [(prefix, str(messages))]
