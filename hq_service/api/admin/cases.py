"""Cases, for administrators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from hq_service.api import auth
from hq_service.api.admin.stories import members, story_members
from hq_service.api.blueprints import Blueprint, keyring
from hq_service.api.changes import change
from hq_service.api.pages import one_page
from hq_service.api.schemas.cases import (
    CasePageSchema,
    CaseSchema,
    CasesSchema,
    CaseSummaryQuerySchema,
    CaseSummarySchema,
    ResolutionSchema,
)
from hq_service.api.schemas.queries import after_text
from hq_service.api.schemas.stories import CaseStorySchema
from hq_service.domain.actors import Role
from hq_service.domain.resolving import CaseFilter, CaseState, Resolution
from hq_service.operations import cases, stories
from hq_service.operations.clock import now

blueprint = Blueprint("admin-cases", "Cases, for administrators")
auth.protect(blueprint)

Answer = dict[str, Any]


@blueprint.route("/v1/admin/cases", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(CasePageSchema, location="query")
@blueprint.response(200, CasesSchema)
def list_cases(page: Mapping[str, Any]) -> Answer:
    """Tell the cases, open ones unless others are asked for, the oldest first."""
    wanted = dict(page)
    after, limit = wanted.pop("after"), wanted.pop("limit")
    wanted["state"] = CaseState(wanted["state"])
    found = cases.list_cases(CaseFilter(**wanted), after=after, limit=limit + 1)
    told, end = one_page(found, limit, lambda case: (case.opened_at, case.case_id))
    return {"cases": [members(case) for case in told], "next_after": after_text(end)}


@blueprint.route("/v1/admin/cases/summary", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(CaseSummaryQuerySchema, location="query")
@blueprint.response(200, CaseSummarySchema)
def summarise_cases(wanted: Mapping[str, Any]) -> Answer:
    """Tell how many cases are open and what they are short of, by currency and by code."""
    counts = cases.count_open(wanted["store_id"])
    return {
        "by_currency": [_count(one) for one in counts if one.code is None],
        "by_code": [{**_count(one), "code": one.code} for one in counts if one.code is not None],
    }


@blueprint.route("/v1/admin/cases/<uuid:case_id>", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, CaseStorySchema)
def show_case(case_id: UUID) -> Answer:
    """Tell the whole story of a case, and what each resolution would post at this moment."""
    at = now()
    return story_members(stories.tell(case_id, auth.current_actor(), keyring(), at), at)


@blueprint.route("/v1/admin/cases/<uuid:case_id>/resolutions", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(ResolutionSchema)
@blueprint.response(200, CaseSchema)
def resolve_case(wish: Mapping[str, Any], case_id: UUID) -> Answer:
    """Resolve a case, with a reason. What is recovered in part leaves it open for the rest."""
    return members(cases.resolve(case_id, Resolution(wish["resolution"]), change(wish)))


def _count(counted: cases.OpenCount) -> Answer:
    return {
        "currency": counted.currency,
        "cases_count": counted.cases_count,
        "open_minor": counted.open_minor,
    }
