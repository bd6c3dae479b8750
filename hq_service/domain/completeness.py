"""Completeness: whether a register has delivered everything up to a business date.

A register is complete when nothing speaks against it, and one from which HQ has not heard since
the end of the day, or since it was retired, is never complete: HQ cannot know.
``docs/connection-status.md`` says what that proves and what it does not.
Source: Microsoft Ideas 942988ac: at month end, which registers still hold offline transactions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from hq_service.domain.connection import RegisterPresence
from hq_service.domain.journals import Journal

_DAY = timedelta(days=1)
BUSINESS_DATE_MIN = date(2000, 1, 1)


class Reason(StrEnum):
    """Why HQ does not say that a register is complete: a closed list."""

    NEVER_HEARD = "never_heard"
    NOT_HEARD_SINCE = "not_heard_since"
    PENDING_TRANSACTIONS = "pending_transactions"
    JOURNAL_GAP = "journal_gap"
    JOURNAL_BEHIND = "journal_behind"
    UNSETTLED_BATCH = "unsettled_batch"
    LIVE_GRANT = "live_grant"


_SILENCE = frozenset({Reason.NEVER_HEARD, Reason.NOT_HEARD_SINCE})


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is known of what a register has delivered, all read at one moment.

    ``journals`` are what has arrived, by journal; ``granted_at`` when its live granted locks were
    taken; ``unsettled_batches_count`` counts received batches that may have lines of it.
    """

    register: RegisterPresence
    time_zone: str
    journals: Mapping[str, Journal]
    granted_at: tuple[datetime, ...]
    unsettled_batches_count: int
    open_cases_count: int


@dataclass(frozen=True, slots=True)
class Completeness:
    """Whether a register is complete up to the end of a day, and the figures behind it."""

    delivery: Delivery
    day_ends_at: datetime
    reasons: tuple[Reason, ...]
    journal_gaps_count: int
    journals_behind_count: int
    live_grants_count: int

    @property
    def is_complete(self) -> bool:
        """Tell whether nothing speaks against it."""
        return not self.reasons


@dataclass(slots=True)
class Summary:
    """How many stores and registers are complete; a store is when all its registers are.

    ``registers_left_out_count`` counts those that were not there on the day and left nothing.
    """

    registers_count: int = 0
    registers_complete_count: int = 0
    registers_left_out_count: int = 0
    _incomplete_by_store: dict[str, int] = field(default_factory=dict)

    def add(self, found: Completeness) -> None:
        """Count a register."""
        store_id = found.delivery.register.store_id
        self.registers_count += 1
        self.registers_complete_count += found.is_complete
        incomplete = self._incomplete_by_store.get(store_id, 0)
        self._incomplete_by_store[store_id] = incomplete + (not found.is_complete)

    @property
    def stores_count(self) -> int:
        """Return how many stores have a register that is counted."""
        return len(self._incomplete_by_store)

    @property
    def stores_complete_count(self) -> int:
        """Return how many of them have no register that is incomplete."""
        return sum(not count for count in self._incomplete_by_store.values())


def day_ends_at(business_date: date, time_zone: str) -> datetime:
    """Return the first instant after a business date: midnight in a store's time zone, in UTC.

    Where clocks are put forward at midnight that is the moment of the change; where midnight comes
    twice, the first one.
    """
    midnight = datetime.combine(business_date + _DAY, time(), ZoneInfo(time_zone))
    return midnight.astimezone(UTC)


def judge(delivery: Delivery, business_date: date) -> Completeness:
    """Return what speaks against a register having delivered everything up to a business date."""
    ends_at = day_ends_at(business_date, delivery.time_zone)
    gaps = sum(1 for journal in delivery.journals.values() for _ in journal.gaps())
    behind = _journals_behind(delivery)
    grants = sum(1 for granted_at in delivery.granted_at if granted_at <= ends_at)
    return Completeness(
        delivery,
        ends_at,
        tuple(_reasons(delivery, ends_at, gaps, behind, grants)),
        journal_gaps_count=gaps,
        journals_behind_count=behind,
        live_grants_count=grants,
    )


def is_left_out(found: Completeness, business_date: date) -> bool:
    """Tell whether a register is not counted: it was not in use at any time of a business date.

    One that was retired before, with something left in it that HQ knows of, is counted: retiring it
    delivered nothing. Its silence says nothing.
    """
    register = found.delivery.register
    if register.created_at >= found.day_ends_at:
        return True
    begins_at = day_ends_at(business_date - _DAY, found.delivery.time_zone)
    if register.retired_at is None or register.retired_at >= begins_at:
        return False
    return _SILENCE.issuperset(found.reasons)


def _reasons(
    delivery: Delivery, ends_at: datetime, gaps: int, behind: int, grants: int
) -> Iterable[Reason]:
    report, retired_at = delivery.register.report, delivery.register.retired_at
    if report is None:
        yield Reason.NEVER_HEARD
    else:
        # A retired register sells no more: what it tells then, it tells of all its days.
        sells_until = ends_at if retired_at is None else min(ends_at, retired_at)
        if report.tells_until < sells_until:
            yield Reason.NOT_HEARD_SINCE
        oldest_at = report.oldest_pending_at
        # Without its oldest, what is pending may be of any day.
        if report.pending_count and (oldest_at is None or oldest_at <= ends_at):
            yield Reason.PENDING_TRANSACTIONS
    if gaps:
        yield Reason.JOURNAL_GAP
    if behind:
        yield Reason.JOURNAL_BEHIND
    if delivery.unsettled_batches_count:
        yield Reason.UNSETTLED_BATCH
    if grants:
        yield Reason.LIVE_GRANT


def _journals_behind(delivery: Delivery) -> int:
    """Return in how many journals the till has written further than what has arrived.

    Whatever it tells now: what it once wrote and did not send, another device cannot take back.
    """
    report = delivery.register.report
    nothing = Journal()
    return sum(
        tip > delivery.journals.get(journal_id, nothing).highest
        for journal_id, tip in (report.journal_tips.items() if report else ())
    )
