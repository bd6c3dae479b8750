"""A thin client of the service: one request, one small answer, or one clear sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

CONNECT_SECONDS_MAX = 3
# Longer than the service takes to give up on a busy database, so that its own refusal arrives.
ANSWER_SECONDS_MAX = 15

_THIS_MACHINE = frozenset({"127.0.0.1", "::1", "localhost"})


class Unreachable(Exception):
    """No answer came; the message says so in a sentence. The request may have been applied."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service answered, an error included.

    ``body`` is empty when it is not a JSON object; ``is_replay`` when the service says that it
    told the same before.
    """

    status: int
    body: Mapping[str, Any] = field(default_factory=dict)
    etag: str | None = None
    is_replay: bool = False

    @property
    def is_problem(self) -> bool:
        """Tell whether the service refused."""
        return self.status >= 400

    def at(self, path: str) -> Any:
        """Return a member of the body: ``at("results.0.outcome")``; None if it is not there."""
        found: Any = self.body
        for name in path.split("."):
            if isinstance(found, Mapping):
                found = found.get(name)
            elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
                found = found[int(name)]
            else:
                return None
        return found


class Client:
    """Somebody who calls the service under one API key, or under none.

    Not retried: whether to repeat is for the caller to decide, who knows the business key.
    """

    def __init__(
        self, url: str, key: str | None = None, *, seconds_max: float = ANSWER_SECONDS_MAX
    ) -> None:
        self.url = url.rstrip("/")
        try:
            host = httpx.URL(self.url).host
        except httpx.InvalidURL as error:
            raise Unreachable(f"{url} is not an address: {error}") from error
        self._seconds_max = seconds_max
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(seconds_max, connect=min(CONNECT_SECONDS_MAX, seconds_max)),
            # The proxy to the world outside, if there is one, does not know this machine.
            trust_env=host not in _THIS_MACHINE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str) -> Answer:
        """Read something."""
        return self._send("GET", path)

    def post(self, path: str, body: Mapping[str, Any] | bytes) -> Answer:
        """Post a document. Bytes are sent as they are: a batch is repeated byte for byte."""
        return self._send("POST", path, body if isinstance(body, bytes) else encoded(body))

    def patch(self, path: str, body: Mapping[str, Any], etag: str | None) -> Answer:
        """Change something that was read with this ETag."""
        conditions = {"If-Match": etag} if etag else {}
        return self._send("PATCH", path, encoded(body), conditions)

    def _send(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        more_headers: Mapping[str, str] | None = None,
    ) -> Answer:
        headers = dict(more_headers or {})
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            response = self._http.request(method, self.url + path, content=content, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(self._sentence(error)) from error
        return Answer(
            response.status_code,
            _object_in(response),
            response.headers.get("ETag"),
            response.headers.get("Idempotency-Replayed") == "true",
        )

    def _sentence(self, error: Exception) -> str:
        # The text of other errors may quote a header, and with it the key.
        if isinstance(error, httpx.TimeoutException):
            return f"{self.url} did not answer within {self._seconds_max:g} s."
        if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
            return f"{self.url} is not an address that begins with http:// or https://."
        if isinstance(error, httpx.ConnectError):
            return f"{self.url} cannot be reached: {error}."
        return f"{self.url} broke the connection off ({type(error).__name__})."


def encoded(body: Mapping[str, Any]) -> bytes:
    """Return a document as the bytes to send."""
    return json.dumps(body, separators=(",", ":")).encode()


def _object_in(response: httpx.Response) -> Mapping[str, Any]:
    try:
        document = response.json()
    except ValueError:  # whoever answers there does not speak JSON
        return {}
    return document if isinstance(document, dict) else {}
