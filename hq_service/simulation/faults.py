"""What becomes of a till's requests, as the plan says: in the client, or on real sockets.

Both carry out the same plan. In the client a fate is decided before or after the real request; on
sockets a proxy of the till's own cuts, delays and doubles what was really sent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlsplit

from hq_service.simulation.plan import LOST, Crash, Fate, PlannedFate
from hq_service.terminal import proxy
from hq_service.terminal.client import Answer, Client, Unreachable

IDLE_SECONDS_MAX = 60
_REFUSED = Answer(503, content=b"A gateway refuses this request; the service has not seen it.\n")
_FATES_OF_PROXY = {
    Fate.REQUEST_LOST: proxy.Fate.REQUEST_LOST,
    Fate.ANSWER_LOST: proxy.Fate.ANSWER_LOST,
    Fate.DUPLICATED: proxy.Fate.DUPLICATED,
    Fate.REFUSED: proxy.Fate.REFUSED,
}


class Crashed(BaseException):
    """The till's program has ended: nothing of it may go on, not even what handles errors."""


class Script:
    """What becomes of the next requests, one after the other, counted from 1."""

    def __init__(self, fates: Iterable[PlannedFate] = (), crashes: Iterable[Crash] = ()) -> None:
        self._fates = {one.request: one for one in fates}
        self._crashes = {one.request: one for one in crashes}
        self._requests = 0

    def next(self) -> tuple[PlannedFate | None, Crash | None]:
        """Return what becomes of the next request, and whether the till ends at it."""
        self._requests += 1
        return self._fates.get(self._requests), self._crashes.get(self._requests)


Deliver = Callable[[], Answer]


class Wire(Protocol):
    """The way from one till to HQ; ``url`` is where the till finds HQ."""

    url: str

    def cut(self) -> None:
        """Begin an outage; nothing happens if there is one."""

    def restore(self) -> None:
        """End an outage; nothing happens if there is none."""

    @property
    def is_cut(self) -> bool:
        """Tell whether there is an outage."""

    def carry(
        self, planned: PlannedFate, method: str, path: str, send: Deliver, send_late: Deliver
    ) -> Answer:
        """Send a request that is not simply delivered.

        ``send_late`` sends it from another thread.

        Raises:  Unreachable.
        """

    def wait_until_idle(self) -> None:
        """Wait until everything that is late has arrived."""

    def close(self) -> None:
        """End for good."""


class WireInClient:
    """Decides in the client: quick, and without a socket more than the service's own."""

    def __init__(self, url: str, time_out_seconds: float) -> None:
        self.url = url
        self._time_out_seconds = time_out_seconds
        self._is_cut = False
        self._late: list[threading.Thread] = []

    @property
    def is_cut(self) -> bool:
        """Tell whether there is an outage."""
        return self._is_cut

    def cut(self) -> None:
        """Begin an outage."""
        self._is_cut = True

    def restore(self) -> None:
        """End an outage."""
        self._is_cut = False

    def carry(
        self, planned: PlannedFate, _method: str, _path: str, send: Deliver, send_late: Deliver
    ) -> Answer:
        """Send a request that is not simply delivered.

        Raises:  Unreachable.
        """
        fate = planned.fate
        if fate is Fate.REFUSED:
            return _REFUSED
        if fate is Fate.DELAYED:
            time.sleep(planned.delay_ms / 1000)
        if fate is Fate.LATE:
            self._send_late(planned.delay_ms / 1000, send_late)
        elif fate is not Fate.REQUEST_LOST:
            answer = send()
            if fate is Fate.DUPLICATED:
                answer = send()
            if fate is not Fate.ANSWER_LOST:
                return answer
        if planned.is_silent or fate is Fate.LATE:
            time.sleep(self._time_out_seconds)
        raise Unreachable(f"{self.url} did not answer: {fate.replace('_', ' ')}.")

    def _send_late(self, seconds: float, send: Deliver) -> None:
        def send_then() -> None:
            time.sleep(seconds)
            with suppress(Unreachable):
                send()

        late = threading.Thread(target=send_then, daemon=True)
        self._late.append(late)
        late.start()

    def wait_until_idle(self) -> None:
        """Wait until everything that is late has arrived."""
        for one in self._late:
            one.join(IDLE_SECONDS_MAX)

    def close(self) -> None:
        """Do nothing: what is late ends by itself."""


class WireThroughProxy:
    """A proxy of the till's own: sockets are really cut, and requests really late."""

    def __init__(self, url: str) -> None:
        self._proxy = proxy.Proxy(url)
        self.url = self._proxy.url
        self._is_cut = False

    @property
    def is_cut(self) -> bool:
        """Tell whether there is an outage."""
        return self._is_cut

    def cut(self) -> None:
        """Begin an outage."""
        self._is_cut = True
        self._proxy.go_down()

    def restore(self) -> None:
        """End an outage."""
        self._is_cut = False
        self._proxy.come_up()

    def carry(
        self, planned: PlannedFate, method: str, path: str, send: Deliver, _send_late: Deliver
    ) -> Answer:
        """Say to the proxy what becomes of the request, and send it.

        Raises:  Unreachable.
        """
        self._proxy.plan(
            method,
            urlsplit(path).path,
            _FATES_OF_PROXY.get(planned.fate, proxy.Fate.DELIVERED),
            request_delay_seconds=planned.delay_ms / 1000,
            is_silent=planned.is_silent,
        )
        return send()

    def wait_until_idle(self) -> None:
        """Wait until everything that is late has arrived."""
        self._proxy.wait_until_idle(IDLE_SECONDS_MAX)

    def close(self) -> None:
        """Stop the proxy."""
        self._proxy.stop()


class Tally:
    """What has happened to the requests of one till."""

    def __init__(self) -> None:
        self.requests = 0
        self.lost = 0
        self.faults = 0


class SimulatedClient(Client):
    """A till's client whose requests have the fates of a script.

    ``before_posting`` sees what is posted before it is sent. It is not called by repeats in here.
    """

    def __init__(
        self,
        wire: Wire,
        key: str,
        tally: Tally,
        script: Script,
        before_posting: Callable[[str, bytes], None] | None = None,
    ) -> None:
        super().__init__(wire.url, key)
        self.script = script
        self._wire = wire
        self._key = key
        self._tally = tally
        self._before_posting = before_posting

    def _send(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        more_headers: Mapping[str, str] | None = None,
    ) -> Answer:
        planned, crash = self.script.next()
        self._tally.requests += 1
        if crash is not None and not crash.is_answered:
            raise Crashed
        try:
            answer = self._carried(planned, method, path, content, more_headers)
        except Unreachable:
            if crash is not None:
                raise Crashed from None
            raise
        if crash is not None:
            raise Crashed
        return answer

    def _carried(
        self,
        planned: PlannedFate | None,
        method: str,
        path: str,
        content: bytes | None,
        more_headers: Mapping[str, str] | None,
    ) -> Answer:
        if self._wire.is_cut:
            raise Unreachable(f"{self.url} cannot be reached: there is an outage.")
        if content is not None and self._before_posting is not None:
            self._before_posting(path, content)

        def send() -> Answer:
            return super(SimulatedClient, self)._send(method, path, content, more_headers)

        def send_late() -> Answer:
            with Client(self.url, self._key) as client:
                return client.post(path, content) if content is not None else client.get(path)

        if planned is None:
            return send()
        self._tally.faults += 1
        self._tally.lost += planned.fate in LOST
        return self._wire.carry(planned, method, path, send, send_late)
