"""What administrators send and get about stores, registers and offline profiles; and what a till
reads of itself.
"""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from hq_service.api.schemas.common import (
    EditSchema,
    NamePageSchema,
    StrictBoolean,
    StrictInteger,
    StrictSchema,
    StrictText,
    display_name,
    new_identifier,
    not_like_headquarters,
    plain_names,
    reason,
)
from hq_service.api.schemas.queries import QueryBoolean
from hq_service.domain.reading import IDENTIFIER_PATTERN
from hq_service.domain.registers import is_time_zone

COUNT_MAX = 2**31 - 1

_NO_FIELD = "Is not a field of offline profiles."


def time_zone(**keywords: Any) -> StrictText:
    """Return a field for a time zone."""

    def is_known(value: str) -> None:
        if not is_time_zone(value):
            raise ValidationError("Must be a name of the IANA time zone database.")

    return StrictText(validate=is_known, metadata={"example": "Europe/Stockholm"}, **keywords)


class RetirablePageSchema(NamePageSchema):
    """One page of things that may be retired."""

    with_retired = QueryBoolean(load_default=False)


class StoreSchema(Schema):
    """A store; ``version`` is its ETag."""

    store_id = fields.String(required=True)
    name = fields.String(required=True)
    time_zone = fields.String(required=True)
    version = fields.Integer(required=True)
    created_at = fields.AwareDateTime(required=True)
    retired_at = fields.AwareDateTime(required=True, allow_none=True)


class StoresSchema(Schema):
    """One page of stores; ``next_after`` asks for the page behind it, null on the last."""

    stores = fields.List(fields.Nested(StoreSchema), required=True)
    next_after = fields.String(required=True, allow_none=True)


class NewStoreSchema(StrictSchema):
    """A store to create."""

    store_id = new_identifier(not_like_headquarters)
    name = display_name()
    time_zone = time_zone(load_default="UTC")
    reason = reason()


class StoreEditSchema(EditSchema):
    """A change of a store."""

    name = display_name(required=False)
    time_zone = time_zone()


class RegisterSchema(Schema):
    """A register; without an offline profile it goes by the defaults. ``version`` is its ETag."""

    store_id = fields.String(required=True)
    terminal_id = fields.String(required=True)
    name = fields.String(required=True)
    supports_offline = fields.Boolean(required=True)
    offline_profile_id = fields.String(required=True, allow_none=True)
    version = fields.Integer(required=True)
    created_at = fields.AwareDateTime(required=True)
    retired_at = fields.AwareDateTime(required=True, allow_none=True)


class RegistersSchema(Schema):
    """One page of registers; ``next_after`` asks for the page behind it, null on the last."""

    registers = fields.List(fields.Nested(RegisterSchema), required=True)
    next_after = fields.String(required=True, allow_none=True)


def offline_profile_id(**keywords: Any) -> StrictText:
    """Return a field for the offline profile of a register; null means the defaults."""
    is_identifier = validate.Regexp(rf"^{IDENTIFIER_PATTERN}$")
    return StrictText(allow_none=True, validate=is_identifier, **keywords)


class NewRegisterSchema(StrictSchema):
    """A register to create."""

    terminal_id = new_identifier()
    name = display_name()
    supports_offline = StrictBoolean(load_default=False)
    offline_profile_id = offline_profile_id(load_default=None)
    reason = reason()


class RegisterEditSchema(EditSchema):
    """A change of a register."""

    name = display_name(required=False)
    supports_offline = StrictBoolean()
    offline_profile_id = offline_profile_id()


class MissingLinesSchema(Schema):
    """Lines of a till's journal that HQ never got; ``last`` included."""

    journal_id = fields.String(required=True)
    first = fields.Integer(required=True)
    last = fields.Integer(required=True)


def amounts_minor(*, allow_none: bool = False) -> fields.Dict:
    """Return a field for amounts by currency, each in its smallest unit."""
    return fields.Dict(
        keys=fields.String(), values=fields.Integer(), required=True, allow_none=allow_none
    )


class LeftSchema(Schema):
    """What is not settled. What is pending is what tills told last, null if none did."""

    gaps_count = fields.Integer(required=True)
    live_locks_count = fields.Integer(required=True)
    live_grants_count = fields.Integer(required=True)
    exposures_minor = amounts_minor()
    open_cases_count = fields.Integer(required=True)
    pending_count = fields.Integer(required=True, allow_none=True)
    pending_amounts_minor = amounts_minor(allow_none=True)
    oldest_pending_at = fields.AwareDateTime(required=True, allow_none=True)


