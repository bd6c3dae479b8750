"""Offline profiles: created, edited, retired."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hq_service.domain import offline_profiles as rules
from hq_service.domain.audit import Action
from hq_service.domain.errors import InvalidRequest, NotFound, PreconditionRequired, Refused
from hq_service.domain.offline_profiles import OfflineProfile
from hq_service.operations.changes import Change, not_as_seen, record
from hq_service.store import offline_profiles
from hq_service.store.database import Connection, confirm_durable, reading, transactional

USERS_TOLD_MAX = 20


@reading
def show(_connection: Connection, offline_profile_id: str) -> OfflineProfile:
    """Return a profile.

    Raises:  NotFound ``offline_profile_not_found``.
    """
    return _existing(offline_profile_id)


@reading
def page(
    _connection: Connection, *, after: str, limit: int, with_retired: bool
) -> list[OfflineProfile]:
    """Return profiles by id, after an id."""
    return offline_profiles.page(after=after, limit=limit, with_retired=with_retired)


@transactional
def create(
    connection: Connection,
    offline_profile_id: str,
    name: str,
    values: Mapping[str, Any],
    change: Change,
) -> OfflineProfile:
    """Create a profile; fields that are not given get their defaults, for good.

    Raises:  InvalidRequest with a pointer to each faulty value; Refused ``already_exists``.
    """
    _require_right(values)
    if offline_profiles.read(offline_profile_id) is not None:
        raise Refused(code="already_exists")
    made = OfflineProfile(offline_profile_id, name, 1, rules.complete(values), change.now)
    offline_profiles.add(made)
    new = {"name": name, "values": made.values}
    record(connection, change, Action.PROFILE_CREATED, subject_of(offline_profile_id), new=new)
    return made


@transactional
def edit(
    connection: Connection,
    offline_profile_id: str,
    name: str | None,
    values: Mapping[str, Any],
    seen_version: int | None,
    change: Change,
) -> OfflineProfile:
    """Change a profile's name, or some of its values; tills are served it with its new version.

    Raises:  NotFound; Refused ``retired``; InvalidRequest with a pointer to each faulty value;
             PreconditionRequired, PreconditionFailed.
    """
    before = _existing(offline_profile_id)
    if seen_version is None:
        raise PreconditionRequired()
    _require_right(values)
    changes: dict[str, Any] = {"values": {**before.values, **values}} if values else {}
    if name is not None:
        changes["name"] = name
    # What was read above is what was seen, or the edit does not go through.
    if not offline_profiles.edit(offline_profile_id, seen_version, changes):
        raise not_as_seen(_existing(offline_profile_id), seen_version)
    new: dict[str, Any] = dict(values)
    old = {field: before.values[field] for field in values}
    if name is not None:
        old["name"], new["name"] = before.name, name
    subject = subject_of(offline_profile_id)
    record(connection, change, Action.PROFILE_EDITED, subject, old=old, new=new)
    return _existing(offline_profile_id)


@transactional
def retire(connection: Connection, offline_profile_id: str, change: Change) -> OfflineProfile:
    """Take a profile out of use. One that is retired already stays as it is.

    Raises:  NotFound; Refused ``offline_profile_in_use`` while a register uses it.
    """
    # Before anything is read: a register that is being given this profile is seen below.
    offline_profiles.keep_registers_as_they_are(connection)
    _existing(offline_profile_id)
    users = offline_profiles.users(offline_profile_id, USERS_TOLD_MAX)
    if users:
        named = [{"store_id": store_id, "terminal_id": one} for store_id, one in users]
        raise Refused(code="offline_profile_in_use", registers=named)
    if offline_profiles.retire(offline_profile_id, change.now):
        record(connection, change, Action.PROFILE_RETIRED, subject_of(offline_profile_id))
    else:
        confirm_durable(connection)
    return _existing(offline_profile_id)


def subject_of(offline_profile_id: str) -> str:
    """Return what the audit calls a profile."""
    return f"profile:{offline_profile_id}"


def _existing(offline_profile_id: str) -> OfflineProfile:
    profile = offline_profiles.read(offline_profile_id)
    if profile is None:
        raise NotFound(code="offline_profile_not_found")
    return profile


def _require_right(values: Mapping[str, Any]) -> None:
    found = rules.faults(values)
    if found:
        raise InvalidRequest(
            errors=[{"pointer": f"/values/{name}", "detail": text} for name, text in found.items()]
        )
