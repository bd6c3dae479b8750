"""One server over one data directory: made, started, asked, stopped."""

from __future__ import annotations

import contextlib
import enum
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from hq_service.embedded_postgres.account import Account
from hq_service.embedded_postgres.errors import EmbeddedPostgresError
from hq_service.embedded_postgres.files import synchronise_directory
from hq_service.embedded_postgres.places import DIRECTORY_VARIABLE
from hq_service.embedded_postgres.processes import command_line, dead_pid, ended_within, runs

# Generous: crash recovery replays whatever was written since the last checkpoint.
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60

DATABASE = "hq"
ROLE = "hq"
PORT = 5432
# Not $TMPDIR: on macOS that is so long that a socket in it exceeds the limit of 104 bytes.
SOCKET_PARENT = Path("/tmp")  # noqa: S108 - the directory in it is checked to be ours, mode 0700

# What a directory begins with that is no cluster yet, or no longer.
PARTIAL_DATA = "data.partial-"

_ORPHANS = "pre-existing shared memory block"

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": str(PORT),
    "shared_buffers": "128MB",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Answer(enum.Enum):
    """What a server says to a connection."""

    READY = "ready"
    NOT_NOW = "not now"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Server:
    """One cluster: its account, its files, its socket, and how to tell whether it lives."""

    account: Account
    data: Path
    socket_directory: Path
    log_file: Path
    settings: Mapping[str, str]

    def url(self, database: str = DATABASE) -> str:
        """Return the SQLAlchemy URL; the port is in it lest PGPORT of the caller decide."""
        return f"postgresql+psycopg://{ROLE}@/{database}?host={self.socket_directory}&port={PORT}"

    def connect(self, database: str) -> psycopg.Connection[TupleRow]:
        """Connect as the owner of everything."""
        return psycopg.connect(
            host=str(self.socket_directory),
            port=PORT,
            user=ROLE,
            dbname=database,
            connect_timeout=5,
            autocommit=True,
        )

    def command(self) -> list[str]:
        """Return the command line that runs the server."""
        settings = {**self.settings, "unix_socket_directories": str(self.socket_directory)}
        arguments = [f"{name}={value}" for name, value in settings.items()]
        flagged = [word for argument in arguments for word in ("-c", argument)]
        return [str(self.account.binaries / "postgres"), "-D", str(self.data), *flagged]

    def initialise(self, *, is_durable: bool) -> None:
        """Make the cluster if there is none yet."""
        # Left by an initdb or a reset that was interrupted: only the rename below makes a cluster.
        for abandoned in self.data.parent.glob(f"{PARTIAL_DATA}*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        if self.data.exists():
            return
        # Each time another name: an initdb outlives the kill -9 of who called it.
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL_DATA, dir=self.data.parent))
        if self.account.is_other:
            os.chown(partial, self.account.user_id, self.account.group_id)
        locale = ["--locale=C"]
        if self.account.major_version >= 17:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        made = self.account.run(
            self.account.binaries / "initdb",
            *("-D", partial, "-U", ROLE, "-E", "UTF8", "--auth=trust", "--data-checksums"),
            *("--no-instructions", *locale),
            *(() if is_durable else ("--no-sync",)),
        )
        if made.returncode:
            raise EmbeddedPostgresError(
                f"The database cluster could not be made in {self.data.parent}: "
                f"{made.stderr.strip() or made.stdout.strip()} Check that the disk has space, or"
                f" set {DIRECTORY_VARIABLE} to another directory."
            )
        partial.rename(self.data)
        synchronise_directory(self.data.parent)

    def answer(self) -> Answer:
        """Tell what this very cluster answers.

        A connection is the only proof: for pg_ctl and kill(pid, 0) a zombie lives, and so does
        a foreign process that got the same pid.
        """
        try:
            with self.connect("postgres") as connection:
                found = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError as error:
            # It recovers, or all its connections are taken; the server speaks English (LC_ALL=C).
            return Answer.NOT_NOW if "FATAL:" in str(error) else Answer.NONE
        is_this = found is not None and os.path.realpath(str(found[0])) == str(self.data)
        return Answer.READY if is_this else Answer.NONE

    def postmaster_pid(self) -> int | None:
        """Return the pid of the live server over this data directory, if there is one."""
        pid = self._recorded_pid()
        if pid is None or not runs(pid):
            return None
        is_ours = f" -D {self.data} -c " in command_line(pid)
        return pid if is_ours or self.answer() is Answer.READY else None

    def bring_up(self, launch: Callable[[Server], int]) -> None:
        """Launch the server unless it is just starting, and wait until it answers.

        The caller holds the start lock. `launch` returns the pid of the server.
        """
        deadline = time.monotonic() + START_SECONDS_MAX
        running = self.postmaster_pid()
        if running is not None and self.answer() is not Answer.NONE:
            if self._is_ready_before(deadline, running):
                return
            raise self._start_error("is not ready")
        while True:
            self._clear_stale_lock_files()
            logged_before = self.log_file.stat().st_size if self.log_file.exists() else 0
            if self._is_ready_before(deadline, launch(self)):
                return
            # Backends of a killed server end by themselves within moments; until then PostgreSQL
            # is right to refuse, because two servers would write to the same files.
            if _ORPHANS not in self._log_since(logged_before):
                raise self._start_error("did not start", logged_before)
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"A session of a killed database server still works on {self.data}. Wait for"
                    " its statement to end, or find it with `ps` and end it, then try again."
                )
            time.sleep(0.2)

    def _is_ready_before(self, deadline: float, pid: int) -> bool:
        """Wait for an answer; False when the process ended or time is up."""
        while runs(pid) and time.monotonic() < deadline:
            if self.answer() is Answer.READY:
                return True
            time.sleep(0.02)
        return False

    def create_database(self, name: str, template: str = "template1") -> None:
        """Create a database unless it exists."""
        with self.connect("postgres") as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
            if known.fetchone() is None:
                connection.execute(
                    sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                        sql.Identifier(name), sql.Identifier(template)
                    )
                )

    def shut_down(self) -> None:
        """Stop the server if it runs: sessions are cut, everything committed is on disk."""
        pid = self.postmaster_pid()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        if not ended_within(pid, STOP_SECONDS_MAX):
            raise EmbeddedPostgresError(
                f"The database server (process {pid}) did not stop within {STOP_SECONDS_MAX} s;"
                f" see {self.log_file}. `kill -QUIT {pid}` ends it without losing a commit."
            )

    def remove_socket(self) -> None:
        """Remove the socket and its directory; the server must not run."""
        # A killed server left its files.
        for path in (self._socket_lock_file(), self.socket_directory / f".s.PGSQL.{PORT}"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.socket_directory.rmdir()

    def _socket_lock_file(self) -> Path:
        return self.socket_directory / f".s.PGSQL.{PORT}.lock"

    def _recorded_pid(self) -> int | None:
        try:
            return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None

    def _clear_stale_lock_files(self) -> None:
        """Make the lock files of a server that is gone harmless; the caller holds the start lock.

        A zombie's pid, or one that another process got since, makes PostgreSQL refuse to start.
        """
        # If it lives after all it cannot be reached: somebody emptied /tmp under it.
        self.shut_down()
        self._socket_lock_file().unlink(missing_ok=True)
        lock_file = self.data / "postmaster.pid"
        if not lock_file.exists():
            return
        if self._recorded_pid() is None:
            # Cut short by a crash of the machine, which no backend can have outlived.
            lock_file.unlink()
            return
        # Not unlinked: the shared memory key in it keeps this server away from the files while
        # a backend of the killed one is still at work. Only the pid is replaced, by a dead one.
        rest = lock_file.read_text().split("\n", 1)[1]
        replacement = lock_file.with_name("postmaster.pid.new")
        replacement.write_text(f"{dead_pid()}\n{rest}")
        replacement.chmod(0o600)
        if self.account.is_other:
            os.chown(replacement, self.account.user_id, self.account.group_id)
        replacement.rename(lock_file)

    def _log_since(self, offset: int) -> str:
        with contextlib.suppress(FileNotFoundError), self.log_file.open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")
        return ""

    def _start_error(self, what: str, logged_before: int = 0) -> EmbeddedPostgresError:
        lines = self._log_since(logged_before).strip().splitlines()[-8:]
        said = "\n".join(["", *(f"    {line}" for line in lines)])
        return EmbeddedPostgresError(
            f"The database server {what}. Its last words are below, the whole log is"
            f" {self.log_file}. If the data is worthless, remove {self.data}; or set DATABASE_URL"
            f" to another PostgreSQL.{said}"
        )
