"""What queries of lists are made of: text that stands for something else, and nothing but that."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from marshmallow import ValidationError, fields, validate

from hq_service.api.schemas.common import StrictText
from hq_service.domain.reading import IDENTIFIER_PATTERN

_BOOLEANS = {"true": True, "false": False}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# 24 bytes, an instant and an id, fill 32 characters exactly: each place is written in one way.
_AFTER = re.compile(r"[A-Za-z0-9_-]{32}")


class QueryBoolean(fields.Boolean):
    """A yes or no of a query: true or false, and no other word for them."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        found = _BOOLEANS.get(value) if isinstance(value, str) else None
        if found is None:
            raise ValidationError("Must be true or false.")
        return found


class After(fields.String):
    """Where the page before ended: an instant and an id, opaque to callers.

    Not a number of rows: what comes and goes in between moves nothing.
    """

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(value, str) or not _AFTER.fullmatch(value):
            raise ValidationError("Must be the next_after of a page.")
        place = base64.urlsafe_b64decode(value)
        try:
            at = _EPOCH + int.from_bytes(place[:8]) * _MICROSECOND
        except OverflowError:
            raise ValidationError("Must be the next_after of a page.") from None
        return at, UUID(bytes=place[8:])


def after_text(place: tuple[datetime, UUID] | None) -> str | None:
    """Return a place as `After` reads it; None, the end, stays None."""
    if place is None:
        return None
    at, identity = place
    microseconds = (at - _EPOCH) // _MICROSECOND
    return base64.urlsafe_b64encode(microseconds.to_bytes(8) + identity.bytes).decode("ascii")


def name() -> StrictText:
    """Return a field for the name of a store, terminal or anything else that a client named."""
    return StrictText(load_default=None, validate=validate.Regexp(rf"^{IDENTIFIER_PATTERN}$"))


def one_of(choices: Any) -> StrictText:
    """Return a field for one word of a closed list; all of them are meant where it is missing."""
    return StrictText(load_default=None, validate=validate.OneOf([str(one) for one in choices]))
