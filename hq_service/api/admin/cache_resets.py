"""Cache resets, for administrators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint
from hq_service.api.changes import change
from hq_service.api.pages import one_page
from hq_service.api.schemas.connection import (
    CacheResetPageSchema,
    CacheResetSchema,
    CacheResetsSchema,
    NewCacheResetSchema,
)
from hq_service.api.schemas.queries import after_text
from hq_service.domain.actors import Role
from hq_service.domain.connection import CacheReset, CacheResetProgress
from hq_service.operations import cache_resets

blueprint = Blueprint("admin-cache-resets", "Cache resets, for administrators")
auth.protect(blueprint)

Answer = dict[str, Any]


@blueprint.route("/v1/admin/cache-resets", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(NewCacheResetSchema)
@blueprint.response(201, CacheResetSchema)
def reset_cache(wish: Mapping[str, Any]) -> Answer:
    """Let all tills, those of a store, or one fetch the parameters with their next heartbeat.

    What the documents do by resetting IIS. It distributes nothing: a till fetches what its store
    has applied.
    """
    return _members(cache_resets.reset(wish["store_id"], wish["terminal_id"], change(wish)))


@blueprint.route("/v1/admin/cache-resets", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(CacheResetPageSchema, location="query")
@blueprint.response(200, CacheResetsSchema)
def list_cache_resets(page: Mapping[str, Any]) -> Answer:
    """Tell the cache resets, the newest first, and how many registers have fetched since."""
    limit = page["limit"]
    found = cache_resets.list_resets(
        store_id=page["store_id"], after=page["after"], limit=limit + 1
    )
    told, end = one_page(found, limit, lambda one: (one.reset.reset_at, one.reset.cache_reset_id))
    return {"cache_resets": [_members(one) for one in told], "next_after": after_text(end)}


def _members(of: CacheResetProgress) -> Answer:
    return {
        **{name: getattr(of.reset, name) for name in CacheReset.__slots__},
        "registers_concerned_count": of.concerned_count,
        "registers_fetched_count": of.fetched_count,
    }
