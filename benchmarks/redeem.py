"""Redemptions under a lock, beside Flask's hello, the textbook version and PostgreSQL alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from benchmarks import floors, requests
from benchmarks.balance import greet, with_warm_up
from benchmarks.cards import Wish, card_id, lock, place_at, take_cards, take_turns, wishes_of
from benchmarks.load import Job
from benchmarks.measuring import Figures, Part, Stage, Way, measure_floor, measure_load
from benchmarks.postgres import Database
from benchmarks.servers import FLASK_HELLO, TEXTBOOK, HttpServer, started

FLOOR = "redeem, one statement (pgbench)"
TPCB = "TPC-B-like (pgbench)"


@contextmanager
def ways(stage: Stage) -> Iterator[Mapping[str, Way]]:
    """Start Flask's hello, the textbook version and the service."""
    url, sizes = stage.database.url, stage.sizes
    floors.prepare_tpcb(stage.database, sizes.tpcb_scale)
    servers = (HttpServer(url, FLASK_HELLO), HttpServer(url, TEXTBOOK), HttpServer(url))
    with started(*servers) as (hello, textbook, service):
        yield {
            "Flask hello": lambda: greet(stage, hello, "Flask hello"),
            FLOOR: lambda: in_one_statement(stage),
            "redeem": lambda: redeem(stage, "redeem", stage.database, service, sizes.redeems),
            "textbook redeem": lambda: redeem(
                stage,
                "textbook redeem",
                stage.database,
                textbook,
                sizes.textbook_redeems,
                path="/redemptions",
            ),
            TPCB: lambda: tpcb(stage),
        }


def redeem(
    stage: Stage,
    what: str,
    database: Database,
    server: HttpServer,
    measured: int,
    *,
    path: str = "/v1/redemptions",
) -> Figures:
    """Redeem from different cards, each locked by that till under that key."""
    count, warm_up = with_warm_up(stage, measured)
    wishes = list(wishes_of(database, take_cards(database, count), stage.next_run()))
    lock(database, wishes)
    database.analyse()
    units = [(requests.redemption(wish, database.company, path),) for wish in wishes]
    job = Job(server.port, units, stage.sizes.connections, warm_up, frozenset({201}))
    database.expected_postings += count
    figures, _ = measure_load(stage, what, database, server, [job])
    return figures


def in_one_statement(stage: Stage) -> Figures:
    """Run the statement that the service redeems by."""
    database, sessions = stage.database, stage.sessions
    count = stage.sizes.floor_redeems // sessions * sessions
    run, turns = stage.next_run(), take_turns(database, count)
    places = [place_at(turn, database.counted) for turn in turns]
    lock(
        database,
        [Wish(card_id(place), "S001", "T01", f"floor{run}-{place}") for place in places],
    )
    database.analyse()
    database.expected_postings += count
    return measure_floor(
        stage,
        FLOOR,
        database,
        lambda: floors.run_script(
            database,
            floors.REDEEM,
            count,
            sessions,
            first=turns.start,
            run=run,
            **floors.caller_of(database.company.tills[0]),
        ),
    )


def tpcb(stage: Stage) -> Figures:
    """Run pgbench's own script: a floor that everybody knows."""
    database, count = stage.database, stage.sizes.tpcb_transactions
    return measure_floor(
        stage, TPCB, database, lambda: floors.run_tpcb(database, count, stage.sessions)
    )


PART = Part(
    "redeem",
    "redemption",
    ways,
    {
        "redeem_over_hello": lambda one: one["redeem"]["total_us"] / one["Flask hello"]["total_us"],
        "redeem_over_textbook": lambda one: (
            one["redeem"]["total_us"] / one["textbook redeem"]["total_us"]
        ),
        "redeem_pg_over_floor": lambda one: (
            one["redeem"]["postgres_us"] / one[FLOOR]["postgres_us"]
        ),
        "redeem_wal_bytes": lambda one: one["redeem"]["wal_bytes"],
        "p99_over_median": lambda one: one["redeem"]["p99_ms"] / one["redeem"]["p50_ms"],
    },
)
