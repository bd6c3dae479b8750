"""What terminals and sync jobs send and get."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from hq_service.api.schemas.common import (
    BusinessKeySchema,
    InstrumentSchema,
    StrictSchema,
    StrictText,
    StrictUuid,
    amount_minor,
    currency,
    kind,
    number,
)
from hq_service.domain.model import Purpose


class BalanceInquirySchema(StrictSchema):
    """A question for a balance."""

    kind = kind()
    number = number()


class BalanceSchema(InstrumentSchema):
    """A balance, true at ``as_of`` and for information only."""

    is_locked = fields.Boolean(required=True)
    as_of = fields.AwareDateTime(required=True)


class LockRequestSchema(BusinessKeySchema):
    """A wish to lock an instrument for one line of a transaction."""

    kind = kind()
    number = number()
    purpose = StrictText(required=True, validate=validate.OneOf([Purpose.REDEEM.value]))


class LeaseSchema(Schema):
    """Until when the terminal counts as present without being heard of again."""

    ends_at = fields.AwareDateTime(required=True)
    seconds = fields.Integer(required=True)


class OfflineSchema(Schema):
    """Whether the sale may be concluded offline, and the grant that proves it."""

    allowed = fields.Boolean(required=True)
    grant = fields.String(required=True, allow_none=True)
    until = fields.AwareDateTime(required=True, allow_none=True)


class LockSchema(Schema):
    """A lock that the terminal holds."""

    lock_id = fields.UUID(required=True)
    locked_at = fields.AwareDateTime(required=True)
    purpose = fields.String(required=True)
    max_amount_minor = fields.Integer(required=True)
    instrument = fields.Nested(InstrumentSchema, required=True)
    lease = fields.Nested(LeaseSchema, required=True)
    offline = fields.Nested(OfflineSchema, required=True)


class ReleaseRequestSchema(BusinessKeySchema):
    """A lock given back unused."""

    instrument_id = StrictUuid(required=True)
    lock_id = StrictUuid(required=True)


class ReleaseSchema(Schema):
    """A released lock."""

    lock_id = fields.UUID(required=True)
    status = fields.String(required=True)


class RedemptionRequestSchema(BusinessKeySchema):
    """The conclusion of a redemption, under a lock."""

    instrument_id = StrictUuid(required=True)
    lock_id = StrictUuid(required=True)
    amount_minor = amount_minor()
    currency = currency()


class RemainderSchema(Schema):
    """The credit memo that carries what is left of a used one."""

    instrument_id = fields.UUID(required=True)
    number = fields.String(required=True)


class RedemptionSchema(Schema):
    """A concluded redemption; the instrument is unlocked."""

    store_id = fields.String(required=True)
    terminal_id = fields.String(required=True)
    transaction_id = fields.String(required=True)
    line = fields.Integer(required=True)
    operation = fields.String(required=True)
    instrument_id = fields.UUID(required=True)
    amount_minor = fields.Integer(required=True)
    currency = fields.String(required=True)
    balance_after_minor = fields.Integer(required=True)
    remainder = fields.Nested(RemainderSchema, allow_none=True)


class OfflineLineSchema(Schema):
    """One line of an offline batch. Documentation only: lines are read one by one, so that a bad
    one never stops the others.
    """

    terminal_id = fields.String(required=True)
    journal_id = fields.String(required=True)
    sequence = fields.Integer(required=True)
    transaction_id = fields.String(required=True)
    line = fields.Integer(required=True)
    status = fields.String(metadata={"enum": ["concluded", "suspended", "training"]})
    operation = fields.String(required=True, metadata={"enum": ["redeem", "release"]})
    instrument_id = fields.UUID()
    kind = fields.String()
    number = fields.String()
    amount_minor = fields.Integer()
    currency = fields.String()
    lock_id = fields.UUID()
    grant = fields.String()
    parameter_revision = fields.Integer()
    concluded_at = fields.AwareDateTime(required=True)


class OfflineBatchRequestSchema(Schema):
    """An offline batch."""

    batch_id = fields.String(required=True)
    store_id = fields.String(required=True)
    lines = fields.List(fields.Nested(OfflineLineSchema), required=True)


class LineResultSchema(Schema):
    """What became of one line, in the sender's order."""

    position = fields.Integer(required=True)
    terminal_id = fields.String(required=True, allow_none=True)
    transaction_id = fields.String(required=True, allow_none=True)
    line = fields.Integer(required=True, allow_none=True)
    instrument_id = fields.UUID(required=True, allow_none=True)
    outcome = fields.String(required=True)
    original_outcome = fields.String(required=True, allow_none=True)
    codes = fields.List(fields.String(), required=True)
    funded_minor = fields.Integer(required=True)
    shortfall_minor = fields.Integer(required=True)
    balance_after_minor = fields.Integer(required=True, allow_none=True)
    case_id = fields.UUID(required=True, allow_none=True)
    remainder_id = fields.UUID(required=True, allow_none=True)
    reason = fields.String(required=True, allow_none=True)


class OfflineBatchStateSchema(Schema):
    """How far a batch is settled."""

    store_id = fields.String(required=True)
    batch_id = fields.String(required=True)
    received_at = fields.AwareDateTime(required=True)
    settled_at = fields.AwareDateTime(required=True, allow_none=True)
    lines_count = fields.Integer(required=True)
    settled_count = fields.Integer(required=True)
    counts = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)


class OfflineBatchSchema(OfflineBatchStateSchema):
    """How far a batch is settled, and what its lines came to."""

    results = fields.List(fields.Nested(LineResultSchema), required=True)


class LineResultsSchema(Schema):
    """One page of results; ``next_after`` asks for the page behind it, null on the last."""

    results = fields.List(fields.Nested(LineResultSchema), required=True)
    next_after = fields.Integer(required=True, allow_none=True)
