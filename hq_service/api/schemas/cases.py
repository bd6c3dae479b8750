"""What administrators send and get about cases and stuck locks."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from hq_service.api.schemas.common import (
    InstrumentSchema,
    StrictInteger,
    StrictSchema,
    StrictText,
    StrictUuid,
    reason,
)
from hq_service.domain.money import AMOUNT_MINOR_MAX
from hq_service.domain.resolving import Resolution


class CaseSchema(Schema):
    """A case: an open question that settlement left, or how it was resolved."""

    case_id = fields.UUID(required=True)
    outcome = fields.String(required=True)
    codes = fields.List(fields.String(), required=True)
    store_id = fields.String(required=True)
    terminal_id = fields.String(required=True, allow_none=True)
    transaction_id = fields.String(required=True, allow_none=True)
    line = fields.Integer(required=True, allow_none=True)
    operation = fields.String(required=True, allow_none=True)
    instrument_id = fields.UUID(required=True, allow_none=True)
    amount_minor = fields.Integer(required=True, allow_none=True)
    shortfall_minor = fields.Integer(required=True)
    recovered_minor = fields.Integer(required=True)
    currency = fields.String(required=True, allow_none=True)
    batch_id = fields.String(required=True, allow_none=True)
    position = fields.Integer(required=True, allow_none=True)
    detail = fields.String(required=True, allow_none=True)
    opened_at = fields.AwareDateTime(required=True)
    resolution = fields.String(required=True, allow_none=True)
    resolved_at = fields.AwareDateTime(required=True, allow_none=True)
    resolved_by = fields.String(required=True, allow_none=True)
    resolution_reason = fields.String(required=True, allow_none=True)
    possible_resolutions = fields.List(fields.String(), required=True)


class CasesSchema(Schema):
    """One page of open cases; ``next_after`` asks for the page behind it, null on the last."""

    cases = fields.List(fields.Nested(CaseSchema), required=True)
    next_after = fields.UUID(required=True, allow_none=True)


class ResolutionSchema(StrictSchema):
    """How a case is resolved, and why."""

    resolution = StrictText(
        required=True, validate=validate.OneOf([one.value for one in Resolution])
    )
    reason = reason()


class HeldLockSchema(Schema):
    """A live lock, with what breaking it can cost."""

    lock_id = fields.UUID(required=True)
    store_id = fields.String(required=True)
    terminal_id = fields.String(required=True)
    transaction_id = fields.String(required=True)
    line = fields.Integer(required=True)
    purpose = fields.String(required=True)
    state = fields.String(required=True)
    locked_at = fields.AwareDateTime(required=True)
    lease_ends_at = fields.AwareDateTime(required=True)
    grant_until = fields.AwareDateTime(required=True, allow_none=True)
    holder_last_seen_at = fields.AwareDateTime(required=True, allow_none=True)
    exposure_minor = fields.Integer(required=True)
    instrument = fields.Nested(InstrumentSchema, required=True)


class LockBreakSchema(StrictSchema):
    """A lock to break; the exposure is the one that was shown."""

    instrument_id = StrictUuid(required=True)
    lock_id = StrictUuid(required=True)
    accepted_exposure_minor = StrictInteger(
        required=True, validate=validate.Range(0, AMOUNT_MINOR_MAX)
    )
    reason = reason()
