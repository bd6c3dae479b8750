"""The least that can be served: what the HTTP layers below the service cost alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask

_BODY = b'{"hello":"world"}\n'


def bare(
    _environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    """Answer without any framework."""
    start_response(
        "200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(_BODY)))]
    )
    return [_BODY]


flask_hello = Flask(__name__, static_folder=None)


@flask_hello.get("/hello")
def hello() -> dict[str, str]:
    """Answer with Flask's own JSON."""
    return {"hello": "world"}
