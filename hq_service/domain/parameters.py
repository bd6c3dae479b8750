"""The Commerce parameters: business rules that administrators set, company-wide or per store.

Every parameter is defined once, here: its name, default, bounds and meaning. Deployment settings
are something else and live in ``hq_service/settings.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

from hq_service.domain.definitions import Definition, Unit
from hq_service.domain.model import Kind

STICKY = "sticky"
RELEASE = "release"


DEFINITIONS: tuple[Definition, ...] = (
    Definition(
        "allow_concluding_gift_card_transactions_offline",
        False,
        "With Yes, a sale that got its gift card line while the till was online may be concluded"
        " after the till went offline. It is posted, and the card unlocked, when its offline"
        " transactions reach headquarters. No gift card line can be started offline.",
    ),
    Definition(
        "allow_concluding_credit_memo_transactions_offline",
        False,
        "With Yes, a sale that got its credit memo line while the till was online may be concluded"
        " after the till went offline. It is posted, and the memo unlocked, when its offline"
        " transactions reach headquarters. No credit memo line can be started offline.",
    ),
    Definition(
        "parameter_cache_seconds",
        86_400,
        "How long a till may use its copy of the parameters. A distributed change is effective at"
        " every till that is online after this time at the latest, or with its next heartbeat when"
        " the cache is reset.",
        minimum=0,
        maximum=604_800,
        unit=Unit.SECONDS,
    ),
    Definition(
        "lease_seconds",
        900,
        "How long a terminal counts as present after its last sign of life. The lock of an absent"
        " terminal lapses, unless it was given with an offline grant.",
        minimum=30,
        maximum=86_400,
        unit=Unit.SECONDS,
    ),
    Definition(
        "offline_grant_hours",
        72,
        "How long after a lock its holder may spend under it offline.",
        minimum=1,
        maximum=2_160,
        unit=Unit.HOURS,
    ),
    Definition(
        "on_horizon",
        STICKY,
        "What becomes of a lock with an offline grant when the grant has run out.",
        choices=(STICKY, RELEASE),
    ),
    Definition(
        "credit_memo_partial_use",
        "reissue",
        "What becomes of the rest of a credit memo that is used in part.",
        choices=("reissue", "retain", "forfeit"),
    ),
    Definition(
        "gift_card_cash_out_threshold_minor",
        {},
        "Up to which balance a gift card may be cashed out, by currency, in its smallest unit."
        " Gift cards in a currency without an amount are never cashed out.",
        unit=Unit.MINOR,
    ),
    Definition(
        "offline_age_hours_max",
        720,
        "An offline sale that arrives later than this after its conclusion is marked as too old."
        " It is settled all the same.",
        minimum=1,
        maximum=87_600,
        unit=Unit.HOURS,
    ),
    Definition(
        "clock_skew_seconds_max",
        900,
        "How far a till's clock may be ahead of that of headquarters before its sales are marked.",
        minimum=1,
        maximum=86_400,
        unit=Unit.SECONDS,
    ),
)
DEFINITION_BY_NAME: Mapping[str, Definition] = {one.name: one for one in DEFINITIONS}


class ChangeState(StrEnum):
    """How far the newest saved change of a store has come at one of its terminals.

    Source: save, run the distribution schedule, wait for the cache or reset it.
    """

    SAVED = "saved"
    DISTRIBUTED = "distributed"
    EFFECTIVE = "effective"


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


def faults(changes: Mapping[str, object], *, is_override: bool = False) -> dict[str, str]:
    """Return what is wrong with a change: parameter name to sentence; empty if nothing is.

    Of an override, null takes it back.
    """
    found = {}
    for name, value in changes.items():
        definition = DEFINITION_BY_NAME.get(name)
        if definition is None:
            found[name] = "is not a Commerce parameter"
        elif not (is_override and value is None) and (fault := definition.fault(value)):
            found[name] = fault
    return found


def changes_of(before: Mapping[str, Any], wished: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some wished values that differ from the values before.

    Shapes: null is "no value": a value of null that was not there before is no change.
    """
    return {name: value for name, value in wished.items() if before.get(name) != value}


def changed(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with changes made; null takes a value out."""
    both = {**before, **changes}
    return {name: value for name, value in both.items() if value is not None}


@dataclass(frozen=True, slots=True)
class ChangedValue:
    """What an edit did to one parameter; null is "not set": the company's value holds."""

    name: str
    old: Any
    new: Any


def story_of(
    before: Mapping[str, Any], changes: Mapping[str, Any], *, is_override: bool
) -> tuple[ChangedValue, ...]:
    """Return what an edit changed, from the values of its scope before it.

    What the company had not set yet was the default; what a store had not set was the company's.
    """
    defaults = {} if is_override else Parameters().values()
    return tuple(
        ChangedValue(name, before.get(name, defaults.get(name)), new)
        for name, new in changes.items()
    )


def state_of(
    saved_revision: int, distributed_revision: int, acknowledged_revision: int | None
) -> ChangeState:
    """Return how far the newest saved change of a store has come at a terminal."""
    if acknowledged_revision is not None and acknowledged_revision >= saved_revision:
        return ChangeState.EFFECTIVE
    is_distributed = distributed_revision >= saved_revision
    return ChangeState.DISTRIBUTED if is_distributed else ChangeState.SAVED


def latest_effective_at(
    distributed_revision: int, applied_at: datetime | None, cached: Parameters | None
) -> datetime | None:
    """Return by when what is distributed to a store is effective at a terminal of it.

    ``cached`` is what the terminal has now: its copy may be as old as that very copy says. A till
    that is offline then has the change with its first fetch after that.

    Returns: None when there is nothing to wait for: it is effective already, or the terminal has
             no copy and fetches before it sells; and when it is not known since when it is
             distributed.
    """
    if applied_at is None or cached is None or cached.revision >= distributed_revision:
        return None
    return applied_at + timedelta(seconds=cached.parameter_cache_seconds)
