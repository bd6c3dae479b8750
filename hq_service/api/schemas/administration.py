"""What administrators send and get."""

from __future__ import annotations

from marshmallow import Schema, fields

from hq_service.api.schemas.common import (
    InstrumentSchema,
    StrictSchema,
    amount_minor,
    currency,
    identifier,
    kind,
    number,
)


class IssueRequestSchema(StrictSchema):
    """An instrument that an administrator issues."""

    reference = identifier(
        metadata={"description": "The caller's own name for this issue; repeat it to retry."}
    )
    kind = kind()
    number = number(required=False)
    currency = currency()
    amount_minor = amount_minor()


class IssuedSchema(Schema):
    """An issued instrument; ``number`` only when HQ made it."""

    reference = fields.String(required=True)
    instrument = fields.Nested(InstrumentSchema, required=True)
    number = fields.String(required=True, allow_none=True)


class AliveSchema(Schema):
    """That the process is there."""

    status = fields.String(required=True)


class ReadySchema(Schema):
    """Whether the service can take requests, and what it checked."""

    status = fields.String(required=True)
    checks = fields.Dict(keys=fields.String(), values=fields.String(), required=True)


class ProblemKindSchema(Schema):
    """A kind of problem: what it means and what to do about it."""

    code = fields.String(required=True)
    status = fields.Integer(required=True)
    title = fields.String(required=True)
    remedy = fields.String(required=True)
    retryable = fields.Boolean(required=True)
