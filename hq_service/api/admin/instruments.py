"""Instruments that administrators issue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint, keyring
from hq_service.api.headers import REPLAY_TOLD, REPLAYED
from hq_service.api.schemas.administration import IssuedSchema, IssueRequestSchema
from hq_service.api.selling import instrument_members
from hq_service.domain.actors import Role
from hq_service.operations import instruments, waiting
from hq_service.operations.clock import now

blueprint = Blueprint("admin-instruments", "Instruments, for administrators")
auth.protect(blueprint)


@blueprint.route("/v1/admin/instruments", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(IssueRequestSchema)
@blueprint.response(201, IssuedSchema)
@blueprint.alt_response(
    200, schema=IssuedSchema, description="Issued before, told again", headers=REPLAY_TOLD
)
def issue_instrument(
    wish: Mapping[str, Any],
) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Issue a gift card or credit memo, active at once. HQ makes a number if none is given."""
    issued = instruments.issue(
        instruments.Issue(
            wish["reference"],
            wish["kind"],
            wish["currency"],
            wish["amount_minor"],
            wish.get("number"),
        ),
        auth.current_actor(),
        keyring(),
        now(),
    )
    waiting.judge_again_behind(keyring(), now())  # sales may have come before their card
    body = {
        "reference": wish["reference"],
        "instrument": instrument_members(issued.instrument),
        "number": issued.made_number,
    }
    return (body, 200, REPLAYED) if issued.is_replay else (body, 201, {})
