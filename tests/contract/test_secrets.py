"""Card numbers, API keys and grants are in no log, no table, no address, and in no answer but one.

A day at a till is played with planted secrets, with every kind of refusal; what the service
answered, logged and stored is then searched for them.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask

from hq_service.api.problems import CONTENT_TYPE, REMEDIES
from hq_service.domain.actors import Role
from hq_service.observability import JsonFormatter
from tests.conftest import Server
from tests.support import (
    Caller,
    Card,
    Heard,
    Hq,
    Tables,
    Till,
    a_name,
    a_number,
    exchange,
    hearing,
    psycopg_url,
    running,
    served,
)

# The only answers that tell a secret: endpoint -> where in the answer it is.
TOLD = {
    "admin-instruments.issue_instrument": ("number",),  # a number that HQ made
    "selling.redeem": ("remainder", "number"),
    "selling.acquire_lock": ("offline", "grant"),
    "selling.list_own_locks": ("locks", 0, "offline", "grant"),
}
# A received batch is judged by its grants, perhaps only after a crash: there they are kept.
KEEPS_GRANTS = "offline_batch_parts"
# Members of a problem document that has nothing to tell.
BARE = {"type", "title", "status", "detail", "code", "request_id", "retryable"}


def body_but_for_what_it_may_tell(told: Heard) -> str:
    place = TOLD.get(told.endpoint or "")
    if place is None or told.status not in (200, 201):
        return told.body
    document: Any = json.loads(told.body)
    parent = document
    for name in place[:-1]:
        is_there = name in parent if isinstance(parent, dict) else len(parent) > 0
        parent = (parent[name] if is_there else None) or {}
    if place[-1] in parent:
        parent[place[-1]] = None
    return json.dumps(document)


@dataclass
class Secrets:
    """What was planted: name to text, and the texts that spell it otherwise."""

    numbers: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    grants: dict[str, str] = field(default_factory=dict)

    def spellings(self) -> Iterator[tuple[str, str]]:
        """Give the name and each text that would betray a secret."""
        for name, number in self.numbers.items():
            fours = [number[place : place + 4] for place in range(0, len(number), 4)]
            for spelling in (number, number.lower(), " ".join(fours), "-".join(fours)):
                yield name, spelling
        for name, key in self.keys.items():
            yield name, key.split("_", 2)[2]
        for name, grant in self.grants.items():
            yield name, grant.rsplit(".", 1)[1]


@dataclass
class Day:
    """A service under watch."""

    hq: Hq
    log: io.StringIO
    told: list[Heard]
    secrets: Secrets = field(default_factory=Secrets)
    played_log: str = ""
    played_count: int = 0

    def found_in(self, text: str) -> list[str]:
        return [name for name, spelling in self.secrets.spellings() if spelling in text]


@contextlib.contextmanager
def watched(app: Flask) -> Iterator[tuple[io.StringIO, list[Heard]]]:
    """Capture every log line, of every logger and level, and every answer of an application."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level

    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with hearing(app) as told:
            yield log, told
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@pytest.fixture(scope="module")
def day(app: Flask) -> Iterator[Day]:
    with watched(app) as (log, told):
        day = Day(Hq(app), log, told)
        play(day)
        day.played_log, day.played_count = log.getvalue(), len(told)
        yield day


def play(day: Day) -> None:
    """Sell, conclude offline, get refused in every way, with secrets in all of it."""
    hq, secrets = day.hq, day.secrets
    hq.set_parameters(
        allow_concluding_gift_card_transactions_offline=True,
        allow_concluding_credit_memo_transactions_offline=True,
    )
    till, other = hq.till(), hq.till()
    assert till.get("/v1/parameters").status_code == 200
    card, memo = hq.issue(500_00), hq.issue(250_00, kind="credit_memo")
    made = issue_with_a_number_of_hq(hq)
    secrets.numbers |= {"card": card.number, "memo": memo.number, "made by HQ": made.number}
    secrets.keys |= {"admin": hq.admin.key, "till": till.key, "other till": other.key}
    sell(day, till, card, memo, made)
    refuse(day, till, other, card, made)
    send_nonsense(day, till, [card.number, in_fours(card.number), made.number])
    settle_offline(day, till, card, made)
    administer(day, till, card)


def in_fours(number: str) -> str:
    return " ".join(number[place : place + 4] for place in range(0, 16, 4))


