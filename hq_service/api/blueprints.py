"""The blueprint that all endpoints use: strict bodies in, problem documents out."""

from __future__ import annotations

from typing import Any

from flask import Request, current_app
from flask_smorest import Blueprint as SmorestBlueprint
from webargs.flaskparser import FlaskParser

from hq_service.api.bodies import read_body
from hq_service.domain.documents import read_json
from hq_service.domain.keyring import Keyring
from hq_service.settings import Settings


class StrictParser(FlaskParser):
    """Reads bodies with the service's own loader and keeps unknown members as faults."""

    DEFAULT_VALIDATION_STATUS = 422

    def load_json(self, req: Request, schema: Any) -> Any:  # noqa: ARG002 - the parser's form
        """Return the JSON body of a request."""
        return read_json(read_body(req, bytes_max=settings().body_bytes_max))


class Blueprint(SmorestBlueprint):
    """A group of endpoints.

    Every one authenticates, unless ``is_public`` says that anybody may call it.
    """

    ARGUMENTS_PARSER = StrictParser()

    def __init__(self, name: str, description: str, *, is_public: bool = False) -> None:
        super().__init__(name, name, description=description)
        self.is_public = is_public


def settings() -> Settings:
    """Return the settings of the running application."""
    found = current_app.config["SETTINGS"]
    assert isinstance(found, Settings)
    return found


def keyring() -> Keyring:
    """Return the secrets of the running application."""
    found = settings()
    return Keyring(found.number_secret, found.grant_keys)
