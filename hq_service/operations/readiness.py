"""Whether the service can take requests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from hq_service.domain.keyring import Keyring
from hq_service.store import readiness
from hq_service.store.database import Connection, reading

AWAY = "it does not answer; see that it runs and that DATABASE_URL is right"
OK = readiness.OK
MADE_WITH_ANOTHER = readiness.MADE_WITH_ANOTHER


@reading
def check(
    connection: Connection, clock: Callable[[], datetime], keyring: Keyring
) -> dict[str, str]:
    """Return what was checked: name to ``ok`` or to what to do."""
    return readiness.check(connection, clock, keyring.number_secret_fingerprint())