def issue_with_a_number_of_hq(hq: Hq) -> Card:
    wish = {
        "reference": a_name("made"),
        "kind": "gift_card",
        "currency": "SEK",
        "amount_minor": 100_00,
    }
    issued = hq.admin.post("/v1/admin/instruments", wish)
    again = hq.admin.post("/v1/admin/instruments", wish)
    assert (issued.status_code, again.status_code) == (201, 200)
    assert issued.json["number"] == again.json["number"]
    number = issued.json["number"]
    return Card("gift_card", number, issued.json["instrument"]["instrument_id"], "SEK")


def sell(day: Day, till: Till, card: Card, memo: Card, made: Card) -> None:
    for one in (card, memo, made):
        transaction_id = a_name("X")
        spaced = Card(one.kind, in_fours(one.number), one.instrument_id, one.currency)
        till.post("/v1/balance-inquiries", {"kind": one.kind, "number": spaced.number})
        lock = till.lock(spaced, transaction_id)
        assert lock.status_code == 201, lock.json
        day.secrets.grants[f"of {one.kind} {one.instrument_id}"] = lock.json["offline"]["grant"]
        assert till.lock(one, transaction_id).status_code == 200
        own = till.get(f"/v1/locks?transaction_id={transaction_id}")
        assert [told["lock_id"] for told in own.json["locks"]] == [lock.json["lock_id"]]
        redeemed = till.redeem(one, transaction_id, 10_00, lock.json["lock_id"])
        assert redeemed.status_code == 201, redeemed.json
        assert till.redeem(one, transaction_id, 10_00, lock.json["lock_id"]).status_code == 200
        if redeemed.json["remainder"]:
            day.secrets.numbers["remainder"] = redeemed.json["remainder"]["number"]
    remainder = day.secrets.numbers["remainder"]
    till.post("/v1/balance-inquiries", {"kind": memo.kind, "number": remainder})
    released = till.lock(Card(memo.kind, memo.number, "", "SEK"), "by the old number")
    assert released.status_code == 422, "an id has no blanks"


def refuse(day: Day, till: Till, other: Till, card: Card, made: Card) -> None:
    """Get refused by the rules: held, above the balance, taken, unknown, foreign, retired."""
    hq = day.hq
    lock = till.lock(card, "refused")
    day.secrets.grants["of the refused"] = lock.json["offline"]["grant"]
    number = a_number()
    day.secrets.numbers["unknown"] = number
    taken = {"reference": a_name("taken"), "kind": card.kind, "number": made.number}
    statuses = [
        other.lock(card, "X").status_code,
        till.lock(card, "refused", line=2).status_code,
        till.redeem(card, "refused", 10_000_00, lock.json["lock_id"]).status_code,
        till.redeem(card, "refused", 1, str(uuid.uuid4())).status_code,
        till.lock(Card(card.kind, number, "", "SEK"), "X").status_code,
        till.post("/v1/balance-inquiries", {"kind": card.kind, "number": number}).status_code,
        hq.admin.post(
            "/v1/admin/instruments", {**taken, "currency": "SEK", "amount_minor": 1}
        ).status_code,
        Till(hq.client, till.key, other.store_id, other.terminal_id).lock(card, "X").status_code,
        hq.sync(till.store_id).post("/v1/balance-inquiries", {"number": number}).status_code,
    ]
    assert statuses == [423, 409, 409, 409, 404, 404, 409, 403, 403]
    for wrong in (f"Basic {till.key}", f"Bearer {till.key}x", f"Bearer x{till.key}", till.key):
        answer = hq.client.get("/v1/parameters", headers={"Authorization": wrong})
        assert answer.status_code == 401
    hq.sql("UPDATE terminals SET retired_at = now() WHERE terminal_id = %s", other.terminal_id)
    assert other.lock(card, "X").status_code == 403


def send_nonsense(day: Day, till: Till, numbers: list[str]) -> None:
    """Put card numbers where the schema wants something else, in bodies that cannot be read."""
    client, headers = day.hq.client, {"Authorization": f"Bearer {till.key}"}
    admin = {"Authorization": f"Bearer {day.hq.admin.key}", "If-Match": '"0"'}
    lock = {**till.key_of("X"), "kind": "gift_card", "purpose": "redeem"}
    for number in numbers:
        for member in ("kind", "purpose", "line", "nonsense"):
            body = {**lock, "number": number, member: number}
            assert client.post("/v1/locks", json=body, headers=headers).status_code == 422
        for body in ({number: 1}, [number], number, {"kind": "gift_card", "number": [number]}):
            assert client.post("/v1/locks", json=body, headers=headers).status_code == 422
        edit = {"parameters": {number: number, "on_horizon": number}, "reason": "test"}
        patched = client.patch("/v1/admin/parameters", json=edit, headers=admin)
        assert patched.status_code == 422
        edit = {"parameters": {"on_horizon": number, "lease_seconds": number}, "reason": "test"}
        assert client.patch("/v1/admin/parameters", json=edit, headers=admin).status_code == 422
        raw = json.dumps({**lock, "number": number}).encode()
        for data, kind, status in (
            (raw[:-1], "application/json", 400),
            (raw + raw, "application/json", 400),
            (raw.replace(b"}", b',"number":"x"}'), "application/json", 400),
            (raw + b"\xff", "application/json", 400),
            (raw, "text/plain", 415),
            (raw.ljust(70_000), "application/json", 413),
        ):
            sent = client.post("/v1/locks", data=data, headers={**headers, "Content-Type": kind})
            assert sent.status_code == status
        assert client.put("/v1/locks", json=lock | {"number": number}).status_code == 405
        assert client.post("/v1/nothing", json=lock | {"number": number}).status_code == 404


