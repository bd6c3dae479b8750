"""The load generator: fixed work, every request distinct and sent exactly once.

Not wrk: that sends the same requests for a time and counts how many it managed, while what a run
must post has to be known before. A process of its own, so that it shares no interpreter lock with
anything; the requests are made before, and of an answer only the status and the length are read,
so that its share of the CPU stays small. Each connection is kept alive and has one request under
way at a time.

Imports nothing but the standard library, as each process of it is started anew.
"""

from __future__ import annotations

import json
import pickle
import re
import selectors
import socket
import subprocess
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

ROOT = Path(__file__).resolve().parent.parent
RECEIVE_BYTES = 262_144
PATIENCE_SECONDS = 60.0
"""When no answer came for so long, those under way are counted as lost."""
KEPT_BYTES = 65_536
"""As much of an answer is kept, for the lock id or the code of a refusal in it."""
LOST = 0
"""The status of a request whose connection broke."""

LOCK_ID_OF_LAST_ANSWER = b"00000000-0000-0000-0000-00000010c41d"
"""In a request: the lock id that the answer before it told, of the same length."""

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)")
_LOCK_ID = re.compile(rb'"lock_id":"([0-9a-f-]{36})"')

Unit = tuple[bytes, ...]
"""Requests that are sent one after the other on one connection."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one process sends: ``warm_up`` units first, the others when it is told to.

    ``expected`` are the statuses of an answer that counts as done.
    """

    port: int
    units: Sequence[Unit]
    connections: int
    warm_up: int = 0
    expected: frozenset[int] = frozenset({200, 201})


@dataclass(slots=True)
class Done:
    """What came of a job. Instants are of the machine's monotonic clock, in seconds.

    ``started`` and ``latencies`` have one entry per request; ``cpu_seconds`` is the process's own.
    """

    begun_at: float = 0.0
    ended_at: float = 0.0
    cpu_seconds: float = 0.0
    units: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    started: Sequence[float] = ()
    latencies: Sequence[float] = ()

    @property
    def seconds(self) -> float:
        """From the first request to the last answer."""
        return self.ended_at - self.begun_at


class LoadFailed(Exception):
    """A load generator ended without a result."""


