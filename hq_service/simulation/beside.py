"""Who else talks to HQ while the fleet sells: an administrator, and second sync jobs."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hq_service.domain.model import BusinessKey
from hq_service.simulation.opening import REASON, SimulationFailed, done
from hq_service.simulation.plan import Chance, Copy, Order, PlannedBreak, PlannedCopy
from hq_service.simulation.truth import TrueCard
from hq_service.terminal.client import Client, encoded

BREAK_ATTEMPTS = 5


class BrokenLock:
    """One lock that is to be broken, and how far that is; tills wait for one another by it."""

    def __init__(self, planned: PlannedBreak) -> None:
        self.planned = planned
        self.is_over_for_holder = threading.Event()
        self.is_spent = threading.Event()


class Administrator:
    """Breaks locks: is shown the exposure, and accepts it. For several threads."""

    def __init__(self, url: str, key: str) -> None:
        self._client = Client(url, key)
        self._mutex = threading.Lock()
        self.broken: dict[BusinessKey, int] = {}
        """The lines whose locks were broken, each with the exposure that was accepted."""

    def break_lock(self, card: TrueCard) -> None:
        """Break the lock that is on a card, if there is one.

        Raises:  SimulationFailed; Unreachable.
        """
        with self._mutex:
            for _ in range(BREAK_ATTEMPTS):
                shown = self._client.get(f"/v1/admin/locks/{card.instrument_id}")
                if shown.status == 404:
                    return
                done(shown)
                wish = {
                    "instrument_id": card.instrument_id,
                    "lock_id": shown.at("lock_id"),
                    "accepted_exposure_minor": shown.at("exposure_minor"),
                    "reason": REASON,
                }
                answer = self._client.post("/v1/admin/lock-breaks", wish)
                if answer.at("code") == "exposure_changed":
                    continue
                told = done(answer).body
                names = told["store_id"], told["terminal_id"], told["transaction_id"]
                self.broken[BusinessKey(*names, told["line"])] = told["exposure_minor"]
                return
        raise SimulationFailed(f"The exposure of {card.name} changed each time it was accepted.")

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


@dataclass(frozen=True, slots=True)
class _Kept:
    planned: PlannedCopy
    body: bytes


class SecondSyncJob:
    """A store's other sync job: it has found lines that tills send, too, and sends them again.

    For several threads, the store's tills.
    """

    def __init__(self, url: str, key: str, store_id: str) -> None:
        self._client = Client(url, key)
        self._mutex = threading.Lock()
        self._store_id = store_id
        self._kept: list[_Kept] = []
        self.batches_count = 0

    def find(self, planned: PlannedCopy, body: bytes) -> None:
        """Find a batch that a till is about to send: send it now, or keep it for the end.

        Raises:  SimulationFailed; Unreachable.
        """
        if planned.is_first:
            self._send(_Kept(planned, body))
        else:
            with self._mutex:
                self._kept.append(_Kept(planned, body))

    def send_what_is_kept(self) -> None:
        """Send everything else, the newest first.

        Raises:  SimulationFailed; Unreachable.
        """
        while self._kept:
            self._send(self._kept.pop())

    def _send(self, kept: _Kept) -> None:
        if kept.planned.copy is Copy.SAME_BATCH:
            self._post(kept.body)
            return
        lines = _in_order(json.loads(kept.body)["lines"], kept.planned)
        is_single = kept.planned.copy is Copy.LINE_BY_LINE
        for part in [[one] for one in lines] if is_single else [lines]:
            batch_id = uuid.uuid4().hex
            self._post(encoded({"store_id": self._store_id, "batch_id": batch_id, "lines": part}))

    def _post(self, body: bytes) -> None:
        with self._mutex:
            done(self._client.post("/v1/offline-batches", body))
            self.batches_count += 1

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _in_order(lines: Sequence[Mapping[str, Any]], planned: PlannedCopy) -> list[Mapping[str, Any]]:
    if planned.order is Order.REVERSED:
        return list(reversed(lines))
    if planned.order is Order.AS_SENT:
        return list(lines)
    chance, left, shuffled = Chance(planned.shuffle_seed, "lines"), list(lines), []
    while left:
        shuffled.append(left.pop(chance.below(len(left))))
    return shuffled
