"""A private PostgreSQL for development and for tests: no installation, no port, no account.

Production never comes here: it sets DATABASE_URL. Two classes share the same machinery:

    EmbeddedPostgres     the database behind `make run`: durable, shared by every process of this
                         checkout, stopped by whoever uses it last
    ThrowawayPostgres    a database for one test session, gone with the process that made it

Server and clients meet on a unix socket in a directory of mode 0700, so no port can clash and
`trust` authentication lets in nobody but the owner.
"""

from hq_service.embedded_postgres.development import EmbeddedPostgres
from hq_service.embedded_postgres.errors import BinariesNotFoundError, EmbeddedPostgresError
from hq_service.embedded_postgres.throwaway import ThrowawayPostgres

__all__ = [
    "BinariesNotFoundError",
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "ThrowawayPostgres",
]
