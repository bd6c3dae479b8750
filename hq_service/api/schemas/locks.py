"""What administrators ask for, send and get about live locks."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from hq_service.api.schemas.common import (
    InstrumentSchema,
    LineKeySchema,
    QueryInteger,
    StrictInstant,
    StrictInteger,
    StrictSchema,
    StrictUuid,
    reason,
)
from hq_service.api.schemas.queries import After, QueryBoolean, name, one_of
from hq_service.domain.locking import LockState
from hq_service.domain.model import Kind, LockEnd
from hq_service.domain.money import AMOUNT_MINOR_MAX

PAGE_LOCKS_MAX = 200


class LockPageSchema(StrictSchema):
    """Which live locks."""

    store_id = name()
    terminal_id = name()
    kind = one_of(Kind)
    state = one_of(LockState)
    is_granted = QueryBoolean(load_default=None)
    locked_before = StrictInstant(load_default=None)
    after = After(load_default=None)
    limit = QueryInteger(load_default=PAGE_LOCKS_MAX, validate=validate.Range(1, PAGE_LOCKS_MAX))


class HeldLockSchema(LineKeySchema):
    """A live lock, with what breaking it can cost."""

    lock_id = fields.UUID(required=True)
    purpose = fields.String(required=True)
    state = fields.String(required=True, metadata={"enum": [one.value for one in LockState]})
    locked_at = fields.AwareDateTime(required=True)
    lease_ends_at = fields.AwareDateTime(required=True)
    grant_until = fields.AwareDateTime(required=True, allow_none=True)
    holder_last_seen_at = fields.AwareDateTime(required=True, allow_none=True)
    exposure_minor = fields.Integer(required=True)
    instrument = fields.Nested(InstrumentSchema, required=True)


class BrokenLockSchema(HeldLockSchema):
    """A lock that was just broken; all but the state is as it was then."""

    state = fields.String(required=True, metadata={"enum": [LockEnd.BROKEN.value]})


class LockBreakSchema(StrictSchema):
    """A lock to break; the exposure is the one that was shown."""

    instrument_id = StrictUuid(required=True)
    lock_id = StrictUuid(required=True)
    accepted_exposure_minor = StrictInteger(
        required=True, validate=validate.Range(0, AMOUNT_MINOR_MAX)
    )
    reason = reason()


class HeldLocksSchema(Schema):
    """One page of live locks; ``next_after`` asks for the page behind it, null on the last.

    Where a state was asked for, a page may have fewer than asked, or none, and still not be the
    last.
    """

    locks = fields.List(fields.Nested(HeldLockSchema), required=True)
    next_after = fields.String(required=True, allow_none=True)
