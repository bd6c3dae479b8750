"""Batches as they come off bad lines: packed, cut off, half UTF-8, with grants that are not HQ's.

A body that is no batch is refused and nothing is written; a line that is no line is quarantined
and stops no other. What is wrong with single members is in tests/contract/test_bad_input.py.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from hq_service.api import offline_batches as api
from hq_service.api.problems import CONTENT_TYPE
from hq_service.api.schemas import selling
from hq_service.domain.actors import Actor, Role
from hq_service.domain.grants import Grant
from hq_service.domain.model import BusinessKey
from hq_service.domain.outcomes import Outcome
from hq_service.domain.reading import LINE_BYTES_MAX
from hq_service.operations import offline_batches
from tests.support import (
    KEYRING,
    Caller,
    Card,
    Hq,
    Tables,
    Till,
    a_name,
    running,
)

Body = dict[str, Any]
JSON, NDJSON = "application/json", "application/x-ndjson"
BODY_BYTES_MAX = 2 * 1024 * 1024
LINES_MAX = 50
BOMB_BYTES = 64 * 1024 * 1024


@dataclass
class World:
    hq: Hq
    tables: Tables
    till: Till
    sync: Caller
    card: Card

    def send(self, body: bytes, content_type: str = NDJSON, **headers: str) -> TestResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.hq.client.post(
            "/v1/offline-batches",
            data=body,
            headers={
                "Authorization": f"Bearer {self.sync.key}",
                "Content-Type": content_type,
                **named,
            },
        )

    def envelope(self, **more: Any) -> Body:
        return {"store_id": self.till.store_id, "batch_id": a_name("batch"), **more}

    def line(self, **more: Any) -> bytes:
        """Return a line that redeems one öre, in letters of which one takes two bytes."""
        line = self.till.offline_line(self.card, a_name("X"), 1, reason="\u00f6re", **more)
        return json.dumps(line, ensure_ascii=False).encode()

    def ndjson(self, *lines: bytes, **more: Any) -> bytes:
        return b"\n".join([json.dumps(self.envelope(**more)).encode(), *lines])

    def batch(self, *lines: bytes, **more: Any) -> bytes:
        """Return a batch as one JSON document."""
        envelope = json.dumps(self.envelope(**more)).encode()
        return envelope[:-1] + b',"lines":[' + b",".join(lines) + b"]}"

    @contextmanager
    def nothing_written(self) -> Iterator[None]:
        before = self.tables.rows()
        yield
        assert self.tables.rows() == before

    @contextmanager
    def written_only(self, *tables: str) -> Iterator[None]:
        before = Counter(self.tables.rows())
        yield
        after = Counter(self.tables.rows())
        assert {table for table, _ in (after - before) + (before - after)} == set(tables)


@pytest.fixture(scope="module")
def app(database_url: str) -> Iterator[Flask]:
    """The application with limits that a test can reach."""
    limits = {"batch_body_bytes_max": BODY_BYTES_MAX, "batch_lines_max": LINES_MAX}
    with running(database_url, **limits) as app:
        yield app


@pytest.fixture(scope="module")
def world(hq: Hq, app: Flask) -> Iterator[World]:
    till = hq.till()
    with Tables.of(app) as tables:
        yield World(hq, tables, till, hq.sync(till.store_id), hq.issue(1_000_000_00))


def assert_refused(
    answer: TestResponse, status: int, code: str, pointers: list[str] | None = None
) -> None:
    """Check a problem document; ``pointers`` None means that it points at nothing."""
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.json
    assert answer.content_type == CONTENT_TYPE
    told = answer.json.get("errors")
    assert (told and [fault["pointer"] for fault in told]) == pointers


# --- NDJSON: a line that is none stops no other ---------------------------------------------------

BROKEN_LINES: dict[str, Callable[[bytes], bytes]] = {
    "its end is missing": lambda line: line[:-1],
    "its end is missing, in a text": lambda line: line[: line.index(b"redeem") + 3],
    "its end is missing, in a letter": lambda line: line[: line.index(b"\xc3") + 1],
    "its beginning is missing": lambda line: line[1:],
    "one byte of it": lambda line: line[:1],
    "two on one line": lambda line: line + line,
    "a comma behind it": lambda line: line + b",",
    "in an array": lambda line: b"[" + line + b"]",
    "no object": lambda line: b'"redeem"',
    "null": lambda line: b"null",
    "no UTF-8": lambda line: line.replace(b"redeem", b"re\xffdeem"),
    "overlong UTF-8": lambda line: line.replace(b"redeem", b"re\xc0\x80deem"),
    "a surrogate in UTF-8": lambda line: line.replace(b"redeem", b"\xed\xa0\x80"),
    "half a letter": lambda line: line.replace("\u00f6".encode(), b"\xc3"),
    "Latin 1": lambda line: line.decode().encode("latin-1"),
    "UTF-16": lambda line: line.decode().encode("utf-16"),
    "a byte order mark": lambda line: b"\xef\xbb\xbf" + line,
    "a NUL in a text": lambda line: line.replace(b"redeem", b"re\x00deem"),
    "a NUL between texts": lambda line: line.replace(b": ", b": \x00", 1),
    "nothing but NUL": lambda line: b"\x00" * 512,
    "a NUL as an escape": lambda line: line.replace(b"redeem", rb"re\u0000deem"),
    "half a surrogate pair": lambda line: line.replace(b"redeem", rb"\ud83d"),
    "a control character": lambda line: line.replace(b"redeem", b"re\x1b[31mdeem"),
    "a member twice": lambda line: line[:-1] + b',"amount_minor":5}',
    "NaN": lambda line: line.replace(b'"amount_minor": 1', b'"amount_minor": NaN'),
    "a number of 21 digits": lambda line: line[:-1] + b',"n":' + b"1" * 21 + b"}",
    "a number of 5,000 digits": lambda line: line[:-1] + b',"n":' + b"1" * 5_000 + b"}",
    "nested 21 deep": lambda line: line[:-1] + b',"n":' + b"[" * 21 + b"]" * 21 + b"}",
    "nested 60,000 deep": lambda line: b"[" * 60_000,
    "nested 30,000 deep and closed": lambda line: b"[" * 30_000 + b"]" * 30_000,
    "a megabyte of garbage": lambda line: b"\xfe" * 1_000_000,
    "a megabyte of text": lambda line: line[:-1] + b',"n":"' + b"x" * 1_000_000 + b'"}',
    "a megabyte cut off": lambda line: line[:-1] + b',"n":"' + b"x" * 1_000_000,
}


@pytest.mark.parametrize("fault", BROKEN_LINES)
def test_a_broken_line_of_ndjson_is_quarantined_and_the_others_settle(
    world: World, fault: str
) -> None:
    places = {2} if "megabyte" in fault else {0, 2, 4}
    balance_minor = world.hq.balance(world.card)
    lines = [world.line() for _ in range(5)]
    broken = [
        BROKEN_LINES[fault](line) if place in places else line for place, line in enumerate(lines)
    ]
    answer = world.send(world.ndjson(*broken))
    assert answer.status_code == 201, answer.json
    assert [one["position"] for one in answer.json["results"]] == [0, 1, 2, 3, 4]
    for place, one in enumerate(answer.json["results"]):
        assert one["outcome"] == ("quarantined" if place in places else "applied"), one
        assert ("unreadable" in one["codes"]) == (place in places)
        assert (one["reason"] is None) == (place not in places)
    assert world.hq.balance(world.card) == balance_minor - (5 - len(places))


@pytest.mark.parametrize("fault", BROKEN_LINES)
def test_of_a_broken_line_nothing_is_written_but_itself_and_its_case(
    world: World, fault: str
) -> None:
    till = world.hq.till()
    world = dataclasses.replace(world, till=till, sync=world.hq.sync(till.store_id))
    body = world.ndjson(BROKEN_LINES[fault](world.line()))
    tables = {"offline_batches", "offline_batch_parts", "offline_batch_results"}
    tables |= {"quarantined_lines", "cases"}
    if fault == "a megabyte of text":  # it can be read where this one stands in its journal
        tables.add("terminal_journals")
    with world.written_only(*tables):
        answer = world.send(body)
    assert answer.json["counts"] == {"quarantined": 1}
    [result] = answer.json["results"]
    [kept] = world.hq.sql(
        "SELECT masked_text, reason FROM quarantined_lines WHERE batch_id = %s",
        answer.json["batch_id"],
    )
    assert 0 < len(kept[0]) <= 4_096
    assert kept[1] == result["reason"]
    case = world.hq.case(result["case_id"])
    assert (case["outcome"], case["codes"]) == ("quarantined", ["unreadable"])
    assert case["possible_resolutions"] == ["dismiss"]
    with world.nothing_written():
        again = world.send(body)
    assert (again.status_code, again.json["results"]) == (200, [result])


@pytest.mark.parametrize("kept", range(1, 40, 3))
def test_ndjson_whose_last_line_breaks_off_loses_that_line_alone(world: World, kept: int) -> None:
    balance_minor = world.hq.balance(world.card)
    whole = world.ndjson(world.line(), world.line())
    last = world.line()
    answer = world.send(whole + b"\n" + last[: -kept * 5])
    assert answer.status_code == 201, answer.json
    outcomes = [one["outcome"] for one in answer.json["results"]]
    assert outcomes == ["applied", "applied", "quarantined"]
    assert world.hq.balance(world.card) == balance_minor - 2
    # The till sends the whole line in its next batch: nothing is lost.
    again = world.send(world.ndjson(last))
    assert again.json["counts"] == {"applied": 1}


def test_a_line_that_is_too_long_is_quarantined_and_the_others_settle(world: World) -> None:
    number = "6006123456789012"
    endless = world.line(number=number)[:-1].ljust(LINE_BYTES_MAX) + b"}"
    answer = world.send(world.ndjson(world.line(), endless, world.line()))
    assert [one["outcome"] for one in answer.json["results"]] == [
        "applied",
        "quarantined",
        "applied",
    ]
    assert answer.json["results"][1]["reason"] == "the line is longer than 1048576 bytes"
    [[kept]] = world.hq.sql(
        "SELECT masked_text FROM quarantined_lines WHERE batch_id = %s", answer.json["batch_id"]
    )
    assert 0 < len(kept) <= 4_096
    assert number not in kept
    # As JSON it is a line like any other: the whole body has its limit.
    assert world.send(world.batch(endless), JSON).json["counts"] == {"quarantined": 1}


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("content_type", [JSON, NDJSON])
def test_of_a_body_that_breaks_off_nothing_is_written(
    world: World, content_type: str, is_packed: bool
) -> None:
    write = world.batch if content_type == JSON else world.ndjson
    body = write(*(world.line() for _ in range(3)))
    sent = gzip.compress(body) if is_packed else body
    with world.nothing_written():
        answer = world.hq.client.post(
            "/v1/offline-batches",
            input_stream=io.BytesIO(sent),
            environ_overrides={"CONTENT_LENGTH": str(len(sent) + 100)},
            headers={
                "Authorization": f"Bearer {world.sync.key}",
                "Content-Type": content_type,
                "Content-Encoding": "gzip" if is_packed else "identity",
            },
        )
    assert_refused(answer, 400, "malformed_body")
    assert "breaks off" in answer.json["detail"]


def test_blank_lines_and_line_ends_of_windows_are_no_lines(world: World) -> None:
    body = world.ndjson(world.line() + b"\r", b"", b"  \r", world.line() + b"\r", b"", b"")
    answer = world.send(body.replace(b"}\n", b"}\r\n", 1))
    assert (answer.status_code, answer.json["counts"]) == (201, {"applied": 2})


ENVELOPES: dict[str, tuple[Callable[[World], bytes], int, list[str] | None]] = {
    "nothing": (lambda world: b"", 400, None),
    "a line end": (lambda world: b"\n", 400, None),
    "a line end first": (lambda world: b"\n" + world.ndjson(world.line()), 400, None),
    "cut off": (lambda world: world.ndjson()[:-1], 400, None),
    "cut off, with lines": (lambda world: world.ndjson()[:-1] + b"\n" + world.line(), 400, None),
    "no UTF-8": (lambda world: b"\xff" + world.ndjson(world.line()), 400, None),
    "a NUL": (lambda world: world.ndjson(world.line(), batch_id="a\0b"), 400, None),
    "an array": (lambda world: b"[]\n" + world.line(), 422, [""]),
    "a text": (lambda world: b'"envelope"\n' + world.line(), 422, [""]),
    "nothing behind it": (lambda world: world.ndjson(), 422, ["/lines"]),
    "blanks behind it": (lambda world: world.ndjson(b"", b" ", b"\r"), 422, ["/lines"]),
    "lines in it": (lambda world: world.batch(world.line()), 422, ["/lines"]),
    "lines in it and behind it": (
        lambda world: world.batch(world.line()) + b"\n" + world.line(),
        422,
        ["/lines"],
    ),
    "an unknown member": (lambda world: world.ndjson(world.line(), mode=1), 422, ["/mode"]),
    "a batch_id that is none": (
        lambda world: world.ndjson(world.line(), batch_id="a b"),
        422,
        ["/batch_id"],
    ),
    "no batch_id": (
        lambda world: world.ndjson(world.line(), batch_id=None),
        422,
        ["/batch_id"],
    ),
    "JSON instead": (lambda world: b"{\n" + world.batch(world.line())[1:], 400, None),
}


@pytest.mark.parametrize("fault", ENVELOPES)
def test_ndjson_without_a_good_envelope_is_refused(world: World, fault: str) -> None:
    make, status, pointers = ENVELOPES[fault]
    code = "malformed_body" if status == 400 else "validation_failed"
    with world.nothing_written():
        assert_refused(world.send(make(world)), status, code, pointers)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body[: len(body) // 2],
        lambda body: body[: len(body) // 3],
        lambda body: body[:-1],
        lambda body: body[:-2],
        lambda body: body.replace("\u00f6".encode(), b"\xc3", 1),
        lambda body: body.replace(b"redeem", b"re\xffdeem", 1),
        lambda body: body.replace(b"redeem", b"re\x00deem", 1),
        lambda body: body + body,
        lambda body: body + b"\n" + b"{}",
    ],
    ids=(
        "half,a third,no end,no end of lines,half a letter,no UTF-8,a NUL,twice,a line behind it"
    ).split(","),
)
def test_json_that_breaks_off_is_refused_as_a_whole(
    world: World, spoil: Callable[[bytes], bytes]
) -> None:
    body = world.batch(*(world.line() for _ in range(5)))
    with world.nothing_written():
        assert_refused(world.send(spoil(body), JSON), 400, "malformed_body")


# --- the envelope ---------------------------------------------------------------------------------

NO_DRY_RUN: list[Any] = [None, 0, 1, "true", "", [], {}]
NO_TOTALS: list[Any] = [
    7, True, "text", [], {}, {"lines_count": 1}, {"amounts_minor": {}},
    {"lines_count": 1, "amounts_minor": {}, "nonsense": 1},
    {"lines_count": None, "amounts_minor": {}}, {"lines_count": "1", "amounts_minor": {}},
    {"lines_count": 1.0, "amounts_minor": {}}, {"lines_count": True, "amounts_minor": {}},
    {"lines_count": 1, "amounts_minor": None}, {"lines_count": 1, "amounts_minor": [100]},
    {"lines_count": 1, "amounts_minor": {"SEK": 1.0}},
    {"lines_count": 1, "amounts_minor": {"SEK": "1"}},
    {"lines_count": 1, "amounts_minor": {"SEK": None}},
    {"lines_count": 1, "amounts_minor": {"SEK": True}},
    {"lines_count": 1, "amounts_minor": {"XXX": 1}},
    {"lines_count": 1, "amounts_minor": {"sek": 1}},
    {"lines_count": 1, "amounts_minor": {"6006123456789012": 1}},
]  # fmt: skip


@pytest.mark.parametrize(
    ("member", "value"),
    [("dry_run", one) for one in NO_DRY_RUN] + [("control_totals", one) for one in NO_TOTALS],
    ids=lambda value: ascii(value)[:50],
)
def test_a_wrong_member_of_the_envelope_is_pointed_at(
    world: World, member: str, value: Any
) -> None:
    line, wrong = world.line(), {member: value}
    with world.nothing_written():
        for answer in (
            world.send(world.batch(line, **wrong), JSON),
            world.send(world.ndjson(line, **wrong)),
        ):
            assert_refused(answer, 422, "validation_failed", [f"/{member}"])
            assert "6006123456789012" not in answer.text


def test_every_fault_of_an_envelope_is_pointed_at_in_one_answer(world: World) -> None:
    wrong = {"store_id": "a b", "batch_id": 7, "dry_run": 1, "control_totals": 1, "mode": 1}
    with world.nothing_written():
        answer = world.send(json.dumps({**wrong, "lines": []}).encode(), JSON)
    assert answer.status_code == 422
    told = {fault["pointer"] for fault in answer.json["errors"]}
    assert told == {f"/{name}" for name in (*wrong, "lines")}


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("content_type", [JSON, NDJSON])
def test_a_batch_has_a_limit_on_its_lines_however_it_is_sent(
    world: World, content_type: str, is_packed: bool, dry_run: bool
) -> None:
    write = world.batch if content_type == JSON else world.ndjson
    body = write(*(world.line() for _ in range(LINES_MAX + 1)), dry_run=dry_run)
    headers = {"Content_Encoding": "gzip"} if is_packed else {}
    with world.nothing_written():
        answer = world.send(gzip.compress(body) if is_packed else body, content_type, **headers)
    assert_refused(answer, 413, "payload_too_large")


# --- batch_id -------------------------------------------------------------------------------------


def test_a_batch_id_stands_for_its_bytes_and_no_others(world: World) -> None:
    lines = [world.line(), world.line()]
    body = world.batch(*lines, batch_id="the-same")
    first = world.send(body, JSON)
    assert first.status_code == 201
    others = [
        (world.batch(lines[0], batch_id="the-same"), JSON),
        (world.batch(*reversed(lines), batch_id="the-same"), JSON),
        (body + b"\n", JSON),
        (body.replace(b": ", b":"), JSON),
        (world.ndjson(*lines, batch_id="the-same"), NDJSON),
    ]
    with world.nothing_written():
        for other, content_type in others:
            assert_refused(world.send(other, content_type), 422, "batch_id_reused")
        for again in (world.send(body, JSON), send_packed(world, gzip.compress(body), JSON)):
            assert (again.status_code, again.json["results"]) == (200, first.json["results"])
            assert again.headers["Idempotency-Replayed"] == "true"


def test_a_dry_run_uses_up_no_batch_id(world: World) -> None:
    line = world.line()
    rehearsal = world.batch(line, batch_id="rehearsed", dry_run=True)
    with world.nothing_written():
        rehearsed = world.send(rehearsal, JSON)
    assert rehearsed.status_code == 200
    assert "Idempotency-Replayed" not in rehearsed.headers
    assert world.send(world.batch(line, batch_id="rehearsed"), JSON).status_code == 201


def lines_of_every_outcome(world: World) -> list[Any]:
    till, card = world.till, world.hq.issue(100)
    lines: list[Any] = [
        till.offline_line(card, a_name("X"), 1),
        till.offline_line(card, a_name("X"), 1, terminal_id="T-of-nobody"),
        till.offline_line(card, a_name("X"), 1, nonsense=1),
        None,
        till.offline_line(card, a_name("X"), 1, instrument_id=str(uuid4())),
        till.offline_line(card, a_name("X"), 200),
        till.offline_line(card, a_name("X"), 1, currency="EUR"),
        till.offline_line(card, a_name("X"), 1, status="suspended"),
        till.offline_line(card, a_name("X"), 1, status="voided"),
        till.offline_line(card, a_name("X"), 1, operation="refund", reason="no receipt"),
        till.offline_line(card, a_name("X"), 1, concluded_at="2020-01-01T00:00:00Z"),
    ]
    again = {**lines[0], "sequence": till.sequence + 1}
    till.sequence += 1
    lines += [again, {**again, "sequence": again["sequence"] + 1, "amount_minor": 2}]
    till.sequence += 1
    return lines


def test_a_dry_run_tells_what_the_batch_itself_is_told(world: World) -> None:
    lines = lines_of_every_outcome(world)
    body = world.envelope(lines=lines)
    with world.nothing_written():
        rehearsed = world.send(json.dumps({**body, "dry_run": True}).encode(), JSON)
    told = world.send(json.dumps(body).encode(), JSON)
    assert set(told.json["counts"]) == set(Outcome)
    assert set(rehearsed.json) == set(told.json)
    assert rehearsed.json["counts"] == told.json["counts"]
    for expected, one in zip(rehearsed.json["results"], told.json["results"], strict=True):
        # It names no case that is not there.
        assert expected["case_id"] is None
        assert expected == {**one, "case_id": None}


def test_an_answer_is_what_its_schema_would_write(world: World) -> None:
    """Answers with results go past the schema, which is what OpenAPI tells of them."""
    lines = lines_of_every_outcome(world)
    batch = world.envelope(lines=lines)
    told = world.send(json.dumps(batch).encode(), JSON)
    page = world.sync.get(f"{told.headers['Location']}/lines?limit=9")
    whose = (batch["store_id"], batch["batch_id"], Actor(Role.ADMIN, "test"))
    with world.hq.app.app_context():
        state = offline_batches.state(*whose)
        results, _ = offline_batches.lines(*whose, after=-1, limit=len(lines))
    assert {one["outcome"] for one in results} == set(Outcome)
    members = {**api._members(state), "results": results}
    assert any(one["gaps"] for one in members["journals"])
    for answer, schema, content in (
        (told, selling.OfflineBatchSchema(), members),
        (page, selling.LineResultsSchema(), {"results": results[:9], "next_after": 8}),
    ):
        expected = world.hq.app.json.response(schema.dump(content))
        assert answer.text == expected.get_data(as_text=True)
        assert answer.content_type == expected.content_type


# --- gzip -----------------------------------------------------------------------------------------


def send_packed(world: World, body: bytes, content_type: str = NDJSON) -> TestResponse:
    return world.send(body, content_type, Content_Encoding="gzip")


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "Gzip"])
@pytest.mark.parametrize("content_type", [JSON, NDJSON])
def test_a_batch_may_come_packed(world: World, content_type: str, encoding: str) -> None:
    write = world.batch if content_type == JSON else world.ndjson
    packed = gzip.compress(write(world.line(), world.line()))
    answer = world.send(packed, content_type, Content_Encoding=encoding)
    assert (answer.status_code, answer.json["counts"]) == (201, {"applied": 2})


def flipped(packed: bytes, place: int) -> bytes:
    return packed[:place] + bytes([packed[place] ^ 0x55]) + packed[place + 1 :]


def deflated(body: bytes, window: int) -> bytes:
    packer = zlib.compressobj(wbits=window)
    return packer.compress(body) + packer.flush()


BROKEN_GZIP: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda body: b"",
    "not packed": lambda body: body,
    "a header alone": lambda body: gzip.compress(body)[:10],
    "half a header": lambda body: gzip.compress(body)[:5],
    "cut off in the middle": lambda body: gzip.compress(body)[: len(gzip.compress(body)) // 2],
    "no trailer": lambda body: gzip.compress(body)[:-8],
    "half a trailer": lambda body: gzip.compress(body)[:-4],
    "one byte short": lambda body: gzip.compress(body)[:-1],
    "another checksum": lambda body: flipped(gzip.compress(body), -8),
    "another length": lambda body: flipped(gzip.compress(body), -4),
    "another method": lambda body: flipped(gzip.compress(body), 2),
    "a byte behind it": lambda body: gzip.compress(body) + b"\n",
    "NUL behind it": lambda body: gzip.compress(body) + b"\0" * 512,
    "two of them": lambda body: gzip.compress(body) * 2,
    "a line behind it": lambda body: gzip.compress(body) + gzip.compress(b"\n{}"),
    "zlib": lambda body: deflated(body, 15),
    "deflate": lambda body: deflated(body, -15),
    "packed twice": lambda body: gzip.compress(gzip.compress(body)),
    "nothing, packed": lambda body: gzip.compress(b""),
    "cut off and then packed": lambda body: gzip.compress(body[:20]),
}


@pytest.mark.parametrize("fault", BROKEN_GZIP)
def test_gzip_that_is_broken_is_refused(world: World, fault: str) -> None:
    body = BROKEN_GZIP[fault](world.ndjson(world.line()))
    with world.nothing_written():
        assert_refused(send_packed(world, body), 400, "malformed_body")


def test_gzip_with_any_byte_changed_is_refused_or_says_the_same(world: World) -> None:
    packed = gzip.compress(world.ndjson(world.line(), dry_run=True), mtime=0)
    for place in range(len(packed)):
        answer = send_packed(world, flipped(packed, place))
        # Time, level and system of the header say nothing of the content.
        expected = 200 if place in range(4, 10) else 400
        assert answer.status_code == expected, (place, answer.json)


def bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    piece = b" " * 1024 * 1024
    packed = [packer.compress(piece) for _ in range(BOMB_BYTES // len(piece))]
    return b"".join([*packed, packer.flush()])


@pytest.mark.parametrize("content_type", [JSON, NDJSON])
def test_a_gzip_bomb_is_refused(world: World, content_type: str) -> None:
    packed = bomb()
    assert len(packed) < BODY_BYTES_MAX, "it is what it unpacks to that is too large"
    with world.nothing_written():
        assert_refused(send_packed(world, packed, content_type), 413, "payload_too_large")
        # Nor when its end is missing: that far it is never read.
        cut = packed[: len(packed) // 2]
        assert_refused(send_packed(world, cut, content_type), 413, "payload_too_large")


def test_the_limit_is_on_what_comes_and_on_what_it_unpacks_to(world: World) -> None:
    full = world.batch(world.line(), nonsense=1).ljust(BODY_BYTES_MAX)
    noise = random.Random(7).randbytes(BODY_BYTES_MAX)
    with world.nothing_written():
        within = send_packed(world, gzip.compress(full), JSON)
        assert_refused(within, 422, "validation_failed", ["/nonsense"])
        above = send_packed(world, gzip.compress(full + b" "), JSON)
        assert_refused(above, 413, "payload_too_large")
        assert_refused(send_packed(world, gzip.compress(noise)), 413, "payload_too_large")


@pytest.mark.parametrize(
    "encoding",
    [
        "br",
        "deflate",
        "zstd",
        "x-gzip",
        "gzip, gzip",
        "identity, gzip",
        "gzip, br",
        "gzip;q=1",
        "*",
    ],
)
@pytest.mark.parametrize("content_type", [JSON, NDJSON])
def test_another_encoding_of_a_batch_is_refused(
    world: World, content_type: str, encoding: str
) -> None:
    body = gzip.compress(world.ndjson(world.line()))
    with world.nothing_written():
        answer = world.send(body, content_type, Content_Encoding=encoding)
    assert_refused(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type",
    "application/gzip application/ndjson application/jsonl application/json-seq text/x-ndjson"
    " application/octet-stream text/csv".split(),
)
def test_another_content_type_of_a_batch_is_refused(world: World, content_type: str) -> None:
    body = world.ndjson(world.line())
    with world.nothing_written():
        for sent in (
            world.send(body, content_type),
            send_packed(world, gzip.compress(body), content_type),
        ):
            assert_refused(sent, 415, "unsupported_media_type")


# --- grants ---------------------------------------------------------------------------------------

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def granted(world: World) -> World:
    """The same world, where offline is allowed and acknowledged."""
    world.hq.allow_offline(world.till)
    return world


def a_grant(world: World, transaction_id: str, **more: Any) -> Grant:
    """Return a promise for a lock that HQ lost: a line that shows it needs no other proof."""
    now = datetime.now(UTC)
    revision = world.till.get("/v1/parameters").json["revision"]
    grant = Grant(
        lock_id=uuid4(),
        key=BusinessKey(world.till.store_id, world.till.terminal_id, transaction_id, 1),
        purpose="redeem",
        instrument_id=UUID(world.card.instrument_id),
        kind=world.card.kind,
        currency=world.card.currency,
        number_last4=world.card.number[-4:],
        amount_minor=100,
        revision=revision,
        issued_at=now - timedelta(minutes=5),
        until=now + DAY,
    )
    return dataclasses.replace(grant, **more)


def settled_with(world: World, transaction_id: str, grant: Any) -> Body:
    line = world.till.offline_line(world.card, transaction_id, 1, grant=grant)
    answer = world.hq.post_batch(world.till.store_id, [line])
    assert answer.status_code == 201, answer.json
    [result] = answer.json["results"]
    return result


def test_a_grant_of_hq_speaks_for_its_line(granted: World) -> None:
    transaction_id = a_name("X")
    grant = KEYRING.sign(a_grant(granted, transaction_id))
    assert settled_with(granted, transaction_id, grant)["codes"] == ["lock_reconstructed"]


def changed(text: str, place: int) -> str:
    """Return a text with one character replaced by another that could stand there."""
    other = "B" if text[place] == "A" else "A"
    return text[:place] + other + text[place + 1 :]


def parts_changed(part: int, change: Callable[[str], str]) -> Callable[[str], str]:
    def spoil(text: str) -> str:
        parts = text.split(".")
        return ".".join([*parts[:part], change(parts[part]), *parts[part + 1 :]])

    return spoil


SPOILED_GRANTS: dict[str, Callable[[str], str]] = {
    "another version": parts_changed(0, lambda part: "g2"),
    "another key": parts_changed(1, lambda part: "k2"),
    "the first byte of what it says": parts_changed(2, lambda part: changed(part, 0)),
    "a byte of what it says": parts_changed(2, lambda part: changed(part, len(part) // 2)),
    "the last byte of what it says": parts_changed(2, lambda part: changed(part, -1)),
    "the first byte of its signature": parts_changed(3, lambda part: changed(part, 0)),
    "a byte of its signature": parts_changed(3, lambda part: changed(part, 20)),
    "the last byte of its signature": parts_changed(3, lambda part: changed(part, -1)),
    "no signature": parts_changed(3, lambda part: ""),
    "signed with nothing": lambda text: text.rpartition(".")[0],
    "padded": lambda text: text + "=",
    "a blank behind it": lambda text: text + " ",
    "one part too many": lambda text: text + ".A",
    "in capitals": str.upper,
    "cut off": lambda text: text[:-1],
    "nothing": lambda text: "",
    "a word": lambda text: "granted",
    "beyond ASCII": lambda text: text[:-1] + "\u00e5",
    "as long as can be": lambda text: text.ljust(1_024, "A"),
}


@pytest.mark.parametrize("fault", SPOILED_GRANTS)
def test_a_spoiled_grant_counts_as_absent_and_is_told(granted: World, fault: str) -> None:
    transaction_id = a_name("X")
    text = SPOILED_GRANTS[fault](KEYRING.sign(a_grant(granted, transaction_id)))
    without = settled_with(granted, a_name("X"), None)
    result = settled_with(granted, transaction_id, text)
    assert (result["outcome"], result["funded_minor"]) == ("applied", 1)
    assert set(result["codes"]) == {*without["codes"], "grant_invalid"}
    assert granted.hq.case(result["case_id"])["codes"] == result["codes"]


def test_a_grant_with_any_character_changed_is_not_hqs(granted: World) -> None:
    grant = a_grant(granted, "X")
    text = KEYRING.sign(grant)
    assert KEYRING.grant(text, grant.key) is not None
    for place in range(len(text)):
        assert KEYRING.grant(changed(text, place), grant.key) is None, place
        assert KEYRING.grant(text[:place] + text[place + 1 :], grant.key) is None, place


OTHERS_GRANTS: dict[str, Callable[[Grant], Grant]] = {
    "another terminal": lambda grant: of_key(grant, terminal_id="T-other"),
    "another store": lambda grant: of_key(grant, store_id="S-other"),
    "another transaction": lambda grant: of_key(grant, transaction_id="X-other"),
    "another card": lambda grant: dataclasses.replace(grant, instrument_id=uuid4()),
    "another currency": lambda grant: dataclasses.replace(grant, currency="EUR"),
}


def of_key(grant: Grant, **more: Any) -> Grant:
    return dataclasses.replace(grant, key=grant.key._replace(**more))


@pytest.mark.parametrize("whose", OTHERS_GRANTS)
def test_a_grant_of_something_else_counts_as_absent_and_is_told(granted: World, whose: str) -> None:
    transaction_id = a_name("X")
    grant = OTHERS_GRANTS[whose](a_grant(granted, transaction_id))
    without = settled_with(granted, a_name("X"), None)
    result = settled_with(granted, transaction_id, KEYRING.sign(grant))
    assert (result["outcome"], result["funded_minor"]) == ("applied", 1)
    assert set(result["codes"]) == {*without["codes"], "grant_invalid"}
