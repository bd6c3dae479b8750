"""Concluding lines online, all or none: what redemptions, sales, voids and releases share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from hq_service.domain.actors import Actor
from hq_service.domain.errors import Forbidden, HqError, InvalidRequest, NotFound, Refused
from hq_service.domain.judgement import OnlineRefusal
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import BusinessKey, Instrument, Line
from hq_service.domain.outcomes import LineResult, Outcome
from hq_service.domain.settlement import Settlement, conclude
from hq_service.operations.context import online_context, touch_if_due
from hq_service.store import cases, settlements, terminals
from hq_service.store.database import Connection, confirm_durable


@dataclass(frozen=True, slots=True)
class Concluded:
    """One concluded line; ``is_replay`` when an earlier request had concluded it.

    ``remainder_number`` is told only here, to the terminal whose key made it.
    """

    line: Line
    instrument: Instrument | None
    result: LineResult
    is_replay: bool
    remainder_number: str | None


def conclude_lines(
    connection: Connection,
    lines: Sequence[Line],
    actor: Actor,
    keyring: Keyring,
    now: datetime,
) -> list[Concluded] | dict[int, OnlineRefusal]:
    """Conclude the lines of one transaction under the rules, and store what they come to.

    Returns: one answer per line; or, by place, why which of them are refused: then nothing is
             written.
    """
    key = lines[0].key
    require_terminal(actor, key)
    named = [(place, line.lock_id) for place, line in enumerate(lines) if line.lock_id is not None]
    found, known = settlements.load(connection, lines, named)
    context = online_context(key, actor, keyring, now)
    settlement = conclude(lines, found, known, context)
    if not isinstance(settlement, Settlement):
        return settlement
    answers = [
        _answer(line, result, settlement, found, keyring)
        for line, result in zip(lines, settlement.results, strict=True)
    ]
    with connection.pipeline():
        settlements.save(connection, settlement, now, actor.name)
        opened = [
            (answer.line, answer.result)
            for answer in answers
            if answer.result.case_id is not None and not answer.is_replay
        ]
        if opened:
            cases.insert(connection, None, opened, now)
    if all(answer.is_replay for answer in answers):
        confirm_durable(connection)
    seen = terminals.presence(key.store_id, key.terminal_id)
    touch_if_due(connection, key, seen.last_seen_at if seen else None, context.parameters, now)
    return answers


def refusal(refused: OnlineRefusal) -> HqError:
    """Return the error that tells a terminal why its one command is refused."""
    if refused is OnlineRefusal.INSTRUMENT_NOT_FOUND:
        return NotFound(code=refused)
    if refused is OnlineRefusal.BUSINESS_KEY_REUSED:
        return InvalidRequest(code=refused)
    return Refused(code=refused)


def refusal_of_lines(refused: Mapping[int, OnlineRefusal]) -> HqError:
    """Return the error that tells a terminal which lines of its sale are refused, and why."""
    first = refusal(next(iter(refused.values())))
    errors = [
        {"pointer": f"/lines/{place}", "detail": code.replace("_", " "), "code": code}
        for place, code in refused.items()
    ]
    return type(first)(code=first.code, errors=errors)


def require_terminal(actor: Actor, key: BusinessKey) -> None:
    """Refuse a terminal that speaks for another one."""
    if not actor.speaks_for(key.store_id, key.terminal_id):
        raise Forbidden(
            "This API key may not speak for that store and terminal.", code="foreign_terminal"
        )


def _answer(
    line: Line,
    result: LineResult,
    settlement: Settlement,
    found: Mapping[UUID, Instrument],
    keyring: Keyring,
) -> Concluded:
    instrument_id = line.instrument_id
    made = keyring.remainder_number_for(line.key) if result.remainder_id else None
    return Concluded(
        line=line,
        instrument=settlement.instruments.get(instrument_id) or found.get(instrument_id),
        result=result,
        is_replay=result.outcome == Outcome.DUPLICATE,
        remainder_number=made,
    )
