"""What a till reads of itself."""

from __future__ import annotations

from typing import Any

from flask import Response, make_response, request

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint
from hq_service.api.headers import COPY_TOLD, IF_NONE_MATCH
from hq_service.api.schemas.registers import RegisterSetupSchema
from hq_service.domain.actors import Role
from hq_service.operations import registers
from hq_service.operations.registers import RegisterSetup

blueprint = Blueprint("registers", "What a till reads of itself")
auth.protect(blueprint)


@blueprint.route("/v1/register", methods=["GET"])
@auth.allow(Role.TERMINAL)
@blueprint.doc(parameters=[IF_NONE_MATCH])
@blueprint.response(200, RegisterSetupSchema, headers=COPY_TOLD)
@blueprint.alt_response(304, description="The copy is still right", headers=COPY_TOLD)
def read_register() -> Any:
    """Tell a till its store, its own record, and the offline profile that it goes by.

    It may use its copy for ``Cache-Control: max-age``, as that of the Commerce parameters; a cache
    reset is for both.
    """
    setup = registers.read_for_till(auth.current_actor())
    headers = {
        "ETag": f'"{_tag(setup)}"',
        "Cache-Control": f"private, max-age={setup.cache_seconds}",
    }
    if request.if_none_match.contains(_tag(setup)):
        response: Response = make_response("", 304)
        response.headers.update(headers)
        return response
    members = {name: getattr(setup, name) for name in ("store", "register", "offline_profile")}
    return members, 200, headers


def _tag(setup: RegisterSetup) -> str:
    """Return the ETag of all that is told: another profile is another version of the register."""
    versions = setup.store.version, setup.register.version, setup.offline_profile.version
    return ".".join(str(one) for one in versions)
