"""A sale with several lines, and what became of one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from hq_service.domain.actors import Actor
from hq_service.domain.errors import InvalidRequest, NotFound
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import Line
from hq_service.operations.concluding import Concluded, conclude_lines, refusal_of_lines
from hq_service.store import transactions
from hq_service.store.database import Connection, confirm_durable, transactional
from hq_service.store.transactions import KnownLine

LINES_MAX = 100


@transactional
def conclude(
    connection: Connection,
    lines: Sequence[Line],
    actor: Actor,
    keyring: Keyring,
    now: datetime,
) -> list[Concluded]:
    """Conclude the lines of one sale, all or none; lines that were concluded before count as done.

    Shapes:  1 to `LINES_MAX` lines of one transaction, each on an instrument of its own.
    Raises:  InvalidRequest with a pointer for a line or an instrument that comes twice; otherwise
             as `redemptions.redeem`, with a pointer to each refused line.
    """
    _refuse_what_comes_twice(lines)
    answers = conclude_lines(connection, lines, actor, keyring, now)
    if not isinstance(answers, list):
        raise refusal_of_lines(answers)
    return answers


@transactional
def outcome(
    connection: Connection, store_id: str, terminal_id: str, transaction_id: str, actor: Actor
) -> list[KnownLine]:
    """Return what HQ knows of a transaction, line by line: for a till that lost an answer.

    What is told here is final for the till, so it waits for the standby like the first answer.

    Raises:  NotFound: the same for one that HQ does not know and for another terminal's.
    """
    known = []
    if actor.speaks_for(store_id, terminal_id):
        known = transactions.read(connection, store_id, terminal_id, transaction_id)
    if not known:
        raise NotFound(code="transaction_not_found")
    confirm_durable(connection)
    return known


def _refuse_what_comes_twice(lines: Sequence[Line]) -> None:
    """Source: NoMoreThanOneOperationWithAGiftCard (Dynamics)."""
    faults = []
    numbers, instruments = set(), set()
    for place, line in enumerate(lines):
        if line.key.line in numbers:
            faults.append({"pointer": f"/lines/{place}/line", "detail": "comes twice"})
        if line.instrument_id in instruments:
            faults.append(
                {
                    "pointer": f"/lines/{place}/instrument_id",
                    "detail": "an instrument may be in a sale once",
                }
            )
        numbers.add(line.key.line)
        instruments.add(line.instrument_id)
    if faults:
        raise InvalidRequest(errors=faults)
