"""``hq simulate``: the plan, a service to carry it out on, the tables, the report."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType

import click

from hq_service.simulation import progress, report, service
from hq_service.simulation.opening import SimulationFailed
from hq_service.simulation.result import Options, Result
from hq_service.simulation.run import plan_of, simulate

ADMIN_KEY_VARIABLE = "HQ_ADMIN_KEY"

Database = Callable[[], AbstractContextManager[str]]


def run(
    options: Options,
    url: str | None,
    report_path: Path | None,
    environ: Mapping[str, str],
    database: Database,
) -> bool:
    """Simulate on the service at ``url``, or on one of its own; return whether all agreed.

    ``database`` gives the URL of an empty database, and throws it away afterwards.

    Raises:  SimulationFailed.
    """
    if report_path is not None and not report_path.absolute().parent.is_dir():
        # Now, and not after all the minutes.
        raise SimulationFailed(f"There is no directory for {report_path}: make it first.")
    plan = plan_of(options)
    with _ended_in_order():
        if url is not None:
            result = simulate(plan, url, _admin_key(environ))
        else:
            with _own_service(database) as own:
                result = simulate(plan, own.url, own.admin_key)
    progress.show(result)
    if report_path is not None:
        _write(result, report_path)
    return result.is_as_expected


@contextmanager
def _own_service(database: Database) -> Iterator[service.OwnService]:
    click.echo("Starting a service for this run, on a database that is thrown away afterwards.")
    with (
        tempfile.TemporaryDirectory(prefix="hq-simulation-") as directory,
        database() as database_url,
        service.started(database_url, Path(directory)) as own,
    ):
        yield own


def _admin_key(environ: Mapping[str, str]) -> str:
    key = environ.get(ADMIN_KEY_VARIABLE, "").strip()
    if not key:
        raise SimulationFailed(
            f"{ADMIN_KEY_VARIABLE} is not set: with --url the simulation needs the key of an"
            " administrator of that service, to make stores and cards of its own."
        )
    return key


def _write(result: Result, path: Path) -> None:
    try:
        report.write(result, path)
    except OSError as error:
        raise SimulationFailed(f"{path} cannot be written: {error.strerror}.") from error
    click.echo(f"The report is in {path}.")


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM, like Ctrl-C, end the tills and the service before it ends us."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
