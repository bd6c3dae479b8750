"""Online redemptions of cards that a batch touches at the same time: how long they wait."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from benchmarks import requests
from benchmarks.balance import with_warm_up
from benchmarks.batches import Poster, make_lines, units_of
from benchmarks.cards import lock, take_cards, wishes_of
from benchmarks.company import STORES
from benchmarks.load import Job
from benchmarks.measuring import Figures, Part, Stage, Way, latencies_of, measure_load
from benchmarks.requests import JSON
from benchmarks.servers import HttpServer, started

CONNECTIONS = 4
"""A few counters that are busy at once: more would show how long their own queue is."""

BATCHES = 2


@contextmanager
def ways(stage: Stage) -> Iterator[Mapping[str, Way]]:
    """Start the service."""
    with started(HttpServer(stage.database.url)) as (service,):
        Poster(stage, service).warm_up()
        yield {
            "redeem, alone": lambda: redeem(stage, service, batches=0),
            "redeem, beside a batch": lambda: redeem(stage, service, batches=BATCHES),
        }


def redeem(stage: Stage, service: HttpServer, *, batches: int) -> Figures:
    """Redeem from cards that the tills have locked, while lines of a batch take from them too."""
    database = stage.database
    count, warm_up = with_warm_up(stage, stage.sizes.redeems_beside_batches)
    cards = take_cards(database, count)
    wishes = list(wishes_of(database, cards, stage.next_run()))
    lock(database, wishes)
    jobs = [
        Job(
            service.port,
            [(requests.redemption(wish, database.company),) for wish in wishes],
            CONNECTIONS,
            warm_up,
            expected=frozenset({201}),
        )
    ]
    if batches:
        lines = stage.sizes.lines_beside
        # The cards of the redemptions come again and again, all through the batch.
        touched = [cards[place % len(cards)] for place in range(lines)]
        made = [make_lines(stage, STORES[0], touched) for _ in range(batches)]
        jobs.append(Job(service.port, units_of(made, database.company.sync_keys, JSON), 1))
        database.expected_postings += lines * batches
    database.expected_postings += count
    database.analyse()
    figures, done = measure_load(stage, "redeem beside a batch", database, service, jobs)
    if not batches:
        return figures
    online, posted = done[0], done[1]
    met = [
        latency
        for started_at, latency in zip(online.started, online.latencies, strict=True)
        if posted.begun_at <= started_at <= posted.ended_at
    ]
    # The figures of CPU are of both together, which says nothing of a redemption.
    kept = {name: figures[name] for name in ("load_share", "others_share")}
    return {
        **kept,
        "operations": float(len(met)),
        "seconds": online.seconds,
        "per_second": online.units / online.seconds,
        **latencies_of(met),
    }


PART = Part("beside", "online redemptions beside a batch", ways, {})
