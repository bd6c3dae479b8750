"""Terminal journals: which sequence numbers have arrived."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from hq_service.domain.journals import Journal
from hq_service.store.arrays import text_array
from hq_service.store.database import Connection
from hq_service.store.statements import statement

Name = tuple[str, str]
"""Terminal and journal."""

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
            "arrived": text_array(_literal(one) for one in journals.values()),
            **_name_arrays(journals),
        },
    )


def read(connection: Connection, store_id: str, batch_id: str | None = None) -> dict[Name, Journal]:
    """Return the journals of a store, or those that a batch continued."""
    return _journals(
        connection.execute(statement("read_journals"), {"store_id": store_id, "batch_id": batch_id})
    )


def _journals(rows: Iterable[tuple[str, str, str]]) -> dict[Name, Journal]:
    return {
        (terminal_id, journal_id): Journal(
            (int(start), int(end)) for start, end in _RANGE.findall(arrived)
        )
        for terminal_id, journal_id, arrived in rows
    }


def _name_arrays(names: Iterable[Name]) -> dict[str, str]:
    listed = list(names)
    return {
        "terminal_ids": text_array(name[0] for name in listed),
        "journal_ids": text_array(name[1] for name in listed),
    }


def _literal(journal: Journal) -> str:
    return "{" + ",".join(f"[{start},{end})" for start, end in journal.ranges) + "}"
