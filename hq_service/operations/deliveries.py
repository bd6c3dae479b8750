"""What a store's sync job does: see what there is, fetch a package, tell what became of it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from hq_service.domain.actors import Actor
from hq_service.domain.distribution import (
    Direction,
    Session,
    SessionStatus,
    Verdict,
    acknowledged,
    fetched,
    judge_acknowledgement,
    possible_acknowledgements,
)
from hq_service.domain.errors import InvalidRequest, NotFound, Refused
from hq_service.store import distribution
from hq_service.store.database import Connection, confirm_durable, reading, transactional


@reading
def to_do(
    _connection: Connection, actor: Actor, *, after: UUID | None, limit: int
) -> list[Session]:
    """Return the sessions of the actor's store that have not ended, the oldest first."""
    if actor.store_id is None:
        return []
    return distribution.open_sessions(actor.store_id, after=after, limit=limit)


@transactional
def fetch(
    _connection: Connection, session_id: UUID, actor: Actor, now: datetime
) -> tuple[Session, bytes]:
    """Return a session and its package, and count a try. Doing it again is the same try, until
    the sync job tells that it failed.

    Raises:  NotFound ``session_not_found``, ``package_not_found`` of an upload; Refused
             ``session_ended``.
    """
    if _own(session_id, actor).direction is Direction.UPLOAD:
        raise NotFound(code="package_not_found")
    session = distribution.lock_session(session_id)
    after = fetched(session, now)
    if after is None:
        raise Refused(code="session_ended", session_status=session.status)
    if after is not session:
        distribution.update_sessions([after])
    return after, distribution.package_of(session_id)


@transactional
def acknowledge(
    connection: Connection,
    session_id: UUID,
    told: SessionStatus,
    checksum_sha256: bytes | None,
    message: str | None,
    actor: Actor,
    now: datetime,
) -> Session:
    """Take down what a sync job tells of a session. The same again is answered the same.

    ``checksum_sha256`` proves that the store has the package that HQ sent.

    Raises:  NotFound; InvalidRequest for a checksum that is missing, or where there is no package;
             Refused ``checksum_mismatch``, ``session_ended``, ``acknowledgement_not_possible``.
    """
    session = _own(session_id, actor)
    _require_checksum(session, told, checksum_sha256)
    # The store before its sessions, as in a run: it may be replacing this very session.
    distribution.lock_store(session.store_id)
    session = distribution.lock_session(session_id)
    verdict = judge_acknowledgement(session, told)
    if verdict is Verdict.ENDED:
        raise Refused(code="session_ended", session_status=session.status)
    if verdict is Verdict.NOT_POSSIBLE:
        raise Refused(
            code="acknowledgement_not_possible",
            session_status=session.status,
            possible_acknowledgements=possible_acknowledgements(session),
        )
    if verdict is Verdict.REPEATED:
        confirm_durable(connection)
    else:
        session = acknowledged(session, told, message, now)
        distribution.update_sessions([session])
        if told is SessionStatus.APPLIED and session.parameters_revision is not None:
            distribution.raise_applied_revision(session.store_id, session.parameters_revision, now)
    return session


def _own(session_id: UUID, actor: Actor) -> Session:
    """Return a session of the actor's store; another store's looks like one that is not there."""
    session = distribution.read_session(session_id)
    if session is None or session.store_id != actor.store_id:
        raise NotFound(code="session_not_found")
    return session


def _require_checksum(session: Session, told: SessionStatus, checksum: bytes | None) -> None:
    fault = None
    if session.checksum_sha256 is None and checksum is not None:
        fault = "An upload has no package."
    if session.checksum_sha256 is not None and checksum is None and told is SessionStatus.APPLIED:
        fault = "Missing data for required field."
    if fault:
        raise InvalidRequest(errors=[{"pointer": "/checksum_sha256", "detail": fault}])
    if checksum is not None and checksum != session.checksum_sha256:
        raise Refused(code="checksum_mismatch")
