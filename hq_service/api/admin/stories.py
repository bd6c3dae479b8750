"""How a case and its story are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from hq_service.api.admin.locks import members as lock_members
from hq_service.api.selling import instrument_members
from hq_service.domain.model import BusinessKey, EndedLock, Line, Posting, UnreadableLine, Void
from hq_service.domain.resolving import Case, Resolution, possible_resolutions
from hq_service.operations.resolutions import Preview, posting_members
from hq_service.operations.stories import Story

Answer = dict[str, Any]

MEANINGS: Mapping[Resolution, str] = {
    Resolution.ABSORB: "The open shortfall is booked as the store's loss; no balance changes.",
    Resolution.RECOVER: "The open shortfall is taken from the instrument, as far as it goes.",
    Resolution.CONFIRM_DUPLICATE: "It was the same sale twice: what was posted is reversed.",
    Resolution.APPLY: "It was a sale of its own: it is posted after all.",
    Resolution.DISMISS: "There is nothing to do; no balance changes.",
}


def members(case: Case) -> Answer:
    """Return what an answer tells of a case."""
    possible = (
        possible_resolutions(case.outcome, case.operation, case.open_minor, case.codes)
        if case.resolved_at is None
        else ()
    )
    told = {name: getattr(case, name) for name in Case.__slots__}
    return {**told, "possible_resolutions": list(possible)}


def story_members(story: Story, as_of: datetime) -> Answer:
    """Return what an answer tells of a case's story."""
    received, instrument, own = story.received, story.instrument, story.own_versions
    return {
        **members(story.case),
        "as_of": as_of,
        "batch": asdict(story.batch) if story.batch else None,
        "received_line": _line(received) if isinstance(received, Line) else None,
        "unreadable_line": (
            {"masked_text": received.masked_text, "reason": received.reason}
            if isinstance(received, UnreadableLine)
            else None
        ),
        "line_result": story.result,
        "instrument": (
            {**instrument_members(instrument), "remainder_id": instrument.remainder_id}
            if instrument
            else None
        ),
        "live_lock": lock_members(story.live_lock) if story.live_lock else None,
        "postings": [
            {**_posting(one), "is_of_case": (one.instrument_id, one.version) in own}
            for one in story.postings
        ],
        "ended_locks": [_ended(one) for one in story.ended_locks],
        "voids": [_void(one) for one in story.voids],
        "other_cases": [members(one) for one in story.other_cases],
        "previews": [_preview(one) for one in story.previews],
    }


def _key(key: BusinessKey | None) -> Answer | None:
    return key._asdict() if key is not None else None


def _line(line: Line) -> Answer:
    """Return a line as it was received. Its grant is a secret: whoever has it can spend it."""
    return {
        **line.key._asdict(),
        "journal_id": line.journal_id,
        "sequence": line.sequence,
        "status": line.status,
        "operation": line.operation,
        "instrument_id": line.instrument_id,
        "amount_minor": line.amount_minor,
        "currency": line.currency,
        "lock_id": line.lock_id,
        "has_grant": line.grant is not None,
        "parameter_revision": line.parameter_revision,
        "concluded_at": line.concluded_at,
        "original": _key(line.original),
        "reason": line.reason,
        "tender": line.tender._asdict() if line.tender is not None else None,
    }


def _posting(posting: Posting) -> Answer:
    return {
        **posting.key._asdict(),
        **posting_members(posting),
        "version": posting.version,
        "codes": list(posting.codes),
        "posted_at": posting.posted_at,
        "concluded_at": posting.concluded_at,
        "lock_id": posting.lock_id,
        "locked_at": posting.locked_at,
        "original": _key(posting.original),
        "related_instrument_id": posting.related_instrument_id,
    }


def _ended(one: EndedLock) -> Answer:
    lock = one.lock
    return {
        **lock.key._asdict(),
        "lock_id": lock.lock_id,
        "purpose": lock.purpose,
        "amount_minor": lock.amount_minor,
        "locked_at": lock.locked_at,
        "grant_until": lock.grant_until,
        "ended": one.end,
        "ended_at": one.ended_at,
        "ended_by": one.ended_by,
        "reason": one.reason,
    }


def _void(one: Void) -> Answer:
    return {
        "instrument_id": one.instrument_id,
        "reason": one.reason,
        "voided_at": one.voided_at,
        "voided_by": one.voided_by,
    }


def _preview(preview: Preview) -> Answer:
    return {
        "resolution": preview.resolution,
        "meaning": MEANINGS[preview.resolution],
        "refusal": preview.refusal,
        "postings": [posting_members(one) for one in preview.postings],
        "frees_lock": preview.frees_lock,
        "open_minor": preview.open_minor,
        "resolves": preview.resolves,
    }
