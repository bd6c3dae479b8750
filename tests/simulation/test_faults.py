"""What becomes of a request: the same in the client and on real sockets, seen from both ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from hq_service.simulation.faults import (
    Crashed,
    Script,
    SimulatedClient,
    Tally,
    Wire,
    WireInClient,
    WireThroughProxy,
)
from hq_service.simulation.plan import LOST, Crash, Fate, PlannedFate
from hq_service.terminal.client import Unreachable

TIME_OUT_SECONDS = 0.3
LATE_MS = 600


class Counting(ThreadingHTTPServer):
    """A service that counts what arrives."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.arrived: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def wait_for(self, count: int) -> int:
        deadline = time.monotonic() + 5
        while len(self.arrived) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return len(self.arrived)


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Counting

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.arrived.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "11")
        self.end_headers()
        with suppress(OSError):  # the till has given up
            self.wfile.write(b'{"is": "it"}'[:11])

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Counting]:
    service = Counting()
    thread = threading.Thread(target=service.serve_forever, args=(0.02,))
    thread.start()
    yield service
    service.shutdown()
    thread.join()
    service.server_close()


@pytest.fixture(params=["in the client", "on sockets"])
def wire(request: pytest.FixtureRequest, service: Counting) -> Iterator[Wire]:
    made: Wire
    if request.param == "on sockets":
        made = WireThroughProxy(service.url)
    else:
        made = WireInClient(service.url, TIME_OUT_SECONDS)
    yield made
    made.close()


Open = Callable[..., SimulatedClient]


@pytest.fixture
def till(wire: Wire) -> Iterator[Open]:
    opened = []

    def open_one(*fates: PlannedFate, crash: Crash | None = None) -> SimulatedClient:
        script = Script(fates, [crash] if crash else [])
        opened.append(SimulatedClient(wire, "key", Tally(), script))
        opened[-1].wait_at_most(TIME_OUT_SECONDS)
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.mark.parametrize(
    ("fate", "arrives", "is_answered"),
    [
        (Fate.REQUEST_LOST, 0, False),
        (Fate.ANSWER_LOST, 1, False),
        (Fate.DUPLICATED, 2, True),
        (Fate.REFUSED, 0, True),
        (Fate.DELAYED, 1, True),
        (Fate.LATE, 1, False),
    ],
)
def test_a_fate_is_carried_out(
    till: Open, wire: Wire, service: Counting, fate: Fate, arrives: int, is_answered: bool
) -> None:
    delay_ms = {Fate.DELAYED: 50, Fate.LATE: LATE_MS}.get(fate, 0)
    client = till(PlannedFate(1, fate, delay_ms))
    if is_answered:
        answer = client.post("/v1/locks", {})
        assert answer.status == (503 if fate is Fate.REFUSED else 200)
    else:
        with pytest.raises(Unreachable):
            client.post("/v1/locks", {})
    wire.wait_until_idle()
    assert service.wait_for(arrives) == arrives
    assert client._tally.lost == (fate in LOST)


def test_what_is_late_arrives_after_the_till_has_given_up(
    till: Open, wire: Wire, service: Counting
) -> None:
    client = till(PlannedFate(1, Fate.LATE, LATE_MS))
    with pytest.raises(Unreachable):
        client.post("/v1/locks", {})
    assert service.arrived == []
    wire.wait_until_idle()
    assert service.arrived == ["/v1/locks"]


def test_a_silent_loss_takes_as_long_as_the_till_waits(till: Open, service: Counting) -> None:
    client = till(PlannedFate(1, Fate.REQUEST_LOST, is_silent=True))
    begun = time.monotonic()
    with pytest.raises(Unreachable):
        client.post("/v1/locks", {})
    assert time.monotonic() - begun >= TIME_OUT_SECONDS
    assert service.arrived == []


def test_only_the_planned_request_is_hit(till: Open, service: Counting) -> None:
    client = till(PlannedFate(2, Fate.REQUEST_LOST))
    client.post("/v1/first", {})
    with pytest.raises(Unreachable):
        client.post("/v1/second", {})
    client.post("/v1/third", {})
    assert service.arrived == ["/v1/first", "/v1/third"]


@pytest.mark.parametrize("is_answered", [False, True])
def test_a_till_crashes_before_its_request_or_after_the_answer(
    till: Open, service: Counting, is_answered: bool
) -> None:
    client = till(crash=Crash(1, is_answered))
    with pytest.raises(Crashed):
        client.post("/v1/locks", {})
    assert len(service.arrived) == is_answered


def test_a_till_that_hears_nothing_crashes_all_the_same(till: Open, service: Counting) -> None:
    client = till(PlannedFate(1, Fate.ANSWER_LOST), crash=Crash(1, is_answered=True))
    with pytest.raises(Crashed):
        client.post("/v1/locks", {})
    assert len(service.arrived) == 1


def test_nothing_arrives_in_an_outage_and_everything_after_it(
    till: Open, wire: Wire, service: Counting
) -> None:
    client = till()
    client.post("/v1/before", {})
    wire.cut()
    assert wire.is_cut
    with pytest.raises(Unreachable):
        client.post("/v1/meanwhile", {})
    wire.restore()
    assert not wire.is_cut
    client.post("/v1/after", {})
    assert service.arrived == ["/v1/before", "/v1/after"]
