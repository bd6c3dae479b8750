"""What tests of the running service share: keys, tills, cards, and a look into the database."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from flask import Flask, Request
from flask.testing import FlaskClient
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse
from werkzeug.wsgi import get_current_url

from hq_service.app import create_app
from hq_service.domain.actors import Role
from hq_service.domain.grants import GrantKeys
from hq_service.domain.keyring import Keyring
from hq_service.settings import Settings
from hq_service.store import keys, terminals
from hq_service.store.database import db, transactional

NUMBER_SECRET = bytes(range(32))
GRANT_KEYS = GrantKeys({"k1": bytes(range(32, 64))})
KEYRING = Keyring(NUMBER_SECRET, GRANT_KEYS)
SERVICE_START_SECONDS_MAX = 60
PATIENCE_SECONDS = 60.0
# What the servers of all tests that run at once need together, and as much again.
ROOM_IN_MEMORY_BYTES_MIN = 6 * 1024**3
NOTHING_AT_STAKE = {"gaps_count": 0, "live_grants_count": 0, "open_cases_count": 0}


@dataclass(frozen=True)
class Heard:
    """One answer of an application, whichever of its layers gave it.

    ``endpoint`` and ``route`` are None where no route fits the address.
    """

    method: str
    url: str
    endpoint: str | None
    route: str | None
    status: int
    headers: Sequence[tuple[str, str]]
    body: str


@contextmanager
def hearing(app: Flask) -> Iterator[list[Heard]]:
    """Hear every answer of an application."""
    heard: list[Heard] = []
    answered = app.wsgi_app

    def listening(environ: Any, start_response: Any) -> Any:
        begun: list[tuple[str, Sequence[tuple[str, str]]]] = []

        def started(status: str, headers: Any, *error: Any) -> Any:
            begun[:] = [(status, headers)]
            return start_response(status, headers, *error)

        pieces = answered(environ, started)
        content = b"".join(pieces)
        if hasattr(pieces, "close"):
            pieces.close()
        try:
            rule, _ = app.create_url_adapter(Request(environ)).match(return_rule=True)
        except HTTPException:
            rule = None
        [(status, headers)] = begun
        heard.append(
            Heard(
                environ["REQUEST_METHOD"],
                get_current_url(environ),
                rule.endpoint if rule else None,
                rule.rule if rule else None,
                int(status[:3]),
                headers,
                content.decode(),
            )
        )
        return [content]

    app.wsgi_app = listening  # type: ignore[method-assign]
    try:
        yield heard
    finally:
        app.wsgi_app = answered  # type: ignore[method-assign]


R = TypeVar("R")
C = TypeVar("C", bound="Caller")

_counter = itertools.count(1)
_DIGITS_AS_LETTERS = str.maketrans("0123456789", "ghijklmnop")


def test_settings(database_url: str, **overrides: Any) -> Settings:
    """Return settings for a test database."""
    secrets = {"number_secret": NUMBER_SECRET, "grant_keys": GRANT_KEYS}
    return Settings(database_url=database_url, **(secrets | overrides))


test_settings.__test__ = False  # type: ignore[attr-defined]


def place_for_data() -> Path:
    """Return where the data of servers and tills is kept.

    In memory, if there is room: it outlasts every process that a test kills, and no commit waits
    for a disk. Short, for the limit on socket paths, and, unlike root's tmp_path, open to the
    account that a server runs as.
    """
    memory = Path("/dev/shm")
    is_usable = memory.is_dir() and os.access(memory, os.W_OK | os.X_OK)
    has_room = is_usable and shutil.disk_usage(memory).free > ROOM_IN_MEMORY_BYTES_MIN
    return memory if has_room else Path("/tmp")


def psycopg_url(url: str) -> str:
    """Return a SQLAlchemy URL in the form that psycopg takes."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def a_name(prefix: str) -> str:
    """Return a name that no other test uses: in letters, as eight digits may be a card number."""
    return f"{prefix}-{uuid.uuid4().hex[:10].translate(_DIGITS_AS_LETTERS)}"


