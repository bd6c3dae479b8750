"""A service of the simulation's own: the real programs, on a database that is thrown away."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hq_service.simulation.opening import SimulationFailed
from hq_service.terminal.client import Client, Unreachable
from hq_service.terminal.services import Service

READY_SECONDS_MAX = 60
# It finishes requests first.
STOP_SECONDS_MAX = 40
THREADS = 8


@dataclass(frozen=True, slots=True)
class OwnService:
    """A service that runs, and an administrator's key for it."""

    url: str
    admin_key: str = field(repr=False)


@contextmanager
def started(database_url: str, directory: Path) -> Iterator[OwnService]:
    """Prepare an empty database, serve on it, and end the service with the block.

    ``directory`` is for its log.

    Raises:  SimulationFailed, when the service's last words are printed.
    """
    environment = _environment(database_url)
    _run_verb(environment, "db", "init")
    administrator = ("keys", "create", "--role", "admin", "--label", "simulation")
    admin_key = _run_verb(environment, *administrator).strip()
    port = _free_port()
    log = directory / "service.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_HQ, "serve", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            # Ctrl-C must reach the simulation alone, whose tills need the service to the end.
            start_new_session=True,
        )
    service = Service(f"http://127.0.0.1:{port}", log)
    try:
        _wait_until_ready(service, process)
        yield OwnService(service.url, admin_key)
    finally:
        _stop(process)


_HQ = (sys.executable, "-m", "hq_service")


def _environment(database_url: str) -> dict[str, str]:
    """Return what the service is to know: nothing of another one's settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HQ_")}
    return {
        **inherited,
        "DATABASE_URL": database_url.replace("postgresql+psycopg://", "postgresql://", 1),
        "HQ_NUMBER_SECRET": secrets.token_hex(32),
        "HQ_GRANT_KEYS": f"k1:{secrets.token_hex(32)}",
        "HQ_THREADS": str(THREADS),
    }


def _run_verb(environment: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [*_HQ, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        verb = " ".join(arguments[:2])
        raise SimulationFailed(f"`hq {verb}` failed for the simulation's service: {done.stderr}")
    return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait_until_ready(service: Service, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    with Client(service.url) as client:
        while not _is_ready(client):
            if process.poll() is not None or time.monotonic() > deadline:
                service.show_log()
                raise SimulationFailed("The simulation's service did not start; see above.")
            time.sleep(0.1)


def _is_ready(client: Client) -> bool:
    try:
        return client.get("/readyz").status == 200
    except Unreachable:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
