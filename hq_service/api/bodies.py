"""Reading request bodies, within limits."""

from __future__ import annotations

from flask import Request

from hq_service.domain.errors import HqError, MalformedBody, TooLarge


class UnsupportedMediaType(HqError):
    """The content type or encoding is not one that the endpoint takes."""

    code = "unsupported_media_type"


def read_body(request: Request, *, bytes_max: int) -> bytes:
    """Return the body of a JSON request, whole.

    Raises:  UnsupportedMediaType, TooLarge, MalformedBody for one that breaks off.
    """
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("Send Content-Type: application/json.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body without Content-Encoding.")
    if (request.content_length or 0) > bytes_max:
        raise _too_large(bytes_max)
    try:
        body = request.stream.read(bytes_max + 1)
    except Exception:  # noqa: BLE001 - each server has its own for chunks that are none
        raise MalformedBody("The body breaks off, or its chunks are not well formed.") from None
    if len(body) > bytes_max:  # chunked: nobody said how much would come
        raise _too_large(bytes_max)
    return body


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"The body is larger than {bytes_max} bytes; send less at a time.")
