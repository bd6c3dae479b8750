"""The service as it runs in production, gunicorn and all, for tests that kill it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import GRANT_KEYS, NUMBER_SECRET, psycopg_url

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIGURATION = ROOT / "hq_service" / "server.py"
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """What came back for a request; ``status`` 0 when the connection failed instead."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    failure: str = ""

    @property
    def is_lost(self) -> bool:
        return self.status == 0

    @property
    def is_replay(self) -> bool:
        return self.headers.get("idempotency-replayed") == "true"


def environment(database_url: str, **settings: str) -> dict[str, str]:
    """Return the environment of a service that knows the secrets of the tests."""
    keys = ",".join(f"{name}:{secret.hex()}" for name, secret in GRANT_KEYS.masters.items())
    return {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": psycopg_url(database_url),
        "HQ_NUMBER_SECRET": NUMBER_SECRET.hex(),
        "HQ_GRANT_KEYS": keys,
        "HQ_WORKERS": "2",
        **settings,
    }


def run_hq(environ: Mapping[str, str], *arguments: str) -> str:
    """Run the command line and return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "hq_service", *arguments],
        cwd=ROOT,
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class RunningService:
    """One gunicorn with its workers, in a process group of its own.

    with RunningService(environment(url), tmp_path / "log") as service:
        service.post(...)
    """

    def __init__(self, environ: Mapping[str, str], log_file: Path) -> None:
        self.port = _free_port()
        self.environ = {**environ, "HQ_BIND": f"127.0.0.1:{self.port}"}
        self.log_file = log_file
        self.master: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RunningService:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start as `hq serve` would, and return when the service is ready."""
        with self.log_file.open("ab") as log:
            self.master = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--config", str(CONFIGURATION)],
                cwd=ROOT,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait_until_ready()

    def kill(self) -> None:
        """End master and workers with SIGKILL, all at once."""
        master, self.master = self.master, None
        if master is None:
            return
        # Nobody else is in the group, and nobody can be while the master is not waited for.
        os.killpg(master.pid, signal.SIGKILL)
        master.wait(PATIENCE_SECONDS)
        wait_until(lambda: self.get("/healthz").is_lost, "end of all workers")

    def workers(self) -> list[int]:
        """Return the process ids of the live workers."""
        assert self.master is not None
        return [pid for pid, parent in _processes().items() if parent == self.master.pid]

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.master is not None
            assert self.master.poll() is None, self.log_file.read_text()[-4_000:]
            return self.get("/readyz").status == 200

        wait_until(is_ready, f"readiness, see {self.log_file}")

    def get(self, path: str, key: str = "") -> Answer:
        return self._ask("GET", path, key, None)

    def post(self, path: str, key: str, body: bytes) -> Answer:
        return self._ask("POST", path, key, body)

    def _ask(self, method: str, path: str, key: str, body: bytes | None) -> Answer:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, path, body, headers)
            with connection.getresponse() as response:
                read = response.read()
                named = {name.lower(): value for name, value in response.getheaders()}
                return Answer(response.status, named, json.loads(read))
        except TimeoutError as error:
            raise AssertionError(f"{method} {path} was not answered") from error
        except (OSError, http.client.HTTPException) as error:
            return Answer(0, failure=type(error).__name__)
        finally:
            connection.close()


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Ask again and again; fail when patience ends."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"no {what} within {PATIENCE_SECONDS} s"
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _processes() -> dict[int, int]:
    """Return the parent of every process that is not a zombie."""
    if not Path("/proc/self/stat").exists():
        columns = ["ps", "-A", "-o", "pid=,ppid=,stat="]
        listed = subprocess.run(columns, capture_output=True, text=True, check=True).stdout
        rows = [line.split() for line in listed.splitlines()]
        return {int(pid): int(parent) for pid, parent, state in rows if state[0] != "Z"}
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text(errors="replace").rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if state not in "ZX":
            found[int(status.parent.name)] = int(parent)
    return found
