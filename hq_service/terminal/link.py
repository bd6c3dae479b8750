"""The till's connection to HQ: when it goes offline, when it tries to come back.

Source: document "POS offline functionality". A data request that fails within the time-out interval
of the offline profile switches the till to offline, also in the middle of a sale; it tries to
connect again after the reconnection attempt interval, and only at the beginning of a transaction.
Operation 917 (Database connection status) switches by hand. With advanced offline switching slow
answers and the health check switch, too (`health`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hq_service.domain.connection import SyncStatus, ToldState
from hq_service.domain.glossary import ENGLISH, Term, text
from hq_service.terminal import health, heartbeat
from hq_service.terminal.client import Answer, Client, Unreachable
from hq_service.terminal.setup import Setup
from hq_service.terminal.store import TillStore

DATABASE_CONNECTION_STATUS = 917
"""The POS operation that shows the connection and switches it (Dynamics)."""

PAUSE_SECONDS_MAX = 2
"""How long a till waits at most before it tries again what HQ was too busy for."""


@dataclass(frozen=True, slots=True)
class SwitchWarning:
    """What the cashier is told when the till switches; ``transaction_id`` of the sale under way."""

    sentence: str
    transaction_id: str | None


@dataclass(frozen=True, slots=True)
class Button:
    """The button of an operation."""

    operation: int
    text: str


@dataclass(frozen=True, slots=True)
class LastSync:
    """The last attempt to synchronise, as the window Connection status shows it."""

    status: SyncStatus
    at: datetime | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """What the status header and the window Connection status show.

    ``reconnects_at`` is when the beginning of a transaction tries to connect again: None while
    online, and after a switch by hand.
    """

    state: ToldState
    since: datetime | None
    is_manual: bool
    reason: str | None
    reconnects_at: datetime | None
    last_sync: LastSync
    pending_transactions_count: int
    oldest_pending_at: datetime | None

    @property
    def is_online(self) -> bool:
        """Tell whether the next sale is made with HQ."""
        return self.state is ToldState.ONLINE

    def header(self, language: str = ENGLISH) -> str:
        """Return the text of the status header, in one of the glossary's languages."""
        label = text(Term.CONNECTION_STATUS, language)
        shown = "online" if self.is_online else text(Term.OFFLINE_MODE, language)
        return f"{label}: {shown}"

    def button(self, language: str = ENGLISH) -> Button:
        """Return the button of operation 917: Disconnect while online, Connect while offline."""
        term = Term.DISCONNECT if self.is_online else Term.CONNECT
        return Button(DATABASE_CONNECTION_STATUS, text(term, language))


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a request: HQ's answer, or None and the till is offline now.

    ``is_doubtful`` when an attempt went unanswered: it may arrive at HQ yet.
    """

    answer: Answer | None
    is_doubtful: bool


class Link:
    """The connection of one till. Its state is kept in the store, so a restart changes nothing.

    Two threads use it: the one that sells, and the one that synchronises. What somebody switched
    by hand is switched back by hand only, whatever the other thread is about to do.
    """

    def __init__(
        self,
        client: Client,
        store: TillStore,
        setup: Setup,
        clock: Callable[[], datetime],
        on_warning: Callable[[SwitchWarning], None] | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.client = client
        self._store = store
        self._setup = setup
        self._clock = clock
        self._on_warning = on_warning
        self._pause = pause

    @property
    def is_online(self) -> bool:
        """Tell whether requests are sent."""
        return self.state is ToldState.ONLINE

    @property
    def is_disconnected_by_hand(self) -> bool:
        """Tell whether somebody chose Disconnect: nothing at all is sent until Connect."""
        return bool(self._kept["is_manual"])

    @property
    def state(self) -> ToldState:
        """Return what the till does for its next sale."""
        return ToldState(self._kept["state"])

    def status(self) -> ConnectionStatus:
        """Return what the cashier is shown."""
        kept, pending = self._kept, self._store.pending()
        told = self._store.fact("last_sync", {"status": SyncStatus.NONE})
        at = told.get("at")
        last_sync = LastSync(
            SyncStatus(told["status"]),
            datetime.fromisoformat(at) if at else None,
            told.get("message"),
        )
        return ConnectionStatus(
            state=ToldState(kept["state"]),
            since=datetime.fromisoformat(kept["since"]) if kept["since"] else None,
            is_manual=kept["is_manual"],
            reason=kept["reason"],
            reconnects_at=self._reconnects_at(),
            last_sync=last_sync,
            pending_transactions_count=pending.transactions_count,
            oldest_pending_at=pending.oldest_at,
        )

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        transaction_id: str | None = None,
    ) -> Asked:
        """Ask HQ, as often as the offline profile says; then switch to offline.

        Each attempt waits for the time-out interval at most. A 5xx is no answer: the request may
        have been applied all the same, and is repeated with the same key.
        """
        if not self.is_online:
            return Asked(None, is_doubtful=False)
        profile = self._setup.profile
        self.client.wait_at_most(profile["time_out_interval_seconds"])
        reason = ""
        for attempt in range(1 + profile["retry_count_to_offline"]):
            try:
                answer = self.client.final(self._send(method, path, body))
            except Unreachable as error:
                reason = str(error)
                if error.retry_after_seconds and attempt < profile["retry_count_to_offline"]:
                    self._pause(min(error.retry_after_seconds, PAUSE_SECONDS_MAX))
                continue
            self._mind_slowness(answer, transaction_id)
            return Asked(answer, is_doubtful=attempt > 0)
        self._go_offline(reason, transaction_id)
        return Asked(None, is_doubtful=True)

    def reconnect_if_due(self) -> bool:
        """Try to connect again if the interval is over; return whether the till came back.

        Source: only called at the beginning of a transaction.
        """
        reconnects_at = self._reconnects_at()
        if reconnects_at is None or self._clock() < reconnects_at:
            return False
        return self._reconnect(self.client)

    def check_health(self, client: Client) -> bool:
        """Ask whether HQ is well, and switch accordingly; return whether the till came back.

        It comes back at once, but not in the middle of a sale: then at the beginning of the next
        one, whether or not the reconnection attempt interval is over by then.
        """
        if self.is_disconnected_by_hand:
            return False
        complaint = health.complaint(client, self._setup.profile)
        sale = self._store.unfinished_sale()
        if complaint and self.is_online:
            self._go_offline(complaint, sale.transaction_id if sale is not None else None)
        if complaint or self.is_online or self.is_disconnected_by_hand:
            return False
        if sale is None:
            return self._reconnect(client)
        self._try_again_at_the_next_sale()
        return False

    def disconnect(self) -> None:
        """Switch to offline by hand; stays until `connect`."""
        self._keep(ToldState.OFFLINE, "switched by hand", by_hand=True, is_manual=True)

    def connect(self) -> bool:
        """Switch to online by hand; return whether HQ answered. If not, the till stays offline,
        and tries again by itself from now on.
        """
        if self.is_online:
            return True
        return self._reconnect(self.client, by_hand=True)

    def go_offline_between_sales(self, reason: str) -> None:
        """Switch to offline when no sale is under way."""
        self._go_offline(reason, None)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
        return self.client.get(path) if method == "GET" else self.client.post(path, body or {})

    def _mind_slowness(self, answer: Answer, transaction_id: str | None) -> None:
        slowness = health.slowness(answer, self._setup.profile)
        if slowness is not None:
            self._go_offline(slowness, transaction_id)

    def _go_offline(self, reason: str, transaction_id: str | None) -> None:
        if not self.is_online:
            return  # the other thread was first, and the cashier was warned
        if self._on_warning is not None and self._setup.profile["prompt_on_seamless_offline"]:
            goes_on = " and the sale goes on" if transaction_id else ""
            offline = text(Term.OFFLINE_MODE, ENGLISH)
            sentence = f"{reason} The till switches to {offline}{goes_on}."
            self._on_warning(SwitchWarning(sentence, transaction_id))
        self._keep(ToldState.OFFLINE, reason)

    def _reconnect(self, client: Client, *, by_hand: bool = False) -> bool:
        now, profile = self._clock(), self._setup.profile
        client.wait_at_most(profile["time_out_interval_seconds"])
        told = heartbeat.heartbeat_of(self._store, self._setup, ToldState.ONLINE, now)
        try:
            answer = client.final(client.post(heartbeat.PATH, told))
            reason = health.slowness(answer, profile)
        except Unreachable as error:
            reason = str(error)
        if reason is not None:
            self._keep(ToldState.OFFLINE, reason, by_hand=by_hand)
            return False
        if not self._keep(ToldState.ONLINE, None, by_hand=by_hand):
            return False
        heartbeat.acknowledge(self._store, answer, now)
        if not answer.is_problem and heartbeat.wants_setup(answer, self._setup):
            self._store.set_fact("parameters_fresh_until", "")
        return True

    def _try_again_at_the_next_sale(self) -> None:
        with self._store.writing():
            kept = self._kept
            interval = timedelta(
                seconds=self._setup.profile["reconnection_attempt_interval_seconds"]
            )
            tried_at = (self._clock() - interval).isoformat()
            self._store.set_fact("connection", {**kept, "tried_at": tried_at})

    def _reconnects_at(self) -> datetime | None:
        kept = self._kept
        if kept["state"] == ToldState.ONLINE or kept["is_manual"]:
            return None
        tried_at = datetime.fromisoformat(kept["tried_at"])
        # A clock that was set back must not keep the till offline for longer than the interval.
        tried_at = min(tried_at, self._clock())
        interval = self._setup.profile["reconnection_attempt_interval_seconds"]
        return tried_at + timedelta(seconds=interval)

    @property
    def _kept(self) -> dict[str, Any]:
        born = {
            "state": ToldState.ONLINE,
            "since": None,
            "is_manual": False,
            "reason": None,
            "tried_at": None,
        }
        return self._store.fact("connection") or born

    def _keep(
        self,
        state: ToldState,
        reason: str | None,
        *,
        by_hand: bool = False,
        is_manual: bool = False,
    ) -> bool:
        """Keep a state; return False if it is not for this switch to change, but for a hand's."""
        with self._store.writing():
            kept = self._kept
            if kept["is_manual"] and not by_hand:
                return False
            now = self._clock().isoformat()
            since = kept["since"] if kept["state"] == state else None
            switched = {
                "state": state,
                "since": since or now,
                "is_manual": is_manual,
                "reason": reason,
                "tried_at": now,
            }
            self._store.set_fact("connection", switched)
        return True
