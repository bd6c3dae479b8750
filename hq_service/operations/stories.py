"""The story of a case: what came in, what became of it, what happened around it, what can be done.

A case is an open question; this is what an administrator needs to answer it. Every list is
bounded, so that the story of a card that is used all day is told as fast as any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from hq_service.domain.actors import Actor
from hq_service.domain.errors import NotFound
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import EndedLock, Instrument, Line, Posting, UnreadableLine, Void
from hq_service.domain.resolving import Case, possible_resolutions
from hq_service.operations import resolutions
from hq_service.operations.breaks import HeldLock, held_lock
from hq_service.operations.resolutions import Preview
from hq_service.store import batches, cases, instruments, stories
from hq_service.store.batches import Batch
from hq_service.store.database import Connection, reading

POSTINGS_MAX = 50
ENDED_LOCKS_MAX = 50
OTHER_CASES_MAX = 20
VOIDS_MAX = 20


@dataclass(frozen=True, slots=True)
class ReceivedBatch:
    """The batch that a case came with."""

    batch_id: str
    received_at: datetime
    received_by: str
    lines_count: int
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Story:
    """A case with everything that HQ knows around it.

    Shapes:  ``batch``, ``received`` and ``result`` are None for a case that no batch left, or, for
             a notice, that is not about one line; ``own_versions`` are (instrument, version) of
             the postings of the case's own line and of its resolutions; ``postings`` are those and
             the instrument's around it, newest first.
    """

    case: Case
    batch: ReceivedBatch | None
    received: Line | UnreadableLine | None
    result: Mapping[str, Any] | None
    instrument: Instrument | None
    live_lock: HeldLock | None
    postings: Sequence[Posting]
    own_versions: frozenset[tuple[UUID, int]]
    ended_locks: Sequence[EndedLock]
    voids: Sequence[Void]
    other_cases: Sequence[Case]
    previews: Sequence[Preview]


@reading
def tell(
    connection: Connection, case_id: UUID, actor: Actor, keyring: Keyring, now: datetime
) -> Story:
    """Return the story of a case, as it is now.

    Raises:  NotFound ``case_not_found``.
    """
    case = cases.read(connection, case_id)
    if case is None:
        raise NotFound(code="case_not_found")
    received, result = _line_of(connection, case)
    instrument_id, key = case.instrument_id, case.key
    instrument = instruments.read(connection, instrument_id) if instrument_id else None
    lock = instrument.lock if instrument else None
    postings, own_versions = _postings(case)
    ended = stories.ended_locks(instrument_id, key, limit=ENDED_LOCKS_MAX) if instrument_id else []
    return Story(
        case=case,
        batch=_batch_of(connection, case),
        received=received,
        result=result,
        instrument=instrument,
        live_lock=held_lock(instrument, lock, now) if instrument and lock else None,
        postings=postings,
        own_versions=own_versions,
        ended_locks=ended,
        voids=stories.voids_of(key, limit=VOIDS_MAX) if key else [],
        other_cases=cases.beside(case, limit=OTHER_CASES_MAX),
        previews=_previews(connection, case, actor, keyring, now),
    )


def _batch_of(connection: Connection, case: Case) -> ReceivedBatch | None:
    if case.batch_id is None:
        return None
    found: Batch | None = batches.get(connection, case.store_id, case.batch_id)
    if found is None:
        return None
    return ReceivedBatch(
        found.batch_id, found.received_at, found.received_by, found.lines_count, found.settled_at
    )


def _line_of(
    connection: Connection, case: Case
) -> tuple[Line | UnreadableLine | None, Mapping[str, Any] | None]:
    """Return the line as it was received, and what it came to then."""
    if case.batch_id is None or case.position is None:
        return None, None
    place = (case.store_id, case.batch_id)
    settled = batches.read_lines(connection, *place, after=case.position - 1, limit=1)
    is_settled = bool(settled) and settled[0]["position"] == case.position
    return batches.line_at(*place, case.position), settled[0] if is_settled else None


def _postings(case: Case) -> tuple[list[Posting], frozenset[tuple[UUID, int]]]:
    own = stories.postings_of_case(case.case_id, limit=POSTINGS_MAX)
    if case.key is not None:
        own += stories.postings_of_line(case.key, limit=POSTINGS_MAX)
    around = (
        stories.postings_around(case.instrument_id, case.opened_at, limit=POSTINGS_MAX)
        if case.instrument_id
        else []
    )
    by_version = {(one.instrument_id, one.version): one for one in (*around, *own)}
    newest_first = sorted(
        by_version.values(), key=lambda one: (one.posted_at, one.version), reverse=True
    )
    return newest_first, frozenset((one.instrument_id, one.version) for one in own)


def _previews(
    connection: Connection, case: Case, actor: Actor, keyring: Keyring, now: datetime
) -> list[Preview]:
    if case.resolved_at is not None:
        return []
    context = resolutions.context_of(case, actor, keyring, now)
    possible = possible_resolutions(case.outcome, case.operation, case.open_minor, case.codes)
    return [resolutions.preview(connection, case, one, context) for one in possible]
