"""Whether HQ is well enough to be asked, for tills with advanced offline switching.

Such a till switches more easily: it takes a slow answer for a reason to go offline, and looks after
HQ's health by itself, whatever the cashier does, to go offline before a sale has to find out, and
to come back as soon as HQ is well again.
Source: Dynamics, offline profile: Enable advanced offline switching; System health check interval.
From which delay on an answer is slow is our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hq_service.terminal.client import Answer, Client, Unreachable

PATH = "/readyz"

SLOW_SHARE = 1 / 3
"""An answer is slow when it took more than this share of the time-out interval."""


def is_looked_after(profile: Mapping[str, Any]) -> bool:
    """Tell whether an offline profile has advanced offline switching."""
    return bool(profile["enable_advanced_offline_switching"])


def slowness(answer: Answer, profile: Mapping[str, Any]) -> str | None:
    """Return in a sentence that an answer was slow; None if not, or if that does not matter."""
    limit_seconds = profile["time_out_interval_seconds"] * SLOW_SHARE
    if not is_looked_after(profile) or answer.seconds <= limit_seconds:
        return None
    return f"HQ answers slowly: it took {answer.seconds:.1f} s."


def complaint(client: Client, profile: Mapping[str, Any]) -> str | None:
    """Ask HQ whether it is ready; return in a sentence why it is not well, None if it is."""
    client.wait_at_most(profile["time_out_interval_seconds"])
    try:
        answer = client.get(PATH)
    except Unreachable as error:
        return str(error)
    if answer.at("status") != "ready":
        return f"HQ is not well: it answered {answer.status} to the health check."
    return slowness(answer, profile)
