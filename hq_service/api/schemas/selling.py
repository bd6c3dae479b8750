"""What terminals and sync jobs send and get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from hq_service.api.schemas import queries
from hq_service.api.schemas.common import (
    BusinessKeySchema,
    InstrumentSchema,
    LineKeySchema,
    QueryInteger,
    StrictInteger,
    StrictSchema,
    StrictText,
    StrictUuid,
    TransactionKeySchema,
    amount_minor,
    currency,
    identifier,
    kind,
    number,
    own_store_id,
    reason,
)
from hq_service.domain.model import Operation, Purpose, TransactionStatus
from hq_service.domain.reading import (
    EXCHANGE_RATE_PATTERN,
    LINE_NUMBER_MAX,
)
from hq_service.operations.transactions import LINES_MAX

PAGE_OWN_LOCKS_MAX = 200


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
    number = number(required=False)
    purpose = StrictText(
        required=True, validate=validate.OneOf([purpose.value for purpose in Purpose])
    )
    amount_minor = amount_minor(required=False)
    currency = currency(required=False)

    @validates_schema
    def members_of_the_purpose(self, data: Mapping[str, Any], **_: Any) -> None:
        """Each purpose has members of its own: an amount for credits, a currency for an issue."""
        purpose = data.get("purpose")
        needed, allowed = _LOCK_MEMBERS.get(str(purpose), (frozenset(), frozenset()))
        faults = {name: [f"Is needed to {purpose}."] for name in needed if name not in data}
        for name in ("number", "amount_minor", "currency"):
            if name in data and name not in allowed:
                faults[name] = [f"Does not belong to a lock to {purpose}."]
        if faults:
            raise ValidationError(faults)


# Purpose -> what it needs, what it may have.
_LOCK_MEMBERS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    Purpose.REDEEM: (frozenset({"number"}), frozenset({"number"})),
    Purpose.CASH_OUT: (frozenset({"number"}), frozenset({"number"})),
    Purpose.LOAD: (frozenset({"number", "amount_minor"}), frozenset({"number", "amount_minor"})),
    Purpose.REFUND: (frozenset({"number", "amount_minor"}), frozenset({"number", "amount_minor"})),
    Purpose.ISSUE: (
        frozenset({"amount_minor", "currency"}),
        frozenset({"number", "amount_minor", "currency"}),
    ),
}


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
    number = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The number that HQ made for an issue; null otherwise."},
    )
    lease = fields.Nested(LeaseSchema, required=True)
    offline = fields.Nested(OfflineSchema, required=True)


class OwnLocksPageSchema(StrictSchema):
    """Which of the terminal's own locks; all of them without a transaction."""

    transaction_id = queries.name()
    after = queries.After(load_default=None)
    limit = QueryInteger(
        load_default=PAGE_OWN_LOCKS_MAX, validate=validate.Range(1, PAGE_OWN_LOCKS_MAX)
    )


class OwnLockSchema(LockSchema, LineKeySchema):
    """A lock that the terminal holds, with the business key that it was taken for."""


class OwnLocksSchema(Schema):
    """One page of the terminal's own locks, the oldest first; ``next_after`` asks for the page
    behind it, null on the last.
    """

    locks = fields.List(fields.Nested(OwnLockSchema), required=True)
    next_after = fields.String(required=True, allow_none=True)


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


class ConcludedLineSchema(Schema):
    """A concluded line; its instrument is unlocked."""

    line = fields.Integer(required=True)
    operation = fields.String(required=True)
    instrument_id = fields.UUID(required=True)
    amount_minor = fields.Integer(required=True)
    currency = fields.String(required=True)
    balance_after_minor = fields.Integer(required=True)
    remainder = fields.Nested(RemainderSchema, allow_none=True)


class RedemptionSchema(ConcludedLineSchema, TransactionKeySchema):
    """A concluded redemption; the instrument is unlocked."""


class OriginalSchema(BusinessKeySchema):
    """The line that a linked refund gives back."""


def _is_above_zero(rate: str) -> None:
    if rate[:1].isdigit() and not rate.strip("0."):
        raise ValidationError("Must be above zero.")


class TenderSchema(StrictSchema):
    """What the till took in another currency; stored as told, never recomputed."""

    amount_minor = amount_minor()
    currency = currency()
    exchange_rate = StrictText(
        required=True,
        validate=[validate.Regexp(rf"^{EXCHANGE_RATE_PATTERN}$"), _is_above_zero],
    )


class SaleLineSchema(StrictSchema):
    """One line of a sale, under a lock that was taken for it."""

    line = StrictInteger(required=True, validate=validate.Range(1, LINE_NUMBER_MAX))
    operation = StrictText(
        required=True, validate=validate.OneOf([purpose.value for purpose in Purpose])
    )
    instrument_id = StrictUuid(required=True)
    lock_id = StrictUuid(required=True)
    amount_minor = amount_minor()
    currency = currency()
    original = fields.Nested(OriginalSchema)
    reason = reason(required=False)
    tender = fields.Nested(TenderSchema)

    @validates_schema
    def refunds_are_linked_or_explained(self, data: Mapping[str, Any], **_: Any) -> None:
        """A refund names its original, or a reason for having none."""
        is_refund = data.get("operation") == Purpose.REFUND
        if "original" in data and not is_refund:
            raise ValidationError("Only a refund has an original.", "original")
        if is_refund and "original" not in data and "reason" not in data:
            raise ValidationError("A refund without an original needs a reason.", "reason")


