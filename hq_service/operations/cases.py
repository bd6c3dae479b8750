"""Cases for administrators: list them, count them, resolve one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from hq_service.domain.audit import Action
from hq_service.domain.errors import NotFound, Refused
from hq_service.domain.resolving import Case, CaseFilter, Resolution
from hq_service.operations import resolutions
from hq_service.operations.changes import Change, record
from hq_service.operations.resolutions import Plan
from hq_service.store import cases
from hq_service.store.database import Connection, reading, transactional


@dataclass(frozen=True, slots=True)
class OpenCount:
    """How many cases are open in a currency, and how much shortfall with them.

    ``code`` is None for the currency as a whole; a case with two codes counts under both.
    ``currency`` is None for lines that could not be read, and for notices.
    """

    currency: str | None
    code: str | None
    cases_count: int
    open_minor: int


@reading
def list_cases(
    _connection: Connection,
    wanted: CaseFilter,
    *,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Case]:
    """Return cases, the oldest first, behind a place: (opened_at, case_id)."""
    return cases.page(wanted, after=after, limit=limit)


@reading
def count_open(_connection: Connection, store_id: str | None) -> Sequence[OpenCount]:
    """Return how many cases are open and how much they are short of, by currency and code."""
    return [OpenCount(*row) for row in cases.count_open(store_id)]


@transactional
def resolve(
    connection: Connection,
    case_id: UUID,
    resolution: Resolution,
    change: Change,
) -> Case:
    """Resolve a case, with a reason. What is recovered in part leaves it open for the rest.

    Raises:  NotFound; Refused ``case_resolved``, ``resolution_not_possible``, or
             ``instrument_locked`` when a live grant reserves what would be recovered.
    """
    case = cases.lock(connection, case_id)
    if case is None:
        raise NotFound(code="case_not_found")
    if case.resolved_at is not None:
        raise Refused(code="case_resolved")
    context = resolutions.context_of(case, change.actor, change.keyring, change.now)
    reason = change.reason
    planned = resolutions.plan(connection, case, resolution, reason, context, for_update=True)
    resolutions.take(case, planned, resolution, change.actor.name, reason, change.now)
    resolutions.save(connection, case, planned, context)
    subject, detail = f"case:{case_id}", _detail(case, planned)
    record(connection, change, Action.CASE_RESOLVED, subject, resolution=resolution, **detail)
    return case


def _detail(case: Case, planned: Plan) -> dict[str, Any]:
    """Return what the audit says of a resolved case: what it was about, and what was posted."""
    return {
        "store_id": case.store_id,
        "terminal_id": case.terminal_id,
        "transaction_id": case.transaction_id,
        "line": case.line,
        "outcome": case.outcome,
        "codes": list(case.codes),
        "currency": case.currency,
        "amount_minor": case.amount_minor,
        "shortfall_minor": case.shortfall_minor,
        "recovered_minor": case.recovered_minor,
        "is_resolved": case.resolved_at is not None,
        "posted": [resolutions.posting_members(one) for one in planned.settlement.postings],
    }
