"""Locks: who may take one, what state it is in, what its holder may do offline.

States are derived by comparing with ``now``; nothing has to sweep for them to be right.
Source: docs/settlement.md, "States of a lock"; documents "Seamless offline switch", on locking a
card when it is added to a transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from hq_service.domain.grants import Grant
from hq_service.domain.model import (
    DEBITS,
    BusinessKey,
    Instrument,
    InstrumentStatus,
    Kind,
    Lock,
    LockEnd,
    Purpose,
    Terminal,
)
from hq_service.domain.parameters import RELEASE, Parameters


class LockState(StrEnum):
    """What a live lock amounts to at a moment."""

    ACTIVE = "active"
    SUSPECT = "suspect"  # granted, its holder is silent: presumed offline, refuses everybody
    LAPSED = "lapsed"  # no grant, its holder is silent: the next terminal may take it
    HORIZON = "horizon"  # its grant has run out and the parameter says to free it


class LockRefusal(StrEnum):
    """Why a lock is not given."""

    VOIDED = "voided"
    BUSINESS_KEY_REUSED = "business_key_reused"
    ALREADY_CONCLUDED = "already_concluded"
    INSTRUMENT_ALREADY_IN_TRANSACTION = "instrument_already_in_transaction"
    INSTRUMENT_LOCKED = "instrument_locked"
    INSTRUMENT_ALREADY_ACTIVE = "instrument_already_active"
    INSTRUMENT_NOT_ACTIVE = "instrument_not_active"
    CURRENCY_MISMATCH = "currency_mismatch"
    OPERATION_NOT_ALLOWED = "operation_not_allowed"
    CASH_OUT_NOT_ALLOWED = "cash_out_not_allowed"
    INSTRUMENT_BLOCKED = "instrument_blocked"
    INSTRUMENT_EXPIRED = "instrument_expired"
    INSTRUMENT_CLOSED = "instrument_closed"
    INSTRUMENT_APPLIED = "instrument_applied"


@dataclass(frozen=True, slots=True)
class LockRequest:
    """A terminal's wish to lock an instrument; ``amount_minor`` only for credits, ``currency``
    only for an issue.
    """

    key: BusinessKey
    purpose: str
    amount_minor: int | None = None
    currency: str | None = None


@dataclass(frozen=True, slots=True)
class LockFilter:
    """Which live locks somebody wants to see; None where all are wanted."""

    store_id: str | None = None
    terminal_id: str | None = None
    kind: str | None = None
    is_granted: bool | None = None
    locked_before: datetime | None = None
    transaction_id: str | None = None


@dataclass(frozen=True, slots=True)
class Acquisition:
    """What became of a lock request: exactly one of a lock and a refusal.

    ``is_new`` tells a fresh lock from the same one asked for again; ``displaced`` is the lock that
    gave way, with how it ended.
    """

    lock: Lock | None = None
    is_new: bool = False
    displaced: Lock | None = None
    displaced_end: LockEnd | None = None
    refusal: LockRefusal | None = None
    holder_state: LockState | None = None


_STATUS_REFUSALS = {
    InstrumentStatus.PENDING: LockRefusal.INSTRUMENT_NOT_ACTIVE,
    InstrumentStatus.BLOCKED: LockRefusal.INSTRUMENT_BLOCKED,
    InstrumentStatus.EXPIRED: LockRefusal.INSTRUMENT_EXPIRED,
    InstrumentStatus.CLOSED: LockRefusal.INSTRUMENT_CLOSED,
    InstrumentStatus.APPLIED: LockRefusal.INSTRUMENT_APPLIED,
}


def state_of(
    lock: Lock, holder_last_seen_at: datetime | None, parameters: Parameters, now: datetime
) -> LockState:
    """Return the state of a live lock; the lease is the holder's, not the lock's."""
    if is_past_horizon(lock, parameters, now):
        return LockState.HORIZON
    if now <= lease_ends_at(lock, holder_last_seen_at, parameters):
        return LockState.ACTIVE
    return LockState.LAPSED if lock.grant_until is None else LockState.SUSPECT


def is_past_horizon(lock: Lock, parameters: Parameters, now: datetime) -> bool:
    """Tell whether a granted lock has ended because its grant ran out and is not sticky."""
    return (
        lock.grant_until is not None and parameters.on_horizon == RELEASE and now > lock.grant_until
    )


def lease_ends_at(
    lock: Lock, holder_last_seen_at: datetime | None, parameters: Parameters
) -> datetime:
    """Return until when the holder counts as present."""
    seen_at = max(holder_last_seen_at or lock.locked_at, lock.locked_at)
    return seen_at + timedelta(seconds=parameters.lease_seconds)


def exposure_minor(
    lock: Lock, instrument: Instrument, parameters: Parameters, now: datetime
) -> int:
    """Return what the holder of a granted lock may be spending offline: what HQ stands to lose."""
    if lock.grant_until is None or lock.purpose not in DEBITS:
        return 0
    if is_past_horizon(lock, parameters, now):
        return 0
    return min(lock.amount_minor, instrument.balance_minor)


def acquire(
    request: LockRequest,
    instrument: Instrument,
    *,
    is_voided: bool,
    is_concluded: bool,
    is_holder_voided: bool,
    holder_last_seen_at: datetime | None,
    terminal: Terminal,
    granting: Parameters | None,
    parameters: Parameters,
    lock_id: UUID,
    now: datetime,
) -> Acquisition:
    """Decide on a lock request; the order of the rules is the order of precedence.

    ``is_voided`` and ``is_concluded`` say what is known of the request's business key,
    ``is_holder_voided`` whether the live lock's own key was voided: such a lock serves nobody;
    ``granting`` are the parameters at the revision that the terminal acknowledged, None if it
    acknowledged none; ``parameters`` those in force at HQ.
    """
    if is_voided:
        return Acquisition(refusal=LockRefusal.VOIDED)
    held = instrument.lock
    if held is not None and held.key == request.key:
        if not _asks_for(request, held, instrument):
            return Acquisition(refusal=LockRefusal.BUSINESS_KEY_REUSED)
        return Acquisition(lock=held)
    if is_concluded:
        return Acquisition(refusal=LockRefusal.ALREADY_CONCLUDED)
    if held is not None and held.belongs_to(request.key):
        return Acquisition(refusal=LockRefusal.INSTRUMENT_ALREADY_IN_TRANSACTION)
    refusal = _refusal_by_status(request, instrument) or _refusal_by_purpose(
        request, instrument, parameters
    )
    if refusal is not None:
        return Acquisition(refusal=refusal)
    displaced_end = None
    if held is not None and is_holder_voided:
        displaced_end = LockEnd.VOIDED
    elif held is not None:
        state = state_of(held, holder_last_seen_at, parameters, now)
        if state in (LockState.ACTIVE, LockState.SUSPECT):
            return Acquisition(refusal=LockRefusal.INSTRUMENT_LOCKED, holder_state=state)
        displaced_end = LockEnd.LAPSED if state is LockState.LAPSED else LockEnd.HORIZON
    lock = new_lock(request, instrument, terminal, granting, lock_id, now)
    return Acquisition(lock=lock, is_new=True, displaced=held, displaced_end=displaced_end)


def _asks_for(request: LockRequest, held: Lock, instrument: Instrument) -> bool:
    """Tell whether a request asks for the very lock that its business key has."""
    return (
        request.purpose == held.purpose
        and request.amount_minor in (None, held.amount_minor)
        and request.currency in (None, instrument.currency)
    )


def may_be_granted(terminal: Terminal, granting: Parameters | None, kind: str) -> bool:
    """Tell whether a terminal gets grants: by the revision it acknowledged, nothing else."""
    return (
        terminal.supports_offline
        and granting is not None
        and granting.allows_concluding_offline(kind)
    )


def grant_of(lock: Lock, instrument: Instrument) -> Grant | None:
    """Return the grant that goes with a lock; asked for again, it is the same one."""
    if lock.grant_until is None or lock.grant_revision is None:
        return None
    return Grant(
        lock_id=lock.lock_id,
        key=lock.key,
        purpose=lock.purpose,
        instrument_id=instrument.instrument_id,
        kind=instrument.kind,
        currency=instrument.currency,
        number_last4=instrument.number_last4,
        amount_minor=lock.amount_minor,
        revision=lock.grant_revision,
        issued_at=lock.locked_at,
        until=lock.grant_until,
    )


def _refusal_by_status(request: LockRequest, instrument: Instrument) -> LockRefusal | None:
    if request.purpose == Purpose.ISSUE:
        if instrument.status == InstrumentStatus.PENDING:
            return None
        if instrument.status == InstrumentStatus.ACTIVE:
            return LockRefusal.INSTRUMENT_ALREADY_ACTIVE
    return _STATUS_REFUSALS.get(InstrumentStatus(instrument.status))


def _refusal_by_purpose(
    request: LockRequest, instrument: Instrument, parameters: Parameters
) -> LockRefusal | None:
    """Return what the kind of instrument, its currency or the parameters do not allow.

    A credit memo is issued and used once, never topped up. A gift card is cashed out as a whole,
    up to the threshold of its currency (Dynamics: operation 215, gift card cash out threshold).
    """
    purpose = request.purpose
    if instrument.kind == Kind.CREDIT_MEMO and purpose not in (Purpose.REDEEM, Purpose.ISSUE):
        return LockRefusal.OPERATION_NOT_ALLOWED
    if request.currency not in (None, instrument.currency):
        return LockRefusal.CURRENCY_MISMATCH
    if purpose == Purpose.CASH_OUT:
        thresholds = parameters.gift_card_cash_out_threshold_minor
        if not 0 < instrument.balance_minor <= thresholds.get(instrument.currency, 0):
            return LockRefusal.CASH_OUT_NOT_ALLOWED
    return None


def new_lock(
    request: LockRequest,
    instrument: Instrument,
    terminal: Terminal,
    granting: Parameters | None,
    lock_id: UUID,
    now: datetime,
) -> Lock:
    """Return the lock that a request is given, with a grant if its terminal gets grants."""
    amount_minor = request.amount_minor
    lock = Lock(
        lock_id=lock_id,
        store_id=request.key.store_id,
        terminal_id=request.key.terminal_id,
        transaction_id=request.key.transaction_id,
        line=request.key.line,
        purpose=request.purpose,
        amount_minor=instrument.balance_minor if amount_minor is None else amount_minor,
        locked_at=now,
    )
    if granting is not None and may_be_granted(terminal, granting, instrument.kind):
        lock.grant_until = now + timedelta(hours=granting.offline_grant_hours)
        lock.grant_revision = granting.revision
    return lock