class SaleSchema(StrictSchema):
    """A sale with its lines, concluded all or none."""

    store_id = own_store_id()
    terminal_id = identifier()
    transaction_id = identifier()
    lines = fields.List(
        fields.Nested(SaleLineSchema), required=True, validate=validate.Length(1, LINES_MAX)
    )


class ConcludedSaleSchema(TransactionKeySchema):
    """A concluded sale."""

    lines = fields.List(fields.Nested(ConcludedLineSchema), required=True)


class KnownLineSchema(Schema):
    """One thing that HQ knows of a line."""

    line = fields.Integer(required=True)
    operation = fields.String(required=True)
    instrument_id = fields.UUID(required=True)
    amount_minor = fields.Integer(required=True)
    currency = fields.String(required=True, allow_none=True)
    outcome = fields.String(required=True, metadata={"enum": ["applied", "voided", "held"]})
    codes = fields.List(fields.String(), required=True)
    funded_minor = fields.Integer(required=True)
    shortfall_minor = fields.Integer(required=True)
    balance_after_minor = fields.Integer(required=True, allow_none=True)
    known_at = fields.AwareDateTime(required=True)


class KnownTransactionSchema(Schema):
    """What HQ knows of a transaction; a line may have more than one entry."""

    lines = fields.List(fields.Nested(KnownLineSchema), required=True)


class VoidRequestSchema(BusinessKeySchema):
    """That a business key shall have no effect."""

    instrument_id = StrictUuid(required=True)
    reason = reason()


class VoidSchema(LineKeySchema):
    """A voided line: what was given back or taken, if it had had an effect."""

    instrument_id = fields.UUID(required=True)
    outcome = fields.String(required=True)
    codes = fields.List(fields.String(), required=True)
    funded_minor = fields.Integer(required=True)
    shortfall_minor = fields.Integer(required=True)
    balance_after_minor = fields.Integer(required=True, allow_none=True)
    case_id = fields.UUID(required=True, allow_none=True)


class OfflineLineSchema(StrictSchema):
    """One line of an offline batch. Documentation only: lines are read one by one, so that a bad
    one never stops the others.
    """

    terminal_id = fields.String(required=True)
    journal_id = fields.String(required=True)
    sequence = fields.Integer(required=True)
    transaction_id = fields.String(required=True)
    line = fields.Integer(required=True)
    status = fields.String(metadata={"enum": [one.value for one in TransactionStatus]})
    operation = fields.String(required=True, metadata={"enum": [one.value for one in Operation]})
    instrument_id = fields.UUID()
    kind = fields.String()
    number = fields.String()
    amount_minor = fields.Integer()
    currency = fields.String()
    lock_id = fields.UUID()
    grant = fields.String()
    parameter_revision = fields.Integer()
    original = fields.Nested(OriginalSchema)
    reason = fields.String()
    tender_amount_minor = fields.Integer()
    tender_currency = fields.String()
    exchange_rate = fields.String()
    concluded_at = fields.AwareDateTime(required=True)


class ControlTotalsSchema(StrictSchema):
    """What the sender counted: all lines, and the sum of their amounts by currency."""

    lines_count = fields.Integer(required=True)
    amounts_minor = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)


class OfflineBatchRequestSchema(StrictSchema):
    """An offline batch. As NDJSON the first line has everything but ``lines``."""

    batch_id = fields.String(required=True)
    store_id = fields.String(required=True)
    dry_run = fields.Boolean()
    control_totals = fields.Nested(ControlTotalsSchema)
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


class GapSchema(Schema):
    """Numbers of a journal that have not arrived."""

    first = fields.Integer(required=True)
    last = fields.Integer(required=True)


class JournalSchema(Schema):
    """How far a journal has arrived: the till may purge up to ``acknowledged_through``."""

    terminal_id = fields.String(required=True)
    journal_id = fields.String(required=True)
    acknowledged_through = fields.Integer(required=True)
    gaps = fields.List(fields.Nested(GapSchema), required=True)


class OfflineBatchStateSchema(Schema):
    """How far a batch is settled."""

    store_id = fields.String(required=True)
    batch_id = fields.String(required=True)
    dry_run = fields.Boolean(
        required=True,
        metadata={"description": "True: nothing was kept, these are the results it would have."},
    )
    received_at = fields.AwareDateTime(required=True)
    settled_at = fields.AwareDateTime(required=True, allow_none=True)
    lines_count = fields.Integer(required=True)
    settled_count = fields.Integer(required=True)
    counts = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    journals = fields.List(fields.Nested(JournalSchema), required=True)


class OfflineBatchSchema(OfflineBatchStateSchema):
    """How far a batch is settled, and what its lines came to."""

    results = fields.List(fields.Nested(LineResultSchema), required=True)


class LineResultsSchema(Schema):
    """One page of results; ``next_after`` asks for the page behind it, null on the last."""

    results = fields.List(fields.Nested(LineResultSchema), required=True)
    next_after = fields.Integer(required=True, allow_none=True)
