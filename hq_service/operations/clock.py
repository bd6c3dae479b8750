"""HQ's time: the only one that leases and decisions go by."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """Return the current instant, aware, in UTC, as exactly as PostgreSQL stores it."""
    return datetime.now(UTC)
