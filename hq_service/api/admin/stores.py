"""Stores, for administrators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint
from hq_service.api.changes import change, members_to_change
from hq_service.api.headers import ETAG_TOLD, IF_MATCH
from hq_service.api.names import require_possible
from hq_service.api.pages import one_page
from hq_service.api.preconditions import etag, seen_version
from hq_service.api.schemas import registers as schemas
from hq_service.api.schemas.common import ChangeReasonSchema
from hq_service.domain.actors import Role
from hq_service.domain.registers import Accepted, Store
from hq_service.operations import stores
from hq_service.operations.clock import now

blueprint = Blueprint("admin-stores", "Stores, for administrators")
auth.protect(blueprint)

Answer = tuple[Any, int, dict[str, str]]


@blueprint.route("/v1/admin/stores", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(schemas.RetirablePageSchema, location="query")
@blueprint.response(200, schemas.StoresSchema)
def list_stores(page: Mapping[str, Any]) -> dict[str, Any]:
    """Tell the stores by id; retired ones only if asked."""
    limit = page["limit"]
    found = stores.page(after=page["after"], limit=limit + 1, with_retired=page["with_retired"])
    told, next_after = one_page(found, limit, lambda one: one.store_id)
    return {"stores": told, "next_after": next_after}


@blueprint.route("/v1/admin/stores", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(schemas.NewStoreSchema)
@blueprint.response(201, schemas.StoreSchema, headers=ETAG_TOLD)
def create_store(wish: Mapping[str, Any]) -> Answer:
    """Create a store. Its id stands for it for ever."""
    made = stores.create(wish["store_id"], wish["name"], wish["time_zone"], change(wish))
    return _answer(made, 201)


@blueprint.route("/v1/admin/stores/<store_id>", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, schemas.StoreSchema, headers=ETAG_TOLD)
def show_store(store_id: str) -> Answer:
    """Tell one store; the ETag is for If-Match."""
    return _answer(_show(store_id))


@blueprint.route("/v1/admin/stores/<store_id>", methods=["PATCH"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(schemas.StoreEditSchema)
@blueprint.doc(parameters=[IF_MATCH])
@blueprint.response(200, schemas.StoreSchema, headers=ETAG_TOLD)
def edit_store(wish: Mapping[str, Any], store_id: str) -> Answer:
    """Change a store's name or time zone. Needs If-Match, and a reason."""
    require_possible("store_not_found", store_id)
    seen = seen_version(lambda: _show(store_id).version)
    return _answer(stores.edit(store_id, members_to_change(wish), seen, change(wish)))


@blueprint.route("/v1/admin/stores/<store_id>/retirement", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, schemas.StoreRetirementSchema)
def show_store_retirement(store_id: str) -> dict[str, Any]:
    """Tell what retiring a store would leave behind, of all its registers together."""
    require_possible("store_not_found", store_id)
    store, left = stores.at_stake(store_id, now())
    return {"store": store, "at_stake": stores.figures(left)}


@blueprint.route("/v1/admin/stores/<store_id>/retirement", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(schemas.RetirementSchema)
@blueprint.response(200, schemas.StoreSchema, headers=ETAG_TOLD)
def retire_store(wish: Mapping[str, Any], store_id: str) -> Answer:
    """Retire a store, accepting what was shown to be at stake: nothing is locked or granted in it
    any more, and packages that it has not fetched yet are not handed out.

    Its keys go on to work, so that what is under way is concluded and what is pending is settled.
    """
    require_possible("store_not_found", store_id)
    accepted = Accepted(**wish["accepted"])
    return _answer(stores.retire(store_id, accepted, change(wish)))


@blueprint.route("/v1/admin/stores/<store_id>/reactivation", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(ChangeReasonSchema)
@blueprint.response(200, schemas.StoreSchema, headers=ETAG_TOLD)
def reactivate_store(wish: Mapping[str, Any], store_id: str) -> Answer:
    """Take a retired store into use again."""
    require_possible("store_not_found", store_id)
    return _answer(stores.reactivate(store_id, change(wish)))


def _show(store_id: str) -> Store:
    require_possible("store_not_found", store_id)
    return stores.show(store_id)


def _answer(store: Store, status: int = 200) -> Answer:
    return store, status, etag(store.version)
