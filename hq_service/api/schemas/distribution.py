"""What administrators and sync jobs send and get about distribution."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from hq_service.api.schemas.common import (
    ChangeReasonSchema,
    EditSchema,
    MaskedText,
    QueryInteger,
    StrictBoolean,
    StrictInteger,
    StrictSchema,
    StrictText,
    StrictUuid,
    display_name,
    identifier,
    new_identifier,
    reason,
)
from hq_service.api.schemas.queries import name, one_of
from hq_service.domain.distribution import (
    ACKNOWLEDGEABLE,
    CRON_LENGTH_MAX,
    EVERY_SECONDS_MAX,
    EVERY_SECONDS_MIN,
    JOB_BY_ID,
    JOBS,
    MESSAGE_LENGTH_MAX,
    SessionStatus,
)

PAGE_SESSIONS_MAX = 200
RUN_STORES_MAX = 1_000


def _job_ids(*, required: bool) -> fields.List[Any]:
    return fields.List(
        StrictText(validate=validate.Length(1, 16)),
        required=required,
        validate=validate.Length(1, len(JOBS)),
        metadata={"description": f"Of {', '.join(JOB_BY_ID)}; each once, in the order to do them."},
    )


def _every_seconds() -> StrictInteger:
    return StrictInteger(
        allow_none=True,
        validate=validate.Range(EVERY_SECONDS_MIN, EVERY_SECONDS_MAX),
        metadata={"description": "Recurs by itself, if `hq worker` runs."},
    )


def _cron() -> StrictText:
    return StrictText(
        allow_none=True,
        validate=validate.Length(1, CRON_LENGTH_MAX),
        metadata={"description": "Five fields, in UTC; instead of every_seconds."},
    )


class ScheduleSchema(Schema):
    """A distribution schedule; ``next_run_at`` is null if it does not recur."""

    schedule_id = fields.String(required=True)
    name = fields.String(required=True)
    version = fields.Integer(required=True)
    job_ids = fields.List(fields.String(), required=True)
    is_active = fields.Boolean(required=True)
    every_seconds = fields.Integer(required=True, allow_none=True)
    cron = fields.String(required=True, allow_none=True)
    next_run_at = fields.AwareDateTime(required=True, allow_none=True)
    created_at = fields.AwareDateTime(required=True)


class SchedulesSchema(Schema):
    """One page of schedules; ``next_after`` asks for the page behind it, null on the last."""

    schedules = fields.List(fields.Nested(ScheduleSchema), required=True)
    next_after = fields.String(required=True, allow_none=True)


class NewScheduleSchema(StrictSchema):
    """A schedule to create; without every_seconds and cron it is run by Run now only."""

    schedule_id = new_identifier()
    name = display_name()
    job_ids = _job_ids(required=True)
    is_active = StrictBoolean(load_default=True)
    every_seconds = _every_seconds()
    cron = _cron()
    reason = reason()


class ScheduleEditSchema(EditSchema):
    """A change of a schedule. Of every_seconds and cron, giving one takes the other away."""

    name = display_name(required=False)
    job_ids = _job_ids(required=False)
    is_active = StrictBoolean()
    every_seconds = _every_seconds()
    cron = _cron()


class RunNowSchema(ChangeReasonSchema):
    """Run now: for some stores, or for all that are in use."""

    store_ids = fields.List(
        identifier(),
        validate=validate.Length(1, RUN_STORES_MAX),
        load_default=None,
        allow_none=False,  # null is a mistake, and must not mean all of them
    )


class RunSchema(Schema):
    """A run, how many sessions of which status it made, and how many it left as they were."""

    run_id = fields.UUID(required=True)
    schedule_id = fields.String(required=True)
    started_at = fields.AwareDateTime(required=True)
    started_by = fields.String(required=True)
    sessions_count = fields.Integer(required=True)
    counts = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    kept_count = fields.Integer(
        required=True,
        metadata={"description": "Sessions that had not ended and carry just the same."},
    )


class SessionSchema(Schema):
    """A download or upload session: one store's part of a run, for one job."""

    session_id = fields.UUID(required=True)
    run_id = fields.UUID(required=True)
    schedule_id = fields.String(required=True)
    store_id = fields.String(required=True)
    job_id = fields.String(required=True)
    job_name = fields.String(required=True)
    direction = fields.String(required=True)
    status = fields.String(required=True)
    parameters_revision = fields.Integer(required=True, allow_none=True)
    checksum_sha256 = fields.String(
        required=True, allow_none=True, metadata={"description": "Of the package, hexadecimal."}
    )
    package_bytes = fields.Integer(required=True, allow_none=True)
    try_count = fields.Integer(required=True)
    message = fields.String(required=True, allow_none=True)
    rerun_for = fields.UUID(required=True, allow_none=True)
    replaced_by = fields.UUID(required=True, allow_none=True)
    created_at = fields.AwareDateTime(required=True)
    requested_at = fields.AwareDateTime(required=True, allow_none=True)
    downloaded_at = fields.AwareDateTime(required=True, allow_none=True)
    applied_at = fields.AwareDateTime(required=True, allow_none=True)
    ended_at = fields.AwareDateTime(required=True, allow_none=True)


