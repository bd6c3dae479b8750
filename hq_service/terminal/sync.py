"""Synchronisation: what a till has pending goes up, what HQ has for it comes down.

Uploads are at-least-once: a batch keeps its id and its bytes until it is answered, and its lines
stay in the till until HQ says that they have arrived. Nothing is ever given up on.
Source: document "POS offline functionality": only while the till runs, from the first sign-in on.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hq_service.domain.connection import MESSAGE_LENGTH_MAX, SyncStatus, ToldState
from hq_service.terminal import health, heartbeat
from hq_service.terminal.client import ANSWER_SECONDS_MAX, Answer, Client, Unreachable
from hq_service.terminal.refusals import Refused
from hq_service.terminal.setup import Setup
from hq_service.terminal.store import LineState, StoredLine, TillStore
from hq_service.terminal.terminal import Terminal

BATCH_LINES_MAX = 5_000
"""So that HQ settles a batch at once, and answers what became of it."""

OWED_KEPT = timedelta(hours=1)
"""How long a request whose answer never came may still arrive at HQ, and then some."""

BACK_OFF_SECONDS_MIN = 1.0
BACK_OFF_SECONDS_MAX = 60.0
HEARTBEAT_SECONDS_DEFAULT = 60

Progress = Callable[[int, int], None]


class Stopped(Exception):
    """HQ refuses an upload, and the same again would be refused the same. Everything is kept."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What one upload came to; ``pending`` is what HQ has not confirmed yet."""

    batches_count: int
    lines_count: int
    purged_count: int
    pending_lines_count: int


class BackOff:
    """How long to wait after failures in a row: doubled each time, and scattered, so that the
    tills of a store do not all come back in the same second.
    """

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()  # noqa: S311 - no secret
        self.failures_count = 0

    def failed(self, retry_after_seconds: int | None = None) -> float:
        """Count a failure, and return how many seconds to wait: never less than HQ asks for."""
        longest = min(BACK_OFF_SECONDS_MAX, BACK_OFF_SECONDS_MIN * float(1 << self.failures_count))
        self.failures_count = min(self.failures_count + 1, 16)
        return max(longest * self._chance.uniform(0.5, 1.0), float(retry_after_seconds or 0))

    def succeeded(self) -> None:
        """Begin anew."""
        self.failures_count = 0


def upload(
    client: Client,
    store: TillStore,
    setup: Setup,
    clock: Callable[[], datetime],
    progress: Progress | None = None,
) -> Uploaded:
    """Post everything that is pending, in batches; note the attempt and what came of it.

    Raises:  Unreachable: repeat it later; Stopped: somebody has to look. Either way everything is
             kept.
    """
    try:
        done = _upload(client, store, setup, clock, progress)
    except (Unreachable, Stopped) as error:
        _note_attempt(store, SyncStatus.FAILED, clock(), str(error))
        raise
    _note_attempt(store, SyncStatus.SUCCEEDED, clock(), None)
    return done


