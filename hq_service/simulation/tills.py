"""A simulated till: the library of a real one, a cashier who follows the plan, and its customers.

One thread for each. The till's synchronisation is done between two customers, so that what a till
sends, and when it crashes, does not depend on how threads take turns.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from hq_service.domain.model import Operation
from hq_service.simulation.beside import Administrator, BrokenLock, SecondSyncJob
from hq_service.simulation.counter import Cashier
from hq_service.simulation.faults import Crashed, Script, SimulatedClient, Tally, Wire
from hq_service.simulation.opening import Register, SimulationFailed
from hq_service.simulation.plan import Errand, Moment, PlannedTill, Visit
from hq_service.simulation.truth import Ending, TillTruth, TrueCard
from hq_service.terminal.client import Unreachable
from hq_service.terminal.sync import Stopped, Synchroniser, beat, let_go_of_strays, upload
from hq_service.terminal.terminal import Terminal

LOOK_UP_SECONDS = 0.1
CLOSING_ATTEMPTS = 20
BATCHES = "/v1/offline-batches"
_DEBITS = frozenset({Operation.REDEEM, Operation.CASH_OUT})
_WITHOUT_LOCK = frozenset({Operation.RELEASE, Operation.VOID})


class Interrupted(Exception):
    """The simulation ends before its plan does."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a till shows of itself while it runs. Amounts in the smallest unit."""

    is_online: bool = True
    locks: int = 0
    backlog_lines: int = 0
    backlog_minor: int = 0
    exposure_minor: int = 0


@dataclass(slots=True)
class Surroundings:
    """What the tills of a run have in common."""

    cards: Sequence[TrueCard]
    breaks: Sequence[BrokenLock]
    administrator: Administrator
    second_sync_jobs: Mapping[str, SecondSyncJob]
    ending: threading.Event
    opened_at: float = 0.0


