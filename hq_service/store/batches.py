"""Offline batches: received first, settled afterwards, never lost in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, LiteralString, NamedTuple

import orjson
from sqlalchemy import select

from hq_service.domain.model import BusinessKey, Line, Place, Tender, UnreadableLine
from hq_service.domain.numbers import bucket_of, uuid_of
from hq_service.domain.outcomes import LineResult
from hq_service.store import prepared, tables
from hq_service.store.arrays import array
from hq_service.store.database import Connection, db
from hq_service.store.settlements import original_arrays
from hq_service.store.statements import statement

PART_LINES = 2_000
"""How many lines one stored part holds: what is in memory at once when a batch is read again. It
cannot change: a line of a stored batch is found by it."""

Batch = tables.OfflineBatch
Settled = Sequence[tuple[Line | UnreadableLine, LineResult]]
OfflineBatchPart = tables.OfflineBatchPart


class Standing(NamedTuple):
    """Where a stored line stands: in its journal, if that is known, and in the sender's array."""

    place: Place | None
    position: int


def receive(connection: Connection, header: Mapping[str, Any], parts: Sequence[bytes]) -> bool:
    """Store a batch as received, its lines in parts; tell whether it is new.

    One with the same id that is there already is left as it is, whatever its content; of a store
    that HQ does not know nothing is stored.
    """
    totals = header["control_totals"]
    created = connection.execute(
        statement("receive_batch"),
        {**header, "control_totals": None if totals is None else _json(totals)},
    )
    if not created.rowcount:
        return False
    for part, lines in enumerate(parts):
        # One by one: together they would be in memory once more, on their way.
        connection.execute(
            statement("insert_batch_part"),
            {
                "store_id": header["store_id"],
                "batch_id": header["batch_id"],
                "part": part,
                "lines": lines,
            },
        )
    return True


def packed_part(lines: Sequence[Line | UnreadableLine]) -> bytes:
    """Return up to `PART_LINES` lines as they are stored."""
    written = orjson.dumps([packed(line) for line in lines])
    return bytes(memoryview(written))  # as written it keeps up to twice the memory


def get(connection: Connection, store_id: str, batch_id: str) -> Batch | None:
    """Return the header of a batch, None if HQ never received it. It belongs to no session."""
    return _header(statement("read_batch"), connection, store_id, batch_id)


def lock(connection: Connection, store_id: str, batch_id: str) -> Batch | None:
    """Return the header of a batch with its row lock: one settles it at a time.

    What is changed on it is written by `update`.
    """
    return _header(statement("lock_batch"), connection, store_id, batch_id)


def _header(
    query: LiteralString, connection: Connection, store_id: str, batch_id: str
) -> Batch | None:
    cursor = connection.execute(query, {"store_id": store_id, "batch_id": batch_id})
    row = cursor.fetchone()
    names = [column.name for column in cursor.description or ()]
    return Batch(**dict(zip(names, row, strict=True))) if row else None


def update(connection: Connection, batch: Batch) -> None:
    """Write back how far a batch is settled. Call it inside a pipeline."""
    connection.execute(
        statement("update_batch"),
        {
            "store_id": batch.store_id,
            "batch_id": batch.batch_id,
            "settled_count": batch.settled_count,
            "settled_at": batch.settled_at,
        },
    )


def unsettled(store_id: str | None = None) -> list[tuple[str, str]]:
    """Return (store, batch) of what is received and not settled, in order of arrival."""
    wanted = select(Batch.store_id, Batch.batch_id).where(Batch.settled_at.is_(None))
    if store_id is not None:
        wanted = wanted.where(Batch.store_id == store_id)
    rows = db.session.execute(wanted.order_by(Batch.received_at, Batch.batch_id))
    return [(row.store_id, row.batch_id) for row in rows]


def unsettled_at_once(store_id: str) -> list[str]:
    """Return the batches of a store that are received and not settled, in order of arrival.

    Raises:  NotTried when the database is away.
    """
    row = prepared.read("read_unsettled", (store_id,))
    assert row is not None  # an aggregate without GROUP BY has one row
    batch_ids: list[str] = row[0]
    return batch_ids


