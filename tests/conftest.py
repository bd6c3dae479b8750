"""A real PostgreSQL for every test: a throwaway one, or the server of DATABASE_URL."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from flask import Flask
from hypothesis import HealthCheck, settings
from psycopg import sql

from hq_service.api import at_once
from hq_service.embedded_postgres import ThrowawayPostgres
from hq_service.settings import database_url_from
from tests.invariants import assert_invariants
from tests.support import Hq, place_for_data, psycopg_url, running

ROOT = Path(__file__).resolve().parent.parent

# Below it pytest makes tmp_path.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(place_for_data()))

# Whether a test passes is no matter of chance, nor of how busy the machine is.
settings.register_profile(
    "the-same-each-time",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
# To look for what nobody has thought of: make test ARGS="--hypothesis-profile=explore tests/unit".
settings.register_profile(
    "explore", settings.get_profile("the-same-each-time"), derandomize=False, max_examples=2_000
)
settings.load_profile("the-same-each-time")

# What `hq db init` sets for its role holds for every database of the server, and on one that is
# given for the next run, too. No test is about that, and none may end by it on a busy machine.
PATIENCE = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")

# The directories with the longest files come first: of tests that run beside each other, no long
# file is left alone at the end.
LONGEST_FIRST = (
    "tests/contract",
    "tests/stateful",
    "tests/faults",
    "tests/simulation",
    "tests/terminal",
    "tests/migrations",
    "tests/concurrency",
    "tests/integration",
)
# With more of them the longest file still takes as long as it takes.
WORKERS_MAX = 8


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests by directory; within each the order stays."""

    def place(item: pytest.Item) -> int:
        directory = item.path.parent.relative_to(ROOT).as_posix()
        return LONGEST_FIRST.index(directory) if directory in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes run tests, each on a server of its own; 0 is this one alone.

    One more than there are cores: tests wait, too, for servers, for processes and for time. On a
    given server they would change the settings of the one role beside each other.
    """
    return 0 if os.environ.get("DATABASE_URL") else min((os.cpu_count() or 1) + 1, WORKERS_MAX)


class Server(Protocol):
    """A PostgreSQL on which tests may create databases."""

    def create_database(self, name: str, template: str = "template1") -> str: ...


class GivenServer:
    """The server of DATABASE_URL; its own database is never touched."""

    def __init__(self, url: str) -> None:
        self.url = url

    def create_database(self, name: str, template: str = "template1") -> str:
        with psycopg.connect(psycopg_url(self.url), autocommit=True) as connection:
            connection.execute("SET statement_timeout = 0")
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        address, _, query = self.url.partition("?")
        base = address.rsplit("/", 1)[0]
        return f"{base}/{name}" + (f"?{query}" if query else "")


def migrate(url: str) -> None:
    """Bring a database to the newest schema."""
    configuration = Config(toml_file=ROOT / "pyproject.toml")
    configuration.attributes["database_url"] = url
    command.upgrade(configuration, "head")


def be_patient(url: str, database: str) -> None:
    """Let sessions on a database wait for longer than a test takes."""
    with psycopg.connect(psycopg_url(url), autocommit=True) as connection:
        for setting in PATIENCE:
            connection.execute(
                sql.SQL("ALTER ROLE CURRENT_USER IN DATABASE {} SET {} = '10min'").format(
                    sql.Identifier(database), sql.Identifier(setting)
                )
            )


@dataclass(frozen=True)
class PatientServer:
    """A server whose databases are patient, whatever is set for the role."""

    server: Server

    def create_database(self, name: str, template: str = "template1") -> str:
        url = self.server.create_database(name, template)
        be_patient(url, name)
        return url


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    if os.environ.get("DATABASE_URL"):
        yield PatientServer(GivenServer(database_url_from(os.environ)))
        return
    with ThrowawayPostgres(place_for_data()) as throwaway:
        be_patient(throwaway.url, "postgres")  # from where databases are created
        yield PatientServer(throwaway)


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    """The name of a migrated, empty database to copy."""
    name = f"hq_template_{uuid.uuid4().hex[:8]}"
    migrate(server.create_database(name))
    return name


@pytest.fixture(scope="module")
def database_url(server: Server, template: str) -> str:
    """A migrated, empty database for one module."""
    return server.create_database(f"hq_test_{uuid.uuid4().hex[:8]}", template)


@pytest.fixture(scope="module")
def app(database_url: str) -> Iterator[Flask]:
    with running(database_url) as app:
        yield app


@pytest.fixture(scope="module")
def hq(app: Flask) -> Hq:
    return Hq(app)


@pytest.fixture
def whole_afterwards(hq: Hq) -> Iterator[None]:
    """Whatever a test did, what must be true at any moment is true behind it."""
    yield
    assert_invariants(hq.sql)


@pytest.fixture
def in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be tried at once: every request goes through the schemas and the rules."""
    monkeypatch.setattr(at_once, "small_json_body", lambda _request: None)


@pytest.fixture(params=["at once", "in full"])
def either_way(request: pytest.FixtureRequest) -> None:
    """Play a test twice: as requests usually go, and with nothing tried at once."""
    if request.param == "in full":
        request.getfixturevalue("in_full")
