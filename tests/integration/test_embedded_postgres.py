"""The embedded PostgreSQL, with real processes and real crashes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from hq_service.embedded_postgres import (
    BinariesNotFoundError,
    EmbeddedPostgres,
    EmbeddedPostgresError,
    ThrowawayPostgres,
    programs,
)
from hq_service.embedded_postgres.processes import runs
from hq_service.embedded_postgres.users import USERS_FD_VARIABLE
from tests.support import place_for_data

JOINED_THEN_EXEC = """
import os, sys
from pathlib import Path
from hq_service.embedded_postgres import EmbeddedPostgres
if sys.argv[2] == "first":
    embedded = EmbeddedPostgres(Path(sys.argv[1]))
    embedded.join("the test")
    embedded.start()
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[3], sys.argv[1], "then", ""])
print("ready", flush=True)
sys.stdin.readline()
print(EmbeddedPostgres(Path(sys.argv[1])).leave())
"""
STARTED = """
import sys
from pathlib import Path
from hq_service.embedded_postgres import EmbeddedPostgres
print(EmbeddedPostgres(Path(sys.argv[1])).start())
"""
SECRET_ASKED = """
import sys
from pathlib import Path
from hq_service.embedded_postgres import EmbeddedPostgres
print(EmbeddedPostgres(Path(sys.argv[1])).secret("number").hex())
"""
THROWAWAY_HELD = """
import sys
from hq_service.embedded_postgres import ThrowawayPostgres
with ThrowawayPostgres() as postgres:
    print(postgres.directory, flush=True)
    sys.stdin.readline()
