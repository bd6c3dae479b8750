"""Cases, for administrators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from marshmallow import validate

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint, keyring
from hq_service.api.schemas.cases import CaseSchema, CasesSchema, ResolutionSchema
from hq_service.api.schemas.common import QueryInteger, StrictSchema, StrictText, StrictUuid
from hq_service.domain.actors import Role
from hq_service.domain.reading import IDENTIFIER_PATTERN
from hq_service.domain.resolving import Case, Resolution, possible_resolutions
from hq_service.operations import cases
from hq_service.operations.clock import now

blueprint = Blueprint("admin-cases", "Cases, for administrators")
auth.protect(blueprint)

PAGE_CASES_MAX = 200
Answer = dict[str, Any]


class CasePageSchema(StrictSchema):
    """Which open cases."""

    store_id = StrictText(load_default=None, validate=validate.Regexp(rf"^{IDENTIFIER_PATTERN}$"))
    after = StrictUuid(load_default=None)
    limit = QueryInteger(load_default=PAGE_CASES_MAX, validate=validate.Range(1, PAGE_CASES_MAX))


@blueprint.route("/v1/admin/cases", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(CasePageSchema, location="query")
@blueprint.response(200, CasesSchema)
def list_cases(page: Mapping[str, Any]) -> Answer:
    """Tell the open cases, of one store or of all."""
    found = cases.list_open(page["store_id"], after=page["after"], limit=page["limit"])
    is_last = len(found) < page["limit"]
    return {
        "cases": [members(case) for case in found],
        "next_after": None if is_last else found[-1].case_id,
    }


@blueprint.route("/v1/admin/cases/<uuid:case_id>", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, CaseSchema)
def show_case(case_id: UUID) -> Answer:
    """Tell one case, and what can be done about it."""
    return members(cases.show(case_id))


@blueprint.route("/v1/admin/cases/<uuid:case_id>/resolutions", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(ResolutionSchema)
@blueprint.response(200, CaseSchema)
def resolve_case(wish: Mapping[str, Any], case_id: UUID) -> Answer:
    """Resolve a case, with a reason. What is recovered in part leaves it open for the rest."""
    resolved = cases.resolve(
        case_id,
        Resolution(wish["resolution"]),
        wish["reason"],
        auth.current_actor(),
        keyring(),
        now(),
    )
    return members(resolved)


def members(case: Case) -> Answer:
    """Return what an answer tells of a case."""
    possible = (
        possible_resolutions(case.outcome, case.operation, case.open_minor)
        if case.resolved_at is None
        else ()
    )
    told = {name: getattr(case, name) for name in Case.__slots__}
    return {**told, "possible_resolutions": list(possible)}
