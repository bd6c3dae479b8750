"""API keys: signing in by one; created, listed, rotated, revoked. A key is shown only once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from hq_service.domain.actors import (
    ADMINISTRATOR_TIME_MIN,
    Actor,
    ApiKey,
    Presented,
    Role,
    is_administered,
    scope_faults,
)
from hq_service.domain.audit import Action
from hq_service.domain.errors import InvalidRequest, NotFound, Refused
from hq_service.domain.numbers import mask
from hq_service.operations.changes import Change, record
from hq_service.operations.places import place_faults
from hq_service.store import keys
from hq_service.store.database import (
    Connection,
    confirm_durable,
    reading,
    transactional,
    unavailable,
)
from hq_service.store.prepared import NotTried

OVERLAP_SECONDS_MAX = 30 * 86_400
"""How long a rotated key may go on beside its successor: 30 days."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to create: for whom, what people call it, and until when."""

    role: Role
    store_id: str | None
    terminal_id: str | None
    label: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Made:
    """A key that was just made, with its text: told this once, stored nowhere."""

    key: ApiKey
    text: str


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which keys; None where all are wanted."""

    role: Role | None
    store_id: str | None
    with_ended: bool


def actor_of(presented: str, now: datetime) -> Actor | None:
    """Return whom a presented API key stands for now, None if for nobody.

    Raises:  Unavailable.
    """
    try:
        return keys.actor_of(presented, now)
    except NotTried as error:
        raise unavailable() from error


def presented(text: str) -> Presented | None:
    """Return what a text is as an API key, whoever's; None if it has not the form of one."""
    return keys.presented(text)


@reading
def show(_connection: Connection, key_id: str) -> ApiKey:
    """Return a key as it may be shown.

    Raises:  NotFound ``key_not_found``.
    """
    return _existing(key_id)


@reading
def page(
    _connection: Connection, wanted: KeyFilter, *, after: str, limit: int, now: datetime
) -> list[ApiKey]:
    """Return keys by id, after an id."""
    return keys.page(
        after=after,
        limit=limit,
        with_ended=wanted.with_ended,
        now=now,
        role=wanted.role,
        store_id=wanted.store_id,
    )


@transactional
def create(connection: Connection, wish: NewKey, change: Change) -> Made:
    """Create a key.

    Raises:  InvalidRequest for a scope that is not its role's, for a store or register that is
             unknown or retired, for an end that has passed, and for a label that may be a card
             number.
    """
    faults = scope_faults(wish.role, wish.store_id, wish.terminal_id)
    faults = faults or place_faults(wish.store_id, wish.terminal_id)
    if wish.expires_at is not None and wish.expires_at <= change.now:
        faults["expires_at"] = "has passed"
    if mask(wish.label) != wish.label:
        faults["label"] = "looks like a card number"
    if faults:
        raise InvalidRequest(
            errors=[{"pointer": f"/{name}", "detail": text} for name, text in faults.items()]
        )
    made = _make(wish, change.now)
    record(connection, change, Action.KEY_CREATED, subject_of(made.key.key_id), new=_told(made.key))
    return made


@transactional
def rotate(
    connection: Connection,
    key_id: str,
    overlap_seconds: int,
    expires_at: datetime | None,
    change: Change,
) -> Made:
    """Make a new key of the same scope; the old one ends after the overlap, or when it would have.

    ``expires_at`` is the end of the new key; None means the end that the old one had.

    Raises:  NotFound; Refused ``key_not_live`` for one that ended or was replaced,
             ``last_administrator`` when nobody could administer HQ an hour later; InvalidRequest
             for an end that has passed.
    """
    keys.keep_as_they_are(connection)
    old = _existing(key_id)
    if not old.is_live(change.now) or old.replaced_by is not None:
        raise Refused(code="key_not_live", key=_told(old))
    if expires_at is not None and expires_at <= change.now:
        raise InvalidRequest(errors=[{"pointer": "/expires_at", "detail": "has passed"}])
    wish = NewKey(old.role, old.store_id, old.terminal_id, old.label, expires_at or old.expires_at)
    made = _make(wish, change.now)
    ends_at = change.now + timedelta(seconds=overlap_seconds)
    ends_at = ends_at if old.expires_at is None else min(ends_at, old.expires_at)
    keys.change(key_id, expires_at=ends_at, replaced_by=made.key.key_id)
    # The old key does not count from here on: it ends by itself.
    later = change.now + ADMINISTRATOR_TIME_MIN
    if old.role is Role.ADMIN and not is_administered(keys.administrators(), later):
        raise Refused(code="last_administrator")
    record(
        connection,
        change,
        Action.KEY_ROTATED,
        subject_of(key_id),
        old_expires_at=ends_at,
        new=_told(made.key),
    )
    return made


@transactional
def revoke(connection: Connection, key_id: str, change: Change) -> ApiKey:
    """End a key at once. One that is revoked already stays as it is.

    Raises:  NotFound; Refused ``last_administrator`` when nobody could administer HQ without it.
    """
    # Before anything is read: of two administrators who revoke each other, one stays.
    keys.keep_as_they_are(connection)
    key = _existing(key_id)
    if key.revoked_at is not None:
        confirm_durable(connection)
        return key
    others = [one for one in keys.administrators() if one.key_id != key_id]
    if key.keeps_hq_administered(change.now) and not is_administered(others, change.now):
        raise Refused(code="last_administrator")
    keys.change(key_id, revoked_at=change.now)
    record(connection, change, Action.KEY_REVOKED, subject_of(key_id), key=_told(key))
    return _existing(key_id)


def subject_of(key_id: str) -> str:
    """Return what the audit calls a key."""
    return f"key:{key_id}"


def _make(wish: NewKey, now: datetime) -> Made:
    text = keys.add(
        wish.role,
        wish.label,
        now,
        store_id=wish.store_id,
        terminal_id=wish.terminal_id,
        expires_at=wish.expires_at,
    )
    return Made(_existing(keys.id_of(text)), text)


def _existing(key_id: str) -> ApiKey:
    key = keys.read(key_id)
    if key is None:
        raise NotFound(code="key_not_found")
    return key


def _told(key: ApiKey) -> dict[str, object]:
    """Return what the audit and refusals tell of a key."""
    return {name: getattr(key, name) for name in ApiKey.__slots__}
