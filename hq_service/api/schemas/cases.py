"""What administrators ask for, send and get about cases."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from hq_service.api.schemas.common import (
    QueryInteger,
    StrictInstant,
    StrictSchema,
    StrictText,
    StrictUuid,
    reason,
)
from hq_service.api.schemas.queries import After, name, one_of
from hq_service.domain.money import AMOUNT_MINOR_MAX
from hq_service.domain.outcomes import NOTICED, Code, Outcome
from hq_service.domain.resolving import CaseState, Resolution

PAGE_CASES_MAX = 200


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
    undone_at = fields.AwareDateTime(required=True, allow_none=True)
    possible_resolutions = fields.List(fields.String(), required=True)


class CasesSchema(Schema):
    """One page of cases, the oldest first; ``next_after`` asks for the page behind it, null on
    the last.
    """

    cases = fields.List(fields.Nested(CaseSchema), required=True)
    next_after = fields.String(required=True, allow_none=True)


class CasePageSchema(StrictSchema):
    """Which cases; open ones unless ``state`` says otherwise."""

    store_id = name()
    terminal_id = name()
    outcome = one_of([Outcome.APPLIED, Outcome.HELD, Outcome.QUARANTINED, NOTICED])
    code = one_of(Code)
    state = StrictText(
        load_default=CaseState.OPEN.value,
        validate=validate.OneOf([one.value for one in CaseState]),
    )
    instrument_id = StrictUuid(load_default=None)
    opened_from = StrictInstant(load_default=None)
    opened_before = StrictInstant(load_default=None)
    shortfall_minor_min = QueryInteger(
        load_default=None, validate=validate.Range(1, AMOUNT_MINOR_MAX)
    )
    after = After(load_default=None)
    limit = QueryInteger(load_default=PAGE_CASES_MAX, validate=validate.Range(1, PAGE_CASES_MAX))


class CaseSummaryQuerySchema(StrictSchema):
    """Whose open cases are counted."""

    store_id = name()


class CurrencyCountSchema(Schema):
    """How many cases are open in a currency; null for what could not be read, and for notices."""

    currency = fields.String(required=True, allow_none=True)
    cases_count = fields.Integer(required=True)
    open_minor = fields.Integer(required=True)


class CodeCountSchema(CurrencyCountSchema):
    """How many of them have a code; one with two codes counts under both."""

    code = fields.String(required=True)


class CaseSummarySchema(Schema):
    """What is open, by currency, and by currency and code."""

    by_currency = fields.List(fields.Nested(CurrencyCountSchema), required=True)
    by_code = fields.List(fields.Nested(CodeCountSchema), required=True)


class ResolutionSchema(StrictSchema):
    """How a case is resolved, and why."""

    resolution = StrictText(
        required=True, validate=validate.OneOf([one.value for one in Resolution])
    )
    reason = reason()
