"""Offline batches: received and committed first, then settled in chunks.

Posting a batch is several database transactions, on purpose: from the first on nothing is lost,
and each chunk holds its row locks only briefly. A crash in between is finished by posting the
batch again or by ``hq settle-pending``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from hq_service.domain.actors import Actor
from hq_service.domain.documents import read_json
from hq_service.domain.errors import Forbidden, InvalidRequest, NotFound
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import Line, UnreadableLine
from hq_service.domain.numbers import mask
from hq_service.domain.reading import read_envelope, read_line
from hq_service.domain.settlement import Context, LineResult, Outcome, settle
from hq_service.store import batches, parameters, settlements, terminals
from hq_service.store.batches import Batch
from hq_service.store.database import Connection, confirm_durable, reading, transactional

PAGE_LINES_MAX = 1_000

Lines = Sequence[Line | UnreadableLine]


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who sends which batch; ``body_sha256`` is of the decompressed bytes as they came."""

    store_id: str
    batch_id: str
    body_sha256: bytes


@dataclass(frozen=True, slots=True)
class BatchState:
    """What HQ knows of a batch: how far it is settled and what its lines came to."""

    store_id: str
    batch_id: str
    received_at: datetime
    settled_at: datetime | None
    lines_count: int
    settled_count: int
    counts: Mapping[str, int]


def post(
    body: bytes,
    actor: Actor,
    keyring: Keyring,
    now: datetime,
    *,
    lines_max: int,
    chunk_lines: int,
) -> tuple[Envelope, bool]:
    """Receive a batch and settle it; earlier unsettled batches of the store come first.

    Returns: the envelope, and whether the batch is new: a repeat of the same bytes changes
             nothing.
    Raises:  MalformedBody, InvalidRequest, TooLarge for a body that is no batch; Forbidden for
             another store; InvalidRequest ``batch_id_reused`` for other bytes under the same id.
    """
    store_id, batch_id, raw_lines = read_envelope(read_json(body), lines_max=lines_max)
    envelope = Envelope(store_id, batch_id, hashlib.sha256(body).digest())
    lines = [
        read_line(raw, position, store_id, keyring, now) for position, raw in enumerate(raw_lines)
    ]
    is_new = _receive(envelope, lines, actor, now)
    for pending_store_id, pending_batch_id in _unsettled(store_id):
        settle_batch(pending_store_id, pending_batch_id, keyring, now, chunk_lines=chunk_lines)
    return envelope, is_new


def settle_pending(keyring: Keyring, now: datetime, *, chunk_lines: int) -> list[tuple[str, str]]:
    """Finish every batch that a crash left unsettled; return (store, batch) of each."""
    pending = _unsettled(None)
    for store_id, batch_id in pending:
        settle_batch(store_id, batch_id, keyring, now, chunk_lines=chunk_lines)
    return pending


def settle_batch(
    store_id: str, batch_id: str, keyring: Keyring, now: datetime, *, chunk_lines: int
) -> None:
    """Settle what is left of a received batch, chunk by chunk, each its own transaction."""
    ordered = sorted(_stored_lines(store_id, batch_id), key=_settlement_order)
    while not _settle_chunk(store_id, batch_id, ordered, keyring, now, chunk_lines):
        pass


@reading
def state(_connection: Connection, store_id: str, batch_id: str, actor: Actor) -> BatchState:
    """Return how far a batch is settled.

    Raises:  NotFound: the same for a batch that does not exist and for another store's.
    """
    batch = batches.get(store_id, batch_id) if actor.speaks_for_store(store_id) else None
    if batch is None:
        raise NotFound(code="batch_not_found")
    return BatchState(
        store_id=batch.store_id,
        batch_id=batch.batch_id,
        received_at=batch.received_at,
        settled_at=batch.settled_at,
        lines_count=batch.lines_count,
        settled_count=batch.settled_count,
        counts=batches.count_outcomes(_connection, store_id, batch_id),
    )


@reading
def lines(
    connection: Connection, store_id: str, batch_id: str, actor: Actor, *, after: int, limit: int
) -> list[dict[str, Any]]:
    """Return the settled lines of a batch in the sender's order, after a position.

    Raises:  NotFound, as `state` does.
    """
    known = actor.speaks_for_store(store_id) and batches.get(store_id, batch_id) is not None
    if not known:
        raise NotFound(code="batch_not_found")
    return batches.read_lines(connection, store_id, batch_id, after=after, limit=limit)


