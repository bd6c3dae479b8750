"""Requests that are tried in one statement first: checked by hand, answered without a schema.

Whatever is not exactly as most requests are goes the way of all others: through the schemas, which
say what is wrong with it, and the rules. The answers of both ways are equal, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import orjson
from flask import Response, g, request

from hq_service.api import auth
from hq_service.api.bodies import small_json_body
from hq_service.domain.actors import Actor, Presented, Role
from hq_service.domain.reading import is_identifier
from hq_service.operations import keys

P = ParamSpec("P")
R = TypeVar("R")

Attempt = Callable[[Mapping[str, Any], Presented], Response | None]

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def first_try(
    attempt: Attempt, **members: Callable[[Any], bool]
) -> Callable[[Callable[P, R]], Callable[P, R | Response]]:
    """Let a view be tried at once: ``attempt`` gets a body that has exactly these members.

    It returns the answer, or None, and then the view is called as if nothing had been.
    """
    names = frozenset(members)

    def decorate(view: Callable[P, R]) -> Callable[P, R | Response]:
        @wraps(view)
        def tried(*arguments: P.args, **keywords: P.kwargs) -> R | Response:
            body = _members(names, members)
            presented = keys.presented(auth.presented_text()) if body is not None else None
            if body is not None and presented is not None:
                answer = attempt(body, presented)
                if answer is not None:
                    return answer
            auth.check()
            return view(*arguments, **keywords)

        tried.is_tried_at_once = True  # type: ignore[attr-defined]
        return tried

    return decorate


def _members(
    names: frozenset[str], checks: Mapping[str, Callable[[Any], bool]]
) -> dict[str, Any] | None:
    """Return the members of the request's body if they are as they should be."""
    raw = small_json_body(request)
    if raw is None:
        return None
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if type(body) is not dict or body.keys() != names:
        return None
    texts_count = len(names) + sum(type(value) is str for value in body.values())
    # A member that came twice has left its quotes; so has whatever is escaped.
    if raw.count(b'"') != 2 * texts_count or b"\\" in raw:
        return None
    return body if all(check(body[name]) for name, check in checks.items()) else None


def is_name(value: Any) -> bool:
    """Tell whether a value is a name as stores, terminals and transactions have."""
    return type(value) is str and is_identifier(value)


def is_uuid(value: Any) -> bool:
    """Tell whether a value is a UUID in small letters."""
    return type(value) is str and _UUID.fullmatch(value) is not None


def is_number_up_to(largest: int) -> Callable[[Any], bool]:
    """Return the check for a whole number from 1 to a largest one."""
    return lambda value: type(value) is int and 1 <= value <= largest


def is_text(value: Any) -> bool:
    """Tell whether a value is a text; what it may be is checked by whoever takes it."""
    return type(value) is str


def is_one_of(*values: str) -> Callable[[Any], bool]:
    """Return the check for one of some words."""
    return lambda value: type(value) is str and value in values


def answer(status: int, members: Mapping[str, Any]) -> Response:
    """Return an answer as the schemas would write it."""
    content = orjson.dumps(members, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
    return Response(content, status, mimetype="application/json")


def note_terminal(presented: Presented, store_id: str, terminal_id: str) -> None:
    """Note for the log that it was a terminal that called, and for itself."""
    note(Actor(Role.TERMINAL, presented.key_id, store_id, terminal_id))


def note(actor: Actor) -> None:
    """Note for the log who called."""
    g.actor = actor
