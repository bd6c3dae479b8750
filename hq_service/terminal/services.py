"""The service that a demo plays on: a given one, the one that runs here, or one of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from hq_service.terminal.client import Client, Unreachable

READY_SECONDS_MAX = 120
# It finishes requests first, and then stops its database.
STOP_SECONDS_MAX = 90
PROBE_SECONDS_MAX = 3
LOG_LINES_SHOWN = 20

_API_KEY = re.compile(r"hq_([a-z0-9]{12})_[A-Za-z0-9_-]+")


class Service:
    """A running service. ``log`` is what it prints, if it is our own child."""

    def __init__(self, url: str, log: Path | None = None) -> None:
        self.url = url
        self._log = log

    def show_log(self) -> None:
        """Print the last lines of the service's log, without the API keys in it."""
        if self._log is None:
            return
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        click.echo("\nThe service's last words:")
        for line in lines[-LOG_LINES_SHOWN:]:
            click.echo(f"  {_API_KEY.sub(r'hq_\1_***', line)}")


@contextmanager
def chosen(url: str | None, port: int) -> Iterator[Service]:
    """Give the service at ``url``; without one, the service on this port, or one just started."""
    if url is not None:
        yield Service(url)
        return
    here = f"http://127.0.0.1:{port}"
    if _is_ready(here) is None:
        with _started() as service:
            yield service
        return
    click.echo(f"Playing on the service at {here}.")
    yield Service(here)


def _is_ready(url: str) -> bool | None:
    """Tell whether the service at an address is ready; None if it is none of ours."""
    with Client(url, seconds_max=PROBE_SECONDS_MAX) as client:
        try:
            answer = client.get("/readyz")
        except Unreachable:
            return None
    # Others have a /readyz, too; only ours says what it checked.
    return answer.status == 200 if isinstance(answer.at("checks"), dict) else None


@contextmanager
def _started() -> Iterator[Service]:
    """Give a service of our own on a free port; it ends with the block."""
    with tempfile.NamedTemporaryFile(prefix="hq-demo-", suffix=".log") as log:
        port = _free_port()
        service = Service(f"http://127.0.0.1:{port}", Path(log.name))
        process = _start(port, log)
        try:
            _wait_until_ready(service, process)
            yield service
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _start(port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    # HQ_BIND would win over the port.
    environment = {name: value for name, value in os.environ.items() if name != "HQ_BIND"}
    return subprocess.Popen(
        [sys.executable, "-m", "hq_service", "serve", "--port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        # Ctrl-C must reach the demo alone, which needs the service to put the parameters back.
        start_new_session=True,
    )


def _wait_until_ready(service: Service, process: subprocess.Popen[bytes]) -> None:
    click.echo(f"Starting a service of its own at {service.url} (at most {READY_SECONDS_MAX} s) ", nl=False)
    deadline = time.monotonic() + READY_SECONDS_MAX
    next_dot_at = 0.0
    while not _is_ready(service.url):
        if process.poll() is not None:
            click.echo()
            service.show_log()
            raise click.ClickException("The service ended before it was ready; see above.")
        if time.monotonic() > deadline:
            click.echo()
            service.show_log()
            raise click.ClickException(f"No service was ready within {READY_SECONDS_MAX} s.")
        if time.monotonic() >= next_dot_at:
            click.echo(".", nl=False)
            next_dot_at = time.monotonic() + 1
        time.sleep(0.1)
    click.echo(" ready.")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End our own child, and wait, so that its database is at rest before we end."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        click.echo(f"The service (process {process.pid}) does not stop: killing it.", err=True)
        process.kill()
        process.wait()