"""


@contextlib.contextmanager
def private_place() -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="hq-embedded-", dir=place_for_data()))
    parent.chmod(0o711)
    yield parent / "local"
    for made in parent.iterdir():
        EmbeddedPostgres(made).stop(force=True)
    shutil.rmtree(parent)


@pytest.fixture
def directory() -> Iterator[Path]:
    with private_place() as place:
        yield place


@pytest.fixture
def embedded(directory: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(directory)


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedPostgres]:
    """A cluster for the tests that do not care whether it is new: making one takes a second."""
    with private_place() as place:
        yield EmbeddedPostgres(place)


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def value(url: str, query: str) -> object:
    with connect(url) as connection:
        return connection.execute(query).fetchone()[0]


def socket_directory(embedded: EmbeddedPostgres) -> Path:
    return Path(embedded.psql_command()[2])


def recorded_pid(embedded: EmbeddedPostgres) -> int:
    pid_file = embedded.status().data_directory / "postmaster.pid"
    return int(pid_file.read_text().splitlines()[0])


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_second_start_finds_what_the_first_one_kept(embedded):
    with connect(embedded.start()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert embedded.status().is_running
    embedded.stop()
    assert not embedded.status().is_running

    assert value(embedded.start(), "SELECT answer FROM kept") == 42


def test_the_server_listens_on_no_port_and_nobody_else_can_enter(shared):
    url = shared.start()

    assert value(url, "SHOW listen_addresses") == ""
    pid_file = shared.status().data_directory / "postmaster.pid"
    assert pid_file.read_text().splitlines()[5] == "", "the address the server listens on"
    data = shared.status().data_directory
    shared.secret("number")
    for private in (socket_directory(shared), data, data.parent, shared.directory / "secrets"):
        assert mode(private) == 0o700, private
    assert mode(shared.directory) & 0o066 == 0


def test_the_server_is_durable_and_independent_of_the_machine(shared):
    url = shared.start()

    settings = ("fsync", "synchronous_commit", "full_page_writes", "data_checksums", "timezone")
    assert [value(url, f"SHOW {name}") for name in settings] == ["on", "on", "on", "on", "UTC"]
    assert value(url, "SELECT datcollate FROM pg_database WHERE datname = 'hq'").startswith("C")


def test_simultaneous_first_starts_make_one_cluster(directory):
    started = [python(STARTED, directory) for _ in range(4)]
    urls = {process.communicate()[0].strip() for process in started}

    assert [process.returncode for process in started] == [0, 0, 0, 0]
    assert len(urls) == 1
    log = EmbeddedPostgres(directory).status().log_file.read_text()
    assert log.count("ready to accept connections") == 1


def test_a_path_of_200_characters_with_spaces_and_quotes_works(directory):
    strange = 'it\'s a "shop" $HOME; 100 % '
    embedded = EmbeddedPostgres(directory.parent / (strange + "x" * 170))

    assert value(embedded.start(), "SELECT 1") == 1
    psql = [*embedded.psql_command(), "-Atc", "SELECT 2"]
    assert subprocess.run(psql, capture_output=True, text=True).stdout == "2\n"


def test_the_callers_locale_and_postgres_variables_do_not_matter(embedded, monkeypatch):
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")
    monkeypatch.setenv("LANG", "sv_SE.UTF-8")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")

    assert value(embedded.start(), "SHOW server_encoding") == "UTF8"


@pytest.mark.parametrize("left_behind", ["its own pid", "a zombie", "a stranger", "nothing"])
def test_starts_again_after_its_first_process_was_killed(shared, left_behind):
    kept = "kept_" + left_behind.replace(" ", "_")
    url = shared.start()
    with connect(url) as connection:
        connection.execute(f"CREATE TABLE {kept} AS SELECT 42 AS answer")
        os.kill(recorded_pid(shared), signal.SIGKILL)
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    stale = {"a zombie": str(zombie.pid), "a stranger": str(os.getpid())}.get(left_behind)
    data = shared.status().data_directory
    for lock_file in (data / "postmaster.pid", socket_directory(shared) / ".s.PGSQL.5432.lock"):
        if stale:
            rest = lock_file.read_text().split("\n", 1)[1]
            lock_file.write_text(f"{stale}\n{rest}")
        elif left_behind == "nothing":
            lock_file.write_text("")

    assert value(shared.start(), f"SELECT answer FROM {kept}") == 42
    zombie.wait()


def test_starts_again_after_its_socket_was_swept_away(shared):
    first = value(shared.start(), "SELECT pg_postmaster_start_time()")
    shutil.rmtree(socket_directory(shared))

    assert value(shared.start(), "SELECT pg_postmaster_start_time()") > first


def test_refuses_a_socket_directory_that_others_can_enter(shared):
    shared.start()
    shared.stop()
    place = socket_directory(shared)
    place.mkdir()
    place.chmod(0o777)

    with pytest.raises(EmbeddedPostgresError, match="not a private directory"):
        shared.start()
    place.rmdir()


def test_an_interrupted_initdb_is_not_taken_for_a_cluster(directory):
    first = python(STARTED, directory)
    wait_until(lambda: bool(list(directory.glob("pg*/data.partial-*/*"))))
    first.kill()
    first.communicate()
    embedded = EmbeddedPostgres(directory)
    assert not embedded.status().data_directory.exists()

    assert value(embedded.start(), "SELECT 1") == 1
    embedded.stop()
    embedded.start()
    assert not list(directory.glob("pg*/data.partial-*"))


def test_the_last_user_stops_the_server_and_not_before(directory):
    users = [python(JOINED_THEN_EXEC, directory, "first", JOINED_THEN_EXEC) for _ in range(3)]
    for user in users:
        assert user.stdout.readline() == "ready\n"
    embedded = EmbeddedPostgres(directory)

    assert users[0].communicate("leave\n")[0] == "False\n"
    assert embedded.status().is_running, "two others use it"
    users[1].kill()
    users[1].communicate()
    assert embedded.status().is_running, "nobody left in an orderly way"
    assert users[2].communicate("leave\n")[0] == "True\n"
    assert not embedded.status().is_running


def test_joining_twice_counts_once_and_leaving_without_joining_is_nothing(shared, monkeypatch):
    monkeypatch.delenv(USERS_FD_VARIABLE, raising=False)
    assert not shared.leave()
    shared.start()

    assert shared.join("the test") == shared.join("the test")
    assert shared.leave()
    assert USERS_FD_VARIABLE not in os.environ
    assert not shared.leave()


def test_whoever_uses_the_server_is_known_by_name_until_it_ends(directory):
    embedded = EmbeddedPostgres(directory)
    assert embedded.users() == []
    users = [python(JOINED_THEN_EXEC, directory, "first", JOINED_THEN_EXEC) for _ in range(2)]
    for user in users:
        assert user.stdout.readline() == "ready\n"
    assert {user.pid for user in embedded.users()} == {user.pid for user in users}
    with pytest.raises(EmbeddedPostgresError) as caught:
        embedded.stop()
    for user in users:
        assert f"the test (process {user.pid})" in str(caught.value)
    users[0].kill()
    users[0].communicate()
    assert [str(user) for user in embedded.users()] == [f"the test (process {users[1].pid})"]

    assert users[1].communicate("leave\n")[0] == "True\n"
    assert embedded.users() == []
    assert not embedded.stop(), "it was stopped"


def test_a_server_that_was_started_to_stay_does(directory):
    embedded = EmbeddedPostgres(directory)
    embedded.start(stays=True)
    user = python(JOINED_THEN_EXEC, directory, "first", JOINED_THEN_EXEC)
    assert user.communicate("leave\n")[0] == "ready\nFalse\n"
    assert embedded.status().stays

    os.kill(recorded_pid(embedded), signal.SIGKILL)
    wait_until(lambda: not embedded.status().is_running)
    user = python(JOINED_THEN_EXEC, directory, "first", JOINED_THEN_EXEC)
    assert user.communicate("leave\n")[0] == "ready\nTrue\n", "that one was killed"
    assert not embedded.status().is_running


def test_a_stopped_server_leaves_nothing_in_tmp(directory):
    embedded = EmbeddedPostgres(directory)
    embedded.start()
    place = socket_directory(embedded)
    assert place.exists()
    embedded.stop()
    assert not place.exists()

    embedded.start()
    os.kill(recorded_pid(embedded), signal.SIGKILL)
    wait_until(lambda: not embedded.status().is_running)
    assert (place / ".s.PGSQL.5432").exists()
    embedded.stop()
    assert not place.exists(), "what a killed server left"


def test_an_interrupted_deletion_is_finished_by_the_next_one_or_by_a_start(directory):
    embedded = EmbeddedPostgres(directory)
    for finish in (embedded.delete, embedded.start):
        embedded.start()
        embedded.stop()
        data = embedded.status().data_directory
        data.rename(data.with_name("data.partial-deleted"))
        assert finish()
        assert not data.with_name("data.partial-deleted").exists()
    assert embedded.delete()
    assert not directory.exists()


def test_starts_and_deletions_at_once_do_not_trip_over_each_other(directory):
    embedded = EmbeddedPostgres(directory)
    for _ in range(3):
        started = [python(STARTED, directory) for _ in range(2)]
        while any(process.poll() is None for process in started):
            embedded.delete()
        for process in started:
            process.communicate()
            assert process.returncode == 0
        embedded.stop()
    embedded.delete()
    assert not directory.exists()


def test_a_secret_is_made_once_whoever_comes_first(directory):
    asked = [python(SECRET_ASKED, directory) for _ in range(5)]
    answers = {process.communicate()[0].strip() for process in asked}

    embedded = EmbeddedPostgres(directory)
    assert answers == {embedded.secret("number").hex()}
    assert mode(directory / "secrets/number") == 0o600
    assert embedded.secret("grants") != embedded.secret("number")
    with pytest.raises(EmbeddedPostgresError, match="32 bytes where 16 are asked"):
        embedded.secret("number", 16)
    with pytest.raises(ValueError, match="name"):
        embedded.secret("../number")


def test_without_binaries_the_error_names_three_remedies(monkeypatch):
    monkeypatch.delenv(programs.BINARIES_VARIABLE, raising=False)
    monkeypatch.setattr(programs, "_candidates", lambda: iter([Path("/nowhere")]))
    with pytest.raises(BinariesNotFoundError) as caught:
        programs.find_binaries()
    for remedy in ("DATABASE_URL", "HQ_PG_BIN", "install PostgreSQL"):
        assert remedy in str(caught.value)

    monkeypatch.setenv(programs.BINARIES_VARIABLE, "/nowhere")
    with pytest.raises(BinariesNotFoundError, match="HQ_PG_BIN=/nowhere holds no working"):
        programs.find_binaries()


def test_a_throwaway_server_ends_with_its_process_even_after_kill_9():
    holder = python(THROWAWAY_HELD)
    place = Path(holder.stdout.readline().strip())
    pid = int((place / "data/postmaster.pid").read_text().splitlines()[0])
    holder.kill()
    holder.communicate()

    wait_until(lambda: not place.exists())
    assert not runs(pid)


def test_a_throwaway_server_recovers_what_was_committed_before_a_kill():
    with ThrowawayPostgres(
        place_for_data(), fsync=True, settings={"max_connections": "20"}
    ) as postgres:
        with connect(postgres.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
            postgres.kill()
        postgres.start()

        assert value(postgres.url, "SELECT answer FROM kept") == 42
        assert value(postgres.url, "SHOW fsync") == "on"
        assert value(postgres.url, "SHOW max_connections") == "20"
        copy = postgres.create_database("copy", template="hq")
        assert value(copy, "SELECT answer FROM kept") == 42
    assert not postgres.directory.exists()
