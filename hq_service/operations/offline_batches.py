"""Offline batches: received and committed first, then settled in chunks.

Posting a batch is several database transactions, on purpose: from the first on nothing is lost,
and each chunk holds its row locks only briefly. A crash in between is finished by posting the
batch again or by ``hq settle-pending``.
"""

from __future__ import annotations

import logging
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

from hq_service.domain.actors import Actor
from hq_service.domain.errors import Forbidden, InvalidRequest, NotFound, TooLarge
from hq_service.domain.journals import Journal
from hq_service.domain.judgement import Context, Known, may_be_a_repeat
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import Instrument, Line, UnreadableLine
from hq_service.domain.numbers import mask
from hq_service.domain.outcomes import NOTICE_CODES, Code, LineResult, Outcome
from hq_service.domain.reading import ControlTotals, Envelope
from hq_service.domain.settlement import hold_back, settle
from hq_service.operations.batch_lines import (
    DRY_RUN_LINES_MAX,
    Lines,
    OrderedLines,
    ReceivedLines,
)
from hq_service.store import batches, cases, journals, parameters, settlements, terminals
from hq_service.store.batches import Batch, Standing
from hq_service.store.cases import Notice
from hq_service.store.database import (
    Connection,
    Unstorable,
    confirm_durable,
    reading,
    transactional,
)
from hq_service.store.prepared import NotTried

logger = logging.getLogger(__name__)

PAGE_LINES_MAX = 1_000
GAPS_TOLD_MAX = 20

Judged = Sequence[tuple[Line | UnreadableLine, LineResult]]


@dataclass(frozen=True, slots=True)
class BatchState:
    """What HQ knows of a batch: how far it is settled, what its lines came to, and up to where
    the journals that it continued have arrived.
    """

    store_id: str
    batch_id: str
    received_at: datetime
    settled_at: datetime | None
    lines_count: int
    settled_count: int
    counts: Mapping[str, int]
    journals: Mapping[tuple[str, str], Journal]


@transactional
def receive(
    connection: Connection, envelope: Envelope, lines: ReceivedLines, actor: Actor, now: datetime
) -> bool:
    """Keep a batch, before anything of it is judged; return whether it is new.

    Raises:  Forbidden for another store; InvalidRequest ``batch_id_reused`` for other bytes under
             the same id.
    """
    _require_to_speak_for(envelope.store_id, actor)
    header = {
        "store_id": envelope.store_id,
        "batch_id": envelope.batch_id,
        "body_sha256": envelope.body_sha256,
        "lines_count": len(lines),
        "received_at": now,
        "received_by": actor.name,
        "sender_terminal_id": actor.terminal_id,
        "control_totals": _control_totals(envelope.control_totals, lines.counted),
    }
    if actor.terminal_id is not None:
        terminals.touch(connection, envelope.store_id, actor.terminal_id, now)
    if batches.receive(connection, header, lines.parts):
        return True
    _require_store(envelope.store_id, actor)
    known = batches.get(connection, envelope.store_id, envelope.batch_id)
    if known is None or known.body_sha256 != envelope.body_sha256:
        raise InvalidRequest(code="batch_id_reused")
    confirm_durable(connection)
    return False


def settle_store(
    store_id: str,
    batch_id: str,
    keyring: Keyring,
    now: datetime,
    *,
    chunk_lines: int,
    lines: Lines | None = None,
) -> bool:
    """Settle a batch, after every other unsettled one of its store, in order of arrival.

    Another one that cannot be settled is logged and stays for `settle_pending`: it must not keep
    this one waiting. ``lines`` are as in `settle_batch`.

    Returns: whether held lines may have waited for any of it.
    """
    others = [one for one in _unsettled_of(store_id) if one != batch_id]
    for pending_batch_id in others:
        _try(store_id, pending_batch_id, keyring, now, chunk_lines)
    may_end_a_wait = settle_batch(
        store_id, batch_id, keyring, now, chunk_lines=chunk_lines, lines=lines
    )
    return bool(others) or may_end_a_wait


