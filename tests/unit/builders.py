"""Builders for the things the rules speak of; every argument has a harmless default."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hq_service.domain.grants import Grant, GrantKeys
from hq_service.domain.judgement import Context
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import BusinessKey, Instrument, Line, Lock, Terminal
from hq_service.domain.numbers import uuid7
from hq_service.domain.parameters import Parameters

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
KEYRING = Keyring(bytes(range(32)), GrantKeys({"k1": bytes(range(32, 64))}))
CARD_ID = UUID("11111111-1111-4111-8111-111111111111")
YES = Parameters(
    revision=1,
    allow_concluding_gift_card_transactions_offline=True,
    allow_concluding_credit_memo_transactions_offline=True,
)

_counter = itertools.count(1)


def a_uuid() -> UUID:
    return uuid7(NOW, next(_counter).to_bytes(10))


def a_key(
    transaction_id: str = "X1", line: int = 1, *, terminal_id: str = "T01", store_id: str = "S001"
) -> BusinessKey:
    return BusinessKey(store_id, terminal_id, transaction_id, line)


def a_card(
    balance_minor: int = 100,
    *,
    lock: Lock | None = None,
    status: str = "active",
    kind: str = "gift_card",
    currency: str = "SEK",
    instrument_id: UUID = CARD_ID,
) -> Instrument:
    return Instrument(instrument_id, kind, currency, "0001", status, balance_minor, 1, None, lock)


def a_memo(balance_minor: int = 100, **more: Any) -> Instrument:
    return a_card(balance_minor, kind="credit_memo", **more)


def a_lock(
    key: BusinessKey | None = None,
    amount_minor: int = 100,
    *,
    purpose: str = "redeem",
    granted: bool = False,
    locked_at: datetime = NOW - timedelta(minutes=5),
) -> Lock:
    return Lock(
        a_uuid(),
        *(key or a_key()),
        purpose=purpose,
        amount_minor=amount_minor,
        locked_at=locked_at,
        grant_until=locked_at + timedelta(hours=72) if granted else None,
        grant_revision=1 if granted else None,
    )


def a_line(
    key: BusinessKey | None = None,
    amount_minor: int = 100,
    *,
    instrument_id: UUID = CARD_ID,
    currency: str = "SEK",
    operation: str = "redeem",
    **more: Any,
) -> Line:
    return Line(
        key=key or a_key(),
        operation=operation,
        instrument_id=instrument_id,
        amount_minor=amount_minor,
        currency=currency,
        concluded_at=more.pop("concluded_at", NOW - timedelta(minutes=1)),
        **more,
    )


def a_grant(key: BusinessKey | None = None, amount_minor: int = 100, **more: Any) -> Grant:
    values: dict[str, Any] = {
        "lock_id": a_uuid(),
        "key": key or a_key(),
        "purpose": "redeem",
        "instrument_id": CARD_ID,
        "kind": "gift_card",
        "currency": "SEK",
        "number_last4": "0001",
        "amount_minor": amount_minor,
        "revision": 1,
        "issued_at": NOW - timedelta(minutes=5),
        "until": NOW + timedelta(hours=72),
    }
    return Grant(**{**values, **more})


def a_context(
    *,
    parameters: Parameters = YES,
    terminals: Iterable[str] = ("T01", "T02", "T03"),
    parameters_at: Mapping[int, Parameters] | None = None,
    served_revisions: frozenset[int] = frozenset({1}),
    is_offline: bool = True,
    received_at: datetime = NOW,
    batch_id: str = "B1",
) -> Context:
    return Context(
        received_at=received_at,
        now=received_at,
        parameters=parameters,
        terminals={
            ("S001", name): Terminal(
                "S001", name, supports_offline=True, served_revisions=served_revisions
            )
            for name in terminals
        },
        parameters_at={0: Parameters(), 1: YES} if parameters_at is None else parameters_at,
        keyring=KEYRING,
        actor="sync:test",
        is_offline=is_offline,
        batch_id=batch_id,
    )
