"""A thin client of the service: one request, one small answer, or one clear sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

CONNECT_SECONDS_MAX = 3
# Longer than the service takes to give up on a busy database, so that its own refusal arrives.
ANSWER_SECONDS_MAX = 15

NOT_MODIFIED = 304
# Too slow, or too many at once.
_TRANSIENT_REFUSALS = frozenset({408, 429})
_MAX_AGE = re.compile(r"(?:^|[ ,])max-age=(\d{1,9})")

_THIS_MACHINE = frozenset({"127.0.0.1", "::1", "localhost"})


class Unreachable(Exception):
    """No answer came that decides anything; the message says so in a sentence.

    The request may have been applied. ``retry_after_seconds`` if HQ says when to repeat it.
    """

    def __init__(self, sentence: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(sentence)
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service answered, an error included.

    ``body`` is empty when it is not a JSON object, ``content`` are the bytes that came;
    ``is_replay`` when the service says that it told the same before. ``retry_after_seconds`` and
    ``max_age_seconds`` are what the headers Retry-After and Cache-Control say, None where they say
    nothing; ``seconds`` is how long the answer took.
    """

    status: int
    body: Mapping[str, Any] = field(default_factory=dict)
    etag: str | None = None
    is_replay: bool = False
    content: bytes = field(default=b"", repr=False)
    retry_after_seconds: int | None = None
    max_age_seconds: int | None = None
    seconds: float = 0.0

    @property
    def is_problem(self) -> bool:
        """Tell whether the service refused."""
        return self.status >= 400

    @property
    def is_transient(self) -> bool:
        """Tell whether the same request may be answered otherwise later: try again, or offline."""
        return self.status >= 500 or self.status in _TRANSIENT_REFUSALS

    @property
    def is_from_hq(self) -> bool:
        """Tell whether HQ itself answered: a router's page of welcome is no answer to a till."""
        if self.status == NOT_MODIFIED:
            return True
        return "code" in self.body if self.is_problem else bool(self.body)

    @property
    def sentence(self) -> str:
        """Return what a problem says, for a person: what it is, and what to do."""
        title, detail = self.at("title"), self.at("detail")
        if not title:
            return f"The service answered {self.status} and no more."
        return f"{title} ({self.at('code')}). {detail or ''}".rstrip()

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

    def wait_at_most(self, seconds: float) -> None:
        """Give up on requests that take longer than this, from the next one on."""
        if seconds != self._seconds_max:
            self._seconds_max = seconds
            self._http.timeout = httpx.Timeout(seconds, connect=min(CONNECT_SECONDS_MAX, seconds))

    def final(self, answer: Answer) -> Answer:
        """Return an answer, a refusal as well, if HQ itself gave it and would give it again.

        Raises:  Unreachable for any other, which a till takes for none.
        """
        if not answer.is_from_hq:
            raise Unreachable(f"Something else than HQ answered at {self.url} ({answer.status}).")
        if answer.is_transient:
            raise Unreachable(answer.sentence, answer.retry_after_seconds)
        return answer

    def get(self, path: str, *, etag: str | None = None) -> Answer:
        """Read something; with the ETag of a copy it is 304 if nothing has changed."""
        return self._send("GET", path, None, {"If-None-Match": etag} if etag else {})

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
            response.content,
            _whole_number(response.headers.get("Retry-After")),
            _max_age(response.headers.get("Cache-Control")),
            response.elapsed.total_seconds(),
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


def _whole_number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else None


def _max_age(text: str | None) -> int | None:
    found = _MAX_AGE.search(text or "")
    return int(found[1]) if found else None
