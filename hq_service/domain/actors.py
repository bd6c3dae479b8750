"""Who calls: roles and what a key may speak for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

ADMINISTRATOR_TIME_MIN = timedelta(hours=1)
"""How long somebody must be able to go on once the last administrator's key is replaced."""


class Role(StrEnum):
    """What an API key is for."""

    TERMINAL = "terminal"  # one POS terminal, only for itself
    SYNC = "sync"  # the sync job of one store
    ADMIN = "admin"  # an administrator at headquarters
    AUDITOR = "auditor"  # reads, changes nothing


@dataclass(frozen=True, slots=True)
class Actor:
    """The caller of an operation, as its API key says.

    ``store_id`` is set for terminals and sync jobs, ``terminal_id`` for terminals.
    """

    role: Role
    key_id: str
    store_id: str | None = None
    terminal_id: str | None = None

    def speaks_for_store(self, store_id: str) -> bool:
        """Tell whether the actor may act for a store."""
        return self.store_id is None or self.store_id == store_id

    def speaks_for(self, store_id: str, terminal_id: str) -> bool:
        """Tell whether the actor may act for a terminal."""
        return self.speaks_for_store(store_id) and self.terminal_id in (None, terminal_id)

    @property
    def name(self) -> str:
        """Return what lock events, cases and revisions name as their author."""
        return f"{self.role}:{self.key_id}"


@dataclass(frozen=True, slots=True)
class Presented:
    """A key as somebody presents it: its id, and the SHA-256 that its secret is known by."""

    key_id: str
    secret_sha256: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as it may be shown: never its secret, nor what the secret is checked against.

    ``replaced_by`` is the key that a rotation made of it.
    """

    key_id: str
    role: Role
    store_id: str | None
    terminal_id: str | None
    label: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    replaced_by: str | None = None

    def is_live(self, now: datetime) -> bool:
        """Tell whether the key lets somebody in."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)

    def keeps_hq_administered(self, now: datetime) -> bool:
        """Tell whether an administrator can go on with this key: not one that is being replaced,
        because that one ends by itself.
        """
        return self.role is Role.ADMIN and self.is_live(now) and self.replaced_by is None


def is_administered(keys: Iterable[ApiKey], at: datetime) -> bool:
    """Tell whether any of some keys keeps HQ administered at an instant."""
    return any(key.keeps_hq_administered(at) for key in keys)


def scope_faults(role: Role, store_id: str | None, terminal_id: str | None) -> dict[str, str]:
    """Return what is wrong with the scope of a key: member to sentence; empty if nothing is.

    A terminal's key speaks for one register, a sync job's for one store, the others for nobody.
    """
    wanted = {"store_id": role in (Role.TERMINAL, Role.SYNC), "terminal_id": role is Role.TERMINAL}
    given = {"store_id": store_id is not None, "terminal_id": terminal_id is not None}
    return {
        member: f"is needed for role {role}" if wanted[member] else f"is not for role {role}"
        for member in wanted
        if wanted[member] != given[member]
    }
