"""The blueprint that all endpoints use: strict bodies in, problem documents out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Request, current_app, request
from flask.sansio.app import App
from flask_smorest import Blueprint as SmorestBlueprint
from webargs.flaskparser import FlaskParser

from hq_service.api.bodies import read_body
from hq_service.domain.errors import InvalidRequest
from hq_service.domain.keyring import Keyring
from hq_service.domain.reading import pointer_to
from hq_service.operations.documents import read_json
from hq_service.settings import Settings

View = Callable[..., Any]


class StrictParser(FlaskParser):
    """Reads bodies with the service's own loader and keeps unknown members as faults."""

    DEFAULT_VALIDATION_STATUS = 422
    # Also of a query: the schema says what becomes of members that it does not know.
    DEFAULT_UNKNOWN_BY_LOCATION = FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION | {"query": None}

    def load_json(self, req: Request, schema: Any) -> Any:  # noqa: ARG002 - the parser's form
        """Return the JSON body of a request."""
        return read_json(read_body(req, bytes_max=settings().body_bytes_max))


class Blueprint(SmorestBlueprint):
    """A group of endpoints.

    Every one authenticates, unless ``is_public`` says that anybody may call it. Those that do know
    no HEAD: a GET may count a try or acknowledge what it answers, and who asks for the headers
    alone has not got that.
    """

    ARGUMENTS_PARSER = StrictParser()

    def __init__(self, name: str, description: str, *, is_public: bool = False) -> None:
        super().__init__(name, name, description=description)
        self.is_public = is_public

    def register(self, app: App, options: dict[str, Any]) -> None:
        """Register the endpoints, and take away the HEAD that comes with every GET."""
        super().register(app, options)
        if self.is_public:
            return
        for rule in app.url_map.iter_rules():
            if rule.methods and rule.endpoint.startswith(f"{self.name}."):
                rule.methods.discard("HEAD")

    def arguments(
        self, schema: Any, *, location: str = "json", **keywords: Any
    ) -> Callable[[View], View]:
        """Let a view take what a schema says from the body or, if it says so, from the query."""
        decorate = super().arguments(schema, location=location, **keywords)

        def mark(view: View) -> View:
            decorated = decorate(view)
            if location == "query":
                decorated.takes_query = True  # type: ignore[attr-defined]
            return decorated

        return mark


def check_query() -> None:
    """Refuse a query that the route would pass over, or a member of it that came twice.

    Who asks for ``?dry_run=true`` of a route that knows no such thing must not get the real thing.
    """
    view = current_app.view_functions[request.endpoint or ""]
    takes_query = getattr(view, "takes_query", False)
    faults = [
        {"pointer": pointer_to(name), "detail": detail}
        for name, values in request.args.lists()
        for detail, is_wrong in (
            ("Unknown field.", not takes_query),
            ("Must be given once.", len(values) > 1),
        )
        if is_wrong
    ]
    if faults:
        raise InvalidRequest(errors=faults)


def settings() -> Settings:
    """Return the settings of the running application."""
    found = current_app.config["SETTINGS"]
    assert isinstance(found, Settings)
    return found


def keyring() -> Keyring:
    """Return the secrets of the running application."""
    found = settings()
    return Keyring(found.number_secret, found.grant_keys)
