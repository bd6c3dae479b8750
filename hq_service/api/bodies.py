"""Reading request bodies, within limits."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

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


def batch_pieces(request: Request, *, bytes_max: int) -> tuple[str, Iterator[bytes]]:
    """Return content type and body of a batch, JSON or NDJSON, piece by piece as it comes.

    Units:   ``bytes_max`` bounds what comes and, if it is gzip, what it unpacks to.
    Raises:  UnsupportedMediaType, TooLarge; with a piece TooLarge, MalformedBody.
    """
    _require_type(request, JSON, NDJSON)
    _require_length(request, bytes_max)
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    pieces = _limited(_coming(request), bytes_max)
    if encoding == "identity":
        return request.mimetype, pieces
    if encoding != "gzip":
        raise UnsupportedMediaType("Send the body as it is, or with Content-Encoding: gzip.")
    return request.mimetype, _limited(_unpacked(pieces), bytes_max)


def _require_type(request: Request, *types: str) -> None:
    if request.mimetype not in types:
        raise UnsupportedMediaType(f"Send Content-Type: {' or '.join(types)}.")


def _whole(request: Request, bytes_max: int) -> bytes:
    _require_length(request, bytes_max)
    try:
        body = request.stream.read(bytes_max + 1)
    except Exception:  # noqa: BLE001 - each server has its own for chunks that are none
        raise _broken_off() from None
    if len(body) > bytes_max:  # chunked: nobody said how much would come
        raise _too_large(bytes_max)
    return body


def _require_length(request: Request, bytes_max: int) -> None:
    if (request.content_length or 0) > bytes_max:
        raise _too_large(bytes_max)


def _coming(request: Request) -> Iterator[bytes]:
    """Give the body as it comes."""
    while True:
        try:
            piece = request.stream.read(_PIECE_BYTES)
        except Exception:  # noqa: BLE001 - each server has its own for chunks that are none
            raise _broken_off() from None
        if not piece:
            return
        yield piece


def _limited(pieces: Iterable[bytes], bytes_max: int) -> Iterator[bytes]:
    """Give pieces up to a limit: of chunks nobody said how much would come."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > bytes_max:
            raise _too_large(bytes_max)
        yield piece


def _unpacked(packed: Iterable[bytes]) -> Iterator[bytes]:
    """Give what gzip unpacks to, piece by piece: a few bytes can be meant to fill the memory."""
    unpacker = zlib.decompressobj(_GZIP)
    for rest in packed:
        if unpacker.eof:
            raise _something_behind()
        is_all_out = False
        while not is_all_out:
            try:
                piece = unpacker.decompress(rest, _PIECE_BYTES)
            except zlib.error:
                raise MalformedBody(
                    "The body is not gzip, although Content-Encoding says so."
                ) from None
            if piece:
                yield piece
            rest = unpacker.unconsumed_tail
            # A whole piece may have left something inside, also of no input.
            is_all_out = not rest and len(piece) < _PIECE_BYTES
    if not unpacker.eof:
        raise MalformedBody("The gzip body breaks off.")
    if unpacker.unused_data:
        raise _something_behind()


def _something_behind() -> MalformedBody:
    return MalformedBody("There is something behind the gzip body.")


def _broken_off() -> MalformedBody:
    return MalformedBody("The body breaks off, or its chunks are not well formed.")


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"The body is larger than {bytes_max} bytes; send less at a time.")
