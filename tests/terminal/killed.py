"""A till in a process of its own that ends with SIGKILL at a point that the test names.

Reads orders from the standard input, one JSON document a line. Each is played in a process that is
forked for it; answered is the number of the points that were passed, or that it was killed.
A point is: before and after each write to the disk, before and after each request.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hq_service.terminal.client import Answer
from hq_service.terminal.store import TillStore
from hq_service.terminal.sync import upload
from hq_service.terminal.terminal import Terminal
from tests.terminal.shop import Fate, Line

KILLED = "killed"


class Points:
    """Counts what can be told apart from outside, and ends the process at one of them."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at = kill_at
        self.passed = 0

    def pass_one(self) -> None:
        self.passed += 1
        if self.passed == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


class CountedLine(Line):
    points: Points

    def _send(self, *arguments: Any, **keywords: Any) -> Answer:
        self.points.pass_one()
        try:
            return super()._send(*arguments, **keywords)
        finally:
            self.points.pass_one()


def count_writes(store: TillStore, points: Points) -> None:
    writing = store.writing

    @contextmanager
    def counted() -> Iterator[None]:
        if store._database.in_transaction:
            with writing():
                yield
            return
        with writing():
            yield
            points.pass_one()
        points.pass_one()

    store.writing = counted  # type: ignore[method-assign]


def play(order: Mapping[str, Any], points: Points) -> None:
    line = CountedLine(order["url"], order["key"])
    line.points = points
    names = order["store_id"], order["terminal_id"]
    directory = Path(order["directory"])
    with Terminal(order["url"], order["key"], directory, *names, client=line) as till:
        count_writes(till.store, points)
        sale = till.begin_sale()
        card, memo, other = order["numbers"]
        sale.redeem("gift_card", card, 60_00)
        sale.redeem("credit_memo", memo, 30_00)
        sale.load(other, 20_00)
        if order["story"] == "online":
            sale.remove(2)
            sale.conclude()
            return
        line.always = Fate.ANSWER_LOST
        sale.conclude()
        line.always = Fate.DELIVERED
        till.connect()
        upload(line, till.store, till.setup, till.clock)


def main() -> None:
    for text in sys.stdin:
        order = json.loads(text)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            points = Points(order["kill_at"])
            play(order, points)
            os.write(writing, str(points.passed).encode())
            os._exit(0)
        os.close(writing)
        _, status = os.waitpid(child, 0)
        passed = os.read(reading, 100).decode()
        os.close(reading)
        is_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(KILLED if is_killed else passed or f"failed with {status}", flush=True)


if __name__ == "__main__":
    main()
