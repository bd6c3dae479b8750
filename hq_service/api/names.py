"""Names in paths."""

from __future__ import annotations

from hq_service.domain.errors import NotFound
from hq_service.domain.reading import is_identifier


def require_possible(code: str, *names: str) -> None:
    """Refuse names that nothing can have, as not found; the database would fail on a NUL."""
    if not all(is_identifier(name) for name in names):
        raise NotFound(code=code)
