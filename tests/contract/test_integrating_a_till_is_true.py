"""docs/integrating-a-till.md is true: its requests are answered as it says, by the running service,
and of every message that it says may be lost, what it says is what comes of it.
"""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask

from hq_service.api.bodies import JSON, NDJSON
from hq_service.api.problems import PROBLEMS
from hq_service.domain.actors import Role
from hq_service.domain.grants import VERSION
from hq_service.domain.judgement import OnlineRefusal
from hq_service.domain.locking import LockRefusal
from hq_service.domain.model import Operation, TransactionStatus
from hq_service.domain.outcomes import Outcome
from hq_service.domain.reading import LINE_NUMBER_MAX, SEQUENCE_MAX
from hq_service.operations import demo_data
from hq_service.operations.clock import now
from hq_service.settings import Settings
from hq_service.terminal.proxy import LOOPBACK, Fate, Gate, Proxy
from tests.support import KEYRING, Card, Hq, Till, served

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "integrating-a-till.md").read_text("utf-8")

LARGE_FROM = 4
"""How many lines make a batch a large one in the document."""
PATIENCE_SECONDS = 60.0

Body = dict[str, Any]


@pytest.fixture(scope="module")
def keys(app: Flask) -> Mapping[str, str]:
    """The demo data's keys: the document is written for a service with demo data."""
    with app.app_context():
        made = demo_data.create(KEYRING, now())
    assert made is not None
    return made.keys


