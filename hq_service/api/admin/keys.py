"""API keys, for administrators. A key is shown when it is made, and never again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint
from hq_service.api.changes import change
from hq_service.api.names import require_possible
from hq_service.api.pages import one_page
from hq_service.api.schemas import keys as schemas
from hq_service.api.schemas.common import ChangeReasonSchema
from hq_service.domain.actors import ApiKey, Role
from hq_service.operations import keys
from hq_service.operations.clock import now
from hq_service.operations.keys import KeyFilter, Made, NewKey

blueprint = Blueprint("admin-keys", "API keys, for administrators")
auth.protect(blueprint)

Answer = dict[str, Any]
KEY = "/v1/admin/keys/<key_id>"
# No cache between here and the administrator keeps a secret.
SHOWN_ONCE = {"Cache-Control": "no-store"}


@blueprint.route("/v1/admin/keys", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(schemas.KeyPageSchema, location="query")
@blueprint.response(200, schemas.ApiKeysSchema)
def list_keys(page: Mapping[str, Any]) -> Answer:
    """Tell the keys by id, without their secrets; those that ended only if asked."""
    limit = page["limit"]
    role = Role(page["role"]) if page["role"] is not None else None
    wanted = KeyFilter(role, page["store_id"], page["with_ended"])
    found = keys.page(wanted, after=page["after"], limit=limit + 1, now=now())
    told, next_after = one_page(found, limit, lambda one: one.key_id)
    return {"keys": told, "next_after": next_after}


@blueprint.route("/v1/admin/keys", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(schemas.NewApiKeySchema)
@blueprint.response(201, schemas.MadeApiKeySchema)
def create_key(wish: Mapping[str, Any]) -> tuple[Answer, int, dict[str, str]]:
    """Create a key, bound to a register, a store, or neither, as its role says.

    ``api_key`` is shown only in this answer. If the answer is lost: revoke the key, make another.
    """
    new = NewKey(
        Role(wish["role"]),
        wish["store_id"],
        wish["terminal_id"],
        wish["label"],
        wish["expires_at"],
    )
    return _made(keys.create(new, change(wish)))


@blueprint.route(KEY, methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, schemas.ApiKeySchema)
def show_key(key_id: str) -> ApiKey:
    """Tell one key, without its secret."""
    require_possible("key_not_found", key_id)
    return keys.show(key_id)


@blueprint.route(f"{KEY}/rotation", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(schemas.KeyRotationSchema)
@blueprint.response(201, schemas.MadeApiKeySchema)
def rotate_key(wish: Mapping[str, Any], key_id: str) -> tuple[Answer, int, dict[str, str]]:
    """Make a new key of the same scope; the old one ends after the overlap.

    ``api_key`` is shown only in this answer. If it is lost: rotate the new key again.
    """
    require_possible("key_not_found", key_id)
    made = keys.rotate(key_id, wish["overlap_seconds"], wish["expires_at"], change(wish))
    return _made(made)


@blueprint.route(f"{KEY}/revocation", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(ChangeReasonSchema)
@blueprint.response(200, schemas.ApiKeySchema)
def revoke_key(wish: Mapping[str, Any], key_id: str) -> ApiKey:
    """End a key at once; one that is revoked already stays as it is."""
    require_possible("key_not_found", key_id)
    return keys.revoke(key_id, change(wish))


def _made(made: Made) -> tuple[Answer, int, dict[str, str]]:
    members = {name: getattr(made.key, name) for name in ApiKey.__slots__}
    return {**members, "api_key": made.text}, 201, SHOWN_ONCE
