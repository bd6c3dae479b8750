"""Registers: created, edited, retired once it is clear what is at stake, taken into use again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from hq_service.domain import offline_profiles as profile_rules
from hq_service.domain.actors import Actor
from hq_service.domain.audit import Action
from hq_service.domain.errors import InvalidRequest, NotFound, PreconditionRequired, Refused
from hq_service.domain.journals import Journal
from hq_service.domain.offline_profiles import OfflineProfile
from hq_service.domain.registers import Accepted, AtStake, Gap, Register, Store, live_locks
from hq_service.operations.changes import Change, not_as_seen, old_and_new, record, require_free
from hq_service.operations.stores import existing_store
from hq_service.store import (
    distribution,
    journals,
    offline_profiles,
    parameters,
    registers,
    terminals,
)
from hq_service.store.database import Connection, confirm_durable, reading, transactional

GAPS_TOLD_MAX = 100


@dataclass(frozen=True, slots=True)
class NewRegister:
    """A register to create; ``offline_profile_id`` None goes by the defaults."""

    store_id: str
    terminal_id: str
    name: str
    supports_offline: bool
    offline_profile_id: str | None


@dataclass(frozen=True, slots=True)
class RegisterSetup:
    """What a till needs to know of itself, and how long it may use its copy."""

    store: Store
    register: Register
    offline_profile: OfflineProfile
    cache_seconds: int


@reading
def show(_connection: Connection, store_id: str, terminal_id: str) -> Register:
    """Return a register.

    Raises:  NotFound ``register_not_found``.
    """
    return existing_register(store_id, terminal_id)


@reading
def page(
    _connection: Connection, store_id: str, *, after: str, limit: int, with_retired: bool
) -> list[Register]:
    """Return registers of a store by id, after an id.

    Raises:  NotFound ``store_not_found``.
    """
    existing_store(store_id)
    return registers.list_registers(store_id, after=after, limit=limit, with_retired=with_retired)


@transactional
def create(connection: Connection, wish: NewRegister, change: Change) -> Register:
    """Create a register in a store that is in use.

    Raises:  NotFound ``store_not_found``; Refused ``retired`` for a retired store,
             ``already_exists``, also for an id that differs only in capitals; InvalidRequest for a
             profile that is unknown or retired.
    """
    existing_store(wish.store_id)
    # Of two that differ only in capitals and come at once, one waits here and is refused.
    if distribution.lock_store(wish.store_id).retired_at is not None:
        raise Refused("The store is retired. Reactivate it first.", code="retired")
    require_free(wish.terminal_id, registers.registers_alike(wish.store_id, wish.terminal_id))
    made = Register(**asdict(wish), version=1, created_at=change.now, retired_at=None)
    _require_profile(wish.offline_profile_id)
    registers.add_register(made)
    # Again: retiring the profile waits for what was just written, or that waited for it.
    _require_profile(wish.offline_profile_id)
    new = {
        "name": wish.name,
        "supports_offline": wish.supports_offline,
        "offline_profile_id": wish.offline_profile_id,
    }
    subject = subject_of(wish.store_id, wish.terminal_id)
    record(connection, change, Action.REGISTER_CREATED, subject, new=new)
    return made


@transactional
def edit(
    connection: Connection,
    store_id: str,
    terminal_id: str,
    changes: Mapping[str, Any],
    seen_version: int | None,
    change: Change,
) -> Register:
    """Change a register's name, whether it supports offline, or its offline profile.

    Raises:  NotFound; Refused ``retired``; InvalidRequest for a profile that is unknown or
             retired; PreconditionRequired, PreconditionFailed.
    """
    before = existing_register(store_id, terminal_id)
    if seen_version is None:
        raise PreconditionRequired()
    _require_profile(changes.get("offline_profile_id"))
    if not registers.edit_register(store_id, terminal_id, seen_version, changes):
        raise not_as_seen(existing_register(store_id, terminal_id), seen_version)
    # Again: retiring the profile waits for what was just written, or that waited for it.
    _require_profile(changes.get("offline_profile_id"))
    subject = subject_of(store_id, terminal_id)
    told = old_and_new(before, changes)
    record(connection, change, Action.REGISTER_EDITED, subject, **told)
    return existing_register(store_id, terminal_id)


@reading
def at_stake(
    connection: Connection, store_id: str, terminal_id: str, now: datetime
) -> tuple[Register, AtStake]:
    """Return what is not settled of a register: what retiring it would leave behind.

    Raises:  NotFound ``register_not_found``.
    """
    register = existing_register(store_id, terminal_id)
    arrived = journals.read(connection, store_id)
    return register, _at_stake(connection, register, arrived, now)


@transactional
def retire(
    connection: Connection, store_id: str, terminal_id: str, accepted: Accepted, change: Change
) -> Register:
    """Take a register out of use, accepting what is left of it. HQ locks and grants nothing to it
    any more; what it still sends is kept, quarantined, with a case.

    One that is retired already stays as it is.

    Raises:  NotFound; Refused ``register_not_clear`` with what is at stake now.
    """
    existing_register(store_id, terminal_id)
    if not registers.retire_register(store_id, terminal_id, change.now):
        confirm_durable(connection)
        return existing_register(store_id, terminal_id)
    retired = existing_register(store_id, terminal_id)
    # The journals wait for a batch that is being settled, so its lines are counted one way or the
    # other. What can still arrive although it was counted without it: a batch that was received
    # before this moment is settled as of then; and a sale that was concluding may end its lock.
    # Neither loses money: a batch of a retired register is kept and makes cases.
    names = [name for name in journals.read(connection, store_id) if name[0] == terminal_id]
    arrived = journals.load_for_update(connection, store_id, names) if names else {}
    # Behind the journals: a batch that has them may wait for a card that is just being locked.
    registers.await_locks(connection)
    left = _at_stake(connection, retired, arrived, change.now)
    if left.to_accept != accepted:
        raise Refused(code="register_not_clear", at_stake=figures(left))
    subject = subject_of(store_id, terminal_id)
    record(connection, change, Action.REGISTER_RETIRED, subject, at_stake=figures(left))
    return retired


@transactional
def reactivate(connection: Connection, store_id: str, terminal_id: str, change: Change) -> Register:
    """Take a retired register into use again, under its number and with its history.

    One that is in use stays as it is. Lines of it that were quarantined meanwhile are settled when
    they are sent again in a new batch. If its offline profile was retired meanwhile, it goes by
    the defaults.

    Raises:  NotFound ``register_not_found``.
    """
    existing_register(store_id, terminal_id)
    if not registers.reactivate_register(store_id, terminal_id):
        confirm_durable(connection)
        return existing_register(store_id, terminal_id)
    told = _drop_retired_profile(existing_register(store_id, terminal_id))
    subject = subject_of(store_id, terminal_id)
    record(connection, change, Action.REGISTER_REACTIVATED, subject, **told)
    return existing_register(store_id, terminal_id)


@reading
def read_for_till(_connection: Connection, actor: Actor) -> RegisterSetup:
    """Return what a till needs to know of itself: its store, its record, its offline profile."""
    assert actor.store_id is not None  # a terminal's key has both
    assert actor.terminal_id is not None
    register = existing_register(actor.store_id, actor.terminal_id)
    profile_id = register.offline_profile_id
    profile = offline_profiles.read(profile_id) if profile_id is not None else None
    applied = parameters.in_force_at(actor.store_id, terminals.applied_revision(actor.store_id))
    return RegisterSetup(
        existing_store(actor.store_id),
        register,
        profile or profile_rules.defaults(),
        applied.parameter_cache_seconds,
    )


def figures(left: AtStake) -> dict[str, Any]:
    """Return what is at stake as answers and the audit tell it."""
    return {
        "gaps": [asdict(gap) for gap in left.gaps],
        "gaps_count": left.gaps_count,
        "live_locks_count": left.live.locks_count,
        "live_grants_count": left.live.grants_count,
        "exposures_minor": dict(left.live.exposures_minor),
        "open_cases_count": left.open_cases_count,
        "pending_count": left.pending_count,
        "pending_amounts_minor": left.pending_amounts_minor,
        "oldest_pending_at": left.oldest_pending_at,
        "reported_at": left.reported_at,
        "last_seen_at": left.last_seen_at,
    }


def existing_register(store_id: str, terminal_id: str) -> Register:
    """Return a register, inside a transaction.

    Raises:  NotFound ``register_not_found``.
    """
    register = registers.read_register(store_id, terminal_id)
    if register is None:
        raise NotFound(code="register_not_found")
    return register


def subject_of(store_id: str, terminal_id: str) -> str:
    """Return what the audit calls a register."""
    return f"register:{store_id}/{terminal_id}"


def _require_profile(offline_profile_id: str | None) -> None:
    """Refuse a profile that no register may be given."""
    if offline_profile_id is None:
        return
    profile = offline_profiles.read(offline_profile_id)
    if profile is None or profile.retired_at is not None:
        fault = "is not an offline profile" if profile is None else "is a retired offline profile"
        raise InvalidRequest(errors=[{"pointer": "/offline_profile_id", "detail": fault}])


def _drop_retired_profile(register: Register) -> dict[str, Any]:
    """Let a register go by the defaults if its profile is retired; return what the audit tells."""
    profile_id = register.offline_profile_id
    profile = offline_profiles.read(profile_id) if profile_id is not None else None
    if profile is None or profile.retired_at is None:
        return {}
    changes = {"offline_profile_id": None}
    registers.edit_register(register.store_id, register.terminal_id, register.version, changes)
    return old_and_new(register, changes)


def _at_stake(
    connection: Connection,
    register: Register,
    arrived: Mapping[tuple[str, str], Journal],
    now: datetime,
) -> AtStake:
    store_id, terminal_id = register.store_id, register.terminal_id
    gaps = [
        Gap(journal_id, first, last)
        for (of_terminal_id, journal_id), journal in sorted(arrived.items())
        if of_terminal_id == terminal_id
        for first, last in journal.gaps()
    ]
    locked = registers.locked_instruments(connection, store_id, terminal_id)
    in_force = parameters.in_force_at(store_id, parameters.latest_revision(store_id))
    told = terminals.presence(store_id, terminal_id)
    return AtStake(
        gaps=tuple(gaps[:GAPS_TOLD_MAX]),
        gaps_count=len(gaps),
        live=live_locks(locked, in_force, now),
        open_cases_count=registers.count_open_cases(store_id, terminal_id),
        pending_count=told.pending_count if told else None,
        pending_amounts_minor=told.pending_amounts_minor if told else None,
        oldest_pending_at=told.oldest_pending_at if told else None,
        reported_at=told.reported_at if told else None,
        last_seen_at=told.last_seen_at if told else None,
    )
