"""Interactive sessions: the psql to use, and how a password gets to it without being seen."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from hq_service.embedded_postgres.errors import EmbeddedPostgresError
from hq_service.embedded_postgres.programs import find_binaries

_SECRET = b"*"


def psql_program(binaries: Path) -> str:
    """Return the psql that belongs to these programs, else the installed one."""
    own = binaries / "psql"
    program = str(own) if own.exists() else shutil.which("psql")
    if program is None:
        raise EmbeddedPostgresError(
            f"{own.parent} holds no psql. Install a PostgreSQL client (Debian, Ubuntu:"
            " apt-get install postgresql-client)."
        )
    return program


def session_on(url: str, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return command and environment of a session on the database of a libpq URL.

    What has a PG* variable travels in it: everybody on the machine can read a command line, and
    nobody but the owner of a process its environment.
    """
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except psycopg.ProgrammingError:
        # From None: the cause would show the URL, with its password.
        raise EmbeddedPostgresError(
            "DATABASE_URL cannot be read by psql. Write it as"
            " postgresql://user:password@host/database, special characters percent-encoded."
        ) from None
    environment = dict(environ)
    rest: dict[str, str] = {}
    for option in pq.Conninfo.get_defaults():
        name = option.keyword.decode()
        if name not in given:
            continue
        if option.envvar is not None:
            environment[option.envvar.decode()] = given[name]
        elif option.dispchar == _SECRET:
            raise EmbeddedPostgresError(
                f"DATABASE_URL holds {name}, which psql would only take on its command line, where"
                " everybody on this machine could read it. Start psql by hand, with the key"
                " unlocked or in a service file (PGSERVICEFILE)."
            )
        else:
            rest[name] = given[name]
    program = shutil.which("psql") or psql_program(find_binaries())
    return [program, *([make_conninfo(**rest)] if rest else [])], environment
