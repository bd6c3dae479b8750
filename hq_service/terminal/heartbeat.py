"""The till's heartbeat: what it tells HQ of itself, and what it does with the answer."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hq_service.domain.connection import PENDING_MAX, SyncStatus, ToldState
from hq_service.terminal.client import Answer
from hq_service.terminal.setup import Setup
from hq_service.terminal.store import TillStore

PATH = "/v1/heartbeats"


def heartbeat_of(store: TillStore, setup: Setup, state: ToldState, now: datetime) -> dict[str, Any]:
    """Return what the till tells of itself at this moment."""
    pending = store.pending()
    return {
        "sent_at": now.isoformat(),
        "connection_state": state,
        "pending_count": min(pending.transactions_count, PENDING_MAX),
        "pending_amounts_minor": dict(pending.amounts_minor),
        "oldest_pending_at": pending.oldest_at.isoformat() if pending.oldest_at else None,
        "last_sync": store.fact("last_sync", {"status": SyncStatus.NONE}),
        "journal_tips": {store.journal_id: store.last_sequence},
        "parameter_revision": setup.revision,
        "offline_profile_version": setup.profile_version,
    }


def acknowledge(store: TillStore, answer: Answer, now: datetime) -> int:
    """Purge what an answer says that has arrived, of this till's own journal; return how many.

    Both heartbeats and offline batches are answered with ``journals``.
    """
    purged = 0
    for journal in answer.at("journals") or ():
        is_own = journal.get("terminal_id", store.terminal_id) == store.terminal_id
        if is_own and journal["journal_id"] == store.journal_id:
            gaps = [(gap["first"], gap["last"]) for gap in journal["gaps"]]
            purged += store.acknowledge(journal["acknowledged_through"], gaps, now)
    return purged


def wants_setup(answer: Answer, setup: Setup) -> bool:
    """Tell whether the till has to fetch its parameters or its profile at once, or as they are
    another by now and its copy is too old.
    """
    if answer.at("parameters.reset_cache"):
        return True
    if answer.at("offline_profile_version") != (setup.profile_version or 0):
        return True
    return setup.is_stale and answer.at("parameters.revision") != setup.revision