@pytest.fixture(scope="module")
def address(
    keys: Mapping[str, str], hq: Hq, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    hq.allow_offline()
    log = tmp_path_factory.mktemp("service") / "log"
    with served(database_url, log, HQ_BATCH_SYNCHRONOUS_LINES_MAX=str(LARGE_FROM - 1)) as port:
        yield f"http://{LOOPBACK}:{port}"


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


def table(title: str) -> list[list[str]]:
    """Return the cells of the table of a section, without its head."""
    lines = re.findall(r"^\| (.+) \|$", section(title), re.MULTILINE)
    return [line.split(" | ") for line in lines[1:]]


# --- the bodies -----------------------------------------------------------------------------------

AGAIN = "(the same as before)"
SETTLED_SECONDS_MAX = 30
KEY_SHOWN = "Bearer $HQ_T01_KEY"
# What has such a form is different each time, and the same wherever the document repeats it.
VARYING = re.compile(
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
    rf"|{VERSION}\.\w+\.[\w-]+\.[\w-]+"
    r"|\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)"
)
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\S+")
MADE_BY_HQ = {"number", "number_last4"}
ANY = {"request_id", "retry_after_seconds"}


@dataclass
class Exchange:
    """One request of the document, and its answer."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    status: int
    answer_headers: dict[str, str]
    answer: Any


def block(text: str) -> tuple[str, dict[str, str], str]:
    head, _, body = text.strip().partition("\n\n")
    first, *named = head.split("\n")
    return first, dict(line.split(": ", 1) for line in named), body


def exchanges() -> list[Exchange]:
    blocks = [block(one) for one in re.findall(r"^```http\n(.*?)^```", TEXT, re.M | re.DOTALL)]
    found: list[Exchange] = []
    for request, answer in zip(blocks[::2], blocks[1::2], strict=True):
        method, path = request[0].split(" ")
        version, status, *_ = answer[0].split(" ")
        assert version == "HTTP/1.1"
        wish, told = body_of(*request[1:]), body_of(*answer[1:])
        if AGAIN in (wish, told):
            before = next(one for one in reversed(found) if one.path == path)
            wish, told = before.body, before.answer
        found.append(Exchange(method, path, request[1], wish, int(status), answer[1], told))
    return found


def body_of(headers: Mapping[str, str], text: str) -> Any:
    """Return the JSON document of a block; of NDJSON a list of them."""
    text = text.strip()
    if not text or text == AGAIN:
        return text or None
    if headers.get("Content-Type") == NDJSON:
        return [json.loads(line) for line in text.split("\n")]
    return json.loads(text)


def content_of(body: Any, headers: Mapping[str, str]) -> bytes | None:
    """Return a body as it is sent under these headers."""
    if body is None:
        return None
    documents = body if headers["Content-Type"] == NDJSON else [body]
    content = b"\n".join(json.dumps(document).encode() for document in documents)
    return gzip.compress(content) if headers.get("Content-Encoding") == "gzip" else content


def asked(http: httpx.Client, exchange: Exchange, headers: Body, body: Any) -> httpx.Response:
    """Make a request of the document; ask how far a batch is until it is settled."""
    headers = {"Content-Type": JSON, **exchange.headers, **headers}
    content = content_of(body, headers)
    deadline = time.monotonic() + SETTLED_SECONDS_MAX
    while True:
        answer = http.request(exchange.method, exchange.path, content=content, headers=headers)
        is_settled = exchange.answer.get("settled_at") is None or answer.json().get("settled_at")
        if exchange.method != "GET" or is_settled or time.monotonic() > deadline:
            return answer
        time.sleep(0.05)


@dataclass
class Likeness:
    """What the document's values stand for in this run: the same for the same, all the way."""

    known: dict[str, str] = field(default_factory=dict)

    def of(self, documented: Any) -> Any:
        """Return a documented body as it is sent: with this run's ids, and now as its instants."""
        if isinstance(documented, dict):
            return {name: self.of(one) for name, one in documented.items()}
        if isinstance(documented, list):
            return [self.of(one) for one in documented]
        if not isinstance(documented, str):
            return documented
        if INSTANT.fullmatch(documented):
            return self.known.setdefault(documented, datetime.now(UTC).isoformat())
        return self.known.get(documented, documented)

    def check(self, documented: Any, told: Any, place: str = "") -> None:
        """Compare an answer with the documented one, and learn what its values stand for."""
        name = place.rpartition("/")[2]
        if isinstance(documented, dict) and isinstance(told, dict):
            assert sorted(told) == sorted(documented), place
            for member, value in documented.items():
                self.check(value, told[member], f"{place}/{member}")
        elif isinstance(documented, list) and isinstance(told, list):
            assert len(told) == len(documented), place
            for number, value in enumerate(documented):
                self.check(value, told[number], f"{place}/{number}")
        elif name in ANY:
            assert type(told) is type(documented), place
        elif (
            isinstance(documented, str)
            and isinstance(told, str)
            and self._varies(name, documented, told)
        ):
            assert self.known.setdefault(documented, told) == told, place
        else:
            assert told == documented, place

    def _varies(self, name: str, documented: str, told: str) -> bool:
        is_of_form = VARYING.fullmatch(documented) and VARYING.fullmatch(told)
        is_made = name in MADE_BY_HQ and len(documented) == len(told)
        return is_of_form is not None or is_made


def test_every_request_is_answered_as_documented(address: str, keys: Mapping[str, str]) -> None:
    likeness = Likeness()
    with httpx.Client(base_url=address, timeout=PATIENCE_SECONDS) as http:
        for exchange in exchanges():
            shown = exchange.headers.get("Authorization", KEY_SHOWN).removeprefix("Bearer $")
            headers = {"Authorization": f"Bearer {keys[shown]}"}
            answer = asked(http, exchange, headers, likeness.of(exchange.body))
            place = f"{exchange.method} {exchange.path}"
            assert answer.status_code == exchange.status, (place, answer.text)
            likeness.check(exchange.answer, answer.json(), place)
            for name, value in exchange.answer_headers.items():
                told = answer.headers[name]
                assert told == value or (name == "Retry-After" and told.isdecimal()), (place, name)


def test_the_document_shows_what_the_terminal_needs_and_no_route_that_is_not_there(
    app: Flask,
) -> None:
    routes = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"<\1>", rule.rule)): app.view_functions[rule.endpoint]
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
    }
    of_terminals = {
        route
        for route, view in routes.items()
        if Role.TERMINAL in getattr(view, "allowed_roles", ()) and route[0] in ("GET", "POST")
    }
    named = {
        (method, path) for method, path in re.findall(r"\b(GET|POST|PATCH) (/v1/[\w/<>-]+)", TEXT)
    }
    shown = {(method, path) for method, path in named if "/S001/" in path}
    assert named - shown <= set(routes)
    assert of_terminals <= named


