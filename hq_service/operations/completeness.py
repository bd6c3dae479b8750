"""Which registers have delivered everything up to a business date."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from hq_service.domain.completeness import Completeness, Delivery, Summary, is_left_out, judge
from hq_service.domain.errors import NotFound
from hq_service.store import presence, terminals
from hq_service.store.database import Connection, reading

PART_REGISTERS = 2_000

Place = tuple[str, str]


@reading
def report(
    connection: Connection,
    business_date: date,
    *,
    store_id: str | None,
    only_incomplete: bool,
    after: Place | None,
    limit: int,
) -> tuple[Summary, list[Completeness], Place | None]:
    """Return how complete all registers are, and one page of them by store and id; the place where
    it ends is None on the last.

    The summary is of all of them, or of those of one store, whatever the page: everything is read,
    a part of `PART_REGISTERS` in one statement.

    Raises:  NotFound ``store_not_found``.
    """
    if store_id is not None and not terminals.store_exists(store_id):
        raise NotFound(code="store_not_found")
    summary = Summary()
    told: list[Completeness] = []
    for delivery in _all(connection, store_id):
        found = judge(delivery, business_date)
        if is_left_out(found, business_date):
            summary.registers_left_out_count += 1
            continue
        summary.add(found)
        is_wanted = not (only_incomplete and found.is_complete)
        if is_wanted and len(told) <= limit and (after is None or _place_of(delivery) > after):
            told.append(found)
    place = _place_of(told[limit - 1].delivery) if len(told) > limit else None
    return summary, told[:limit], place


def _all(connection: Connection, store_id: str | None) -> Iterator[Delivery]:
    after: Place | None = None
    while True:
        part = presence.deliveries(connection, store_id=store_id, after=after, limit=PART_REGISTERS)
        yield from part
        if len(part) < PART_REGISTERS:
            return
        after = _place_of(part[-1])


def _place_of(delivery: Delivery) -> Place:
    return delivery.register.store_id, delivery.register.terminal_id
