"""Cases: the open questions that settlement left for an administrator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Uuid, any_, cast, func, null, or_, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY

from hq_service.domain.model import Line, Operation, UnreadableLine
from hq_service.domain.outcomes import Code, LineResult, case_id_of_notice
from hq_service.domain.resolving import Case, CaseFilter, CaseState
from hq_service.store import tables
from hq_service.store.arrays import array
from hq_service.store.database import Connection, db
from hq_service.store.statements import statement

Row = tables.Case
_COLUMNS = tuple(getattr(Row, name) for name in Case.__slots__)


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
            "case_ids": array(result.case_id for result in results),
            "outcomes": array(result.outcome for result in results),
            "codes": array(" ".join(result.codes) for result in results),
            "store_ids": array(
                line.key.store_id if isinstance(line, Line) else line.store_id for line, _ in opened
            ),
            "terminal_ids": array(line.key.terminal_id if line else None for line in readable),
            "transaction_ids": array(
                line.key.transaction_id if line else None for line in readable
            ),
            "lines": array(line.key.line if line else None for line in readable),
            "operations": array(
                Operation.VOID if result.undone else line.operation if line else None
                for line, (_, result) in zip(readable, opened, strict=True)
            ),
            "instrument_ids": array(line.instrument_id if line else None for line in readable),
            "amounts_minor": array(one.amount_minor if one else None for one in contents),
            "shortfalls_minor": array(result.shortfall_minor for result in results),
            "currencies": array(one.currency if one else None for one in contents),
            "positions": array(line.position for line, _ in opened),
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
            "case_ids": array(
                case_id_of_notice(store_id, _occasion(batch_id, one), one.terminal_id, one.code)
                for one in notices
            ),
            "codes": array(one.code for one in notices),
            "terminal_ids": array(one.terminal_id or None for one in notices),
            "details": array(one.detail for one in notices),
        },
    )


def _occasion(batch_id: str, notice: Notice) -> str:
    # The same gap is the same question, whichever batch came upon it.
    return notice.detail if notice.code == Code.SEQUENCE_GAP else batch_id


def close_gap_notices(
    connection: Connection, store_id: str, terminal_ids: Sequence[str], now: datetime
) -> None:
    """Close the notices of gaps of terminals that have none any more."""
    connection.execute(
        statement("close_gap_notices"),
        {"store_id": store_id, "terminal_ids": array(terminal_ids), "now": now},
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


def existing(case_ids: Iterable[UUID]) -> set[UUID]:
    """Return those of some ids that are a case's."""
    named = cast(list(case_ids), ARRAY(Uuid))
    return set(db.session.scalars(select(Row.case_id).where(Row.case_id == any_(named))))


def page(wanted: CaseFilter, *, after: tuple[datetime, UUID] | None, limit: int) -> list[Case]:
    """Return cases, the oldest first.

    Shapes:  ``after`` is the (opened_at, case_id) that the page before ended with.
    """
    found = select(*_COLUMNS).order_by(Row.opened_at, Row.case_id).limit(limit)
    if after is not None:
        found = found.where(tuple_(Row.opened_at, Row.case_id) > after)
    if wanted.state is not CaseState.ALL:
        is_open = Row.resolved_at.is_(None)
        found = found.where(is_open if wanted.state is CaseState.OPEN else ~is_open)
    for column, value in (
        (Row.store_id, wanted.store_id),
        (Row.terminal_id, wanted.terminal_id),
        (Row.outcome, wanted.outcome),
        (Row.instrument_id, wanted.instrument_id),
    ):
        if value is not None:
            found = found.where(column == value)
    if wanted.code is not None:
        found = found.where(any_(Row.codes) == wanted.code)
    if wanted.opened_from is not None:
        found = found.where(Row.opened_at >= wanted.opened_from)
    if wanted.opened_before is not None:
        found = found.where(Row.opened_at < wanted.opened_before)
    if wanted.shortfall_minor_min is not None:
        found = found.where(Row.shortfall_minor >= wanted.shortfall_minor_min)
    return [Case(*row) for row in db.session.execute(found)]


def beside(case: Case, *, limit: int) -> list[Case]:
    """Return other cases of the same business key or instrument, open or not, newest first."""
    same = [Row.instrument_id == case.instrument_id] if case.instrument_id else []
    if case.key is not None:
        key = (Row.store_id, Row.terminal_id, Row.transaction_id, Row.line)
        same.append(tuple_(*key) == case.key)
    if not same:
        return []
    found = select(*_COLUMNS).where(Row.case_id != case.case_id, or_(*same))
    newest = found.order_by(Row.opened_at.desc(), Row.case_id).limit(limit)
    return [Case(*row) for row in db.session.execute(newest)]


def count_open(store_id: str | None) -> list[tuple[str | None, str | None, int, int]]:
    """Return (currency, code, cases, open shortfall) of open cases, of one store or of all.

    A case with two codes counts under both of them; the rows of code None are those of the
    currency as a whole, where each case counts once.
    """
    code = func.unnest(Row.codes)
    # A sum of bigint is numeric: a thousand of the largest shortfalls are more than a bigint holds.
    open_minor = func.sum(Row.shortfall_minor - Row.recovered_minor)
    counted = func.count()
    rows: list[tuple[str | None, str | None, int, int]] = []
    for told, grouped in ((null(), [Row.currency]), (code, [Row.currency, code])):
        found = select(Row.currency, told, counted, open_minor).where(Row.resolved_at.is_(None))
        if store_id is not None:
            found = found.where(Row.store_id == store_id)
        found = found.group_by(*grouped).order_by(*grouped)
        rows += [(*row[:3], int(row[3])) for row in db.session.execute(found)]
    return rows


def count_postings(connection: Connection, transaction_id: str) -> int:
    """Return how many postings HQ has made for a case."""
    row = connection.execute(
        statement("count_postings_of_case"), {"transaction_id": transaction_id}
    ).fetchone()
    return int(row[0]) if row else 0
