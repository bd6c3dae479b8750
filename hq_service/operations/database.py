"""Preparing a database for the service."""

from __future__ import annotations

from datetime import datetime

from hq_service.domain.keyring import Keyring
from hq_service.operations import schedules
from hq_service.store import readiness
from hq_service.store.database import Connection, transactional


@transactional
def prepare(connection: Connection, keyring: Keyring, now: datetime) -> bool:
    """Set time-outs and durability on the service's role, note the number secret, and make sure
    that there is a distribution schedule.

    Returns: whether the data is made with this number secret; if not, nothing is found with it.
    """
    readiness.set_role_settings(connection)
    schedules.ensure_default(now)
    return readiness.note_number_secret(connection, keyring.number_secret_fingerprint(), now)
