"""Offline batches: received first, settled afterwards, never lost in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

import orjson
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from hq_service.domain.model import BusinessKey, Line, Place, Tender, UnreadableLine
from hq_service.domain.numbers import bucket_of, uuid_of
from hq_service.domain.outcomes import LineResult
from hq_service.store import tables
from hq_service.store.arrays import instant_array, plain_array, text_array
from hq_service.store.database import Connection, db
from hq_service.store.settlements import original_arrays, tender_arrays
from hq_service.store.statements import statement

PART_LINES = 2_000
"""How many lines one stored part holds: what is in memory at once when a batch is read again. It
cannot change: a line of a stored batch is found by it."""

Batch = tables.OfflineBatch
OfflineBatchPart = tables.OfflineBatchPart
Settled = tuple[Line, LineResult]


class Standing(NamedTuple):
    """Where a stored line stands: in its journal, if that is known, and in the sender's array."""

    place: Place | None
    position: int


def receive(header: dict[str, Any], parts: Sequence[bytes]) -> bool:
    """Store a batch as received, its lines in parts; tell whether it is new.

    One with the same id that is there already is left as it is, whatever its content.
    """
    created = db.session.scalar(
        insert(Batch).values(**header).on_conflict_do_nothing().returning(Batch.batch_id)
    )
    if created is None:
        return False
    for part, lines in enumerate(parts):
        # One by one: together they would be in memory once more, on their way.
        db.session.execute(
            insert(OfflineBatchPart).values(
                store_id=header["store_id"], batch_id=header["batch_id"], part=part, lines=lines
            )
        )
    return True


def packed_part(lines: Sequence[Line | UnreadableLine]) -> bytes:
    """Return up to `PART_LINES` lines as they are stored."""
    written = orjson.dumps([packed(line) for line in lines])
    return bytes(memoryview(written))  # as written it keeps up to twice the memory


def get(store_id: str, batch_id: str) -> Batch | None:
    """Return the header of a batch, None if HQ never received it."""
    return db.session.get(Batch, (store_id, batch_id), populate_existing=True)


def get_for_update(store_id: str, batch_id: str) -> Batch | None:
    """Return the header of a batch with its row lock: one settles it at a time."""
    return db.session.get(Batch, (store_id, batch_id), with_for_update=True, populate_existing=True)


def unsettled(store_id: str | None = None) -> list[tuple[str, str]]:
    """Return (store, batch) of what is received and not settled, in order of arrival."""
    wanted = select(Batch.store_id, Batch.batch_id).where(Batch.settled_at.is_(None))
    if store_id is not None:
        wanted = wanted.where(Batch.store_id == store_id)
    rows = db.session.execute(wanted.order_by(Batch.received_at, Batch.batch_id))
    return [(row.store_id, row.batch_id) for row in rows]


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


def insert_lines(
    connection: Connection, batch_id: str, settled: Sequence[Settled], now: datetime
) -> None:
    """Append settled lines with their outcomes. Call it inside a pipeline."""
    lines = [line for line, _ in settled]
    results = [result for _, result in settled]
    connection.execute(
        statement("insert_offline_lines"),
        {
            "batch_id": batch_id,
            "settled_at": now,
            "buckets": plain_array(bucket_of(line.instrument_id) for line in lines),
            "instrument_ids": plain_array(line.instrument_id for line in lines),
            "store_ids": text_array(line.key.store_id for line in lines),
            "positions": plain_array(line.position for line in lines),
            "terminal_ids": text_array(line.key.terminal_id for line in lines),
            "journal_ids": text_array(line.journal_id for line in lines),
            "sequences": plain_array(line.sequence for line in lines),
            "transaction_ids": text_array(line.key.transaction_id for line in lines),
            "lines": plain_array(line.key.line for line in lines),
            "statuses": text_array(line.status for line in lines),
            "operations": text_array(line.operation for line in lines),
            "amounts_minor": plain_array(line.amount_minor for line in lines),
            "currencies": text_array(line.currency for line in lines),
            "lock_ids": plain_array(line.lock_id for line in lines),
            "concluded_at": instant_array(line.concluded_at for line in lines),
            "outcomes": text_array(result.outcome for result in results),
            "original_outcomes": text_array(result.original_outcome for result in results),
            "codes": text_array(" ".join(result.codes) for result in results),
            "funded_minor": plain_array(result.funded_minor for result in results),
            "shortfalls_minor": plain_array(result.shortfall_minor for result in results),
            "balances_after_minor": plain_array(result.balance_after_minor for result in results),
            "case_ids": plain_array(result.case_id for result in results),
            "remainder_ids": plain_array(result.remainder_id for result in results),
            **original_arrays(line.original for line in lines),
            "reasons": text_array(line.reason for line in lines),
            **tender_arrays(line.tender for line in lines),
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
            "positions": plain_array(line.position for line, _ in quarantined),
            "codes": text_array(" ".join(result.codes) for _, result in quarantined),
            "reasons": text_array(line.reason for line, _ in quarantined),
            "masked_texts": text_array(line.masked_text for line, _ in quarantined),
            "case_ids": plain_array(result.case_id for _, result in quarantined),
            "terminal_ids": text_array(place.terminal_id if place else None for place in places),
            "transaction_ids": text_array(key.transaction_id if key else None for key in keys),
            "lines": plain_array(key.line if key else None for key in keys),
            "journal_ids": text_array(place.journal_id if place else None for place in places),
            "sequences": plain_array(place.sequence if place else None for place in places),
        },
    )


def read_lines(
    connection: Connection, store_id: str, batch_id: str, *, after: int, limit: int
) -> list[dict[str, Any]]:
    """Return settled lines with their outcomes, by position, from the one after ``after``."""
    cursor = connection.execute(
        statement("read_offline_lines"),
        {"store_id": store_id, "batch_id": batch_id, "after": after, "limit": limit},
    )
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def count_outcomes(connection: Connection, store_id: str, batch_id: str) -> dict[str, int]:
    """Return how many lines of a batch came to which outcome."""
    rows = connection.execute(
        statement("count_outcomes"), {"store_id": store_id, "batch_id": batch_id}
    )
    return dict(rows.fetchall())
