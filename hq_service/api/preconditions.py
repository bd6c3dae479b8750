"""Edits say which state they edit: If-Match with the version that the editor saw."""

from __future__ import annotations

import re
from collections.abc import Callable

from flask import request

_VERSION = re.compile(r"0|[1-9][0-9]{0,8}")
NEVER = -1


def seen_version(current: Callable[[], int]) -> int | None:
    """Return the version that If-Match names, None without one; an ETag that was never ours
    matches none. ``current`` is asked for what ``*`` stands for, whatever there is, and for which
    of several tags it is: any of them matches.

    Source: RFC 9110, section 13.1.1.
    """
    if request.if_match.star_tag:
        return current()
    if not request.if_match:
        return None
    # An empty tag comes as None.
    tags = [tag for tag in request.if_match.as_set() if tag and _VERSION.fullmatch(tag)]
    versions = {int(tag) for tag in tags}
    if len(versions) > 1:
        there = current()
        return there if there in versions else NEVER
    return versions.pop() if versions else NEVER


def etag(version: int | str) -> dict[str, str]:
    """Return the header that carries a version."""
    return {"ETag": f'"{version}"'}
