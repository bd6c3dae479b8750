"""The connection status of registers, and what an outage exposes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from hq_service.domain.connection import (
    ConnectionState,
    LockFigures,
    RegisterPresence,
    state_of,
)
from hq_service.domain.errors import NotFound
from hq_service.domain.parameters import Parameters
from hq_service.store import journals, parameters, presence, terminals
from hq_service.store.database import Connection, reading

PART_REGISTERS = 500
PARTS_MAX = 20
"""How many registers are looked at for one page of a state, in how many parts."""

Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class RegisterStatus:
    """What HQ knows of a register at a moment; ``locks`` by currency."""

    register: RegisterPresence
    state: ConnectionState
    since: datetime | None
    locks: Sequence[LockFigures]
    journal_gaps_count: int

    @property
    def locks_count(self) -> int:
        """Return how many live locks the register holds."""
        return sum(one.locks_count for one in self.locks)

    @property
    def grants_count(self) -> int:
        """Return how many of them have a grant that it may still be spending."""
        return sum(one.grants_count for one in self.locks)

    @property
    def exposures_minor(self) -> dict[str, int]:
        """Return what it may be spending under them, by currency."""
        return {one.currency: one.exposure_minor for one in self.locks if one.grants_count}


@dataclass(frozen=True, slots=True)
class StoreExposure:
    """What the registers of a store may be spending offline; only those with unspent grants."""

    store_id: str
    registers: Sequence[RegisterStatus]


@reading
def list_registers(
    connection: Connection,
    *,
    store_id: str | None,
    state: ConnectionState | None,
    after: Place | None,
    limit: int,
    now: datetime,
) -> tuple[list[RegisterStatus], Place | None]:
    """Return the status of registers by store and id, and the place where the page ends; None on
    the last.

    A state is derived from the clock and stored nowhere: where one is asked for, part after part
    is read until the page is full. A page that has looked at `PARTS_MAX` parts ends there, full or
    not, and says where.

    Raises:  NotFound ``store_not_found``.
    """
    _require_store(store_id)
    told: list[RegisterPresence] = []
    in_force_of: dict[str, Parameters] = {}
    part_registers = limit + 1 if state is None else PART_REGISTERS
    for _ in range(PARTS_MAX):
        part = presence.page(store_id=store_id, after=after, limit=part_registers)
        further = {one.store_id for one in part} - in_force_of.keys()
        if further:
            in_force_of |= parameters.in_force_now(further)
        for register in part:
            lease_seconds = in_force_of[register.store_id].lease_seconds
            if state in (None, state_of(register, lease_seconds, now)[0]):
                if len(told) == limit:
                    return _statuses(connection, told, in_force_of, now), _place_of(told[-1])
                told.append(register)
            after = _place_of(register)
        if len(part) < part_registers:
            return _statuses(connection, told, in_force_of, now), None
    return _statuses(connection, told, in_force_of, now), after


@reading
def exposure(connection: Connection, store_id: str, now: datetime) -> StoreExposure:
    """Return what the registers of a store may be spending offline at this moment.

    Retired ones, too: retiring a register does not end its grants.

    Raises:  NotFound ``store_not_found``.
    """
    _require_store(store_id)
    registers = list(_all_of_store(store_id))
    in_force_of = parameters.in_force_now([store_id])
    statuses = _statuses(connection, registers, in_force_of, now)
    return StoreExposure(store_id, [one for one in statuses if one.grants_count])


def _require_store(store_id: str | None) -> None:
    if store_id is not None and not terminals.store_exists(store_id):
        raise NotFound(code="store_not_found")


def _all_of_store(store_id: str) -> Iterator[RegisterPresence]:
    after: Place | None = None
    while True:
        part = presence.page(store_id=store_id, after=after, limit=PART_REGISTERS)
        yield from part
        if len(part) < PART_REGISTERS:
            return
        after = _place_of(part[-1])


def _statuses(
    connection: Connection,
    registers: Sequence[RegisterPresence],
    in_force_of: Mapping[str, Parameters],
    now: datetime,
) -> list[RegisterStatus]:
    """Return the status of some registers: two statements, however many they are."""
    if not registers:
        return []
    places = [_place_of(one) for one in registers]
    locks = _by_register(presence.lock_figures(connection, places, in_force_of, now))
    arrived = journals.read_of_registers(connection, places)
    statuses = []
    for register in registers:
        state, since = state_of(register, in_force_of[register.store_id].lease_seconds, now)
        place = _place_of(register)
        gaps = sum(1 for journal in arrived.get(place, ()) for _ in journal.gaps())
        statuses.append(RegisterStatus(register, state, since, locks.get(place, ()), gaps))
    return statuses


def _by_register(figures: Iterable[LockFigures]) -> dict[Place, list[LockFigures]]:
    found: dict[Place, list[LockFigures]] = {}
    for one in figures:
        found.setdefault((one.store_id, one.terminal_id), []).append(one)
    return found


def _place_of(register: RegisterPresence) -> Place:
    return register.store_id, register.terminal_id
