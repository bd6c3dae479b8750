"""One simulation from the first store to the last verdict."""

from __future__ import annotations

import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from hq_service.simulation import collecting, progress
from hq_service.simulation.beside import Administrator, BrokenLock, SecondSyncJob
from hq_service.simulation.comparison import Facts, compare
from hq_service.simulation.faults import Wire, WireInClient, WireThroughProxy
from hq_service.simulation.opening import Fleet, SimulationFailed, open_fleet
from hq_service.simulation.plan import TIME_OUT_SECONDS, Plan, draw
from hq_service.simulation.result import ComparisonRow, Options, Result, TillRow
from hq_service.simulation.samples import Sample
from hq_service.simulation.tills import SimulatedTill, Surroundings
from hq_service.simulation.truth import Ending
from hq_service.terminal.client import Client, Unreachable

SAMPLE_SECONDS = 1.0


def plan_of(options: Options) -> Plan:
    """Draw the plan, and print what it is.

    Raises:  SimulationFailed for options that no plan can be made of.
    """
    try:
        plan = draw(options)
    except ValueError as error:
        raise SimulationFailed(str(error)) from error
    visits = sum(len(till.visits) for till in plan.tills)
    click.echo(
        f"Plan {plan.digest[:16]}: {len(plan.tills)} tills in {options.stores} stores, {visits}"
        f" customers, {len(plan.cards)} cards, {len(plan.outages)} outages, {len(plan.breaks)}"
        f" locks to break, seed {options.seed}."
    )
    return plan


def simulate(plan: Plan, url: str, admin_key: str) -> Result:
    """Carry out a plan on a service, and compare.

    Raises:  SimulationFailed.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="hq-simulation-") as name:
            return _simulate(plan, url, admin_key, Path(name))
    except Unreachable as error:
        raise SimulationFailed(f"{error} The simulation cannot go on without HQ.") from error


def _simulate(plan: Plan, url: str, admin_key: str, directory: Path) -> Result:
    started_at = datetime.now(UTC)
    opening = time.monotonic()
    fleet = open_fleet(url, admin_key, plan, directory)
    click.echo(
        f"Stores {', '.join(fleet.store_ids)} are open at {url}, their cards are issued"
        f" ({time.monotonic() - opening:.0f} s)."
    )
    run = _Run(plan, fleet)
    try:
        seconds = run.play()
        tills, comparisons = run.compare()
    finally:
        run.close()
    outages = [replace(one, store=fleet.store_ids[int(one.store) - 1]) for one in plan.outages]
    return Result(
        plan.options, plan.digest, started_at, seconds, run.samples, outages, tills, comparisons
    )


class _Run:
    """The tills of one run, and those who talk to HQ beside them."""

    def __init__(self, plan: Plan, fleet: Fleet) -> None:
        self.samples: list[Sample] = []
        self._plan = plan
        self._fleet = fleet
        self._ending = threading.Event()
        self._stack = ExitStack()
        self._administrator = Administrator(fleet.url, fleet.admin_key)
        self._stack.callback(self._administrator.close)
        self._second_sync_jobs = {
            store_id: SecondSyncJob(fleet.url, key, store_id)
            for store_id, key in fleet.sync_keys.items()
        }
        for one in self._second_sync_jobs.values():
            self._stack.callback(one.close)
        self._around = Surroundings(
            fleet.cards,
            [BrokenLock(one) for one in plan.breaks],
            self._administrator,
            self._second_sync_jobs,
            self._ending,
        )
        self._tills: list[SimulatedTill] = []

    def _wire(self) -> Wire:
        if self._plan.options.sockets:
            return WireThroughProxy(self._fleet.url)
        return WireInClient(self._fleet.url, TIME_OUT_SECONDS)

    def play(self) -> float:
        """Let the tills do all that is planned; return how many seconds it took.

        Raises:  SimulationFailed; Unreachable.
        """
        for planned, register in zip(self._plan.tills, self._fleet.registers, strict=True):
            # One by one: whatever interrupts this, those that there are will be stopped.
            self._tills.append(SimulatedTill(planned, register, self._wire(), self._around))
        self._around.opened_at = time.monotonic()
        for till in self._tills:
            till.open()
        with progress.Progress(self._plan.seconds) as line:
            while any(till.is_at_work for till in self._tills):
                self._sample(line)
                self._raise_failures()
                next_at = self._around.opened_at + len(self.samples) * SAMPLE_SECONDS
                self._ending.wait(max(0.05, next_at - time.monotonic()))
            self._sample(line)
        self._raise_failures()
        for second in self._second_sync_jobs.values():
            second.send_what_is_kept()
        return time.monotonic() - self._around.opened_at

    def _raise_failures(self) -> None:
        for till in self._tills:
            error = till.failure
            if error is not None:
                self._ending.set()
                what = f"{type(error).__name__}: {error}"
                raise SimulationFailed(f"{till.name} cannot go on. {what}") from error

    def _sample(self, line: progress.Progress) -> None:
        shown = [till.shown for till in self._tills]
        sold = [till.sales_count() for till in self._tills]
        online = sum(one.is_online for one in shown)
        sample = Sample(
            round(time.monotonic() - self._around.opened_at, 3),
            sum(sales for sales, _ in sold),
            sum(offline for _, offline in sold),
            sum(till.truth.refused for till in self._tills),
            sum(till.tally.requests for till in self._tills),
            sum(one.locks for one in shown),
            sum(one.backlog_lines for one in shown),
            sum(one.backlog_minor for one in shown),
            sum(one.exposure_minor for one in shown),
            online,
            len(shown) - online,
        )
        self.samples.append(sample)
        faults = sum(till.tally.faults + till.truth.crashes for till in self._tills)
        line.show(sample, faults)

    def compare(self) -> tuple[list[TillRow], list[ComparisonRow]]:
        """Ask HQ for everything, and hold it against the tills' truth.

        Raises:  SimulationFailed; Unreachable.
        """
        fleet = self._fleet
        sales = [sale for till in self._tills for sale in till.truth.sales]
        made = [card for till in self._tills for card in till.truth.made_cards]
        click.echo(f"Everything is delivered: comparing {len(sales)} sales with HQ.")
        with Client(fleet.url, fleet.admin_key) as admin:
            facts = Facts(
                sales,
                [*fleet.cards, *made],
                collecting.known_sales(fleet, sales),
                collecting.balances_minor(fleet, [*fleet.cards, *made]),
                collecting.open_cases(admin, fleet),
                collecting.locks_left(admin, fleet),
                collecting.undelivered(admin, fleet),
                {till.name: till.pending_lines for till in self._tills},
                set(self._administrator.broken),
                [one for till in self._tills for one in till.truth.surprises],
            )
        rows, differences = compare(facts)
        return [_row(till, differences.get(till.name, 0)) for till in self._tills], rows

    def close(self) -> None:
        """End what still runs."""
        self._ending.set()
        for till in self._tills:
            till.stop()
        self._stack.close()


def _row(till: SimulatedTill, differences: int) -> TillRow:
    truth = till.truth
    return TillRow(
        till.register.store_id,
        till.register.terminal_id,
        truth.count(Ending.ONLINE),
        truth.count(Ending.OFFLINE),
        truth.count(Ending.VOIDED),
        truth.refused,
        truth.crashes,
        till.tally.lost,
        till.pending_lines,
        differences + len(truth.surprises),
    )
