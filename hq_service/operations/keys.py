"""Signing in by API key."""

from __future__ import annotations

from datetime import datetime

from hq_service.domain.actors import Actor
from hq_service.store import keys
from hq_service.store.database import Connection, reading


@reading
def actor_of(_connection: Connection, presented: str, now: datetime) -> Actor | None:
    """Return whom a presented API key stands for now, None if for nobody."""
    return keys.actor_of(presented, now)