class SessionsSchema(Schema):
    """One page of sessions; ``next_after`` asks for the page behind it, null on the last."""

    sessions = fields.List(fields.Nested(SessionSchema), required=True)
    next_after = fields.UUID(required=True, allow_none=True)


class ToDoPageSchema(StrictSchema):
    """Which page of what a store has to do."""

    after = StrictUuid(load_default=None)
    limit = QueryInteger(
        load_default=PAGE_SESSIONS_MAX, validate=validate.Range(1, PAGE_SESSIONS_MAX)
    )


class SessionPageSchema(ToDoPageSchema):
    """Which sessions; those without data only if ``status`` asks for them."""

    store_id = name()
    job_id = one_of(JOB_BY_ID)
    status = one_of(SessionStatus)
    schedule_id = name()
    run_id = StrictUuid(load_default=None)


class AcknowledgementSchema(StrictSchema):
    """What became of a session at the store."""

    status = StrictText(required=True, validate=validate.OneOf([str(x) for x in ACKNOWLEDGEABLE]))
    checksum_sha256 = StrictText(
        validate=validate.Regexp(r"^[0-9a-f]{64}$"),
        load_default=None,
        allow_none=False,
        metadata={"description": "Of the bytes that the store has; needed for applied."},
    )
    message = MaskedText(
        MESSAGE_LENGTH_MAX,
        validate.Length(min=1),
        load_default=None,
        allow_none=False,
        metadata={"description": "What went wrong, for people."},
    )


class PackageStoreSchema(Schema):
    """The store record of a package."""

    store_id = fields.String(required=True)
    name = fields.String(required=True)
    time_zone = fields.String(required=True)
    version = fields.Integer(required=True)


class PackageRegisterSchema(Schema):
    """A register of a package."""

    terminal_id = fields.String(required=True)
    name = fields.String(required=True)
    supports_offline = fields.Boolean(required=True)
    is_retired = fields.Boolean(required=True)
    offline_profile_id = fields.String(required=True, allow_none=True)
    version = fields.Integer(required=True)


class PackageProfileSchema(Schema):
    """An offline profile of a package; id null for registers that have none of their own."""

    offline_profile_id = fields.String(required=True, allow_none=True)
    name = fields.String(required=True, allow_none=True)
    version = fields.Integer(required=True)
    values = fields.Dict(keys=fields.String(), values=fields.Raw(), required=True)


class PackageSchema(Schema):
    """A package: 1110 has the parameters, 1070 the store as well, 1090 registers and profiles."""

    format_version = fields.Integer(required=True)
    job_id = fields.String(required=True)
    store_id = fields.String(required=True)
    revision = fields.Integer(required=True, allow_none=True)
    parameters = fields.Dict(keys=fields.String(), values=fields.Raw())
    store = fields.Nested(PackageStoreSchema)
    registers = fields.List(fields.Nested(PackageRegisterSchema))
    offline_profiles = fields.List(fields.Nested(PackageProfileSchema))