def _upload(
    client: Client,
    store: TillStore,
    setup: Setup,
    clock: Callable[[], datetime],
    progress: Progress | None,
) -> Uploaded:
    batches_count = lines_count = purged_count = 0
    total = store.pending().lines_count
    size = int(setup.profile["upload_transaction_size"])
    # What HQ says is missing is sent again, but not for ever: the next upload goes on with it.
    while lines_count <= 2 * total:
        batch = store.batch_under_way(size, BATCH_LINES_MAX)
        if batch is None:
            break
        answer = client.final(client.post("/v1/offline-batches", batch.body))
        if answer.status == 413 and batch.lines_count > 1:
            store.batch_refused(batch.batch_id)
            size = max(1, size // 2)
            continue
        if answer.is_problem:
            raise Stopped(
                f"HQ does not take the batch: {answer.sentence} Nothing is lost: all"
                f" {store.pending().lines_count} lines are kept."
            )
        with store.writing():
            store.batch_answered(batch.batch_id)
            purged_count += heartbeat.acknowledge(store, answer, clock())
        batches_count += 1
        lines_count += batch.lines_count
        if progress is not None:
            progress(min(lines_count, total), total)
    return Uploaded(batches_count, lines_count, purged_count, store.pending().lines_count)


def _note_attempt(store: TillStore, status: SyncStatus, at: datetime, message: str | None) -> None:
    told: dict[str, Any] = {"status": status, "at": at.isoformat()}
    if message:
        told["message"] = message[:MESSAGE_LENGTH_MAX]
    store.set_fact("last_sync", told)


def beat(
    client: Client, store: TillStore, setup: Setup, state: ToldState, clock: Callable[[], datetime]
) -> Answer:
    """Send a heartbeat, and purge what HQ says that has arrived.

    Raises:  Unreachable; Refused.
    """
    told = heartbeat.heartbeat_of(store, setup, state, clock())
    answer = client.final(client.post(heartbeat.PATH, told))
    if answer.is_problem:
        raise Refused(answer)
    heartbeat.acknowledge(store, answer, clock())
    return answer


def let_go_of_strays(client: Client, store: TillStore, clock: Callable[[], datetime]) -> int:
    """Void the locks that turned up at HQ for lines that are in no sale; return how many.

    Their requests were never answered, so the till knows of no instrument to unlock: HQ tells.

    Raises:  Unreachable.
    """
    owed = store.lines_owed()
    if not owed:
        return 0
    answer = client.final(client.get("/v1/locks"))
    if answer.is_problem:
        return 0  # the upload under the same key says why
    held = {(one["transaction_id"], one["line"]): one for one in answer.at("locks") or ()}
    voided = 0
    for line in owed:
        lock = held.get((line.transaction_id, line.line))
        is_over = lock is None and clock() - line.asked_at > OWED_KEPT
        if lock is not None:
            voided += _void(client, store, line, lock)
        if lock is not None or is_over:
            line.is_void_owed = False
            store.save_line(line)
    return voided


def _void(client: Client, store: TillStore, line: StoredLine, lock: dict[str, Any]) -> int:
    assert line.state is LineState.GIVEN_UP  # nothing of it can have been spent
    answer = client.post(
        "/v1/voids",
        {
            "store_id": store.store_id,
            "terminal_id": store.terminal_id,
            "transaction_id": line.transaction_id,
            "line": line.line,
            "instrument_id": lock["instrument"]["instrument_id"],
            "reason": "the till never heard that it was locked",
        },
    )
    return 0 if client.final(answer).is_problem else 1


class Synchroniser:
    """The synchronisation of a running till: a thread that ends with it.

    with Terminal(...) as till, Synchroniser(till, Client(url, key)):
        ...

    Start it after the first sign-in: without it a till sells and synchronises nothing.

    While the till is offline it sends heartbeats and uploads nothing; after a switch by hand it
    sends nothing at all. With advanced offline switching it looks after HQ's health. ``client`` is
    one of its own, so that it never slows down a sale.
    """

    def __init__(
        self, terminal: Terminal, client: Client, *, chance: random.Random | None = None
    ) -> None:
        self._terminal = terminal
        self._client = client
        self._back_offs = {name: BackOff(chance) for name in ("health", "heartbeat", "upload")}
        self._due_at: dict[str, datetime] = {}
        self._woken = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.stopped_because: str | None = None
        self.heartbeat_refusal: str | None = None
        terminal.when_connected(self.wake)

    def __enter__(self) -> Synchroniser:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Synchronise from now on, beside the sales."""
        self._thread = threading.Thread(target=self._run, name="synchroniser", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the request that is under way."""
        self._ended.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join()
        self._client.close()

    def wake(self) -> None:
        """Do everything now, also what HQ had refused: somebody has looked."""
        self.stopped_because = None
        self._due_at.clear()
        self._woken.set()

    def do_what_is_due(self) -> float:
        """Do what the till has to do by now; return after how many seconds there is more."""
        if self._terminal.link.is_disconnected_by_hand:
            return BACK_OFF_SECONDS_MAX
        names = ["heartbeat"]
        if health.is_looked_after(self._terminal.setup.profile):
            self._try("health", self._check_health)
            names.append("health")
        self._client.wait_at_most(ANSWER_SECONDS_MAX)
        self._try("heartbeat", self._beat)
        if self._terminal.link.is_online and not self.stopped_because:
            self._try("upload", self._upload)
            names.append("upload")
        now = self._terminal.clock()
        waits = [(self._due_at.get(name, now) - now).total_seconds() for name in names]
        return min(max(min(waits), BACK_OFF_SECONDS_MIN), BACK_OFF_SECONDS_MAX)

    def _try(self, name: str, do: Callable[[], None]) -> None:
        now = self._terminal.clock()
        if now < self._due_at.get(name, now):
            return
        try:
            do()
            self._back_offs[name].succeeded()
        except Unreachable as error:
            self._put_off(name, self._back_offs[name].failed(error.retry_after_seconds))
        except Refused as error:
            self.heartbeat_refusal = str(error)
            self._put_off(name, BACK_OFF_SECONDS_MAX)
        except Stopped as error:
            self.stopped_because = str(error)

    def _check_health(self) -> None:
        self._terminal.check_health(self._client)
        minutes = self._terminal.setup.profile["system_health_check_interval_minutes"]
        self._put_off("health", minutes * 60)

    def _beat(self) -> None:
        till = self._terminal
        if till.link.is_online and till.setup.is_stale:
            self._fetch_setup()
        answer = beat(self._client, till.store, till.setup, till.link.state, till.clock)
        self.heartbeat_refusal = None
        self._put_off("heartbeat", answer.at("next_heartbeat_seconds") or HEARTBEAT_SECONDS_DEFAULT)
        if heartbeat.wants_setup(answer, till.setup):
            self._fetch_setup()
        if answer.at("upload_requested"):
            self.stopped_because = None
            self._due_at.pop("upload", None)

    def _fetch_setup(self) -> None:
        """Fetch the till's copies; while downloads pause, only whether they still do."""
        till = self._terminal
        if till.setup.profile["pause_offline_synchronization"]:
            till.setup.fetch_register(self._client)
            if till.setup.profile["pause_offline_synchronization"]:
                return
        till.setup.fetch(self._client)

    def _upload(self) -> None:
        till = self._terminal
        self._put_off("upload", till.setup.profile["transaction_upload_interval_seconds"])
        let_go_of_strays(self._client, till.store, till.clock)
        if till.store.pending().lines_count:
            upload(self._client, till.store, till.setup, till.clock)

    def _put_off(self, name: str, seconds: float) -> None:
        self._due_at[name] = self._terminal.clock() + timedelta(seconds=seconds)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._woken.clear()
            seconds = self.do_what_is_due()
            self._woken.wait(seconds)