class Load:
    """Processes that send requests, one per job.

    Started when the block begins; `warm_up`, then `go`, then `results`.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        for job in self._jobs:
            process = subprocess.Popen(
                [sys.executable, "-c", "from benchmarks.load import work; work()"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._processes.append(process)
            self._tell(process, job)
        self._hear()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            if error is not None:
                process.kill()
            process.communicate()

    def warm_up(self) -> list[Done]:
        """Send what is not measured, if only nothing, and return what came of it."""
        self.go()
        return self._hear()

    def go(self) -> None:
        """Let all processes send."""
        for process in self._processes:
            self._tell(process, True)

    def results(self) -> list[Done]:
        """Wait for the last answer and return what came of each job."""
        return self._hear()

    def _tell(self, process: subprocess.Popen[bytes], message: Any) -> None:
        assert process.stdin is not None
        pickle.dump(message, process.stdin)
        process.stdin.flush()

    def _hear(self) -> list[Done]:
        heard = []
        for process in self._processes:
            assert process.stdout is not None
            try:
                # From the process started above, and nobody else.
                heard.append(pickle.load(process.stdout))  # noqa: S301
            except EOFError:
                raise LoadFailed("A load generator ended early; its words are above.") from None
        return heard


class _Connection:
    """One connection and where it is: which request of which unit, and how much is missing."""

    __slots__ = ("answer", "missing", "request", "sock", "started_at", "unit")

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.unit: Unit = ()
        self.request = 0
        self.answer = b""
        self.missing = -1
        self.started_at = 0.0

    def send(self, *, lock_id: bytes = b"") -> None:
        """Send the next request of the unit."""
        request = self.unit[self.request]
        if lock_id:
            request = request.replace(LOCK_ID_OF_LAST_ANSWER, lock_id, 1)
        self.request += 1
        self.answer, self.missing = b"", -1
        self.started_at = time.monotonic()
        assert self.sock is not None
        self.sock.sendall(request)

    def is_answered(self) -> bool:
        """Read what has come; tell whether the answer is whole. A long body is only counted.

        Raises:  ConnectionError when the server has closed.
        """
        assert self.sock is not None
        data = self.sock.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError
        if self.missing >= 0:
            self.missing -= len(data)
            if len(self.answer) < KEPT_BYTES:
                self.answer += data
            return self.missing <= 0
        self.answer += data
        end = self.answer.find(b"\r\n\r\n")
        if end < 0:
            return False
        length = _LENGTH.search(self.answer, 0, end + 2)
        self.missing = int(length[1]) - (len(self.answer) - end - 4) if length else 0
        return self.missing <= 0


class _Sender:
    """Sends units over some connections until all are answered.

    A connection is made when it has something to send: gunicorn keeps a thread for each new one
    until its first request is there. One that the server closed while it had nothing to do is made
    again.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.connections = [_Connection() for _ in range(job.connections)]
        self.poller = selectors.DefaultSelector()
        self.waiting: deque[Unit] = deque()
        self.under_way: set[_Connection] = set()
        self.statuses: Counter[int] = Counter()
        self.refusals: Counter[str] = Counter()
        self.started, self.latencies = array("d"), array("d")

    def run(self, units: Sequence[Unit]) -> Done:
        """Send these units."""
        self.waiting.extend(units)
        self.statuses, self.refusals = Counter(), Counter()
        self.started, self.latencies = array("d"), array("d")
        cpu_before, begun_at = time.process_time(), time.monotonic()
        for connection in self.connections:
            self._next_unit(connection)
        while self.under_way:
            events = self.poller.select(PATIENCE_SECONDS)
            for key, _events in events:
                self._hear(key.data)
            if not events:
                for connection in list(self.under_way):
                    self._answered(connection, LOST)
        return Done(
            begun_at,
            time.monotonic(),
            time.process_time() - cpu_before,
            len(units),
            dict(self.statuses),
            dict(self.refusals),
            self.started,
            self.latencies,
        )

    def _hear(self, connection: _Connection) -> None:
        try:
            if connection.is_answered():
                self._answered(connection, int(connection.answer[9:12]))
        except ConnectionError:
            self._close(connection)
            if connection in self.under_way:
                self._answered(connection, LOST)

    def _answered(self, connection: _Connection, status: int) -> None:
        """Note an answer, and go on with the unit or with the next one."""
        self.started.append(connection.started_at)
        self.latencies.append(time.monotonic() - connection.started_at)
        self.statuses[status] += 1
        if status in self.job.expected and connection.request < len(connection.unit):
            connection.send(lock_id=_told_lock(connection.answer))
            return
        if status == LOST:
            self._close(connection)
        elif status not in self.job.expected:
            self.refusals[_code(connection.answer)] += 1
        self.under_way.discard(connection)
        self._next_unit(connection)

    def _next_unit(self, connection: _Connection) -> None:
        """Begin the next unit on a connection, if there is one."""
        if not self.waiting:
            return
        connection.unit, connection.request = self.waiting.popleft(), 0
        if connection.sock is not None and _is_closed(connection.sock):
            self._close(connection)
        if connection.sock is None:
            connection.sock = socket.create_connection(("127.0.0.1", self.job.port))
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.poller.register(connection.sock, selectors.EVENT_READ, connection)
        self.under_way.add(connection)
        connection.send()

    def _close(self, connection: _Connection) -> None:
        if connection.sock is not None:
            self.poller.unregister(connection.sock)
            connection.sock.close()
            connection.sock = None


def _is_closed(sock: socket.socket) -> bool:
    """Tell whether the server has closed a connection that has nothing under way."""
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def _told_lock(answer: bytes) -> bytes:
    found = _LOCK_ID.search(answer)
    return found[1] if found else b""


def _code(answer: bytes) -> str:
    """Return the code of a refusal; of an answer that is none, its status line."""
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        return str(json.loads(body)["code"])
    except (ValueError, KeyError, TypeError):
        return head.partition(b"\r\n")[0].decode("latin-1")


def work() -> None:
    """Do the job that the parent sends over standard input, at its word."""
    inwards, outwards = sys.stdin.buffer, sys.stdout.buffer
    job: Job = pickle.load(inwards)  # noqa: S301 - from the parent, and nobody else
    sender = _Sender(job)
    _answer(outwards, Done())
    for units in (job.units[: job.warm_up], job.units[job.warm_up :]):
        pickle.load(inwards)  # noqa: S301 - from the parent, and nobody else
        _answer(outwards, sender.run(units))


def _answer(outwards: IO[bytes], done: Done) -> None:
    pickle.dump(done, outwards)
    outwards.flush()
