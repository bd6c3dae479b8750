"""The audit: who did what to what, in a chain of which no link can be changed unseen.

Each entry's hash is keyed and made of the entry and of the hash before it. Who can write to the
database but does not know the number secret cannot make a chain that verifies.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

FIRST_PREVIOUS_HASH = bytes(32)


class Action(StrEnum):
    """What can be in the audit: a closed list."""

    PARAMETERS_EDITED = "parameters_edited"
    CACHE_RESET = "cache_reset"
    SCHEDULE_CREATED = "schedule_created"
    SCHEDULE_EDITED = "schedule_edited"
    SCHEDULE_RUN = "schedule_run"
    SESSION_RERUN = "session_rerun"
    SESSION_CANCELED = "session_canceled"
    STORE_CREATED = "store_created"
    STORE_EDITED = "store_edited"
    STORE_RETIRED = "store_retired"
    STORE_REACTIVATED = "store_reactivated"
    REGISTER_CREATED = "register_created"
    REGISTER_EDITED = "register_edited"
    REGISTER_RETIRED = "register_retired"
    REGISTER_REACTIVATED = "register_reactivated"
    PROFILE_CREATED = "profile_created"
    PROFILE_EDITED = "profile_edited"
    PROFILE_RETIRED = "profile_retired"
    KEY_CREATED = "key_created"
    KEY_ROTATED = "key_rotated"
    KEY_REVOKED = "key_revoked"
    LOCK_BROKEN = "lock_broken"
    CASE_RESOLVED = "case_resolved"
    INSTRUMENT_ISSUED = "instrument_issued"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One link of the chain.

    Shapes: ``subject`` is ``kind:id``, for example ``register:S001/T01``; ``detail`` is JSON with
            its names in order and its instants in UTC (ISO 8601). Neither ever holds a card number
            or a secret.
    """

    number: int
    recorded_at: datetime
    actor: str
    action: str
    subject: str
    detail: str
    previous_hash: bytes
    hash: bytes

    @property
    def told(self) -> dict[str, Any] | None:
        """Return the detail as an object; None if it is none, which no operation has written."""
        try:
            found = json.loads(self.detail)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


def link(
    previous: AuditEntry | None,
    *,
    recorded_at: datetime,
    actor: str,
    action: Action,
    subject: str,
    detail: Mapping[str, Any],
    key: bytes,
) -> AuditEntry:
    """Return the next link of the chain; ``previous`` is its newest one, None for the first."""
    number = previous.number + 1 if previous else 1
    previous_hash = previous.hash if previous else FIRST_PREVIOUS_HASH
    # The database keeps microseconds in UTC; what is hashed must be what will be read.
    recorded_at = recorded_at.astimezone(UTC)
    text = json.dumps(detail, sort_keys=True, ensure_ascii=False, default=_written)
    made = _hash(number, recorded_at, actor, action, subject, text, previous_hash, key)
    return AuditEntry(number, recorded_at, actor, action, subject, text, previous_hash, made)


@dataclass(slots=True)
class Walk:
    """How far a chain was walked from its beginning, and that it holds up to there.

    ``newest_hash`` is that of entry number ``holding``. ``noted`` are hashes by number that
    somebody wrote down elsewhere: only they tell a chain that was cut off, or made anew by one who
    knows the key.
    """

    key: bytes = field(repr=False)
    noted: Mapping[int, bytes] = field(default_factory=dict)
    holding: int = 0
    newest_hash: bytes = FIRST_PREVIOUS_HASH

    def step(self, entry: AuditEntry) -> str | None:
        """Take the entry that comes next by number; return what is wrong, None if it holds."""
        due = self.holding + 1
        if entry.number < due:
            return "there can be no entry of this number"
        if entry.number > due:
            return f"entries {due} to {entry.number - 1}, before it, are missing"
        made = _hash(
            entry.number,
            entry.recorded_at.astimezone(UTC),
            entry.actor,
            entry.action,
            entry.subject,
            entry.detail,
            entry.previous_hash,
            self.key,
        )
        if not hmac.compare_digest(made, entry.hash):
            return "it is not what was recorded, or was recorded under another number secret"
        if entry.previous_hash != self.newest_hash:
            return "it does not continue the entry before it"
        if self.noted.get(entry.number, entry.hash) != entry.hash:
            return "it is not the entry that was noted under this number"
        self.holding, self.newest_hash = entry.number, entry.hash
        return None

    def end(self) -> str | None:
        """Say that the chain ends here; return what is wrong with that, None if nothing is."""
        cut_off = max(self.noted, default=0)
        if cut_off <= self.holding:
            return None
        return f"the chain ends before it, but entry {cut_off} was noted"


def _written(value: object) -> str:
    """Write what JSON has no form for: an instant as in the answers of the API, in UTC."""
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)


def _hash(
    number: int,
    recorded_at: datetime,
    actor: str,
    action: str,
    subject: str,
    detail: str,
    previous_hash: bytes,
    key: bytes,
) -> bytes:
    # A JSON array: no two entries can be written as the same text.
    fields = [number, recorded_at.isoformat(), str(actor), str(action), subject, detail]
    text = json.dumps([*fields, previous_hash.hex()], ensure_ascii=True)
    return hmac.digest(key, text.encode("ascii"), hashlib.sha256)
