"""Distribution: which jobs there are, what a session is allowed to become, what a package is.

Names and statuses are those of Dynamics; where it leaves open what follows what, the rule is here.
Source: Dynamics 365 Commerce, pages "Distribution schedules" (jobs, Run now), "Download sessions"
and "Upload sessions" (statuses, try count, Rerun, Cancel).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

TRY_COUNT_MAX = 3
"""After how many tries a session that fails has ended. Dynamics recommends three."""

PACKAGE_FORMAT_VERSION = 1
PACKAGE_BYTES_MAX = 1024 * 1024
MESSAGE_LENGTH_MAX = 500

EVERY_SECONDS_MIN = 60
EVERY_SECONDS_MAX = 31 * 24 * 60 * 60
CRON_LENGTH_MAX = 100


class Direction(StrEnum):
    """Which way a job carries data, seen from the store."""

    DOWNLOAD = "download"
    UPLOAD = "upload"


@dataclass(frozen=True, slots=True)
class Job:
    """A distribution job, as Dynamics numbers and names it."""

    job_id: str
    name: str
    direction: Direction = Direction.DOWNLOAD


GLOBAL_CONFIGURATION = Job("1110", "Global configuration")
CHANNEL_CONFIGURATION = Job("1070", "Channel configuration")
REGISTERS = Job("1090", "Registers")
CHANNEL_TRANSACTIONS = Job("P-0001", "Channel transactions", Direction.UPLOAD)
JOBS = (GLOBAL_CONFIGURATION, CHANNEL_CONFIGURATION, REGISTERS, CHANNEL_TRANSACTIONS)
JOB_BY_ID: Mapping[str, Job] = {job.job_id: job for job in JOBS}


class SessionStatus(StrEnum):
    """How far a session is.

    ``started`` is never seen from outside: a session and its package are made in one database
    transaction.
    """

    STARTED = "started"
    AVAILABLE = "available"
    REQUESTED = "requested"
    DOWNLOADED = "downloaded"
    UPLOADED = "uploaded"
    APPLIED = "applied"
    CANCELED = "canceled"
    CREATE_FAILED = "create_failed"
    DOWNLOAD_FAILED = "download_failed"
    UPLOAD_FAILED = "upload_failed"
    APPLY_FAILED = "apply_failed"
    NO_DATA = "no_data"


# Short, for the tables below.
_S = SessionStatus

_STATUSES_OF_BOTH = frozenset({_S.STARTED, _S.AVAILABLE, _S.APPLIED, _S.CANCELED, _S.APPLY_FAILED})
STATUSES: Mapping[Direction, frozenset[SessionStatus]] = {
    Direction.DOWNLOAD: _STATUSES_OF_BOTH
    | {_S.REQUESTED, _S.DOWNLOADED, _S.CREATE_FAILED, _S.DOWNLOAD_FAILED, _S.NO_DATA},
    Direction.UPLOAD: _STATUSES_OF_BOTH | {_S.UPLOADED, _S.UPLOAD_FAILED},
}
"""Which statuses a session can have, by its direction."""

FAILURES = frozenset({_S.DOWNLOAD_FAILED, _S.UPLOAD_FAILED, _S.APPLY_FAILED})
ACKNOWLEDGEABLE = (
    _S.DOWNLOADED,
    _S.APPLIED,
    _S.DOWNLOAD_FAILED,
    _S.APPLY_FAILED,
    _S.UPLOADED,
    _S.UPLOAD_FAILED,
)
"""What a sync job may tell of a session."""

_ACKNOWLEDGED_FROM: Mapping[tuple[Direction, SessionStatus], frozenset[SessionStatus]] = {
    (Direction.DOWNLOAD, _S.DOWNLOADED): frozenset({_S.REQUESTED}),
    (Direction.DOWNLOAD, _S.DOWNLOAD_FAILED): frozenset({_S.REQUESTED}),
    (Direction.DOWNLOAD, _S.APPLY_FAILED): frozenset({_S.REQUESTED, _S.DOWNLOADED}),
    # Applied is a fact, also of a package that HQ would rather not have seen applied any more.
    (Direction.DOWNLOAD, _S.APPLIED): frozenset(
        {_S.REQUESTED, _S.DOWNLOADED, _S.DOWNLOAD_FAILED, _S.APPLY_FAILED, _S.CANCELED}
    ),
    (Direction.UPLOAD, _S.UPLOADED): frozenset({_S.AVAILABLE, _S.UPLOAD_FAILED, _S.APPLY_FAILED}),
    (Direction.UPLOAD, _S.UPLOAD_FAILED): frozenset({_S.AVAILABLE, _S.APPLY_FAILED}),
    # Also a fact, and nothing had to be fetched first.
    (Direction.UPLOAD, _S.APPLIED): frozenset(
        {_S.AVAILABLE, _S.UPLOADED, _S.UPLOAD_FAILED, _S.APPLY_FAILED, _S.CANCELED}
    ),
    (Direction.UPLOAD, _S.APPLY_FAILED): frozenset({_S.UPLOADED}),
}
_FETCHED_FROM = frozenset({_S.AVAILABLE, _S.DOWNLOAD_FAILED, _S.APPLY_FAILED})


@dataclass(frozen=True, slots=True)
class Session:
    """One store's part of a run, for one job; without its package, of which this is the size.

    Shapes: ``checksum_sha256`` are the 32 bytes of the package's SHA-256, None of an upload.
    """

    session_id: UUID
    run_id: UUID
    schedule_id: str
    store_id: str
    job_id: str
    direction: Direction
    status: SessionStatus
    parameters_revision: int | None
    checksum_sha256: bytes | None
    package_bytes: int | None
    try_count: int
    message: str | None
    rerun_for: UUID | None
    replaced_by: UUID | None
    created_at: datetime
    requested_at: datetime | None
    downloaded_at: datetime | None
    applied_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions a list is of; None means all of them, but for those without data."""

    store_id: str | None = None
    job_id: str | None = None
    status: str | None = None
    schedule_id: str | None = None
    run_id: UUID | None = None


