"""A lock that is denied: many tills want the one card that another one holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from benchmarks import floors, requests
from benchmarks.balance import with_warm_up
from benchmarks.cards import Wish, free, lock, numbered_id, take_numbered
from benchmarks.load import Job
from benchmarks.measuring import Figures, Part, Stage, Way, measure_floor, measure_load
from benchmarks.servers import HttpServer, started
from hq_service.domain.numbers import bucket_of

PLAIN = "denied, as the service asks (pgbench)"
FOR_UPDATE = "denied, SELECT FOR UPDATE first (pgbench)"


@contextmanager
def ways(stage: Stage) -> Iterator[Mapping[str, Way]]:
    """Lock one card for the first till, and start the service."""
    database = stage.database
    place = take_numbered(database, 1)[0]
    holder, asker = database.company.tills[0], database.company.tills[1]
    held = Wish(numbered_id(place), holder.store_id, holder.terminal_id, stage.next_run())
    lock(database, [held])
    database.connection.execute(floors.LOCK_FOR_UPDATE_FUNCTION.encode())
    database.analyse()
    variables = {
        **floors.caller_of(asker),
        "bucket": bucket_of(held.instrument_id),
        "instrument_id": held.instrument_id,
        "transaction_id": stage.next_run(),
    }
    sizes = stage.sizes
    with started(HttpServer(database.url)) as (service,):
        yield {
            PLAIN: lambda: in_sql(stage, PLAIN, floors.DENIED_LOCK, sizes.denials, variables),
            FOR_UPDATE: lambda: in_sql(
                stage,
                FOR_UPDATE,
                floors.DENIED_LOCK_FOR_UPDATE,
                sizes.denials_for_update,
                variables,
            ),
            "denied over HTTP": lambda: over_http(stage, service, place),
        }
    free(database)


def in_sql(
    stage: Stage, what: str, script: str, count: int, variables: Mapping[str, object]
) -> Figures:
    """Ask for the lock from as many sessions as there are connections to the service."""
    database, sessions = stage.database, stage.sizes.connections
    return measure_floor(
        stage,
        what,
        database,
        lambda: floors.run_script(database, script, count, sessions, **variables),
    )


def over_http(stage: Stage, service: HttpServer, place: int) -> Figures:
    """Ask for the lock with a key of its own each time; to be refused is what is expected."""
    count, warm_up = with_warm_up(stage, stage.sizes.locks)
    others = stage.database.company.tills[1:]
    run = stage.next_run()
    units = [
        (requests.lock(others[turn % len(others)], place, f"{run}-{turn}"),)
        for turn in range(count)
    ]
    job = Job(service.port, units, stage.sizes.connections, warm_up, frozenset({423}))
    figures, _ = measure_load(stage, "denied over HTTP", stage.database, service, [job])
    return figures


PART = Part(
    "denied",
    "denied lock on one hot card",
    ways,
    {
        "denied_lock_over_for_update": lambda one: (
            one[PLAIN]["per_second"] / one[FOR_UPDATE]["per_second"]
        )
    },
)
