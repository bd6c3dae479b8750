"""Balance inquiries, beside what HTTP, Flask and PostgreSQL cost alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from benchmarks import floors, requests
from benchmarks.cards import take_numbered, take_turns
from benchmarks.load import Job
from benchmarks.measuring import Figures, Part, Stage, Way, measure_floor, measure_load
from benchmarks.servers import BARE_WSGI, FLASK_HELLO, HttpServer, started

WARM_UP_SHARE = 10
"""One unit in so many is sent before the measuring begins; at least one per connection."""


@contextmanager
def ways(stage: Stage) -> Iterator[Mapping[str, Way]]:
    """Start a bare WSGI callable, Flask's hello and the service."""
    url = stage.database.url
    servers = (HttpServer(url, BARE_WSGI), HttpServer(url, FLASK_HELLO), HttpServer(url))
    with started(*servers) as (bare, hello, service):
        yield {
            "SELECT by key (pgbench)": lambda: select_by_key(stage),
            "bare WSGI": lambda: greet(stage, bare, "bare WSGI"),
            "Flask hello": lambda: greet(stage, hello, "Flask hello"),
            "balance inquiry": lambda: inquire(stage, service),
        }


def with_warm_up(stage: Stage, count: int) -> tuple[int, int]:
    """Return how many units to make for so many that are measured, and those to warm up with."""
    warm_up = max(stage.sizes.connections, count // WARM_UP_SHARE)
    return count + warm_up, warm_up


def greet(stage: Stage, server: HttpServer, what: str) -> Figures:
    """Say hello so many times."""
    count, warm_up = with_warm_up(stage, stage.sizes.hellos)
    units = [(requests.get(f"/hello?place={place}"),) for place in range(count)]
    job = Job(server.port, units, stage.sizes.connections, warm_up)
    figures, _ = measure_load(stage, what, stage.database, server, [job])
    return figures


def inquire(stage: Stage, service: HttpServer) -> Figures:
    """Ask for the balances of different cards, the tills in turn."""
    count, warm_up = with_warm_up(stage, stage.sizes.balances)
    tills = stage.database.company.tills
    units = [
        (requests.balance_inquiry(tills[place % len(tills)], place),)
        for place in take_numbered(stage.database, count)
    ]
    job = Job(service.port, units, stage.sizes.connections, warm_up)
    figures, _ = measure_load(stage, "balance inquiry", stage.database, service, [job])
    return figures


def select_by_key(stage: Stage) -> Figures:
    """Read different cards by their ids, with the service's own statement."""
    database, count = stage.database, stage.sizes.selects
    first = take_turns(database, count).start
    return measure_floor(
        stage,
        "SELECT by key (pgbench)",
        database,
        lambda: floors.run_script(
            database, floors.SELECT_BY_KEY, count, stage.sessions, first=first
        ),
    )


PART = Part(
    "balance",
    "balance inquiry",
    ways,
    {
        "balance_over_hello": lambda one: (
            one["balance inquiry"]["total_us"] / one["Flask hello"]["total_us"]
        )
    },
)