class Verdict(StrEnum):
    """What becomes of an acknowledgement."""

    RECORDED = "recorded"
    REPEATED = "repeated"  # HQ knew it; the answer is the same
    ENDED = "ended"  # the session has ended otherwise
    NOT_POSSIBLE = "not_possible"  # not from the status that the session has


def possible_acknowledgements(session: Session) -> list[SessionStatus]:
    """Return what a sync job may tell of a session as it is now."""
    return [told for told in ACKNOWLEDGEABLE if _is_possible(session, told)]


def _is_possible(session: Session, told: SessionStatus) -> bool:
    if session.status not in _ACKNOWLEDGED_FROM.get((session.direction, told), ()):
        return False
    if session.direction is Direction.UPLOAD:
        # Canceled: that it was applied still counts if the store had told of a try before.
        was_begun = session.status is _S.CANCELED and session.try_count > 0
        return session.ended_at is None or was_begun
    # Nobody can have applied what nobody fetched. Ended: only that it was applied still counts.
    return session.requested_at is not None and (session.ended_at is None or told is _S.APPLIED)


def judge_acknowledgement(session: Session, told: SessionStatus) -> Verdict:
    """Return what becomes of what a sync job tells of a session."""
    if told in possible_acknowledgements(session):
        return Verdict.RECORDED
    # The answer to "downloaded" was lost, the job went on, and tells it again.
    is_past = session.status is _S.APPLIED and told in (_S.DOWNLOADED, _S.UPLOADED)
    if told is session.status or (is_past and told in STATUSES[session.direction]):
        return Verdict.REPEATED
    return Verdict.NOT_POSSIBLE if session.ended_at is None else Verdict.ENDED


def acknowledged(
    session: Session, told: SessionStatus, message: str | None, now: datetime
) -> Session:
    """Return a session after an acknowledgement that is recorded."""
    # A download's try began when it was fetched, an upload's begins with what is told of it.
    is_new_try = told in (_S.UPLOADED, _S.UPLOAD_FAILED) or (
        session.direction is Direction.UPLOAD
        and told is _S.APPLIED
        and session.status not in (_S.UPLOADED, _S.CANCELED)
    )
    try_count = session.try_count + is_new_try
    if session.status is _S.CANCELED:
        begun = "fetched" if session.direction is Direction.DOWNLOAD else "begun"
        was = f"Applied although it had been canceled; the store had {begun} it before."
        parts = (was, session.message, message)
        message = " ".join(part for part in parts if part)
    has_ended = told is _S.APPLIED or (told in FAILURES and try_count >= TRY_COUNT_MAX)
    return replace(
        session,
        status=told,
        try_count=try_count,
        message=message,
        downloaded_at=now if told is _S.DOWNLOADED else session.downloaded_at,
        applied_at=now if told is _S.APPLIED else None,
        ended_at=now if has_ended else None,
    )


def fetched(session: Session, now: datetime) -> Session | None:
    """Return a session after its package was fetched; None if it is not handed out any more.

    Fetching again without telling what became of it is the same try: an answer was lost.
    """
    if session.ended_at is not None or session.direction is Direction.UPLOAD:
        return None
    if session.status not in _FETCHED_FROM:
        return session
    return replace(
        session,
        status=_S.REQUESTED,
        try_count=session.try_count + 1,
        requested_at=now,
        downloaded_at=None,
    )


def canceled(session: Session, message: str, replaced_by: UUID | None, now: datetime) -> Session:
    """Return a session that had not ended, canceled; its message goes on to tell how it failed."""
    had_failed = None
    if session.status in FAILURES:
        had_failed = f"It had failed before: {session.status}, try {session.try_count}."
    parts = (message, had_failed, session.message)
    return replace(
        session,
        status=_S.CANCELED,
        message=" ".join(part for part in parts if part),
        replaced_by=replaced_by,
        ended_at=now,
    )


