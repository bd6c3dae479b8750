"""What can go wrong at the edge, as a tree.

HqError
|- Refused                a rule said no; nothing was written
|- InvalidRequest         the request does not fit its schema
|- MalformedBody          the body could not be read at all
|- Unauthenticated        no valid API key
|- Forbidden              the key's role or terminal may not do this
|- NotFound               no such thing, or none that this key may see
|- PreconditionRequired   an edit without If-Match
|- PreconditionFailed     an edit of something that changed meanwhile
|- TooLarge               above a documented limit
|- Unavailable            the database is away or too busy; certainly not applied
'- OutcomeUnknown         the commit was sent and its answer did not come
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class HqError(Exception):
    """Something that a caller must be told about, with a stable code.

    ``code`` is a row of ``hq_service/api/problems.py`` and of ``docs/problems.md``; ``members``
    become members of the problem document. Neither ever holds a card number.
    """

    code = "internal_error"

    def __init__(
        self, detail: str | None = None, *, code: str | None = None, **members: Any
    ) -> None:
        super().__init__(detail or code or self.code)
        self.detail = detail
        self.code = code or self.code
        self.members: Mapping[str, Any] = members


class Refused(HqError):
    """A rule said no; nothing was written and no business key is occupied."""

    code = "refused"


class InvalidRequest(HqError):
    """The request does not fit its schema; ``errors`` point at each fault."""

    code = "validation_failed"


class MalformedBody(HqError):
    """The body is not what its content type promises."""

    code = "malformed_body"


class Unauthenticated(HqError):
    """No API key, or not a valid one."""

    code = "unauthenticated"


class Forbidden(HqError):
    """The key is valid, but its role, store or terminal may not do this."""

    code = "forbidden"


class NotFound(HqError):
    """No such thing, or none that this key may know of."""

    code = "not_found"


class PreconditionRequired(HqError):
    """An edit must say which state it edits."""

    code = "precondition_required"


class PreconditionFailed(HqError):
    """The thing changed since the caller read it."""

    code = "precondition_failed"


class TooLarge(HqError):
    """More than a documented limit."""

    code = "payload_too_large"


class Unavailable(HqError):
    """The database is away or too busy; the operation was not applied by this request.

    An earlier request with the same business key may still have been, so a caller repeats with
    the same key.
    """

    code = "unavailable"


class OutcomeUnknown(HqError):
    """The commit was sent and its answer did not come: applied or not, nobody knows yet."""

    code = "outcome_unknown"
