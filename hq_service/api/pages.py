"""Lists, page by page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
Place = TypeVar("Place")


def one_page(
    found: Sequence[T], limit: int, place_of: Callable[[T], Place]
) -> tuple[Sequence[T], Place | None]:
    """Return what a page tells, and where the next one goes on; None on the last.

    ``found`` has one more than ``limit``, if there is one more: only so the last page is known.
    """
    told = found[:limit]
    return told, place_of(told[-1]) if len(found) > limit else None
