"""What auditors ask for and get."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from hq_service.api.schemas.common import QueryInteger, StrictInstant, StrictSchema, StrictText
from hq_service.api.schemas.queries import one_of
from hq_service.domain.audit import Action

ENTRIES_MAX = 200
NUMBER_MAX = 2**63 - 1
NAME_LENGTH_MAX = 200
OLDEST, NEWEST = "oldest", "newest"


class AuditPageSchema(StrictSchema):
    """Which audit entries, and in which order."""

    subject = StrictText(load_default=None, validate=validate.Length(1, NAME_LENGTH_MAX))
    action = one_of(Action)
    actor = StrictText(load_default=None, validate=validate.Length(1, NAME_LENGTH_MAX))
    recorded_from = StrictInstant(load_default=None)
    order = StrictText(load_default=OLDEST, validate=validate.OneOf([OLDEST, NEWEST]))
    after = QueryInteger(load_default=None, validate=validate.Range(0, NUMBER_MAX))
    limit = QueryInteger(load_default=ENTRIES_MAX, validate=validate.Range(1, ENTRIES_MAX))


class AuditEntrySchema(Schema):
    """One link of the audit's chain; ``detail`` is null if what is kept is not an object."""

    number = fields.Integer(required=True)
    recorded_at = fields.AwareDateTime(required=True)
    actor = fields.String(required=True)
    action = fields.String(required=True)
    subject = fields.String(required=True)
    detail = fields.Dict(keys=fields.String(), values=fields.Raw(), required=True, allow_none=True)
    hash = fields.String(required=True)


class AuditEntriesSchema(Schema):
    """One page of entries; ``next_after`` asks for the page behind it, null on the last."""

    entries = fields.List(fields.Nested(AuditEntrySchema), required=True)
    next_after = fields.Integer(required=True, allow_none=True)
