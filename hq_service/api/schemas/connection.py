"""What administrators ask for and get about connections, exposure, completeness, cache resets."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from hq_service.api.schemas.common import QueryInteger, StrictSchema, reason
from hq_service.api.schemas.parameters import RegisterPlace
from hq_service.api.schemas.queries import After, QueryBoolean, name, one_of
from hq_service.api.schemas.registers import amounts_minor
from hq_service.domain.completeness import BUSINESS_DATE_MIN, Reason
from hq_service.domain.connection import ConnectionState, SyncStatus, ToldState
from hq_service.operations.clock import now

PAGE_MAX = 200
PAGE_RESETS_MAX = 20

_DAY = timedelta(days=1)


class BusinessDate(fields.Date):
    """A business date of a query: one that has begun somewhere on earth."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> date:
        try:
            found = date.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            found = None
        if found is None or found.isoformat() != value:
            raise ValidationError("Must be a date: 2026-01-31.")
        if not BUSINESS_DATE_MIN <= found <= now().date() + _DAY:
            raise ValidationError("Must be a date from 2000 on that has begun.")
        return found


class ConnectionPageSchema(StrictSchema):
    """Which registers."""

    store_id = name()
    state = one_of(ConnectionState)
    after = RegisterPlace(load_default=None)
    limit = QueryInteger(load_default=PAGE_MAX, validate=validate.Range(1, PAGE_MAX))


class ToldSyncSchema(Schema):
    """A till's last attempt to upload its offline transactions, as it told."""

    at = fields.AwareDateTime(required=True, allow_none=True)
    status = fields.String(required=True, metadata={"enum": [one.value for one in SyncStatus]})
    message = fields.String(required=True, allow_none=True)


class ReportSchema(Schema):
    """What a register told last; HQ received it at ``reported_at``."""

    reported_at = fields.AwareDateTime(required=True)
    sent_at = fields.AwareDateTime(required=True)
    connection_state = fields.String(
        required=True, metadata={"enum": [one.value for one in ToldState]}
    )
    pending_count = fields.Integer(required=True)
    pending_amounts_minor = amounts_minor()
    oldest_pending_at = fields.AwareDateTime(required=True, allow_none=True)
    last_sync = fields.Nested(ToldSyncSchema, required=True)
    offline_profile_version = fields.Integer(required=True, allow_none=True)


class RegisterPlaceSchema(Schema):
    """Which register."""

    store_id = fields.String(required=True)
    terminal_id = fields.String(required=True)
    name = fields.String(required=True)


class RegisterStatusSchema(RegisterPlaceSchema):
    """The connection status of a register; ``report`` is null if it never sent a heartbeat."""

    supports_offline = fields.Boolean(required=True)
    state = fields.String(required=True, metadata={"enum": [one.value for one in ConnectionState]})
    since = fields.AwareDateTime(required=True, allow_none=True)
    last_seen_at = fields.AwareDateTime(required=True, allow_none=True)
    report = fields.Nested(ReportSchema, required=True, allow_none=True)
    live_locks_count = fields.Integer(required=True)
    unspent_grants_count = fields.Integer(required=True)
    exposures_minor = amounts_minor()
    journal_gaps_count = fields.Integer(required=True)
    acknowledged_revision = fields.Integer(required=True, allow_none=True)
    reported_revision = fields.Integer(required=True, allow_none=True)


class ConnectionStatusSchema(Schema):
    """One page of registers; ``next_after`` asks for the page behind it, null on the last.

    Where a state was asked for, a page may have fewer than asked, or none, and still not be the
    last.
    """

    as_of = fields.AwareDateTime(required=True)
    registers = fields.List(fields.Nested(RegisterStatusSchema), required=True)
    next_after = fields.String(required=True, allow_none=True)


class ExposureSchema(Schema):
    """Unspent grants in one currency: how many, and what may be spent under them.

    ``past_horizon_count`` of them have run out and are kept; ``next_horizon_at`` is when the next
    one does, null if none will.
    """

    currency = fields.String(required=True)
    unspent_grants_count = fields.Integer(required=True)
    exposure_minor = fields.Integer(required=True)
    oldest_grant_at = fields.AwareDateTime(required=True)
    next_horizon_at = fields.AwareDateTime(required=True, allow_none=True)
    past_horizon_count = fields.Integer(required=True)


