"""Requests to the service, as the bytes that go over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from benchmarks.cards import Wish, number_at
from benchmarks.company import CURRENCY, Company, Till
from benchmarks.load import LOCK_ID_OF_LAST_ANSWER

JSON = "application/json"
NDJSON = "application/x-ndjson"
AMOUNT_MINOR = 10


def get(path: str) -> bytes:
    """Return a request without a body, by nobody."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def post(path: str, key: str, body: bytes, content_type: str = JSON) -> bytes:
    """Return a request with a body, signed in by a key."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def balance_inquiry(till: Till, place: int) -> bytes:
    """Return the question for the balance of a card, by its number."""
    body = {"kind": "gift_card", "number": number_at(place)}
    return post("/v1/balance-inquiries", till.key, orjson.dumps(body))


def lock(till: Till, place: int, transaction_id: str) -> bytes:
    """Return the wish to lock a card, by its number, for line 1 of a transaction."""
    body = {
        **_key(till.store_id, till.terminal_id, transaction_id),
        "kind": "gift_card",
        "number": number_at(place),
        "purpose": "redeem",
    }
    return post("/v1/locks", till.key, orjson.dumps(body))


def redemption(wish: Wish, company: Company, path: str = "/v1/redemptions") -> bytes:
    """Return the redemption of a card that is locked for this wish."""
    key = company.key_of(wish.store_id, wish.terminal_id)
    return post(path, key, orjson.dumps(_redemption(wish, str(wish.lock_id))))


def redemption_under_the_last_lock(wish: Wish, company: Company) -> bytes:
    """Return a redemption under the lock that the answer before it tells."""
    key = company.key_of(wish.store_id, wish.terminal_id)
    body = _redemption(wish, LOCK_ID_OF_LAST_ANSWER.decode())
    return post("/v1/redemptions", key, orjson.dumps(body))


def _redemption(wish: Wish, lock_id: str) -> Mapping[str, Any]:
    return {
        **_key(wish.store_id, wish.terminal_id, wish.transaction_id),
        "instrument_id": str(wish.instrument_id),
        "lock_id": lock_id,
        "amount_minor": AMOUNT_MINOR,
        "currency": CURRENCY,
    }


def _key(store_id: str, terminal_id: str, transaction_id: str) -> dict[str, Any]:
    return {
        "store_id": store_id,
        "terminal_id": terminal_id,
        "transaction_id": transaction_id,
        "line": 1,
    }
