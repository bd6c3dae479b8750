"""The PostgreSQL that is measured: a throwaway one with fsync on, or the server of DATABASE_URL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from benchmarks.company import Company
from benchmarks.processes import wait_for
from hq_service.embedded_postgres import ThrowawayPostgres
from hq_service.settings import database_url_from

Connection = psycopg.Connection[tuple[Any, ...]]

# As a deployment has them (docs/operations.md). The data fits into memory, and no checkpoint falls
# into a run: the first change of each page after one writes the whole page to the WAL.
SETTINGS: Mapping[str, str] = {
    "shared_buffers": "2GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "60min",
}
SHOWN_SETTINGS = (
    *("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers"),
    *("max_wal_size", "checkpoint_timeout", "wal_compression", "data_checksums", "jit"),
)
# The role has time-outs for requests; to fill five million rows takes longer.
NO_TIME_OUTS = "-c lock_timeout=0 -c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
QUIET_SECONDS_MAX = 30.0


class Unmeasurable(Exception):
    """The PostgreSQL given is not one that can be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Updates:
    """How many rows of instruments were changed, and how many of them within their page (HOT)."""

    total: int
    hot: int


@dataclass
class Database:
    """One database with the service's tables, and what was done to it so far.

    It has ``counted`` cards whose ids are made from a counter, and ``numbered`` ones that are known
    by number. ``expected_postings`` is what the requests so far must have posted; ``set_up`` is
    what was changed beside the measuring.
    """

    url: str
    connection: Connection
    company: Company
    counted: int
    numbered: int
    initial_balance_minor: int = 0
    expected_postings: int = 0
    set_up: Updates = field(default_factory=lambda: Updates(0, 0))
    next_turn: int = 0
    next_number: int = 0
    _analysed_postings: int = 0

    def wal_position(self) -> int:
        """Return how many bytes of WAL the server has written since it was made."""
        return int(self.value("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))

    def value(self, query: str, *parameters: Any) -> Any:
        """Return the one value that a query gives."""
        row = self.connection.execute(query.encode(), parameters or None).fetchone()
        assert row is not None
        return row[0]

    def write(self, query: str, parameters: Any = None) -> int:
        """Change rows for a measurement to come; return how many. None of it counts as measured."""
        # What the session has not told yet of transactions before is counted with this one's.
        self.connection.execute("SELECT pg_stat_force_next_flush()")
        with self.connection.transaction():
            changed = self.connection.execute(query.encode(), parameters).rowcount
            row = self.connection.execute(
                "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables"
                " WHERE relname = 'instruments'"
            ).fetchone()
        if row is not None:
            self.set_up = Updates(self.set_up.total + row[0], self.set_up.hot + row[1])
        return changed

    def updates(self) -> Updates:
        """Return the changes of instruments so far, without those of set-up.

        Sessions tell what they did when they end, so the servers must have been stopped.
        """
        self._wait_for_the_others()
        self.connection.execute("SELECT pg_stat_force_next_flush()")
        row = self.connection.execute(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'instruments'"
        ).fetchone()
        assert row is not None
        return Updates(row[0] - self.set_up.total, row[1] - self.set_up.hot)

    def deadlocks(self) -> int:
        """Return how many deadlocks there were."""
        return int(
            self.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        )

    def analyse(self) -> None:
        """Tell the planner what the tables hold: planned for empty ones, statements would scan."""
        self.connection.execute("ANALYZE live_locks")
        if self.expected_postings >= 2 * self._analysed_postings:
            self.connection.execute("ANALYZE postings")
            self._analysed_postings = self.expected_postings

    def environment(self) -> dict[str, str]:
        """Return what libpq needs to find this database: not on a command line for all to see."""
        names = {
            "host": "PGHOST",
            "port": "PGPORT",
            "user": "PGUSER",
            "password": "PGPASSWORD",
            "dbname": "PGDATABASE",
            "sslmode": "PGSSLMODE",
            "sslrootcert": "PGSSLROOTCERT",
        }
        given = conninfo_to_dict(psycopg_url(self.url))
        return {names[name]: str(value) for name, value in given.items() if name in names}

    def _wait_for_the_others(self) -> None:
        def is_alone() -> bool:
            return not self.value(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )

        wait_for(is_alone, "end of the sessions that were measured", QUIET_SECONDS_MAX)


@dataclass
class Server:
    """A PostgreSQL on this machine; ``postmaster_pid`` is the parent of all its processes."""

    url: str
    postmaster_pid: int
    settings: Mapping[str, str]
    is_given: bool
    _made: list[str] = field(default_factory=list)

    def create_database(self, template: str | None = None) -> str:
        """Create a database with a name of its own and return its URL; a template is a URL."""
        name = f"hq_bench_{uuid.uuid4().hex[:8]}"
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            copied = str(conninfo_to_dict(psycopg_url(template))["dbname"])
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(copied))
        with connect(self.url) as connection:
            connection.execute(statement)
        self._made.append(name)
        return self.url_of(name)

    def url_of(self, name: str) -> str:
        """Return the URL of another database of this server."""
        address, _, query = self.url.partition("?")
        base = address.rsplit("/", 1)[0]
        return f"{base}/{name}" + (f"?{query}" if query else "")

    def drop_databases(self) -> None:
        """Drop what was created on a server that stays."""
        with connect(self.url) as connection:
            for name in self._made:
                connection.execute(
                    sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
                )


@contextmanager
def open_server(environ: Mapping[str, str]) -> Iterator[Server]:
    """Give the server to measure; nothing of it is left afterwards.

    Raises:  Unmeasurable; EmbeddedPostgresError; SettingsError.
    """
    if environ.get("DATABASE_URL"):
        server = _look_at(database_url_from(environ), is_given=True)
        try:
            yield server
        finally:
            server.drop_databases()
    else:
        with ThrowawayPostgres(fsync=True, settings=_settings_of_this_machine()) as throwaway:
            yield _look_at(throwaway.url, is_given=False)


def connect(url: str) -> Connection:
    """Return a connection beside those that are measured, without time-outs."""
    return psycopg.connect(psycopg_url(url), autocommit=True, options=NO_TIME_OUTS)


def psycopg_url(url: str) -> str:
    """Return a SQLAlchemy URL in the form that psycopg takes."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def _look_at(url: str, *, is_given: bool) -> Server:
    """Find out about a server.

    Raises:  Unmeasurable if its processes cannot be seen, or its commits need not reach the disk.
    """
    with connect(url) as connection:
        settings = {
            name: str(_only(connection.execute("SELECT current_setting(%s, true)", (name,))))
            for name in SHOWN_SETTINGS
        }
        backend_pid = int(_only(connection.execute("SELECT pg_backend_pid()")))
        postmaster_pid = _postmaster_of(backend_pid)
    require_durable(settings)
    return Server(url, postmaster_pid, settings, is_given)


def require_durable(settings: Mapping[str, str]) -> None:
    """Refuse a server whose commits cost less than real ones do.

    Raises:  Unmeasurable, naming the setting.
    """
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        if settings[name] not in ("on", "remote_apply"):
            raise Unmeasurable(
                f"{name} is {settings[name]}: a run on it would show what no shop can have."
                " Turn it on, or leave DATABASE_URL unset."
            )


def _postmaster_of(backend_pid: int) -> int:
    """Return the parent of a session's process, whose CPU the run reads."""
    try:
        parent = psutil.Process(backend_pid).parent()
    except psutil.NoSuchProcess:
        parent = None
    if parent is None or "postgres" not in parent.name():
        raise Unmeasurable(
            "The processes of this PostgreSQL cannot be seen from here, and the CPU that they take"
            " is what the ratios are made of. Run the benchmark on the machine (and in the"
            " container) of the database, or leave DATABASE_URL unset."
        )
    return parent.pid


def _settings_of_this_machine() -> dict[str, str]:
    """Return the settings, with a quarter of the memory as shared buffers where that is less."""
    quarter_mb = psutil.virtual_memory().total // 2**20 // 4
    return {**SETTINGS, "shared_buffers": f"{min(2_048, quarter_mb)}MB"}


def _only(cursor: psycopg.Cursor[tuple[Any, ...]]) -> Any:
    row = cursor.fetchone()
    assert row is not None
    return row[0]
