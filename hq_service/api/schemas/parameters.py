"""The Commerce parameters: what administrators send and get, and what tills read."""

from __future__ import annotations

import re
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from hq_service.api.schemas import queries
from hq_service.api.schemas.common import (
    ChangeReasonSchema,
    QueryInteger,
    StrictSchema,
    StrictText,
    plain_names,
)
from hq_service.domain.definitions import Unit, ValueType
from hq_service.domain.glossary import LANGUAGES
from hq_service.domain.parameters import ChangeState
from hq_service.domain.reading import IDENTIFIER_PATTERN

PAGE_MAX = 200
REVISION_MAX = 2**31 - 1


class ParametersSchema(Schema):
    """The Commerce parameters at a revision."""

    revision = fields.Integer(required=True)
    parameters = fields.Dict(keys=fields.String(), values=fields.Raw(), required=True)


class TillParametersSchema(ParametersSchema):
    """The Commerce parameters as a store has applied them, and since when it has this revision."""

    applied_at = fields.AwareDateTime(required=True, allow_none=True)


class SavedParametersSchema(Schema):
    """The newest revision that says something for a store."""

    revision = fields.Integer(required=True)
    saved_at = fields.AwareDateTime(required=True, allow_none=True)


class DistributedParametersSchema(Schema):
    """The newest revision that a store has applied."""

    revision = fields.Integer(required=True)
    applied_at = fields.AwareDateTime(required=True, allow_none=True)


class StoreParametersSchema(ParametersSchema):
    """The parameters of one store as saved: ``overrides`` are those that the store sets itself."""

    store_id = fields.String(required=True)
    overrides = fields.Dict(keys=fields.String(), values=fields.Raw(), required=True)
    saved = fields.Nested(SavedParametersSchema, required=True)
    distributed = fields.Nested(DistributedParametersSchema, required=True)


class ParametersEditSchema(ChangeReasonSchema):
    """A change of some parameters, with the reason for it."""

    parameters = fields.Dict(
        keys=fields.String(),
        values=fields.Raw(allow_none=True),  # what each may be, the domain knows
        required=True,
        validate=[validate.Length(min=1), plain_names("Is not the name of a parameter.")],
    )


class ParameterHistoryPageSchema(StrictSchema):
    """Which edits: of all scopes or what one store sets itself, of all parameters or one."""

    store_id = queries.name()
    name = StrictText(load_default=None, validate=validate.Length(1, 64))
    after = QueryInteger(load_default=None, validate=validate.Range(1, REVISION_MAX))
    limit = QueryInteger(load_default=PAGE_MAX, validate=validate.Range(1, PAGE_MAX))


class ParameterChangeSchema(Schema):
    """What an edit did to one parameter. Null, of a store: not set, so as the company has it."""

    name = fields.String(required=True)
    old = fields.Raw(required=True, allow_none=True)
    new = fields.Raw(required=True, allow_none=True)


class ParameterEditSchema(Schema):
    """Who changed what, when and why; ``store_id`` null is company-wide."""

    revision = fields.Integer(required=True)
    store_id = fields.String(required=True, allow_none=True)
    changed_at = fields.AwareDateTime(required=True)
    changed_by = fields.String(required=True)
    reason = fields.String(required=True)
    changes = fields.List(fields.Nested(ParameterChangeSchema), required=True)


class ParameterHistorySchema(Schema):
    """One page of edits, newest first; ``next_after`` asks for the page behind it."""

    revisions = fields.List(fields.Nested(ParameterEditSchema), required=True)
    next_after = fields.Integer(required=True, allow_none=True)


class RegisterPlace(fields.String):
    """Where the page before ended: ``S001/T01``, or ``S001/`` for a store without registers."""

    _FORM = re.compile(rf"({IDENTIFIER_PATTERN})/({IDENTIFIER_PATTERN}|)")

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        found = self._FORM.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise ValidationError("Must be the next_after of a page.")
        return found[1], found[2]


class ParameterStatesPageSchema(StrictSchema):
    """Which stores and registers; ``limit`` counts registers."""

    store_id = queries.name()
    after = RegisterPlace(load_default=None)
    limit = QueryInteger(load_default=PAGE_MAX, validate=validate.Range(1, PAGE_MAX))


class EffectiveParametersSchema(Schema):
    """The revision that a terminal has acknowledged last."""

    revision = fields.Integer(required=True)
    acknowledged_at = fields.AwareDateTime(required=True, allow_none=True)


class TerminalParameterStateSchema(Schema):
    """How far the newest saved change has come at a terminal.

    ``effective`` is null for one that never fetched; ``latest_effective_at`` is by when it has what
    is distributed to its store, null when there is nothing to wait for.
    """

    terminal_id = fields.String(required=True)
    state = fields.String(required=True, metadata={"enum": [one.value for one in ChangeState]})
    effective = fields.Nested(EffectiveParametersSchema, required=True, allow_none=True)
    latest_effective_at = fields.AwareDateTime(required=True, allow_none=True)


class StoreParameterStateSchema(Schema):
    """How far the newest saved change has come in a store."""

    store_id = fields.String(required=True)
    saved = fields.Nested(SavedParametersSchema, required=True)
    distributed = fields.Nested(DistributedParametersSchema, required=True)
    terminals = fields.List(fields.Nested(TerminalParameterStateSchema), required=True)


class ParameterStatesSchema(Schema):
    """One page of stores and their registers; a store that did not fit goes on with the next."""

    stores = fields.List(fields.Nested(StoreParameterStateSchema), required=True)
    next_after = fields.String(required=True, allow_none=True)


class ParameterChoiceSchema(Schema):
    """A value that a parameter may have, and its label."""

    value = fields.Raw(required=True)
    label = fields.String(required=True)


class ParameterPlaceSchema(Schema):
    """Where the documents send a person to find a parameter."""

    page = fields.String(required=True)
    tab = fields.String(required=True)
    fast_tab = fields.String(required=True)


class ParameterDefinitionSchema(Schema):
    """A parameter: what it may be, and its words in the answer's language."""

    name = fields.String(required=True)
    type = fields.String(required=True, metadata={"enum": [one.value for one in ValueType]})
    default = fields.Raw(required=True)
    minimum = fields.Integer(required=True, allow_none=True)
    maximum = fields.Integer(required=True, allow_none=True)
    choices = fields.List(fields.Nested(ParameterChoiceSchema), required=True)
    unit = fields.String(
        required=True, allow_none=True, metadata={"enum": [*(one.value for one in Unit), None]}
    )
    unit_label = fields.String(required=True, allow_none=True)
    label = fields.String(required=True)
    help = fields.String(required=True)
    path = fields.Nested(ParameterPlaceSchema, required=True, allow_none=True)


class ParameterDefinitionsSchema(Schema):
    """All parameters, in one language."""

    language = fields.String(required=True, metadata={"enum": list(LANGUAGES)})
    parameters = fields.List(fields.Nested(ParameterDefinitionSchema), required=True)
