"""One log line per request, as JSON, with everything a search needs and no card number.

The line names the route, never the path, and the codes of an error, never its text.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from datetime import UTC, datetime
from typing import Any

import orjson
from flask import Flask, Response, g, request

from hq_service.domain.actors import Actor

logger = logging.getLogger("hq_service.request")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON, its extra members included."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        # A request brings its members together; to look for them takes its time.
        line |= getattr(record, "members", None) or {
            name: value for name, value in vars(record).items() if name not in _STANDARD
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        text = orjson.dumps(line, default=str).decode()
        # Whatever reads the log need not know UTF-8.
        return text if text.isascii() else json.dumps(line, default=str)


def configure_logging(level: str) -> None:
    """Send every record to standard error as JSON."""
    # No line tells the thread or the caller, and each record looks them up.
    logging.logThreads = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 - as its how-to says
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def level_of(status: int) -> int:
    """Return how loud a request's line is: what the service could not do is to be seen."""
    if status >= 500:
        return logging.ERROR if status == 500 else logging.WARNING
    return logging.INFO


def request_id_of(given: str) -> str:
    """Return the id of a request: the one that its sender gave it, or a new one."""
    return given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()


def headers_of(request_id: str, idempotency_key: str | None) -> list[tuple[str, str]]:
    """Return the headers that every answer has, whatever it is.

    ``idempotency_key`` is told again as it came: the business key is what counts.
    """
    headers = [
        ("X-Request-Id", request_id),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    key = idempotency_key
    if key is not None and len(key) <= 255 and key.isascii() and key.isprintable():
        headers.append(("Idempotency-Key", key))
    return headers


def write_line(
    *,
    action: str | None,
    method: str,
    route: str | None,
    request_id: str,
    status: int,
    outcome: str,
    actor: Actor | None,
    started_at: float,
) -> None:
    """Write the line of a request that was answered.

    Units:   ``started_at`` as `time.perf_counter` tells it.
    """
    level = level_of(status)
    if not logger.isEnabledFor(level):
        return
    # Made here: a logger would look up who calls it, and copy each member.
    record = logging.LogRecord(logger.name, level, __file__, 0, "request", (), None)
    record.members = {
        "action": action,
        "method": method,
        "route": route,
        "request_id": request_id,
        "status": status,
        "outcome": outcome,
        "role": actor.role if actor else None,
        "key_id": actor.key_id if actor else None,
        "store_id": actor.store_id if actor else None,
        "terminal_id": actor.terminal_id if actor else None,
        "duration_ms": round((time.perf_counter() - started_at) * 1000, 1),
    }
    logger.handle(record)


def register(app: Flask) -> None:
    """Give every request an id and write its line when it is answered."""

    @app.before_request
    def begin() -> None:
        g.started_at = time.perf_counter()
        g.request_id = request_id_of(request.headers.get("X-Request-Id", ""))

    @app.after_request
    def end(response: Response) -> Response:
        for name, value in headers_of(g.request_id, request.headers.get("Idempotency-Key")):
            if name != "Cache-Control" or name not in response.headers:
                response.headers[name] = value
        write_line(
            action=request.endpoint,
            method=request.method,
            route=request.url_rule.rule if request.url_rule else None,
            request_id=g.request_id,
            status=response.status_code,
            outcome=g.get("outcome", "ok"),
            actor=g.get("actor"),
            started_at=g.started_at,
        )
        return response
