"""`hq db ...`, as a user meets it: services, sessions and databases as real processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hq_service.cli import DEMO_KEYS_FILE
from hq_service.embedded_postgres import EmbeddedPostgres, ThrowawayPostgres
from hq_service.embedded_postgres.programs import BINARIES_VARIABLE
from hq_service.terminal.client import Client, Unreachable
from tests.support import place_for_data

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 60
PASSWORD = "pa55-w0rd"
ELSEWHERE = f"postgresql://hq:{PASSWORD}@database.invalid/hq"


@dataclass(frozen=True)
class Local:
    """An embedded database of its own, and the command line that is about it."""

    directory: Path

    @property
    def embedded(self) -> EmbeddedPostgres:
        return EmbeddedPostgres(self.directory)

    def environment(self, **variables: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name == BINARIES_VARIABLE or not name.startswith(("HQ_", "DATABASE_URL", "PORT"))
        }
        return {**kept, "HQ_LOCAL_DIR": str(self.directory), "HQ_WORKERS": "1", **variables}

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "hq_service", *arguments],
            env=self.environment(**variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def hq(
        self, *arguments: str, said: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **variables)
        output, errors = process.communicate(said, timeout=SECONDS_MAX)
        assert "Traceback" not in errors, errors
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    @contextmanager
    def service(self) -> Iterator[tuple[subprocess.Popen[str], str]]:
        """Give a service that is ready, and its address."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = self.start("serve", "--port", str(port))
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: status_of(url) == 200)
            yield process, url
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=SECONDS_MAX)


@pytest.fixture
def local() -> Iterator[Local]:
    parent = Path(tempfile.mkdtemp(prefix="hq-verbs-", dir=place_for_data()))
    parent.chmod(0o711)
    made = Local(parent / "local")
    yield made
    made.embedded.stop(force=True)
    shutil.rmtree(parent)


def status_of(url: str) -> int:
    with Client(url) as client:
        try:
            return client.get("/readyz").status
        except Unreachable:
            return 0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def socket_directory(embedded: EmbeddedPostgres) -> Path:
    return Path(embedded.psql_command()[2])


def test_a_database_that_a_service_uses_is_stopped_by_force_only(local: Local) -> None:
    with local.service() as (service, url):
        named = f"the service at {url} (process {service.pid})"
        for verb in ("stop", "reset --yes"):
            refused = local.hq("db", *verb.split())
            assert refused.returncode == 1
            assert refused.stderr.startswith(f"Error: The embedded database is used by {named}.")
            assert "Ctrl-C in its terminal" in refused.stderr
            assert f"kill {service.pid}" in refused.stderr
            assert ("`hq db stop --force`" in refused.stderr) == (verb == "stop")
        assert f"used by:   {named}\n" in local.hq("db", "status").stdout
        assert status_of(url) == 200

        forced = local.hq("db", "stop", "--force")
        assert forced.stdout == "The embedded database is stopped.\n"
        assert status_of(url) == 503
        again = local.hq("db", "stop")
        assert (again.returncode, again.stdout) == (0, "The embedded database was not running.\n")


def test_a_database_that_was_started_explicitly_outlasts_the_services(local: Local) -> None:
    with local.service():
        assert local.hq("db", "start").returncode == 0
    assert (
        "running:   yes, until `hq db stop`\nused by:   nobody\n" in local.hq("db", "status").stdout
    )
    assert local.hq("db", "migrate").returncode == 0
    assert local.embedded.status().is_running

    assert local.hq("db", "stop").stdout == "The embedded database is stopped.\n"
    assert local.hq("db", "migrate").returncode == 0
    assert not local.embedded.status().is_running, "that start was of the stopped one"
    assert not socket_directory(local.embedded).exists()


def test_a_service_that_does_not_come_up_leaves_no_database_behind(local: Local) -> None:
    refused = local.hq("serve", "--port", "65535", HQ_LOG_LEVEL="LOUD")
    assert refused.returncode == 1
    assert "HQ_LOG_LEVEL" in refused.stderr
    assert not local.embedded.status().is_running


@pytest.mark.parametrize("verb", [("serve", "--port", "65535"), ("db", "init"), ("keys", "list")])
def test_a_wrong_setting_is_said_before_any_database_is_made(
    local: Local, verb: tuple[str, ...]
) -> None:
    refused = local.hq(*verb, HQ_WORKERS="abc")
    assert refused.returncode == 1
    assert "HQ_WORKERS must be a whole number" in refused.stderr
    assert not local.directory.exists(), "nothing was made or started for it"


