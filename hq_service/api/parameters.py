"""The Commerce parameters as tills and sync jobs read them."""

from __future__ import annotations

from typing import Any

from flask import Response, make_response, request

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint
from hq_service.api.headers import COPY_TOLD, IF_NONE_MATCH
from hq_service.api.preconditions import etag
from hq_service.api.schemas.parameters import TillParametersSchema
from hq_service.domain.actors import Role
from hq_service.domain.parameters import Parameters
from hq_service.operations import parameters
from hq_service.operations.clock import now

blueprint = Blueprint("parameters", "The Commerce parameters, for tills")
auth.protect(blueprint)


@blueprint.route("/v1/parameters", methods=["GET"])
@auth.allow(Role.TERMINAL, Role.SYNC)
@blueprint.doc(parameters=[IF_NONE_MATCH])
@blueprint.response(200, TillParametersSchema, headers=COPY_TOLD)
@blueprint.alt_response(304, description="The copy is still right", headers=COPY_TOLD)
def read_parameters() -> Any:
    """Tell the parameters that the caller's store has applied; a terminal acknowledges them.

    A till may use its copy for ``Cache-Control: max-age``; HQ grants offline spending by the
    revision that the till acknowledged.
    """
    served = parameters.read_for_till(auth.current_actor(), now())
    applied = served.parameters
    headers = {
        **etag(applied.revision),
        "Cache-Control": f"private, max-age={applied.parameter_cache_seconds}",
    }
    if request.if_none_match.contains(str(applied.revision)):
        response: Response = make_response("", 304)
        response.headers.update(headers)
        return response
    return {**members(applied), "applied_at": served.applied_at}, 200, headers


def members(of: Parameters) -> dict[str, Any]:
    """Return what an answer tells of the parameters."""
    return {"revision": of.revision, "parameters": of.values()}
