"""Redemptions with few and with many instruments: whether the size of the table is felt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from benchmarks.cards import fill
from benchmarks.measuring import Figures, Part, Stage, Way
from benchmarks.postgres import Database
from benchmarks.redeem import redeem
from benchmarks.servers import HttpServer, started

SMALL, MAIN, LARGE = "redeem, few instruments", "redeem, some instruments", "redeem, many"


@contextmanager
def ways(stage: Stage) -> Iterator[Mapping[str, Way]]:
    """Fill the other databases, and start the service on each."""
    sizes = stage.sizes
    databases = {SMALL: fill(stage.server, sizes.small_instruments, 0, stage.tell)}
    if sizes.large_instruments is None:
        databases[LARGE] = stage.database
    else:
        databases[MAIN] = stage.database
        databases[LARGE] = fill(stage.server, sizes.large_instruments, 0, stage.tell)
    stage.databases += [one for one in databases.values() if one is not stage.database]
    services = [HttpServer(one.url) for one in databases.values()]
    with started(*services):
        yield {
            way: partial(_redeem, stage, way, database, service)
            for (way, database), service in zip(databases.items(), services, strict=True)
        }


def _redeem(stage: Stage, way: str, database: Database, service: HttpServer) -> Figures:
    figures = redeem(stage, way, database, service, stage.sizes.sized_redeems)
    return {**figures, "instruments": float(database.counted + database.numbered)}


PART = Part(
    "scale",
    "redemption by number of instruments",
    ways,
    {"redeem_5m_over_10k": lambda one: one[LARGE]["total_us"] / one[SMALL]["total_us"]},
)
