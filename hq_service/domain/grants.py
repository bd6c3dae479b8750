"""Grants: the signed right, given with a lock, to spend up to an amount offline until a time.

A grant is self-contained, so that it proves a lock even after HQ was restored from a backup that
does not know it. Form: ``g1.<key id>.<payload>.<signature>``, the last two in base64url without
padding; payload = JSON array of the fields of `Grant`, in order.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from uuid import UUID

from hq_service.domain.model import BusinessKey

VERSION = "g1"
GRANT_LENGTH_MAX = 1024
_WRITER = json.JSONEncoder(separators=(",", ":"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Grant:
    """What HQ promised: this line may do what it locked for offline, up to ``amount_minor``, until
    ``until``.
    """

    lock_id: UUID
    key: BusinessKey
    purpose: str
    instrument_id: UUID
    kind: str
    currency: str
    number_last4: str
    amount_minor: int
    revision: int
    issued_at: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class GrantKeys:
    """The master keys, by key id; new grants are signed with the first, all are accepted."""

    masters: Mapping[str, bytes]

    @property
    def current(self) -> str:
        """Return the id of the key that signs."""
        return next(iter(self.masters))

    def terminal_key(self, key_id: str, store_id: str, terminal_id: str) -> bytes | None:
        """Return the key of one terminal: another terminal's grant never verifies with it."""
        master = self.masters.get(key_id)
        if master is None:
            return None
        return _terminal_key(master, store_id, terminal_id)


@lru_cache(maxsize=10_000)
def _terminal_key(master: bytes, store_id: str, terminal_id: str) -> bytes:
    name = json.dumps(["grant", store_id, terminal_id]).encode("utf-8")
    return hmac.digest(master, name, hashlib.sha256)


def sign(grant: Grant, keys: GrantKeys) -> str:
    """Return the grant as text; the same grant and key give the same text."""
    key_id = keys.current
    secret = keys.terminal_key(key_id, grant.key.store_id, grant.key.terminal_id)
    assert secret is not None  # the current key is one of the masters
    fields = [
        grant.lock_id.hex,
        *grant.key,
        grant.purpose,
        grant.instrument_id.hex,
        grant.kind,
        grant.currency,
        grant.number_last4,
        grant.amount_minor,
        grant.revision,
        _microseconds(grant.issued_at),
        _microseconds(grant.until),
    ]
    payload = _encode(_WRITER.encode(fields).encode("utf-8"))
    signed = f"{VERSION}.{key_id}.{payload}"
    return f"{signed}.{_encode(hmac.digest(secret, signed.encode('ascii'), hashlib.sha256))}"


def verify(text: str, store_id: str, terminal_id: str, keys: GrantKeys) -> Grant | None:
    """Return the grant if HQ signed it for this terminal, else None (counts as absent)."""
    parts = text.split(".")
    if len(text) > GRANT_LENGTH_MAX or len(parts) != 4 or parts[0] != VERSION:
        return None
    secret = keys.terminal_key(parts[1], store_id, terminal_id)
    if secret is None or not text.isascii():
        return None
    expected = hmac.digest(secret, ".".join(parts[:3]).encode("ascii"), hashlib.sha256)
    # Compared as text: base64 has several spellings of the same bytes, only ours is accepted.
    if not hmac.compare_digest(_encode(expected), parts[3]):
        return None
    try:
        fields = json.loads(_decode(parts[2]))
    except (ValueError, binascii.Error):
        return None
    lock_id, store, terminal, transaction, line, purpose, instrument_id, *rest = fields
    kind, currency, number_last4, amount_minor, revision, issued, until = rest
    return Grant(
        lock_id=UUID(hex=lock_id),
        key=BusinessKey(store, terminal, transaction, line),
        purpose=purpose,
        instrument_id=UUID(hex=instrument_id),
        kind=kind,
        currency=currency,
        number_last4=number_last4,
        amount_minor=amount_minor,
        revision=revision,
        issued_at=_instant(issued),
        until=_instant(until),
    )


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _instant(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