def test_reset_asks_first_and_then_deletes_what_is_ours(local: Local) -> None:
    local.embedded.start(stays=True)
    secret = local.embedded.secret("number-secret")
    (local.directory / DEMO_KEYS_FILE).write_text("{}")
    foreign = [local.directory / "notes.txt", local.directory / "secrets/of-somebody-else"]
    for path in foreign:
        path.write_text("keep me")

    for said in ("n\n", ""):
        kept = local.hq("db", "reset", said=said)
        assert kept.returncode == 1
        assert f"Delete every balance, lock, secret and key in {local.directory}?" in kept.stdout
    assert local.embedded.status().is_running
    assert local.embedded.secret("number-secret") == secret

    place = socket_directory(local.embedded)
    done = local.hq("db", "reset", said="y\n")
    assert f"The embedded database is deleted; it was in {local.directory}.\n" in done.stdout
    assert not place.exists()
    assert sorted(path for path in local.directory.rglob("*") if path.is_file()) == foreign
    for path in foreign:
        path.unlink()
    (local.directory / "secrets").rmdir()

    none = local.hq("db", "reset", "--yes")
    assert none.stdout == f"There is no embedded database in {local.directory}.\n"
    local.embedded.start()
    assert local.embedded.secret("number-secret") != secret
    assert local.hq("db", "reset", "--yes").returncode == 0
    assert not local.directory.exists()


@pytest.mark.parametrize("verb", ["start", "stop", "stop --force", "reset --yes"])
def test_verbs_about_the_embedded_database_refuse_beside_another(local: Local, verb: str) -> None:
    refused = local.hq("db", *verb.split(), DATABASE_URL=ELSEWHERE)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: DATABASE_URL is set")
    name = verb.split()[0]
    assert re.search(rf"env -u DATABASE_URL \S.* db {name}\.$", refused.stderr.rstrip())
    assert not local.directory.exists()


def test_the_status_says_that_another_database_is_used(local: Local) -> None:
    told = local.hq("db", "status", DATABASE_URL=ELSEWHERE)
    assert told.returncode == 0
    assert told.stdout.startswith("DATABASE_URL is set: the service uses that database")
    assert f"data:      {local.embedded.status().data_directory}" in told.stdout
    assert PASSWORD not in told.stdout


def test_a_session_uses_the_embedded_database_while_it_lasts(local: Local) -> None:
    session = local.start("db", "psql")
    wait_until(lambda: bool(local.embedded.users()))
    refused = local.hq("db", "stop")
    assert f"used by `hq db psql` (process {session.pid})" in refused.stderr

    output, errors = session.communicate("SELECT 6 * 7 AS answer;\n", timeout=SECONDS_MAX)
    assert " 42\n" in output, errors
    assert session.returncode == 0
    assert not local.embedded.status().is_running
    assert not socket_directory(local.embedded).exists()


def test_a_session_is_on_database_url_if_that_is_set(local: Local) -> None:
    with ThrowawayPostgres() as postgres:
        url = postgres.create_database("shop")
        opened = local.hq(
            "db", "psql", said="SELECT current_database() AS name;\n", DATABASE_URL=url
        )
    assert " shop\n" in opened.stdout, opened.stderr
    assert not local.directory.exists()


def test_the_password_of_database_url_is_on_no_command_line(local: Local, tmp_path: Path) -> None:
    # In the place of psql: a program that tells how it was called.
    program = tmp_path / "psql"
    program.write_text('#!/bin/sh\necho "called with: $*"\nenv\n')
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    url = (
        f"postgresql://hq:{PASSWORD}@database.invalid:6432/shop"
        "?sslmode=require&keepalives=1&target_session_attrs=read-write"
    )
    opened = local.hq("db", "psql", DATABASE_URL=url, PATH=path)
    called, *variables = opened.stdout.splitlines()
    assert called == "called with: keepalives=1"
    expected = {
        "PGHOST": "database.invalid",
        "PGPORT": "6432",
        "PGDATABASE": "shop",
        "PGUSER": "hq",
        "PGPASSWORD": PASSWORD,
        "PGSSLMODE": "require",
        "PGTARGETSESSIONATTRS": "read-write",
    }
    assert {f"{name}={value}" for name, value in expected.items()} <= set(variables)

    for wrong, told in (
        (f"{url}&sslpassword=s3cr3t", "holds sslpassword"),
        (f"postgresql://hq:{PASSWORD}@h/shop?colour={PASSWORD}", "cannot be read by psql"),
    ):
        refused = local.hq("db", "psql", DATABASE_URL=wrong, PATH=path)
        assert refused.returncode == 1
        assert told in refused.stderr
        assert PASSWORD not in refused.stderr
        assert "s3cr3t" not in refused.stderr
