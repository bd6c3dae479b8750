"""Whether the service can take requests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from hq_service.store import readiness
from hq_service.store.database import Connection, reading


@reading
def check(connection: Connection, clock: Callable[[], datetime]) -> dict[str, str]:
    """Return what was checked: name to ``ok`` or to what to do."""
    return readiness.check(connection, clock)
