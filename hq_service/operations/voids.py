"""Voiding a business key, in whatever order things arrive."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from hq_service.domain.actors import Actor
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import BusinessKey, Line, Operation
from hq_service.domain.reading import NO_CURRENCY
from hq_service.operations.concluding import Concluded, conclude_lines, refusal
from hq_service.store.database import Connection, transactional


@transactional
def void(
    connection: Connection,
    key: BusinessKey,
    instrument_id: UUID,
    reason: str,
    actor: Actor,
    keyring: Keyring,
    now: datetime,
) -> Concluded:
    """Say that a business key shall have no effect: undo what it did, or keep it from doing it.

    No time limit. A lock that was taken for the key is released.

    Raises:  InvalidRequest ``business_key_reused`` when the key was spent on another instrument.
    """
    line = Line(key, Operation.VOID, instrument_id, 0, NO_CURRENCY, reason=reason, concluded_at=now)
    answers = conclude_lines(connection, [line], actor, keyring, now)
    if not isinstance(answers, list):
        raise refusal(answers[0])
    return answers[0]
