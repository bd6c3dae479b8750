"""Preparing a database for the service."""

from __future__ import annotations

from hq_service.store import readiness
from hq_service.store.database import Connection, transactional


@transactional
def set_role_settings(connection: Connection) -> None:
    """Set time-outs and durability on the role that the service connects as."""
    readiness.set_role_settings(connection)
