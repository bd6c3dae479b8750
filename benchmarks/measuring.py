"""One measured stretch of work: CPU of each part, time, WAL, latencies, and what went wrong."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import psutil

from benchmarks.floors import Floor
from benchmarks.load import Done, Job, Load
from benchmarks.postgres import Database, Server
from benchmarks.processes import busy_seconds, cpu_seconds
from benchmarks.servers import HttpServer
from benchmarks.sizes import Sizes
from hq_service.settings import Settings

OTHERS_SHARE_MAX = 0.10
LOAD_SHARE_MAX = 0.15

Figures = dict[str, float]
"""What was measured of one way in one round.

Units: ``per_second`` operations; ``service_us``, ``postgres_us``, ``load_us`` and ``total_us``
(the first two together) microseconds of CPU per operation; ``load_share`` and ``others_share``
parts of one; ``p50_ms``, ``p99_ms`` milliseconds; ``wal_bytes`` per operation.
"""

Way = Callable[[], Figures]
"""Something to measure: does its fixed work once."""

Round = Mapping[str, Figures]
"""The figures of all ways of a part, by the name of the way."""


@dataclass
class Stage:
    """What all parts share: the server, the main database, the sizes, and what was found.

    ``faults`` make the run fail. ``disturbances`` are the shares that other processes took of the
    CPU where it was too much, ``loads`` those of the load generator, by what was measured.
    """

    server: Server
    database: Database
    sizes: Sizes
    settings: Settings
    tell: Callable[[str], None]
    databases: list[Database] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    disturbances: dict[str, float] = field(default_factory=dict)
    loads: dict[str, float] = field(default_factory=dict)
    runs: int = 0

    @property
    def sessions(self) -> int:
        """How many sessions a floor has: as many as the service's threads."""
        return self.settings.workers * self.settings.threads

    @property
    def warnings(self) -> list[str]:
        """What makes figures doubtful, told beside the table."""
        told = []
        for shares, who in (
            (self.disturbances, "other processes"),
            (self.loads, "the load generator"),
        ):
            if shares:
                told.append(
                    f"{who} took up to {max(shares.values()):.0%} of the CPU while these were"
                    f" measured: {'; '.join(shares)}"
                )
        return told

    def next_run(self) -> str:
        """Return a word that no business key had yet."""
        self.runs += 1
        return f"r{self.runs}"


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    ``ways`` starts what is needed and gives what to measure, in turn, once a round; ``ratios``
    are made of the figures of one round.
    """

    name: str
    title: str
    ways: Callable[[Stage], AbstractContextManager[Mapping[str, Way]]]
    ratios: Mapping[str, Callable[[Round], float]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What had been used up when it was taken. Units: seconds; ``wal`` is bytes."""

    at: float
    busy: float
    postgres: float
    service: float
    own: float
    wal: int


def snapshot(stage: Stage, database: Database, server: HttpServer | None) -> Snapshot:
    """Look at the processes and the WAL."""
    own = psutil.Process().cpu_times()
    return Snapshot(
        at=time.monotonic(),
        busy=busy_seconds(),
        postgres=cpu_seconds(stage.server.postmaster_pid),
        service=cpu_seconds(server.pid) if server is not None else 0.0,
        own=own.user + own.system,
        wal=database.wal_position(),
    )


def figures_of(
    before: Snapshot,
    after: Snapshot,
    operations: int,
    seconds: float,
    load_seconds: float,
    *,
    is_own_load: bool = False,
) -> Figures:
    """Return what some operations took between two looks.

    ``is_own_load`` says that this very process was the load generator.
    """
    service = after.service - before.service
    postgres = after.postgres - before.postgres
    own = 0.0 if is_own_load else after.own - before.own
    measured = service + postgres + load_seconds
    others = after.busy - before.busy - measured - own
    capacity = (after.at - before.at) * (os.cpu_count() or 1)
    return {
        "operations": float(operations),
        "seconds": seconds,
        "per_second": operations / seconds,
        "service_us": service / operations * 1e6,
        "postgres_us": postgres / operations * 1e6,
        "total_us": (service + postgres) / operations * 1e6,
        "load_us": load_seconds / operations * 1e6,
        "load_share": load_seconds / measured if measured else 0.0,
        "others_share": max(0.0, others / capacity),
        "wal_bytes": (after.wal - before.wal) / operations,
    }


def measure_load(
    stage: Stage,
    what: str,
    database: Database,
    server: HttpServer,
    jobs: Sequence[Job],
    *,
    operations_per_unit: float = 1.0,
) -> tuple[Figures, list[Done]]:
    """Send jobs, the warm-up first, and return the figures and what came of each job."""
    with Load(jobs) as load:
        note_faults(stage, what, jobs, load.warm_up())
        before = snapshot(stage, database, server)
        load.go()
        done = load.results()
        after = snapshot(stage, database, server)
    note_faults(stage, what, jobs, done)
    operations = sum(one.units for one in done) * operations_per_unit
    seconds = max(one.ended_at for one in done) - min(one.begun_at for one in done)
    load_seconds = sum(one.cpu_seconds for one in done)
    figures = figures_of(before, after, round(operations), seconds, load_seconds)
    figures |= latencies_of([each for one in done for each in one.latencies])
    note_shares(stage, what, figures)
    return figures, done


def measure_floor(stage: Stage, what: str, database: Database, run: Callable[[], Floor]) -> Figures:
    """Let pgbench do its work and return the figures."""
    before = snapshot(stage, database, None)
    floor = run()
    after = snapshot(stage, database, None)
    seconds = floor.transactions / floor.per_second
    figures = figures_of(before, after, floor.transactions, seconds, floor.cpu_seconds)
    note_shares(stage, what, figures)
    return figures


def latencies_of(latencies: Sequence[float]) -> Figures:
    """Return median and 99th percentile, in milliseconds."""
    ordered = sorted(latencies)
    if not ordered:
        return {}
    last = len(ordered) - 1
    return {
        "p50_ms": statistics.median(ordered) * 1e3,
        "p99_ms": ordered[min(last, round(0.99 * last))] * 1e3,
    }


def note_shares(stage: Stage, what: str, figures: Figures, *, is_own_load: bool = False) -> None:
    """Note a disturbed machine, and a load generator that takes too much of it."""
    others, load = figures["others_share"], figures["load_share"]
    if others > OTHERS_SHARE_MAX:
        stage.disturbances[what] = max(others, stage.disturbances.get(what, 0.0))
    # The floor that this process drives is a client, as a row-by-row job would be one.
    if load > LOAD_SHARE_MAX and not is_own_load:
        stage.loads[what] = max(load, stage.loads.get(what, 0.0))


def note_faults(stage: Stage, what: str, jobs: Sequence[Job], done: Sequence[Done]) -> None:
    """Note answers that were not expected; a stretch with no others is void."""
    answers = sum(sum(one.statuses.values()) for one in done)
    good = sum(
        count
        for job, one in zip(jobs, done, strict=True)
        for status, count in one.statuses.items()
        if status in job.expected
    )
    if good == answers:
        return
    told = {code: count for one in done for code, count in one.refusals.items()}
    found = ", ".join(f"{count} x {code}" for code, count in sorted(told.items())) or "no answer"
    if good:
        stage.faults.append(f"{what}: {answers - good} of {answers} requests failed ({found}).")
    else:
        stage.faults.append(
            f"{what}: nothing but refusals ({found}), so the run is void: refusing is cheaper."
        )
