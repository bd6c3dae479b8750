"""Administrators' changes, as requests ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hq_service.api import auth
from hq_service.api.blueprints import keyring
from hq_service.operations.changes import Change
from hq_service.operations.clock import now


def change(wish: Mapping[str, Any]) -> Change:
    """Return the change that the current request is: by its caller, now, with its reason."""
    return Change(auth.current_actor(), wish["reason"], now(), keyring())


def members_to_change(wish: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an edit is about, without the reason for it."""
    return {name: value for name, value in wish.items() if name != "reason"}
