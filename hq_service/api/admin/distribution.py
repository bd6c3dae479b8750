"""Distribution schedules and their sessions, for administrators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint
from hq_service.api.changes import change, members_to_change
from hq_service.api.distribution import members, page_members
from hq_service.api.headers import ETAG_TOLD, IF_MATCH
from hq_service.api.names import require_possible
from hq_service.api.pages import one_page
from hq_service.api.preconditions import etag, seen_version
from hq_service.api.schemas.common import ChangeReasonSchema, NamePageSchema
from hq_service.api.schemas.distribution import (
    NewScheduleSchema,
    RunNowSchema,
    RunSchema,
    ScheduleEditSchema,
    ScheduleSchema,
    SchedulesSchema,
    SessionPageSchema,
    SessionSchema,
    SessionsSchema,
)
from hq_service.domain.actors import Role
from hq_service.domain.distribution import Schedule, SessionFilter
from hq_service.operations import distribution, schedules
from hq_service.operations.schedules import NewSchedule

blueprint = Blueprint("admin-distribution", "Distribution, for administrators")
auth.protect(blueprint)

Answer = dict[str, Any]
AnswerWithTag = tuple[Answer, int, dict[str, str]]

SCHEDULES = "/v1/admin/distribution-schedules"
SESSIONS = "/v1/admin/distribution-sessions"


@blueprint.route(SCHEDULES, methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(NamePageSchema, location="query")
@blueprint.response(200, SchedulesSchema)
def list_schedules(page: Mapping[str, Any]) -> Answer:
    """Tell the distribution schedules, by id."""
    found = schedules.page(after=page["after"], limit=page["limit"] + 1)
    told, next_after = one_page(found, page["limit"], lambda one: one.schedule_id)
    return {"schedules": [_schedule(one) for one in told], "next_after": next_after}


@blueprint.route(SCHEDULES, methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(NewScheduleSchema)
@blueprint.response(201, ScheduleSchema, headers=ETAG_TOLD)
def create_schedule(wish: Mapping[str, Any]) -> AnswerWithTag:
    """Create a distribution schedule, with a reason."""
    made = schedules.create(
        NewSchedule(
            wish["schedule_id"],
            wish["name"],
            wish["job_ids"],
            wish["is_active"],
            wish.get("every_seconds"),
            wish.get("cron"),
        ),
        change(wish),
    )
    return _schedule(made), 201, etag(made.version)


@blueprint.route(f"{SCHEDULES}/<schedule_id>", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, ScheduleSchema, headers=ETAG_TOLD)
def show_schedule(schedule_id: str) -> AnswerWithTag:
    """Tell one distribution schedule; the ETag is for If-Match."""
    require_possible("schedule_not_found", schedule_id)
    found = schedules.show(schedule_id)
    return _schedule(found), 200, etag(found.version)


@blueprint.route(f"{SCHEDULES}/<schedule_id>", methods=["PATCH"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(ScheduleEditSchema)
@blueprint.doc(parameters=[IF_MATCH])
@blueprint.response(200, ScheduleSchema, headers=ETAG_TOLD)
def edit_schedule(wish: Mapping[str, Any], schedule_id: str) -> AnswerWithTag:
    """Change a distribution schedule. Needs If-Match, and a reason."""
    require_possible("schedule_not_found", schedule_id)
    seen = seen_version(lambda: schedules.show(schedule_id).version)
    edited = schedules.edit(schedule_id, members_to_change(wish), seen, change(wish))
    return _schedule(edited), 200, etag(edited.version)


@blueprint.route(f"{SCHEDULES}/<schedule_id>/runs", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(RunNowSchema)
@blueprint.response(201, RunSchema)
def run_now(wish: Mapping[str, Any], schedule_id: str) -> tuple[Answer, int]:
    """Run now: make a session per job and store, of what is saved at this moment.

    Each replaces the one of the same job and store that has not ended yet; one that carries just
    the same is left as it is, and counted in ``kept_count``.
    """
    require_possible("schedule_not_found", schedule_id)
    run = distribution.run_now(schedule_id, wish["store_ids"], change(wish))
    told = {
        "run_id": run.run_id,
        "schedule_id": run.schedule_id,
        "started_at": run.started_at,
        "started_by": run.started_by,
        "sessions_count": sum(run.counts.values()),
        "counts": run.counts,
        "kept_count": run.kept_count,
    }
    return told, 201


@blueprint.route(SESSIONS, methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(SessionPageSchema, location="query")
@blueprint.response(200, SessionsSchema)
def list_sessions(page: Mapping[str, Any]) -> Answer:
    """Tell the download and upload sessions, the newest first; those without data if asked for."""
    wanted = SessionFilter(**{name: page[name] for name in SessionFilter.__slots__})
    found = distribution.list_sessions(wanted, after=page["after"], limit=page["limit"] + 1)
    return page_members(found, page["limit"])


@blueprint.route(f"{SESSIONS}/<uuid:session_id>", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, SessionSchema)
def show_session(session_id: UUID) -> Answer:
    """Tell one download or upload session."""
    return members(distribution.show_session(session_id))


@blueprint.route(f"{SESSIONS}/<uuid:session_id>/reruns", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(ChangeReasonSchema)
@blueprint.response(201, SessionSchema)
def rerun_session(wish: Mapping[str, Any], session_id: UUID) -> tuple[Answer, int]:
    """Rerun: a new session for the same job and store, made anew of what is saved."""
    return members(distribution.rerun(session_id, change(wish))), 201


@blueprint.route(f"{SESSIONS}/<uuid:session_id>/cancellations", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(ChangeReasonSchema)
@blueprint.response(200, SessionSchema)
def cancel_session(wish: Mapping[str, Any], session_id: UUID) -> Answer:
    """Cancel: the package is not handed out any more.

    If the store had fetched it and tells that it is applied, that is taken down all the same.
    """
    return members(distribution.cancel_session(session_id, change(wish)))


def _schedule(schedule: Schedule) -> Answer:
    return {name: getattr(schedule, name) for name in Schedule.__slots__}