def a_number() -> str:
    """Return a card number that no other test uses."""
    return f"6006{uuid.uuid4().int % 10**12:012d}"


@dataclass(frozen=True)
class Card:
    """An instrument that a test issued."""

    kind: str
    number: str
    instrument_id: str
    currency: str


@dataclass
class Caller:
    """Somebody with an API key, over HTTP."""

    client: FlaskClient
    key: str

    def post(self, path: str, body: Any, **headers: str) -> TestResponse:
        return self.client.post(path, json=body, headers=self._headers(headers))

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.client.get(path, headers=self._headers(headers))

    def patch(self, path: str, body: Any, **headers: str) -> TestResponse:
        return self.client.patch(path, json=body, headers=self._headers(headers))

    def _headers(self, more: dict[str, str]) -> dict[str, str]:
        named = {name.replace("_", "-"): value for name, value in more.items()}
        return {"Authorization": f"Bearer {self.key}", **named}


@dataclass
class Till(Caller):
    """A terminal that locks and redeems, and remembers its journal."""

    store_id: str = ""
    terminal_id: str = ""
    journal_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    sequence: int = 0

    def key_of(self, transaction_id: str, line: int = 1) -> dict[str, Any]:
        return {
            "store_id": self.store_id,
            "terminal_id": self.terminal_id,
            "transaction_id": transaction_id,
            "line": line,
        }

    def lock(
        self, card: Card, transaction_id: str, line: int = 1, purpose: str = "redeem", **more: Any
    ) -> TestResponse:
        body = {"kind": card.kind, "number": card.number, "purpose": purpose, **more}
        return self.post("/v1/locks", {**self.key_of(transaction_id, line), **body})

    def lock_new(
        self, transaction_id: str, amount_minor: int, line: int = 1, **more: Any
    ) -> TestResponse:
        """Lock an instrument for issue; HQ makes its number unless one is given."""
        body = {"kind": "gift_card", "purpose": "issue", "currency": "SEK", **more}
        key = self.key_of(transaction_id, line)
        return self.post("/v1/locks", {**key, **body, "amount_minor": amount_minor})

    def conclude(self, transaction_id: str, *lines: dict[str, Any]) -> TestResponse:
        """Conclude a sale; `sale_line` makes its lines."""
        sale = self.key_of(transaction_id)
        del sale["line"]
        return self.post("/v1/transactions", {**sale, "lines": list(lines)})

    def void(self, card: Card, transaction_id: str, line: int = 1) -> TestResponse:
        body = {"instrument_id": card.instrument_id, "reason": "customer changed their mind"}
        return self.post("/v1/voids", {**self.key_of(transaction_id, line), **body})

    def redeem(
        self, card: Card, transaction_id: str, amount_minor: int, lock_id: str, line: int = 1
    ) -> TestResponse:
        body = {
            "instrument_id": card.instrument_id,
            "lock_id": lock_id,
            "amount_minor": amount_minor,
            "currency": card.currency,
        }
        return self.post("/v1/redemptions", {**self.key_of(transaction_id, line), **body})

    def release(self, card: Card, transaction_id: str, lock_id: str, line: int = 1) -> TestResponse:
        body = {"instrument_id": card.instrument_id, "lock_id": lock_id}
        return self.post("/v1/releases", {**self.key_of(transaction_id, line), **body})

    def heartbeat(self, **told: Any) -> TestResponse:
        """Tell HQ that all is well, but for what is told otherwise."""
        well = {
            "sent_at": datetime.now(UTC).isoformat(),
            "connection_state": "online",
            "pending_count": 0,
            "pending_amounts_minor": {},
            "last_sync": {"status": "none"},
            "journal_tips": {},
        }
        return self.post("/v1/heartbeats", {**well, **told})

    def offline_line(
        self, card: Card, transaction_id: str, amount_minor: int, line: int = 1, **more: Any
    ) -> dict[str, Any]:
        """Return a line as this till would write it into its journal."""
        self.sequence += 1
        return {
            "terminal_id": self.terminal_id,
            "journal_id": self.journal_id,
            "sequence": self.sequence,
            "transaction_id": transaction_id,
            "line": line,
            "operation": "redeem",
            "instrument_id": card.instrument_id,
            "amount_minor": amount_minor,
            "currency": card.currency,
            "concluded_at": datetime.now(UTC).isoformat(),
            **more,
        }


