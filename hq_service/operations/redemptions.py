"""Concluding a redemption online: a settlement of one line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from hq_service.domain.actors import Actor
from hq_service.domain.errors import InvalidRequest, NotFound, Refused
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import Instrument, Kind, Line, Terminal
from hq_service.domain.parameters import Parameters
from hq_service.domain.settlement import LineResult, OnlineRefusal, Outcome, conclude
from hq_service.operations.context import online_context, touch_if_due
from hq_service.operations.locks import require_terminal
from hq_service.store import settlements, terminals
from hq_service.store.database import Connection, confirm_durable, transactional


@dataclass(frozen=True, slots=True)
class Redemption:
    """A concluded redemption; ``is_replay`` when an earlier request had concluded it.

    ``remainder_number`` is told only here, to the terminal whose key made it.
    """

    line: Line
    instrument: Instrument
    result: LineResult
    is_replay: bool
    remainder_id: UUID | None
    remainder_number: str | None


@transactional
def redeem(
    connection: Connection, line: Line, actor: Actor, keyring: Keyring, now: datetime
) -> Redemption:
    """Take an amount from an instrument under its own lock, and unlock it.

    Raises:  NotFound, InvalidRequest ``business_key_reused``, Refused with a code of
             OnlineRefusal. A refusal writes nothing and occupies no key.
    """
    require_terminal(actor, line.key)
    found, known = settlements.load(connection, [line], _named(line))
    context = online_context(line.key, actor, keyring, now)
    before = found.get(line.instrument_id)
    settlement = conclude(line, before, known, context)
    if isinstance(settlement, OnlineRefusal):
        raise refusal(settlement)
    with connection.pipeline():
        settlements.save(connection, settlement, now)
    result = settlement.results[0]
    is_replay = result.outcome == Outcome.DUPLICATE
    if is_replay:
        confirm_durable(connection)
    else:
        _renew_lease(connection, line, context.parameters, now)
    after = settlement.instruments.get(line.instrument_id) or before
    assert after is not None  # an unknown instrument was refused
    number = keyring.number_made_for(Kind.CREDIT_MEMO, line.key) if result.remainder_id else None
    return Redemption(line, after, result, is_replay, result.remainder_id, number)


def refusal(refused: OnlineRefusal) -> Exception:
    """Return the error that tells a terminal why its command is refused."""
    if refused is OnlineRefusal.INSTRUMENT_NOT_FOUND:
        return NotFound(code=refused)
    if refused is OnlineRefusal.BUSINESS_KEY_REUSED:
        return InvalidRequest(code=refused)
    return Refused(code=refused)


def _named(line: Line) -> dict[int, UUID]:
    return {} if line.lock_id is None else {0: line.lock_id}


def _renew_lease(connection: Connection, line: Line, in_force: Parameters, now: datetime) -> None:
    seen = terminals.presence(line.key.store_id, line.key.terminal_id)
    terminal = Terminal(
        line.key.store_id,
        line.key.terminal_id,
        supports_offline=False,
        last_seen_at=seen.last_seen_at if seen else None,
    )
    touch_if_due(connection, terminal, in_force, now)
