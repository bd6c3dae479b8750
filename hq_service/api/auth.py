"""Who calls. Every blueprint authenticates, but for those that say that they are public."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from flask import Blueprint, current_app, g, request

from hq_service.api.blueprints import check_query
from hq_service.domain.actors import Actor, Role
from hq_service.domain.errors import Forbidden, Unauthenticated
from hq_service.operations import keys
from hq_service.operations.clock import now

P = ParamSpec("P")
R = TypeVar("R")


def authenticate() -> None:
    """Find out whom the request's API key stands for; refuse one that stands for nobody."""
    text = presented_text()
    # Who presents nothing is told so, whether or not the database is there.
    actor = keys.actor_of(text, now()) if text else None
    if actor is None:
        raise Unauthenticated()
    g.actor = actor


def presented_text() -> str:
    """Return what the request presents as its API key, an empty text for nothing."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


def protect(blueprint: Blueprint) -> None:
    """Let every route of a blueprint authenticate first, then check its query; one that is tried
    at once finds out by itself who calls.
    """
    blueprint.before_request(check_unless_tried)


def check_unless_tried() -> None:
    """Check the request, unless its view is tried at once and does so if that fails."""
    view = current_app.view_functions[request.endpoint or ""]
    if request.method != "POST" or not hasattr(view, "is_tried_at_once"):
        check()


def check() -> None:
    """Authenticate the request, and check its query."""
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
