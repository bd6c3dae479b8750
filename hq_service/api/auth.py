"""Who calls. Every blueprint authenticates, but for those that say that they are public."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from flask import Blueprint, g, request

from hq_service.api.at_once import FAILED
from hq_service.api.blueprints import check_query
from hq_service.api.headers import bearer_of
from hq_service.domain.actors import Actor, Role
from hq_service.domain.errors import Forbidden, Unauthenticated
from hq_service.operations import keys
from hq_service.operations.clock import now

P = ParamSpec("P")
R = TypeVar("R")


def authenticate() -> None:
    """Find out whom the request's API key stands for; refuse one that stands for nobody."""
    text = bearer_of(request.headers.get("Authorization", ""))
    # Who presents nothing is told so, whether or not the database is there.
    actor = keys.actor_of(text, now()) if text else None
    if actor is None:
        raise Unauthenticated()
    g.actor = actor


def protect(blueprint: Blueprint) -> None:
    """Let every route of a blueprint authenticate first, then check its query."""
    blueprint.before_request(check)


def check() -> None:
    """Authenticate the request, and check its query.

    Raises:  also what went wrong when the request was tried at once.
    """
    failed = request.environ.get(FAILED)
    if failed is not None:
        raise failed
    authenticate()
    check_query()


def allow(*roles: Role) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Refuse callers of any other role. Declared on every route; a test says so."""

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guarded(*arguments: P.args, **keywords: P.kwargs) -> R:
            if current_actor().role not in roles:
                raise Forbidden()
            return view(*arguments, **keywords)

        guarded.allowed_roles = frozenset(roles)  # type: ignore[attr-defined]
        return guarded

    return decorate


def current_actor() -> Actor:
    """Return the caller of the current request."""
    actor: Any = g.actor
    assert isinstance(actor, Actor)
    return actor
