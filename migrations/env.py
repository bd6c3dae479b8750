"""Run the migrations on one connection, one after the other, one transaction each."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import create_engine, pool, text

from hq_service.settings import database_url_from
from hq_service.store.tables import Base

# Two replicas that migrate at the same moment: the second waits and finds nothing to do.
MIGRATION_LOCK = 0x48514D49


def run() -> None:
    """Migrate the database that the caller or DATABASE_URL names."""
    url = context.config.attributes.get("database_url") or database_url_from(os.environ)
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.connect() as connection:
        # The role has time-outs for requests; an index on millions of rows takes longer.
        for setting in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(text(f"SET {setting} = 0"))
        # Waits without a limit for another migration to end; only then is patience bounded.
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        connection.execute(text("SET lock_timeout = '4s'"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            transaction_per_migration=True,
            compare_type=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
