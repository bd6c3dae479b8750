"""Operations that are one statement: prepared once, committed by itself.

What tills ask for all day is tried this way first. The connections for it are kept beside the pool,
so that a request costs one round trip: no transaction is opened, and nothing is reset. A statement
that does not find everything as it should be does nothing and returns no row; then the operation
is carried out in full, by the rules, and those say what is wrong.
"""

from __future__ import annotations

import select
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import psycopg
import sqlalchemy.exc
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult
from sqlalchemy import Engine, event

from hq_service.store.database import Connection, committed_by_itself, engine
from hq_service.store.statements import statement


class NotTried(Exception):
    """Nothing is known to have been done; the operation is to be carried out in full."""


class _Own:
    """A connection that is kept for this, with what it has prepared."""

    def __init__(self, at_work: Engine, free: deque[_Own]) -> None:
        pooled = at_work.raw_connection()
        connection = pooled.driver_connection
        assert isinstance(connection, psycopg.Connection)
        pooled.detach()  # it is ours; the pool goes on without
        connection.rollback()
        connection.autocommit = True
        # Every statement here is by key. A plan that was made while a table was empty would read
        # the whole of it, also when it has grown.
        connection.execute("SET enable_seqscan = off")
        # Nor does a plan of its own pay for any of them: it takes longer than what it plans.
        connection.execute("SET plan_cache_mode = force_generic_plan")
        self.connection: Connection = connection
        self._free = free
        self._transformer = Transformer(connection)
        self._prepared: set[str] = set()
        self._poll = select.poll()
        self._poll.register(connection.pgconn.socket, select.POLLIN)

    def is_alive(self) -> bool:
        """Tell whether the connection can be used: the server has not said anything of its own,
        since the only thing that it says unasked is good-bye.
        """
        if self.connection.closed:
            return False
        return not self._poll.poll(0)

    def row_of(self, name: str, values: Sequence[Any]) -> tuple[Any, ...] | None:
        """Run a statement, prepared once under its own name; return its row, None without.

        A cursor would find out for each run what is the same for all: what the statement is, how
        often it ran, whether to prepare it.
        """
        libpq, prepared_name = self.connection.pgconn, name.encode()
        if name not in self._prepared:
            _checked(libpq.prepare(prepared_name, statement(name).encode()))
            self._prepared.add(name)
        # None is a NULL, although the annotation of exec_prepared does not say so.
        given: list[Any] = [
            one.encode() if type(one) is str else None if one is None else _text_of(one)
            for one in values
        ]
        result = _checked(libpq.exec_prepared(prepared_name, given))
        if not result.ntuples:
            return None
        self._transformer.set_pgresult(result)
        return self._transformer.load_row(0, tuple)

    def give_back(self) -> None:
        """Let somebody else use the connection, if it still can be used."""
        if not self.connection.closed:
            self._free.append(self)

    def close(self) -> None:
        """End the connection."""
        self.connection.close()


def _checked(result: PGresult) -> PGresult:
    """Return a result that is a good one.

    Raises:  psycopg.Error.
    """
    if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
        raise psycopg.errors.error_from_result(result)
    return result


def _text_of(value: Any) -> bytes:
    """Return a value as PostgreSQL reads it."""
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    return str(value).encode()


# Those that nobody uses at the moment, by database; the last one used is the first one taken.
_free: weakref.WeakKeyDictionary[Engine, deque[_Own]] = weakref.WeakKeyDictionary()


def close(at_rest: Engine) -> None:
    """End the connections that nobody uses: when the engine lets go of its own."""
    free = _free.get(at_rest, deque())
    while free:
        free.pop().close()


def written(name: str, values: Sequence[Any]) -> tuple[Any, ...] | None:
    """Run the statement ``store/sql/<name>.sql`` as a transaction; return its row, None without.

    Shapes:  ``values`` are those of ``$1``, ``$2``, ... in it.
    Raises:  NotTried when nothing was done and the rules shall decide: the database is away or
             busy, or something else came in between; OutcomeUnknown when the statement was sent
             and its answer did not come.
    """
    own = _taken()
    try:
        return committed_by_itself(own.connection, lambda: _row(own, name, values))
    except psycopg.Error as error:
        raise NotTried from error
    finally:
        own.give_back()


def read(name: str, values: Sequence[Any]) -> tuple[Any, ...] | None:
    """Run a statement that writes nothing; return its row, None without.

    Raises:  NotTried when the database is away.
    """
    for is_last in (False, True):
        own = _taken()
        try:
            return _row(own, name, values)
        except psycopg.Error as error:
            # A connection may end the moment it is used, and the next one may be good.
            if is_last or not own.connection.closed:
                raise NotTried from error
        finally:
            own.give_back()
    raise AssertionError("the last attempt returns or raises")


def _row(own: _Own, name: str, values: Sequence[Any]) -> tuple[Any, ...] | None:
    return own.row_of(name, values)


def _taken() -> _Own:
    """Return a connection that nobody uses and that lives, a new one if there is none.

    Raises:  NotTried if none can be made.
    """
    at_work = engine()
    free = _free.get(at_work)
    if free is None:
        free = _free.setdefault(at_work, deque())
        event.listen(at_work, "engine_disposed", close)
    while free:
        try:
            own = free.pop()
        except IndexError:  # another thread was faster
            break
        if own.is_alive():
            return own
        own.close()
    try:
        return _Own(at_work, free)
    except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError) as error:
        raise NotTried from error
