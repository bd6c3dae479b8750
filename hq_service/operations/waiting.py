"""Held lines that wait for something: judged again when it arrives."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from hq_service.domain.keyring import Keyring
from hq_service.domain.model import HQ, Line
from hq_service.domain.outcomes import LineResult, Outcome
from hq_service.domain.resolving import Case
from hq_service.domain.settlement import settle
from hq_service.operations.offline_batches import named_lock_ids, settling_context
from hq_service.store import batches, cases, settlements
from hq_service.store.database import Connection, reading, transactional

WAITING_MAX = 1_000
"""How many lines are judged again at once; the rest has its turn with the next arrival."""

ARRIVED = "arrived"


def judge_again(keyring: Keyring, now: datetime) -> int:
    """Judge every held line again whose instrument or original has arrived; return how many.

    Each in a transaction of its own, under the same rules as if it had come just now.
    """
    waiting = _waiting()
    for case_id, store_id, batch_id, position in waiting:
        _judge_line_again(case_id, store_id, batch_id, position, keyring, now)
    return len(waiting)


@reading
def _waiting(connection: Connection) -> list[tuple[UUID, str, str, int]]:
    return cases.read_waiting(connection, WAITING_MAX)


@transactional
def _judge_line_again(
    connection: Connection,
    case_id: UUID,
    store_id: str,
    batch_id: str,
    position: int,
    keyring: Keyring,
    now: datetime,
) -> None:
    case = cases.lock(connection, case_id)
    batch = batches.get(store_id, batch_id)
    line = batches.line_at(store_id, batch_id, position)
    if case is None or case.resolved_at is not None or batch is None:
        return
    if not isinstance(line, Line):
        return
    context = settling_context(
        store_id,
        batch.sender_terminal_id,
        batch.parameters_revision,
        batch.received_at,
        batch.received_by,
        [line],
        keyring,
        now,
    )
    found, known = settlements.load(connection, [line], named_lock_ids([line], keyring))
    # Its own being held is not a repeat of itself.
    known.results.get(line.key, {}).pop(line.content, None)
    settlement = settle([line], found, known, context)
    result = settlement.results[0]
    if result.outcome == Outcome.HELD:
        return
    with connection.pipeline():
        settlements.save(connection, settlement, now, HQ)
    take_over(case, result, ARRIVED, HQ, "what it waited for has arrived", now)
    cases.update(connection, case)


def take_over(
    case: Case, result: LineResult, resolution: str, actor: str, reason: str, now: datetime
) -> None:
    """Let a case say what its line has come to; it stays open if that leaves a question."""
    if result.outcome == Outcome.APPLIED:
        case.outcome = result.outcome
        case.codes = list(result.codes)
        case.shortfall_minor = result.shortfall_minor
        if result.needs_case:
            return
    case.resolution = resolution
    case.resolved_at = now
    case.resolved_by = actor
    case.resolution_reason = reason
