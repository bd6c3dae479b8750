"""What a terminal does online: balance inquiries, locks, releases and redemptions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hq_service.api import at_once as first
from hq_service.api import auth
from hq_service.api.at_once import first_try
from hq_service.api.blueprints import Blueprint, keyring
from hq_service.api.headers import REPLAY_TOLD, REPLAYED
from hq_service.api.names import require_possible
from hq_service.api.schemas import selling
from hq_service.api.schemas.queries import after_text
from hq_service.domain.actors import Actor, Presented, Role
from hq_service.domain.errors import Refused
from hq_service.domain.keyring import Keyring
from hq_service.domain.locking import LockRequest
from hq_service.domain.model import (
    BusinessKey,
    Instrument,
    Kind,
    Line,
    Operation,
    Purpose,
    Tender,
)
from hq_service.domain.money import AMOUNT_MINOR_MAX
from hq_service.domain.reading import LINE_NUMBER_MAX
from hq_service.operations import at_once, instruments, locks, redemptions, transactions, voids
from hq_service.operations.clock import now
from hq_service.operations.concluding import Concluded
from hq_service.operations.locks import LockAnswer

blueprint = Blueprint("selling", "What a terminal does online")
auth.protect(blueprint)

BALANCE_ROLES = (Role.TERMINAL, Role.ADMIN, Role.AUDITOR)
BUSINESS_KEY = {
    "store_id": first.is_name,
    "terminal_id": first.is_name,
    "transaction_id": first.is_name,
    "line": first.is_number_up_to(LINE_NUMBER_MAX),
}

Answer = dict[str, Any]


def _inquire_at_once(
    body: Mapping[str, Any], presented: Presented, keyring: Keyring
) -> first.Answer | None:
    asked_at = now()
    told = at_once.inquire_balance(body["kind"], body["number"], presented, keyring, asked_at)
    if told is None or told.actor.role not in BALANCE_ROLES:
        return None
    members = instrument_members(told.instrument)
    members |= {"is_locked": told.is_locked, "as_of": asked_at}
    return first.Answer(200, members, told.actor)


@blueprint.route("/v1/balance-inquiries", methods=["POST"])
@first_try(_inquire_at_once, kind=first.is_one_of(*Kind), number=first.is_text)
@auth.allow(*BALANCE_ROLES)
@blueprint.arguments(selling.BalanceInquirySchema)
@blueprint.response(200, selling.BalanceSchema)
def inquire_balance(wish: Mapping[str, Any]) -> Answer:
    """Tell the balance of an instrument, for information: no decision may rest on it."""
    asked_at = now()
    instrument = instruments.inquire_balance(wish["kind"], wish["number"], keyring())
    return {
        **instrument_members(instrument),
        "is_locked": instrument.lock is not None,
        "as_of": asked_at,
    }


def _lock_at_once(
    body: Mapping[str, Any], presented: Presented, keyring: Keyring
) -> first.Answer | first.Refusal | None:
    request = LockRequest(business_key(body), Purpose.REDEEM)
    actor = _terminal(presented, request.key)
    try:
        done = at_once.lock(request, body["kind"], body["number"], presented, keyring, now())
    except Refused as error:
        return first.Refusal(error, actor)
    return first.Answer(201, lock_members(done), actor) if done is not None else None


@blueprint.route("/v1/locks", methods=["POST"])
@first_try(
    _lock_at_once,
    **BUSINESS_KEY,
    kind=first.is_one_of(*Kind),
    number=first.is_text,
    purpose=first.is_one_of(Purpose.REDEEM),
)
@auth.allow(Role.TERMINAL)
@blueprint.arguments(selling.LockRequestSchema)
@blueprint.response(201, selling.LockSchema)
@blueprint.alt_response(
    200,
    schema=selling.LockSchema,
    description="The same lock, asked again",
    headers=REPLAY_TOLD,
)
def acquire_lock(wish: Mapping[str, Any]) -> tuple[Answer, int, dict[str, str]]:
    """Lock an instrument for one line of a transaction, the moment it is added to the sale."""
    answer = locks.acquire(
        LockRequest(
            business_key(wish), wish["purpose"], wish.get("amount_minor"), wish.get("currency")
        ),
        wish["kind"],
        wish.get("number"),
        auth.current_actor(),
        keyring(),
        now(),
    )
    body = lock_members(answer)
    return (body, 201, {}) if answer.is_new else (body, 200, REPLAYED)


@blueprint.route("/v1/locks", methods=["GET"])
@auth.allow(Role.TERMINAL)
@blueprint.arguments(selling.OwnLocksPageSchema, location="query")
@blueprint.response(200, selling.OwnLocksSchema)
def list_own_locks(page: Mapping[str, Any]) -> Answer:
    """Tell a terminal the locks that it holds: what it goes on with after a restart."""
    held, place = locks.held_by_terminal(
        auth.current_actor(),
        page["transaction_id"],
        keyring(),
        after=page["after"],
        limit=page["limit"],
    )
    told = [{**one.lock.key._asdict(), **lock_members(one)} for one in held]
    return {"locks": told, "next_after": after_text(place)}


@blueprint.route("/v1/releases", methods=["POST"])
@auth.allow(Role.TERMINAL)
@blueprint.arguments(selling.ReleaseRequestSchema)
@blueprint.response(200, selling.ReleaseSchema, headers=REPLAY_TOLD)
def release_lock(wish: Mapping[str, Any]) -> tuple[Answer, int, dict[str, str]]:
    """Give a lock back without using it."""
    is_replay = locks.release(
        business_key(wish),
        wish["instrument_id"],
        wish["lock_id"],
        auth.current_actor(),
        keyring(),
        now(),
    )
    body = {"lock_id": wish["lock_id"], "status": "released"}
    return body, 200, REPLAYED if is_replay else {}


def _redeem_at_once(
    body: Mapping[str, Any], presented: Presented, _keyring: Keyring
) -> first.Answer | None:
    key = business_key(body)
    wish = at_once.Redemption(
        key, body["instrument_id"], body["lock_id"], body["amount_minor"], body["currency"]
    )
    balance_minor = at_once.redeem(wish, presented, now())
    if balance_minor is None:
        return None
    concluded = {
        "operation": Operation.REDEEM,
        "instrument_id": wish.instrument_id,
        "amount_minor": wish.amount_minor,
        "currency": wish.currency,
        "balance_after_minor": balance_minor,
        "remainder": None,
    }
    return first.Answer(201, {**key._asdict(), **concluded}, _terminal(presented, key))


@blueprint.route("/v1/redemptions", methods=["POST"])
@first_try(
    _redeem_at_once,
    **BUSINESS_KEY,
    instrument_id=first.is_uuid,
    lock_id=first.is_uuid,
    amount_minor=first.is_number_up_to(AMOUNT_MINOR_MAX),
    currency=first.is_text,
)
@auth.allow(Role.TERMINAL)
@blueprint.arguments(selling.RedemptionRequestSchema)
@blueprint.response(201, selling.RedemptionSchema)
@blueprint.alt_response(
    200,
    schema=selling.RedemptionSchema,
    description="The first answer, told again",
    headers=REPLAY_TOLD,
)
def redeem(wish: Mapping[str, Any]) -> tuple[Answer, int, dict[str, str]]:
    """Conclude a redemption: the balance goes down and the instrument is unlocked."""
    key = business_key(wish)
    concluded_at = now()
    line = Line(
        key,
        Operation.REDEEM,
        wish["instrument_id"],
        wish["amount_minor"],
        wish["currency"],
        lock_id=wish["lock_id"],
        concluded_at=concluded_at,
    )
    done = redemptions.redeem(line, auth.current_actor(), keyring(), concluded_at)
    body = {**key._asdict(), **concluded_members(done)}
    return (body, 200, REPLAYED) if done.is_replay else (body, 201, {})


@blueprint.route("/v1/transactions", methods=["POST"])
@auth.allow(Role.TERMINAL)
@blueprint.arguments(selling.SaleSchema)
@blueprint.response(201, selling.ConcludedSaleSchema)
@blueprint.alt_response(
    200,
    schema=selling.ConcludedSaleSchema,
    description="The first answer, told again",
    headers=REPLAY_TOLD,
)
def conclude_transaction(wish: Mapping[str, Any]) -> tuple[Answer, int, dict[str, str]]:
    """Conclude the lines of one sale on several instruments, all or none.

    Lines that were concluded before count as done.
    """
    concluded_at = now()
    lines = [_sale_line(wish, line, concluded_at) for line in wish["lines"]]
    done = transactions.conclude(lines, auth.current_actor(), keyring(), concluded_at)
    body = {
        "store_id": wish["store_id"],
        "terminal_id": wish["terminal_id"],
        "transaction_id": wish["transaction_id"],
        "lines": [concluded_members(one) for one in done],
    }
    is_replay = all(one.is_replay for one in done)
    return (body, 200, REPLAYED) if is_replay else (body, 201, {})


@blueprint.route("/v1/transactions/<store_id>/<terminal_id>/<transaction_id>", methods=["GET"])
@auth.allow(Role.TERMINAL, Role.SYNC, Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, selling.KnownTransactionSchema)
def get_transaction(store_id: str, terminal_id: str, transaction_id: str) -> Answer:
    """Tell what HQ knows of a transaction: for a till that lost an answer."""
    require_possible("transaction_not_found", store_id, terminal_id, transaction_id)
    known = transactions.outcome(store_id, terminal_id, transaction_id, auth.current_actor())
    return {"lines": known}


@blueprint.route("/v1/voids", methods=["POST"])
@auth.allow(Role.TERMINAL)
@blueprint.arguments(selling.VoidRequestSchema)
@blueprint.response(201, selling.VoidSchema)
@blueprint.alt_response(
    200, schema=selling.VoidSchema, description="Voided before", headers=REPLAY_TOLD
)
def void_line(wish: Mapping[str, Any]) -> tuple[Answer, int, dict[str, str]]:
    """Say that a business key shall have no effect, in whatever order things arrive.

    What it did is undone; what it has not done yet it never will. It releases its own lock.
    """
    done = voids.void(
        business_key(wish),
        wish["instrument_id"],
        wish["reason"],
        auth.current_actor(),
        keyring(),
        now(),
    )
    result = done.result
    body = {
        **business_key(wish)._asdict(),
        "instrument_id": wish["instrument_id"],
        "outcome": result.outcome,
        "codes": list(result.codes),
        "funded_minor": result.funded_minor,
        "shortfall_minor": result.shortfall_minor,
        "balance_after_minor": result.balance_after_minor,
        "case_id": result.case_id,
    }
    return (body, 200, REPLAYED) if done.is_replay else (body, 201, {})


def _sale_line(wish: Mapping[str, Any], line: Mapping[str, Any], concluded_at: datetime) -> Line:
    tender = line.get("tender")
    original = line.get("original")
    return Line(
        BusinessKey(wish["store_id"], wish["terminal_id"], wish["transaction_id"], line["line"]),
        line["operation"],
        line["instrument_id"],
        line["amount_minor"],
        line["currency"],
        lock_id=line["lock_id"],
        concluded_at=concluded_at,
        original=business_key(original) if original else None,
        reason=line.get("reason"),
        tender=Tender(**tender) if tender else None,
    )


def _terminal(presented: Presented, key: BusinessKey) -> Actor:
    """Return who called, if only the terminal of the key itself may."""
    return Actor(Role.TERMINAL, presented.key_id, key.store_id, key.terminal_id)


def business_key(wish: Mapping[str, Any]) -> BusinessKey:
    """Return the business key that a request names."""
    return BusinessKey(wish["store_id"], wish["terminal_id"], wish["transaction_id"], wish["line"])


def lock_members(answer: LockAnswer) -> Answer:
    """Return what an answer tells of a lock to the terminal that holds it."""
    lock = answer.lock
    return {
        "lock_id": lock.lock_id,
        "locked_at": lock.locked_at,
        "purpose": lock.purpose,
        "max_amount_minor": lock.amount_minor,
        "instrument": instrument_members(answer.instrument),
        "number": answer.made_number,
        "lease": {"ends_at": answer.lease_ends_at, "seconds": answer.lease_seconds},
        "offline": {
            "allowed": answer.grant is not None,
            "grant": answer.grant,
            "until": lock.grant_until,
        },
    }


def concluded_members(done: Concluded) -> Answer:
    """Return what an answer tells of a concluded line."""
    line, result = done.line, done.result
    remainder = {"instrument_id": result.remainder_id, "number": done.remainder_number}
    return {
        "line": line.key.line,
        "operation": line.operation,
        "instrument_id": line.instrument_id,
        "amount_minor": line.amount_minor,
        "currency": line.currency,
        "balance_after_minor": result.balance_after_minor,
        "remainder": remainder if result.remainder_id else None,
    }


def instrument_members(instrument: Instrument) -> Answer:
    """Return what an answer tells of an instrument."""
    return {
        "instrument_id": instrument.instrument_id,
        "kind": instrument.kind,
        "number_last4": instrument.number_last4,
        "currency": instrument.currency,
        "balance_minor": instrument.balance_minor,
        "status": instrument.status,
    }
