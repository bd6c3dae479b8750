"""Registers, for administrators."""

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
from hq_service.domain.registers import Accepted, Register
from hq_service.operations import registers
from hq_service.operations.clock import now
from hq_service.operations.registers import NewRegister

blueprint = Blueprint("admin-registers", "Registers, for administrators")
auth.protect(blueprint)

Answer = tuple[Any, int, dict[str, str]]
REGISTERS = "/v1/admin/stores/<store_id>/registers"
REGISTER = f"{REGISTERS}/<terminal_id>"


@blueprint.route(REGISTERS, methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(schemas.RetirablePageSchema, location="query")
@blueprint.response(200, schemas.RegistersSchema)
def list_registers(page: Mapping[str, Any], store_id: str) -> dict[str, Any]:
    """Tell the registers of a store by id; retired ones only if asked."""
    require_possible("store_not_found", store_id)
    limit = page["limit"]
    found = registers.page(
        store_id, after=page["after"], limit=limit + 1, with_retired=page["with_retired"]
    )
    told, next_after = one_page(found, limit, lambda one: one.terminal_id)
    return {"registers": told, "next_after": next_after}


@blueprint.route(REGISTERS, methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(schemas.NewRegisterSchema)
@blueprint.response(201, schemas.RegisterSchema, headers=ETAG_TOLD)
def create_register(wish: Mapping[str, Any], store_id: str) -> Answer:
    """Create a register. Its id stands for it for ever, whatever device is behind it."""
    require_possible("store_not_found", store_id)
    made = NewRegister(
        store_id,
        wish["terminal_id"],
        wish["name"],
        wish["supports_offline"],
        wish["offline_profile_id"],
    )
    return _answer(registers.create(made, change(wish)), 201)


@blueprint.route(REGISTER, methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, schemas.RegisterSchema, headers=ETAG_TOLD)
def show_register(store_id: str, terminal_id: str) -> Answer:
    """Tell one register; the ETag is for If-Match."""
    return _answer(_show(store_id, terminal_id))


@blueprint.route(REGISTER, methods=["PATCH"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(schemas.RegisterEditSchema)
@blueprint.doc(parameters=[IF_MATCH])
@blueprint.response(200, schemas.RegisterSchema, headers=ETAG_TOLD)
def edit_register(wish: Mapping[str, Any], store_id: str, terminal_id: str) -> Answer:
    """Change a register's name, whether it supports offline, or its offline profile.

    Needs If-Match, and a reason.
    """
    require_possible("register_not_found", store_id, terminal_id)
    seen = seen_version(lambda: _show(store_id, terminal_id).version)
    changes = members_to_change(wish)
    return _answer(registers.edit(store_id, terminal_id, changes, seen, change(wish)))


@blueprint.route(f"{REGISTER}/retirement", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, schemas.RegisterRetirementSchema)
def show_retirement(store_id: str, terminal_id: str) -> dict[str, Any]:
    """Tell what retiring a register would leave behind: gaps in its journals, live locks and
    grants with what they may be spending, open cases, what the till told last.
    """
    require_possible("register_not_found", store_id, terminal_id)
    register, left = registers.at_stake(store_id, terminal_id, now())
    return {"register": register, "at_stake": registers.figures(left)}


@blueprint.route(f"{REGISTER}/retirement", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(schemas.RetirementSchema)
@blueprint.response(200, schemas.RegisterSchema, headers=ETAG_TOLD)
def retire_register(wish: Mapping[str, Any], store_id: str, terminal_id: str) -> Answer:
    """Retire a register, accepting what was shown to be at stake.

    Nothing is locked or granted to it any more; what it still sends is kept and quarantined.
    """
    require_possible("register_not_found", store_id, terminal_id)
    accepted = Accepted(**wish["accepted"])
    return _answer(registers.retire(store_id, terminal_id, accepted, change(wish)))


@blueprint.route(f"{REGISTER}/reactivation", methods=["POST"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(ChangeReasonSchema)
@blueprint.response(200, schemas.RegisterSchema, headers=ETAG_TOLD)
def reactivate_register(wish: Mapping[str, Any], store_id: str, terminal_id: str) -> Answer:
    """Take a retired register into use again, under its number and with its history."""
    require_possible("register_not_found", store_id, terminal_id)
    return _answer(registers.reactivate(store_id, terminal_id, change(wish)))


def _show(store_id: str, terminal_id: str) -> Register:
    require_possible("register_not_found", store_id, terminal_id)
    return registers.show(store_id, terminal_id)


def _answer(register: Register, status: int = 200) -> Answer:
    return register, status, etag(register.version)
