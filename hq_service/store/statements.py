"""The statements of ``store/sql``, one file each, by file name without ending."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import LiteralString


@cache
def statement(name: str) -> LiteralString:
    """Return the SQL of ``store/sql/<name>.sql``; parameters are psycopg's ``%(name)s``."""
    path = resources.files("hq_service.store") / "sql" / f"{name}.sql"
    return path.read_text(encoding="utf-8")
