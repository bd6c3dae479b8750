"""Who calls: roles and what a key may speak for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
