"""The PostgreSQL of a test session: gone with the process that made it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from hq_service.embedded_postgres.account import account_for
from hq_service.embedded_postgres.errors import EmbeddedPostgresError
from hq_service.embedded_postgres.processes import ended_within
from hq_service.embedded_postgres.programs import program_environment
from hq_service.embedded_postgres.server import (
    DATABASE,
    SETTINGS,
    SOCKET_PARENT,
    STOP_SECONDS_MAX,
    Server,
)

_DURABILITY_OFF: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


class ThrowawayPostgres:
    """A server for tests that is gone when the process is, even after kill -9.

        with ThrowawayPostgres() as postgres:
            engine = create_engine(postgres.url)

    Data and socket are in one short, private directory under `parent`.
    """

    def __init__(
        self,
        parent: Path = SOCKET_PARENT,
        *,
        settings: Mapping[str, str] | None = None,
        fsync: bool = False,
    ) -> None:
        """Describe the server.

        With `fsync=True` the server is as durable as a real one: for tests that kill it.
        `settings` are server settings and win over the defaults.
        """
        self._parent = parent
        self._fsync = fsync
        self._settings = {**SETTINGS, **({} if fsync else _DURABILITY_OFF), **(settings or {})}
        self._made: Server | None = None
        self._keeper: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        directory = Path(tempfile.mkdtemp(prefix="hqtest-", dir=self._parent)).resolve()
        data = directory / "data"
        try:
            account = account_for(None)
            if account.is_other:
                os.chown(directory, account.user_id, account.group_id)
            self._made = Server(account, data, directory, directory / "log", self._settings)
            self._made.initialise(is_durable=self._fsync)
            self.start()
        except BaseException:
            self._end_keeper("keep")
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end_keeper("")
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def directory(self) -> Path:
        """The directory that holds data, socket and log."""
        return self._server.socket_directory

    @property
    def log_file(self) -> Path:
        """What the server logs; gone with the server."""
        return self._server.log_file

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the database `hq`."""
        return self._server.url()

    def create_database(self, name: str, template: str = "template1") -> str:
        """Create a database unless it exists, and return its URL.

        A copy of a migrated template takes 0.05 s. Never drop one: the server goes anyway.
        """
        self._server.create_database(name, template)
        return self._server.url(name)

    def start(self) -> None:
        """Start the server again after `stop()` or `kill()`; returns when it answers."""
        self._server.bring_up(self._launch)
        self._server.create_database(DATABASE)

    def stop(self) -> None:
        """Stop the server in an orderly way and keep the data."""
        self._end_keeper("keep")

    def kill(self) -> None:
        """Kill the server's first process with -9, as a crash would; the data stays."""
        pid = self._server.postmaster_pid()
        if pid is None:
            raise EmbeddedPostgresError("The throwaway server does not run: start() it first.")
        os.kill(pid, signal.SIGKILL)
        ended_within(pid, STOP_SECONDS_MAX)

    def _launch(self, server: Server) -> int:
        """Start the server beside a keeper that ends it with this process; return its pid.

        The keeper reads from a pipe. When this process dies, however it does, the pipe closes
        without a word: the keeper stops the server and removes the directory. Unlike Linux's
        death signal this works on macOS too, and from a thread that ends before the process.
        """
        self._end_keeper("keep")
        script = (
            '"$@" </dev/null >>"$0/log" 2>&1 & echo $!; exec >/dev/null; word=$(cat);'
            ' kill -INT $! 2>/dev/null; wait $!; [ "$word" = keep ] || rm -rf "$0"'
        )
        user, group, extra_groups = server.account.identity()
        shell = [*server.account.prefix, "/bin/sh", "-c", script]
        self._keeper = subprocess.Popen(
            [*shell, server.socket_directory, *server.command()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env=program_environment(),
            umask=0o077,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=extra_groups,
        )
        assert self._keeper.stdout is not None
        return int(self._keeper.stdout.readline())

    @property
    def _server(self) -> Server:
        if self._made is None:
            raise EmbeddedPostgresError("Use the throwaway server in a `with` statement.")
        return self._made

    def _end_keeper(self, word: str) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        try:
            keeper.communicate(word, timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.communicate()
            raise EmbeddedPostgresError(
                f"The throwaway server did not stop within {STOP_SECONDS_MAX} s; see"
                f" {self.log_file}, end it by hand, and remove {self.directory}."
            ) from None