def settle_offline(day: Day, till: Till, card: Card, made: Card) -> None:
    """Settle lines that name their card by number, with grants, good ones and unreadable ones."""
    lock = till.lock(made, "offline")
    grant = lock.json["offline"]["grant"]
    day.secrets.grants["of the offline sale"] = grant
    lines: list[Any] = [till.offline_line(made, "offline", 1_00, grant=grant)]
    for number in (card.number, in_fours(card.number), made.number):
        for more in ({}, {"nonsense": number}, {"currency": number}, {number: 1}, {"line": number}):
            line = till.offline_line(card, a_name("X"), 1, grant=grant, kind="gift_card", **more)
            del line["instrument_id"]
            lines.append({**line, "number": number})
        lines += [number, [number], {"number": number}, {"grant": grant, "card": number}]
        named = {"kind": "gift_card", "number": number}
        lines.append(till.offline_line(card, a_name("X"), 1, **named))
        lines.append({**till.offline_line(card, a_name("X"), 1), "terminal_id": "T-of-nobody"})
        lines.append(till.offline_line(card, a_name("X"), 1, grant=number))
    body = {"store_id": till.store_id, "batch_id": a_name("batch"), "lines": lines}
    sync = day.hq.sync(till.store_id)
    day.secrets.keys["sync job"] = sync.key
    posted = sync.post("/v1/offline-batches", body)
    assert posted.status_code == 201, posted.json
    assert set(posted.json["counts"]) >= {"applied", "quarantined"}
    assert sync.post("/v1/offline-batches", body).status_code == 200
    reused = sync.post("/v1/offline-batches", {**body, "lines": lines[:3]})
    assert reused.json["code"] == "batch_id_reused"
    assert sync.post("/v1/offline-batches", {**body, card.number: 1}).status_code == 422
    path = f"/v1/offline-batches/{till.store_id}/{body['batch_id']}"
    for reader in (sync, Caller(day.hq.client, day.hq.make_key(Role.AUDITOR))):
        assert reader.get(path).status_code == 200
        assert reader.get(f"{path}/lines").status_code == 200


def administer(day: Day, till: Till, card: Card) -> None:
    """Break a lock and resolve cases with a card number in the reason; then look at everything."""
    hq, reason = day.hq, f"card {in_fours(card.number)} was torn"
    held = hq.admin.get(f"/v1/admin/locks?store_id={till.store_id}").json["locks"]
    assert held
    wish = {
        "instrument_id": held[0]["instrument"]["instrument_id"],
        "lock_id": held[0]["lock_id"],
        "accepted_exposure_minor": held[0]["exposure_minor"],
        "reason": reason,
    }
    assert hq.admin.post("/v1/admin/lock-breaks", wish).status_code == 201
    named = {"reference": card.number, "kind": "gift_card", "number": card.number}
    issue = {**named, "currency": "SEK", "amount_minor": 1}
    assert hq.admin.post("/v1/admin/instruments", issue).status_code == 422
    cases = hq.admin.get(f"/v1/admin/cases?store_id={till.store_id}").json["cases"]
    assert {case["outcome"] for case in cases} >= {"applied", "quarantined"}
    for case in cases:
        assert hq.admin.get(f"/v1/admin/cases/{case['case_id']}").status_code == 200
        resolution = {"resolution": case["possible_resolutions"][-1], "reason": reason}
        path = f"/v1/admin/cases/{case['case_id']}/resolutions"
        assert hq.admin.post(path, resolution).status_code == 200
        assert hq.admin.get(f"/v1/admin/cases/{case['case_id']}").status_code == 200
    auditor = Caller(hq.client, hq.make_key(Role.AUDITOR))
    day.secrets.keys["auditor"] = auditor.key
    told = auditor.get("/v1/admin/audit-entries?order=newest").json["entries"]
    assert {entry["action"] for entry in told} >= {"lock_broken", "case_resolved"}
    reasons = {entry["detail"].get("reason") for entry in told}
    assert f"***{card.number[-4:]} was torn" in reasons
    assert hq.admin.get("/v1/admin/audit-entries?action=instrument_issued").json["entries"]
    assert hq.admin.get("/v1/admin/cases/summary").status_code == 200


