"""A proxy that loses messages: on loopback only, for tests and for simulated outages.

It stands between a till and the service and decides of every request what becomes of it: delivered,
lost before the service saw it, delivered with the answer lost, delivered twice, refused as by a
gateway; at once, late, or when somebody lets it go. Whatever is lost, the till is told nothing:
its connection ends, or stays silent until the till gives up.

Every request goes to the service over a connection of its own and is never tried again here, so
what a rule decides is exactly what happens.
"""

from __future__ import annotations

import http.client
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit

LOOPBACK = "127.0.0.1"
BODY_BYTES_MAX = 64 * 1024 * 1024
SERVICE_SECONDS_MAX = 30
IDLE_SECONDS_MAX = 30
LOOK_UP_SECONDS = 0.02
REFUSAL = b"The proxy refuses this request; the service has not seen it.\n"

# What concerns one connection only (RFC 9110, 7.6.1), and the length, which is counted anew.
_NOT_PASSED_ON = frozenset(
    """connection content-length keep-alive proxy-connection te trailer transfer-encoding
    upgrade""".split()
)
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class Fate(StrEnum):
    """What becomes of one request."""

    DELIVERED = "delivered"
    REQUEST_LOST = "request_lost"  # the service never sees it
    ANSWER_LOST = "answer_lost"  # the service has done it, and the till does not know
    DUPLICATED = "duplicated"  # sent twice; the till is told what the second was answered
    REFUSED = "refused"  # 503 without a problem document; the service never sees it


@dataclass(frozen=True, slots=True)
class Request:
    """What a rule decides by. Bodies are not told: they have card numbers in them."""

    method: str
    path: str

    @property
    def route(self) -> str:
        """Return the path as far as it is the same for all: ``/v1/transactions``."""
        return "/".join(self.path.split("/")[:3])


class Gate:
    """Where a request waits until somebody lets it go."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()

    def wait_until_reached(self, seconds_max: float = IDLE_SECONDS_MAX) -> bool:
        """Wait for the request to come; return whether it did."""
        return self._reached.wait(seconds_max)

    def let_go(self) -> None:
        """Let the request go on; one that has not come yet will not wait."""
        self._opened.set()

    def pass_through(self, ends: Callable[[], bool]) -> None:
        """Wait to be let go, or for the end of everything."""
        self._reached.set()
        while not self._opened.wait(LOOK_UP_SECONDS) and not ends():
            pass


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a request, and when.

    A delayed or held request is sent even if its till has given up meanwhile, as a network does it
    that was slow. ``is_silent``: of what is lost the till hears nothing until it gives up itself;
    otherwise its connection ends at once.
    """

    fate: Fate = Fate.DELIVERED
    request_delay_seconds: float = 0
    answer_delay_seconds: float = 0
    gate: Gate | None = None
    is_silent: bool = False


Rule = Callable[[Request], Verdict]


def deliver_all(_request: Request) -> Verdict:
    """Deliver every request."""
    return Verdict()


@dataclass
class SeededChance:
    """A rule by chance. The n-th request of a route has the same fate under the same seed, however
    the requests of different routes are interleaved: to repeat a schedule, give each till a proxy.

    Units:  chances from 0 to 1; the fates' sum is at most 1, ``delayed`` is beside them.
    """

    seed: int
    request_lost: float = 0
    answer_lost: float = 0
    duplicated: float = 0
    refused: float = 0
    delayed: float = 0
    delay_seconds_max: float = 0
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __call__(self, request: Request) -> Verdict:
        """Draw what becomes of a request."""
        route = request.method, request.route
        with self._lock:
            self._counts[route] += 1
            number = self._counts[route]
        # A seed of text is the same in every process and version.
        draw = random.Random(f"{self.seed} {route} {number}")  # noqa: S311 - not a secret
        fate = self._fate(draw.random())
        before, after = (
            draw.uniform(0, self.delay_seconds_max) if draw.random() < self.delayed else 0.0
            for _ in ("request", "answer")
        )
        return Verdict(fate, request_delay_seconds=before, answer_delay_seconds=after)

    def _fate(self, drawn: float) -> Fate:
        for fate, chance in (
            (Fate.REQUEST_LOST, self.request_lost),
            (Fate.ANSWER_LOST, self.answer_lost),
            (Fate.DUPLICATED, self.duplicated),
            (Fate.REFUSED, self.refused),
        ):
            if drawn < chance:
                return fate
            drawn -= chance
        return Fate.DELIVERED