class AtStakeSchema(LeftSchema):
    """What is not settled of a register. What is pending is what the till told last, null if it
    never did.
    """

    gaps = fields.List(fields.Nested(MissingLinesSchema), required=True)
    reported_at = fields.AwareDateTime(required=True, allow_none=True)
    last_seen_at = fields.AwareDateTime(required=True, allow_none=True)


class RegisterRetirementSchema(Schema):
    """What retiring a register would leave behind."""

    register = fields.Nested(RegisterSchema, required=True)
    at_stake = fields.Nested(AtStakeSchema, required=True)


class StoreAtStakeSchema(LeftSchema):
    """What is not settled of a store: of all its registers, retired ones included. What is pending
    is what ``pending_told_count`` of its tills told last, null if none did.
    """

    registers_count = fields.Integer(required=True)
    pending_told_count = fields.Integer(required=True)


class StoreRetirementSchema(Schema):
    """What retiring a store would leave behind."""

    store = fields.Nested(StoreSchema, required=True)
    at_stake = fields.Nested(StoreAtStakeSchema, required=True)


def count() -> StrictInteger:
    """Return a field for how many there were."""
    return StrictInteger(required=True, validate=validate.Range(0, COUNT_MAX))


class AcceptedSchema(StrictSchema):
    """What somebody was shown and accepts."""

    gaps_count = count()
    live_grants_count = count()
    open_cases_count = count()


class RetirementSchema(StrictSchema):
    """That a register or store is retired, why, and in spite of what."""

    reason = reason()
    accepted = fields.Nested(AcceptedSchema, required=True)


class OfflineProfileSchema(Schema):
    """An offline profile, with a value for every field; ``version`` is its ETag."""

    offline_profile_id = fields.String(required=True)
    name = fields.String(required=True)
    version = fields.Integer(required=True)
    values = fields.Dict(keys=fields.String(), values=fields.Raw(), required=True)
    created_at = fields.AwareDateTime(required=True)
    retired_at = fields.AwareDateTime(required=True, allow_none=True)


class OfflineProfilesSchema(Schema):
    """One page of profiles; ``next_after`` asks for the page behind it, null on the last."""

    offline_profiles = fields.List(fields.Nested(OfflineProfileSchema), required=True)
    next_after = fields.String(required=True, allow_none=True)


def profile_values(*, not_empty: bool = False, **keywords: Any) -> fields.Dict:
    """Return a field for some values of a profile."""
    return fields.Dict(
        keys=fields.String(),
        values=fields.Raw(allow_none=True),  # what each may be, the domain knows
        validate=[validate.Length(min=int(not_empty)), plain_names(_NO_FIELD)],
        **keywords,
    )


class NewOfflineProfileSchema(StrictSchema):
    """An offline profile to create; fields that are not named get their defaults."""

    offline_profile_id = new_identifier()
    name = display_name()
    values = profile_values(load_default=dict)
    reason = reason()


class OfflineProfileEditSchema(EditSchema):
    """A change of an offline profile."""

    name = display_name(required=False)
    values = profile_values(not_empty=True)


class OwnStoreSchema(Schema):
    """The store of a till, as the till reads it."""

    store_id = fields.String(required=True)
    name = fields.String(required=True)
    time_zone = fields.String(required=True)
    retired_at = fields.AwareDateTime(required=True, allow_none=True)


class OwnRegisterSchema(Schema):
    """A till's own record."""

    terminal_id = fields.String(required=True)
    name = fields.String(required=True)
    supports_offline = fields.Boolean(required=True)
    retired_at = fields.AwareDateTime(required=True, allow_none=True)


class OwnOfflineProfileSchema(Schema):
    """How a till behaves around an outage; without id, and at version 0: the defaults."""

    offline_profile_id = fields.String(required=True, allow_none=True)
    version = fields.Integer(required=True)
    values = fields.Dict(keys=fields.String(), values=fields.Raw(), required=True)


class RegisterSetupSchema(Schema):
    """What a till needs to know of itself."""

    store = fields.Nested(OwnStoreSchema, required=True)
    register = fields.Nested(OwnRegisterSchema, required=True)
    offline_profile = fields.Nested(OwnOfflineProfileSchema, required=True)