@dataclass(frozen=True, slots=True)
class Package:
    """What a download session carries: the same state of HQ makes the same bytes.

    One that is too large is empty: nobody is to fetch it.
    """

    data: bytes
    checksum_sha256: bytes
    revision: int | None
    is_too_large: bool = False


def package_of(
    job: Job, store_id: str, revision: int | None, content: Mapping[str, Any]
) -> Package:
    """Return the package of a job for a store.

    Shapes: JSON in UTF-8, the names of every object in order, no blanks. ``revision`` is that of
            the Commerce parameters in it, None if there are none.
    """
    document = {
        **content,
        "format_version": PACKAGE_FORMAT_VERSION,
        "job_id": job.job_id,
        "store_id": store_id,
        "revision": revision,
    }
    data = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8")
    is_too_large = len(data) > PACKAGE_BYTES_MAX
    data = b"" if is_too_large else data
    return Package(data, hashlib.sha256(data).digest(), revision, is_too_large)


def opened(
    session_id: UUID,
    made_by: tuple[UUID, str],
    store_id: str,
    job: Job,
    package: Package | None,
    *,
    applied_last: bytes | None,
    is_wanted_anyway: bool,
    rerun_for: UUID | None,
    now: datetime,
) -> Session:
    """Return a new session; ``package`` is None of an upload.

    What the store applied last anyway is ``no_data`` and ends at once, so that the list shows what
    matters; unless it is ``is_wanted_anyway``. A package that could not be made has ended, too.

    Shapes: ``made_by`` are the run and its schedule; ``applied_last`` is the checksum of the
            package of this job that the store applied last.
    """
    status, message = _S.AVAILABLE, None
    if package is not None and package.is_too_large:
        status = _S.CREATE_FAILED
        message = f"The package would have more than {PACKAGE_BYTES_MAX} bytes."
    elif package is not None and package.checksum_sha256 == applied_last and not is_wanted_anyway:
        status = _S.NO_DATA
    return Session(
        session_id=session_id,
        run_id=made_by[0],
        schedule_id=made_by[1],
        store_id=store_id,
        job_id=job.job_id,
        direction=job.direction,
        status=status,
        parameters_revision=package.revision if package else None,
        checksum_sha256=package.checksum_sha256 if package else None,
        package_bytes=len(package.data) if package else None,
        try_count=0,
        message=message,
        rerun_for=rerun_for,
        replaced_by=None,
        created_at=now,
        requested_at=None,
        downloaded_at=None,
        applied_at=None,
        ended_at=None if status is _S.AVAILABLE else now,
    )


def is_still_wanted(older: Session, package: Package | None) -> bool:
    """Tell whether a session that has not ended is just what a new run would make again.

    It is left as it is then, with its tries and its failures: a new one would begin to count anew,
    and a package that fails would never come to its last try. Of uploads, which have no package,
    one is like the other.
    """
    return older.checksum_sha256 == (package.checksum_sha256 if package else None)


def may_be_underway(older: Session, package: Package | None) -> bool:
    """Tell whether a store may yet apply something else than a package: an older one that it
    fetched. Then the newer one must follow, even if it is what the store applied last.
    """
    return (
        package is not None
        and older.requested_at is not None
        and older.checksum_sha256 != package.checksum_sha256
    )


@dataclass(frozen=True, slots=True)
class Schedule:
    """A distribution schedule: which jobs are run for all stores, and how often.

    Neither ``every_seconds`` nor ``cron``: it is run by Run now only.
    """

    schedule_id: str
    name: str
    version: int
    job_ids: tuple[str, ...]
    is_active: bool
    every_seconds: int | None
    cron: str | None
    next_run_at: datetime | None
    created_at: datetime


DEFAULT_SCHEDULE_ID = "commerce-configuration"
DEFAULT_SCHEDULE_NAME = "Commerce configuration"
DEFAULT_SCHEDULE_JOBS = (GLOBAL_CONFIGURATION, CHANNEL_CONFIGURATION, REGISTERS)


def next_of_interval(every_seconds: int, due_at: datetime | None, now: datetime) -> datetime:
    """Return the next run of an interval, strictly after now.

    In the rhythm of the run that was due, if there was one; whatever was slept through is one run.
    """
    interval = timedelta(seconds=every_seconds)
    if due_at is None or due_at > now:
        return now + interval
    return due_at + interval * ((now - due_at) // interval + 1)


def faults_of_jobs(job_ids: Iterable[str]) -> dict[int, str]:
    """Return what is wrong with the jobs of a schedule: place to sentence; empty if nothing is."""
    found, seen = {}, set()
    for place, job_id in enumerate(job_ids):
        if job_id not in JOB_BY_ID:
            found[place] = f"must be one of {', '.join(JOB_BY_ID)}"
        elif job_id in seen:
            found[place] = "is in the list already"
        seen.add(job_id)
    return found