class RegisterExposureSchema(RegisterPlaceSchema):
    """What a register may be spending offline."""

    state = fields.String(required=True, metadata={"enum": [one.value for one in ConnectionState]})
    since = fields.AwareDateTime(required=True, allow_none=True)
    by_currency = fields.List(fields.Nested(ExposureSchema), required=True)


class StoreExposureSchema(Schema):
    """What the registers of a store may be spending offline; only those with unspent grants."""

    store_id = fields.String(required=True)
    as_of = fields.AwareDateTime(required=True)
    by_currency = fields.List(fields.Nested(ExposureSchema), required=True)
    registers = fields.List(fields.Nested(RegisterExposureSchema), required=True)


class CompletenessPageSchema(StrictSchema):
    """Up to which business date, and which registers."""

    business_date = BusinessDate(required=True)
    store_id = name()
    only_incomplete = QueryBoolean(load_default=False)
    after = RegisterPlace(load_default=None)
    limit = QueryInteger(load_default=PAGE_MAX, validate=validate.Range(1, PAGE_MAX))


class RegisterCompletenessSchema(RegisterPlaceSchema):
    """Whether a register has delivered everything up to the end of the day, and if not, why."""

    day_ends_at = fields.AwareDateTime(required=True)
    is_complete = fields.Boolean(required=True)
    reasons = fields.List(
        fields.String(metadata={"enum": [one.value for one in Reason]}), required=True
    )
    retired_at = fields.AwareDateTime(required=True, allow_none=True)
    last_seen_at = fields.AwareDateTime(required=True, allow_none=True)
    report = fields.Nested(ReportSchema, required=True, allow_none=True)
    journal_gaps_count = fields.Integer(required=True)
    journals_behind_count = fields.Integer(required=True)
    unsettled_batches_count = fields.Integer(required=True)
    live_grants_count = fields.Integer(required=True)
    open_cases_count = fields.Integer(required=True)


class CompletenessSummarySchema(Schema):
    """All registers that were there on the day, whatever the page shows of them.

    ``registers_left_out_count`` are those that were not: created after it, or retired before it
    with nothing left in them that HQ knows of.
    """

    stores_count = fields.Integer(required=True)
    stores_complete_count = fields.Integer(required=True)
    stores_incomplete_count = fields.Integer(required=True)
    registers_count = fields.Integer(required=True)
    registers_complete_count = fields.Integer(required=True)
    registers_incomplete_count = fields.Integer(required=True)
    registers_left_out_count = fields.Integer(required=True)


class CompletenessSchema(Schema):
    """How complete a business date is; ``next_after`` asks for the page behind this one."""

    business_date = fields.Date(required=True)
    as_of = fields.AwareDateTime(required=True)
    summary = fields.Nested(CompletenessSummarySchema, required=True)
    registers = fields.List(fields.Nested(RegisterCompletenessSchema), required=True)
    next_after = fields.String(required=True, allow_none=True)


class NewCacheResetSchema(StrictSchema):
    """Whose cache to reset: of all tills, those of a store, or one."""

    store_id = name()
    terminal_id = name()
    reason = reason()


class CacheResetSchema(Schema):
    """A cache reset, and how many of the registers that it concerns have fetched since."""

    cache_reset_id = fields.UUID(required=True)
    store_id = fields.String(required=True, allow_none=True)
    terminal_id = fields.String(required=True, allow_none=True)
    reset_at = fields.AwareDateTime(required=True)
    reset_by = fields.String(required=True)
    reason = fields.String(required=True)
    registers_concerned_count = fields.Integer(required=True)
    registers_fetched_count = fields.Integer(required=True)


class CacheResetPageSchema(StrictSchema):
    """Which cache resets; of a store, also those of all stores."""

    store_id = name()
    after = After(load_default=None)
    limit = QueryInteger(load_default=PAGE_RESETS_MAX, validate=validate.Range(1, PAGE_RESETS_MAX))


class CacheResetsSchema(Schema):
    """One page of cache resets, the newest first; ``next_after`` asks for the page behind it."""

    cache_resets = fields.List(fields.Nested(CacheResetSchema), required=True)
    next_after = fields.String(required=True, allow_none=True)
