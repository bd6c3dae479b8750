"""Measure the service: ``python -m benchmarks``, or ``make bench`` and ``make bench-quick``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import balance, batches, beside, denied, lock, machine, redeem, report, scale
from benchmarks.cards import fill, free
from benchmarks.checks import baselines_of, check
from benchmarks.company import settings_of
from benchmarks.floors import FloorFailed
from benchmarks.load import LoadFailed
from benchmarks.measuring import Figures, Part, Stage
from benchmarks.postgres import Server, Unmeasurable, open_server
from benchmarks.processes import UnreadableProcesses
from benchmarks.ratios import BARS, ratios_of
from benchmarks.servers import ServerFailed
from benchmarks.sizes import FULL, QUICK, Sizes
from hq_service.embedded_postgres import EmbeddedPostgresError
from hq_service.settings import SettingsError

PARTS: tuple[Part, ...] = (
    balance.PART,
    lock.PART,
    denied.PART,
    redeem.PART,
    batches.PART,
    beside.PART,
    scale.PART,
)
RESULTS = Path(__file__).resolve().parent / "results"

BROKEN_OFF = (
    *(FloorFailed, LoadFailed, UnreadableProcesses, ServerFailed),
    *(TimeoutError, psycopg.Error),
)
"""What ends a part and no other."""


class Progress:
    """Tells on standard error what is being measured, with the seconds since the run began."""

    def __init__(self) -> None:
        self._begun_at = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the run has taken so far."""
        return time.monotonic() - self._begun_at

    def __call__(self, text: str) -> None:
        """Tell one line."""
        print(f"{self.seconds:7.1f} s  {text}", file=sys.stderr, flush=True)


def _end_in_order(_signal: int, _frame: object) -> None:
    """Let SIGTERM end what was started, as Ctrl-C does."""
    sys.exit(128 + signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as the command line says; return the exit code: 1 if a check failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less work: under three minutes")
    parser.add_argument("--rounds", type=int, metavar="N", help="how many rounds")
    parser.add_argument(
        "--only",
        action="append",
        metavar="PART",
        choices=[part.name for part in PARTS],
        help=f"measure this part only; several times for several: "
        f"{', '.join(part.name for part in PARTS)}",
    )
    parser.add_argument(
        "--output", type=Path, help="where the result goes; default: benchmarks/results/latest.json"
    )
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else FULL
    if options.rounds is not None:
        sizes = replace(sizes, rounds=max(1, options.rounds))
    parts = [part for part in PARTS if not options.only or part.name in options.only]
    # A run of a few parts does not take the place of one with all the ratios.
    default = RESULTS / ("only.json" if options.only else "latest.json")
    return run(parts, sizes, options.output or default)


def run(parts: Sequence[Part], sizes: Sizes, output: Path) -> int:
    """Measure some parts, check each, print the table and write the result.

    Returns: the exit code: 0, or 1 if something that was measured is not what it should be.
    """
    tell = Progress()
    try:
        with open_server(os.environ) as server:
            result = _measured(server, parts, sizes, tell)
    except (Unmeasurable, EmbeddedPostgresError, SettingsError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    report.write(result, output)
    print(report.table_of(result))
    print(f"Written to {output}.")
    return 1 if result["faults"] else 0


def _measured(
    server: Server, parts: Sequence[Part], sizes: Sizes, tell: Progress
) -> dict[str, Any]:
    measured_at, machine_before = datetime.now(UTC), machine.machine()
    database = fill(server, sizes.instruments, sizes.numbered_instruments, tell)
    settings = settings_of(database.url)
    stage = Stage(server, database, sizes, settings, tell, [database])
    told: dict[str, Any] = {}
    ratios: dict[str, dict[str, Any]] = {}
    for part in parts:
        tell(part.title)
        rounds, checked = _run_part(stage, part)
        if len(rounds) < sizes.rounds:
            continue
        told[part.name] = {
            "title": part.title,
            "ways": report.summary_of(rounds),
            "checks": checked,
        }
        ratios |= ratios_of(part, rounds)
    for one in stage.databases:
        one.connection.close()
    return {
        "measured_at": measured_at.isoformat(),
        "seconds": tell.seconds,
        "rounds": sizes.rounds,
        "sizes": asdict(sizes),
        "machine": machine_before,
        "versions": machine.versions(),
        "servers": machine.service_settings(settings.workers, settings.threads),
        "postgresql": dict(server.settings),
        "ratios": {name: ratios[name]["value"] for name in BARS if name in ratios},
        "ratio_details": {name: ratios[name] for name in BARS if name in ratios},
        "parts": told,
        "warnings": stage.warnings,
        "faults": stage.faults,
    }


def _run_part(stage: Stage, part: Part) -> tuple[list[dict[str, Figures]], dict[str, Any]]:
    """Measure all ways of a part in turn, round after round; check when its servers have ended."""
    for database in stage.databases:
        free(database)
    before, rounds = baselines_of(stage), []
    try:
        with part.ways(stage) as ways:
            for turn in range(1, stage.sizes.rounds + 1):
                figures: dict[str, Figures] = {}
                for name, measure in ways.items():
                    figures[name] = measure()
                    told = report.progress_of(name, figures[name])
                    stage.tell(f"{turn}/{stage.sizes.rounds}  {told}")
                rounds.append(figures)
    except BROKEN_OFF as error:
        stage.faults.append(f"{part.name}: broken off: {error}")
    return rounds, check(stage, part.name, before)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end_in_order)
    sys.exit(main())
