"""Who changes something, when and why; and how that comes into the audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from hq_service.domain.actors import Actor
from hq_service.domain.audit import Action
from hq_service.domain.errors import PreconditionFailed, Refused
from hq_service.domain.keyring import Keyring
from hq_service.domain.numbers import mask
from hq_service.store import audit
from hq_service.store.database import Connection


@dataclass(frozen=True, slots=True)
class Change:
    """An administrator's change: theirs, at this moment, for this reason."""

    actor: Actor
    reason: str
    now: datetime
    keyring: Keyring = field(repr=False)


class Editable(Protocol):
    """Something with a version that grows with every change, and that may be retired."""

    @property
    def version(self) -> int:
        """Return the version that an edit has to name."""

    @property
    def retired_at(self) -> datetime | None:
        """Return since when it is out of use."""


def record(
    connection: Connection, change: Change, action: Action, subject: str, **detail: Any
) -> None:
    """Append a change to the audit; call it last in a transaction."""
    audit.append(
        connection,
        change.keyring.audit_key(),
        recorded_at=change.now,
        actor=change.actor.name,
        action=action,
        subject=subject,
        # Reasons that came over HTTP are masked already; those of the command line are not.
        detail={"reason": mask(change.reason), **detail},
    )


def old_and_new(before: object, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an audit entry tells of changed members."""
    return {"old": {name: getattr(before, name) for name in changes}, "new": dict(changes)}


def require_free(wanted_id: str, alike: Sequence[str]) -> None:
    """Refuse an id that is taken, or that only capitals tell from one that is: people, and some
    file systems, take them for the same.

    ``alike`` are the ids that differ from it at most in capitals.

    Raises:  Refused ``already_exists``.
    """
    if wanted_id in alike:
        raise Refused(code="already_exists")
    if alike:
        raise Refused(
            f"There is {alike[0]} already, which differs only in capitals. Choose another id, or"
            " edit the one that is there.",
            code="already_exists",
        )


def not_as_seen(there: Editable, seen_version: int) -> Refused | PreconditionFailed:
    """Return why a guarded edit did not go through."""
    if there.version == seen_version and there.retired_at is not None:
        return Refused(code="retired")
    return PreconditionFailed(current_version=there.version)
