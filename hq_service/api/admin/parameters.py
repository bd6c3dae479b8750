"""The Commerce parameters as administrators read and edit them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flask import request

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint
from hq_service.api.parameters import etag_of, members
from hq_service.api.schemas.administration import ParametersEditSchema, ParametersSchema
from hq_service.domain.actors import Role
from hq_service.operations import parameters
from hq_service.operations.clock import now
from hq_service.operations.parameters import Edit

blueprint = Blueprint("admin-parameters", "The Commerce parameters, for administrators")
auth.protect(blueprint)

Answer = tuple[dict[str, Any], int, dict[str, str]]

_REVISION = re.compile(r"0|[1-9][0-9]{0,9}")


@blueprint.route("/v1/admin/parameters", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, ParametersSchema)
def read_parameters() -> Answer:
    """Tell the company-wide parameters as saved last; the ETag is for If-Match."""
    saved = parameters.read_for_administrator()
    return members(saved), 200, {"ETag": etag_of(saved)}


@blueprint.route("/v1/admin/parameters", methods=["PATCH"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(ParametersEditSchema)
@blueprint.response(200, ParametersSchema)
def edit_parameters(wish: Mapping[str, Any]) -> Answer:
    """Save a new revision with some parameters changed. Needs If-Match, and a reason."""
    saved = parameters.edit(
        Edit(wish["parameters"], wish["reason"], _seen_revision()), auth.current_actor(), now()
    )
    return members(saved), 200, {"ETag": etag_of(saved)}


def _seen_revision() -> int | None:
    """Return the revision of If-Match; an ETag that was never ours matches none."""
    if request.if_match.star_tag:  # whatever there is
        return parameters.read_for_administrator().revision
    if not request.if_match:
        return None
    # An empty tag comes as None.
    tags = [tag for tag in request.if_match.as_set() if tag and _REVISION.fullmatch(tag)]
    return int(tags[0]) if len(tags) == 1 else -1
