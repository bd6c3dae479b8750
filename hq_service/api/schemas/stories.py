"""The story of a case, as administrators get it."""

from __future__ import annotations

from marshmallow import Schema, fields

from hq_service.api.schemas.cases import CaseSchema
from hq_service.api.schemas.common import InstrumentSchema, LineKeySchema
from hq_service.api.schemas.locks import HeldLockSchema
from hq_service.api.schemas.selling import LineResultSchema, TenderSchema


class ReceivedBatchSchema(Schema):
    """The batch that a case came with."""

    batch_id = fields.String(required=True)
    received_at = fields.AwareDateTime(required=True)
    received_by = fields.String(required=True)
    lines_count = fields.Integer(required=True)
    settled_at = fields.AwareDateTime(required=True, allow_none=True)


class ReceivedLineSchema(LineKeySchema):
    """A line as it was received; of its grant only whether it had one."""

    journal_id = fields.String(required=True, allow_none=True)
    sequence = fields.Integer(required=True, allow_none=True)
    status = fields.String(required=True)
    operation = fields.String(required=True)
    instrument_id = fields.UUID(required=True)
    amount_minor = fields.Integer(required=True)
    currency = fields.String(required=True)
    lock_id = fields.UUID(required=True, allow_none=True)
    has_grant = fields.Boolean(required=True)
    parameter_revision = fields.Integer(required=True, allow_none=True)
    concluded_at = fields.AwareDateTime(required=True, allow_none=True)
    original = fields.Nested(LineKeySchema, required=True, allow_none=True)
    reason = fields.String(required=True, allow_none=True)
    tender = fields.Nested(TenderSchema, required=True, allow_none=True)


class UnreadableLineSchema(Schema):
    """A line that could not be read, whatever may be a card number in it masked."""

    masked_text = fields.String(required=True)
    reason = fields.String(required=True)


class StoryInstrumentSchema(InstrumentSchema):
    """The instrument as it is now; of a used memo, where the rest of it is."""

    remainder_id = fields.UUID(required=True, allow_none=True)


class PreviewPostingSchema(Schema):
    """A balance change that a resolution would make."""

    instrument_id = fields.UUID(required=True)
    entry = fields.String(required=True)
    operation = fields.String(required=True)
    currency = fields.String(required=True)
    amount_minor = fields.Integer(required=True)
    funded_minor = fields.Integer(required=True)
    shortfall_minor = fields.Integer(required=True)
    change_minor = fields.Integer(required=True)
    balance_after_minor = fields.Integer(required=True)


class StoryPostingSchema(LineKeySchema, PreviewPostingSchema):
    """A balance change; ``is_of_case`` for those of the case's own line and of its resolutions."""

    version = fields.Integer(required=True)
    codes = fields.List(fields.String(), required=True)
    posted_at = fields.AwareDateTime(required=True)
    concluded_at = fields.AwareDateTime(required=True, allow_none=True)
    lock_id = fields.UUID(required=True, allow_none=True)
    locked_at = fields.AwareDateTime(required=True, allow_none=True)
    original = fields.Nested(LineKeySchema, required=True, allow_none=True)
    related_instrument_id = fields.UUID(required=True, allow_none=True)
    is_of_case = fields.Boolean(required=True)


class EndedLockSchema(LineKeySchema):
    """A lock that ended otherwise than by a posting, and how."""

    lock_id = fields.UUID(required=True)
    purpose = fields.String(required=True)
    amount_minor = fields.Integer(required=True)
    locked_at = fields.AwareDateTime(required=True)
    grant_until = fields.AwareDateTime(required=True, allow_none=True)
    ended = fields.String(required=True)
    ended_at = fields.AwareDateTime(required=True)
    ended_by = fields.String(required=True)
    reason = fields.String(required=True, allow_none=True)


class StoryVoidSchema(Schema):
    """That the case's business key shall have no effect."""

    instrument_id = fields.UUID(required=True)
    reason = fields.String(required=True)
    voided_at = fields.AwareDateTime(required=True)
    voided_by = fields.String(required=True)


class PreviewSchema(Schema):
    """What a resolution would do at this moment, by the same rules; ``refusal`` says why not."""

    resolution = fields.String(required=True)
    meaning = fields.String(required=True)
    refusal = fields.String(required=True, allow_none=True)
    postings = fields.List(fields.Nested(PreviewPostingSchema), required=True)
    frees_lock = fields.Boolean(required=True)
    open_minor = fields.Integer(required=True)
    resolves = fields.Boolean(required=True)


class CaseStorySchema(CaseSchema):
    """A case with everything that HQ knows around it, true at ``as_of``.

    One of ``received_line`` and ``unreadable_line`` is there for a case about a line of a batch.
    """

    as_of = fields.AwareDateTime(required=True)
    batch = fields.Nested(ReceivedBatchSchema, required=True, allow_none=True)
    received_line = fields.Nested(ReceivedLineSchema, required=True, allow_none=True)
    unreadable_line = fields.Nested(UnreadableLineSchema, required=True, allow_none=True)
    line_result = fields.Nested(LineResultSchema, required=True, allow_none=True)
    instrument = fields.Nested(StoryInstrumentSchema, required=True, allow_none=True)
    live_lock = fields.Nested(HeldLockSchema, required=True, allow_none=True)
    postings = fields.List(fields.Nested(StoryPostingSchema), required=True)
    ended_locks = fields.List(fields.Nested(EndedLockSchema), required=True)
    voids = fields.List(fields.Nested(StoryVoidSchema), required=True)
    other_cases = fields.List(fields.Nested(CaseSchema), required=True)
    previews = fields.List(fields.Nested(PreviewSchema), required=True)
