"""What tills tell of themselves, and what they are answered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from hq_service.api.schemas.common import (
    MaskedText,
    StrictInstant,
    StrictInteger,
    StrictSchema,
    StrictText,
)
from hq_service.api.schemas.selling import GapSchema
from hq_service.domain.connection import (
    MESSAGE_LENGTH_MAX,
    PENDING_MAX,
    TIPS_MAX,
    SyncStatus,
    ToldState,
)
from hq_service.domain.money import AMOUNT_MINOR_MAX, CURRENCY_EXPONENTS
from hq_service.domain.reading import IDENTIFIER_PATTERN, SEQUENCE_MAX

VERSION_MAX = 2**31 - 1

_IDENTIFIER = re.compile(IDENTIFIER_PATTERN)


def _faults(values: Mapping[str, Any], wrong_name: str, is_name: Any, maximum: int) -> None:
    """Refuse numbers by name of which the name or the number is none; point at each."""
    found = {}
    for name, value in values.items():
        if not is_name(name):
            found[name] = [wrong_name]
        elif type(value) is not int or not 0 <= value <= maximum:
            found[name] = [f"Must be an integer from 0 to {maximum}."]
    if found:
        raise ValidationError(found)


def _are_amounts(values: Mapping[str, Any]) -> None:
    _faults(
        values,
        "Must be a currency code of ISO 4217.",
        CURRENCY_EXPONENTS.__contains__,
        AMOUNT_MINOR_MAX,
    )


def _are_tips(values: Mapping[str, Any]) -> None:
    if len(values) > TIPS_MAX:
        raise ValidationError(f"Must not name more than {TIPS_MAX} journals.")
    _faults(values, "Is not the name of a journal.", _IDENTIFIER.fullmatch, SEQUENCE_MAX)


def _numbers(what: str, check: Any) -> fields.Dict:
    # What each name and number may be, the check says, and points at the member itself.
    return fields.Dict(
        keys=fields.String(),
        values=fields.Raw(allow_none=True, metadata={"type": "integer", "minimum": 0}),
        required=True,
        validate=check,
        metadata={"description": what},
    )


class LastSyncSchema(StrictSchema):
    """A till's last attempt to upload its offline transactions; ``none`` is no attempt yet."""

    at = StrictInstant(load_default=None, allow_none=True)
    status = StrictText(required=True, validate=validate.OneOf([one.value for one in SyncStatus]))
    message = MaskedText(
        MESSAGE_LENGTH_MAX, validate.Length(min=1), load_default=None, allow_none=True
    )


class HeartbeatSchema(StrictSchema):
    """What a till tells of itself; instants by its own clock."""

    sent_at = StrictInstant(required=True)
    connection_state = StrictText(
        required=True, validate=validate.OneOf([one.value for one in ToldState])
    )
    pending_count = StrictInteger(required=True, validate=validate.Range(0, PENDING_MAX))
    pending_amounts_minor = _numbers("By currency, in its smallest unit.", _are_amounts)
    oldest_pending_at = StrictInstant(
        load_default=None,
        allow_none=True,
        metadata={"description": "Needed when something is pending."},
    )
    last_sync = fields.Nested(LastSyncSchema, required=True)
    journal_tips = _numbers("The highest sequence number written, by journal.", _are_tips)
    parameter_revision = StrictInteger(
        load_default=None,
        allow_none=True,
        validate=validate.Range(0, VERSION_MAX),
        metadata={"description": "The revision of the Commerce parameters that the till acts on."},
    )
    offline_profile_version = StrictInteger(
        load_default=None,
        allow_none=True,
        validate=validate.Range(0, VERSION_MAX),
        metadata={"description": "The version of the offline profile that the till acts on."},
    )


class ArrivedJournalSchema(Schema):
    """What has arrived of a till's journal: it may purge through ``acknowledged_through``.

    ``gaps`` are the first of all ``gaps_count``.
    """

    journal_id = fields.String(required=True)
    acknowledged_through = fields.Integer(required=True)
    gaps = fields.List(fields.Nested(GapSchema), required=True)
    gaps_count = fields.Integer(required=True)


class HeartbeatParametersSchema(Schema):
    """What the till's store has applied, and whether to fetch it whatever the copy says."""

    revision = fields.Integer(required=True)
    reset_cache = fields.Boolean(required=True)


class HeartbeatAnswerSchema(Schema):
    """What HQ has for a till."""

    server_time = fields.AwareDateTime(required=True)
    parameters = fields.Nested(HeartbeatParametersSchema, required=True)
    offline_profile_version = fields.Integer(required=True)
    journals = fields.List(fields.Nested(ArrivedJournalSchema), required=True)
    upload_requested = fields.Boolean(required=True)
    next_heartbeat_seconds = fields.Integer(required=True)
    register_retired = fields.Boolean(required=True)