def standings(store_id: str, batch_id: str, lines_count: int) -> Iterator[Standing]:
    """Give where each line of a batch stands, in the order of the sender's array."""
    for part in range(-(-lines_count // PART_LINES)):
        for stored in _stored(store_id, batch_id, part):
            if len(stored) == 4:
                position, _, _, place = stored
                yield Standing(Place(*place) if place else None, position)
            else:
                position, terminal_id, *_, journal_id, sequence, _, _ = stored
                yield Standing(Place(terminal_id, journal_id, sequence), position)


def lines_at(store_id: str, batch_id: str, positions: Sequence[int]) -> list[Line | UnreadableLine]:
    """Return some lines of a batch as received, by their places in the sender's array.

    Only one part of the batch is in memory at a time.
    """
    found: dict[int, Line | UnreadableLine] = {}
    for part, wanted in groupby(sorted(positions), lambda position: position // PART_LINES):
        stored = _stored(store_id, batch_id, part)
        for position in wanted:
            found[position] = _unpacked(store_id, stored[position % PART_LINES])
    return [found[position] for position in positions]


def line_at(store_id: str, batch_id: str, position: int) -> Line | UnreadableLine | None:
    """Return one line of a batch as received, by its place in the sender's array."""
    stored = _stored(store_id, batch_id, position // PART_LINES)
    return _unpacked(store_id, stored[position % PART_LINES]) if stored else None


def _stored(store_id: str, batch_id: str, part: int) -> list[list[Any]]:
    lines = db.session.scalar(
        select(OfflineBatchPart.lines).where(
            OfflineBatchPart.store_id == store_id,
            OfflineBatchPart.batch_id == batch_id,
            OfflineBatchPart.part == part,
        )
    )
    stored: list[list[Any]] = orjson.loads(lines) if lines is not None else []
    return stored


def text_of(line: Line) -> str:
    """Return a line as text, without its grant."""
    return orjson.dumps(packed(replace(line, grant=None))).decode()


def packed(line: Line | UnreadableLine) -> list[Any]:
    """Return a line as it is stored: a list that JSON can hold."""
    if isinstance(line, UnreadableLine):
        return [line.position, line.masked_text, line.reason, _listed(line.place)]
    return [
        line.position,
        line.key.terminal_id,
        line.key.transaction_id,
        line.key.line,
        line.operation,
        line.instrument_id,
        line.amount_minor,
        line.currency,
        line.status,
        line.lock_id,
        _listed(line.original),
        line.grant,
        line.parameter_revision,
        line.concluded_at,
        line.journal_id,
        line.sequence,
        line.reason,
        _listed(line.tender),
    ]


def _listed(named: tuple[Any, ...] | None) -> list[Any] | None:
    # orjson writes tuples, but no named ones.
    return None if named is None else list(named)


def _unpacked(store_id: str, stored: list[Any]) -> Line | UnreadableLine:
    if len(stored) == 4:
        position, masked_text, reason, place = stored
        return UnreadableLine(
            store_id, position, masked_text, reason, Place(*place) if place else None
        )
    position, terminal_id, transaction_id, number, operation, instrument_id, *rest = stored
    amount, currency, status, lock_id, original, grant, revision, concluded, *rest = rest
    journal_id, sequence, reason, tender = rest
    # By position, as the fields are: by name it takes three times as long.
    return Line(
        BusinessKey(store_id, terminal_id, transaction_id, number),
        operation,
        uuid_of(instrument_id),
        amount,
        currency,
        status,
        uuid_of(lock_id) if lock_id else None,
        BusinessKey(*original) if original else None,
        grant,
        revision,
        datetime.fromisoformat(concluded) if concluded else None,
        journal_id,
        sequence,
        position,
        reason,
        Tender(*tender) if tender else None,
    )


def insert_results(connection: Connection, batch: Batch, settled: Settled, now: datetime) -> None:
    """Append what the lines of the chunk that comes next came to. Call it inside a pipeline."""
    positions = [line.position for line, _ in settled]
    connection.execute(
        statement("insert_results"),
        {
            "store_id": batch.store_id,
            "batch_id": batch.batch_id,
            "settled_before": batch.settled_count,
            "first_position": min(positions),
            "last_position": max(positions),
            "settled_at": now,
            "counts": _json(Counter(result.outcome for _, result in settled)),
            "journals": _json(list(_continued(settled))),
            "results": orjson.dumps([_told(line, result) for line, result in settled]),
        },
    )


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


def _continued(settled: Settled) -> dict[tuple[str, str], None]:
    """Return the journals that readable lines continued, as terminal and journal, each once."""
    places = (line.place for line, _ in settled if isinstance(line, Line))
    return dict.fromkeys(place[:2] for place in places if place is not None)


TOLD = (
    *("position", "terminal_id", "transaction_id", "line", "instrument_id", "outcome"),
    *("original_outcome", "codes", "funded_minor", "shortfall_minor", "balance_after_minor"),
    *("case_id", "remainder_id", "reason"),
)
"""What is told of a settled line, in the order in which it is stored."""


def _told(line: Line | UnreadableLine, result: LineResult) -> list[Any]:
    if isinstance(line, Line):
        what = [*line.key[1:], line.instrument_id]
        reason = None
    else:
        terminal_id = line.place.terminal_id if line.place else None
        what = [terminal_id, *(line.key[2:] if line.key else (None, None)), None]
        reason = line.reason
    return [
        line.position,
        *what,
        result.outcome,
        result.original_outcome,
        result.codes,
        result.funded_minor,
        result.shortfall_minor,
        result.balance_after_minor,
        result.case_id,
        result.remainder_id,
        reason,
    ]


def insert_held(
    connection: Connection,
    batch_id: str,
    held: Sequence[tuple[Line, LineResult]],
    now: datetime,
) -> None:
    """Append held lines, so that their keys are known. Call it inside a pipeline."""
    lines = [line for line, _ in held]
    connection.execute(
        statement("insert_held_lines"),
        {
            "batch_id": batch_id,
            "held_at": now,
            "buckets": array(bucket_of(line.instrument_id) for line in lines),
            "instrument_ids": array(line.instrument_id for line in lines),
            "store_ids": array(line.key.store_id for line in lines),
            "positions": array(line.position for line in lines),
            "terminal_ids": array(line.key.terminal_id for line in lines),
            "transaction_ids": array(line.key.transaction_id for line in lines),
            "lines": array(line.key.line for line in lines),
            "operations": array(line.operation for line in lines),
            "amounts_minor": array(line.amount_minor for line in lines),
            "currencies": array(line.currency for line in lines),
            "codes": array(" ".join(result.codes) for _, result in held),
            "case_ids": array(result.case_id for _, result in held),
            **original_arrays(line.original for line in lines),
        },
    )


def insert_quarantined(
    connection: Connection,
    batch_id: str,
    quarantined: Sequence[tuple[UnreadableLine, LineResult]],
    now: datetime,
) -> None:
    """Append quarantined lines. Call it inside a pipeline."""
    places = [line.place for line, _ in quarantined]
    keys = [line.key for line, _ in quarantined]
    connection.execute(
        statement("insert_quarantined_lines"),
        {
            "store_id": quarantined[0][0].store_id,
            "batch_id": batch_id,
            "settled_at": now,
            "positions": array(line.position for line, _ in quarantined),
            "codes": array(" ".join(result.codes) for _, result in quarantined),
            "reasons": array(line.reason for line, _ in quarantined),
            "masked_texts": array(line.masked_text for line, _ in quarantined),
            "case_ids": array(result.case_id for _, result in quarantined),
            "terminal_ids": array(place.terminal_id if place else None for place in places),
            "transaction_ids": array(key.transaction_id if key else None for key in keys),
            "lines": array(key.line if key else None for key in keys),
            "journal_ids": array(place.journal_id if place else None for place in places),
            "sequences": array(place.sequence if place else None for place in places),
        },
    )


def read_lines(
    connection: Connection, store_id: str, batch_id: str, *, after: int, limit: int
) -> list[dict[str, Any]]:
    """Return what settled lines came to, by position: those at ``limit`` positions behind
    ``after``; ids as text.
    """
    positions = range(after + 1, after + 1 + limit)
    rows = connection.execute(
        statement("read_results"),
        {
            "store_id": store_id,
            "batch_id": batch_id,
            "first_position": positions[0],
            "last_position": positions[-1],
        },
        binary=True,
    ).fetchall()
    told = [one for (results,) in rows for one in orjson.loads(results) if one[0] in positions]
    told.sort(key=itemgetter(0))
    return [dict(zip(TOLD, one, strict=True)) for one in told]


def read_progress(
    connection: Connection, store_id: str, batch_id: str
) -> tuple[dict[str, int], set[tuple[str, str]]]:
    """Return how many lines of a batch came to which outcome, and the journals that it continued,
    as terminal and journal.
    """
    counts: Counter[str] = Counter()
    names: set[tuple[str, str]] = set()
    rows = connection.execute(
        statement("read_progress"), {"store_id": store_id, "batch_id": batch_id}
    )
    for of_chunk, continued in rows.fetchall():
        counts.update(of_chunk)
        names.update((terminal_id, journal_id) for terminal_id, journal_id in continued)
    return dict(counts), names