def test_the_members_of_a_journal_line_are_those_that_hq_reads(hq: Hq) -> None:
    schemas = hq.client.get("/openapi.json").json["components"]["schemas"]
    told = [re.findall(r"`(\w+)`", row[0]) for row in table("What the till stores in its journal")]
    assert {name for names in told for name in names} == set(
        schemas["OfflineLine"]["properties"]
    ) - {"kind", "number"}, "a journal has no card numbers"


def test_every_member_of_a_batch_is_described_and_those_that_are_needed_say_so(hq: Hq) -> None:
    schemas = hq.client.get("/openapi.json").json["components"]["schemas"]
    rows = re.findall(r"^\| (`.+?`) \| (.+?) \|", section("The offline batch"), re.MULTILINE)
    told = {
        name: form.startswith("needed")
        for names, form in rows
        for name in re.findall(r"\w+", names)
    }
    envelope, line = schemas["OfflineBatchRequest"], schemas["OfflineLine"]
    assert set(told) == {*envelope["properties"], *line["properties"]}
    # What of a line is needed depends on its operation, and on how it names its instrument.
    depending = {"instrument_id", "amount_minor", "currency"}
    needed = {name for name, is_needed in told.items() if is_needed} - depending
    assert needed == {*envelope["required"], *line["required"]}


def test_the_limits_of_a_batch_are_those_of_the_code() -> None:
    text = section("The offline batch")
    defaults = {one.name: one.default for one in fields(Settings)}
    assert f"`sequence` to {SEQUENCE_MAX}, `line` to {LINE_NUMBER_MAX}" in text
    assert f"at most {defaults['batch_lines_max']:,}" in text
    assert f"of more than {defaults['batch_synchronous_lines_max']:,} lines" in text
    assert f"set to {LARGE_FROM - 1} for this page" in text
    told = set(re.findall(r"\w+", re.findall(r"\| `operation` \| (.+) \|", text)[0]))
    assert set(Operation) <= told
    statuses = set(re.findall(r"`(\w+)`", re.findall(r"\| `status` \| (.+) \|", text)[0]))
    assert statuses == set(TransactionStatus)


def test_every_code_that_a_till_can_meet_has_a_row() -> None:
    rows = {
        tuple(re.findall(r"`(\w+)`", codes)): status
        for codes, status, _ in table("The errors, and what a till does about them")
    }
    told = [code for codes in rows for code in codes]
    assert len(told) == len(set(told))
    others = """malformed_body unauthenticated forbidden foreign_terminal foreign_store
        terminal_retired not_found transaction_not_found batch_not_found method_not_allowed
        payload_too_large unsupported_media_type validation_failed batch_id_reused internal_error
        unavailable outcome_unknown"""
    assert set(told) == {*map(str, LockRefusal), *map(str, OnlineRefusal), *others.split()}
    for codes, status in rows.items():
        statuses = dict.fromkeys(str(PROBLEMS[code].status) for code in codes)
        assert status == ", ".join(statuses), codes


def test_every_outcome_of_a_line_has_a_row() -> None:
    rows = table("What the answer to a batch means")
    assert {row[0].strip("`") for row in rows} == set(Outcome)


