"""Offline profiles, for administrators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint
from hq_service.api.changes import change
from hq_service.api.headers import ETAG_TOLD, IF_MATCH
from hq_service.api.names import require_possible
from hq_service.api.pages import one_page
from hq_service.api.preconditions import etag, seen_version
from hq_service.api.schemas import registers as schemas
from hq_service.api.schemas.common import ChangeReasonSchema
from hq_service.domain.actors import Role
from hq_service.domain.offline_profiles import OfflineProfile
from hq_service.operations import offline_profiles

blueprint = Blueprint("admin-offline-profiles", "Offline profiles, for administrators")
auth.protect(blueprint)

Answer = tuple[Any, int, dict[str, str]]
PROFILES = "/v1/admin/offline-profiles"
PROFILE = f"{PROFILES}/<offline_profile_id>"


@blueprint.route(PROFILES, methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(schemas.RetirablePageSchema, location="query")
@blueprint.response(200, schemas.OfflineProfilesSchema)
def list_offline_profiles(page: Mapping[str, Any]) -> dict[str, Any]:
    """Tell the offline profiles by id; retired ones only if asked."""
    limit = page["limit"]
    found = offline_profiles.page(
        after=page["after"], limit=limit + 1, with_retired=page["with_retired"]
    )
    told, next_after = one_page(found, limit, lambda one: one.offline_profile_id)
    return {"offline_profiles": told, "next_after": next_after}


@blueprint.route(PROFILES, methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(schemas.NewOfflineProfileSchema)
@blueprint.response(201, schemas.OfflineProfileSchema, headers=ETAG_TOLD)
def create_offline_profile(wish: Mapping[str, Any]) -> Answer:
    """Create an offline profile; fields that are not named get their defaults."""
    made = offline_profiles.create(
        wish["offline_profile_id"], wish["name"], wish["values"], change(wish)
    )
    return _answer(made, 201)


@blueprint.route(PROFILE, methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, schemas.OfflineProfileSchema, headers=ETAG_TOLD)
def show_offline_profile(offline_profile_id: str) -> Answer:
    """Tell one offline profile; the ETag is for If-Match."""
    return _answer(_show(offline_profile_id))


@blueprint.route(PROFILE, methods=["PATCH"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(schemas.OfflineProfileEditSchema)
@blueprint.doc(parameters=[IF_MATCH])
@blueprint.response(200, schemas.OfflineProfileSchema, headers=ETAG_TOLD)
def edit_offline_profile(wish: Mapping[str, Any], offline_profile_id: str) -> Answer:
    """Change a profile's name or some of its values. Needs If-Match, and a reason."""
    require_possible("offline_profile_not_found", offline_profile_id)
    seen = seen_version(lambda: _show(offline_profile_id).version)
    edited = offline_profiles.edit(
        offline_profile_id, wish.get("name"), wish.get("values", {}), seen, change(wish)
    )
    return _answer(edited)


@blueprint.route(f"{PROFILE}/retirement", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(ChangeReasonSchema)
@blueprint.response(200, schemas.OfflineProfileSchema, headers=ETAG_TOLD)
def retire_offline_profile(wish: Mapping[str, Any], offline_profile_id: str) -> Answer:
    """Retire a profile that no register in use has."""
    require_possible("offline_profile_not_found", offline_profile_id)
    return _answer(offline_profiles.retire(offline_profile_id, change(wish)))


def _show(offline_profile_id: str) -> OfflineProfile:
    require_possible("offline_profile_not_found", offline_profile_id)
    return offline_profiles.show(offline_profile_id)


def _answer(profile: OfflineProfile, status: int = 200) -> Answer:
    return profile, status, etag(profile.version)
