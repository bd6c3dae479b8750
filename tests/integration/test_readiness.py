"""What the service looks at before it takes requests, and what it says when it cannot."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from hq_service.app import create_app, disconnect
from hq_service.observability import level_of
from hq_service.settings import Settings
from tests.conftest import Server
from tests.faults.service import ROOT, environment, run_hq
from tests.support import a_name, exchange, served, test_settings

OTHER_SECRET = "ab" * 32


@pytest.fixture(scope="module")
def initialised(server: Server, template: str) -> str:
    """A database that `hq db init` has prepared, with the number secret of the tests."""
    url = server.create_database(a_name("hq_test").replace("-", "_"), template)
    run_hq(environment(url), "db", "init")
    return url


@pytest.fixture(scope="module")
def bare(server: Server) -> str:
    """A database without any tables."""
    return server.create_database(a_name("hq_bare").replace("-", "_"))


def readyz(settings: Settings) -> TestResponse:
    app = create_app(settings)
    try:
        return app.test_client().get("/readyz")
    finally:
        with app.app_context():
            disconnect()


def refusal(environ: dict[str, str], *arguments: str) -> str:
    """Run the command line; it must end with a sentence and without a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "hq_service", *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_database_that_was_prepared_is_ready(initialised: str) -> None:
    answer = readyz(test_settings(initialised))
    assert answer.status_code == 200, answer.json
    assert answer.json["checks"]["number_secret"] == "ok"


def test_preparing_it_again_changes_nothing(initialised: str) -> None:
    assert "ready" in run_hq(environment(initialised), "db", "init")


@pytest.mark.parametrize("verb", [("serve",), ("db", "init")], ids=" ".join)
def test_another_number_secret_is_refused_by_name(initialised: str, verb: tuple[str, ...]) -> None:
    # With another secret every card in the database would be told as unknown to its holder.
    said = refusal(environment(initialised, HQ_NUMBER_SECRET=OTHER_SECRET, PORT="1"), *verb)
    assert "HQ_NUMBER_SECRET is not the one that this data was made with" in said
    assert OTHER_SECRET not in said


def test_another_number_secret_is_never_ready(initialised: str) -> None:
    settings = test_settings(initialised, number_secret=bytes.fromhex(OTHER_SECRET))
    answer = readyz(settings)
    assert answer.status_code == 503
    assert "set that one again" in answer.json["checks"]["number_secret"]


def test_a_database_without_a_noted_secret_says_what_to_run(database_url: str) -> None:
    answer = readyz(test_settings(database_url))
    assert answer.status_code == 503
    assert "hq db init" in answer.json["checks"]["number_secret"]


@pytest.mark.parametrize(
    "verb",
    [("keys", "list"), ("audit", "verify"), ("audit", "export"), ("settle-pending",)],
    ids=" ".join,
)
def test_a_verb_on_a_database_without_tables_says_what_to_run(
    bare: str, verb: tuple[str, ...]
) -> None:
    said = refusal(environment(bare), *verb)
    assert "run `hq db init` first" in said
    assert "does not answer" not in said


@pytest.mark.parametrize("verb", [("settle-pending",), ("settle-file", __file__)], ids=" ".join)
def test_nothing_is_settled_under_another_number_secret(
    initialised: str, verb: tuple[str, ...]
) -> None:
    said = refusal(environment(initialised, HQ_NUMBER_SECRET=OTHER_SECRET), *verb)
    assert "HQ_NUMBER_SECRET is not the one that this data was made with" in said


def test_a_database_without_tables_says_what_to_run_when_asked_whether_it_is_ready(
    bare: str,
) -> None:
    answer = readyz(test_settings(bare))
    assert (answer.status_code, answer.json["checks"]["schema"]) == (503, "run `hq db init`")


def test_an_unreachable_database_is_said_at_the_start_and_in_the_log(tmp_path: Path) -> None:
    log_file = tmp_path / "log"
    with served("postgresql://nobody@127.0.0.1:1/nothing", log_file) as port:
        answer = exchange(port, b"GET /readyz HTTP/1.1\r\nHost: hq\r\nConnection: close\r\n\r\n")
        assert b" 503 " in answer.splitlines()[0]
    text = log_file.read_text(encoding="utf-8")
    assert "Not ready yet: database: it does not answer" in text
    requests = [json.loads(line) for line in text.splitlines() if '"route":"/readyz"' in line]
    assert {line["level"] for line in requests} == {"WARNING"}


@pytest.mark.parametrize(
    ("status", "level"), [(200, "INFO"), (409, "INFO"), (500, "ERROR"), (503, "WARNING")]
)
def test_what_the_service_could_not_do_is_to_be_seen_in_the_log(status: int, level: str) -> None:
    assert logging.getLevelName(level_of(status)) == level