def test_the_diagrams_name_their_parties() -> None:
    diagrams = re.findall(r"```mermaid\n(.*?)```", TEXT, re.DOTALL)
    assert len(diagrams) == 4
    for diagram in diagrams:
        assert diagram.startswith("sequenceDiagram\n")
        assert ";" not in diagram, "it ends a line there"
        parties = set(re.findall(r"^ +participant (\w+)", diagram, re.MULTILINE))
        arrows = re.findall(r"^ +(\w+)(?:-?->>|-?-x|-\))(\w+): \S", diagram, re.MULTILINE)
        assert arrows
        assert {party for arrow in arrows for party in arrow} == parties


# --- the messages that get lost -------------------------------------------------------------------

BALANCE_MINOR, AMOUNT_MINOR = 500, 120
CONCLUSIONS = {
    "redeem": "the redemption",
    "load": "the load",
    "refund": "the refund",
    "cash_out": "the cash-out",
    "issue": "the issue",
}


@dataclass
class Sale:
    """A sale that a till makes past a proxy, and what came of it."""

    hq: Hq
    till: Till
    card: Card
    proxy: Proxy
    http: httpx.Client
    lock: Body = field(default_factory=dict)
    message: tuple[str, Any] = ("", None)
    operation: str = "redeem"
    late: Future[str] | None = None
    gate: Gate | None = None

    def key(self, line: int = 1) -> Body:
        return self.till.key_of("sale", line)

    def held(self) -> Body:
        return {"instrument_id": self.card.instrument_id, "lock_id": self.lock["lock_id"]}

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.http.post(path, json=body)

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def take_lock(self) -> None:
        answer = self.post(*lock_message(self))
        assert answer.status_code == 201, answer.text
        self.lock = answer.json()

    @property
    def money(self) -> Body:
        amount_minor = BALANCE_MINOR if self.operation == "cash_out" else AMOUNT_MINOR
        return {"amount_minor": amount_minor, "currency": "SEK"}

    @property
    def ground(self) -> Body:
        """What a refund is for."""
        return {"reason": "it was broken"} if self.operation == "refund" else {}

    def journal_line(self, operation: str, **more: Any) -> Body:
        line = self.till.offline_line(self.card, "sale", 1, operation=operation, **more)
        without_money = {name: line[name] for name in line if name not in self.money}
        return without_money if operation == "void" else {**line, **self.money, **self.ground}

    def batch(self, batch_id: str, *lines: Body) -> tuple[str, Body]:
        store_id = self.till.store_id
        wish = {"store_id": store_id, "batch_id": batch_id, "lines": list(lines)}
        return "/v1/offline-batches", wish

    # --- what is compared -------------------------------------------------------------------------

    def at_hq(self) -> str:
        """Return what HQ has of the sale, in the words of the table."""
        admin, till = self.hq.admin, self.till
        found = ["the lock"] if self.get("/v1/locks?transaction_id=sale")["locks"] else []
        known = admin.get(f"/v1/transactions/{till.store_id}/{till.terminal_id}/sale")
        entries = known.json["lines"] if known.status_code == 200 else []
        for entry in entries:
            if entry["outcome"] == "applied" and CONCLUSIONS[entry["operation"]] not in found:
                found.append(CONCLUSIONS[entry["operation"]])
        if any(entry["outcome"] == "voided" for entry in entries):
            found.append("the void")
        return " and ".join(found) or "nothing"

    def in_the_end(self) -> str:
        """Return the balance of the card, and whether it is free."""
        admin, card = self.hq.admin, self.card
        is_locked = admin.get(f"/v1/admin/locks/{card.instrument_id}").status_code == 200
        [balance] = self.hq.sql(
            "SELECT balance_minor FROM instruments WHERE instrument_id = %s", card.instrument_id
        )
        return f"{balance[0]}, {'locked' if is_locked else 'free'}"

    def let_late_one_arrive(self) -> str:
        assert self.late is not None
        assert self.gate is not None
        self.gate.let_go()
        return self.late.result()


def told(answer: httpx.Response) -> str:
    """Return an answer as the table writes it."""
    if answer.status_code >= 400:
        return f"{answer.status_code} `{answer.json()['code']}`"
    again = " again" if "Idempotency-Replayed" in answer.headers else ""
    return f"{answer.status_code}{again}"