class SyncJob(Caller):
    """The sync job of a store."""

    def to_do(self) -> list[dict[str, Any]]:
        """Return the sessions that HQ has for the store."""
        answer = self.get("/v1/distribution-sessions")
        assert answer.status_code == 200, answer.json
        found: list[dict[str, Any]] = answer.json["sessions"]
        return found

    def fetch(self, session_id: str) -> TestResponse:
        return self.get(f"/v1/distribution-sessions/{session_id}/package")

    def tell(self, session_id: str, status: str, **more: Any) -> TestResponse:
        path = f"/v1/distribution-sessions/{session_id}/acknowledgements"
        return self.post(path, {"status": status, **more})

    def apply(self, session_id: str) -> TestResponse:
        """Fetch a package, and tell that it is applied."""
        fetched = self.fetch(session_id)
        assert fetched.status_code == 200, fetched.json
        checksum = hashlib.sha256(fetched.data).hexdigest()
        return self.tell(session_id, "applied", checksum_sha256=checksum)


def sale_line(
    lock: TestResponse, amount_minor: int, line: int = 1, operation: str = "redeem", **more: Any
) -> dict[str, Any]:
    """Return a line of a sale under a lock that was answered."""
    assert lock.status_code in (200, 201), lock.json
    return {
        "line": line,
        "operation": operation,
        "instrument_id": lock.json["instrument"]["instrument_id"],
        "lock_id": lock.json["lock_id"],
        "amount_minor": amount_minor,
        "currency": lock.json["instrument"]["currency"],
        **more,
    }


