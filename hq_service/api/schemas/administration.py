"""What administrators send and get, and the parameters that tills read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from hq_service.api.schemas.common import (
    InstrumentSchema,
    StrictSchema,
    amount_minor,
    currency,
    identifier,
    kind,
    number,
    reason,
)

_PLAIN_NAME = re.compile(r"[a-z][a-z_]{0,63}")


class ParametersSchema(Schema):
    """The Commerce parameters at a revision."""

    revision = fields.Integer(required=True)
    parameters = fields.Dict(keys=fields.String(), values=fields.Raw(), required=True)


def _have_plain_names(parameters: Mapping[str, Any]) -> None:
    """Refuse what cannot be a parameter's name; whether it is one, the domain knows."""
    wrong = [name for name in parameters if not _PLAIN_NAME.fullmatch(name)]
    if wrong:
        raise ValidationError({name: ["Is not the name of a parameter."] for name in wrong})


class ParametersEditSchema(StrictSchema):
    """A change of some parameters, with the reason for it."""

    parameters = fields.Dict(
        keys=fields.String(),
        values=fields.Raw(allow_none=True),  # what each may be, the domain knows
        required=True,
        validate=[validate.Length(min=1), _have_plain_names],
    )
    reason = reason()


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
