"""Offline profiles: how a register behaves around an outage.

Every field is defined once, here. HQ keeps profiles and serves them to the tills with a version;
it is the tills that act on them.
Source: document "POS offline functionality" (time-out interval, reconnection attempt interval);
offline profile page of Dynamics 365 Commerce (the other fields).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hq_service.domain.definitions import Definition, Unit

DEFINITIONS: tuple[Definition, ...] = (
    Definition(
        "time_out_interval_seconds",
        30,
        "How long a request in the middle of a sale may take before the till switches to offline",
        minimum=1,
        maximum=300,
        unit=Unit.SECONDS,
    ),
    Definition(
        "reconnection_attempt_interval_seconds",
        300,
        "How long after it went offline the till tries to connect again, at the beginning of a"
        " transaction only",
        minimum=10,
        maximum=86_400,
        unit=Unit.SECONDS,
    ),
    Definition(
        "transaction_upload_interval_seconds",
        60,
        "How often the till uploads its offline transactions, as long as it is online and running",
        minimum=5,
        maximum=86_400,
        unit=Unit.SECONDS,
    ),
    Definition(
        "upload_transaction_size",
        100,
        "How many transactions one upload takes at most",
        minimum=1,
        maximum=10_000,
    ),
    Definition(
        "retry_count_to_offline",
        1,
        "How often a request that failed is tried again before the till switches to offline",
        minimum=0,
        maximum=10,
    ),
    Definition(
        "prompt_on_seamless_offline",
        True,
        "Whether the cashier is warned when the till switches to offline in the middle of a sale",
    ),
    Definition(
        "allow_manual_switch_to_offline_before_sign_in",
        False,
        "Whether the till may be switched to offline before anybody has signed in",
    ),
    Definition(
        "enable_advanced_offline_switching",
        False,
        "Whether the till also switches when HQ answers slowly, and looks after HQ's health itself",
    ),
    Definition(
        "system_health_check_interval_minutes",
        5,
        "How often a till with advanced offline switching asks whether HQ is healthy",
        minimum=1,
        maximum=1_440,
        unit=Unit.MINUTES,
    ),
    Definition(
        "pause_offline_synchronization",
        False,
        "Whether downloads to the till's offline database pause; uploads are always accepted",
    ),
)
DEFINITION_BY_NAME: Mapping[str, Definition] = {one.name: one for one in DEFINITIONS}

DEFAULTS_VERSION = 0
"""The version under which registers without a profile are served the defaults."""


@dataclass(frozen=True, slots=True)
class OfflineProfile:
    """An offline profile, with a value for every field; without id: the defaults."""

    offline_profile_id: str | None
    name: str | None
    version: int
    values: Mapping[str, Any]
    created_at: datetime | None = None
    retired_at: datetime | None = None


def complete(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value for every field: the given one, else the default.

    Names that this version does not know are passed over: a profile outlives the code.
    """
    return {one.name: values.get(one.name, one.default) for one in DEFINITIONS}


def defaults() -> OfflineProfile:
    """Return what a register without a profile goes by."""
    return OfflineProfile(None, None, DEFAULTS_VERSION, complete({}))


def faults(values: Mapping[str, object]) -> dict[str, str]:
    """Return what is wrong with some values: field to sentence; empty if nothing is."""
    found = {}
    for name, value in values.items():
        definition = DEFINITION_BY_NAME.get(name)
        fault = "is not a field of offline profiles" if definition is None else None
        if definition is not None:
            fault = definition.fault(value)
        if fault:
            found[name] = fault
    return found
