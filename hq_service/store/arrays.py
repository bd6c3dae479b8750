"""Arrays for PostgreSQL, written as text literals.

The driver adapts a list element by element, at about 2 us each; handing over values is what
dominates a batch otherwise. A JSON array is nearly such a literal, and is written in a fraction.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import orjson

Element = int | str | UUID | datetime | None


def array(values: Iterable[Element]) -> str:
    """Return the literal of an array of one type; None becomes NULL."""
    elements = list(values)
    written = orjson.dumps(elements).decode()
    if "\\" in written:  # what JSON escapes otherwise than a literal
        return "{" + ",".join(map(_escaped, elements)) + "}"
    return "{" + written[1:-1] + "}"


def _escaped(value: Element) -> str:
    if value is None:
        return "NULL"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
