"""The connection status of a register: what it told of itself, and what its silence means.

States are derived by comparing with ``now``; nothing has to sweep for them to be right.
Source: documents "POS offline functionality", window Connection status; docs/connection-status.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

HEARTBEATS_PER_LEASE = 3
"""A till may lose two heartbeats in a row before its lease ends."""

PENDING_MAX = 1_000_000
TIPS_MAX = 100
TIPS_KEPT_MAX = 2 * TIPS_MAX
"""Of how many journals of a register HQ keeps the highest tip: those it names, and as many more."""

MESSAGE_LENGTH_MAX = 500


class ToldState(StrEnum):
    """What a till says of its own connection."""

    ONLINE = "online"
    OFFLINE = "offline"


class ConnectionState(StrEnum):
    """What HQ knows of the connection of a register at a moment."""

    ONLINE = "online"
    OFFLINE = "offline"  # it told so
    PRESUMED_OFFLINE = "presumed_offline"  # silent for longer than its lease
    NEVER_SEEN = "never_seen"
    RETIRED = "retired"


class SyncStatus(StrEnum):
    """What came of a till's last attempt to upload its offline transactions.

    Source: Dynamics, OfflineSyncStatsLine (None, Succeeded, Failed).
    """

    NONE = "none"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a till tells of itself at a moment; all instants are by its own clock.

    ``journal_tips`` are the highest sequence numbers written, by journal.
    """

    sent_at: datetime
    connection_state: ToldState
    pending_count: int
    pending_amounts_minor: Mapping[str, int]
    oldest_pending_at: datetime | None
    last_sync_at: datetime | None
    last_sync_status: SyncStatus
    last_sync_message: str | None
    journal_tips: Mapping[str, int]
    parameter_revision: int | None = None
    offline_profile_version: int | None = None

    def tells_until(self, received_at: datetime) -> datetime:
        """Return up to when it speaks: sent or received, whichever clock was earlier."""
        return min(self.sent_at, received_at)


@dataclass(frozen=True, slots=True)
class Report:
    """The newest heartbeat of a register that HQ has; ``reported_at`` is when HQ received it.

    ``connection_state_since`` is when HQ received the first of the reports in a row, without a
    silence longer than the lease, that say the same; ``journal_tips`` are the highest ever told.
    """

    reported_at: datetime
    sent_at: datetime
    connection_state: str
    connection_state_since: datetime
    pending_count: int
    pending_amounts_minor: Mapping[str, int]
    oldest_pending_at: datetime | None
    last_sync_at: datetime | None
    last_sync_status: str
    last_sync_message: str | None
    journal_tips: Mapping[str, int]
    offline_profile_version: int | None

    @property
    def tells_until(self) -> datetime:
        """Return up to when the report speaks: what comes after, HQ or the till had not seen yet.

        The till dates its sales by its own clock, and HQ the report by its own: what counts is
        whichever was earlier.
        """
        return min(self.reported_at, self.sent_at)


@dataclass(frozen=True, slots=True)
class RegisterPresence:
    """A register, when HQ heard of it last, and what it told.

    ``retired_at`` is when the register or its store was retired, whichever came first;
    ``reported_revision`` is the revision of the parameters that it last said that it acts on;
    ``newest_locked_at`` is when the newest of its live locks was taken.
    """

    store_id: str
    terminal_id: str
    name: str
    supports_offline: bool
    created_at: datetime
    retired_at: datetime | None
    last_seen_at: datetime | None
    acknowledged_revision: int | None
    reported_revision: int | None
    report: Report | None
    newest_locked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LockFigures:
    """What the live locks of a register in one currency amount to.

    ``next_horizon_at`` is when the first of its grants runs out of those that have not yet.
    """

    store_id: str
    terminal_id: str
    currency: str
    locks_count: int
    grants_count: int
    exposure_minor: int
    oldest_grant_at: datetime | None
    next_horizon_at: datetime | None
    past_horizon_count: int


