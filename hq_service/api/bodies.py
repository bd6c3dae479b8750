"""Reading request bodies, within limits."""

from __future__ import annotations

import zlib

from flask import Request

from hq_service.domain.errors import HqError, MalformedBody, TooLarge


class UnsupportedMediaType(HqError):
    """The content type or encoding is not one that the endpoint takes."""

    code = "unsupported_media_type"


JSON = "application/json"
NDJSON = "application/x-ndjson"
_PIECE_BYTES = 65_536
_GZIP = 31  # for zlib: the header and trailer of gzip, the largest window


def read_body(request: Request, *, bytes_max: int) -> bytes:
    """Return the body of a JSON request, whole.

    Raises:  UnsupportedMediaType, TooLarge, MalformedBody for one that breaks off.
    """
    _require_type(request, JSON)
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body without Content-Encoding.")
    return _whole(request, bytes_max)


def read_batch_body(request: Request, *, bytes_max: int) -> tuple[str, bytes]:
    """Return content type and body of a batch, JSON or NDJSON, unpacked if it is gzip.

    Units:   ``bytes_max`` bounds what comes and what it unpacks to.
    Raises:  UnsupportedMediaType, TooLarge, MalformedBody.
    """
    _require_type(request, JSON, NDJSON)
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    body = _whole(request, bytes_max)
    if encoding == "identity":
        return request.mimetype, body
    if encoding != "gzip":
        raise UnsupportedMediaType("Send the body as it is, or with Content-Encoding: gzip.")
    return request.mimetype, _unpacked(body, bytes_max)


def _require_type(request: Request, *types: str) -> None:
    if request.mimetype not in types:
        raise UnsupportedMediaType(f"Send Content-Type: {' or '.join(types)}.")


def _whole(request: Request, bytes_max: int) -> bytes:
    if (request.content_length or 0) > bytes_max:
        raise _too_large(bytes_max)
    try:
        body = request.stream.read(bytes_max + 1)
    except Exception:  # noqa: BLE001 - each server has its own for chunks that are none
        raise MalformedBody("The body breaks off, or its chunks are not well formed.") from None
    if len(body) > bytes_max:  # chunked: nobody said how much would come
        raise _too_large(bytes_max)
    return body


def _unpacked(packed: bytes, bytes_max: int) -> bytes:
    """Return what gzip unpacks to, piece by piece: a few bytes can be meant to fill the memory."""
    unpacker = zlib.decompressobj(_GZIP)
    pieces, size, rest = [], 0, packed
    try:
        while not unpacker.eof:
            piece = unpacker.decompress(rest, _PIECE_BYTES)
            rest = unpacker.unconsumed_tail
            if not piece and not rest:
                raise MalformedBody("The gzip body breaks off.")
            size += len(piece)
            if size > bytes_max:
                raise _too_large(bytes_max)
            pieces.append(piece)
    except zlib.error:
        raise MalformedBody("The body is not gzip, although Content-Encoding says so.") from None
    if unpacker.unused_data:
        raise MalformedBody("There is something behind the gzip body.")
    return b"".join(pieces)


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"The body is larger than {bytes_max} bytes; send less at a time.")
