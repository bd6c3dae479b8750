"""What HQ has set up for a till: its register, its offline profile, the Commerce parameters.

The till keeps a copy and acts on it; how long, HQ says with it (Cache-Control).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from hq_service.domain import offline_profiles
from hq_service.domain.model import Kind
from hq_service.terminal.client import NOT_MODIFIED, Answer, Client
from hq_service.terminal.refusals import Refused
from hq_service.terminal.store import TillStore

_PATHS = {"parameters": "/v1/parameters", "register": "/v1/register"}
_ALLOWING = {
    Kind.GIFT_CARD: "allow_concluding_gift_card_transactions_offline",
    Kind.CREDIT_MEMO: "allow_concluding_credit_memo_transactions_offline",
}


class Setup:
    """The till's copies; without one it goes by the defaults of the offline profile."""

    def __init__(self, store: TillStore, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    @property
    def profile(self) -> Mapping[str, Any]:
        """Return a value for every field of the offline profile."""
        copy = self._store.fact("register") or {}
        return offline_profiles.complete(copy.get("offline_profile", {}).get("values", {}))

    @property
    def profile_version(self) -> int | None:
        """Return the version of the offline profile, None before it was ever fetched."""
        copy = self._store.fact("register")
        return copy["offline_profile"]["version"] if copy else None

    @property
    def supports_offline(self) -> bool:
        """Tell whether the register has *Support offline*, as far as the till knows."""
        copy = self._store.fact("register")
        return copy is None or bool(copy["register"]["supports_offline"])

    @property
    def revision(self) -> int | None:
        """Return the revision of the parameters that the till acts on, None before the first."""
        copy = self._store.fact("parameters")
        return copy["revision"] if copy else None

    def allows_offline(self, kind: str) -> bool:
        """Tell whether the parameter of a kind of instrument is Yes in the till's copy."""
        copy = self._store.fact("parameters") or {}
        return copy.get("parameters", {}).get(parameter_of(kind)) is True

    @property
    def is_stale(self) -> bool:
        """Tell whether a copy is missing or older than HQ said that it may become."""
        now = self._clock().isoformat()
        return any(self._store.fact(f"{name}_fresh_until", "") <= now for name in _PATHS)

    def fetch(self, client: Client) -> None:
        """Fetch both copies anew, or hear that they have not changed.

        Raises:  Unreachable; Refused.
        """
        for name in _PATHS:
            self._fetch(name, client)

    def fetch_register(self, client: Client) -> None:
        """Fetch the register and its offline profile alone.

        Raises:  Unreachable; Refused.
        """
        self._fetch("register", client)

    def _fetch(self, name: str, client: Client) -> None:
        copy = self._store.fact(name)
        etag = self._store.fact(f"{name}_etag") if copy else None
        answer = client.final(client.get(_PATHS[name], etag=etag))
        if answer.is_problem:
            raise Refused(answer)
        fresh_until = self._clock() + timedelta(seconds=answer.max_age_seconds or 0)
        with self._store.writing():
            if answer.status != NOT_MODIFIED:
                self._store.set_fact(name, _copy(answer))
                self._store.set_fact(f"{name}_etag", answer.etag)
                self._store.set_fact(f"{name}_fetched_at", self._clock().isoformat())
            self._store.set_fact(f"{name}_fresh_until", fresh_until.isoformat())


def parameter_of(kind: str) -> str:
    """Return the parameter that allows concluding offline for a kind of instrument."""
    return _ALLOWING[Kind(kind)]


def _copy(answer: Answer) -> Mapping[str, Any]:
    return dict(answer.body)
