"""The Commerce parameters as tills and sync jobs read them."""

from __future__ import annotations

from typing import Any

from flask import Response, make_response, request

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint
from hq_service.api.schemas.administration import ParametersSchema
from hq_service.domain.actors import Role
from hq_service.domain.parameters import Parameters
from hq_service.operations import parameters
from hq_service.operations.clock import now

blueprint = Blueprint("parameters", "The Commerce parameters, for tills")
auth.protect(blueprint)


@blueprint.route("/v1/parameters", methods=["GET"])
@auth.allow(Role.TERMINAL, Role.SYNC)
@blueprint.response(200, ParametersSchema)
def read_parameters() -> Any:
    """Tell the parameters in force for the caller's store; a terminal thereby acknowledges them.

    A till may use its copy for ``Cache-Control: max-age``; HQ grants offline spending by the
    revision that the till acknowledged.
    """
    in_force = parameters.read_for_till(auth.current_actor(), now())
    headers = {
        "ETag": etag_of(in_force),
        "Cache-Control": f"private, max-age={in_force.parameter_cache_seconds}",
    }
    if request.if_none_match.contains(str(in_force.revision)):
        response: Response = make_response("", 304)
        response.headers.update(headers)
        return response
    return members(in_force), 200, headers


def members(in_force: Parameters) -> dict[str, Any]:
    """Return what an answer tells of the parameters."""
    return {"revision": in_force.revision, "parameters": in_force.values()}


def etag_of(in_force: Parameters) -> str:
    """Return the strong ETag of the parameters: their revision."""
    return f'"{in_force.revision}"'