def test_the_day_had_all_kinds_of_secrets_and_of_answers(day: Day) -> None:
    # Guards the tests below: what was never planted or never answered cannot be found.
    assert set(day.secrets.numbers) == {"card", "memo", "made by HQ", "remainder", "unknown"}
    assert all(re.fullmatch(r"[0-9A-Z]{16}", number) for number in day.secrets.numbers.values())
    assert len(day.secrets.grants) == 5
    assert all(grant.startswith("g1.k1.") for grant in day.secrets.grants.values())
    statuses = {told.status for told in day.told}
    assert statuses >= {200, 201, 400, 401, 403, 404, 405, 409, 413, 415, 422, 423}


def test_no_answer_tells_a_secret_but_where_it_is_meant_to(day: Day) -> None:
    for told in day.told:
        assert day.found_in(body_but_for_what_it_may_tell(told)) == [], told
        assert day.found_in(str(told.headers)) == [], told


def test_the_answers_that_may_tell_a_secret_tell_their_own_only(day: Day) -> None:
    telling = [told for told in day.told if day.found_in(told.body)]
    assert {told.endpoint for told in telling} == set(TOLD)
    for told in telling:
        assert len(set(day.found_in(told.body))) == 1, told.endpoint


def test_no_address_has_a_secret(day: Day) -> None:
    for told in day.told:
        assert day.found_in(told.url) == []


def test_no_log_line_has_a_secret(day: Day) -> None:
    lines = [json.loads(line) for line in day.played_log.splitlines()]
    assert len([line for line in lines if line["message"] == "request"]) == day.played_count
    for line in lines:
        assert day.found_in(json.dumps(line, ensure_ascii=False)) == [], line


def test_a_log_line_says_who_asked_for_what_and_what_came_of_it(day: Day) -> None:
    lines = [json.loads(line) for line in day.log.getvalue().splitlines()]
    route = "/v1/offline-batches/<store_id>/<batch_id>/lines"
    line = [line for line in lines if line.get("route") == route][-1]
    assert line["method"] == "GET"
    assert (line["status"], line["outcome"], line["role"]) == (200, "ok", "auditor")
    assert line["request_id"]
    assert line["duration_ms"] >= 0


def test_no_table_has_a_secret(day: Day) -> None:
    kept: dict[str, set[str]] = {}
    with Tables.of(day.hq.app) as tables:
        for table, text in tables.rows():
            for name in day.found_in(text):
                kept.setdefault(table, set()).add(name)
    assert set(kept) == {KEEPS_GRANTS}
    assert kept[KEEPS_GRANTS] <= set(day.secrets.grants)


def test_a_key_is_kept_as_its_digest_only(day: Day) -> None:
    for key in day.secrets.keys.values():
        key_id, secret = key.split("_", 2)[1:]
        [row] = day.hq.sql("SELECT a::text FROM api_keys AS a WHERE key_id = %s", key_id)
        assert secret not in row[0]
        assert secret.encode().hex() not in row[0]


# --- when the database fails ----------------------------------------------------------------------


@pytest.fixture
def scratch(server: Server, template: str) -> str:
    """A database that a test may break."""
    return server.create_database(f"hq_scratch_{uuid.uuid4().hex[:8]}", template)


def assert_bare_problem(answer: Any, status: int, code: str) -> None:
    """Check that a problem document says what its code says, and nothing of what happened."""
    assert (answer.status_code, answer.content_type) == (status, CONTENT_TYPE)
    assert answer.json["code"] == code
    assert set(answer.json) - BARE <= {"dynamics_code", "retry_after_seconds"}
    for betraying in ("psycopg", "sql", "relation", "live_locks", "traceback", "postgres", "host"):
        assert betraying not in answer.text.lower()


