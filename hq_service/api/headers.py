"""Headers of requests and answers, as the OpenAPI description tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Described = Mapping[str, Mapping[str, Any]]

REPLAYED = {"Idempotency-Replayed": "true"}
"""What an answer has that tells again what was done before."""


def bearer_of(authorization: str) -> str:
    """Return what an Authorization header presents as an API key, an empty text for nothing."""
    scheme, _, text = authorization.partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


def _header(description: str, schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"description": description, "schema": schema or {"type": "string"}}


def _request_header(name: str, description: str, *, required: bool) -> dict[str, Any]:
    return {"in": "header", "name": name, "required": required, **_header(description)}


IF_MATCH = _request_header(
    "If-Match",
    "The ETag of what was read. Without it the answer is 428, and 412 if there is another by now.",
    required=True,
)
IF_NONE_MATCH = _request_header(
    "If-None-Match",
    "The ETag of the copy that the caller has: 304 if it is still right.",
    required=False,
)

ETAG_TOLD: Described = {"ETag": _header("Names what is told here; an edit sends it as If-Match.")}
COPY_TOLD: Described = {
    "ETag": _header("Names what is told here; the next request sends it as If-None-Match."),
    "Cache-Control": _header("How long the copy may be used: max-age, in seconds."),
}
CHECKSUM_TOLD: Described = {"ETag": _header("The SHA-256 of exactly these bytes, hexadecimal.")}
REPLAY_TOLD: Described = {
    "Idempotency-Replayed": _header(
        "There if it was done before, and this is the first answer again.",
        {"type": "string", "enum": ["true"]},
    )
}
LOCATION_TOLD: Described = {"Location": _header("Where it is told how far the batch is settled.")}
RETRY_TOLD: Described = {
    "Retry-After": _header(
        "Seconds to wait before it is worth trying again: with 423 and 503.",
        {"type": "integer", "minimum": 1},
    )
}
