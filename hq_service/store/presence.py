"""What registers tell of themselves, and what HQ knows of them besides: for people and reports.

No decision about a lock or a sale reads this, but for when a terminal was seen last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import and_, func, select, tuple_

from hq_service.domain.completeness import Delivery
from hq_service.domain.connection import (
    TIPS_KEPT_MAX,
    Heartbeat,
    LockFigures,
    RegisterPresence,
    Report,
)
from hq_service.domain.model import DEBITS
from hq_service.domain.parameters import RELEASE, Parameters
from hq_service.store import tables
from hq_service.store.arrays import array
from hq_service.store.database import Connection, db
from hq_service.store.journals import Place, journal_from
from hq_service.store.statements import statement

Register = tables.Terminal
Stores = tables.Store
Presence = tables.TerminalPresence
LiveLock = tables.LiveLock
Revision = tables.ParameterRevision

# In the order of `RegisterPresence` but for its report, then in that of `Report`; so are the
# columns of read_deliveries.sql.
_REGISTER: tuple[Any, ...] = (
    Register.store_id,
    Register.terminal_id,
    Register.name,
    Register.supports_offline,
    Register.created_at,
    func.least(Register.retired_at, Stores.retired_at),
    Presence.last_seen_at,
    Presence.acknowledged_revision,
    Presence.reported_revision,
)
_REPORT: tuple[Any, ...] = (
    Presence.reported_at,
    Presence.report_sent_at,
    Presence.connection_state,
    Presence.connection_state_since,
    Presence.pending_count,
    Presence.pending_amounts_minor,
    Presence.oldest_pending_at,
    Presence.last_sync_at,
    Presence.last_sync_status,
    Presence.last_sync_message,
    Presence.journal_tips,
    Presence.offline_profile_version,
)
_WIDTH = len(_REGISTER) + len(_REPORT)


@dataclass(frozen=True, slots=True)
class HeartbeatFacts:
    """What the answer to a heartbeat depends on.

    ``was_served_to_it`` and ``was_applied_in_store`` are of the revision that it reports;
    ``cache_reset_at`` is when the newest reset that concerns the register was made.
    """

    is_retired: bool
    applied_revision: int
    saved_revision: int
    acknowledged_revision: int | None
    was_served_to_it: bool
    was_applied_in_store: bool
    cache_reset_at: datetime | None
    offline_profile_version: int
    is_upload_requested: bool


def read_heartbeat_facts(
    connection: Connection, store_id: str, terminal_id: str, reported_revision: int | None
) -> HeartbeatFacts | None:
    """Return what the answer to a heartbeat depends on, None if there is no such register."""
    row = connection.execute(
        statement("read_heartbeat_facts"),
        {
            "store_id": store_id,
            "terminal_id": terminal_id,
            "reported_revision": reported_revision,
        },
    ).fetchone()
    return HeartbeatFacts(*row) if row else None


def record_heartbeat(
    connection: Connection,
    store_id: str,
    terminal_id: str,
    heartbeat: Heartbeat,
    *,
    acknowledged_revision: int | None,
    fallback_revision: int | None,
    lease_seconds: int,
    now: datetime,
) -> datetime | None:
    """Write what a terminal told, unless a newer report is there: one row, whatever its locks.

    ``acknowledged_revision`` is what this heartbeat acknowledges, None for nothing new;
    ``fallback_revision`` what is left acknowledged if it tells of an older one than that is.

    Returns: when the terminal last fetched the parameters; None if never, or if it tells that the
             answer did not arrive.
    """
    place = {"store_id": store_id, "terminal_id": terminal_id, "now": now}
    reported = heartbeat.parameter_revision
    row = connection.execute(
        statement("record_heartbeat"),
        {
            **place,
            "acknowledged_revision": acknowledged_revision,
            "fallback_revision": fallback_revision,
            "reported_revision": reported,
            "revision_reported_at": None if reported is None else heartbeat.tells_until(now),
            "tips_kept_max": TIPS_KEPT_MAX,
            "lease_seconds": lease_seconds,
            "sent_at": heartbeat.sent_at,
            "connection_state": heartbeat.connection_state,
            "pending_count": heartbeat.pending_count,
            "pending_amounts_minor": Jsonb(dict(heartbeat.pending_amounts_minor)),
            "oldest_pending_at": heartbeat.oldest_pending_at,
            "last_sync_at": heartbeat.last_sync_at,
            "last_sync_status": heartbeat.last_sync_status,
            "last_sync_message": heartbeat.last_sync_message,
            "journal_tips": Jsonb(dict(heartbeat.journal_tips)),
            "offline_profile_version": heartbeat.offline_profile_version,
        },
    ).fetchone()
    assert row is not None  # inserted or updated, always
    if acknowledged_revision is not None:
        served = {**place, "revision": acknowledged_revision}
        connection.execute(statement("insert_acknowledgement"), served)
    fetched_at: datetime | None = row[0]
    return fetched_at


def page(*, store_id: str | None, after: Place | None, limit: int) -> list[RegisterPresence]:
    """Return registers with what they told last, by store and register, after one."""
    is_its_presence = and_(
        Presence.store_id == Register.store_id, Presence.terminal_id == Register.terminal_id
    )
    # Locks are not indexed by register: one pass over them for all of the page.
    newest = select(
        LiveLock.store_id, LiveLock.terminal_id, func.max(LiveLock.locked_at).label("locked_at")
    ).group_by(LiveLock.store_id, LiveLock.terminal_id)
    if store_id is not None:
        newest = newest.where(LiveLock.store_id == store_id)
    held = newest.subquery()
    are_its_locks = and_(
        held.c.store_id == Register.store_id, held.c.terminal_id == Register.terminal_id
    )
    wanted = (
        select(*_REGISTER, *_REPORT, held.c.locked_at)
        .join(Stores, Stores.store_id == Register.store_id)
        .outerjoin(Presence, is_its_presence)
        .outerjoin(held, are_its_locks)
        .order_by(Register.store_id, Register.terminal_id)
        .limit(limit)
    )
    if store_id is not None:
        wanted = wanted.where(Register.store_id == store_id)
    if after is not None:
        wanted = wanted.where(tuple_(Register.store_id, Register.terminal_id) > after)
    return [_register(tuple(row), row[_WIDTH]) for row in db.session.execute(wanted)]


def deliveries(
    connection: Connection, *, store_id: str | None, after: Place | None, limit: int
) -> list[Delivery]:
    """Return what is known of what registers have delivered, by store and register, after one.

    All of it as of one moment.
    """
    after_store, after_terminal = after or ("", "")
    rows = connection.execute(
        statement("read_deliveries"),
        {
            "store_id": store_id,
            "after_store": after_store,
            "after_terminal": after_terminal,
            "limit": limit,
        },
    )
    return [_delivery(row) for row in rows]


def lock_figures(
    connection: Connection,
    places: Iterable[Place],
    in_force_of: Mapping[str, Parameters],
    now: datetime,
) -> list[LockFigures]:
    """Return what the live locks of some registers amount to, by register and currency.

    ``in_force_of`` has the parameters that are saved for each of their stores.
    """
    listed = list(places)
    releasing = [store_id for store_id, one in in_force_of.items() if one.on_horizon == RELEASE]
    rows = connection.execute(
        statement("sum_live_locks"),
        {
            "store_ids": array(place[0] for place in listed),
            "terminal_ids": array(place[1] for place in listed),
            "releasing_store_ids": array(releasing),
            "debits": array(sorted(DEBITS)),
            "now": now,
        },
    )
    return [_figures(row) for row in rows]


def _register(row: Sequence[Any], newest_locked_at: datetime | None = None) -> RegisterPresence:
    told = row[len(_REGISTER) : _WIDTH]
    report = Report(*told) if told[0] is not None else None
    return RegisterPresence(*(*row[: len(_REGISTER)], report, newest_locked_at))


def _figures(row: Sequence[Any]) -> LockFigures:
    figures = dict(zip(LockFigures.__slots__, row, strict=True))
    # A sum of bigint is numeric: it may be more than a bigint holds.
    return LockFigures(**figures | {"exposure_minor": int(figures["exposure_minor"])})


def _delivery(row: Sequence[Any]) -> Delivery:
    time_zone, journals, granted_at, open_cases_count, unsettled_count = row[_WIDTH:]
    return Delivery(
        register=_register(row),
        time_zone=time_zone,
        journals={name: journal_from(arrived) for name, arrived in (journals or {}).items()},
        granted_at=tuple(granted_at or ()),
        unsettled_batches_count=unsettled_count,
        open_cases_count=open_cases_count,
    )