def results(answer: httpx.Response) -> str:
    assert answer.status_code in (200, 201), answer.text
    words = [
        " ".join(f"`{word}`" for word in (result["outcome"], *result["codes"]))
        for result in answer.json()["results"]
    ]
    return ", ".join(words)


# --- what is sent


def lock_message(sale: Sale) -> tuple[str, Any]:
    wish = {"kind": sale.card.kind, "number": sale.card.number, "purpose": "redeem"}
    return "/v1/locks", {**sale.key(), **wish}


def issue_lock_message(sale: Sale) -> tuple[str, Any]:
    wish = {"kind": "gift_card", "purpose": "issue", "amount_minor": 100, "currency": "SEK"}
    return "/v1/locks", {**sale.key(), **wish}


def redeem_message(sale: Sale) -> tuple[str, Any]:
    sale.take_lock()
    money = {"amount_minor": AMOUNT_MINOR, "currency": "SEK"}
    return "/v1/redemptions", {**sale.key(), **sale.held(), **money}


def conclusion_message(operation: str) -> Callable[[Sale], tuple[str, Any]]:
    """Return what makes a sale of one line of an operation, whose card is locked."""

    def message(sale: Sale) -> tuple[str, Any]:
        sale.operation = operation
        asked = {} if operation == "cash_out" else sale.money
        wish = {"kind": "gift_card", "number": sale.card.number, **sale.key()}
        if operation == "issue":
            del wish["number"]
        elif operation != "cash_out":
            del asked["currency"]
        answer = sale.post("/v1/locks", {**wish, "purpose": operation, **asked})
        assert answer.status_code == 201, answer.text
        sale.lock = answer.json()
        made = sale.lock["instrument"]["instrument_id"]
        sale.card = Card("gift_card", sale.lock["number"] or sale.card.number, made, "SEK")
        line = {"line": 1, "operation": operation, **sale.held(), **sale.money, **sale.ground}
        key = sale.key()
        del key["line"]
        return "/v1/transactions", {**key, "lines": [line]}

    return message


def sale_message(sale: Sale) -> tuple[str, Any]:
    _, redemption = redeem_message(sale)
    other = sale.hq.issue(BALANCE_MINOR)
    wish = {**lock_message(sale)[1], **sale.key(2), "number": other.number}
    second = sale.post("/v1/locks", wish).json()
    key = {name: redemption.pop(name) for name in ("store_id", "terminal_id", "transaction_id")}
    first = {**redemption, "operation": "redeem"}
    held = {"line": 2, "lock_id": second["lock_id"], "instrument_id": other.instrument_id}
    return "/v1/transactions", {**key, "lines": [first, {**first, **held}]}


def release_message(sale: Sale) -> tuple[str, Any]:
    sale.take_lock()
    return "/v1/releases", {**sale.key(), **sale.held()}


def void_message(sale: Sale) -> tuple[str, Any]:
    assert sale.post(*redeem_message(sale)).status_code == 201
    return void_of(sale)


def void_of(sale: Sale) -> tuple[str, Any]:
    named = {"instrument_id": sale.card.instrument_id, "reason": "paid in cash instead"}
    return "/v1/voids", {**sale.key(), **named}


def batch_message(sale: Sale) -> tuple[str, Any]:
    sale.take_lock()
    return sale.batch("B1", concluded_line(sale))


def concluded_line(sale: Sale) -> Body:
    grant = sale.lock["offline"]["grant"]
    return sale.journal_line(sale.operation, lock_id=sale.lock["lock_id"], grant=grant)


def heartbeat_message(sale: Sale) -> tuple[str, Any]:
    sale.take_lock()
    told_state = {"connection_state": "online", "pending_count": 0, "pending_amounts_minor": {}}
    rest = {"last_sync": {"status": "none"}, "journal_tips": {}}
    return "/v1/heartbeats", {"sent_at": datetime.now(UTC).isoformat(), **told_state, **rest}