class Proxy:
    """Stands in for the service at ``url``, on a free port of this machine.

    Attributes:
        url: where tills find it; the same as long as the proxy lives, also after an outage.
    """

    def __init__(self, target_url: str, rule: Rule = deliver_all) -> None:
        target = urlsplit(target_url)
        if target.scheme not in ("http", "https") or not target.hostname:
            raise ValueError(
                "The proxy needs the address of a service: one that begins with http:// or"
                " https://."
            )
        self.target = target
        self._rule = rule
        self._planned: list[tuple[str, str, Verdict]] = []
        self._lock = threading.Condition()
        self._counts: Counter[Fate] = Counter()
        self._under_way = 0
        self._sockets: set[socket.socket] = set()
        self._generation = 0
        self._is_down = True
        self._bound: socket.socket | None = _bound_to(0)
        self._port: int = self._bound.getsockname()[1]
        self._server: _Server | None = None
        self.url = f"http://{LOOPBACK}:{self._port}"
        self.come_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # --- what is to happen ------------------------------------------------------------------------

    def set_rule(self, rule: Rule) -> None:
        """Decide by another rule from the next request on."""
        with self._lock:
            self._rule = rule

    def plan(self, method: str, path: str, fate: Fate = Fate.DELIVERED, **more: Any) -> Verdict:
        """Say what becomes of the next request of this kind for which nothing is planned yet.

        ``more`` are the other members of a `Verdict`. Plans come before the rule, each once.
        """
        verdict = Verdict(fate, **more)
        with self._lock:
            self._planned.append((method, path, verdict))
        return verdict

    def hold(self, method: str, path: str, fate: Fate = Fate.DELIVERED) -> Gate:
        """Hold the next request of this kind until its gate is opened."""
        gate = Gate()
        self.plan(method, path, fate, gate=gate)
        return gate

    def go_down(self) -> None:
        """Begin an outage: what is under way is cut, and nobody is let in until `come_up`.

        The port stays taken: it is refused to the tills, and to nobody else's service.
        """
        server, self._server = self._server, None
        if server is None:
            return
        server.stop_listening()
        self._bound = _bound_to(self._port)
        with self._lock:
            self._is_down = True
            self._generation += 1
            cut = list(self._sockets)
        for one in cut:
            _shut(one)
        server.wait_for_threads()

    def come_up(self) -> None:
        """End an outage."""
        if self._server is None:
            assert self._bound is not None  # it is stopped otherwise
            bound, self._bound = self._bound, None
            self._is_down = False
            self._server = _Server(bound, self)

    def stop(self) -> None:
        """End for good: every connection is closed and every thread has ended."""
        self.go_down()
        if self._bound is not None:
            self._bound.close()
            self._bound = None

    # --- what has happened ------------------------------------------------------------------------

    @property
    def counts(self) -> Mapping[Fate, int]:
        """Return how many requests met each fate."""
        with self._lock:
            return dict(self._counts)

    @property
    def unused_plans_count(self) -> int:
        """Return how many plans still wait for their request."""
        with self._lock:
            return len(self._planned)

    def wait_until_idle(self, seconds_max: float = IDLE_SECONDS_MAX) -> bool:
        """Wait until no request is under way, late ones included; return whether that came."""
        with self._lock:
            return self._lock.wait_for(lambda: self._under_way == 0, seconds_max)

    # --- for the connections ----------------------------------------------------------------------

    def begin(self, request: Request) -> tuple[Verdict, Callable[[], bool]]:
        """Decide about a request. Returns: the verdict, and whether it was cut off meanwhile."""
        with self._lock:
            verdict, rule = self._planned_for(request), self._rule
        verdict = verdict or rule(request)
        with self._lock:
            generation = self._generation
            self._under_way += 1
            self._counts[verdict.fate] += 1
        return verdict, lambda: self._generation != generation

    def end(self) -> None:
        """Note that a request is done with."""
        with self._lock:
            self._under_way -= 1
            self._lock.notify_all()

    def watch(self, one: socket.socket) -> None:
        """Cut this socket, too, when an outage begins; at once if it has begun already."""
        with self._lock:
            self._sockets.add(one)
            is_too_late = self._is_down
        if is_too_late:
            _shut(one)

    def forget(self, one: socket.socket) -> None:
        """Leave this socket alone from now on."""
        with self._lock:
            self._sockets.discard(one)

    def _planned_for(self, request: Request) -> Verdict | None:
        for place, (method, path, verdict) in enumerate(self._planned):
            if (method, path) == (request.method, request.path):
                del self._planned[place]
                return verdict
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, bound: socket.socket, proxy: Proxy) -> None:
        super().__init__((LOOPBACK, 0), _Connection, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.proxy = proxy
        self.server_activate()
        arguments = {"poll_interval": LOOK_UP_SECONDS}
        self._listener = threading.Thread(target=self.serve_forever, kwargs=arguments)
        self._listener.start()

    def stop_listening(self) -> None:
        self.shutdown()
        self._listener.join()
        self.socket.close()

    def wait_for_threads(self) -> None:
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a till that hung up: that is what this is for."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    """One connection of a till, with one request after another on it."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.proxy.watch(self.connection)

    def finish(self) -> None:
        self.server.proxy.forget(self.connection)
        with suppress(OSError):  # the till has hung up
            super().finish()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - its name there
        """Log nothing: an address may be a secret."""

    def answer(self) -> None:
        """Do with one request what is decided about it."""
        body = self._body()
        if body is None:
            return
        proxy = self.server.proxy
        verdict, ends = proxy.begin(Request(self.command, urlsplit(self.path).path))
        try:
            self._carry_out(verdict, body, ends)
        except (OSError, http.client.HTTPException):
            self.close_connection = True  # the service is away, or the till has hung up
        finally:
            proxy.end()

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
        elif int(length) > BODY_BYTES_MAX:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            body = self.rfile.read(int(length))
            if len(body) == int(length):
                return body
        self.close_connection = True
        return None

    def _carry_out(self, verdict: Verdict, body: bytes, ends: Callable[[], bool]) -> None:
        if verdict.gate is not None:
            verdict.gate.pass_through(ends)
        _wait(verdict.request_delay_seconds, ends)
        if ends() or verdict.fate is Fate.REQUEST_LOST:
            self._say_nothing(verdict, ends)
        elif verdict.fate is Fate.REFUSED:
            self._tell(HTTPStatus.SERVICE_UNAVAILABLE, [("Content-Type", "text/plain")], REFUSAL)
        else:
            if verdict.fate is Fate.DUPLICATED:
                self._ask_the_service(body)
            status, headers, content = self._ask_the_service(body)
            _wait(verdict.answer_delay_seconds, ends)
            # Lost only now: the service has certainly done what it was asked.
            if ends() or verdict.fate is Fate.ANSWER_LOST:
                self._say_nothing(verdict, ends)
            else:
                self._tell(status, headers, content)

    def _ask_the_service(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        proxy = self.server.proxy
        service = _connection_to(proxy.target)
        service.connect()
        connected = service.sock
        proxy.watch(connected)
        try:
            path = proxy.target.path.rstrip("/") + self.path
            service.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _NOT_PASSED_ON | {"host"}:
                    service.putheader(name, value)
            service.putheader("Host", proxy.target.netloc.rpartition("@")[2])
            service.putheader("Connection", "close")
            if self.command in _WITH_BODY:
                service.putheader("Content-Length", str(len(body)))
            service.endheaders(body or None)
            with service.getresponse() as response:
                return response.status, response.getheaders(), response.read()
        finally:
            proxy.forget(connected)
            service.close()

    def _tell(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _NOT_PASSED_ON:
                self.send_header(name, value)
        if status != HTTPStatus.NOT_MODIFIED and self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _say_nothing(self, verdict: Verdict, ends: Callable[[], bool]) -> None:
        self.close_connection = True
        if verdict.is_silent:
            self.connection.settimeout(LOOK_UP_SECONDS)
            while not ends():
                try:
                    if not self.connection.recv(1):
                        break  # the till has given up
                except TimeoutError:
                    continue


for _method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
    setattr(_Connection, f"do_{_method}", _Connection.answer)


def _connection_to(target: SplitResult) -> http.client.HTTPConnection:
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    assert target.hostname is not None  # the proxy has checked it
    return kind(target.hostname, target.port, timeout=SERVICE_SECONDS_MAX)


def _bound_to(port: int) -> socket.socket:
    """Return a socket that has a port and does not listen: who connects there is refused."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # What is left of the connections before the outage must not keep the port from being used.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((LOOPBACK, port))
    return bound


def _shut(one: socket.socket) -> None:
    with suppress(OSError):  # its own thread was faster
        one.shutdown(socket.SHUT_RDWR)


def _wait(seconds: float, ends: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not ends():
        time.sleep(min(left, LOOK_UP_SECONDS))