def settle_pending(
    keyring: Keyring, now: datetime, *, chunk_lines: int
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Finish every batch that a crash left unsettled; return (store, batch) of those that are
    settled now, and of those that still are not.
    """
    settled: list[tuple[str, str]] = []
    failed: list[tuple[str, str]] = []
    for store_id, batch_id in _unsettled(None):
        is_settled = _try(store_id, batch_id, keyring, now, chunk_lines)
        (settled if is_settled else failed).append((store_id, batch_id))
    return settled, failed


def _try(store_id: str, batch_id: str, keyring: Keyring, now: datetime, chunk_lines: int) -> bool:
    try:
        settle_batch(store_id, batch_id, keyring, now, chunk_lines=chunk_lines)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other batches go on
        logger.error(
            "a batch cannot be settled",
            extra={
                "action": "settle",
                "store_id": store_id,
                "batch_id": batch_id,
                "error": type(error).__name__,
            },
        )
        return False
    return True


def settle_batch(
    store_id: str,
    batch_id: str,
    keyring: Keyring,
    now: datetime,
    *,
    chunk_lines: int,
    lines: Lines | None = None,
) -> bool:
    """Settle what is left of a received batch, chunk by chunk, each its own transaction.

    A chunk that cannot be stored is settled line by line, and the line that cannot be is held.

    Shapes:  ``lines`` are all lines of the batch, from whoever has just stored them; without them
             they are read from the store. What is stored counts: lines read again from the same
             bytes, at another time, may be others.
    Returns: whether held lines may have waited for any of it. Of what was settled before, by
             somebody who may not have come to look for them, nobody knows: so they may.
    """
    if lines is None:
        ordered = _stored_in_order(store_id, batch_id)
    else:
        ordered = _in_order(store_id, batch_id, lines)
    is_settled = ordered is None
    while ordered is not None and not is_settled:
        try:
            is_settled = _settle_chunk(store_id, batch_id, ordered, keyring, now, chunk_lines)
        except Unstorable:
            is_settled = _settle_line_by_line(
                store_id, batch_id, ordered, keyring, now, chunk_lines
            )
    return ordered is None or ordered.may_end_a_wait


def _settle_line_by_line(
    store_id: str,
    batch_id: str,
    ordered: OrderedLines,
    keyring: Keyring,
    now: datetime,
    lines_count: int,
) -> bool:
    """Settle some lines, each in a transaction of its own; return whether the batch is settled."""
    for _ in range(lines_count):
        try:
            is_settled = _settle_chunk(store_id, batch_id, ordered, keyring, now, 1)
        except Unstorable as error:
            logger.error(
                "a line cannot be posted and is held",
                extra={
                    "action": "settle",
                    "store_id": store_id,
                    "batch_id": batch_id,
                    "sqlstate": str(error),
                },
            )
            is_settled = _settle_chunk(
                store_id, batch_id, ordered, keyring, now, 1, is_held_back=True
            )
        if is_settled:
            return True
    return False


@reading
def dry_run(
    connection: Connection,
    envelope: Envelope,
    lines: Lines | None,
    actor: Actor,
    keyring: Keyring,
    now: datetime,
) -> list[tuple[Line | UnreadableLine, LineResult]]:
    """Return what a batch would come to now, in the sender's order; write and lock nothing.

    Only cases and memos are named that are there: those that it would make are not.

    Shapes:  ``lines`` None: more than `DRY_RUN_LINES_MAX`, which are not kept.
    Raises:  Forbidden for another store; TooLarge above `DRY_RUN_LINES_MAX`.
    """
    _require_store(envelope.store_id, actor)
    if lines is None:
        raise TooLarge(f"A dry run takes at most {DRY_RUN_LINES_MAX} lines; try a part.")
    ordered = sorted(lines, key=settlement_order)
    readable = [line for line in ordered if isinstance(line, Line)]
    # As it would be received now; it belongs to no session, so nothing of it is written.
    batch = Batch(
        store_id=envelope.store_id,
        batch_id=envelope.batch_id,
        sender_terminal_id=actor.terminal_id,
        parameters_revision=parameters.latest_revision(envelope.store_id),
        received_at=now,
        received_by=actor.name,
    )
    context = settling_context(connection, batch, ordered, keyring, now)
    found, known = settlements.load(
        connection, readable, named_lock_ids(readable, context), for_update=False
    )
    known.journals = journals.read(connection, envelope.store_id)
    settlement = settle(ordered, found, known, context)
    results = settlement.results
    there = cases.existing(one.case_id for one in results if one.case_id is not None)
    judged = [
        (
            _as_kept(line, result),
            replace(
                result,
                case_id=result.case_id if result.case_id in there else None,
                remainder_id=(
                    None if result.remainder_id in settlement.created else result.remainder_id
                ),
            ),
        )
        for line, result in zip(ordered, results, strict=True)
    ]
    return sorted(judged, key=lambda pair: pair[0].position)


@reading
def state(connection: Connection, store_id: str, batch_id: str, actor: Actor) -> BatchState:
    """Return how far a batch is settled.

    Raises:  NotFound: the same for a batch that does not exist and for another store's.
    """
    batch = _known_to(connection, store_id, batch_id, actor)
    return _state(connection, batch)


@reading
def state_with_lines(
    connection: Connection, store_id: str, batch_id: str, actor: Actor, *, limit: int
) -> tuple[BatchState, list[dict[str, Any]]]:
    """Return how far a batch is settled, and its lines as `lines` does, from the first on.

    Raises:  NotFound, as `state` does.
    """
    batch = _known_to(connection, store_id, batch_id, actor)
    state_now = _state(connection, batch)
    return state_now, _told_lines(connection, batch, after=-1, limit=limit)


@reading
def lines(
    connection: Connection, store_id: str, batch_id: str, actor: Actor, *, after: int, limit: int
) -> tuple[list[dict[str, Any]], int | None]:
    """Return settled lines of a batch in the sender's order, after a position, and the position
    to go on after; None if there is nothing behind.

    While a batch is being settled, in another order than the sender's, only those are told before
    which nothing is missing.

    Raises:  NotFound, as `state` does.
    """
    batch = _known_to(connection, store_id, batch_id, actor)
    told = _told_lines(connection, batch, after=after, limit=limit)
    last = told[-1]["position"] if told else after
    return told, None if last >= batch.lines_count - 1 else last


def _known_to(connection: Connection, store_id: str, batch_id: str, actor: Actor) -> Batch:
    is_theirs = actor.speaks_for_store(store_id)
    batch = batches.get(connection, store_id, batch_id) if is_theirs else None
    if batch is None:
        raise NotFound(code="batch_not_found")
    return batch


def _state(connection: Connection, batch: Batch) -> BatchState:
    counts, names = batches.read_progress(connection, batch.store_id, batch.batch_id)
    return BatchState(
        store_id=batch.store_id,
        batch_id=batch.batch_id,
        received_at=batch.received_at,
        settled_at=batch.settled_at,
        lines_count=batch.lines_count,
        settled_count=batch.settled_count,
        counts=counts,
        journals=journals.read_named(connection, batch.store_id, names) if names else {},
    )


def _told_lines(
    connection: Connection, batch: Batch, *, after: int, limit: int
) -> list[dict[str, Any]]:
    found = batches.read_lines(connection, batch.store_id, batch.batch_id, after=after, limit=limit)
    return [one for place, one in enumerate(found, start=after + 1) if one["position"] == place]


def settlement_order(line: Line | UnreadableLine | Standing) -> tuple[str, str, int, int]:
    """Return the place of a line in the order in which a batch is settled."""
    if line.place is None:
        return ("", "", 0, line.position)
    return (*line.place, line.position)


def settling_context(
    connection: Connection, batch: Batch, lines: Lines, keyring: Keyring, now: datetime
) -> Context:
    """Return what lines of a batch are judged by: how things were when it was received."""
    terminal_ids = {line.place.terminal_id for line in lines if line.place is not None}
    return _context(connection, batch, terminal_ids, keyring, now)


def _context(
    connection: Connection,
    batch: Batch,
    terminal_ids: Set[str],
    keyring: Keyring,
    now: datetime,
) -> Context:
    speaking = terminal_ids
    if batch.sender_terminal_id is not None:
        speaking = speaking & {batch.sender_terminal_id}
    known = terminals.of_store(connection, batch.store_id, speaking, batch.received_at)
    return Context(
        received_at=batch.received_at,
        now=now,
        parameters=parameters.in_force_at(batch.store_id, batch.parameters_revision),
        terminals={key: one for key, one in known.items() if not one.retired},
        parameters_at=parameters.all_of_store(batch.store_id),
        keyring=keyring,
        actor=batch.received_by,
        batch_id=batch.batch_id,
    )


def named_lock_ids(readable: Sequence[Line], context: Context) -> list[tuple[int, UUID]]:
    """Return the locks that lines and their grants name, with the line's place."""
    named = []
    for place, line in enumerate(readable):
        if line.lock_id is not None:
            named.append((place, line.lock_id))
        grant = context.grant(line)
        if grant is not None:
            named.append((place, grant.lock_id))
    return named


def _require_store(store_id: str, actor: Actor) -> None:
    _require_to_speak_for(store_id, actor)
    if not terminals.store_exists(store_id):
        raise _foreign_store()


def _require_to_speak_for(store_id: str, actor: Actor) -> None:
    if not actor.speaks_for_store(store_id):
        raise _foreign_store()


def _foreign_store() -> Forbidden:
    return Forbidden("This API key may not speak for that store.", code="foreign_store")


def _control_totals(sent: ControlTotals | None, counted: ControlTotals) -> dict[str, Any] | None:
    """Return what the sender and HQ counted, None if they agree or the sender did not count."""
    if sent is None or sent == counted:
        return None
    return {
        "sent": {"lines_count": sent.lines_count, "amounts_minor": dict(sent.amounts_minor)},
        "counted": {
            "lines_count": counted.lines_count,
            "amounts_minor": dict(counted.amounts_minor),
        },
    }


def _unsettled_of(store_id: str) -> list[str]:
    try:
        return batches.unsettled_at_once(store_id)
    except NotTried:
        return [batch_id for _, batch_id in _unsettled(store_id)]


@reading
def _unsettled(_connection: Connection, store_id: str | None) -> list[tuple[str, str]]:
    return batches.unsettled(store_id)


def _in_order(store_id: str, batch_id: str, lines: Lines) -> OrderedLines:
    ordered = sorted(lines, key=settlement_order)
    terminal_ids = {line.place.terminal_id for line in lines if line.place is not None}
    return OrderedLines(store_id, batch_id, range(len(lines)), terminal_ids, ordered)


@reading
def _stored_in_order(connection: Connection, store_id: str, batch_id: str) -> OrderedLines | None:
    """Return the lines of a stored batch in order, None if nothing of it is left to settle.

    Of lines that came in order nothing is kept, of others their places alone.
    """
    batch = batches.get(connection, store_id, batch_id)
    if batch is None or batch.settled_at is not None:
        return None
    names: dict[str, str] = {}  # each of them once, and not once for each line
    terminal_ids: set[str] = set()

    def order() -> Iterator[tuple[str, str, int, int]]:
        for one in batches.standings(store_id, batch_id, batch.lines_count):
            if one.place is not None:
                terminal_ids.add(one.place.terminal_id)
            terminal_id, journal_id, sequence, position = settlement_order(one)
            terminal_id = names.setdefault(terminal_id, terminal_id)
            yield terminal_id, names.setdefault(journal_id, journal_id), sequence, position

    positions: Sequence[int] = range(batch.lines_count)
    if any(later < earlier for earlier, later in pairwise(order())):
        positions = array("I", (place[-1] for place in sorted(order())))
    return OrderedLines(store_id, batch_id, positions, terminal_ids)


@transactional
def _settle_chunk(
    connection: Connection,
    store_id: str,
    batch_id: str,
    ordered: OrderedLines,
    keyring: Keyring,
    now: datetime,
    chunk_lines: int,
    *,
    is_held_back: bool = False,
) -> bool:
    """Settle the next chunk; return whether the batch is settled.

    ``is_held_back`` holds its one line instead of posting it.
    """
    batch = batches.lock(connection, store_id, batch_id)
    if batch is None or batch.settled_at is not None:
        ordered.may_end_a_wait = True
        return True
    chunk = ordered[batch.settled_count : batch.settled_count + chunk_lines]
    if ordered.context is None:  # as it was when the batch was received: the same for each chunk
        terminal_ids = ordered.terminal_ids
        ordered.context = _context(connection, batch, terminal_ids, keyring, now)
        ordered.may_end_a_wait = batch.settled_count > 0
    context = replace(ordered.context)  # the grants that a chunk verifies go with it
    found, known = _load(connection, store_id, chunk, context)
    if is_held_back and isinstance(chunk[0], Line):
        settlement = hold_back(chunk[0], known, context)
    else:
        settlement = settle(chunk, found, known, context)
    ordered.may_end_a_wait = ordered.may_end_a_wait or settlement.may_end_a_wait
    judged = list(zip(chunk, settlement.results, strict=True))
    with connection.pipeline():
        # Results first: they open the cases that a void further down the chunk closes.
        _save_results(connection, batch, judged, now)
        settlements.save(connection, settlement, now, batch.received_by)
        if settlement.journals:
            journals.update(connection, store_id, settlement.journals)
        batch.settled_count += len(chunk)
        if batch.settled_count == batch.lines_count:
            batch.settled_at = now
        batches.update(connection, batch)
    if batch.settled_at is not None:
        _look_for_gaps(connection, batch, ordered, now)
    return batch.settled_at is not None


def _load(
    connection: Connection, store_id: str, chunk: Lines, context: Context
) -> tuple[dict[UUID, Instrument], Known]:
    """Lock the journals that a chunk continues, then its instruments, and read what is known."""
    names = {
        (line.place.terminal_id, line.place.journal_id)
        for line in chunk
        if line.place is not None and (store_id, line.place.terminal_id) in context.terminals
    }
    with connection.pipeline():
        settlements.plan_by_index(connection)
        continued = journals.load_for_update(connection, store_id, names) if names else {}
    readable = [line for line in chunk if isinstance(line, Line)]
    again = [line for line in readable if may_be_a_repeat(line, continued)]
    # Most often all or none of a chunk. What is posted already stays posted: it needs no row lock.
    repeats, positions = settlements.read_repeats(connection, again) if again else ({}, set())
    others = [line for line in readable if line.position not in positions]
    found: dict[UUID, Instrument] = {}
    known = Known()
    if others:
        found, known = settlements.load(connection, others, named_lock_ids(others, context))
    known.results = {**repeats, **known.results}
    known.journals = continued
    return found, known


def _save_results(connection: Connection, batch: Batch, judged: Judged, now: datetime) -> None:
    batch_id = batch.batch_id
    settled: list[tuple[Line | UnreadableLine, LineResult]] = []
    quarantined: list[tuple[UnreadableLine, LineResult]] = []
    held: list[tuple[Line, LineResult]] = []
    opened: list[tuple[Line | UnreadableLine, LineResult]] = []
    notices: Counter[tuple[str, str]] = Counter()
    for line, result in judged:
        kept = _as_kept(line, result)
        settled.append((kept, result))
        if isinstance(kept, UnreadableLine):
            quarantined.append((kept, result))
        elif result.outcome == Outcome.HELD:
            held.append((kept, result))
        if result.outcome == Outcome.DUPLICATE:
            continue
        if result.case_id is not None:
            opened.append((line, result))
        if result.codes and isinstance(kept, Line):
            told = NOTICE_CODES.intersection(result.codes)
            notices.update((code, kept.key.terminal_id) for code in told)
    batches.insert_results(connection, batch, settled, now)
    if held:
        batches.insert_held(connection, batch_id, held, now)
    if quarantined:
        batches.insert_quarantined(connection, batch_id, quarantined, now)
    if opened:
        cases.insert(connection, batch_id, opened, now)
    told_of = [
        Notice(code, terminal_id, f"{count} lines or more")
        for (code, terminal_id), count in notices.items()
    ]
    if told_of:
        cases.insert_notices(connection, batch.store_id, batch_id, told_of, now)


def _look_for_gaps(
    connection: Connection, batch: Batch, ordered: OrderedLines, now: datetime
) -> None:
    """Tell of what is missing in the journals that a settled batch continued, and of totals that
    do not agree; close what was told of gaps that are filled now.
    """
    terminal_ids = ordered.terminal_ids
    gaps: dict[str, list[str]] = {}
    continued = journals.read_with_gaps(connection, batch.store_id, terminal_ids)
    for (terminal_id, journal_id), journal in continued.items():
        for first, last in journal.gaps():
            gaps.setdefault(terminal_id, []).append(f"{journal_id} {first}-{last}")
    notices = [
        Notice(Code.SEQUENCE_GAP, terminal_id, "; ".join(missing[:GAPS_TOLD_MAX]))
        for terminal_id, missing in gaps.items()
    ]
    if batch.control_totals is not None:
        detail = f"sent {batch.control_totals['sent']}, counted {batch.control_totals['counted']}"
        notices.append(Notice(Code.CONTROL_TOTAL_MISMATCH, "", detail))
    if notices:
        cases.insert_notices(connection, batch.store_id, batch.batch_id, notices, now)
    complete = sorted(terminal_ids - set(gaps))
    if complete:
        cases.close_gap_notices(connection, batch.store_id, complete, now)


def _as_kept(line: Line | UnreadableLine, result: LineResult) -> Line | UnreadableLine:
    """Return a line as it is kept: one of a terminal that the sender may not speak for as text."""
    if isinstance(line, UnreadableLine) or result.outcome != Outcome.QUARANTINED:
        return line
    text = mask(batches.text_of(line))
    return UnreadableLine(
        line.key.store_id,
        line.position,
        text,
        "the sender may not speak for this terminal, or it is unknown or retired",
        line.place,
        line.key,
    )
