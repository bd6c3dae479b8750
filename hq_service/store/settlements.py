"""What a settlement reads and writes: a fixed number of statements, whatever its size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from hq_service.domain.judgement import GoneLock, Known
from hq_service.domain.model import (
    BusinessKey,
    Content,
    Instrument,
    Line,
    Posting,
    Tender,
    Void,
    newborn,
)
from hq_service.domain.numbers import bucket_of
from hq_service.domain.outcomes import Code, LineResult, Outcome, case_id_of, case_id_of_void
from hq_service.domain.settlement import Settlement
from hq_service.store import instruments
from hq_service.store.arrays import array
from hq_service.store.database import Connection
from hq_service.store.statements import statement


def plan_by_index(connection: Connection) -> None:
    """Let the statements of this transaction find their rows by key, however many keys there are.

    Planned for a thousand keys they would read all of a small table, and again with each chunk.
    """
    connection.execute(statement("plan_by_index"))


def load(
    connection: Connection,
    lines: Sequence[Line],
    named_lock_ids: Sequence[tuple[int, UUID]],
    *,
    for_update: bool = True,
) -> tuple[dict[UUID, Instrument], Known]:
    """Lock the rows of the instruments that the lines touch, then read what is known of them.

    The keys are read by later statements than the row locks: in one and the same statement a
    racing duplicate would not be seen. The instrument of a linked refund's original is locked,
    too: two refunds of one line, on two cards, wait for each other there.

    Shapes:  ``named_lock_ids`` place in ``lines``, and a lock that the line or its grant names;
             ``for_update`` is False for a dry run, which locks nothing.
    """
    known = Known()
    originals = [line.original for line in lines if line.original is not None]
    keys = _key_arrays([*(line.key for line in lines), *originals])
    # Also of what is voided: its refunds have given back a part already.
    refundable = [*originals, *(line.key for line in lines if line.is_void)]
    wanted = {line.instrument_id for line in lines}
    if originals:
        for contents in read_results(connection, originals).values():
            wanted |= {content.instrument_id for content in contents}
    with connection.pipeline():
        locked = instruments.load(connection, wanted, for_update=for_update)
        voided = connection.execute(statement("read_voids_by_key"), keys)
        if refundable:
            refunded = connection.execute(statement("read_refunded"), _key_arrays(refundable))
            known.refunded_minor = {BusinessKey(*row[:4]): row[4] for row in refunded.fetchall()}
        known.results = _read_results(connection, keys)
        found = instruments.loaded(locked)
        known.voided = dict(map(_known_void, voided.fetchall()))
    _read_originals_of_voided_refunds(connection, lines, known)
    _read_locks_that_are_gone(connection, lines, named_lock_ids, found, known)
    _read_recovered(connection, lines, known)
    return found, known


def _read_originals_of_voided_refunds(
    connection: Connection, lines: Sequence[Line], known: Known
) -> None:
    """Read whether the originals of linked refunds that the lines void were voided themselves."""
    originals = {
        content.original
        for line in lines
        if line.is_void
        for content in known.results.get(line.key, {})
        if content.original is not None
    }
    if originals:
        rows = connection.execute(statement("read_voids_by_key"), _key_arrays(originals))
        known.voided.update(map(_known_void, rows.fetchall()))


def _known_void(row: Sequence[Any]) -> tuple[BusinessKey, LineResult]:
    key = BusinessKey(*row[:4])
    codes, funded_minor, shortfall_minor, balance_after_minor, operation, *undone = row[4:]
    if operation is None:  # there was nothing to reverse
        return key, LineResult(Outcome.APPLIED, (Code.VOIDED,))
    result = LineResult(
        Outcome.APPLIED, tuple(codes or ()), funded_minor, shortfall_minor, balance_after_minor
    )
    if result.needs_case:
        instrument_id, amount_minor, currency = undone
        content = Content(operation, instrument_id, amount_minor, currency, None)
        result.case_id = case_id_of_void(key, content)
    return key, result


def _read_recovered(connection: Connection, lines: Sequence[Line], known: Known) -> None:
    """Read how much was recovered of what the lines that void something were short of."""
    case_ids = {
        result.case_id
        for line in lines
        if line.is_void
        for result in known.results.get(line.key, {}).values()
        if result.case_id is not None
    }
    if case_ids:
        rows = connection.execute(
            statement("read_recovered"), {"case_ids": array(sorted(case_ids))}
        )
        known.recovered_minor = dict(rows.fetchall())


def read_results(
    connection: Connection, keys: Sequence[BusinessKey]
) -> dict[BusinessKey, dict[Content, LineResult]]:
    """Return what some business keys came to: postings and held lines, by their content."""
    return _read_results(connection, _key_arrays(keys))


def read_repeats(
    connection: Connection, lines: Sequence[Line]
) -> tuple[dict[BusinessKey, dict[Content, LineResult]], set[int]]:
    """Return what was posted of lines that come again, by key and content, and the positions of
    these lines; nothing is locked.

    Of those only that leave nothing to be done: whose terminal has no lock on the instrument.
    """
    rows = connection.execute(
        statement("read_repeats"),
        {
            "store_ids": array(line.key.store_id for line in lines),
            "terminal_ids": array(line.key.terminal_id for line in lines),
            "transaction_ids": array(line.key.transaction_id for line in lines),
            "lines": array(line.key.line for line in lines),
        },
        binary=True,
    )
    repeats: dict[BusinessKey, dict[Content, LineResult]] = {}
    positions: set[int] = set()
    for row in rows.fetchall():
        line = lines[row[0] - 1]
        content = line.content
        original = BusinessKey(*row[5:9]) if row[5] is not None else None
        if content == (*row[1:5], original):
            positions.add(line.position)
            result = _known_result(Outcome.APPLIED, line.key, content, row[9:])
            repeats[line.key] = {content: result}
    return repeats, positions


def _read_results(
    connection: Connection, keys: Mapping[str, str]
) -> dict[BusinessKey, dict[Content, LineResult]]:
    results: dict[BusinessKey, dict[Content, LineResult]] = {}
    with connection.pipeline():
        posted = connection.execute(statement("read_postings_by_key"), keys)
        held = connection.execute(statement("read_held_by_key"), keys)
        # Held first: where a held line was applied later, its posting is the result to tell.
        for outcome, cursor in ((Outcome.HELD, held), (Outcome.APPLIED, posted)):
            for row in cursor.fetchall():
                key, content, result = _known_line(outcome, row)
                results.setdefault(key, {})[content] = result
    return results


def _known_line(outcome: Outcome, row: Sequence[Any]) -> tuple[BusinessKey, Content, LineResult]:
    key = BusinessKey(*row[:4])
    original = BusinessKey(*row[8:12]) if row[8] is not None else None
    content = Content(row[4], row[5], row[6], row[7], original)
    return key, content, _known_result(outcome, key, content, row[12:])


def _known_result(
    outcome: Outcome, key: BusinessKey, content: Content, row: Sequence[Any]
) -> LineResult:
    codes, funded_minor, shortfall_minor, balance_after_minor, *rest = row
    remainder_id, forfeited_minor, *held = rest
    result = LineResult(
        outcome,
        tuple(codes or ()),
        funded_minor,
        shortfall_minor,
        balance_after_minor,
        held[0] if held else None,
        remainder_id,
        forfeited_minor=forfeited_minor,
    )
    if result.case_id is None and result.needs_case:
        result.case_id = case_id_of(key, content)
    return result


def _read_locks_that_are_gone(
    connection: Connection,
    lines: Sequence[Line],
    named_lock_ids: Sequence[tuple[int, UUID]],
    found: Mapping[UUID, Instrument],
    known: Known,
) -> None:
    """Read how the locks ended that are not live on their instruments any more."""
    gone: set[tuple[UUID, str, str, str]] = set()
    named: set[tuple[UUID, UUID]] = set()
    for line in lines:
        instrument = found.get(line.instrument_id)
        if instrument is None:
            continue
        if instrument.lock is None or not instrument.lock.belongs_to(line.key):
            gone.add((line.instrument_id, *line.key[:3]))
    for place, lock_id in named_lock_ids:
        instrument = found.get(lines[place].instrument_id)
        if instrument is None or instrument.lock is None or instrument.lock.lock_id != lock_id:
            named.add((lines[place].instrument_id, lock_id))
    if not gone and not named:
        return
    owners, touched = sorted(gone), sorted({instrument_id for instrument_id, _ in named})
    with connection.pipeline():
        ended = connection.execute(
            statement("read_gone_locks"),
            {
                "buckets": array(bucket_of(owner[0]) for owner in owners),
                "instrument_ids": array(owner[0] for owner in owners),
                "store_ids": array(owner[1] for owner in owners),
                "terminal_ids": array(owner[2] for owner in owners),
                "transaction_ids": array(owner[3] for owner in owners),
            },
        )
        spent = connection.execute(
            statement("read_consumed_locks"),
            {
                "buckets": array(map(bucket_of, touched)),
                "instrument_ids": array(touched),
                "lock_ids": array(sorted({lock_id for _, lock_id in named})),
            },
        )
        for row in ended.fetchall():
            known.gone_locks.setdefault(row[:4], []).append(GoneLock(*row[4:11]))
            if row[11] is not None:
                known.consumed_locks[row[0], row[4]] = BusinessKey(*row[11:])
        for row in spent.fetchall():
            known.consumed_locks[row[:2]] = BusinessKey(*row[2:])


def _key_arrays(keys: Iterable[BusinessKey]) -> dict[str, str]:
    """Return business keys as the four arrays that the statements take; each key once."""
    distinct = list(dict.fromkeys(keys))
    return {
        "store_ids": array(key.store_id for key in distinct),
        "terminal_ids": array(key.terminal_id for key in distinct),
        "transaction_ids": array(key.transaction_id for key in distinct),
        "lines": array(key.line for key in distinct),
    }


def save(connection: Connection, settlement: Settlement, now: datetime, actor: str) -> None:
    """Store what a fold did to instruments, locks, postings and keys. Call it inside a pipeline."""
    if settlement.created:
        # Empty first: what they are worth comes with the update, beside its posting.
        created = [
            newborn(one.instrument_id, one.kind, one.currency, one.number_last4)
            for one in settlement.created.values()
        ]
        instruments.insert(connection, created, now)
    if settlement.postings:
        insert_postings(connection, settlement.postings, now)
    if settlement.instruments:
        instruments.update(connection, list(settlement.instruments.values()))
    if settlement.freed_locks:
        instruments.delete_live_locks(connection, settlement.freed_locks)
    if settlement.ended_locks:
        instruments.insert_lock_events(connection, settlement.ended_locks)
    if settlement.voids:
        _insert_voids(connection, settlement.voids)
    if settlement.closed_cases:
        _close_cases(connection, settlement.closed_cases, now, actor)


def _insert_voids(connection: Connection, voids: Sequence[Void]) -> None:
    connection.execute(
        statement("insert_voids"),
        {
            "voided_at": voids[0].voided_at,
            "voided_by": voids[0].voided_by,
            "buckets": array(bucket_of(one.instrument_id) for one in voids),
            "instrument_ids": array(one.instrument_id for one in voids),
            "store_ids": array(one.key.store_id for one in voids),
            "terminal_ids": array(one.key.terminal_id for one in voids),
            "transaction_ids": array(one.key.transaction_id for one in voids),
            "lines": array(one.key.line for one in voids),
            "reasons": array(one.reason for one in voids),
        },
    )


def _close_cases(
    connection: Connection, closed: Mapping[UUID, str], now: datetime, actor: str
) -> None:
    connection.execute(
        statement("close_cases"),
        {
            "case_ids": array(closed.keys()),
            "outcomes": array(closed.values()),
            "now": now,
            "actor": actor,
        },
    )


def insert_postings(connection: Connection, postings: Sequence[Posting], now: datetime) -> None:
    """Append postings; a key that is there already raises a unique violation."""
    connection.execute(
        statement("insert_postings"),
        {
            "buckets": array(bucket_of(one.instrument_id) for one in postings),
            "instrument_ids": array(one.instrument_id for one in postings),
            "versions": array(one.version for one in postings),
            "store_ids": array(one.key.store_id for one in postings),
            "terminal_ids": array(one.key.terminal_id for one in postings),
            "transaction_ids": array(one.key.transaction_id for one in postings),
            "lines": array(one.key.line for one in postings),
            "entries": array(one.entry for one in postings),
            "operations": array(one.operation for one in postings),
            "currencies": array(one.currency for one in postings),
            "amounts_minor": array(one.amount_minor for one in postings),
            "funded_minor": array(one.funded_minor for one in postings),
            "shortfalls_minor": array(one.shortfall_minor for one in postings),
            "changes_minor": array(one.change_minor for one in postings),
            "balances_after_minor": array(one.balance_after_minor for one in postings),
            "codes": array(" ".join(one.codes) or None for one in postings),
            "posted_at": now,
            "concluded_at": array(one.concluded_at for one in postings),
            "lock_ids": array(one.lock_id for one in postings),
            "locked_at": array(one.locked_at for one in postings),
            **original_arrays(one.original for one in postings),
            "related_instrument_ids": array(one.related_instrument_id for one in postings),
            **tender_arrays(one.tender for one in postings),
        },
    )


def original_arrays(originals: Iterable[BusinessKey | None]) -> dict[str, str]:
    """Return the keys that refunds name as the four arrays that the statements take."""
    named = [one or (None, None, None, None) for one in originals]
    return {
        "original_store_ids": array(one[0] for one in named),
        "original_terminal_ids": array(one[1] for one in named),
        "original_transaction_ids": array(one[2] for one in named),
        "original_lines": array(one[3] for one in named),
    }


def tender_arrays(tenders: Iterable[Tender | None]) -> dict[str, str]:
    """Return what tills took in other currencies as the three arrays that the statements take."""
    taken = [one or (None, None, None) for one in tenders]
    return {
        "tender_amounts_minor": array(one[0] for one in taken),
        "tender_currencies": array(one[1] for one in taken),
        "exchange_rates": array(one[2] for one in taken),
    }