@transactional
def _receive(
    connection: Connection, envelope: Envelope, received: Lines, actor: Actor, now: datetime
) -> bool:
    if not actor.speaks_for_store(envelope.store_id) or not terminals.store_exists(
        envelope.store_id
    ):
        raise Forbidden("This API key may not speak for that store.", code="foreign_store")
    header = {
        "store_id": envelope.store_id,
        "batch_id": envelope.batch_id,
        "body_sha256": envelope.body_sha256,
        "lines_count": len(received),
        "received_at": now,
        "received_by": actor.name,
        "parameters_revision": parameters.latest_revision(envelope.store_id),
        "sender_terminal_id": actor.terminal_id,
    }
    if batches.receive(header, received):
        return True
    known = batches.get(envelope.store_id, envelope.batch_id)
    if known is None or known.body_sha256 != envelope.body_sha256:
        raise InvalidRequest(code="batch_id_reused")
    confirm_durable(connection)
    return False


@reading
def _unsettled(_connection: Connection, store_id: str | None) -> list[tuple[str, str]]:
    return batches.unsettled(store_id)


@reading
def _stored_lines(
    _connection: Connection, store_id: str, batch_id: str
) -> list[Line | UnreadableLine]:
    return batches.lines_of(store_id, batch_id)


def _settlement_order(line: Line | UnreadableLine) -> tuple[str, str, int, int]:
    if isinstance(line, UnreadableLine):
        return ("", "", 0, line.position)
    return (line.key.terminal_id, line.journal_id or "", line.sequence or 0, line.position)


@transactional
def _settle_chunk(
    connection: Connection,
    store_id: str,
    batch_id: str,
    ordered: Lines,
    keyring: Keyring,
    now: datetime,
    chunk_lines: int,
) -> bool:
    """Settle the next chunk; return whether the batch is settled."""
    batch = batches.get_for_update(store_id, batch_id)
    if batch is None or batch.settled_at is not None:
        return True
    chunk = ordered[batch.settled_count : batch.settled_count + chunk_lines]
    readable = [line for line in chunk if isinstance(line, Line)]
    context = _context(batch, readable, keyring, now)
    found, known = settlements.load(connection, readable, _named_lock_ids(readable, keyring))
    settlement = settle(chunk, found, known, context)
    judged = list(zip(chunk, settlement.results, strict=True))
    with connection.pipeline():
        settlements.save(connection, settlement, now)
        _save_results(connection, batch_id, judged, now)
    batch.settled_count += len(chunk)
    if batch.settled_count == batch.lines_count:
        batch.settled_at = now
    return batch.settled_at is not None


def _context(batch: Batch, readable: Sequence[Line], keyring: Keyring, now: datetime) -> Context:
    speaking = {line.key.terminal_id for line in readable}
    if batch.sender_terminal_id is not None:
        speaking &= {batch.sender_terminal_id}
    known = terminals.of_store(batch.store_id, speaking)
    return Context(
        received_at=batch.received_at,
        now=now,
        parameters=parameters.in_force_at(batch.store_id, batch.parameters_revision),
        terminals={key: one for key, one in known.items() if not one.retired},
        parameters_at=parameters.all_of_store(batch.store_id),
        keyring=keyring,
        actor=batch.received_by,
    )


def _named_lock_ids(readable: Sequence[Line], keyring: Keyring) -> dict[int, UUID]:
    named = {}
    for place, line in enumerate(readable):
        if line.lock_id is not None:
            named[place] = line.lock_id
        elif line.grant is not None:
            grant = keyring.grant(line.grant, line.key)
            if grant is not None:
                named[place] = grant.lock_id
    return named


def _save_results(
    connection: Connection,
    batch_id: str,
    judged: Sequence[tuple[Line | UnreadableLine, LineResult]],
    now: datetime,
) -> None:
    settled: list[tuple[Line, LineResult]] = []
    quarantined: list[tuple[UnreadableLine, LineResult]] = []
    opened: list[tuple[Line | UnreadableLine, LineResult]] = []
    for line, result in judged:
        if isinstance(line, UnreadableLine):
            quarantined.append((line, result))
        elif result.outcome == Outcome.QUARANTINED:
            quarantined.append((_not_spoken_for(line), result))
        else:
            settled.append((line, result))
        if result.case_id is not None and result.outcome != Outcome.DUPLICATE:
            opened.append((line, result))
    if settled:
        batches.insert_lines(connection, batch_id, settled, now)
    if quarantined:
        batches.insert_quarantined(connection, batch_id, quarantined, now)
    if opened:
        batches.insert_cases(connection, batch_id, opened, now)


def _not_spoken_for(line: Line) -> UnreadableLine:
    """Return a readable line of a terminal that the sender may not speak for, as text."""
    text = mask(repr(batches.packed(replace(line, grant=None))))
    return UnreadableLine(
        line.key.store_id,
        line.position,
        text,
        "the sender may not speak for this terminal, or it is unknown or retired",
    )
