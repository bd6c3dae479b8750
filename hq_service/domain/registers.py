"""Stores and registers, and what retiring a register puts at stake."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from hq_service.domain import locking
from hq_service.domain.model import Instrument
from hq_service.domain.parameters import Parameters

# In the list, but no place: "nowhere yet", and whatever this machine is set to.
_NO_ZONES = frozenset({"Factory", "localtime"})


@dataclass(frozen=True, slots=True)
class Store:
    """A store of the retailer; ``time_zone`` is a name of the IANA database."""

    store_id: str
    name: str
    time_zone: str
    version: int
    created_at: datetime
    retired_at: datetime | None


@dataclass(frozen=True, slots=True)
class Register:
    """A register (POS terminal) of a store.

    Source: Register page, "Support offline"; its offline profile, None for the defaults.
    """

    store_id: str
    terminal_id: str
    name: str
    supports_offline: bool
    offline_profile_id: str | None
    version: int
    created_at: datetime
    retired_at: datetime | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Lines of a journal that HQ never got, though later ones arrived; ``last`` included."""

    journal_id: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """What an administrator was shown, and accepts by retiring a register or a store."""

    gaps_count: int
    live_grants_count: int
    open_cases_count: int


@dataclass(frozen=True, slots=True)
class LiveLocks:
    """The live locks of a register: how many, how many of them granted, and what the granted ones
    may be spending offline, by currency.
    """

    locks_count: int
    grants_count: int
    exposures_minor: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class AtStake:
    """What is not settled of a register. ``gaps`` are the first of all ``gaps_count``.

    ``pending_count``, ``pending_amounts_minor`` and ``oldest_pending_at`` are what the till itself
    told last, at ``reported_at``; None if it never did.
    """

    gaps: tuple[Gap, ...]
    gaps_count: int
    live: LiveLocks
    open_cases_count: int
    pending_count: int | None
    pending_amounts_minor: Mapping[str, int] | None
    oldest_pending_at: datetime | None
    reported_at: datetime | None
    last_seen_at: datetime | None

    @property
    def to_accept(self) -> Accepted:
        """Return what has to be accepted word by word."""
        return Accepted(self.gaps_count, self.live.grants_count, self.open_cases_count)


@dataclass(frozen=True, slots=True)
class Pending:
    """What tills told last to be pending: how much, since when, and how many of them told it.

    ``count``, ``amounts_minor`` and ``oldest_at`` are None if none did.
    """

    told_count: int = 0
    count: int | None = None
    amounts_minor: Mapping[str, int] | None = None
    oldest_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoreAtStake:
    """What is not settled of a store: of all its registers together, retired ones included."""

    registers_count: int
    gaps_count: int
    live: LiveLocks
    open_cases_count: int
    pending: Pending

    @property
    def to_accept(self) -> Accepted:
        """Return what has to be accepted word by word."""
        return Accepted(self.gaps_count, self.live.grants_count, self.open_cases_count)


def together(told: Iterable[Pending]) -> Pending:
    """Return what several tills told as one sum."""
    of_tills = [one for one in told if one.count is not None]
    if not of_tills:
        return Pending()
    amounts_minor: dict[str, int] = {}
    for one in of_tills:
        for currency, amount_minor in (one.amounts_minor or {}).items():
            amounts_minor[currency] = amounts_minor.get(currency, 0) + amount_minor
    return Pending(
        told_count=sum(one.told_count for one in of_tills),
        count=sum(one.count or 0 for one in of_tills),
        amounts_minor=amounts_minor,
        oldest_at=min((one.oldest_at for one in of_tills if one.oldest_at), default=None),
    )


def live_locks(locked: Iterable[Instrument], parameters: Parameters, now: datetime) -> LiveLocks:
    """Return what the locks on some instruments amount to.

    A granted lock whose grant ran out, and that the parameters free then, counts as a lock only.
    """
    locks_count = grants_count = 0
    exposures_minor: dict[str, int] = {}
    for instrument in locked:
        lock = instrument.lock
        if lock is None:
            continue
        locks_count += 1
        if lock.grant_until is None or locking.is_past_horizon(lock, parameters, now):
            continue
        grants_count += 1
        exposure = locking.exposure_minor(lock, instrument, parameters, now)
        exposures_minor[instrument.currency] = (
            exposures_minor.get(instrument.currency, 0) + exposure
        )
    return LiveLocks(locks_count, grants_count, exposures_minor)


def is_time_zone(name: str) -> bool:
    """Tell whether a name is one of the IANA time zone database, written as there."""
    return name in _time_zones()


@cache
def _time_zones() -> frozenset[str]:
    # By the list, not by opening a file of that name: some file systems pass over capitals.
    return frozenset(zoneinfo.available_timezones()) - _NO_ZONES
