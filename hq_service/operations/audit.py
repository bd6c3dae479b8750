"""Reading the audit, and proving that nobody edited it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hq_service.domain.audit import AuditEntry, Walk
from hq_service.domain.keyring import Keyring
from hq_service.store import audit
from hq_service.store.database import Connection, reading

PART_ENTRIES = 1_000
"""How many entries are read at once, each part in a transaction of its own."""


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries; None where all are wanted."""

    subject: str | None = None
    action: str | None = None
    actor: str | None = None
    recorded_from: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """How many entries hold from the first on, and the hash of the last of these.

    ``broken_number`` is the first entry that does not hold, or that should be there, and ``fault``
    what is wrong with it; both None when the whole chain holds.
    """

    holding: int
    newest_hash: bytes
    broken_number: int | None = None
    fault: str | None = None


@reading
def list_entries(
    _connection: Connection,
    wanted: EntryFilter,
    *,
    after: int | None,
    limit: int,
    newest_first: bool,
) -> list[AuditEntry]:
    """Return entries by number, behind a number; the newest ones first if that is asked for."""
    return audit.page(
        after=after,
        limit=limit,
        subject=wanted.subject,
        action=wanted.action,
        actor=wanted.actor,
        recorded_from=wanted.recorded_from,
        newest_first=newest_first,
    )


def export(*, after: int | None = None) -> Iterator[AuditEntry]:
    """Give every entry behind a number, in order, read in parts."""
    while part := _part(after):
        yield from part
        after = part[-1].number


def as_line(entry: AuditEntry) -> dict[str, Any]:
    """Return an entry as it is exported: everything that its hash is made of, and the hash."""
    return {
        "number": entry.number,
        "recorded_at": entry.recorded_at.astimezone(UTC).isoformat(),
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "detail": entry.detail,
        "previous_hash": entry.previous_hash.hex(),
        "hash": entry.hash.hex(),
    }


def verify(
    keyring: Keyring, noted: Mapping[int, bytes], progress: Callable[[int, int], None]
) -> Verification:
    """Walk the whole chain from its beginning, up to the first entry that does not hold.

    Shapes:  ``noted`` number -> hash, as somebody wrote them down; ``progress`` is told how many
             entries were walked, and how many there were at the beginning.
    """
    walk = Walk(keyring.audit_key(), noted)
    total = _newest_number()
    for entry in export():
        fault = walk.step(entry)
        if fault is not None:
            return Verification(walk.holding, walk.newest_hash, entry.number, fault)
        if walk.holding % PART_ENTRIES == 0 or walk.holding == total:
            progress(walk.holding, total)
    fault = walk.end()
    broken_number = walk.holding + 1 if fault is not None else None
    return Verification(walk.holding, walk.newest_hash, broken_number, fault)


@reading
def _part(_connection: Connection, after: int | None) -> list[AuditEntry]:
    return audit.page(after=after, limit=PART_ENTRIES)


@reading
def _newest_number(_connection: Connection) -> int:
    return audit.newest_number()
