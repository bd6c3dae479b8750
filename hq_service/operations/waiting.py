"""Held lines that wait for something: judged again when it arrives."""

from __future__ import annotations

import logging
from datetime import datetime
from uuid import UUID

from hq_service.domain.errors import Unavailable
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import HQ, Line
from hq_service.domain.outcomes import LineResult, Outcome
from hq_service.domain.resolving import Case
from hq_service.domain.settlement import settle
from hq_service.operations.offline_batches import named_lock_ids, settling_context
from hq_service.store import batches, cases, settlements
from hq_service.store.database import Connection, reading, transactional

WAITING_MAX = 200
"""How many lines are judged again at once; the rest has its turn with the next arrival."""

ARRIVED = "arrived"

logger = logging.getLogger(__name__)


def judge_again(keyring: Keyring, now: datetime) -> int:
    """Judge held lines again whose instrument or original has arrived; return how many of them came
    to something.

    Each in a transaction of its own, under the same rules as if it had come just now. One that
    fails is logged and keeps waiting: whoever brought what the others waited for is not to blame.
    """
    return sum(
        _try_again(case_id, store_id, batch_id, position, keyring, now)
        for case_id, store_id, batch_id, position in _waiting()
    )


def judge_again_behind(keyring: Keyring, now: datetime) -> None:
    """Judge held lines again behind something that is done and committed: its answer must not
    depend on it. What cannot be judged now is with the next arrival, or by ``hq worker``.
    """
    try:
        judge_again(keyring, now)
    except Unavailable as error:
        extra = {"action": "judge_again", "outcome": error.code}
        logger.warning("waiting lines are judged later", extra=extra)


def _try_again(
    case_id: UUID, store_id: str, batch_id: str, position: int, keyring: Keyring, now: datetime
) -> bool:
    try:
        return _judge_line_again(case_id, store_id, batch_id, position, keyring, now)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other lines go on
        logger.error(
            "a waiting line cannot be judged",
            extra={
                "action": "judge_again",
                "case_id": str(case_id),
                "error": type(error).__name__,
            },
        )
        return False


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
) -> bool:
    case = cases.lock(connection, case_id)
    batch = batches.get(connection, store_id, batch_id)
    line = batches.line_at(store_id, batch_id, position)
    if case is None or case.resolved_at is not None or batch is None:
        return False
    if not isinstance(line, Line):
        return False
    context = settling_context(connection, batch, [line], keyring, now)
    found, known = settlements.load(connection, [line], named_lock_ids([line], context))
    # Its own being held is not a repeat of itself.
    known.results.get(line.key, {}).pop(line.content, None)
    settlement = settle([line], found, known, context)
    result = settlement.results[0]
    if result.outcome == Outcome.HELD:
        # Held for another reason now, for which nothing has to arrive any more.
        case.codes = list(result.codes)
        cases.update(connection, case)
        return False
    with connection.pipeline():
        settlements.save(connection, settlement, now, HQ)
    take_over(case, result, ARRIVED, HQ, "what it waited for has arrived", now)
    cases.update(connection, case)
    return True


def take_over(
    case: Case,
    result: LineResult,
    resolution: str,
    actor: str,
    reason: str,
    now: datetime,
    *,
    is_looked_at: bool = False,
) -> None:
    """Let a case say what its line has come to; it stays open if that leaves a question.

    ``is_looked_at`` says that a person has decided: then only what is short is a question.
    """
    if result.outcome == Outcome.APPLIED:
        case.outcome = result.outcome
        case.codes = list(result.codes)
        case.shortfall_minor = result.shortfall_minor
        if result.shortfall_minor or (result.needs_case and not is_looked_at):
            return
    case.resolution = resolution
    case.resolved_at = now
    case.resolved_by = actor
    case.resolution_reason = reason
