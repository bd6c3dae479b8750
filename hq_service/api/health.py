"""Whether the service is there, and what its problem codes mean. Public."""

from __future__ import annotations

from typing import Any

from hq_service.api.blueprints import Blueprint, keyring
from hq_service.api.problems import PROBLEMS, REMEDIES
from hq_service.api.schemas.administration import AliveSchema, ProblemKindSchema, ReadySchema
from hq_service.domain.errors import NotFound, Unavailable
from hq_service.operations import readiness
from hq_service.operations.clock import now

RETRY_AFTER_SECONDS = 2

blueprint = Blueprint("health", "Whether the service is there", is_public=True)


@blueprint.route("/healthz", methods=["GET"])
@blueprint.doc(security=[])
@blueprint.response(200, AliveSchema)
def healthz() -> dict[str, str]:
    """Tell that the process is there; asks nobody else."""
    return {"status": "alive"}


@blueprint.route("/readyz", methods=["GET"])
@blueprint.doc(security=[])
@blueprint.response(200, ReadySchema)
def readyz() -> dict[str, Any]:
    """Tell whether requests can be taken: the database, its schema, its clock, its secret."""
    try:
        checks = readiness.check(now, keyring())
    except Unavailable:
        checks = {"database": readiness.AWAY}
    if any(found != readiness.OK for found in checks.values()):
        raise Unavailable(
            "The service is not ready; checks say why.",
            checks=checks,
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )
    return {"status": "ready", "checks": checks}


@blueprint.route("/problems/<code>", methods=["GET"])
@blueprint.doc(security=[])
@blueprint.response(200, ProblemKindSchema)
def problem_kind(code: str) -> dict[str, Any]:
    """Tell what a problem code means and what to do: where the ``type`` of a problem leads."""
    kind = PROBLEMS.get(code)
    if kind is None:
        raise NotFound()
    return {
        "code": code,
        "status": kind.status,
        "title": kind.title,
        "remedy": REMEDIES.get(code, kind.title),
        "retryable": kind.retryable,
    }
