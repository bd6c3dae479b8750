"""One log line per request, as JSON, with everything a search needs and no card number.

The line names the route, never the path, and the codes of an error, never its text.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, g, request

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
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(level: str) -> None:
    """Send every record to standard error as JSON."""
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


def register(app: Flask) -> None:
    """Give every request an id and write its line when it is answered."""

    @app.before_request
    def begin() -> None:
        g.started_at = time.perf_counter()
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.get("request_id", "")
        response.headers["Cache-Control"] = response.headers.get("Cache-Control", "no-store")
        response.headers["X-Content-Type-Options"] = "nosniff"
        key = request.headers.get("Idempotency-Key")
        if key is not None and len(key) <= 255 and key.isascii() and key.isprintable():
            response.headers["Idempotency-Key"] = key
        actor = g.get("actor")
        logger.log(
            level_of(response.status_code),
            "request",
            extra={
                "action": request.endpoint,
                "method": request.method,
                "route": request.url_rule.rule if request.url_rule else None,
                "request_id": g.get("request_id"),
                "status": response.status_code,
                "outcome": g.get("outcome", "ok"),
                "role": actor.role if actor else None,
                "key_id": actor.key_id if actor else None,
                "store_id": actor.store_id if actor else None,
                "terminal_id": actor.terminal_id if actor else None,
                "duration_ms": round((time.perf_counter() - g.started_at) * 1000, 1),
            },
        )
        return response
