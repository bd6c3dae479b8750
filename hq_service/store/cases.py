"""Cases: the open questions that settlement left for an administrator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from hq_service.domain.model import Line, UnreadableLine
from hq_service.domain.outcomes import LineResult, case_id_of_notice
from hq_service.domain.resolving import Case
from hq_service.store.arrays import plain_array, text_array
from hq_service.store.database import Connection
from hq_service.store.statements import statement


@dataclass(frozen=True, slots=True)
class Notice:
    """What a terminal's lines of a batch have in common; ``terminal_id`` empty for the whole."""

    code: str
    terminal_id: str
    detail: str


def insert(
    connection: Connection,
    batch_id: str | None,
    opened: Sequence[tuple[Line | UnreadableLine, LineResult]],
    now: datetime,
) -> None:
    """Open cases; one that is there already stays as it is. Call it inside a pipeline."""
    readable = [line if isinstance(line, Line) else None for line, _ in opened]
    results = [result for _, result in opened]
    contents = [
        result.undone or (line.content if isinstance(line, Line) else None)
        for line, result in opened
    ]
    connection.execute(
        statement("insert_cases"),
        {
            "batch_id": batch_id,
            "opened_at": now,
            "case_ids": plain_array(result.case_id for result in results),
            "outcomes": text_array(result.outcome for result in results),
            "codes": text_array(" ".join(result.codes) for result in results),
            "store_ids": text_array(
                line.key.store_id if isinstance(line, Line) else line.store_id for line, _ in opened
            ),
            "terminal_ids": text_array(line.key.terminal_id if line else None for line in readable),
            "transaction_ids": text_array(
                line.key.transaction_id if line else None for line in readable
            ),
            "lines": plain_array(line.key.line if line else None for line in readable),
            "operations": text_array(line.operation if line else None for line in readable),
            "instrument_ids": plain_array(
                line.instrument_id if line else None for line in readable
            ),
            "amounts_minor": plain_array(one.amount_minor if one else None for one in contents),
            "shortfalls_minor": plain_array(result.shortfall_minor for result in results),
            "currencies": text_array(one.currency if one else None for one in contents),
            "positions": plain_array(line.position for line, _ in opened),
        },
    )


def insert_notices(
    connection: Connection,
    store_id: str,
    batch_id: str,
    notices: Sequence[Notice],
    now: datetime,
) -> None:
    """Open one case per terminal and batch for each notice. Call it inside a pipeline."""
    connection.execute(
        statement("insert_notices"),
        {
            "store_id": store_id,
            "batch_id": batch_id,
            "now": now,
            "case_ids": plain_array(
                case_id_of_notice(store_id, batch_id, one.terminal_id, one.code) for one in notices
            ),
            "codes": text_array(one.code for one in notices),
            "terminal_ids": text_array(one.terminal_id or None for one in notices),
            "details": text_array(one.detail for one in notices),
        },
    )


def close_gap_notices(
    connection: Connection, store_id: str, terminal_ids: Sequence[str], now: datetime
) -> None:
    """Close the notices of gaps of terminals that have none any more."""
    connection.execute(
        statement("close_gap_notices"),
        {"store_id": store_id, "terminal_ids": text_array(terminal_ids), "now": now},
    )


def read_waiting(connection: Connection, limit: int) -> list[tuple[UUID, str, str, int]]:
    """Return (case, store, batch, position) of held lines whose wait is over."""
    return connection.execute(statement("read_waiting_lines"), {"limit": limit}).fetchall()


def lock(connection: Connection, case_id: UUID) -> Case | None:
    """Return a case with its row lock, None if there is no such case."""
    row = connection.execute(statement("lock_case"), {"case_id": case_id}).fetchone()
    return Case(*row) if row else None


def update(connection: Connection, case: Case) -> None:
    """Write back what a case has come to."""
    connection.execute(
        statement("update_case"),
        {
            "case_id": case.case_id,
            "outcome": case.outcome,
            "codes": list(case.codes),
            "shortfall_minor": case.shortfall_minor,
            "recovered_minor": case.recovered_minor,
            "resolution": case.resolution,
            "resolved_at": case.resolved_at,
            "resolved_by": case.resolved_by,
            "resolution_reason": case.resolution_reason,
        },
    )


def read(connection: Connection, case_id: UUID) -> Case | None:
    """Return a case, None if there is no such case."""
    row = connection.execute(statement("read_case"), {"case_id": case_id}).fetchone()
    return Case(*row) if row else None


def read_open(
    connection: Connection, store_id: str | None, *, after: UUID | None, limit: int
) -> list[Case]:
    """Return open cases by id, of one store or of all."""
    rows = connection.execute(
        statement("read_open_cases"), {"store_id": store_id, "after": after, "limit": limit}
    )
    return [Case(*row) for row in rows.fetchall()]


def count_postings(connection: Connection, transaction_id: str) -> int:
    """Return how many postings HQ has made for a case."""
    row = connection.execute(
        statement("count_postings_of_case"), {"transaction_id": transaction_id}
    ).fetchone()
    return int(row[0]) if row else 0
