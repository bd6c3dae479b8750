# What this project uses of flask-smorest, which ships no types.
from collections.abc import Callable
from typing import Any, TypeVar

import flask
from apispec import APISpec

F = TypeVar("F", bound=Callable[..., Any])
View = Callable[..., Any]

class Api:
    DEFAULT_ERROR_RESPONSE_NAME: str
    ERROR_SCHEMA: Any
    spec: APISpec
    def __init__(
        self, app: flask.Flask | None = ..., *, spec_kwargs: dict[str, Any] | None = ...
    ) -> None: ...
    def register_blueprint(self, blueprint: flask.Blueprint) -> None: ...

class Blueprint(flask.Blueprint):
    ARGUMENTS_PARSER: Any
    def __init__(self, name: str, import_name: str, *, description: str = ...) -> None: ...
    def arguments(
        self, schema: Any, *, location: str = ..., **keywords: Any
    ) -> Callable[[View], View]: ...
    def response(
        self, status_code: int, schema: Any = ..., **keywords: Any
    ) -> Callable[[View], View]: ...
    def alt_response(
        self,
        status_code: int,
        *,
        schema: Any = ...,
        description: str = ...,
        headers: Any = ...,
    ) -> Callable[[F], F]: ...
    def doc(self, **keywords: Any) -> Callable[[F], F]: ...
