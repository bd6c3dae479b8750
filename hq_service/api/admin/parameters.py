"""The Commerce parameters as administrators read and edit them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hq_service.api import auth
from hq_service.api.blueprints import Blueprint
from hq_service.api.changes import change
from hq_service.api.headers import ETAG_TOLD, IF_MATCH
from hq_service.api.languages import headers_of, language_of_request
from hq_service.api.names import require_possible
from hq_service.api.pages import one_page
from hq_service.api.parameters import members
from hq_service.api.preconditions import etag, seen_version
from hq_service.api.schemas.parameters import (
    ParameterDefinitionsSchema,
    ParameterHistoryPageSchema,
    ParameterHistorySchema,
    ParametersEditSchema,
    ParametersSchema,
    ParameterStatesPageSchema,
    ParameterStatesSchema,
    StoreParametersSchema,
)
from hq_service.domain.actors import Role
from hq_service.domain.parameter_texts import Description, describe
from hq_service.domain.parameters import DEFINITIONS
from hq_service.operations import parameters
from hq_service.operations.parameters import StoreParameters, TerminalState

blueprint = Blueprint("admin-parameters", "The Commerce parameters, for administrators")
auth.protect(blueprint)

Answer = tuple[dict[str, Any], int, dict[str, str]]
OF_STORE = "/v1/admin/stores/<store_id>/parameters"


@blueprint.route("/v1/admin/parameters", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, ParametersSchema, headers=ETAG_TOLD)
def read_company_parameters() -> Answer:
    """Tell the company-wide parameters as saved last; the ETag is for If-Match."""
    saved = parameters.read_for_administrator()
    return members(saved), 200, etag(saved.revision)


@blueprint.route("/v1/admin/parameters", methods=["PATCH"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(ParametersEditSchema)
@blueprint.doc(parameters=[IF_MATCH])
@blueprint.response(200, ParametersSchema, headers=ETAG_TOLD)
def edit_parameters(wish: Mapping[str, Any]) -> Answer:
    """Save a new revision with some parameters changed. Needs If-Match, and a reason.

    If they have those values already, nothing is saved and the revision stays.
    """
    seen = seen_version(lambda: parameters.read_for_administrator().revision)
    saved = parameters.edit(wish["parameters"], seen, change(wish))
    return members(saved), 200, etag(saved.revision)


@blueprint.route(OF_STORE, methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, StoreParametersSchema, headers=ETAG_TOLD)
def read_parameters_of_store(store_id: str) -> Answer:
    """Tell the parameters of one store as saved last, what it sets itself, and what has arrived."""
    return _of_store(_show(store_id))


@blueprint.route(OF_STORE, methods=["PATCH"])
@auth.allow(Role.ADMIN)
@blueprint.arguments(ParametersEditSchema)
@blueprint.doc(parameters=[IF_MATCH])
@blueprint.response(200, StoreParametersSchema, headers=ETAG_TOLD)
def edit_parameters_of_store(wish: Mapping[str, Any], store_id: str) -> Answer:
    """Save what one store sets itself; null takes it back. Needs If-Match, and a reason.

    The ETag changes with the company's parameters, too: what a store does not set, it has from
    there. If the store sets those values already, nothing is saved and the revision stays.
    """
    require_possible("store_not_found", store_id)
    seen = seen_version(lambda: _show(store_id).saved.revision)
    return _of_store(parameters.edit_of_store(store_id, wish["parameters"], seen, change(wish)))


@blueprint.route("/v1/admin/parameters/history", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(ParameterHistoryPageSchema, location="query")
@blueprint.response(200, ParameterHistorySchema)
def list_history(page: Mapping[str, Any]) -> dict[str, Any]:
    """Tell who changed what, newest first, with old and new value."""
    found = parameters.history(**{**page, "limit": page["limit"] + 1})
    told, next_after = one_page(found, page["limit"], lambda one: one.revision)
    return {"revisions": told, "next_after": next_after}


@blueprint.route("/v1/admin/parameters/states", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.arguments(ParameterStatesPageSchema, location="query")
@blueprint.response(200, ParameterStatesSchema)
def list_states(page: Mapping[str, Any]) -> dict[str, Any]:
    """Tell of every register in use what is saved, distributed and effective there, and since when.

    Also by when what is distributed will be effective.
    """
    found, end = parameters.states(**page)
    stores = [
        {
            "store_id": one.store_id,
            "saved": one.saved,
            "distributed": one.distributed,
            "terminals": [_of_terminal(terminal) for terminal in one.terminals],
        }
        for one in found
    ]
    return {"stores": stores, "next_after": "/".join(end) if end else None}


@blueprint.route("/v1/admin/parameters/definitions", methods=["GET"])
@auth.allow(Role.ADMIN, Role.AUDITOR)
@blueprint.response(200, ParameterDefinitionsSchema)
def list_definitions() -> Answer:
    """Tell what every parameter may be, with label and help in the language of Accept-Language.

    There are en, sv, nl, zh-CN and fr; English for all others.
    """
    language = language_of_request()
    described = [_definition(describe(one, language)) for one in DEFINITIONS]
    return {"language": language, "parameters": described}, 200, headers_of(language)


def _show(store_id: str) -> StoreParameters:
    require_possible("store_not_found", store_id)
    return parameters.read_of_store(store_id)


def _of_store(found: StoreParameters) -> Answer:
    body = {
        "store_id": found.store_id,
        **members(found.parameters),
        "overrides": found.overrides,
        "saved": found.saved,
        "distributed": found.distributed,
    }
    return body, 200, etag(found.saved.revision)


def _of_terminal(found: TerminalState) -> dict[str, Any]:
    effective = {"revision": found.revision, "acknowledged_at": found.acknowledged_at}
    return {
        "terminal_id": found.terminal_id,
        "state": found.state,
        "effective": None if found.revision is None else effective,
        "latest_effective_at": found.latest_effective_at,
    }


def _definition(described: Description) -> dict[str, Any]:
    definition = described.definition
    return {
        "name": definition.name,
        "type": definition.value_type,
        "default": definition.default,
        "minimum": definition.minimum,
        "maximum": definition.maximum,
        "choices": described.choices,
        "unit": definition.unit,
        "unit_label": described.unit_label,
        "label": described.label,
        "help": described.help,
        "path": described.path,
    }
