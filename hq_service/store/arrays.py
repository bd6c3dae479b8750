"""Arrays for PostgreSQL, written as text literals.

The driver adapts a list element by element, at about 2 us each; a literal costs a fraction, and
handing over values is what dominates a batch otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID


def plain_array(values: Iterable[int | UUID | bool | None]) -> str:
    """Return the literal of an array whose elements need no quotes; None becomes NULL."""
    return "{" + ",".join("NULL" if one is None else str(one) for one in values) + "}"


def instant_array(values: Iterable[datetime | None]) -> str:
    """Return the literal of a timestamptz array."""
    return "{" + ",".join("NULL" if one is None else one.isoformat() for one in values) + "}"


def text_array(values: Iterable[str | None]) -> str:
    """Return the literal of a text array, every element quoted and escaped."""
    return "{" + ",".join("NULL" if one is None else _quoted(one) for one in values) + "}"


def _quoted(value: str) -> str:
    if "\\" in value or '"' in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'
