"""Cache resets: with their next heartbeat, tills are told to fetch the parameters at once."""

from __future__ import annotations

import os
from datetime import datetime
from uuid import UUID

from hq_service.domain.audit import Action
from hq_service.domain.connection import CacheReset, CacheResetProgress
from hq_service.domain.errors import InvalidRequest, NotFound
from hq_service.domain.numbers import uuid7
from hq_service.operations.changes import Change, record
from hq_service.operations.places import place_faults
from hq_service.store import cache_resets, terminals
from hq_service.store.database import Connection, reading, transactional


@transactional
def reset(
    connection: Connection, store_id: str | None, terminal_id: str | None, change: Change
) -> CacheResetProgress:
    """Reset the cache of all tills, of those of one store, or of one till.

    It changes nothing that is distributed: a till fetches what its store has applied.

    Raises:  InvalidRequest with a pointer to a store or register that is none, or is retired.
    """
    faults = place_faults(store_id, terminal_id)
    if store_id is None and terminal_id is not None:
        faults = {"store_id": "is needed with a register"}
    if faults:
        raise InvalidRequest(
            errors=[{"pointer": f"/{member}", "detail": fault} for member, fault in faults.items()]
        )
    made = CacheReset(
        uuid7(change.now, os.urandom(10)),
        store_id,
        terminal_id,
        change.now,
        change.actor.name,
        change.reason,
    )
    cache_resets.add(made)
    progress = cache_resets.progress_of(made.cache_reset_id)
    assert progress is not None  # it was just written
    record(
        connection,
        change,
        Action.CACHE_RESET,
        _subject_of(store_id, terminal_id),
        cache_reset_id=made.cache_reset_id,
        concerned_count=progress.concerned_count,
    )
    return progress


@reading
def list_resets(
    _connection: Connection,
    *,
    store_id: str | None,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[CacheResetProgress]:
    """Return cache resets, the newest first, behind one; of one store, also those of all stores.

    Raises:  NotFound ``store_not_found``.
    """
    if store_id is not None and not terminals.store_exists(store_id):
        raise NotFound(code="store_not_found")
    return cache_resets.page(store_id=store_id, after=after, limit=limit)


def _subject_of(store_id: str | None, terminal_id: str | None) -> str:
    if terminal_id is not None:
        return f"register:{store_id}/{terminal_id}"
    return f"parameters:{store_id or 'company'}"
