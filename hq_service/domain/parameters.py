"""The Commerce parameters: business rules that administrators set, company-wide or per store.

Every parameter is defined once, here: its name, default, bounds and meaning. Deployment settings
are something else and live in ``hq_service/settings.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from hq_service.domain.model import Kind
from hq_service.domain.money import AMOUNT_MINOR_MAX, CURRENCY_EXPONENTS

STICKY = "sticky"
RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Definition:
    """One parameter: what it may be and what it is for."""

    name: str
    default: bool | int | str | Mapping[str, int]
    help: str
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()

    def fault(self, value: object) -> str | None:
        """Return why a value is not allowed, as a sentence that says what is; None if it is."""
        if isinstance(self.default, bool):
            return None if isinstance(value, bool) else "must be true (Yes) or false (No)"
        if isinstance(self.default, int):
            if isinstance(value, bool) or not isinstance(value, int):
                return "must be an integer"
            if not (self.minimum or 0) <= value <= (self.maximum or 0):
                return f"must be between {self.minimum} and {self.maximum}"
            return None
        if isinstance(self.default, Mapping):
            return _fault_of_amounts(value)
        is_choice = isinstance(value, str) and value in self.choices
        return None if is_choice else f"must be one of {', '.join(self.choices)}"


def _fault_of_amounts(value: object) -> str | None:
    if not isinstance(value, dict) or not all(
        currency in CURRENCY_EXPONENTS and type(amount) is int and 0 <= amount <= AMOUNT_MINOR_MAX
        for currency, amount in value.items()
    ):
        return "must be an object of ISO 4217 codes and amounts in their smallest unit"
    return None


DEFINITIONS: tuple[Definition, ...] = (
    Definition(
        "allow_concluding_gift_card_transactions_offline",
        False,
        "Allow concluding gift card transactions in offline mode",
    ),
    Definition(
        "allow_concluding_credit_memo_transactions_offline",
        False,
        "Allow concluding credit memo transactions in offline mode",
    ),
    Definition(
        "parameter_cache_seconds",
        86_400,
        "How long a till may use its copy of the parameters",
        minimum=0,
        maximum=604_800,
    ),
    Definition(
        "lease_seconds",
        900,
        "How long after its last sign of life a terminal still counts as present",
        minimum=30,
        maximum=86_400,
    ),
    Definition(
        "offline_grant_hours",
        72,
        "How long after a lock its holder may spend under it offline",
        minimum=1,
        maximum=2_160,
    ),
    Definition(
        "on_horizon",
        STICKY,
        "What becomes of a granted lock when its grant has run out: kept, or freed",
        choices=(STICKY, RELEASE),
    ),
    Definition(
        "credit_memo_partial_use",
        "reissue",
        "What becomes of the rest of a credit memo: a new memo, kept on it, or forfeited",
        choices=("reissue", "retain", "forfeit"),
    ),
    Definition(
        "gift_card_cash_out_threshold_minor",
        {},
        "Up to which balance a gift card may be cashed out, by currency; none means never",
    ),
    Definition(
        "offline_age_hours_max",
        720,
        "How long after its conclusion an offline sale counts as too old",
        minimum=1,
        maximum=87_600,
    ),
    Definition(
        "clock_skew_seconds_max",
        900,
        "How far a till's clock may be ahead of HQ's",
        minimum=1,
        maximum=86_400,
    ),
)
DEFINITION_BY_NAME: Mapping[str, Definition] = {one.name: one for one in DEFINITIONS}


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters that are in force for one store, at one revision."""

    revision: int = 0
    allow_concluding_gift_card_transactions_offline: bool = False
    allow_concluding_credit_memo_transactions_offline: bool = False
    parameter_cache_seconds: int = 86_400
    lease_seconds: int = 900
    offline_grant_hours: int = 72
    on_horizon: Literal["sticky", "release"] = "sticky"
    credit_memo_partial_use: Literal["reissue", "retain", "forfeit"] = "reissue"
    gift_card_cash_out_threshold_minor: Mapping[str, int] = field(default_factory=dict)
    offline_age_hours_max: int = 720
    clock_skew_seconds_max: int = 900

    def allows_concluding_offline(self, kind: str) -> bool:
        """Tell whether sales with this kind of instrument may be concluded offline.

        Source: Commerce parameters, tab Posting, FastTabs Gift card and Credit memo.
        """
        if kind == Kind.CREDIT_MEMO:
            return self.allow_concluding_credit_memo_transactions_offline
        return self.allow_concluding_gift_card_transactions_offline

    def values(self) -> dict[str, Any]:
        """Return name and value of every parameter, without the revision."""
        return {one.name: getattr(self, one.name) for one in DEFINITIONS}


def in_force(revision: int, *layers: Mapping[str, Any]) -> Parameters:
    """Return the defaults, overlaid by the company's values, then by the store's override.

    Names that this version does not know are passed over: a revision outlives the code.
    """
    known = {one.name for one in fields(Parameters)} - {"revision"}
    parameters = Parameters(revision=revision)
    for layer in layers:
        parameters = replace(
            parameters, **{name: value for name, value in layer.items() if name in known}
        )
    return parameters


def faults(changes: Mapping[str, object]) -> dict[str, str]:
    """Return what is wrong with a change: parameter name to sentence; empty if nothing is."""
    found = {}
    for name, value in changes.items():
        definition = DEFINITION_BY_NAME.get(name)
        fault = "is not a Commerce parameter" if definition is None else definition.fault(value)
        if fault:
            found[name] = fault
    return found
