"""Locks, and locks with the redemptions that follow them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from benchmarks import requests
from benchmarks.balance import greet, with_warm_up
from benchmarks.cards import Wish, free, numbered_id, take_numbered
from benchmarks.load import Job
from benchmarks.measuring import Figures, Part, Stage, Way, measure_load
from benchmarks.servers import FLASK_HELLO, HttpServer, started


@contextmanager
def ways(stage: Stage) -> Iterator[Mapping[str, Way]]:
    """Start Flask's hello and the service."""
    url = stage.database.url
    with started(HttpServer(url, FLASK_HELLO), HttpServer(url)) as (hello, service):
        yield {
            "Flask hello": lambda: greet(stage, hello, "Flask hello"),
            "lock": lambda: lock(stage, service),
            "lock + redeem": lambda: lock_and_redeem(stage, service),
        }


def lock(stage: Stage, service: HttpServer) -> Figures:
    """Lock different cards, the tills in turn."""
    count, warm_up = with_warm_up(stage, stage.sizes.locks)
    database, run = stage.database, stage.next_run()
    tills = database.company.tills
    units = [
        (requests.lock(tills[place % len(tills)], place, f"{run}-{place}"),)
        for place in take_numbered(database, count)
    ]
    # Created: a lock that was asked again would be cheaper.
    job = Job(service.port, units, stage.sizes.connections, warm_up, frozenset({201}))
    database.analyse()
    figures, _ = measure_load(stage, "lock", database, service, [job])
    held = database.value("SELECT count(*) FROM live_locks")
    if held != count:
        stage.faults.append(f"lock: {held} locks are held after {count} were given.")
    free(database)
    return figures


def lock_and_redeem(stage: Stage, service: HttpServer) -> Figures:
    """Lock different cards and redeem each under its lock: what a sale at the counter is."""
    count, warm_up = with_warm_up(stage, stage.sizes.cycles)
    database, run = stage.database, stage.next_run()
    tills = database.company.tills
    units = []
    for place in take_numbered(database, count):
        till = tills[place % len(tills)]
        transaction_id = f"{run}-{place}"
        wish = Wish(numbered_id(place), till.store_id, till.terminal_id, transaction_id)
        redemption = requests.redemption_under_the_last_lock(wish, database.company)
        units.append((requests.lock(till, place, transaction_id), redemption))
    job = Job(service.port, units, stage.sizes.connections, warm_up, frozenset({201}))
    database.expected_postings += count
    database.analyse()
    figures, _ = measure_load(stage, "lock + redeem", database, service, [job])
    return figures


PART = Part(
    "lock",
    "lock",
    ways,
    {"lock_over_hello": lambda one: one["lock"]["total_us"] / one["Flask hello"]["total_us"]},
)
