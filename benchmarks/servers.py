"""The HTTP servers that are measured: gunicorn with exactly the service's own settings."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from benchmarks.company import environment_of
from benchmarks.processes import children_of, wait_for, wait_until_still

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = ROOT / "hq_service" / "server.py"
HOST = "127.0.0.1"
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 40.0

SERVICE = ""
"""The service itself, as the configuration names it."""
BARE_WSGI = "benchmarks.hello:bare"
FLASK_HELLO = "benchmarks.hello:flask_hello"
TEXTBOOK = "benchmarks.textbook:from_environment()"


class ServerFailed(Exception):
    """A server ended when it should have started; the message holds its last words."""


class HttpServer:
    """One gunicorn with its workers, started as `hq serve` does, on a database.

    ``application`` is what it serves instead of the service; all else is the same.
    """

    def __init__(self, url: str, application: str = SERVICE) -> None:
        self.port = _free_port()
        self.application = application
        self._environment = {**environment_of(url), "HQ_BIND": f"{HOST}:{self.port}"}
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        self._master: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        named = [self.application] if self.application else []
        self._master = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", str(CONFIGURATION), *named],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        master, self._master = self._master, None
        if master is not None:
            master.terminate()
            try:
                master.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                # Nobody else is in its group.
                os.killpg(master.pid, signal.SIGKILL)
                master.wait()
        self._log.close()

    @property
    def pid(self) -> int:
        """The process whose descendants all workers are."""
        assert self._master is not None
        return self._master.pid

    def worker_pids(self) -> list[int]:
        """Return the processes that answer."""
        return children_of(self.pid)

    def wait_until_it_listens(self) -> None:
        """Return when connections are taken.

        Raises:  TimeoutError; ServerFailed with the last words of one that ended.
        """

        def listens() -> bool:
            assert self._master is not None
            if self._master.poll() is not None:
                raise ServerFailed(f"{self.application or 'the service'}: {self._last_words()}")
            with socket.socket() as probe:
                return probe.connect_ex((HOST, self.port)) == 0

        wait_for(listens, f"start of {self.application or 'the service'}", START_SECONDS_MAX)

    def _last_words(self) -> str:
        self._log.seek(0)
        return self._log.read()[-2_000:].decode(errors="replace")


@contextmanager
def started(*servers: HttpServer) -> Iterator[Sequence[HttpServer]]:
    """Start servers side by side; they have come to rest when this gives them."""
    with ExitStack() as stack:
        for server in servers:
            stack.enter_context(server)
        for server in servers:
            server.wait_until_it_listens()
        wait_until_still([server.pid for server in servers])
        yield servers


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
