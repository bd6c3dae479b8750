"""What a terminal does online: balance inquiries, locks, releases and redemptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint, keyring
from hq_service.api.schemas import selling
from hq_service.domain.actors import Role
from hq_service.domain.locking import LockRequest
from hq_service.domain.model import BusinessKey, Instrument, Line, Operation
from hq_service.operations import instruments, locks, redemptions
from hq_service.operations.clock import now

blueprint = Blueprint("selling", "What a terminal does online")
auth.protect(blueprint)

REPLAYED = {"Idempotency-Replayed": "true"}

Answer = dict[str, Any]


@blueprint.route("/v1/balance-inquiries", methods=["POST"])
@auth.allow(Role.TERMINAL, Role.ADMIN, Role.AUDITOR)
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


@blueprint.route("/v1/locks", methods=["POST"])
@auth.allow(Role.TERMINAL)
@blueprint.arguments(selling.LockRequestSchema)
@blueprint.response(201, selling.LockSchema)
@blueprint.alt_response(200, schema=selling.LockSchema, description="The same lock, asked again")
def acquire_lock(wish: Mapping[str, Any]) -> tuple[Answer, int, dict[str, str]]:
    """Lock an instrument for one line of a transaction, the moment it is added to the sale."""
    answer = locks.acquire(
        LockRequest(business_key(wish), wish["purpose"]),
        wish["kind"],
        wish["number"],
        auth.current_actor(),
        keyring(),
        now(),
    )
    lock = answer.lock
    body = {
        "lock_id": lock.lock_id,
        "locked_at": lock.locked_at,
        "purpose": lock.purpose,
        "max_amount_minor": lock.amount_minor,
        "instrument": instrument_members(answer.instrument),
        "lease": {"ends_at": answer.lease_ends_at, "seconds": answer.lease_seconds},
        "offline": {
            "allowed": answer.grant is not None,
            "grant": answer.grant,
            "until": lock.grant_until,
        },
    }
    return (body, 201, {}) if answer.is_new else (body, 200, REPLAYED)


@blueprint.route("/v1/releases", methods=["POST"])
@auth.allow(Role.TERMINAL)
@blueprint.arguments(selling.ReleaseRequestSchema)
@blueprint.response(200, selling.ReleaseSchema)
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


@blueprint.route("/v1/redemptions", methods=["POST"])
@auth.allow(Role.TERMINAL)
@blueprint.arguments(selling.RedemptionRequestSchema)
@blueprint.response(201, selling.RedemptionSchema)
@blueprint.alt_response(
    200, schema=selling.RedemptionSchema, description="The first answer, told again"
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
    remainder = (
        {"instrument_id": done.remainder_id, "number": done.remainder_number}
        if done.remainder_id
        else None
    )
    body = {
        **key._asdict(),
        "operation": line.operation,
        "instrument_id": line.instrument_id,
        "amount_minor": line.amount_minor,
        "currency": line.currency,
        "balance_after_minor": done.result.balance_after_minor,
        "remainder": remainder,
    }
    return (body, 200, REPLAYED) if done.is_replay else (body, 201, {})


def business_key(wish: Mapping[str, Any]) -> BusinessKey:
    """Return the business key that a request names."""
    return BusinessKey(wish["store_id"], wish["terminal_id"], wish["transaction_id"], wish["line"])


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