class Hq:
    """A running service and everybody who calls it."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.client = app.test_client()
        self.admin = Caller(self.client, self.make_key(Role.ADMIN))

    def make_key(self, role: Role, **scope: str) -> str:
        @transactional
        def make(_connection: Any) -> str:
            return keys.add(role, "test", datetime.now(UTC), **scope)

        with self.app.app_context():
            return make()

    def make_store(self, store_id: str | None = None) -> str:
        """Create a store of its own for a test and return its id."""
        made_id = store_id or f"S{next(_counter)}-{uuid.uuid4().hex[:6]}"

        @transactional
        def make(_connection: Any) -> None:
            terminals.add_store(made_id, "test store", datetime.now(UTC))

        with self.app.app_context():
            make()
        return made_id

    def till(
        self,
        store_id: str | None = None,
        named: str | None = None,
        *,
        supports_offline: bool = True,
    ) -> Till:
        """Create a register with a key, in a store of its own unless one is given."""
        store = store_id or self.make_store()
        terminal_id = named or f"T{next(_counter)}"

        @transactional
        def make(_connection: Any) -> None:
            terminals.add(
                store,
                terminal_id,
                "test register",
                supports_offline=supports_offline,
                now=datetime.now(UTC),
            )

        with self.app.app_context():
            make()
        key = self.make_key(Role.TERMINAL, store_id=store, terminal_id=terminal_id)
        return Till(self.client, key, store, terminal_id)

    def sync(self, store_id: str) -> SyncJob:
        """Return the sync job of a store."""
        return SyncJob(self.client, self.make_key(Role.SYNC, store_id=store_id))

    def make_schedule(self, *job_ids: str, **more: Any) -> str:
        """Create a distribution schedule of some jobs, and return its id."""
        schedule_id = a_name("D")
        body = {"schedule_id": schedule_id, "name": "test", "job_ids": list(job_ids)}
        answer = self.admin.post(
            "/v1/admin/distribution-schedules", {**body, "reason": "test", **more}
        )
        assert answer.status_code == 201, answer.json
        return schedule_id

    def run_now(self, schedule_id: str, *store_ids: str) -> TestResponse:
        """Run a schedule now, for some stores or for all."""
        body = {"reason": "test", **({"store_ids": list(store_ids)} if store_ids else {})}
        return self.admin.post(f"/v1/admin/distribution-schedules/{schedule_id}/runs", body)

    def post_batch(
        self, store_id: str, lines: list[dict[str, Any]], batch_id: str | None = None
    ) -> TestResponse:
        """Post an offline batch as the store's sync job."""
        body = {"store_id": store_id, "batch_id": batch_id or a_name("batch"), "lines": lines}
        return self.sync(store_id).post("/v1/offline-batches", body)

    def issue(
        self,
        amount_minor: int,
        number: str | None = None,
        *,
        kind: str = "gift_card",
        currency: str = "SEK",
    ) -> Card:
        """Issue an instrument, with a number of its own unless one is given."""
        number = number or a_number()
        answer = self.admin.post(
            "/v1/admin/instruments",
            {
                "reference": a_name("issue"),
                "kind": kind,
                "number": number,
                "currency": currency,
                "amount_minor": amount_minor,
            },
        )
        assert answer.status_code == 201, answer.json
        return Card(kind, number, answer.json["instrument"]["instrument_id"], currency)

    def save_parameters(
        self, store_id: str | None = None, *, reason: str = "test", **changes: Any
    ) -> TestResponse:
        """Edit the Commerce parameters as they are now, of the company or of one store.

        They are saved: no till is served them before they are distributed.
        """
        path = f"/v1/admin/stores/{store_id}/parameters" if store_id else "/v1/admin/parameters"
        seen = self.admin.get(path).headers["ETag"]
        return self.admin.patch(path, {"parameters": changes, "reason": reason}, If_Match=seen)

    def set_parameters(self, **changes: Any) -> None:
        """Edit the company-wide Commerce parameters, and let every store apply them."""
        answer = self.save_parameters(**changes)
        assert answer.status_code == 200, answer.json
        self.distribute()

    def parameter_state(self, till: Till) -> dict[str, Any]:
        """Return what is saved, distributed and effective at a till, as an administrator sees it:
        the members of its store and its own.
        """
        path = f"/v1/admin/parameters/states?store_id={till.store_id}"
        answer = self.admin.get(path)
        assert answer.status_code == 200, answer.json
        [store] = answer.json["stores"]
        terminals = {one["terminal_id"]: one for one in store.pop("terminals")}
        return {**store, **terminals[till.terminal_id]}

    def distribute(self) -> None:
        """Let every store apply what is saved, as a distribution run and their sync jobs do."""
        self.sql(
            "UPDATE stores SET applied_at = now(), applied_revision ="
            " (SELECT coalesce(max(revision), 0) FROM parameter_revisions AS saved"
            " WHERE saved.store_id IS NULL OR saved.store_id = stores.store_id)"
        )

    def allow_offline(self, *tills: Till) -> None:
        """Say Yes to concluding offline, for both kinds, and let tills acknowledge it."""
        self.set_parameters(
            allow_concluding_gift_card_transactions_offline=True,
            allow_concluding_credit_memo_transactions_offline=True,
        )
        for till in tills:
            assert till.get("/v1/parameters").status_code == 200

    def case(self, case_id: str) -> dict[str, Any]:
        """Return a case as an administrator sees it."""
        answer = self.admin.get(f"/v1/admin/cases/{case_id}")
        assert answer.status_code == 200, answer.json
        found: dict[str, Any] = answer.json
        return found

    def resolve(self, case_id: str, resolution: str) -> TestResponse:
        """Resolve a case."""
        return self.admin.post(
            f"/v1/admin/cases/{case_id}/resolutions",
            {"resolution": resolution, "reason": "looked into it"},
        )

    def card_of(self, answer: TestResponse, number: str | None = None) -> Card:
        """Return the instrument that a lock answers with."""
        told = answer.json["instrument"]
        return Card(
            told["kind"],
            number or answer.json["number"] or "",
            told["instrument_id"],
            told["currency"],
        )

    def balance(self, card: Card) -> int:
        """Return the balance that HQ tells."""
        answer = self.admin.post(
            "/v1/balance-inquiries", {"kind": card.kind, "number": card.number}
        )
        assert answer.status_code == 200, answer.json
        balance_minor: int = answer.json["balance_minor"]
        return balance_minor

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query, read beside the service."""
        url = psycopg_url(self.app.config["SQLALCHEMY_DATABASE_URI"])
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def running(database_url: str, **overrides: Any) -> Iterator[Flask]:
    """Run the service in this process, and leave no connection behind."""
    app = create_app(test_settings(database_url, **overrides))
    try:
        yield app
    finally:
        with app.app_context():
            db.engine.dispose()


class Tables:
    """What is in every table of a database, read over a connection of its own."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        columns: dict[str, list[str]] = {}
        for table, column, data_type in connection.execute(
            "SELECT table_name::text, column_name::text, data_type FROM information_schema.columns"
            " WHERE table_schema = 'public' ORDER BY table_name, ordinal_position"
        ):
            is_bytes = data_type == "bytea"
            text = f"encode({column}, 'escape')" if is_bytes else f"{column}::text"
            columns.setdefault(table, []).append(text)
        self._every_row = " UNION ALL ".join(
            f"SELECT '{table}', concat_ws(E'\\n', {', '.join(texts)}) FROM {table}"
            for table, texts in columns.items()
        )

    @classmethod
    @contextmanager
    def of(cls, app: Flask) -> Iterator[Tables]:
        """Open the database of an application."""
        url = psycopg_url(app.config["SQLALCHEMY_DATABASE_URI"])
        with psycopg.connect(url, autocommit=True) as connection:
            yield cls(connection)

    def rows(self) -> list[tuple[str, str]]:
        """Return table and text of every row, bytes as the text that they spell.

        Equal before and after means that nothing was written in between.
        """
        return sorted(self._connection.execute(self._every_row.encode()).fetchall())


