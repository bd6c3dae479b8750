"""Batches are read as they come: whatever the pieces, and without keeping what is not needed."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain, repeat
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hq_service.domain.errors import MalformedBody, TooLarge
from hq_service.domain.model import Line, UnreadableLine
from hq_service.domain.numbers import uuid_of
from hq_service.domain.reading import LINE_BYTES_MAX, read_line, split_lines
from hq_service.operations.batch_lines import BatchReader
from hq_service.store import batches
from tests.support import KEYRING

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
STORE_ID = "S001"
ENVELOPE = {"store_id": STORE_ID, "batch_id": "B1"}
CARD_ID = "7d05d57e-e18e-89af-bb7f-079468682adf"


def a_line(place: int, **more: Any) -> dict[str, Any]:
    return {
        "terminal_id": "T01",
        "journal_id": "J1",
        "sequence": place + 1,
        "transaction_id": f"X{place}",
        "line": 1,
        "operation": "redeem",
        "instrument_id": CARD_ID,
        "amount_minor": 100,
        "currency": "SEK",
        "concluded_at": "2026-11-20T17:40:02.265801Z",
        **more,
    }


LINES: list[Any] = [
    a_line(0),
    a_line(1, lock_id="01A1FE32-40D5-7B1E-9072-4D5698DD9774", grant="g1.k1.abc.def"),
    a_line(2, concluded_at="2026-11-20T18:40:02+01:00", parameter_revision=7, status="voided"),
    a_line(3, operation="refund", original={
        "store_id": "S002", "terminal_id": "T02", "transaction_id": "X", "line": 2
    }),
    a_line(4, operation="refund", reason="the umbrella was br\u00f6ken"),
    a_line(5, operation="release", amount_minor=None, currency=None),
    a_line(6, tender_amount_minor=94, tender_currency="EUR", exchange_rate="10.6383"),
    a_line(7, instrument_id=None, kind="gift_card", number="6006123456789012"),
    a_line(8, amount_minor=0),
    a_line(9, sequence=0),
    "no line",
    None,
]  # fmt: skip


def reader(lines_max: int = 100_000, kept_max: int = 100_000) -> BatchReader:
    return BatchReader(KEYRING, NOW, lines_max=lines_max, kept_max=kept_max)


def ndjson(*lines: Any, **more: Any) -> bytes:
    return b"\n".join(json.dumps(one).encode() for one in ({**ENVELOPE, **more}, *lines))


@given(st.lists(st.text(alphabet="\na\r \u00f6", max_size=12).map(str.encode), max_size=8))
def test_lines_are_the_same_wherever_a_piece_ends(pieces: list[bytes]) -> None:
    assert list(split_lines(pieces)) == b"".join(pieces).split(b"\n")


@pytest.mark.parametrize("piece_bytes", [1_000, 65_536, 10 * LINE_BYTES_MAX])
def test_a_line_that_is_too_long_is_cut_and_the_next_one_is_not(piece_bytes: int) -> None:
    full = b"x" * LINE_BYTES_MAX
    body = b"\n".join([full, full + b"y", full * 3, b"z", full])
    pieces = [body[at : at + piece_bytes] for at in range(0, len(body), piece_bytes)]
    cut = full + b"x"
    assert list(split_lines(pieces)) == [full, full + b"y", cut, b"z", full]


@pytest.mark.parametrize("piece_bytes", [1, 7, 100, 65_536])
def test_a_batch_is_the_same_however_it_comes(piece_bytes: int) -> None:
    body = ndjson(*LINES)
    pieces = (body[at : at + piece_bytes] for at in range(0, len(body), piece_bytes))
    envelope, lines = reader().read(pieces, is_ndjson=True)
    assert lines.kept == [
        read_line(raw, position, STORE_ID, KEYRING, NOW) for position, raw in enumerate(LINES)
    ]
    assert [type(one) for one in lines.kept] == [Line] * 8 + [UnreadableLine] * 4
    as_json, lines_of_json = reader().read(
        [json.dumps({**ENVELOPE, "lines": LINES}).encode()], is_ndjson=False
    )
    assert lines_of_json == lines
    assert as_json.body_sha256 != envelope.body_sha256


@pytest.mark.parametrize("raw", LINES)
def test_a_line_is_stored_as_it_was_read(raw: Any) -> None:
    """A new batch is settled from the lines as they were read, one met again from the stored."""
    line = read_line(raw, 3, STORE_ID, KEYRING, NOW)
    [stored] = orjson.loads(batches.packed_part([line]))
    assert batches._unpacked(STORE_ID, stored) == line


@given(st.uuids())
def test_a_uuid_is_what_its_text_says(made: UUID) -> None:
    found = uuid_of(str(made).upper())
    assert (found, hash(found), repr(found)) == (made, hash(made), repr(made))
    assert found.is_safe == made.is_safe


def test_more_lines_than_are_kept_are_packed_only() -> None:
    _, lines = reader(kept_max=11).read([ndjson(*LINES)], is_ndjson=True)
    assert (len(lines), lines.kept) == (12, None)
    _, lines = reader(kept_max=12).read([ndjson(*LINES)], is_ndjson=True)
    assert lines.kept is not None


def test_what_is_wrong_with_the_body_is_told_before_what_is_wrong_in_it() -> None:
    def breaking_off(body: bytes) -> Iterator[bytes]:
        yield body
        raise TooLarge("the body")

    for body in (b"no envelope\n", ndjson(mode=1), ndjson(*LINES), ndjson(lines=[])):
        with pytest.raises(TooLarge, match="the body"):
            reader(lines_max=1).read(breaking_off(body), is_ndjson=True)


def test_an_envelope_that_never_ends_is_refused() -> None:
    body = ndjson(*LINES).replace(b"{", b"{" + b" " * LINE_BYTES_MAX, 1)
    with pytest.raises(MalformedBody, match="The first line, which is the envelope, is longer"):
        reader().read([body], is_ndjson=True)


def coming(lines_count: int) -> Iterator[bytes]:
    yield ndjson() + b"\n"
    for place in range(lines_count):
        yield json.dumps(a_line(place)).encode() + b"\n"


def peak_bytes(pieces: Iterator[bytes], kept_max: int = 0) -> tuple[int, int]:
    """Return how much memory reading a batch took at most, and what its packed lines take."""
    tracemalloc.start()
    try:
        _, lines = reader(kept_max=kept_max).read(pieces, is_ndjson=True)
        return tracemalloc.get_traced_memory()[1], sum(map(len, lines.parts))
    finally:
        tracemalloc.stop()


def test_of_a_long_batch_nothing_but_the_packed_lines_is_in_memory() -> None:
    lines_count = 10 * batches.PART_LINES
    of_one_part, _ = peak_bytes(coming(batches.PART_LINES))
    peak, packed = peak_bytes(coming(lines_count))
    assert packed < 250 * lines_count
    assert peak < packed + of_one_part
    with_body = peak + sum(map(len, coming(lines_count)))
    with_lines, _ = peak_bytes(coming(lines_count), kept_max=lines_count)
    assert min(with_body, with_lines) > 1.5 * (packed + of_one_part), "or else this shows nothing"


def test_of_a_line_that_never_ends_no_more_than_its_beginning_is_in_memory() -> None:
    endless = repeat(b"x" * 65_536, 20 * LINE_BYTES_MAX // 65_536)
    peak, _ = peak_bytes(chain(coming(1), endless))
    assert peak < 10 * LINE_BYTES_MAX
