"""What download sessions carry, made from what is saved at this moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hq_service.domain import offline_profiles as profile_rules
from hq_service.domain.distribution import (
    CHANNEL_CONFIGURATION,
    GLOBAL_CONFIGURATION,
    REGISTERS,
    Direction,
    Job,
    Package,
    package_of,
)
from hq_service.domain.offline_profiles import OfflineProfile
from hq_service.domain.registers import Register, Store
from hq_service.store import distribution, offline_profiles, parameters


def make(stores: Sequence[Store], jobs: Iterable[Job]) -> dict[tuple[str, str], Package]:
    """Return the packages of some jobs for some stores, by store and job; uploads have none."""
    downloads = [job for job in jobs if job.direction is Direction.DOWNLOAD]
    made: dict[tuple[str, str], Package] = {}
    if REGISTERS in downloads:
        registers = distribution.registers_of([store.store_id for store in stores])
        profiles = offline_profiles.every()
        for store in stores:
            content = _registers(registers[store.store_id], profiles)
            place = (store.store_id, REGISTERS.job_id)
            made[place] = package_of(REGISTERS, store.store_id, None, content)
    with_parameters = [job for job in downloads if job is not REGISTERS]
    if not with_parameters:
        return made
    in_force = parameters.in_force_now(store.store_id for store in stores)
    for store in stores:
        saved = in_force[store.store_id]
        for job in with_parameters:
            content = _CONTENT[job.job_id](store, saved.values())
            place = (store.store_id, job.job_id)
            made[place] = package_of(job, store.store_id, saved.revision, content)
    return made


def _global_configuration(_store: Store, resolved: Mapping[str, Any]) -> dict[str, Any]:
    return {"parameters": dict(resolved)}


def _channel_configuration(store: Store, resolved: Mapping[str, Any]) -> dict[str, Any]:
    # The parameters come along: a store has one revision of them, whichever job brought it.
    names = ("store_id", "name", "time_zone", "version")
    record = {name: getattr(store, name) for name in names}
    return {"store": record, "parameters": dict(resolved)}


_CONTENT = {
    GLOBAL_CONFIGURATION.job_id: _global_configuration,
    CHANNEL_CONFIGURATION.job_id: _channel_configuration,
}


def _registers(
    registers: Sequence[Register], profiles: Mapping[str, OfflineProfile]
) -> dict[str, Any]:
    """Return the registers of a store, and each offline profile that one of them goes by."""
    told = [
        {
            "terminal_id": one.terminal_id,
            "name": one.name,
            "supports_offline": one.supports_offline,
            "is_retired": one.retired_at is not None,
            "offline_profile_id": one.offline_profile_id,
            "version": one.version,
        }
        for one in registers
    ]
    used = sorted({one.offline_profile_id or "" for one in registers})
    return {
        "registers": told,
        "offline_profiles": [_profile(profiles[name] if name else None) for name in used],
    }


def _profile(stored: OfflineProfile | None) -> dict[str, Any]:
    """Return a profile as tills are served it; without one, the defaults under the id null."""
    one = stored or profile_rules.defaults()
    return {
        "offline_profile_id": one.offline_profile_id,
        "name": one.name,
        "version": one.version,
        "values": dict(one.values),
    }
