"""Terminal journals: which sequence numbers have arrived."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from hq_service.domain.journals import Journal
from hq_service.store.arrays import array
from hq_service.store.database import Connection
from hq_service.store.statements import statement

Name = tuple[str, str]
"""Terminal and journal."""

Place = tuple[str, str]
"""Store and terminal."""

_RANGE = re.compile(r"\[(\d+),(\d+)\)")


def load_for_update(
    connection: Connection, store_id: str, names: Iterable[Name]
) -> dict[Name, Journal]:
    """Lock the rows of some journals, in order and before any instrument, and return them."""
    wanted = {"store_id": store_id, **_name_arrays(sorted(set(names)))}
    with connection.pipeline():
        connection.execute(statement("ensure_journals"), wanted)
        return _journals(connection.execute(statement("load_journals_for_update"), wanted))


def update(connection: Connection, store_id: str, journals: Mapping[Name, Journal]) -> None:
    """Write back what has arrived. Call it inside a pipeline."""
    connection.execute(
        statement("update_journals"),
        {
            "store_id": store_id,
            "arrived": array(_literal(one) for one in journals.values()),
            **_name_arrays(journals),
        },
    )


def read(connection: Connection, store_id: str) -> dict[Name, Journal]:
    """Return the journals of a store."""
    return _journals(connection.execute(statement("read_journals"), {"store_id": store_id}))


def read_with_gaps(
    connection: Connection, store_id: str, terminal_ids: Iterable[str]
) -> dict[Name, Journal]:
    """Return those journals of some terminals of which something is missing."""
    wanted = {"store_id": store_id, "terminal_ids": array(terminal_ids)}
    return _journals(connection.execute(statement("read_journals_with_gaps"), wanted))


def read_named(connection: Connection, store_id: str, names: Iterable[Name]) -> dict[Name, Journal]:
    """Return some journals of a store."""
    wanted = {"store_id": store_id, **_name_arrays(names)}
    return _journals(connection.execute(statement("read_journals_by_name"), wanted))


def read_of_terminal(
    connection: Connection, store_id: str, terminal_id: str, named: Iterable[str], limit: int
) -> dict[str, Journal]:
    """Return journals of a terminal by their ids, those that it names first."""
    rows = connection.execute(
        statement("read_journals_of_terminal"),
        {
            "store_id": store_id,
            "terminal_id": terminal_id,
            "journal_ids": array(named),
            "limit": limit,
        },
    )
    return {journal_id: journal for (_, journal_id), journal in _journals(rows).items()}


def read_of_registers(
    connection: Connection, places: Iterable[Place]
) -> dict[Place, list[Journal]]:
    """Return the journals of some registers; a register without any is not among them."""
    listed = list(places)
    rows = connection.execute(
        statement("read_journals_of_registers"),
        {
            "store_ids": array(place[0] for place in listed),
            "terminal_ids": array(place[1] for place in listed),
        },
    )
    found: dict[Place, list[Journal]] = {}
    for store_id, terminal_id, _, arrived in rows:
        found.setdefault((store_id, terminal_id), []).append(journal_from(arrived))
    return found


def journal_from(arrived: str) -> Journal:
    """Return the journal of which a multirange, written as text, has arrived."""
    return Journal((int(start), int(end)) for start, end in _RANGE.findall(arrived))


def _journals(rows: Iterable[tuple[str, str, str]]) -> dict[Name, Journal]:
    return {
        (terminal_id, journal_id): journal_from(arrived)
        for terminal_id, journal_id, arrived in rows
    }


def _name_arrays(names: Iterable[Name]) -> dict[str, str]:
    listed = list(names)
    return {
        "terminal_ids": array(name[0] for name in listed),
        "journal_ids": array(name[1] for name in listed),
    }


def _literal(journal: Journal) -> str:
    return "{" + ",".join(f"[{start},{end})" for start, end in journal.ranges) + "}"