class SimulatedTill:
    """One till for the length of a run."""

    def __init__(
        self, planned: PlannedTill, register: Register, wire: Wire, around: Surroundings
    ) -> None:
        self.planned = planned
        self.register = register
        self.truth = TillTruth()
        self.tally = Tally()
        self.shown = Shown()
        self.failure: Exception | None = None
        self._wire = wire
        self._around = around
        self._sync_script = Script(planned.sync_fates, planned.sync_crashes)
        self._copies = {one.batch: one for one in planned.copies}
        self._batches_seen: list[str] = []
        self._held: list[BrokenLock] = []
        self._start()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    @property
    def name(self) -> str:
        """Return what the till is called in tables."""
        return f"{self.register.store_id} {self.register.terminal_id}"

    @property
    def is_at_work(self) -> bool:
        """Tell whether the till still sells, or delivers what is left."""
        return self._thread.is_alive()

    @property
    def pending_lines(self) -> int:
        """Return how many lines HQ has not confirmed."""
        return self.shown.backlog_lines

    def open(self) -> None:
        """Begin to sell."""
        self._thread.start()

    def stop(self) -> None:
        """Wait for the end; one that was never opened ends now."""
        if self._thread.ident is not None:
            self._thread.join()
        else:
            self._end()
            self._wire.close()

    # --- its day --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            for number, visit in enumerate(self.planned.visits):
                self._wait_for(visit)
                self._serve(number, visit)
            self._close_shop()
        except Interrupted:
            pass
        # Whatever it is, the main thread has to tell it, and the others must not wait for this.
        except Exception as error:  # noqa: BLE001
            self.failure = error
        finally:
            for broken in [*self._held, *self._of_the_plan()]:
                broken.is_over_for_holder.set()
                broken.is_spent.set()
            self._end()
            self._wire.close()

    def _of_the_plan(self) -> list[BrokenLock]:
        numbers = {visit.holds_for_break for visit in self.planned.visits}
        numbers |= {visit.spends_after_break for visit in self.planned.visits}
        return [self._around.breaks[one] for one in numbers if one is not None]

    def _wait_for(self, visit: Visit) -> None:
        """Wait until a customer comes, and synchronise meanwhile."""
        due = self._around.opened_at + visit.at_ms / 1000
        while True:
            self._synchronise()
            self._go_on()
            left = due - time.monotonic()
            if left <= 0:
                return
            self._around.ending.wait(min(left, LOOK_UP_SECONDS))

    def _go_on(self) -> None:
        if self._around.ending.is_set():
            raise Interrupted

    def _wait_until(self, event: threading.Event) -> None:
        while not event.wait(LOOK_UP_SECONDS):
            self._go_on()

    def _serve(self, number: int, visit: Visit) -> None:
        if visit.cut_at is Moment.BEGINNING:
            self._wire.cut()
        else:
            self._come_back()
        if visit.spends_after_break is not None:
            self._wait_until(self._around.breaks[visit.spends_after_break].is_over_for_holder)
        self._client.script = Script(visit.fates, [visit.crash] if visit.crash else [])
        cashier = self._cashier
        try:
            if visit.connects_by_hand and not self._terminal.link.is_online:
                self._terminal.connect()
            if visit.errand is Errand.INQUIRY:
                cashier.inquire(visit.lines[0])
            elif visit.errand is Errand.VOID:
                cashier.void_earlier(visit)
            else:
                cashier.sell(number, visit)
            if visit.is_by_hand:
                self._terminal.connect()
        except Crashed:
            self._restart(visit)
        finally:
            self._client.script = Script()
            self._note_breaks(visit)
        self._publish()

    def _note_breaks(self, visit: Visit) -> None:
        if visit.holds_for_break is not None:
            broken = self._around.breaks[visit.holds_for_break]
            broken.is_over_for_holder.set()
            self._held.append(broken)
        if visit.spends_after_break is not None:
            self._around.breaks[visit.spends_after_break].is_spent.set()

    def _come_back(self) -> None:
        """End an outage; of one in which a lock was broken, not before the card is spent."""
        while self._held:
            self._wait_until(self._held[-1].is_spent)
            self._held.pop()
        self._wire.restore()

    # --- breaking locks -------------------------------------------------------------------------

    def before_concluding(self, visit: Visit) -> None:
        """Let happen what the plan says for the moment before a sale is concluded."""
        if visit.is_by_hand:
            self._terminal.disconnect()
        if visit.cut_at is Moment.CONCLUDING:
            self._wire.cut()
        self._publish()
        self._around.ending.wait(visit.takes_ms / 1000)
        self._go_on()
        if visit.holds_for_break is not None:
            broken = self._around.breaks[visit.holds_for_break]
            if broken.planned.is_before_conclusion:
                self._break(broken)

    def after_locking(self, visit: Visit) -> None:
        """Let happen what the plan says for the moment after the first card is in the sale."""
        if visit.cut_at is Moment.LOCKING:
            self._wire.cut()
        self._publish()

    def after_concluding(self, visit: Visit) -> None:
        """Let happen what the plan says for the moment after a sale is concluded."""
        if visit.holds_for_break is not None:
            broken = self._around.breaks[visit.holds_for_break]
            if not broken.planned.is_before_conclusion:
                self._break(broken)

    def _break(self, broken: BrokenLock) -> None:
        self._around.administrator.break_lock(self._around.cards[broken.planned.card])

    # --- its program ----------------------------------------------------------------------------

    def _start(self) -> None:
        register = self.register
        self._client = SimulatedClient(self._wire, register.key, self.tally, Script())
        self._sync_client = SimulatedClient(
            self._wire, register.key, self.tally, self._sync_script, self._find_batch
        )
        self._terminal = Terminal(
            self._wire.url,
            register.key,
            register.directory,
            register.store_id,
            register.terminal_id,
            on_warning=lambda _warning: self._publish(),
            client=self._client,
        )
        self._synchroniser = Synchroniser(self._terminal, self._sync_client)
        self._next_sync_at = 0.0
        self._terminal.when_connected(self._synchronise_soon)
        self._cashier = Cashier(self._terminal, self.truth, self._around.cards, self)

    def _end(self) -> None:
        """End the program without another word to anybody: as a crash does, but for the files."""
        self._terminal.close()
        self._sync_client.close()

    def _restart(self, visit: Visit | None) -> None:
        """Start the till again after a crash, and finish what it finds unfinished."""
        self.truth.crashes += 1
        self._end()
        self._start()
        self._publish()
        self._cashier.finish_after_crash(visit)

    # --- synchronisation ------------------------------------------------------------------------

    def _synchronise_soon(self) -> None:
        self._next_sync_at = 0.0

    def _synchronise(self) -> None:
        if time.monotonic() < self._next_sync_at:
            return
        try:
            seconds = self._synchroniser.do_what_is_due()
            self._next_sync_at = time.monotonic() + seconds
        except Crashed:
            self._restart(None)
        if self._synchroniser.stopped_because:
            self.truth.surprises.append(f"{self.name}: {self._synchroniser.stopped_because}")
            self._synchroniser.stopped_because = None
        self._publish()

    def _find_batch(self, path: str, content: bytes) -> None:
        """Let a second sync job find a batch that is sent for the first time."""
        if path != BATCHES:
            return
        batch_id = json.loads(content)["batch_id"]
        if batch_id in self._batches_seen:
            return
        self._batches_seen.append(batch_id)
        planned = self._copies.get(len(self._batches_seen))
        if planned is not None:
            self._around.second_sync_jobs[self.register.store_id].find(planned, content)

    def _close_shop(self) -> None:
        """Come back to HQ for good, and deliver everything."""
        self._come_back()
        self._client.script = self._sync_client.script = self._sync_script = Script()
        self._wire.wait_until_idle()
        self._cashier.finish_after_crash(None)
        for _ in range(CLOSING_ATTEMPTS):
            self._go_on()
            with suppress(Unreachable, Stopped):
                if self._terminal.connect().is_online and self._deliver():
                    self._publish()
                    return
            self._around.ending.wait(1.0)
        raise SimulationFailed(f"{self.name} could not deliver what it has pending.")

    def _deliver(self) -> bool:
        """Deliver everything, and return whether HQ has confirmed it."""
        till = self._terminal
        client, store, setup, clock = self._sync_client, till.store, till.setup, till.clock
        let_go_of_strays(client, store, clock)
        upload(client, store, setup, clock)
        beat(client, store, setup, till.link.state, clock)
        return store.pending().lines_count == 0

    # --- what is shown --------------------------------------------------------------------------

    def _publish(self) -> None:
        """Note what the till shows: for samples, read by another thread."""
        store = self._terminal.store
        is_online = self._terminal.link.is_online and not self._wire.is_cut
        pending = store.pending()
        locks = exposure_minor = 0
        sale = store.unfinished_sale()
        for line in sale.lines if sale is not None else ():
            if line.lock_id is not None and line.state in ("locked", "removing"):
                locks += 1
                if line.grant_text is not None and line.operation in _DEBITS:
                    exposure_minor += line.max_amount_minor or 0
        if pending.lines_count:
            locks += sum(line["operation"] not in _WITHOUT_LOCK for line in store.journal())
        self.shown = Shown(
            is_online,
            locks,
            pending.lines_count,
            sum(pending.amounts_minor.values()),
            0 if is_online else exposure_minor,
        )

    def sales_count(self) -> tuple[int, int]:
        """Return how many sales were concluded, and how many of them offline."""
        offline = self.truth.count(Ending.OFFLINE)
        return self.truth.count(Ending.ONLINE) + offline, offline
