"""What administrators send and get about API keys."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from hq_service.api.schemas.common import (
    NamePageSchema,
    StrictInstant,
    StrictInteger,
    StrictSchema,
    StrictText,
    display_name,
    reason,
)
from hq_service.api.schemas.queries import QueryBoolean, name, one_of
from hq_service.domain.actors import Role
from hq_service.domain.reading import IDENTIFIER_PATTERN
from hq_service.operations.keys import OVERLAP_SECONDS_MAX


class ApiKeySchema(Schema):
    """An API key as it may be shown: never its secret."""

    key_id = fields.String(required=True)
    role = fields.String(required=True)
    store_id = fields.String(required=True, allow_none=True)
    terminal_id = fields.String(required=True, allow_none=True)
    label = fields.String(required=True)
    created_at = fields.AwareDateTime(required=True)
    expires_at = fields.AwareDateTime(required=True, allow_none=True)
    revoked_at = fields.AwareDateTime(required=True, allow_none=True)
    replaced_by = fields.String(required=True, allow_none=True)


class MadeApiKeySchema(ApiKeySchema):
    """A key that was just made; ``api_key`` is shown only here."""

    api_key = fields.String(required=True)


class ApiKeysSchema(Schema):
    """One page of keys; ``next_after`` asks for the page behind it, null on the last."""

    keys = fields.List(fields.Nested(ApiKeySchema), required=True)
    next_after = fields.String(required=True, allow_none=True)


class KeyPageSchema(NamePageSchema):
    """Which keys; those that ended only if asked."""

    role = one_of(Role)
    store_id = name()
    with_ended = QueryBoolean(load_default=False)


def scope() -> StrictText:
    """Return a field for the store or terminal that a key is bound to, if its role has one."""
    is_identifier = validate.Regexp(rf"^{IDENTIFIER_PATTERN}$")
    return StrictText(load_default=None, allow_none=True, validate=is_identifier)


class NewApiKeySchema(StrictSchema):
    """A key to create."""

    role = StrictText(required=True, validate=validate.OneOf([str(one) for one in Role]))
    store_id = scope()
    terminal_id = scope()
    label = display_name()
    expires_at = StrictInstant(load_default=None, allow_none=True)
    reason = reason()


class KeyRotationSchema(StrictSchema):
    """That a key is replaced, and how long the old one goes on beside the new one."""

    overlap_seconds = StrictInteger(required=True, validate=validate.Range(0, OVERLAP_SECONDS_MAX))
    expires_at = StrictInstant(load_default=None, allow_none=True)
    reason = reason()
