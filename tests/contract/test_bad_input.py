"""Whatever is wrong with a request is refused exactly, and nothing is written.

Every row of the tables below is sent to every endpoint that it concerns. A refusal is a problem
document with the right status, code and pointers, and every table is the same before and after.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import Message
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from hq_service.api.problems import CONTENT_TYPE, PROBLEMS
from hq_service.domain import numbers, reading
from hq_service.domain.actors import Role
from hq_service.domain.model import BusinessKey
from hq_service.domain.numbers import number_made_for
from tests import support
from tests.support import (
    NUMBER_SECRET,
    Caller,
    Card,
    Hq,
    Tables,
    Till,
    a_name,
    a_number,
    exchange,
    running,
    served,
)

Body = dict[str, Any]
TEXTS = ("name", "number", "reason", "display name", "told state")

BODY_BYTES_MAX = 64 * 1024
BATCH_BODY_BYTES_MAX = 4 * 1024 * 1024
BATCH_LINES_MAX = 50
# Whoever sends much more than is read may find the connection closed before the answer.
BATCH_BODY_BYTES_MAX_OVER_THE_WIRE = 128 * 1024
JSON = {"Content-Type": "application/json"}


# --- the endpoints --------------------------------------------------------------------------------


@dataclass
class World:
    hq: Hq
    tables: Tables
    till: Till
    sync: Caller
    card: Card
    lock_id: str
    batch_id: str
    case_id: str
    sold: Card
    sold_lock_id: str
    stuck: Card
    stuck_lock_id: str
    key_id: str
    schedule_id: str
    session: Body
    other_session: Body
    profile_id: str

    def key(self) -> Body:
        return self.till.key_of("bad-input")

    def post_lines(self, lines: list[Any]) -> TestResponse:
        body = {"store_id": self.till.store_id, "batch_id": a_name("batch"), "lines": lines}
        return self.sync.post("/v1/offline-batches", body)

    @contextmanager
    def nothing_written(self) -> Iterator[None]:
        before = self.tables.rows()
        yield
        assert self.tables.rows() == before


@dataclass(frozen=True)
class Endpoint:
    """One POST or PATCH: who sends it, what a good body is, and what sort each member is of."""

    method: str
    path: str
    caller: str
    body: Callable[[World], Body]
    members: dict[str, str]
    optional: frozenset[str] = frozenset()
    # What is asked for only when another member says so: not missed in an empty body.
    conditional: frozenset[str] = frozenset()
    bytes_max: int = BODY_BYTES_MAX

    @property
    def text(self) -> str:
        """Return a member that is a text."""
        return next(name for name, sort in self.members.items() if sort in TEXTS)

    def url(self, world: World) -> str:
        return self.path.format(
            case_id=world.case_id,
            store_id=world.till.store_id,
            terminal_id=world.till.terminal_id,
            offline_profile_id=world.profile_id,
            key_id=world.key_id,
            schedule_id=world.schedule_id,
            session_id=world.session["session_id"],
            other_session_id=world.other_session["session_id"],
        )

    def authorization(self, world: World) -> dict[str, str]:
        callers = {"till": world.till, "sync": world.sync, "admin": world.hq.admin}
        return {"Authorization": f"Bearer {callers[self.caller].key}"}

    def send(self, world: World, body: bytes, headers: dict[str, str] = JSON) -> TestResponse:
        if self.method == "PATCH":
            seen = world.hq.admin.get(self.url(world)).headers["ETag"]
            headers = {"If-Match": seen, **headers}
        return world.hq.client.open(
            self.url(world),
            method=self.method,
            data=body,
            headers={**self.authorization(world), **headers},
        )


KEY = {"store_id": "own name", "terminal_id": "name", "transaction_id": "name", "line": "line"}

ENDPOINTS = {
    "balance inquiry": Endpoint(
        "POST",
        "/v1/balance-inquiries",
        "till",
        lambda world: {"kind": world.card.kind, "number": world.card.number},
        {"kind": "kind", "number": "number"},
    ),
    "lock": Endpoint(
        "POST",
        "/v1/locks",
        "till",
        lambda world: {
            **world.key(),
            "kind": world.card.kind,
            "number": world.card.number,
            "purpose": "redeem",
        },
        {**KEY, "kind": "kind", "number": "number", "purpose": "purpose"},
        conditional=frozenset({"number"}),
    ),
    "lock for issue": Endpoint(
        "POST",
        "/v1/locks",
        "till",
        lambda world: {
            **world.till.key_of(a_name("issue")),
            "kind": "gift_card",
            "purpose": "issue",
            "amount_minor": 100,
            "currency": "SEK",
        },
        {**KEY, "kind": "kind", "purpose": "purpose", "amount_minor": "amount"}
        | {"currency": "currency", "number": "number"},
        optional=frozenset({"number"}),
        conditional=frozenset({"amount_minor", "currency"}),
    ),
    "release": Endpoint(
        "POST",
        "/v1/releases",
        "till",
        lambda world: {
            **world.key(),
            "instrument_id": world.card.instrument_id,
            "lock_id": world.lock_id,
        },
        {**KEY, "instrument_id": "uuid", "lock_id": "uuid"},
    ),
    "redemption": Endpoint(
        "POST",
        "/v1/redemptions",
        "till",
        lambda world: {
            **world.key(),
            "instrument_id": world.card.instrument_id,
            "lock_id": world.lock_id,
            "amount_minor": 100,
            "currency": "SEK",
        },
        {
            **KEY,
            "instrument_id": "uuid",
            "lock_id": "uuid",
            "amount_minor": "amount",
            "currency": "currency",
        },
    ),
    "sale": Endpoint(
        "POST",
        "/v1/transactions",
        "till",
        lambda world: {
            "store_id": world.till.store_id,
            "terminal_id": world.till.terminal_id,
            "transaction_id": "bad-sale",
            "lines": [sale_line(world)],
        },
        {"store_id": "own name", "terminal_id": "name", "transaction_id": "name"}
        | {"lines": "lines"},
    ),
    "void": Endpoint(
        "POST",
        "/v1/voids",
        "till",
        lambda world: {
            **world.till.key_of("bad-void"),
            "instrument_id": world.card.instrument_id,
            "reason": "test",
        },
        {**KEY, "instrument_id": "uuid", "reason": "reason"},
    ),
    "batch": Endpoint(
        "POST",
        "/v1/offline-batches",
        "sync",
        lambda world: {
            "store_id": world.till.store_id,
            "batch_id": a_name("batch"),
            "lines": [world.till.offline_line(world.card, a_name("X"), 1)],
        },
        {"store_id": "name", "batch_id": "name", "lines": "lines"},
        bytes_max=BATCH_BODY_BYTES_MAX,
    ),
    "parameters": Endpoint(
        "PATCH",
        "/v1/admin/parameters",
        "admin",
        lambda world: {"parameters": {"lease_seconds": 600}, "reason": "test"},
        {"parameters": "parameters", "reason": "reason"},
    ),
    "parameters of a store": Endpoint(
        "PATCH",
        "/v1/admin/stores/{store_id}/parameters",
        "admin",
        lambda world: {"parameters": {"lease_seconds": 600}, "reason": "test"},
        {"parameters": "parameters", "reason": "reason"},
    ),
    "issue": Endpoint(
        "POST",
        "/v1/admin/instruments",
        "admin",
        lambda world: {
            "reference": a_name("issue"),
            "kind": "gift_card",
            "number": a_number(),
            "currency": "SEK",
            "amount_minor": 100,
        },
        {
            "reference": "name",
            "kind": "kind",
            "number": "number",
            "currency": "currency",
            "amount_minor": "amount",
        },
        optional=frozenset({"number"}),
    ),
    "resolution": Endpoint(
        "POST",
        "/v1/admin/cases/{case_id}/resolutions",
        "admin",
        lambda world: {"resolution": "dismiss", "reason": "test"},
        {"resolution": "resolution", "reason": "reason"},
    ),
    "lock break": Endpoint(
        "POST",
        "/v1/admin/lock-breaks",
        "admin",
        lambda world: {
            "instrument_id": world.stuck.instrument_id,
            "lock_id": world.stuck_lock_id,
            "accepted_exposure_minor": 0,
            "reason": "test",
        },
        {
            "instrument_id": "uuid",
            "lock_id": "uuid",
            "accepted_exposure_minor": "exposure",
            "reason": "reason",
        },
    ),
    "store": Endpoint(
        "POST",
        "/v1/admin/stores",
        "admin",
        lambda world: {
            "store_id": a_name("S"),
            "name": "test",
            "time_zone": "Europe/Stockholm",
            "reason": "test",
        },
        {"store_id": "own name", "name": "display name", "time_zone": "time zone"}
        | {"reason": "reason"},
        optional=frozenset({"time_zone"}),
    ),
    "store edit": Endpoint(
        "PATCH",
        "/v1/admin/stores/{store_id}",
        "admin",
        lambda world: {"name": "test", "time_zone": "Asia/Tokyo", "reason": "test"},
        {"name": "display name", "time_zone": "time zone", "reason": "reason"},
        optional=frozenset({"name", "time_zone"}),
    ),
    "store retirement": Endpoint(
        "POST",
        "/v1/admin/stores/{store_id}/retirement",
        "admin",
        lambda world: {
            "accepted": what_is_accepted(world, f"/v1/admin/stores/{world.till.store_id}"),
            "reason": "test",
        },
        {"accepted": "accepted", "reason": "reason"},
    ),
    "store reactivation": Endpoint(
        "POST",
        "/v1/admin/stores/{store_id}/reactivation",
        "admin",
        lambda world: {"reason": "test"},
        {"reason": "reason"},
    ),
    "register": Endpoint(
        "POST",
        "/v1/admin/stores/{store_id}/registers",
        "admin",
        lambda world: {
            "terminal_id": a_name("T"),
            "name": "test",
            "supports_offline": True,
            "offline_profile_id": None,
            "reason": "test",
        },
        {"terminal_id": "name", "name": "display name", "supports_offline": "boolean"}
        | {"offline_profile_id": "name or null", "reason": "reason"},
        optional=frozenset({"supports_offline", "offline_profile_id"}),
    ),
    "register edit": Endpoint(
        "PATCH",
        "/v1/admin/stores/{store_id}/registers/{terminal_id}",
        "admin",
        lambda world: {
            "name": "test",
            "supports_offline": True,
            "offline_profile_id": None,
            "reason": "test",
        },
        {"name": "display name", "supports_offline": "boolean"}
        | {"offline_profile_id": "name or null", "reason": "reason"},
        optional=frozenset({"name", "supports_offline", "offline_profile_id"}),
    ),
    "register retirement": Endpoint(
        "POST",
        "/v1/admin/stores/{store_id}/registers/{terminal_id}/retirement",
        "admin",
        lambda world: {"accepted": at_stake(world), "reason": "test"},
        {"accepted": "accepted", "reason": "reason"},
    ),
    "register reactivation": Endpoint(
        "POST",
        "/v1/admin/stores/{store_id}/registers/{terminal_id}/reactivation",
        "admin",
        lambda world: {"reason": "test"},
        {"reason": "reason"},
    ),
    "offline profile": Endpoint(
        "POST",
        "/v1/admin/offline-profiles",
        "admin",
        lambda world: {
            "offline_profile_id": a_name("P"),
            "name": "test",
            "values": {"time_out_interval_seconds": 5},
            "reason": "test",
        },
        {"offline_profile_id": "name", "name": "display name", "values": "profile values"}
        | {"reason": "reason"},
        optional=frozenset({"values"}),
    ),
    "offline profile edit": Endpoint(
        "PATCH",
        "/v1/admin/offline-profiles/{offline_profile_id}",
        "admin",
        lambda world: {
            "name": "test",
            "values": {"time_out_interval_seconds": 5},
            "reason": "test",
        },
        {"name": "display name", "values": "profile values", "reason": "reason"},
        optional=frozenset({"name", "values"}),
    ),
    "offline profile retirement": Endpoint(
        "POST",
        "/v1/admin/offline-profiles/{offline_profile_id}/retirement",
        "admin",
        lambda world: {"reason": "test"},
        {"reason": "reason"},
    ),
    "key": Endpoint(
        "POST",
        "/v1/admin/keys",
        "admin",
        lambda world: {
            "role": "terminal",
            "store_id": world.till.store_id,
            "terminal_id": world.till.terminal_id,
            "label": "test",
            "expires_at": SOON.isoformat(),
            "reason": "test",
        },
        {"role": "role", "store_id": "name or null", "terminal_id": "name or null"}
        | {"label": "display name", "expires_at": "instant or null", "reason": "reason"},
        optional=frozenset({"expires_at"}),
        conditional=frozenset({"store_id", "terminal_id"}),
    ),
    "key rotation": Endpoint(
        "POST",
        "/v1/admin/keys/{key_id}/rotation",
        "admin",
        lambda world: {"overlap_seconds": 60, "expires_at": SOON.isoformat(), "reason": "test"},
        {"overlap_seconds": "overlap", "expires_at": "instant or null", "reason": "reason"},
        optional=frozenset({"expires_at"}),
    ),
    "key revocation": Endpoint(
        "POST",
        "/v1/admin/keys/{key_id}/revocation",
        "admin",
        lambda world: {"reason": "test"},
        {"reason": "reason"},
    ),
    "acknowledgement": Endpoint(
        "POST",
        "/v1/distribution-sessions/{session_id}/acknowledgements",
        "sync",
        lambda world: {
            "status": "applied",
            "checksum_sha256": world.session["checksum_sha256"],
            "message": "test",
        },
        {"status": "session status", "checksum_sha256": "checksum", "message": "reason"},
        optional=frozenset({"message"}),
        conditional=frozenset({"checksum_sha256"}),
    ),
    "heartbeat": Endpoint(
        "POST",
        "/v1/heartbeats",
        "till",
        lambda world: {
            "sent_at": datetime.now(UTC).isoformat(),
            "connection_state": "online",
            "pending_count": 0,
            "pending_amounts_minor": {},
            "oldest_pending_at": None,
            "last_sync": {"at": None, "status": "none", "message": None},
            "journal_tips": {},
            "parameter_revision": None,
            "offline_profile_version": None,
        },
        {"sent_at": "instant", "connection_state": "told state", "pending_count": "count"}
        | {"pending_amounts_minor": "numbers", "oldest_pending_at": "instant or null"}
        | {"last_sync": "last sync", "journal_tips": "numbers"}
        | {"parameter_revision": "version or null", "offline_profile_version": "version or null"},
        optional=frozenset({"oldest_pending_at", "parameter_revision", "offline_profile_version"}),
    ),
    "cache reset": Endpoint(
        "POST",
        "/v1/admin/cache-resets",
        "admin",
        lambda world: {
            "store_id": world.till.store_id,
            "terminal_id": world.till.terminal_id,
            "reason": "test",
        },
        {"store_id": "name or null", "terminal_id": "name or null", "reason": "reason"},
        optional=frozenset({"store_id", "terminal_id"}),
    ),
    "schedule": Endpoint(
        "POST",
        "/v1/admin/distribution-schedules",
        "admin",
        lambda world: {
            "schedule_id": a_name("D"),
            "name": "test",
            "job_ids": ["1110"],
            "is_active": True,
            "every_seconds": 3600,
            "cron": None,
            "reason": "test",
        },
        {"schedule_id": "name", "name": "display name", "job_ids": "jobs", "is_active": "boolean"}
        | {"every_seconds": "interval or null", "cron": "cron or null", "reason": "reason"},
        optional=frozenset({"is_active", "every_seconds", "cron"}),
    ),
    "schedule edit": Endpoint(
        "PATCH",
        "/v1/admin/distribution-schedules/{schedule_id}",
        "admin",
        lambda world: {
            "name": "test",
            "job_ids": ["1110"],
            "is_active": True,
            "every_seconds": None,
            "cron": "0 2 * * *",
            "reason": "test",
        },
        {"name": "display name", "job_ids": "jobs", "is_active": "boolean"}
        | {"every_seconds": "interval or null", "cron": "cron or null", "reason": "reason"},
        optional=frozenset({"name", "job_ids", "is_active", "every_seconds", "cron"}),
    ),
    "run now": Endpoint(
        "POST",
        "/v1/admin/distribution-schedules/{schedule_id}/runs",
        "admin",
        lambda world: {"store_ids": [world.till.store_id], "reason": "test"},
        {"store_ids": "store ids", "reason": "reason"},
        optional=frozenset({"store_ids"}),
    ),
    "rerun": Endpoint(
        "POST",
        "/v1/admin/distribution-sessions/{session_id}/reruns",
        "admin",
        lambda world: {"reason": "test"},
        {"reason": "reason"},
    ),
    "cancellation": Endpoint(
        "POST",
        "/v1/admin/distribution-sessions/{other_session_id}/cancellations",
        "admin",
        lambda world: {"reason": "test"},
        {"reason": "reason"},
    ),
}


def at_stake(world: World) -> Body:
    """Return what has to be accepted by whoever retires the till."""
    till = world.till
    path = f"/v1/admin/stores/{till.store_id}/registers/{till.terminal_id}"
    return what_is_accepted(world, path)


def what_is_accepted(world: World, path: str) -> Body:
    """Return what has to be accepted by whoever retires the register or store of a path."""
    left = world.hq.admin.get(f"{path}/retirement").json["at_stake"]
    return {name: left[name] for name in ("gaps_count", "live_grants_count", "open_cases_count")}


def sale_line(world: World) -> Body:
    """Return the one line of the good sale."""
    return {
        "line": 1,
        "operation": "redeem",
        "instrument_id": world.sold.instrument_id,
        "lock_id": world.sold_lock_id,
        "amount_minor": 100,
        "currency": "SEK",
    }


@pytest.fixture(scope="module")
def app(database_url: str) -> Iterator[Flask]:
    """The application with limits that a test can reach."""
    limits = {
        "batch_body_bytes_max": BATCH_BODY_BYTES_MAX,
        "batch_lines_max": BATCH_LINES_MAX,
    }
    with running(database_url, **limits) as app:
        yield app


@pytest.fixture(scope="module")
def world(hq: Hq, app: Flask) -> Iterator[World]:
    with a_world(hq, app) as made:
        yield made


@contextmanager
def a_world(hq: Hq, app: Flask) -> Iterator[World]:
    """Give a till with everything that a good request of each endpoint is about."""
    till, card = hq.till(), hq.issue(1_000_000_00)
    profile_id = a_name("P")
    profile = {"offline_profile_id": profile_id, "name": "test", "reason": "test"}
    assert hq.admin.post("/v1/admin/offline-profiles", profile).status_code == 201
    sold, stuck = hq.issue(100_00), hq.issue(100_00)
    lock = till.lock(card, "bad-input")
    posted = hq.post_batch(till.store_id, [till.offline_line(card, a_name("X"), 1)] * 3)
    schedule_id, sync = hq.make_schedule("1110", "1070"), hq.sync(till.store_id)
    assert hq.run_now(schedule_id, till.store_id).status_code == 201
    session, other_session = sync.to_do()
    assert sync.fetch(session["session_id"]).status_code == 200
    with Tables.of(app) as tables:
        yield World(
            hq,
            tables,
            till,
            sync,
            card,
            lock.json["lock_id"],
            posted.json["batch_id"],
            posted.json["results"][0]["case_id"],
            sold,
            till.lock(sold, "bad-sale").json["lock_id"],
            stuck,
            till.lock(stuck, "stuck").json["lock_id"],
            hq.make_key(Role.SYNC, store_id=till.store_id).split("_")[1],
            schedule_id,
            session,
            other_session,
            profile_id,
        )


def assert_refused(
    answer: TestResponse, status: int, code: str, pointers: list[str] | None = None
) -> None:
    """Check a whole problem document; ``pointers`` None means that it points at nothing."""
    document = answer.json
    assert (answer.status_code, document["code"]) == (status, code), document
    assert answer.content_type == CONTENT_TYPE
    assert document["status"] == status == PROBLEMS[code].status
    assert document["type"] == f"/problems/{code}"
    assert document["title"] == PROBLEMS[code].title
    assert document["detail"]
    assert document["retryable"] is False
    assert document["request_id"] == answer.headers["X-Request-Id"] != ""
    if pointers is None:
        assert "errors" not in document
    else:
        assert [fault["pointer"] for fault in document["errors"]] == pointers
        assert all(fault["detail"] for fault in document["errors"])


# --- bodies that are not JSON, or not JSON that everybody reads alike -----------------------------


def written(body: Body, raw: dict[str, str]) -> bytes:
    """Return a body as JSON with some members written as given, whatever that is."""
    members = {name: json.dumps(value) for name, value in body.items()} | raw
    return ("{" + ",".join(f'"{name}":{text}' for name, text in members.items()) + "}").encode()


def instead(text: str) -> Callable[[Body, str], bytes]:
    """Return how to write a body with its text member as given."""
    return lambda body, name: written(body, {name: text})


MALFORMED: dict[str, Callable[[Body, str], bytes]] = {
    "nothing": lambda body, name: b"",
    "blanks": lambda body, name: b" \n ",
    "cut off": lambda body, name: written(body, {})[:-1],
    "cut off in the middle": lambda body, name: written(body, {})[: len(written(body, {})) // 2],
    "two documents": lambda body, name: written(body, {}) * 2,
    "a comma too many": lambda body, name: written(body, {})[:-1] + b",}",
    "a comment": lambda body, name: b"/* */" + written(body, {}),
    "single quotes": lambda body, name: written(body, {}).replace(b'"', b"'"),
    "a form": lambda body, name: b"kind=gift_card&number=1",
    "a byte order mark": lambda body, name: b"\xef\xbb\xbf" + written(body, {}),
    "UTF-16": lambda body, name: written(body, {}).decode().encode("utf-16"),
    "UTF-16 without a mark": lambda body, name: written(body, {}).decode().encode("utf-16-le"),
    "UTF-32": lambda body, name: written(body, {}).decode().encode("utf-32"),
    "invalid UTF-8": lambda body, name: written(body, {name: '"@"'}).replace(b"@", b"\xff"),
    "overlong UTF-8": lambda body, name: written(body, {name: '"@"'}).replace(b"@", b"\xc0\x80"),
    "a surrogate in UTF-8": lambda body, name: written(body, {name: '"@"'}).replace(
        b"@", b"\xed\xa0\x80"
    ),
    "a member twice": lambda body, name: written(body, {})[:-1] + f',"{name}":"other"}}'.encode(),
    "a member twice, deep inside": instead('[{"a":1,"a":1}]'),
    "NaN": instead("NaN"),
    "Infinity": instead("Infinity"),
    "-Infinity": instead("-Infinity"),
    "a number of 21 digits": instead("1" * 21),
    "a number of 5,000 digits": instead("1" * 5_000),
    "-5,000 digits": instead("-" + "1" * 5_000),
    "a leading zero": instead("007"),
    "hexadecimal": instead("0x7"),
    "nested 21 deep": instead("[" * 21 + "]" * 21),
    "objects nested 21 deep": instead('{"a":' * 21 + "1" + "}" * 21),
    "nested 60,000 deep": lambda body, name: b"[" * 60_000,
    "nested 30,000 deep and closed": lambda body, name: b"[" * 30_000 + b"]" * 30_000,
    "objects nested 10,000 deep": lambda body, name: b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "NUL": instead('"a\x00b"'),
    "NUL as an escape": instead(r'"a\u0000b"'),
    "NUL in the name of a member": lambda body, name: written(body, {r"a\u0000b": "1"}),
    "a control character unescaped": instead('"a\x07b"'),
    "a line break in a text": instead('"a\nb"'),
    "half a surrogate pair": instead(r'"\ud83d"'),
    "the other half": instead(r'"\ude00"'),
    "a pair the wrong way round": instead(r'"\ude00\ud83d"'),
    "half a pair in the name of a member": lambda body, name: written(body, {r"\uDBFF": "1"}),
    "an escape that is none": instead(r'"\x41"'),
}

NOT_AN_OBJECT = {
    "an array": b"[]",
    "an array of a body": b'[{"kind":"gift_card"}]',
    "a text": b'"text"',
    "a number": b"7",
    "true": b"true",
    "null": b"null",
}


@pytest.mark.parametrize("fault", MALFORMED)
@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_body_that_is_not_plain_json_is_refused(world: World, name: str, fault: str) -> None:
    endpoint = ENDPOINTS[name]
    body = MALFORMED[fault](endpoint.body(world), endpoint.text)
    with world.nothing_written():
        assert_refused(endpoint.send(world, body), 400, "malformed_body")


@pytest.mark.parametrize("fault", NOT_AN_OBJECT)
@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_body_that_is_no_object_is_refused(world: World, name: str, fault: str) -> None:
    with world.nothing_written():
        answer = ENDPOINTS[name].send(world, NOT_AN_OBJECT[fault])
    assert_refused(answer, 422, "validation_failed", [""])


# --- how a body is sent ---------------------------------------------------------------------------

HEADERS = {
    "no content type": {},
    "an empty one": {"Content-Type": ""},
    "plain text": {"Content-Type": "text/plain"},
    "JSON as text": {"Content-Type": "text/json"},
    "a form": {"Content-Type": "application/x-www-form-urlencoded"},
    "a form in parts": {"Content-Type": "multipart/form-data; boundary=x"},
    "JSON of another kind": {"Content-Type": "application/merge-patch+json"},
    "XML": {"Content-Type": "application/xml"},
    "NDJSON": {"Content-Type": "application/x-ndjson"},
    "gzip": {**JSON, "Content-Encoding": "gzip"},
    "GZIP": {**JSON, "Content-Encoding": "GZIP"},
    "br": {**JSON, "Content-Encoding": "br"},
    "deflate": {**JSON, "Content-Encoding": "deflate"},
    "gzip over identity": {**JSON, "Content-Encoding": "identity, gzip"},
}


# What batches are taken in besides plain JSON: tests/contract/test_bad_batches.py.
TAKEN_OF_BATCHES = {"NDJSON", "gzip", "GZIP"}


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        (name, headers)
        for name in ENDPOINTS
        for headers in HEADERS
        if name != "batch" or headers not in TAKEN_OF_BATCHES
    ],
)
def test_a_body_of_another_type_or_encoding_is_refused(
    world: World, name: str, headers: str
) -> None:
    endpoint = ENDPOINTS[name]
    body = json.dumps(endpoint.body(world)).encode()
    if "Content-Encoding" in HEADERS[headers]:
        body = gzip.compress(body)
    with world.nothing_written():
        answer = endpoint.send(world, body, HEADERS[headers])
    assert_refused(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_body_is_refused_from_its_limit_on(world: World, name: str) -> None:
    endpoint = ENDPOINTS[name]
    # Blanks count: the limit is on bytes that have to be read.
    full = json.dumps({**endpoint.body(world), "nonsense": 1}).encode().ljust(endpoint.bytes_max)
    with world.nothing_written():
        within = endpoint.send(world, full)
        assert_refused(within, 422, "validation_failed", ["/nonsense"])
        above = endpoint.send(world, full + b" ")
    assert_refused(above, 413, "payload_too_large")


def test_a_batch_has_a_limit_on_its_lines(world: World) -> None:
    endpoint = ENDPOINTS["batch"]
    body = endpoint.body(world)
    body["lines"] *= BATCH_LINES_MAX + 1
    with world.nothing_written():
        answer = endpoint.send(world, json.dumps(body).encode())
    assert_refused(answer, 413, "payload_too_large")


# --- members --------------------------------------------------------------------------------------

NO_TEXT = ["null", "7", "true", "1.5", "[]", "{}", '["text"]']
NO_NAME = [
    '""', '" "', '"a b"', '" a"', '"a "', f'"{"a" * 65}"', '"/"', '"../a"', '"a/b"', '"-a"', '".a"',
    '"\u00e5"', '"a\u00e5"', r'"a\u0007"', r'"a\n"', r'"a\u200b"', '"\uff11"', '"a;b"', "\"a'b\"",
    '"<a>"', '"%00"',
]  # fmt: skip
NO_INTEGER = [
    "null", "true", "false", '"7"', '""', "1.0", "1.5", "1e3", "1E0", "-1.0", "[]", "[1]", "{}",
    "0", "-1", "-0", "9007199254740992", "99999999999999999999", "1e400",
]  # fmt: skip
NO_UUID = [
    '""', '"00000000-0000-0000-0000-000000000000"', '"{f81d4fae-7dec-11d0-a765-00a0c91e6bf6}"',
    '"urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"', '"f81d4fae7dec11d0a76500a0c91e6bf6"',
    '"f81d4fae-7dec-11d0-a765-00a0c91e6bf"', '"f81d4fae-7dec-11d0-a765-00a0c91e6bfg"',
    '"f81d4fae-7dec-11d0-a76500a0c91e6bf6-"', '" f81d4fae-7dec-11d0-a765-00a0c91e6bf"',
    '"\uff18\uff11d4fae-7dec-11d0-a765-00a0c91e6bf6"', '"not a UUID, but as long as one is...."',
]  # fmt: skip
NO_CURRENCY = [
    '""', '"sek"', '"Sek"', '"XXX"', '"XTS"', '"ZZZ"', '"SE"', '"SEKK"', '"SEK "', '"S\u20acK"',
    r'"SEK\n"', '"752"',
]  # fmt: skip
NO_NUMBER = [
    '""', '" "', '"1234567"', f'"{"1" * 33}"', f'"{"1" * 65}"', '"12345678!"', '"6006_0000"',
    '"6006\u00a00000"', r'"6006\t0000\t0000"', r'"60060000\n"', r'"6006\u202e0000"',
    r'"6006\u00850000"', '"\uff16\uff10\uff10\uff16\uff10\uff10\uff10\uff10"',
]  # fmt: skip
NO_REASON = [
    '""', f'"{"a" * 501}"', r'"a\u0001b"', r'"a\nb"', r'"a\u001b[31mb"',
    r'"a\u007fb"', r'"a\u0085b"', r'"a\u009bb"', r'"a\u202eb"', r'"a\u2066b"',
]  # fmt: skip

NO_DISPLAY_NAME = f'"{"a" * 101}"'

# Sort of a member -> what is wrong for it, as JSON text.
WRONG: dict[str, list[str]] = {
    "name": NO_TEXT + NO_NAME,
    "own name": [*NO_TEXT, *NO_NAME, '"HQ"'],
    "line": [*NO_INTEGER, "10000"],
    "amount": NO_INTEGER,
    "uuid": NO_TEXT + NO_UUID,
    "currency": NO_TEXT + NO_CURRENCY,
    "kind": [*NO_TEXT, '""', '"voucher"', '"GIFT_CARD"', '"gift card"', '"giftcard "'],
    "purpose": [*NO_TEXT, '""', '"void"', '"release"', '"recover"', '"REDEEM"', '"nonsense"'],
    "resolution": [*NO_TEXT, '""', '"voided"', '"arrived"', '"ABSORB"', '"nonsense"'],
    "exposure": [one for one in NO_INTEGER if one not in ("0", "-0")],
    "number": NO_TEXT + NO_NUMBER,
    "reason": NO_TEXT + NO_REASON,
    "parameters": ["null", "7", "true", '"text"', "[]", "{}", '["lease_seconds"]'],
    "lines": ["null", "7", "true", '"text"', "[]", "{}", '{"0":{}}'],
    "display name": [*NO_TEXT, *(one for one in NO_REASON if "501" not in one), NO_DISPLAY_NAME],
    "time zone": [
        *NO_TEXT, '""', '"Mars/Olympus"', '"europe/stockholm"', '"Europe"', '"../etc/passwd"',
        '"/usr/share/zoneinfo/UTC"', '"Factory"', '"localtime"', '"+02:00"', r'"UTC\u0007"',
    ],
    "boolean": ["null", "0", "1", '"true"', '"yes"', "[]", "{}", '""'],
    "name or null": [one for one in NO_TEXT + NO_NAME if one != "null"],
    "accepted": ["null", "7", "true", '"text"', "[]"],
    "told state": [*NO_TEXT, '""', '"ONLINE"', '"presumed_offline"', '"retired"'],
    "count": [one for one in NO_INTEGER if one not in ("0", "-0")] + ["1000001"],
    "numbers": ["null", "7", "true", '"text"', "[]", '["SEK"]'],
    "last sync": ["null", "7", "true", '"none"', "[]"],
    "version or null": [one for one in NO_INTEGER if one not in ("null", "0", "-0")]
    + ["2147483648"],
    "instant": [
        *NO_TEXT, '""', '"today"', '"2026-01-01"', '"2026-01-01T00:00:00"',
        '"1999-12-31T23:59:59Z"', '"9999-12-31T00:00:00Z"', '"2026-13-01T00:00:00Z"',
    ],
    "profile values": ["null", "7", "true", '"text"', "[]"],
    "role": [*NO_TEXT, '""', '"ADMIN"', '"administrator"', '"till"'],
    "overlap": [one for one in NO_INTEGER if one not in ("0", "-0")] + ["2592001"],
    "session status": [
        *NO_TEXT, '""', '"available"', '"requested"', '"canceled"', '"no_data"', '"APPLIED"',
    ],
    "checksum": [
        *NO_TEXT, '""', f'"{"a" * 63}"', f'"{"a" * 65}"', f'"{"A" * 64}"', f'"{"g" * 64}"',
    ],
    "jobs": [
        "null", "7", "true", '"1110"', "[]", "{}", '["1110","1070","1090","P-0001","1110"]',
    ],
    "interval or null": [one for one in NO_INTEGER if one != "null"] + ["59", "2678401"],
    "cron or null": [
        *(one for one in NO_TEXT if one != "null"), '""', '"* * * *"', '"@daily"', '"60 * * * *"',
        '"0 0 30 2 *"', f'"{"1," * 60}1 * * * *"', r'"0\t2 * * *"', '"\u0660 * * * *"',
    ],
    "store ids": ["null", "7", "true", '"text"', "[]", "{}"],
    "instant or null": [
        *(one for one in NO_TEXT if one != "null"), '""', '"tomorrow"', '"2026-01-01"',
        '"2026-01-01T00:00:00"', '"1999-12-31T23:59:59Z"', '"9999-12-31T00:00:00Z"',
        '"2026-13-01T00:00:00Z"', '"2026-01-01 00:00:00Z"', '"2001-01-01T00:00:00Z"',
    ],
}  # fmt: skip
VALUES = [
    pytest.param(name, member, value, id=f"{name}: {member} {ascii(value)[:40]}")
    for name, endpoint in ENDPOINTS.items()
    for member, sort in endpoint.members.items()
    for value in WRONG[sort]
]


@pytest.mark.parametrize(("name", "member", "value"), VALUES)
def test_a_wrong_value_is_pointed_at(world: World, name: str, member: str, value: str) -> None:
    endpoint = ENDPOINTS[name]
    with world.nothing_written():
        answer = endpoint.send(world, written(endpoint.body(world), {member: value}))
    assert_refused(answer, 422, "validation_failed", [f"/{member}"])


WITH_A_REASON = [name for name, endpoint in ENDPOINTS.items() if "reason" in endpoint.members]


@pytest.mark.parametrize("blanks", ['" "', '"   "', r'"\u00a0"', r'"\u3000 \u2003"'], ids=ascii)
@pytest.mark.parametrize("name", WITH_A_REASON)
def test_a_reason_of_blanks_only_is_none(world: World, name: str, blanks: str) -> None:
    endpoint = ENDPOINTS[name]
    with world.nothing_written():
        answer = endpoint.send(world, written(endpoint.body(world), {"reason": blanks}))
    assert_refused(answer, 422, "validation_failed", ["/reason"])


def test_every_route_that_takes_a_reason_is_one_of_these(app: Flask) -> None:
    document = app.test_client().get("/openapi.json").json
    schemas = document["components"]["schemas"]
    taking = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method == "parameters" or "requestBody" not in operation:
                continue
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            name = schema.get("$ref", "").split("/")[-1]
            is_batch = path == "/v1/offline-batches"  # each line has its own, which may be left out
            taking += not is_batch and "reason" in schemas.get(name, {}).get("properties", {})
    assert taking == len(WITH_A_REASON)


NAMES_WITH_NUMBERS = ['"6006123456789012"', '"till-60061234"', '"0123456789ABCDEF"']
# What administrators choose, and what everybody sees for ever, also in the audit.
CHOSEN = [
    (name, member)
    for name, endpoint in ENDPOINTS.items()
    for member, sort in endpoint.members.items()
    if sort == "display name"
    or (name, member)
    in {
        ("store", "store_id"),
        ("register", "terminal_id"),
        ("offline profile", "offline_profile_id"),
        ("schedule", "schedule_id"),
    }
]


@pytest.mark.parametrize(("name", "member"), CHOSEN)
def test_what_an_administrator_chooses_is_no_card_number(
    world: World, name: str, member: str
) -> None:
    endpoint = ENDPOINTS[name]
    spaced = [] if member.endswith("_id") else ['"card 6006 1234 5678 9012"']
    for value in NAMES_WITH_NUMBERS + spaced:
        with world.nothing_written():
            answer = endpoint.send(world, written(endpoint.body(world), {member: value}))
        assert_refused(answer, 422, "validation_failed", [f"/{member}"])
        assert answer.json["errors"][0]["detail"] == "looks like a card number"
        assert json.loads(value) not in answer.text


@pytest.mark.parametrize(
    ("unknown", "pointer"),
    [
        ("nonsense", "/nonsense"),
        ("__proto__", "/__proto__"),
        ("", "/"),
        ("a/b~c", "/a~1b~0c"),
        ("n" * 100, "/" + "n" * 64),
        # A card number in the wrong place is not told again.
        ("6006123456789012", "/***9012"),
    ],
)
@pytest.mark.parametrize("name", ENDPOINTS)
def test_an_unknown_member_is_pointed_at(
    world: World, name: str, unknown: str, pointer: str
) -> None:
    endpoint = ENDPOINTS[name]
    with world.nothing_written():
        answer = endpoint.send(world, json.dumps({**endpoint.body(world), unknown: 1}).encode())
    assert_refused(answer, 422, "validation_failed", [pointer])


@pytest.mark.parametrize("name", sorted(ENDPOINTS.keys() - {"batch"}))
def test_only_batches_know_a_dry_run(world: World, name: str) -> None:
    endpoint = ENDPOINTS[name]
    with world.nothing_written():
        body = {**endpoint.body(world), "dry_run": True}
        answer = endpoint.send(world, json.dumps(body).encode())
    assert_refused(answer, 422, "validation_failed", ["/dry_run"])


@pytest.mark.parametrize(
    ("name", "member"),
    [
        pytest.param(name, member, id=f"{name}: {member}")
        for name, endpoint in ENDPOINTS.items()
        for member in sorted(endpoint.members.keys() - endpoint.optional)
    ],
)
def test_a_missing_member_is_pointed_at(world: World, name: str, member: str) -> None:
    endpoint = ENDPOINTS[name]
    body = endpoint.body(world)
    del body[member]
    with world.nothing_written():
        answer = endpoint.send(world, json.dumps(body).encode())
    assert_refused(answer, 422, "validation_failed", [f"/{member}"])


@pytest.mark.parametrize("name", ENDPOINTS)
def test_every_fault_is_pointed_at_in_one_answer(world: World, name: str) -> None:
    endpoint = ENDPOINTS[name]
    with world.nothing_written():
        answer = endpoint.send(world, b"{}")
    asked_for = endpoint.members.keys() - endpoint.optional - endpoint.conditional
    missing = sorted(f"/{member}" for member in asked_for)
    assert sorted(fault["pointer"] for fault in answer.json["errors"]) == missing


# Members of a lock request for each purpose: what it lacks or has too much, and the pointers.
ABSENT = object()
LOCK_MEMBERS: dict[str, tuple[Body, list[str]]] = {
    "redeem without number": ({"number": ABSENT}, ["/number"]),
    "redeem with amount": ({"amount_minor": 100}, ["/amount_minor"]),
    "redeem with currency": ({"currency": "SEK"}, ["/currency"]),
    "cash out with amount": ({"purpose": "cash_out", "amount_minor": 100}, ["/amount_minor"]),
    "load without amount": ({"purpose": "load"}, ["/amount_minor"]),
    "load of nothing": ({"purpose": "load", "amount_minor": 0}, ["/amount_minor"]),
    "load without number": (
        {"purpose": "load", "amount_minor": 1, "number": ABSENT},
        ["/number"],
    ),
    "load with currency": (
        {"purpose": "load", "amount_minor": 1, "currency": "SEK"},
        ["/currency"],
    ),
    "refund without amount": ({"purpose": "refund"}, ["/amount_minor"]),
    "issue of nothing in nothing": ({"purpose": "issue"}, ["/amount_minor", "/currency"]),
    "issue of a memo with a number": (
        {"purpose": "issue", "kind": "credit_memo", "amount_minor": 1, "currency": "SEK"},
        ["/number"],
    ),
}


def spoiled(line: Body, change: Any) -> Any:
    """Return a line with some members changed or absent, or something else in its place."""
    if not isinstance(change, dict):
        return change
    return {name: value for name, value in {**line, **change}.items() if value is not ABSENT}


@pytest.mark.parametrize("case", LOCK_MEMBERS)
def test_a_lock_has_the_members_of_its_purpose_and_no_others(world: World, case: str) -> None:
    change, pointers = LOCK_MEMBERS[case]
    endpoint = ENDPOINTS["lock"]
    body = spoiled(endpoint.body(world), change)
    with world.nothing_written():
        answer = endpoint.send(world, json.dumps(body).encode())
    assert answer.status_code == 422, answer.json
    assert sorted(fault["pointer"] for fault in answer.json["errors"]) == pointers


# Member of a line of a sale -> what sort it is of; those of a refund and a tender are below.
SALE_LINE = {
    "line": "line",
    "operation": "purpose",
    "instrument_id": "uuid",
    "lock_id": "uuid",
    "amount_minor": "amount",
    "currency": "currency",
}
ORIGINAL = {"store_id": "S001", "terminal_id": "T01", "transaction_id": "X", "line": 1}
TENDER = {"amount_minor": 10, "currency": "EUR", "exchange_rate": "10.4375"}
NO_OBJECT = ["null", "7", "true", '"text"', "[]"]
NO_RATE = [
    *NO_TEXT, '""', '"0,5"', '"-1"', '"+1"', '"1."', '".5"', '"1e3"', '"1 "', r'"1\n"', '"NaN"',
    '"Infinity"', '"1.2.3"', '"0x1"', '"\uff11"', f'"{"1" * 13}"', f'"1.{"1" * 13}"',
]  # fmt: skip
REFUND = {"operation": "refund"}


def send_sale(world: World, *lines: bytes) -> TestResponse:
    endpoint = ENDPOINTS["sale"]
    raw = b"[" + b",".join(lines) + b"]"
    return endpoint.send(world, written(endpoint.body(world), {"lines": raw.decode()}))


def assert_line_refused(world: World, line: bytes, pointers: list[str]) -> None:
    """Send a line behind a good one, and expect pointers to it alone, and nothing concluded."""
    good = written(sale_line(world), {})
    with world.nothing_written():
        answer = send_sale(world, good, line)
    assert_refused(answer, 422, "validation_failed", [f"/lines/1{one}" for one in pointers])


@pytest.mark.parametrize(
    ("member", "value"),
    [
        pytest.param(member, value, id=f"{member} {ascii(value)[:40]}")
        for member, sort in SALE_LINE.items()
        for value in WRONG[sort]
    ],
)
def test_a_wrong_value_in_a_line_of_a_sale_is_pointed_at(
    world: World, member: str, value: str
) -> None:
    assert_line_refused(world, written(sale_line(world), {member: value}), [f"/{member}"])


@pytest.mark.parametrize("member", SALE_LINE)
def test_a_missing_member_of_a_line_of_a_sale_is_pointed_at(world: World, member: str) -> None:
    line = spoiled(sale_line(world), {member: ABSENT})
    assert_line_refused(world, written(line, {}), [f"/{member}"])


@pytest.mark.parametrize("line", [*NO_OBJECT, "{}"])
def test_a_line_of_a_sale_that_is_none_is_pointed_at(world: World, line: str) -> None:
    missing = {f"/lines/1/{member}" for member in SALE_LINE} if line == "{}" else {"/lines/1"}
    with world.nothing_written():
        answer = send_sale(world, written(sale_line(world), {}), line.encode())
    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert {fault["pointer"] for fault in answer.json["errors"]} == missing


# How to spoil a line of a sale, and what is pointed at in it.
SALE_LINES: dict[str, tuple[Body, str]] = {
    "an unknown member": ({"nonsense": 1}, "/nonsense"),
    "a grant": ({"grant": "g1.k1.a.b"}, "/grant"),
    "a card number": ({"number": "60060001"}, "/number"),
    "the sale's own store": ({"store_id": "S001"}, "/store_id"),
    "a status": ({"status": "voided"}, "/status"),
    "a refund of no reason and no original": (REFUND, "/reason"),
    "a refund of no original": ({**REFUND, "original": None}, "/original"),
    "an original of something else": ({"original": ORIGINAL}, "/original"),
    "an original of a load": ({"operation": "load", "original": ORIGINAL}, "/original"),
    "an original of HQ": (
        {**REFUND, "original": {**ORIGINAL, "store_id": "HQ"}},
        "/original/store_id",
    ),
    "an original with an amount": (
        {**REFUND, "original": {**ORIGINAL, "amount_minor": 1}},
        "/original/amount_minor",
    ),
    "an original's line as text": (
        {**REFUND, "original": {**ORIGINAL, "line": "1"}},
        "/original/line",
    ),
    "a reason of nothing": ({**REFUND, "reason": ""}, "/reason"),
    "a reason too long": ({**REFUND, "reason": "a" * 501}, "/reason"),
    "a reason with a control character": ({**REFUND, "reason": "a\x1b[31mb"}, "/reason"),
    "a tender with an unknown member": ({"tender": {**TENDER, "rate": "1"}}, "/tender/rate"),
    "a tender of nothing": ({"tender": {**TENDER, "amount_minor": 0}}, "/tender/amount_minor"),
    "a tender of a float": ({"tender": {**TENDER, "amount_minor": 1.5}}, "/tender/amount_minor"),
    "a tender too large": ({"tender": {**TENDER, "amount_minor": 2**53}}, "/tender/amount_minor"),
    "a tender in no currency": ({"tender": {**TENDER, "currency": "XXX"}}, "/tender/currency"),
    **{
        f"an original without {name}": (
            {**REFUND, "original": {key: ORIGINAL[key] for key in ORIGINAL if key != name}},
            f"/original/{name}",
        )
        for name in ORIGINAL
    },
    **{
        f"a tender without {name}": (
            {"tender": {key: TENDER[key] for key in TENDER if key != name}},
            f"/tender/{name}",
        )
        for name in TENDER
    },
    **{
        f"a rate {ascii(rate)[:30]}": (
            {"tender": {**TENDER, "exchange_rate": json.loads(rate)}},
            "/tender/exchange_rate",
        )
        for rate in NO_RATE
    },
    **{
        f"{member} {value}": ({**REFUND, "reason": "x", member: json.loads(value)}, f"/{member}")
        for member in ("original", "tender")
        for value in NO_OBJECT
    },
}


@pytest.mark.parametrize("fault", SALE_LINES)
def test_a_line_of_a_sale_that_makes_no_sense_is_pointed_at(world: World, fault: str) -> None:
    change, pointer = SALE_LINES[fault]
    assert_line_refused(world, written({**sale_line(world), **change}, {}), [pointer])


def test_a_line_number_twice_in_a_sale_is_pointed_at(world: World) -> None:
    line, others = sale_line(world), {"instrument_id": world.card.instrument_id}
    with world.nothing_written():
        answer = send_sale(world, written(line, {}), written({**line, **others}, {}))
    assert_refused(answer, 422, "validation_failed", ["/lines/1/line"])


def test_an_instrument_twice_in_a_sale_is_pointed_at(world: World) -> None:
    lines = [written({**sale_line(world), "line": place}, {}) for place in (1, 2, 3)]
    with world.nothing_written():
        answer = send_sale(world, *lines)
    assert_refused(
        answer,
        422,
        "validation_failed",
        ["/lines/1/instrument_id", "/lines/2/instrument_id"],
    )


def test_a_sale_has_a_limit_on_its_lines(world: World) -> None:
    lines = [written({**sale_line(world), "line": place}, {}) for place in range(1, 102)]
    with world.nothing_written():
        answer = send_sale(world, *lines)
    assert_refused(answer, 422, "validation_failed", ["/lines"])


PARAMETERS = {
    '{"no_such_parameter":1}': "no_such_parameter",
    '{"lease_seconds":null}': "lease_seconds",
    '{"lease_seconds":true}': "lease_seconds",
    '{"lease_seconds":"60"}': "lease_seconds",
    '{"lease_seconds":60.0}': "lease_seconds",
    '{"lease_seconds":6e1}': "lease_seconds",
    '{"lease_seconds":29}': "lease_seconds",
    '{"lease_seconds":86401}': "lease_seconds",
    '{"lease_seconds":[60]}': "lease_seconds",
    '{"on_horizon":"Sticky"}': "on_horizon",
    '{"on_horizon":["sticky"]}': "on_horizon",
    '{"credit_memo_partial_use":1}': "credit_memo_partial_use",
    '{"allow_concluding_gift_card_transactions_offline":1}': (
        "allow_concluding_gift_card_transactions_offline"
    ),
    '{"allow_concluding_gift_card_transactions_offline":"Yes"}': (
        "allow_concluding_gift_card_transactions_offline"
    ),
    '{"lease_seconds":60,"on_horizon":null}': "on_horizon",
    '{"revision":7}': "revision",
    '{"":1}': "",
    '{"a b":1}': "a b",
    '{"a/b~c":1}': "a~1b~0c",
    '{"6006123456789012":1}': "***9012",
}


EDITS = ("parameters", "parameters of a store")


# Null takes an override of a store back.
@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in EDITS
        for value in PARAMETERS
        if "null" not in value or name == EDITS[0]
    ],
)
def test_a_wrong_parameter_is_pointed_at(world: World, name: str, value: str) -> None:
    endpoint = ENDPOINTS[name]
    with world.nothing_written():
        answer = endpoint.send(world, written(endpoint.body(world), {"parameters": value}))
    assert_refused(answer, 422, "validation_failed", [f"/parameters/{PARAMETERS[value]}"])


# --- methods, paths, queries, preconditions -------------------------------------------------------


def test_a_method_that_a_path_has_not_is_refused_with_those_that_it_has(
    world: World, app: Flask
) -> None:
    methods: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        methods.setdefault(rule.rule, set()).update(rule.methods or ())
    for path, allowed in methods.items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"} - allowed:
            url = re.sub("<uuid:[a-z_]+>", world.case_id, path)
            url = re.sub("<[a-z_]+>", "x", url)
            with world.nothing_written():
                answer = world.hq.client.open(url, method=method)
            assert_refused(answer, 405, "method_not_allowed")
            assert set(answer.headers["Allow"].split(", ")) == allowed


UNKNOWN_PATHS = """
/ /v1 /v1/ /v1/nothing /v1/locks/ /V1/locks /v1/locks%00 /%00 /%ff /v1/a%0d%0ab /v2/locks
/v1/offline-batches/S001 /v1/offline-batches/S001/B/lines/7 /v1/locks/%2e%2e/locks
/v1/transactions/S001 /v1/transactions/S001/T01 /v1/transactions/S001/T01/X/1 /v1/voids/1
/v1/admin/cases/ /v1/admin/cases/%00 /v1/admin/cases/1 /v1/admin/cases/1/resolutions
/v1/admin/cases/f81d4fae7dec11d0a76500a0c91e6bf6 /v1/admin/locks/ /v1/admin/locks/%00
/v1/admin/locks/{f81d4fae-7dec-11d0-a765-00a0c91e6bf6} /v1/admin/lock-breaks/1
/.git/config /problems /static/x /favicon.ico
"""


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", UNKNOWN_PATHS.split())
def test_an_unknown_path_is_not_found(world: World, path: str, method: str) -> None:
    with world.nothing_written():
        answer = world.hq.client.open(path, method=method, headers={"X-Request-Id": "path-1"})
    assert_refused(answer, 404, "not_found")
    assert answer.json["request_id"] == "path-1"


@pytest.mark.parametrize("suffix", ["", "/lines"])
@pytest.mark.parametrize("place", ["{0}/x", "S001/{0}"])
@pytest.mark.parametrize("part", ["%00", "a%00b", "%ff", "%0a", "%20", "%ed%a0%80", "a" * 5_000])
def test_a_path_of_an_impossible_batch_is_not_found(
    world: World, part: str, place: str, suffix: str
) -> None:
    path = f"/v1/offline-batches/{place.format(part)}{suffix}"
    with world.nothing_written():
        assert_refused(world.hq.admin.get(path), 404, "batch_not_found")


@pytest.mark.parametrize("place", ["{0}/T01/X", "S001/{0}/X", "S001/T01/{0}"])
@pytest.mark.parametrize("part", ["%00", "a%00b", "%ff", "%0a", "%20", "%ed%a0%80", "a" * 5_000])
def test_a_path_of_an_impossible_transaction_is_not_found(
    world: World, part: str, place: str
) -> None:
    path = f"/v1/transactions/{place.format(part)}"
    with world.nothing_written():
        assert_refused(world.hq.admin.get(path), 404, "transaction_not_found")


NIL = "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (f"/v1/admin/cases/{NIL}", "case_not_found"),
        (f"/v1/admin/cases/{NIL.replace('0', 'F')}", "case_not_found"),
        (f"/v1/admin/locks/{NIL}", "lock_not_found"),
        (f"/v1/admin/locks/{NIL.replace('0', 'F')}", "lock_not_found"),
    ],
)
def test_a_case_or_lock_that_is_not_there_is_not_found(world: World, path: str, code: str) -> None:
    with world.nothing_written():
        assert_refused(world.hq.admin.get(path), 404, code)


@pytest.mark.parametrize(
    "given", ["a b", "a\u00e5", "", "a" * 65, "a;b", "<script>", "a,b", '"a"', "a/b"]
)
def test_a_request_id_that_is_none_is_replaced(world: World, given: str) -> None:
    answer = world.hq.client.get("/nothing", headers={"X-Request-Id": given})
    assert_refused(answer, 404, "not_found")
    assert answer.json["request_id"] != given


PAGES = {
    "limit=0": "/limit",
    "limit=-1": "/limit",
    "limit=1001": "/limit",
    "limit=99999999999999999999": "/limit",
    f"limit={'9' * 5_000}": "/limit",
    "limit=": "/limit",
    "limit=many": "/limit",
    "limit=1.0": "/limit",
    "limit=1e1": "/limit",
    "limit=1_0": "/limit",
    "limit=0x1": "/limit",
    "limit=%201": "/limit",
    "limit=%2B1": "/limit",
    "limit=1%00": "/limit",
    "limit=%EF%BC%91": "/limit",
    "limit=1&limit=2": "/limit",
    "limit=null": "/limit",
    "after=-2": "/after",
    "after=2147483648": "/after",
    "after=x": "/after",
    "after=-": "/after",
    "offset=1": "/offset",
    "LIMIT=1": "/LIMIT",
    "limit[]=1": "/limit[]",
    "sort=position&limit=1": "/sort",
    "6006123456789012=1": "/***9012",
}


@pytest.mark.parametrize("query", PAGES, ids=lambda query: query[:30])
def test_a_wrong_page_is_pointed_at(world: World, query: str) -> None:
    path = f"/v1/offline-batches/{world.till.store_id}/{world.batch_id}/lines?{query}"
    with world.nothing_written():
        assert_refused(world.hq.admin.get(path), 422, "validation_failed", [PAGES[query]])


def test_pages_follow_one_another_to_the_end(world: World) -> None:
    path = f"/v1/offline-batches/{world.till.store_id}/{world.batch_id}/lines"
    first = world.hq.admin.get(f"{path}?limit=2").json
    last = world.hq.admin.get(f"{path}?limit=2&after={first['next_after']}").json
    positions = [line["position"] for page in (first, last) for line in page["results"]]
    assert positions == [0, 1, 2]
    assert last["next_after"] is None


LISTS = ("cases", "locks", "audit-entries")
OF_CASES, OF_LOCKS, OF_ENTRIES = {"cases"}, {"locks"}, {"audit-entries"}
OF_PLACES = OF_CASES | OF_LOCKS
ANY_AFTER = "A" * 32
# Query -> what is wrong, in which lists.
LIST_PAGES: dict[str, tuple[str, set[str]]] = {
    **{query: (PAGES[query], set(LISTS)) for query in PAGES if query.startswith("limit")},
    "limit=201": ("/limit", set(LISTS)),
    "after=x": ("/after", set(LISTS)),
    "after=": ("/after", set(LISTS)),
    "after=%00": ("/after", set(LISTS)),
    "after=-1": ("/after", set(LISTS)),
    f"after={NIL}": ("/after", set(LISTS)),
    f"after={ANY_AFTER[:-1]}": ("/after", set(LISTS)),
    f"after={ANY_AFTER}A": ("/after", set(LISTS)),
    f"after={ANY_AFTER[:-1]}%3D": ("/after", set(LISTS)),
    f"after={'_' * 32}": ("/after", set(LISTS)),  # an instant beyond all calendars
    "after=6006123456789012": ("/after", OF_PLACES),
    f"after={2**63}": ("/after", OF_ENTRIES),
    "store_id=": ("/store_id", OF_PLACES),
    "store_id=%00": ("/store_id", OF_PLACES),
    "store_id=%ff": ("/store_id", OF_PLACES),
    "store_id=a%0a": ("/store_id", OF_PLACES),
    "store_id=S001%20": ("/store_id", OF_PLACES),
    f"store_id={'a' * 65}": ("/store_id", OF_PLACES),
    "store_id=S001&store_id=S002": ("/store_id", OF_PLACES),
    "store_id=S001": ("/store_id", OF_ENTRIES),
    "terminal_id=%00": ("/terminal_id", OF_PLACES),
    "terminal_id=": ("/terminal_id", OF_PLACES),
    "state=": ("/state", set(LISTS)),
    "state=OPEN": ("/state", set(LISTS)),
    "state=active": ("/state", OF_CASES),
    "state=open": ("/state", OF_LOCKS),
    "state=broken": ("/state", OF_LOCKS),
    "outcome=duplicate": ("/outcome", OF_CASES),
    "outcome=": ("/outcome", OF_CASES),
    "code=nothing": ("/code", OF_CASES),
    "instrument_id=1": ("/instrument_id", OF_CASES),
    f"instrument_id={NIL}": ("/instrument_id", OF_CASES),
    "shortfall_minor_min=0": ("/shortfall_minor_min", OF_CASES),
    "shortfall_minor_min=1.0": ("/shortfall_minor_min", OF_CASES),
    f"shortfall_minor_min={10**18}": ("/shortfall_minor_min", OF_CASES),
    "opened_from=2026-01-01": ("/opened_from", OF_CASES),
    "opened_from=2026-01-01T00:00:00": ("/opened_from", OF_CASES),
    "opened_before=1999-12-31T00:00:00Z": ("/opened_before", OF_CASES),
    "opened_before=yesterday": ("/opened_before", OF_CASES),
    "opened_before=2026-01-01T00:00:00+00:00": ("/opened_before", OF_CASES),  # a plus is a blank
    "locked_before=": ("/locked_before", OF_LOCKS),
    "locked_before=2500-01-01T00:00:00Z": ("/locked_before", OF_LOCKS),
    "kind=card": ("/kind", OF_LOCKS),
    "is_granted=1": ("/is_granted", OF_LOCKS),
    "is_granted=True": ("/is_granted", OF_LOCKS),
    "is_granted=": ("/is_granted", OF_LOCKS),
    "subject=": ("/subject", OF_ENTRIES),
    "subject=%00": ("/subject", OF_ENTRIES),
    f"subject={'a' * 201}": ("/subject", OF_ENTRIES),
    "action=nothing": ("/action", OF_ENTRIES),
    "action=": ("/action", OF_ENTRIES),
    "actor=": ("/actor", OF_ENTRIES),
    "recorded_from=2026": ("/recorded_from", OF_ENTRIES),
    "order=": ("/order", OF_ENTRIES),
    "order=descending": ("/order", OF_ENTRIES),
    "order=newest": ("/order", OF_PLACES),
    "6006123456789012=1": ("/***9012", set(LISTS)),
}


@pytest.mark.parametrize("query", LIST_PAGES, ids=lambda query: query[:40])
def test_a_wrong_page_of_a_list_is_pointed_at(world: World, query: str) -> None:
    pointer, names = LIST_PAGES[query]
    for name in names:
        with world.nothing_written():
            answer = world.hq.admin.get(f"/v1/admin/{name}?{query}")
        assert_refused(answer, 422, "validation_failed", [pointer])


# Query -> what is wrong, in which of these lists: what a page of registers, or of resets, may be.
STATUS, RESETS = "connection-status", "cache-resets"
WATCHING: dict[str, tuple[str, set[str]]] = {
    **{query: (PAGES[query], {STATUS, RESETS}) for query in PAGES if query.startswith("limit")},
    "limit=201": ("/limit", {STATUS}),
    "limit=21": ("/limit", {RESETS}),
    "store_id=": ("/store_id", {STATUS, RESETS}),
    "store_id=%00": ("/store_id", {STATUS, RESETS}),
    "store_id=a&store_id=b": ("/store_id", {STATUS, RESETS}),
    "terminal_id=T01": ("/terminal_id", {STATUS, RESETS}),
    "state=": ("/state", {STATUS, RESETS}),
    "state=ONLINE": ("/state", {STATUS}),
    "state=suspect": ("/state", {STATUS}),
    "after=": ("/after", {STATUS, RESETS}),
    "after=S001": ("/after", {STATUS, RESETS}),
    "after=S001/T01": ("/after", {RESETS}),
    "after=S001/T01/X": ("/after", {STATUS}),
    "after=%00/T01": ("/after", {STATUS}),
    "6006123456789012=1": ("/***9012", {STATUS, RESETS}),
}


@pytest.mark.parametrize("query", WATCHING, ids=lambda query: query[:40])
def test_a_wrong_page_of_what_is_watched_is_pointed_at(world: World, query: str) -> None:
    pointer, names = WATCHING[query]
    for name in names:
        with world.nothing_written():
            answer = world.hq.admin.get(f"/v1/admin/{name}?{query}")
        assert_refused(answer, 422, "validation_failed", [pointer])


OWN_LOCKS = {
    **{query: PAGES[query] for query in PAGES if query.startswith("limit")},
    **{query: "/after" for query, (pointer, _) in LIST_PAGES.items() if pointer == "/after"},
    "limit=201": "/limit",
    "transaction_id=": "/transaction_id",
    "transaction_id=%00": "/transaction_id",
    "transaction_id=a%20b": "/transaction_id",
    f"transaction_id={'a' * 65}": "/transaction_id",
    "transaction_id=a&transaction_id=b": "/transaction_id",
    "store_id=S001": "/store_id",
    "terminal_id=T01": "/terminal_id",
    "state=active": "/state",
    "6006123456789012=1": "/***9012",
}


@pytest.mark.parametrize("query", OWN_LOCKS, ids=lambda query: query[:40])
def test_a_wrong_question_for_own_locks_is_pointed_at(world: World, query: str) -> None:
    with world.nothing_written():
        answer = world.till.get(f"/v1/locks?{query}")
    assert_refused(answer, 422, "validation_failed", [OWN_LOCKS[query]])


@pytest.mark.parametrize("query", ["store_id=", "store_id=a&store_id=b", "state=open", "after=1"])
def test_a_wrong_question_for_a_summary_is_pointed_at(world: World, query: str) -> None:
    with world.nothing_written():
        answer = world.hq.admin.get(f"/v1/admin/cases/summary?{query}")
    assert_refused(answer, 422, "validation_failed", [f"/{query.partition('=')[0]}"])


def test_a_place_that_no_page_ended_with_is_still_a_place(world: World) -> None:
    for name, members in (("cases", "cases"), ("locks", "locks")):
        first = world.hq.admin.get(f"/v1/admin/{name}?after={ANY_AFTER}")
        assert first.status_code == 200
        assert first.json[members], "everything is behind 1970"


def test_pages_of_cases_follow_one_another_to_the_end(world: World) -> None:
    till = world.hq.till()
    lines = [till.offline_line(world.card, a_name("X"), 1) for _ in range(5)]
    posted = world.hq.post_batch(till.store_id, lines)
    path, after, pages = f"/v1/admin/cases?store_id={till.store_id}&limit=2", "", []
    while after is not None:
        page = world.hq.admin.get(path + after).json
        pages.append([case["case_id"] for case in page["cases"]])
        after = page["next_after"] and f"&after={page['next_after']}"
    assert [len(page) for page in pages] == [2, 2, 1]
    told = [case_id for page in pages for case_id in page]
    assert told == sorted(one["case_id"] for one in posted.json["results"])


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_query_that_would_be_passed_over_is_refused(world: World, name: str) -> None:
    endpoint = ENDPOINTS[name]
    with world.nothing_written():
        answer = world.hq.client.open(
            f"{endpoint.url(world)}?dry_run=true&x",
            method=endpoint.method,
            json=endpoint.body(world),
            headers={**endpoint.authorization(world), "If-Match": '"0"'},
        )
    assert_refused(answer, 422, "validation_failed", ["/dry_run", "/x"])


@pytest.mark.parametrize(
    "path", ["/v1/parameters", "/v1/offline-batches/S/B", "/v1/transactions/S/T/X"]
)
def test_a_query_is_refused_of_what_is_read_as_well(world: World, path: str) -> None:
    answer = world.till.get(f"{path}?store_id=other")
    assert_refused(answer, 422, "validation_failed", ["/store_id"])


# {0} is the revision that there is: each row is not its ETag, but for some reader it could be.
OTHER_STATES = [
    '"999"', "999", '"-1"', '"0.0"', '"x"', "x", '""', 'W/"{0}"', '"{0} "', '"0{0}"', '"{0}x"',
    '"998", "999"', 'W/"{0}", "999"', f'"{"1" * 4_000}"', f'"{"1" * 5_000}"',
    '"\u00b2"', '"\u0661"', '"null"',
]  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("seen", OTHER_STATES, ids=lambda seen: ascii(seen)[:20])
def test_an_edit_of_another_state_is_refused(world: World, seen: str, name: str) -> None:
    endpoint = ENDPOINTS[name]
    revision = world.hq.admin.get(endpoint.url(world)).json["revision"]
    body = json.dumps(endpoint.body(world)).encode()
    with world.nothing_written():
        answer = endpoint.send(
            world, body, {**JSON, "If-Match": seen.replace("{0}", str(revision))}
        )
    assert_refused(answer, 412, "precondition_failed")
    assert answer.json["current_revision"] == revision


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("headers", [{}, {"If-Match": ""}, {"If-Match": ","}])
def test_an_edit_of_no_state_is_refused(world: World, headers: dict[str, str], name: str) -> None:
    endpoint = ENDPOINTS[name]
    with world.nothing_written():
        answer = world.hq.client.patch(
            endpoint.url(world),
            json=endpoint.body(world),
            headers={**endpoint.authorization(world), **headers},
        )
    assert_refused(answer, 428, "precondition_required")


# --- lines of a batch: a bad one is quarantined, the others settle --------------------------------

SOON = datetime.now(UTC) + timedelta(days=1)
FAR_AHEAD = (SOON + timedelta(days=3_660)).isoformat()
LINE_INTEGERS: list[Any] = [None, True, "7", "", 1.0, 1.5, [1], {}, 0, -1, 2**53, 10**19]
LINE_NAMES: list[Any] = [None, 7, True, [], {}, "", " ", "a b", "a" * 65, "\u00e5", "a\n", "a/b"]
LINE_UUIDS: list[Any] = [7, True, [], {}, *(json.loads(text) for text in NO_UUID)]
LINE_INSTANTS: list[Any] = [
    None, 7, True, [], {}, "", "now", "infinity", "-infinity", "2026-11-20",
    "2026-11-20T12:00:00", "2026-11-20 12:00:00Z", "2026-02-30T12:00:00Z", "2025-02-29T12:00:00Z",
    "2026-11-31T12:00:00Z", "2026-13-01T12:00:00Z", "2026-11-20T25:00:00Z", "2026-11-20T12:60:00Z",
    "2016-12-31T23:59:60Z", "1999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00", "10000-01-01T00:00:00Z", "2026-11-20T12:00:00+99:00",
    "2026-11-20T12:00:00 Europe/Stockholm", "20/11/2026T12:00:00Z", "1763640000", 1763640000,
    FAR_AHEAD, "\uff12\uff10\uff12\uff16-11-20T12:00:00Z",
]  # fmt: skip

PLACE = {"terminal_id", "journal_id", "sequence"}
# Member -> values that no line can have there. The reason must name the member.
WRONG_IN_LINE: dict[str, list[Any]] = {
    "terminal_id": [ABSENT, *LINE_NAMES],
    "journal_id": [ABSENT, *LINE_NAMES],
    "transaction_id": [ABSENT, *LINE_NAMES],
    "sequence": [ABSENT, *LINE_INTEGERS],
    "line": [ABSENT, *LINE_INTEGERS, 10_000],
    "amount_minor": [ABSENT, *LINE_INTEGERS],
    "parameter_revision": [True, "1", 1.0, -1, 2**31, [], {}],
    "operation": [ABSENT, None, 7, [], {}, "", "REDEEM", "redeem ", "recover", "spend"],
    "status": [None, 7, [], {}, "", "Concluded", "posted"],
    "currency": [ABSENT, None, 7, [], {}, *(json.loads(text) for text in NO_CURRENCY)],
    "instrument_id": LINE_UUIDS,
    "lock_id": LINE_UUIDS,
    "grant": [7, True, [], {}, "g" * 1_025],
    "reason": [7, True, [], {}, "", "a" * 501, "a\nb", "a\x1b[31mb", "a\u202eb", "a\u0085b"],
    "original": [7, True, "text", [], {}, {"line": 1}],
    "concluded_at": [ABSENT, *LINE_INSTANTS],
}
# What else cannot be understood: how to spoil a line, and a word of the reason.
NAMELESS = {"instrument_id": ABSENT}
LINE_TENDER = {"tender_amount_minor": 10, "tender_currency": "EUR", "exchange_rate": "10.4375"}
SPOILED: dict[str, tuple[Any, str]] = {
    "null": (None, "object"),
    "a number": (7, "object"),
    "a text": ("text", "object"),
    "an array": ([], "object"),
    "an array of a line": ([{"line": 1}], "object"),
    "true": (True, "object"),
    "an unknown member": ({"nonsense": 1}, "nonsense"),
    "a member in capitals": ({"Amount_minor": 1}, "Amount_minor"),
    "a member of Python": ({"__class__": "x"}, "__class__"),
    "two unknown members": ({"zebra": 1, "ape": {"deep": [1]}}, "ape, zebra"),
    "the envelope's member": ({"store_id": "S001"}, "store_id"),
    "both number and id": ({"kind": "gift_card", "number": "60060001"}, "not both"),
    "neither number nor id": (NAMELESS, "kind"),
    "a number without its kind": ({**NAMELESS, "number": "60060001"}, "kind"),
    "a kind that is none": ({**NAMELESS, "number": "60060001", "kind": "voucher"}, "kind"),
    "a kind without a number": ({**NAMELESS, "kind": "gift_card"}, "number"),
    "a number that is none": (
        {**NAMELESS, "kind": "gift_card", "number": 6006000000000001},
        "number",
    ),
    "a number too short": ({**NAMELESS, "kind": "gift_card", "number": "1234567"}, "number"),
    "a number too long": ({**NAMELESS, "kind": "gift_card", "number": "1" * 33}, "number"),
    "a refund of no reason and no original": (REFUND, "reason"),
    "a refund whose reason is null": ({**REFUND, "reason": None, "original": None}, "reason"),
    "an original of a redemption": ({"original": ORIGINAL}, "only a refund"),
    "an original of a void": ({"operation": "void", "original": ORIGINAL}, "only a refund"),
    "an original with an amount": (
        {**REFUND, "original": {**ORIGINAL, "amount_minor": 1}},
        "original must have",
    ),
    **{
        f"an original without {name}": (
            {**REFUND, "original": {key: ORIGINAL[key] for key in ORIGINAL if key != name}},
            "original must have",
        )
        for name in ORIGINAL
    },
    **{
        f"an original whose {name} is none": (
            {**REFUND, "original": {**ORIGINAL, name: "a b"}},
            name,
        )
        for name in ORIGINAL
    },
    **{
        f"a tender without {name}": (spoiled(LINE_TENDER, {name: ABSENT}), name)
        for name in LINE_TENDER
    },
    **{
        f"a tender of {amount}": ({**LINE_TENDER, "tender_amount_minor": amount}, "tender_amount")
        for amount in (0, -1, 1.5, "1", True, 2**53)
    },
    **{
        f"a tender in {currency}": ({**LINE_TENDER, "tender_currency": currency}, "tender_curr")
        for currency in (7, "", "eur", "XXX", "EUR ")
    },
    **{
        f"a rate {ascii(rate)[:30]}": (
            {**LINE_TENDER, "exchange_rate": json.loads(rate)},
            "exchange_rate",
        )
        for rate in NO_RATE
    },
    "a megabyte of text": ({"nonsense": "x" * 1_000_000}, "nonsense"),
    "a megabyte of digits": ({"nonsense": "1" * 1_000_000}, "nonsense"),
    "a megabyte of a name": ({"n" * 1_000_000: 1}, "n" * 64),
    "a thousand members": ({f"n{place}": place for place in range(1_000)}, "n0"),
}


def settle_with_good_lines(world: World, change: Any, places: set[int]) -> list[Body]:
    """Post five lines of which some are spoiled, and check that the others settle."""
    card, transaction_id = world.card, a_name("X")
    balance_minor = world.hq.balance(card)
    lines = [
        spoiled(line, change) if place in places else line
        for place, line in enumerate(
            world.till.offline_line(card, transaction_id, 1, line=place + 1) for place in range(5)
        )
    ]
    answer = world.post_lines(lines)
    assert answer.status_code == 201, answer.json
    results: list[Body] = answer.json["results"]
    assert [one["position"] for one in results] == [0, 1, 2, 3, 4]
    for place, one in enumerate(results):
        outcome = "quarantined" if place in places else "applied"
        assert one["outcome"] == outcome, one
        assert one["funded_minor"] == (0 if place in places else 1)
        assert one["case_id"]
    assert world.hq.balance(card) == balance_minor - (5 - len(places))
    return [results[place] for place in sorted(places)]


def assert_quarantined(world: World, change: Any, reason: str) -> None:
    """Spoil the first, a middle and the last of five lines, and expect the reason."""
    for one in settle_with_good_lines(world, change, {0, 2, 4}):
        assert one["codes"] == ["unreadable"]
        assert reason in one["reason"]
        assert one["transaction_id"] is one["line"] is None
        assert one["instrument_id"] is one["balance_after_minor"] is None
        # Where it stands in its journal, if at least that could be read.
        is_placed = isinstance(change, dict) and not PLACE & change.keys()
        assert one["terminal_id"] == (world.till.terminal_id if is_placed else None)


def told(value: Any) -> str:
    """Return a value as a test is named after it; the same in each process that runs tests."""
    if value is ABSENT:
        return "absent"
    return "far ahead" if value == FAR_AHEAD else ascii(value)[:40]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        pytest.param(member, value, id=f"{member}: {told(value)}")
        for member, values in WRONG_IN_LINE.items()
        for value in values
    ],
)
def test_a_line_with_a_wrong_value_is_quarantined_and_the_others_settle(
    world: World, member: str, value: Any
) -> None:
    assert_quarantined(world, {member: value}, member)


@pytest.mark.parametrize("fault", SPOILED)
def test_a_line_that_cannot_be_understood_is_quarantined_and_the_others_settle(
    world: World, fault: str
) -> None:
    change, reason = SPOILED[fault]
    assert_quarantined(world, change, reason)


def test_a_batch_of_bad_lines_only_is_received_all_the_same(world: World) -> None:
    answer = world.post_lines([None, {}, "x"])
    assert answer.status_code == 201
    assert answer.json["counts"] == {"quarantined": 3}


def test_what_is_kept_of_a_line_has_a_limit(world: World) -> None:
    settle_with_good_lines(world, {"nonsense": "x" * 1_000_000}, {2})
    settle_with_good_lines(world, {"n" * 1_000_000: 1}, {2})
    longest = world.hq.sql(
        "SELECT max(length(masked_text)), max(length(reason)) FROM quarantined_lines"
    )
    assert longest[0][0] <= 4_096
    assert max(len(text) for table, text in world.tables.rows() if table == "cases") < 4_096


SEPARATORS = str.maketrans("", "", " -")


def digits(_number: int) -> str:
    return a_number()


def letters(number: int) -> str:
    """Return a number as HQ makes them: sixteen characters of Crockford's base 32."""
    return number_made_for(NUMBER_SECRET, "gift_card", BusinessKey("S", "T", "X", number))