MESSAGES: dict[str, Callable[[Sale], tuple[str, Any]]] = {
    "lock": lock_message,
    "lock to issue": issue_lock_message,
    "redemption": redeem_message,
    "sale of two lines": sale_message,
    "load": conclusion_message("load"),
    "refund": conclusion_message("refund"),
    "cash-out": conclusion_message("cash_out"),
    "issue": conclusion_message("issue"),
    "release": release_message,
    "void": void_message,
    "batch": batch_message,
    "heartbeat": heartbeat_message,
}


# --- what the till does


def repeat(sale: Sale) -> str:
    answer = sale.post(*sale.message)
    if sale.message[1].get("purpose") == "issue":
        made = answer.json()["instrument"]["instrument_id"]
        sale.card = Card("gift_card", answer.json()["number"], made, "SEK")
    return told(answer)


def give_up_the_lock(sale: Sale) -> str:
    """Release whatever lock of the sale HQ tells of."""
    answered = []
    if sale.late is not None:
        answered.append(f"late one: {sale.let_late_one_arrive()}")
    locks = sale.get("/v1/locks?transaction_id=sale")["locks"]
    if not locks:
        answered.append("no lock")
    for lock in locks:
        held = {"lock_id": lock["lock_id"], "instrument_id": lock["instrument"]["instrument_id"]}
        key = {name: lock[name] for name in sale.key()}
        answered.append(f"the lock; {told(sale.post('/v1/releases', {**key, **held}))}")
    return "; ".join(answered)


def conclude_offline(sale: Sale) -> str:
    return results(sale.post(*sale.batch("B1", concluded_line(sale))))


def void_online(sale: Sale) -> str:
    answer = sale.post(*void_of(sale))
    back = "gives back" if sale.operation in ("redeem", "cash_out") else "takes back"
    return f"{told(answer)}, {back} {answer.json()['funded_minor']}"


def void_in_the_journal(sale: Sale) -> str:
    line = sale.journal_line("void", lock_id=sale.lock["lock_id"], reason="paid in cash instead")
    answer = sale.post(*sale.batch("B1", line))
    return f"{results(answer)}, gives back {answer.json()['results'][0]['funded_minor']}"


def post_under_another_batch_id(sale: Sale) -> str:
    path, body = sale.message
    return results(sale.post(path, {**body, "batch_id": "B2"}))


def start_anew_with_the_lock(sale: Sale) -> str:
    [lock] = sale.get("/v1/locks")["locks"]
    held = {"instrument_id": lock["instrument"]["instrument_id"], "lock_id": lock["lock_id"]}
    money = {"amount_minor": AMOUNT_MINOR, "currency": "SEK"}
    return f"the lock; {told(sale.post('/v1/redemptions', {**sale.key(), **held, **money}))}"


def start_anew_and_ask(sale: Sale) -> str:
    till = sale.till
    answer = sale.http.get(f"/v1/transactions/{till.store_id}/{till.terminal_id}/sale")
    if answer.status_code == 200:
        return " ".join(f"`{line['outcome']}`" for line in answer.json()["lines"])
    return f"{told(answer)}; {repeat(sale)}"


def look_for_the_number(sale: Sale) -> str:
    assert not sale.get("/v1/locks?transaction_id=sale")["locks"]
    [line] = sale.post(*sale.message).json()["lines"]
    assert sale.card.number not in json.dumps(line)
    wish = {"kind": "gift_card", "purpose": "issue", **sale.key(), **sale.money}
    return f"no lock; {told(sale.post('/v1/locks', wish))}"


def break_the_lock(sale: Sale) -> str:
    admin = sale.hq.admin
    held = admin.get(f"/v1/admin/locks/{sale.card.instrument_id}").json
    wish = {
        "instrument_id": sale.card.instrument_id,
        "lock_id": held["lock_id"],
        "accepted_exposure_minor": held["exposure_minor"],
        "reason": "the till burned down",
    }
    broken = admin.post("/v1/admin/lock-breaks", wish)
    return f"exposure {held['exposure_minor']}; {broken.status_code}"


