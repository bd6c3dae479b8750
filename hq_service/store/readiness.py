"""What the database must be like before the service takes requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from hq_service.store.database import Connection

SCHEMA_HEAD = "0007"
"""The migration that this code needs; a test compares it with ``migrations/``."""

OK = "ok"
INITIALISE = "run `hq db init`"
MIGRATE = "run `hq db migrate`"
MADE_WITH_ANOTHER = (
    "HQ_NUMBER_SECRET is not the one that this data was made with; set that one again"
)

SERVER_VERSION_MIN = 150_000
CLOCK_DIFFERENCE_MAX = timedelta(seconds=2)

ROLE_SETTINGS: Mapping[str, str] = {
    "lock_timeout": "2s",
    "statement_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "synchronous_commit": "on",
}
"""What `hq db init` sets on the database role: on the role and not per session, because a session
setting does not reach the workers of a Citus cluster.
"""


def set_role_settings(connection: Connection) -> None:
    """Set time-outs and durability on the role that the service connects as."""
    for name, value in ROLE_SETTINGS.items():
        # Names and values are the constants above.
        connection.execute(f"ALTER ROLE CURRENT_USER SET {name} = '{value}'".encode())


def note_number_secret(connection: Connection, fingerprint: bytes, now: datetime) -> bool:
    """Remember which number secret the data is made with; tell whether it is this one.

    The first one that is noted stays: under another, no instrument would be found any more.
    """
    connection.execute(
        "INSERT INTO number_secret (fingerprint, noted_at) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (fingerprint, now),
    )
    return _noted_fingerprint(connection) == fingerprint


def check(
    connection: Connection, clock: Callable[[], datetime], fingerprint: bytes
) -> dict[str, str]:
    """Return what was checked: name to ``ok`` or to a sentence that says what to do.

    ``clock`` is read beside the database's: waiting for a connection is no difference of clocks.
    ``fingerprint`` is that of the number secret that the service runs with.
    """
    row = connection.execute(
        "SELECT current_setting('server_version_num')::int, pg_is_in_recovery(),"
        " clock_timestamp(), to_regclass('alembic_version') IS NOT NULL"
    ).fetchone()
    assert row is not None  # a SELECT without FROM has one row
    version, is_standby, database_now, is_migrated = row
    checks = {
        "server_version": (
            OK if version >= SERVER_VERSION_MIN else "PostgreSQL 15 or later is needed"
        ),
        "primary": OK if not is_standby else "a standby; point DATABASE_URL at the primary",
        "clocks": (
            OK
            if abs(database_now - clock()) <= CLOCK_DIFFERENCE_MAX
            else "the clocks of application and database differ; synchronise both"
        ),
        "schema": _schema(connection) if is_migrated else INITIALISE,
    }
    if checks["schema"] == OK:
        checks["number_secret"] = _number_secret(connection, fingerprint)
    for name in ROLE_SETTINGS:
        checks[name] = _role_setting(connection, name)
    return checks


def _schema(connection: Connection) -> str:
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return OK if row is not None and row[0] == SCHEMA_HEAD else MIGRATE


def _number_secret(connection: Connection, fingerprint: bytes) -> str:
    noted = _noted_fingerprint(connection)
    if noted is None:
        return "not noted yet; run `hq db init`"
    return OK if noted == fingerprint else MADE_WITH_ANOTHER


def _noted_fingerprint(connection: Connection) -> bytes | None:
    row = connection.execute("SELECT fingerprint FROM number_secret").fetchone()
    return None if row is None else bytes(row[0])


def _role_setting(connection: Connection, name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
    value = row[0] if row is not None else ""
    # A time-out of zero is none; a commit that is off or local does not wait for the disk.
    return OK if value not in ("0", "off", "local") else "not set for this role; run `hq db init`"