def in_fours(number: str, between: str) -> str:
    return between.join(number[place : place + 4] for place in range(0, 16, 4))


# How a card number can be spelled, all of which stand for the same card.
SPELLINGS: dict[str, tuple[Callable[[int], str], Callable[[str], str]]] = {
    "digits": (digits, lambda number: number),
    "digits in fours": (digits, lambda number: in_fours(number, " ")),
    "digits in a sentence": (digits, lambda number: f"card {number}, torn"),
    "made by HQ": (letters, lambda number: number),
    "made by HQ, in a sentence": (letters, lambda number: f"card {number}."),
    "digits with hyphens": (digits, lambda number: in_fours(number, "-")),
    "digits far apart": (digits, lambda number: in_fours(number, "  ")),
    "made by HQ, small": (letters, str.lower),
    "made by HQ, in fours": (letters, lambda number: in_fours(number, " ")),
    "made by HQ, with hyphens": (letters, lambda number: in_fours(number, "-")),
}
# The members of a line that the number can be in by mistake. A name (of a terminal, transaction
# or journal) and a large integer may be just that: there nobody can tell.
WRONG_PLACES: dict[str, Callable[[str], Any]] = {
    "an unknown member": lambda text: {"card": text},
    "deep in an unknown member": lambda text: {"tender": [{"card": {"no": text}}]},
    "the name of a member": lambda text: {text: 1},
    "kind": lambda text: {"kind": text, "lock_id": "none"},
    "kind, beside a number": lambda text: {**NAMELESS, "kind": text, "number": "60060001"},
    "number, and an id beside it": lambda text: {"kind": "gift_card", "number": text},
    "number, with a wrong kind": lambda text: {**NAMELESS, "kind": "card", "number": text},
    "instrument_id": lambda text: {"instrument_id": text},
    "lock_id": lambda text: {"lock_id": text},
    "currency": lambda text: {"currency": text},
    "operation": lambda text: {"operation": text},
    "status": lambda text: {"status": text},
    "concluded_at": lambda text: {"concluded_at": text},
    "amount_minor, as text": lambda text: {"amount_minor": text},
    "line, as text": lambda text: {"line": text},
    "a line that is a text": lambda text: text,
    "a line that is an array": lambda text: ["gift_card", text],
    "grant": lambda text: {"grant": text},
    "grant, of a line with another fault": lambda text: {"grant": text, "nonsense": 1},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_line_with_a_card_number_in_the_wrong_place_never_keeps_it(
    world: World, spelling: str
) -> None:
    make, spell = SPELLINGS[spelling]
    first = 100 * list(SPELLINGS).index(spelling)
    # A number of its own for each place, so that one that is found says where it came from.
    numbers = {place: make(first + nth) for nth, place in enumerate(WRONG_PLACES)}
    answer = world.post_lines(
        [
            spoiled(world.till.offline_line(world.card, a_name("X"), 1), change(spell(number)))
            for number, change in zip(numbers.values(), WRONG_PLACES.values(), strict=True)
        ]
    )
    assert answer.status_code == 201
    kept = [("the answer", answer.text), *world.tables.rows()]
    found = {
        (place, table): text
        for table, text in kept
        for place, number in numbers.items()
        if number in text.translate(SEPARATORS).upper()
    }
    assert found == {}


def test_what_is_kept_of_a_line_still_says_what_it_was_about(world: World) -> None:
    about = {
        "instrument_id": "af75d20d-bd8f-a17a-86be-fa06013aed46",
        "lock_id": "01a1fc36-6bcd-7fc8-87c2-321c8c2f1efd",
        "concluded_at": "2026-11-20T12:34:56.789012+00:00",
        "transaction_id": "a-sale-to-decide",
        "amount_minor": 1_234_567,
    }
    line = {**world.till.offline_line(world.card, "X", 1), **about, "nonsense": 1}
    assert world.post_lines([line]).status_code == 201
    # The text is all that an administrator has to decide the case by.
    [row] = world.hq.sql(
        "SELECT masked_text FROM quarantined_lines WHERE masked_text LIKE '%a-sale-to-decide%'"
    )
    kept = json.loads(row[0])
    assert {name: kept[name] for name in about} == about


# What an expression could go over again and again, from each of its characters on.
HOSTILE = [
    "1", "1 ", "1-", "111 ", "111-", "111- ", "111 -", "1111- ", "1 1- ", "A", "AAAA ", "a1b2-",
    "g1.", "g1.a", '"number":"', "\\", "2026-11-20 ",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_long_hostile_line_is_cut_before_it_is_masked(
    world: World, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    # Masking costs what the text is long; a line may be as long as a batch.
    lengths: list[int] = []

    def masked(kept: str) -> str:
        lengths.append(len(kept))
        return numbers.mask(kept)

    monkeypatch.setattr(reading, "mask", masked)
    answer = world.post_lines([{"nonsense": (text * 30_000)[:30_000] + "x"}])
    assert answer.json["counts"] == {"quarantined": 1}
    assert 0 < max(lengths) <= reading.MASKED_TEXT_LENGTH_MAX


def test_a_card_number_in_a_reason_is_not_kept(world: World) -> None:
    hq, till, number = world.hq, world.hq.till(), a_number()
    told = {"reason": f"card {in_fours(number, ' ')} was torn"}
    sold, stuck = hq.issue(100), hq.issue(100)
    refund = till.lock(sold, "refund", purpose="refund", amount_minor=5)
    stuck_lock_id = till.lock(stuck, "stuck").json["lock_id"]
    line = till.offline_line(sold, "offline", 5, operation="refund", **told)
    posted = hq.post_batch(till.store_id, [line, till.offline_line(sold, "void", 1)])
    case_id = posted.json["results"][0]["case_id"]
    void = {"instrument_id": sold.instrument_id, **told}
    breaking = {"instrument_id": stuck.instrument_id, "lock_id": stuck_lock_id, **told}
    edit = {"parameters": {"lease_seconds": 613}, **told}
    seen = hq.admin.get("/v1/admin/parameters").headers["ETag"]
    answers = [
        till.conclude("refund", support.sale_line(refund, 5, operation="refund", **told)),
        till.post("/v1/voids", {**till.key_of("void"), **void}),
        hq.admin.post("/v1/admin/lock-breaks", {**breaking, "accepted_exposure_minor": 0}),
        hq.admin.post(f"/v1/admin/cases/{case_id}/resolutions", {"resolution": "dismiss", **told}),
        hq.admin.patch("/v1/admin/parameters", edit, If_Match=seen),
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 200, 200]
    kept = [(table, text) for table, text in world.tables.rows() if "was torn" in text]
    tables = {"audit_entries", "cases", "lock_events", "parameter_revisions", "voids"}
    tables.add("offline_batch_parts")
    assert {table for table, _ in kept} == tables
    assert all(f"***{number[-4:]} was torn" in text for _, text in kept)
    spaceless = [text.replace(" ", "") for _, text in world.tables.rows()]
    assert not any(number in text for text in [*spaceless, *(one.text for one in answers)])


def test_no_line_keeps_its_grant_beyond_what_is_settled_by_it(world: World) -> None:
    grant = "g1.k1.WyJwYXlsb2FkIl0.c2lnbmF0dXJl"
    line = world.till.offline_line(world.card, a_name("X"), 1, grant=grant, nonsense=1)
    assert world.post_lines([line]).status_code == 201
    assert [table for table, kept in world.tables.rows() if grant in kept] == []


# --- the server in front of the application -------------------------------------------------------


@pytest.fixture(scope="module")
def port(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real gunicorn on the same database."""
    log = tmp_path_factory.mktemp("service") / "log"
    bytes_max = str(BATCH_BODY_BYTES_MAX_OVER_THE_WIRE)
    with served(database_url, log, HQ_BATCH_BODY_BYTES_MAX=bytes_max) as port:
        yield port


@dataclass(frozen=True)
class Answer:
    """An answer as it came over the wire."""

    status: int
    headers: Message
    body: bytes

    @classmethod
    def of(cls, received: bytes) -> Answer:
        head, _, body = received.partition(b"\r\n\r\n")
        status, _, headers = head.partition(b"\r\n")
        return cls(int(status.split()[1]), message_from_bytes(headers), body)


def request_head(world: World, endpoint: Endpoint, *headers: str) -> bytes:
    lines = [
        f"{endpoint.method} {endpoint.url(world)} HTTP/1.1",
        "Host: hq",
        "Connection: close",
        "Content-Type: application/json",
        'If-Match: "0"',
        *(f"{name}: {value}" for name, value in endpoint.authorization(world).items()),
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def chunked(body: bytes, size: int = 65_536) -> bytes:
    parts = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])


def assert_refused_over_the_wire(received: bytes, status: int, code: str) -> None:
    answer = Answer.of(received)
    document = json.loads(answer.body)
    assert (answer.status, document["code"]) == (status, code)
    assert answer.headers["Content-Type"] == CONTENT_TYPE
    assert document["request_id"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_body_too_large_is_refused_however_it_is_sent(world: World, port: int, name: str) -> None:
    endpoint = ENDPOINTS[name]
    bytes_max = min(endpoint.bytes_max, BATCH_BODY_BYTES_MAX_OVER_THE_WIRE)
    body = json.dumps(endpoint.body(world)).encode().ljust(bytes_max + 1)
    with world.nothing_written():
        head = request_head(world, endpoint, f"Content-Length: {len(body)}")
        assert_refused_over_the_wire(exchange(port, head + body), 413, "payload_too_large")
        head = request_head(world, endpoint, "Transfer-Encoding: chunked")
        assert_refused_over_the_wire(exchange(port, head + chunked(body)), 413, "payload_too_large")


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_body_in_chunks_is_read_like_any_other(world: World, port: int, name: str) -> None:
    endpoint = ENDPOINTS[name]
    body = json.dumps({**endpoint.body(world), "nonsense": 1}).encode()
    head = request_head(world, endpoint, "Transfer-Encoding: chunked")
    with world.nothing_written():
        received = exchange(port, head + chunked(body, 7))
    assert_refused_over_the_wire(received, 422, "validation_failed")


BROKEN_CHUNKS = {
    "no length": b"zz\r\n{}\r\n0\r\n\r\n",
    "a negative length": b"-2\r\n{}\r\n0\r\n\r\n",
    "a length with an underscore": b"0_2\r\n{}\r\n0\r\n\r\n",
    "a length too short": b"1\r\n{}\r\n0\r\n\r\n",
    "a length too long": b"3\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("fault", BROKEN_CHUNKS)
@pytest.mark.parametrize("name", ENDPOINTS)
def test_chunks_that_are_none_are_refused(world: World, port: int, name: str, fault: str) -> None:
    head = request_head(world, ENDPOINTS[name], "Transfer-Encoding: chunked")
    with world.nothing_written():
        received = exchange(port, head + BROKEN_CHUNKS[fault])
    assert_refused_over_the_wire(received, 400, "malformed_body")


LOCK_HEAD = b"POST /v1/locks HTTP/1.1\r\nHost: hq\r\nContent-Type: application/json\r\n"
# What the server refuses before the application sees it: status line, and the connection closed.
NOT_HTTP: dict[str, tuple[bytes, set[int]]] = {
    "two lengths": (LOCK_HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", {400}),
    "a length and chunks": (
        LOCK_HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        {400},
    ),
    "a negative length": (LOCK_HEAD + b"Content-Length: -1\r\n\r\n{}", {400}),
    "a length with a sign": (LOCK_HEAD + b"Content-Length: +2\r\n\r\n{}", {400}),
    "chunks of another kind": (LOCK_HEAD + b"Transfer-Encoding: xchunked\r\n\r\n", {400, 501}),
    "bare line feeds": (b"GET /healthz HTTP/1.1\nHost: hq\n\n", {400}),
    "a blank before a colon": (b"GET /healthz HTTP/1.1\r\nHost : hq\r\n\r\n", {400}),
    "no version": (b"GET /healthz\r\n\r\n", {400}),
    "a version too many": (b"GET /healthz HTTP/3.7\r\nHost: hq\r\n\r\n", {400, 505}),
    "NUL in a header": (b"GET /healthz HTTP/1.1\r\nHost: hq\r\nX: a\x00b\r\n\r\n", {400}),
    "a path of bytes": (b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: hq\r\n\r\n", {400}),
    "a header too large": (
        b"GET /healthz HTTP/1.1\r\nHost: hq\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        {431},
    ),
    "150 headers": (
        b"GET /healthz HTTP/1.1\r\nHost: hq\r\n"
        + b"".join(b"X%d: a\r\n" % place for place in range(150))
        + b"\r\n",
        {431},
    ),
    "a path too long": (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: hq\r\n\r\n", {414}),
}


@pytest.mark.parametrize("fault", NOT_HTTP)
def test_what_is_not_http_is_refused_and_the_connection_closed(
    world: World, port: int, fault: str
) -> None:
    request, statuses = NOT_HTTP[fault]
    with world.nothing_written():
        answer = Answer.of(exchange(port, request))
    assert answer.status in statuses
    assert b"Traceback" not in answer.body


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        ("TRACE /v1/releases", 405, "method_not_allowed"),
        ("GET /v1/releases", 405, "method_not_allowed"),
        ("GET /v1/x%00y", 404, "not_found"),
        ("GET /v1/%ff", 404, "not_found"),
        ("GET /nothing?card=1", 404, "not_found"),
        ("GET /v1/offline-batches/%00/%00", 401, "unauthenticated"),
    ],
)
def test_odd_requests_are_answered_over_the_wire_as_in_process(
    world: World, port: int, line: str, status: int, code: str
) -> None:
    request = f"{line} HTTP/1.1\r\nHost: hq\r\nConnection: close\r\n\r\n".encode()
    with world.nothing_written():
        received = exchange(port, request)
    assert_refused_over_the_wire(received, status, code)
    if status == 405:
        assert set(Answer.of(received).headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


# --- the same requests, untouched -----------------------------------------------------------------


@pytest.mark.parametrize("name", ENDPOINTS)
def test_the_request_that_was_spoiled_above_is_a_good_one(hq: Hq, app: Flask, name: str) -> None:
    endpoint = ENDPOINTS[name]
    # In a world of its own, because it does change something.
    with a_world(hq, app) as world:
        answer = endpoint.send(world, json.dumps(endpoint.body(world)).encode())
    assert answer.status_code in (200, 201), answer.json
