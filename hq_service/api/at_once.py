"""Requests that are tried in one statement first, before Flask sees them.

Checked by hand and answered without a schema, and without what a framework does for every request:
that costs as much as the statement. Whatever is not exactly as most requests are goes the way of
all others: through Flask and the schemas, which say what is wrong with it, and the rules. The
answers of both ways are equal, byte for byte.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import orjson
from flask import Flask

from hq_service import observability
from hq_service.api.bodies import JSON
from hq_service.api.headers import bearer_of
from hq_service.api.problems import CONTENT_TYPE as PROBLEM
from hq_service.api.problems import document_of
from hq_service.domain.actors import Actor, Presented
from hq_service.domain.errors import Refused
from hq_service.domain.keyring import Keyring
from hq_service.domain.reading import is_identifier
from hq_service.operations import keys
from hq_service.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SMALL_BYTES_MAX = 1_024
FAILED = "hq_service.failed"
"""In the environment of a request that failed here: the error that Flask shall tell."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE


class Answer(NamedTuple):
    """What is answered, and to whom."""

    status: int
    members: Mapping[str, Any]
    actor: Actor


class Refusal(NamedTuple):
    """How somebody is refused."""

    error: Refused
    actor: Actor


Body = Mapping[str, Any]
Check = Callable[[Any], bool]
Try = Callable[[Body, Presented, Keyring], Answer | Refusal | None]
Work = Callable[[Callable[[], "Answer | Refusal | None"]], "Answer | Refusal | None"]
View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is tried with bodies that have exactly these members."""

    carry_out: Try
    checks: Mapping[str, Check]


def first_try(carry_out: Try, **checks: Check) -> Callable[[View], View]:
    """Let the requests of a view be tried at once: ``carry_out`` gets a body that has exactly these
    members. It returns the answer, or None, and then the view is called as if nothing had been.
    """

    def mark(view: View) -> View:
        view.attempt = Attempt(carry_out, checks)  # type: ignore[attr-defined]
        return view

    return mark


class AtOnce:
    """The application as the server calls it: tries at once what can be, and leaves to Flask
    whatever else comes.
    """

    def __init__(self, app: Flask, settings: Settings, work: Work) -> None:
        """``work`` calls something at the application's database."""
        self._in_full = app.wsgi_app
        self._work = work
        self._keyring = Keyring(settings.number_secret, settings.grant_keys)
        self._attempts: dict[str, tuple[str, Attempt]] = {
            rule.rule: (rule.endpoint, attempt)
            for rule in app.url_map.iter_rules()
            if "POST" in (rule.methods or ())
            and (attempt := getattr(app.view_functions[rule.endpoint], "attempt", None)) is not None
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        path = environ.get("PATH_INFO", "")
        if environ["REQUEST_METHOD"] != "POST" or path not in self._attempts:
            return self._in_full(environ, start_response)
        started_at = time.perf_counter()
        endpoint, attempt = self._attempts[path]
        try:
            answer = self._tried(attempt, environ)
        except Exception as error:  # noqa: BLE001 - told by Flask, as every other
            environ[FAILED] = error
            answer = None
        if answer is None:
            return self._in_full(environ, start_response)
        request_id = observability.request_id_of(environ.get("HTTP_X_REQUEST_ID", ""))
        headers = observability.headers_of(request_id, environ.get("HTTP_IDEMPOTENCY_KEY"))
        if isinstance(answer, Answer):
            status, outcome = answer.status, "ok"
            content = orjson.dumps(answer.members, option=_OPTIONS)
            headers.append(("Content-Type", JSON))
        else:
            refused = answer.error
            document = document_of(refused.code, refused.detail, refused.members, request_id)
            status, content, outcome = document.status, document.content, refused.code
            headers += [("Content-Type", PROBLEM), *document.headers.items()]
        headers.append(("Content-Length", str(len(content))))
        observability.write_line(
            action=endpoint,
            method="POST",
            route=path,
            request_id=request_id,
            status=status,
            outcome=outcome,
            actor=answer.actor,
            started_at=started_at,
        )
        start_response(_STATUS_LINES[status], headers)
        return (content,)

    def _tried(self, attempt: Attempt, environ: WSGIEnvironment) -> Answer | Refusal | None:
        raw = small_json_body(environ)
        body = _members(raw, attempt.checks) if raw is not None else None
        if body is None:
            return None
        presented = keys.presented(bearer_of(environ.get("HTTP_AUTHORIZATION", "")))
        if presented is None:
            return None
        return self._work(lambda: attempt.carry_out(body, presented, self._keyring))


_STATUS_LINES = {one.value: f"{one.value} {one.phrase.upper()}" for one in HTTPStatus}


def small_json_body(environ: WSGIEnvironment) -> bytes | None:
    """Return the body of a JSON request if it is a small one that says how long it is.

    It is put back, and whoever comes later reads it again.
    """
    length = environ.get("CONTENT_LENGTH", "")
    if (
        environ.get("CONTENT_TYPE") != JSON
        or "HTTP_CONTENT_ENCODING" in environ
        or "HTTP_TRANSFER_ENCODING" in environ
        or environ.get("QUERY_STRING")
        or not length.isdecimal()
        or int(length) > SMALL_BYTES_MAX
    ):
        return None
    try:
        body: bytes = environ["wsgi.input"].read(int(length))
    except Exception:  # noqa: BLE001 - each server has its own for one that breaks off
        return None  # whoever reads on is told again
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _members(raw: bytes, checks: Mapping[str, Check]) -> Body | None:
    """Return the members of a body if they are as they should be."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if type(body) is not dict or body.keys() != checks.keys():
        return None
    texts_count = len(body)
    for name, value in body.items():
        if not checks[name](value):
            return None
        texts_count += type(value) is str
    # A member that came twice has left its quotes; so has whatever is escaped.
    return body if raw.count(b'"') == 2 * texts_count and b"\\" not in raw else None


def is_name(value: Any) -> bool:
    """Tell whether a value is a name as stores, terminals and transactions have."""
    return is_identifier(value)


def is_uuid(value: Any) -> bool:
    """Tell whether a value is a UUID in small letters."""
    return type(value) is str and _UUID.fullmatch(value) is not None


def is_number_up_to(largest: int) -> Check:
    """Return the check for a whole number from 1 to a largest one."""
    return lambda value: type(value) is int and 1 <= value <= largest


def is_text(value: Any) -> bool:
    """Tell whether a value is a text; what it may be is checked by whoever takes it."""
    return type(value) is str


def is_one_of(*values: str) -> Check:
    """Return the check for one of some words."""
    words = frozenset(map(str, values))
    return lambda value: type(value) is str and value in words
