"""API keys. A key is ``hq_<key id>_<secret>``; of the secret only the SHA-256 is stored."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import datetime

from hq_service.domain.actors import Actor, Role
from hq_service.store import tables
from hq_service.store.database import db

_FORM = re.compile(r"hq_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")
_ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
# Compared with when the id is unknown, so that both refusals take the same time.
_NOBODY = hashlib.sha256(b"nobody").digest()


def actor_of(presented: str, now: datetime) -> Actor | None:
    """Return whom a presented key stands for; None if it is not valid now."""
    match = _FORM.fullmatch(presented)
    if match is None:
        return None
    key_id, secret = match.groups()
    stored = db.session.get(tables.ApiKey, key_id)
    digest = hashlib.sha256(secret.encode("ascii")).digest()
    is_right = hmac.compare_digest(digest, stored.secret_sha256 if stored else _NOBODY)
    if stored is None or not is_right or stored.revoked_at is not None:
        return None
    if stored.expires_at is not None and stored.expires_at <= now:
        return None
    return Actor(Role(stored.role), key_id, stored.store_id, stored.terminal_id)


def add(
    role: Role,
    label: str,
    now: datetime,
    *,
    store_id: str | None = None,
    terminal_id: str | None = None,
) -> str:
    """Create a key and return it: the only time that its secret is there to be read."""
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(12))
    secret = secrets.token_urlsafe(32)
    db.session.add(
        tables.ApiKey(
            key_id=key_id,
            secret_sha256=hashlib.sha256(secret.encode("ascii")).digest(),
            role=role,
            store_id=store_id,
            terminal_id=terminal_id,
            label=label,
            created_at=now,
        )
    )
    return f"hq_{key_id}_{secret}"
