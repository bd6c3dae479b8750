"""Balance inquiries, and instruments that an administrator issues."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from hq_service.domain import issuing
from hq_service.domain.actors import Actor
from hq_service.domain.audit import Action
from hq_service.domain.errors import InvalidRequest, NotFound, Refused
from hq_service.domain.judgement import OnlineRefusal
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import Instrument
from hq_service.domain.numbers import without_separators
from hq_service.operations.finding import find, normalised
from hq_service.store import audit, instruments, settlements
from hq_service.store.database import Connection, confirm_durable, reading, transactional


@reading
def inquire_balance(connection: Connection, kind: str, number: str, keyring: Keyring) -> Instrument:
    """Return an instrument as it is now, locking nothing. No decision may rest on it.

    Raises:  NotFound: the same for a number that does not exist and for a wrong one.
    """
    instrument = find(connection, kind, number, keyring)
    if instrument is None:
        raise NotFound(code="instrument_not_found")
    return instrument


@dataclass(frozen=True, slots=True)
class Issue:
    """What an administrator issues. ``reference`` is the caller's own name for this issue: the
    same reference again is the same issue.
    """

    reference: str
    kind: str
    currency: str
    amount_minor: int
    number: str | None


@dataclass(frozen=True, slots=True)
class Issued:
    """An issued instrument as it is now; ``made_number`` only when HQ made its number."""

    instrument: Instrument
    made_number: str | None
    is_replay: bool


@transactional
def issue(
    connection: Connection, wish: Issue, actor: Actor, keyring: Keyring, now: datetime
) -> Issued:
    """Issue a gift card or credit memo at headquarters, active and worth its amount at once.

    Raises:  InvalidRequest ``business_key_reused`` when the reference issued something else, or
             with a pointer when it has the number in it;
             Refused ``instrument_exists`` when the number is taken.
    """
    key = issuing.key_of_headquarters(wish.reference)
    made_number = None if wish.number is not None else keyring.number_made_for(wish.kind, key)
    number = normalised(wish.number or made_number or "")
    _require_another_name(wish.reference, number)
    instrument_id = keyring.instrument_id(wish.kind, number)
    instrument, posting = issuing.issue(
        key,
        instrument_id,
        kind=wish.kind,
        normalised_number=number,
        currency=wish.currency,
        amount_minor=wish.amount_minor,
        now=now,
    )
    instruments.claim_reference(connection, wish.reference, actor.name, now)
    # Inserted first: a racing issue of the same number waits here and is then seen below.
    is_new = instruments.insert(connection, [instrument], now) == 1
    known = settlements.read_results(connection, [key]).get(key, {})
    if known:
        if posting.content not in known:
            raise InvalidRequest(code=OnlineRefusal.BUSINESS_KEY_REUSED)
        confirm_durable(connection)
        existing = instruments.read(connection, instrument_id)
        assert existing is not None  # its posting refers to it
        return Issued(existing, made_number, is_replay=True)
    if not is_new:
        raise Refused(code="instrument_exists")
    settlements.insert_postings(connection, [posting], now)
    audit.append(
        connection,
        keyring.audit_key(),
        recorded_at=now,
        actor=actor.name,
        action=Action.INSTRUMENT_ISSUED,
        subject=f"instrument:{instrument_id}",
        detail={
            "reference": wish.reference,
            "kind": wish.kind,
            "currency": wish.currency,
            "amount_minor": wish.amount_minor,
            "number_last4": instrument.number_last4,
            "is_number_made_by_hq": made_number is not None,
        },
    )
    return Issued(instrument, made_number, is_replay=False)


def _require_another_name(reference: str, number: str) -> None:
    """Refuse a reference that has the card number in it: references are kept and shown."""
    if number in without_separators(reference):
        fault = {"pointer": "/reference", "detail": "must not have the card number in it"}
        raise InvalidRequest(errors=[fault])
