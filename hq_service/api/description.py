"""What the OpenAPI description tells of every operation, read from the views themselves."""

from __future__ import annotations

from typing import Any

from apispec import BasePlugin
from flask import Flask
from werkzeug.routing import Rule


class OperationsPlugin(BasePlugin):
    """Names every operation by its view, and tells the roles that `auth.allow` lets in."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def operation_helper(
        self,
        path: str | None = None,  # noqa: ARG002 - the form of plugins
        operations: dict[Any, Any] | None = None,
        **given: Any,
    ) -> None:
        """Complete the operations of a rule."""
        rule: Rule = given["rule"]
        view = self._app.view_functions[rule.endpoint]
        for operation in (operations or {}).values():
            operation["operationId"] = view.__name__
            roles = getattr(view, "allowed_roles", None)
            if roles is not None:
                operation["x-roles"] = sorted(roles)
