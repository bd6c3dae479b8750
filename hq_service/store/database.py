"""The database: one session, one way to commit.

`transactional` is the only caller of ``commit()``. READ COMMITTED with ordered row locks; an
operation that met a deadlock, a serialization failure or a lock time-out is run again as a whole,
at most `MAX_ATTEMPTS` times.
"""

from __future__ import annotations

import functools
import random
import select
import time
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

import psycopg
import sqlalchemy.exc
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, event

from hq_service.domain.errors import HqError, OutcomeUnknown, Unavailable
from hq_service.store.tables import Base
from hq_service.store.watchdog import CommitWatchdog

MAX_ATTEMPTS = 3
RETRY_AFTER_SECONDS = 2

# Serialization failure, deadlock, lock time-out; and statement time-out.
_BUSY = frozenset({"40001", "40P01", "55P03", "57014"})
# Nothing was done, and the whole, tried again, reads what it could not see: also a unique key that
# slipped in meanwhile. One that is still there after the last attempt is a defect, and not told as
# a busy database.
_RETRYABLE = (_BUSY - {"57014"}) | {"23505"}
# Connection trouble, resources, shutdown: the database is away or full, and will be back.
_AWAY = ("08", "53", "57P")
# The connection broke, or the server shut down, before it told what became of a commit.
_CUT_OFF = ("08", "57P")
# A value that does not fit, or a rule of the schema that is broken.
_REFUSED = ("22", "23")

DATABASE_ERRORS = (psycopg.Error, sqlalchemy.exc.SQLAlchemyError)


class Unstorable(Exception):
    """The database refuses what the rules came to: a defect. Nothing of it was applied."""


P = ParamSpec("P")
R = TypeVar("R")
Connection = psycopg.Connection[tuple[Any, ...]]

db = SQLAlchemy(model_class=Base)
watchdog = CommitWatchdog()

# Connections that are committing, and those of them whose commit was told to stop waiting.
_committing: set[Connection] = set()
_unconfirmed: set[Connection] = set()


_engine_at_work: ContextVar[Engine | None] = ContextVar("engine_at_work", default=None)


def engine() -> Engine:
    """Return the engine of the application that is at work: the one that `work_with` names, else
    that of the current application.
    """
    return _engine_at_work.get() or db.engine


def work_with(at_work: Engine, work: Callable[[], R]) -> R:
    """Let something work with an engine, without an application's context and its session."""
    token = _engine_at_work.set(at_work)
    try:
        return work()
    finally:
        _engine_at_work.reset(token)


def listen(engine: Engine) -> None:
    """Watch every new connection for the notice that a commit did not wait for its standby, and
    let the pool give out none that the server has left.
    """

    @event.listens_for(engine, "connect")
    def connected(connection: Connection, _record: object) -> None:
        reference = weakref.ref(connection)

        def noticed(diagnostic: psycopg.errors.Diagnostic) -> None:
            # PostgreSQL says COMMIT and success here, although a failover may lose the commit.
            # The words are in the server's language; no other warning comes with a COMMIT.
            found = reference()
            if found is None or diagnostic.sqlstate != "01000":
                return
            if found in _committing:
                _unconfirmed.add(found)

        connection.add_notice_handler(noticed)

    @event.listens_for(engine, "checkout")
    def checked_out(connection: Connection, _record: object, _proxy: object) -> None:
        # The only thing that the server says unasked is good-bye. To ask it whether it is still
        # there would be a round trip for every transaction; the pool connects anew instead.
        if connection.closed or _has_spoken(connection):
            raise sqlalchemy.exc.DisconnectionError


def _has_spoken(connection: Connection) -> bool:
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


def transactional(operation: Callable[Concatenate[Connection, P], R]) -> Callable[P, R]:
    """Make a function one database transaction: it gets the connection as first argument.

    It commits when the function returns and rolls back when it raises. The function may run more
    than once, so it must do nothing but database work.

    Raises:  Unavailable when the database is away (not applied); OutcomeUnknown when the commit
             was sent and its answer did not come.
    """

    @functools.wraps(operation)
    def run(*arguments: P.args, **keywords: P.kwargs) -> R:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                connection = _connection()
                result = operation(connection, *arguments, **keywords)
                db.session.flush()
            except HqError:
                _give_up()
                raise
            except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError) as error:
                _give_up()
                if _sqlstate(error) in _RETRYABLE and attempt < MAX_ATTEMPTS:
                    # Spread out, so that two that met do not meet again.
                    time.sleep(random.uniform(0.01, 0.1) * attempt)  # noqa: S311 - not a secret
                    continue
                _translate(error)
            except BaseException:
                _give_up()
                raise
            _commit(connection)
            return result
        raise AssertionError("the last attempt returns or raises")

    return run