ACTIONS: dict[str, Callable[[Sale], str]] = {
    "repeats it": repeat,
    "gives the line up: `GET /v1/locks`, and releases what is there": give_up_the_lock,
    "concludes offline, posts its journal": conclude_offline,
    "takes cash, voids the line": void_online,
    "voids the line": void_online,
    "takes cash, writes `void` into its journal": void_in_the_journal,
    "posts the lines in another batch": post_under_another_batch_id,
    "starts anew: `GET /v1/locks`, concludes": start_anew_with_the_lock,
    "looks for the number: `GET /v1/locks`, repeats the lock": look_for_the_number,
    "starts anew: asks for the sale, repeats what HQ does not know": start_anew_and_ask,
    "is gone with its store; an administrator breaks the lock": break_the_lock,
}

MATRIX = "Messages that get lost"


@contextmanager
def sale_past_a_proxy(hq: Hq, address: str) -> Iterator[Sale]:
    till = hq.till()
    allowed = {"gift_card_cash_out_threshold_minor": {"SEK": BALANCE_MINOR}}
    assert hq.save_parameters(till.store_id, **allowed).status_code == 200
    hq.distribute()
    assert till.get("/v1/parameters").status_code == 200
    headers = {"Authorization": f"Bearer {till.key}"}
    with (
        Proxy(address) as proxy,
        httpx.Client(base_url=proxy.url, headers=headers, timeout=PATIENCE_SECONDS) as http,
    ):
        yield Sale(hq, till, hq.issue(BALANCE_MINOR), proxy, http)
        assert proxy.unused_plans_count == 0


def lose(sale: Sale, lost: str, other: ThreadPoolExecutor) -> None:
    """Send the message, and lose it in the way that the table says."""
    path, body = sale.message
    if lost == "late":
        sale.gate = sale.proxy.hold("POST", path)
        sale.late = other.submit(lambda: told(sale.post(path, body)))
        assert sale.gate.wait_until_reached()
    elif lost == "nothing":
        assert sale.post(path, body).status_code in (200, 201)
    else:
        fates = {"the request": Fate.REQUEST_LOST, "the answer": Fate.ANSWER_LOST}
        sale.proxy.plan("POST", path, fates[lost])
        with pytest.raises(httpx.RemoteProtocolError):
            sale.post(path, body)


@pytest.mark.parametrize("row", table(MATRIX), ids=lambda row: ", ".join(row[:2] + row[3:4])[:90])
def test_what_is_lost_ends_as_the_matrix_says(hq: Hq, address: str, row: list[str]) -> None:
    message, lost, _, action, *_ = row
    with ThreadPoolExecutor(1) as other, sale_past_a_proxy(hq, address) as sale:
        sale.message = MESSAGES[message](sale)
        lose(sale, lost, other)
        at_hq = sale.at_hq()
        answered = ACTIONS[action](sale)
        if sale.late is not None and not sale.late.done():
            answered += f"; late one: {sale.let_late_one_arrive()}"
        assert [message, lost, at_hq, action, answered, sale.in_the_end()] == row


def test_the_matrix_has_every_message_and_both_ways_of_losing_it() -> None:
    rows = [tuple(row[:2]) for row in table(MATRIX)]
    assert {message for message, _ in rows} == set(MESSAGES)
    for message in MESSAGES:
        assert (message, "the request") in rows or message == "lock to issue"
        assert (message, "the answer") in rows
    assert {row[3] for row in table(MATRIX)} == set(ACTIONS)


def test_every_operation_of_a_journal_is_named() -> None:
    words = set(re.findall(r"`(\w+)`", section("What the till stores in its journal")))
    assert {str(one) for one in Operation} <= words
