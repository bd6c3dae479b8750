"""Concluding a redemption online: a sale of one line."""

from __future__ import annotations

from datetime import datetime

from hq_service.domain.actors import Actor
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import Line
from hq_service.operations.concluding import Concluded, conclude_lines, refusal
from hq_service.store.database import Connection, transactional


@transactional
def redeem(
    connection: Connection, line: Line, actor: Actor, keyring: Keyring, now: datetime
) -> Concluded:
    """Take an amount from an instrument under its own lock, and unlock it.

    Raises:  NotFound, InvalidRequest ``business_key_reused``, Refused with a code of
             OnlineRefusal. A refusal writes nothing and occupies no key.
    """
    answers = conclude_lines(connection, [line], actor, keyring, now)
    if not isinstance(answers, list):
        raise refusal(answers[0])
    return answers[0]
