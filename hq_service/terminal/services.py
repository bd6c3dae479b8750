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
            click.echo("  " + _API_KEY.sub(r"hq_\1_***", line))


@contextmanager
def chosen(url: str | None, port: int) -> Iterator[Service]:
    """Give the service at ``url``; without one, the service on this port, or one just started."""
    address = url or f"http://127.0.0.1:{port}"
    try:
        with Client(address, seconds_max=PROBE_SECONDS_MAX) as client:
            is_ready = _is_ready(client)
    except Unreachable as error:
        if url is not None:
            raise click.ClickException(str(error)) from error
        is_ready = None
    if is_ready is None and url is None:
        click.echo(
            f"No service answers at {address} (PORT chooses another port): playing on one that is"
            " started just for this."
        )
        with _started() as service:
            yield service
        return
    if is_ready is None:
        raise click.ClickException(f"What answers at {address} is not this service.")
    if not is_ready:
        raise click.ClickException(f"The service is not ready; {address}/readyz says why.")
    click.echo(f"Playing on the service that runs at {address}.")
    yield Service(address)


def _is_ready(client: Client) -> bool | None:
    """Tell whether the service is ready; None if it is none of ours.

    Raises:  Unreachable.
    """
    answer = client.get("/readyz")
    # Others have a /readyz, too; only ours says what it checked, or that the database is away.
    is_ours = isinstance(answer.at("checks"), dict) or answer.at("type") == "/problems/unavailable"
    return answer.status == 200 if is_ours else None


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
            click.echo(f"The service at {service.url} has ended, as it was started just for this.")


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
    """Wait, with a dot for every second.

    Raises:  click.ClickException when the service ends, or time is up, with its last words shown.
    """
    click.echo(f"Starting a service at {service.url}, in at most {READY_SECONDS_MAX} s ", nl=False)
    started_at = time.monotonic()
    dots = 0
    with Client(service.url, seconds_max=PROBE_SECONDS_MAX) as client:
        while not _answers_ready(client):
            waited_seconds = time.monotonic() - started_at
            has_ended = process.poll() is not None
            if has_ended or waited_seconds > READY_SECONDS_MAX:
                click.echo()
                service.show_log()
                why = "ended" if has_ended else f"was not ready within {READY_SECONDS_MAX} s"
                raise click.ClickException(f"The service {why}; its last words are above.")
            if waited_seconds >= dots:
                click.echo(".", nl=False)
                dots += 1
            time.sleep(0.1)
    click.echo(" ready.")


def _answers_ready(client: Client) -> bool:
    try:
        return _is_ready(client) is True
    except Unreachable:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End our own child, and wait, so that its database is at rest before we end."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        click.echo(f"The service (process {process.pid}) does not stop: killing it.", err=True)
        process.kill()
        process.wait()