def reading(operation: Callable[Concatenate[Connection, P], R]) -> Callable[P, R]:
    """Make a function one read: it gets the connection as first argument and commits nothing."""

    @functools.wraps(operation)
    def run(*arguments: P.args, **keywords: P.kwargs) -> R:
        try:
            connection = _connection()
            with db.session.no_autoflush:
                result = operation(connection, *arguments, **keywords)
            # There is nothing to commit; but at a rollback the driver forgets what it has prepared.
            connection.commit()
            return result
        except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError) as error:
            _translate(error)
        finally:
            _give_up()

    return run


def confirm_durable(connection: Connection) -> None:
    """Make a transaction that wrote nothing wait for the standby like one that wrote.

    A replayed success must survive a failover as the first answer does: after a crash-restart the
    primary shows commits that no standby has.
    """
    connection.execute("SELECT pg_logical_emit_message(true, 'hq', '')")


def _connection() -> Connection:
    raw = db.session.connection().connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw


def _commit(connection: Connection) -> None:
    """Commit, and never cancel it: a deadline shuts the socket, which leaves the outcome open.

    The connection commits by itself, before the session does: the session's commit gives it back
    to the pool, and then another thread's commit could be taken for this one.
    """
    _committing.add(connection)
    watchdog.watch(connection)
    try:
        try:
            connection.commit()
        finally:
            # Before the connection is given back: the next one's commit is another one.
            watchdog.forget(connection)
            _committing.discard(connection)
            is_unconfirmed = connection in _unconfirmed
            _unconfirmed.discard(connection)
    except psycopg.Error as error:
        sqlstate = _sqlstate(error)
        _give_up()
        if sqlstate is None or sqlstate.startswith(_CUT_OFF):
            raise _outcome_unknown() from error
        _translate(error)  # the server said no: certainly not applied
    # Nothing is left to commit; this ends the session's transaction and frees the connection.
    db.session.commit()
    if is_unconfirmed:
        raise _outcome_unknown()


def committed_by_itself(connection: Connection, run: Callable[[], R]) -> R:
    """Run a statement that is a transaction of its own, watched as every commit is.

    Raises:  OutcomeUnknown when its answer did not come; psycopg.Error when the server said no.
    """
    _committing.add(connection)
    watchdog.watch(connection)
    try:
        try:
            result = run()
        finally:
            watchdog.forget(connection)
    except psycopg.Error as error:
        sqlstate = _sqlstate(error)
        if sqlstate is None or sqlstate.startswith(_CUT_OFF):
            connection.close()
            raise _outcome_unknown() from error
        raise
    finally:
        _committing.discard(connection)
        is_unconfirmed = connection in _unconfirmed
        _unconfirmed.discard(connection)
    if is_unconfirmed:
        raise _outcome_unknown()
    return result


def _outcome_unknown() -> OutcomeUnknown:
    return OutcomeUnknown(
        "The database did not confirm the commit. The operation may or may not be applied:"
        " repeat it with the same business key to find out.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def unavailable() -> Unavailable:
    """Return the error for a database that is away or too busy."""
    return Unavailable(
        "The database is away or too busy; this request was not applied. Repeat it with the"
        " same business key.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def _give_up() -> None:
    """Roll back; a connection that cannot even do that is thrown away."""
    try:
        db.session.rollback()
    except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError):
        db.session().invalidate()


def _sqlstate(error: BaseException) -> str | None:
    original = getattr(error, "orig", None) or error
    sqlstate = getattr(original, "sqlstate", None)
    return sqlstate if isinstance(sqlstate, str) else None


def _translate(error: Exception) -> NoReturn:
    """Raise what a caller is told about a database error that was not cured by trying again."""
    sqlstate = _sqlstate(error)
    original = getattr(error, "orig", None) or error
    is_away = sqlstate is None and isinstance(
        original, psycopg.OperationalError | psycopg.InterfaceError | sqlalchemy.exc.TimeoutError
    )
    is_busy = sqlstate is not None and (sqlstate in _BUSY or sqlstate.startswith(_AWAY))
    if is_away or is_busy:
        raise unavailable() from error
    if sqlstate is not None and sqlstate.startswith(_REFUSED):
        raise Unstorable(sqlstate) from error
    raise error