def state_of(
    register: RegisterPresence, lease_seconds: int, now: datetime
) -> tuple[ConnectionState, datetime | None]:
    """Return the state of a register and since when it is in it; the order is that of precedence.

    The lease is the one that locks go by, and so is what it begins with: a register that is
    presumed offline is one whose locks are all suspect or lapsed. Since when a register is online
    is known only from its own reports: None for one that sends commands and no heartbeats.
    """
    if register.retired_at is not None:
        return ConnectionState.RETIRED, register.retired_at
    signs_of_life = (register.last_seen_at, register.newest_locked_at)
    seen_at = max((one for one in signs_of_life if one is not None), default=None)
    if seen_at is None:
        return ConnectionState.NEVER_SEEN, register.created_at
    present_until = seen_at + timedelta(seconds=lease_seconds)
    if now > present_until:
        return ConnectionState.PRESUMED_OFFLINE, present_until
    report = register.report
    if report is None:
        return ConnectionState.ONLINE, None
    is_offline = report.connection_state == ToldState.OFFLINE
    state = ConnectionState.OFFLINE if is_offline else ConnectionState.ONLINE
    return state, report.connection_state_since


def faults(heartbeat: Heartbeat, now: datetime, clock_skew_seconds_max: int) -> dict[str, str]:
    """Return what cannot be in a heartbeat: JSON pointer to sentence; empty if nothing is.

    What its members may be, each for itself, the schema of the body checks.
    """
    found: dict[str, str] = {}
    has_pending, has_oldest = heartbeat.pending_count > 0, heartbeat.oldest_pending_at is not None
    if has_pending and not has_oldest:
        found["/oldest_pending_at"] = "is needed when something is pending"
    if has_oldest and not has_pending:
        found["/oldest_pending_at"] = "is not for a till with nothing pending"
    if not has_pending and any(heartbeat.pending_amounts_minor.values()):
        found["/pending_amounts_minor"] = "is not for a till with nothing pending"
    has_tried = heartbeat.last_sync_status != SyncStatus.NONE
    if has_tried and heartbeat.last_sync_at is None:
        found["/last_sync/at"] = "is needed when there was an attempt"
    if not has_tried:
        told = {"at": heartbeat.last_sync_at, "message": heartbeat.last_sync_message}
        for member, value in told.items():
            if value is not None:
                found[f"/last_sync/{member}"] = "is not for status none"
    # By the till's own clock both have been; by HQ's they may be ahead as far as clocks may differ.
    of_hq = now + timedelta(seconds=clock_skew_seconds_max)
    if heartbeat.sent_at > of_hq:
        found["/sent_at"] = "is in the future"
    latest = min(heartbeat.sent_at, of_hq)
    instants = {
        "/oldest_pending_at": heartbeat.oldest_pending_at,
        "/last_sync/at": heartbeat.last_sync_at,
    }
    for pointer, instant in instants.items():
        if instant is not None and instant > latest:
            found.setdefault(pointer, "is in the future")
    return found


def is_acknowledged(
    reported: int | None,
    *,
    applied: int,
    known: int | None,
    was_served_to_it: bool,
    was_applied_in_store: bool,
) -> bool:
    """Tell whether a revision that a till says it acts on raises what it acknowledged.

    What its store has not applied, it cannot have: HQ may have been restored from a backup, and a
    revision that was saved may have been passed over. One of which nothing is acknowledged may be a
    new device: of that counts what its store has now, or what was served to that very register.
    """
    if reported is None or reported > applied:
        return False
    if known is None:
        return reported == applied or was_served_to_it
    return reported > known and (reported == applied or was_applied_in_store)


def is_reset_open(reset_at: datetime | None, fetched_at: datetime | None) -> bool:
    """Tell whether a cache reset waits for a till's fetch.

    A fetch at the very moment of the reset may have been answered before it.
    """
    return reset_at is not None and (fetched_at is None or reset_at >= fetched_at)


@dataclass(frozen=True, slots=True)
class CacheReset:
    """That registers shall fetch the parameters whatever their copy says.

    ``store_id`` None concerns all registers, ``terminal_id`` None all of the store; only those that
    were there when it was made.
    Source: documents "Seamless offline switch": "to make the change effective immediately, reset
    IIS".
    """

    cache_reset_id: UUID
    store_id: str | None
    terminal_id: str | None
    reset_at: datetime
    reset_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class CacheResetProgress:
    """How many registers a cache reset concerns, and how many of them have fetched since."""

    reset: CacheReset
    concerned_count: int
    fetched_count: int