@pytest.mark.parametrize("environment", ["development", "production"])
def test_a_database_error_is_answered_without_any_detail(scratch: str, environment: str) -> None:
    with running(scratch, environment=environment) as app, watched(app) as (log, told):
        day = Day(Hq(app), log, told)
        till, card, locked = day.hq.till(), day.hq.issue(100_00), day.hq.issue(100_00)
        lock_id = till.lock(locked, "X0").json["lock_id"]
        day.secrets.numbers = {"card": card.number, "locked": locked.number}
        day.secrets.keys = {"till": till.key}
        before = day.hq.sql("SELECT * FROM instruments ORDER BY instrument_id")
        day.hq.sql("DROP TABLE live_locks")
        failed = till.lock(card, "X1")
        assert_bare_problem(failed, 500, "internal_error")
        assert failed.json["detail"] == REMEDIES["internal_error"]
        # The text of this error has the row's own values; none of them may get out.
        check = "ALTER TABLE postings ADD CONSTRAINT ck_scratch CHECK (amount_minor < 5) NOT VALID"
        day.hq.sql(check)
        assert_bare_problem(till.redeem(locked, "X0", 10, lock_id), 500, "internal_error")
        assert day.hq.sql("SELECT * FROM instruments ORDER BY instrument_id") == before
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    for line in lines:
        assert day.found_in(json.dumps(line, ensure_ascii=False)) == [], line
        assert "traceback" not in line or environment == "development"
    errors = [line["error"] for line in lines if line.get("action") == "internal_error"]
    assert errors == ["UndefinedTable", "CheckViolation"]


def test_a_database_that_is_away_is_told_as_such_and_no_more() -> None:
    nowhere = "postgresql+psycopg://hq:planted-secret@127.0.0.1:1/nothing"
    number, key = a_number(), f"hq_{'a' * 12}_{'b' * 43}"
    with running(nowhere) as app, watched(app) as (log, told):
        caller = Caller(app.test_client(), key)
        answer = caller.post("/v1/balance-inquiries", {"kind": "gift_card", "number": number})
        assert_bare_problem(answer, 503, "unavailable")
        assert answer.headers["Retry-After"] == str(answer.json["retry_after_seconds"])
        # Who comes without a key is told so even then, and the process is alive.
        assert app.test_client().get("/v1/parameters").status_code == 401
        assert app.test_client().get("/healthz").status_code == 200
        ready = app.test_client().get("/readyz")
        assert (ready.status_code, ready.json["code"]) == (503, "unavailable")
    for text in (log.getvalue(), *(one.body + str(one.headers) for one in told)):
        for secret in ("planted-secret", number, "b" * 43):
            assert secret not in text


def test_a_database_that_goes_away_in_between_is_told_as_such(
    scratch: str, database_url: str
) -> None:
    name = re.search(r"hq_scratch_\w+", scratch)
    assert name is not None
    with running(scratch) as app:
        hq = Hq(app)
        till, card = hq.till(), hq.issue(100)
        with psycopg.connect(psycopg_url(database_url), autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name[0]} ALLOW_CONNECTIONS false".encode())
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                (name[0],),
            )
            assert_bare_problem(till.lock(card, "X1"), 503, "unavailable")
            connection.execute(f"ALTER DATABASE {name[0]} ALLOW_CONNECTIONS true".encode())
        assert till.lock(card, "X1").status_code == 201


# --- the real server ------------------------------------------------------------------------------


def test_the_server_itself_logs_no_secret_either(
    day: Day, database_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "service.log"
    number, key = day.secrets.numbers["card"], day.hq.admin.key
    body = json.dumps({"kind": "gift_card", "number": number}).encode()
    head = "POST /v1/balance-inquiries HTTP/1.1\r\nHost: hq\r\nConnection: close\r\n"
    good = f"{head}Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    with served(database_url, log, HQ_LOG_LEVEL="DEBUG") as port:
        sent = f"{good}Content-Length: {len(body)}\r\n\r\n".encode() + body
        assert b" 200 OK\r\n" in exchange(port, sent)
        for broken in (
            f"{good}Content-Length: {len(body) - 1}\r\n\r\n".encode() + body,
            # The server's own error repeats what came in the place of a chunk's length.
            f"{good}Transfer-Encoding: chunked\r\n\r\n".encode() + body + b"\r\n",
            f"{head}Authorization : Bearer {key}\r\n\r\n".encode(),
            f"{head}Authorization: Bearer {key}\x00\r\n\r\n".encode(),
            f"{head}Authorization: Bearer {key}\r\nContent-Length: x\r\n\r\n".encode() + body,
            f"{head}Authorization: {key * 200}\r\n\r\n".encode(),
        ):
            answer = exchange(port, broken).decode("latin-1")
            assert re.match(r"HTTP/1.1 4\d\d ", answer)
            assert day.found_in(answer) == []
    logged = log.read_text(encoding="utf-8", errors="replace")
    assert '"route":"/v1/balance-inquiries"' in logged
    assert day.found_in(logged) == []
