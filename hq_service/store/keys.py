"""API keys. A key is ``hq_<key id>_<secret>``; of the secret only the SHA-256 is stored."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import datetime
from typing import Any

from sqlalchemy import select, update

from hq_service.domain.actors import Actor, ApiKey, Presented, Role
from hq_service.store import prepared, tables
from hq_service.store.database import Connection, db

Keys = tables.ApiKey

_FORM = re.compile(r"hq_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")
_ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
# Compared with when the id is unknown, so that both refusals take the same time.
_UNKNOWN = (hashlib.sha256(b"nobody").digest(), None, None, None, None, None)


def presented(text: str) -> Presented | None:
    """Return what a text is as a key; None if it has not the form of one."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    return Presented(match[1], hashlib.sha256(match[2].encode("ascii")).digest())


def actor_of(text: str, now: datetime) -> Actor | None:
    """Return whom a presented key stands for; None if it is not valid now.

    Raises:  NotTried.
    """
    key = presented(text)
    row = prepared.read("read_caller", (key.key_id,)) if key is not None else None
    secret_sha256, role, store_id, terminal_id, expires_at, revoked_at = row or _UNKNOWN
    if key is None or not hmac.compare_digest(key.secret_sha256, secret_sha256):
        return None
    if revoked_at is not None or (expires_at is not None and expires_at <= now):
        return None
    return Actor(Role(role), key.key_id, store_id, terminal_id)


def add(
    role: Role,
    label: str,
    now: datetime,
    *,
    store_id: str | None = None,
    terminal_id: str | None = None,
    expires_at: datetime | None = None,
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
            expires_at=expires_at,
        )
    )
    db.session.flush()
    return f"hq_{key_id}_{secret}"


def id_of(key: str) -> str:
    """Return the public part of a key."""
    match = _FORM.fullmatch(key)
    assert match is not None  # made by `add`
    return match[1]


def keep_as_they_are(connection: Connection) -> None:
    """Let no key be created, rotated or revoked until this transaction ends: two administrators
    who revoke each other must not both succeed. Callers are not held up, they only read.
    """
    connection.execute("LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE")


def read(key_id: str) -> ApiKey | None:
    """Return a key as it may be shown, None if there is no such key."""
    row = db.session.execute(select(*_SHOWN).where(Keys.key_id == key_id)).first()
    return _shown(row) if row else None


def page(
    *,
    after: str,
    limit: int,
    with_ended: bool,
    now: datetime,
    role: Role | None = None,
    store_id: str | None = None,
) -> list[ApiKey]:
    """Return keys by id, after an id; those that ended only if asked."""
    wanted = select(*_SHOWN).where(Keys.key_id > after).order_by(Keys.key_id).limit(limit)
    if not with_ended:
        wanted = wanted.where(
            Keys.revoked_at.is_(None), (Keys.expires_at.is_(None)) | (Keys.expires_at > now)
        )
    if role is not None:
        wanted = wanted.where(Keys.role == role)
    if store_id is not None:
        wanted = wanted.where(Keys.store_id == store_id)
    return [_shown(row) for row in db.session.execute(wanted)]


def administrators() -> list[ApiKey]:
    """Return every key of an administrator that was not revoked."""
    wanted = select(*_SHOWN).where(Keys.role == Role.ADMIN, Keys.revoked_at.is_(None))
    return [_shown(row) for row in db.session.execute(wanted)]


def change(key_id: str, **changes: Any) -> None:
    """Write what a rotation or a revocation makes of a key."""
    db.session.execute(update(Keys).where(Keys.key_id == key_id).values(**changes))


_SHOWN = tuple(getattr(Keys, name) for name in ApiKey.__slots__)


def _shown(row: Any) -> ApiKey:
    key_id, role, *rest = row
    return ApiKey(key_id, Role(role), *rest)