@contextmanager
def served(database_url: str, log: Path, **variables: str) -> Iterator[int]:
    """Run the service as ``hq serve`` does, on a free port, and give the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HQ_")},
        "DATABASE_URL": psycopg_url(database_url),
        "HQ_NUMBER_SECRET": NUMBER_SECRET.hex(),
        "HQ_GRANT_KEYS": ",".join(
            f"{name}:{key.hex()}" for name, key in GRANT_KEYS.masters.items()
        ),
        "HQ_WORKERS": "1",
        **variables,
    }
    command = [sys.executable, "-m", "hq_service", "serve", "--port", str(port)]
    with log.open("wb") as output:
        service = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        _wait_for(port, service, log)
        yield port
    finally:
        service.terminate()
        service.wait(SERVICE_START_SECONDS_MAX)


def _wait_for(port: int, service: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SERVICE_START_SECONDS_MAX
    while time.monotonic() < deadline and service.poll() is None:
        try:
            answered = exchange(
                port, b"GET /healthz HTTP/1.1\r\nHost: hq\r\nConnection: close\r\n\r\n"
            )
        except OSError:
            answered = b""
        if answered:
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text(encoding="utf-8", errors="replace"))


def exchange(port: int, request: bytes) -> bytes:
    """Send bytes to a service and return whatever it answers until it closes."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(request)
        answer = b""
        while received := connection.recv(65_536):
            answer += received
    return answer


def on_its_own(hq: Hq, caller: C) -> C:
    """Return the same caller with a connection of its own, for a thread of its own."""
    return replace(caller, client=hq.app.test_client())


def together(calls: Sequence[Callable[[], R]]) -> list[R]:
    """Run calls at the same moment, each in a thread of its own, and return what they return."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], R]) -> R:
        barrier.wait(PATIENCE_SECONDS)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))
