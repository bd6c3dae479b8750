"""Cases: what an administrator can do about one, and what HQ can get back of a shortfall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from hq_service.domain.judgement import Context, available_minor
from hq_service.domain.model import RECOVER, BusinessKey, Entry, Instrument, Operation, Posting
from hq_service.domain.outcomes import Code, Outcome


@dataclass(slots=True)
class Case:
    """One open or resolved question; the key is null for notices and unreadable lines.

    ``undone_at`` is when a void took back the loss that the store had absorbed.
    """

    case_id: UUID
    outcome: str
    codes: list[str]
    store_id: str
    terminal_id: str | None
    transaction_id: str | None
    line: int | None
    operation: str | None
    instrument_id: UUID | None
    amount_minor: int | None
    shortfall_minor: int
    recovered_minor: int
    currency: str | None
    batch_id: str | None
    position: int | None
    opened_at: datetime
    resolution: str | None
    resolved_at: datetime | None
    resolved_by: str | None
    resolution_reason: str | None
    detail: str | None
    undone_at: datetime | None

    @property
    def key(self) -> BusinessKey | None:
        """Return the business key of the line, None if the case is not about one."""
        if self.terminal_id is None or self.transaction_id is None or self.line is None:
            return None
        return BusinessKey(self.store_id, self.terminal_id, self.transaction_id, self.line)

    @property
    def open_minor(self) -> int:
        """Return how much of the shortfall nobody has covered yet."""
        return self.shortfall_minor - self.recovered_minor


class CaseState(StrEnum):
    """Which cases somebody wants to see."""

    OPEN = "open"
    RESOLVED = "resolved"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class CaseFilter:
    """Which cases somebody wants to see; None where all are wanted."""

    state: CaseState = CaseState.OPEN
    store_id: str | None = None
    terminal_id: str | None = None
    outcome: str | None = None
    code: str | None = None
    instrument_id: UUID | None = None
    opened_from: datetime | None = None
    opened_before: datetime | None = None
    shortfall_minor_min: int | None = None


class Resolution(StrEnum):
    """How an administrator resolves a case."""

    ABSORB = "absorb"  # the store's loss; the instrument is untouched
    RECOVER = "recover"  # taken from the instrument, as far as it goes
    CONFIRM_DUPLICATE = "confirm_duplicate"  # held: never posted; posted: reversed
    APPLY = "apply"  # held only: posted after all
    DISMISS = "dismiss"  # looked at; nothing to do


def possible_resolutions(
    outcome: str, operation: str | None, open_minor: int, codes: Sequence[str]
) -> Sequence[Resolution]:
    """Return the resolutions that make sense of a case.

    A shortfall is covered by somebody or cancelled, never just dismissed. What an administrator
    applied by hand is no duplicate: somebody has looked.
    """
    if outcome == Outcome.HELD:
        return (Resolution.APPLY, Resolution.CONFIRM_DUPLICATE, Resolution.DISMISS)
    possible = []
    if outcome == Outcome.APPLIED and open_minor:
        possible += [Resolution.ABSORB, Resolution.RECOVER]
    is_by_hand = Code.APPLIED_BY_HAND in codes
    if outcome == Outcome.APPLIED and operation != Operation.VOID and not is_by_hand:
        possible.append(Resolution.CONFIRM_DUPLICATE)
    if not open_minor:
        possible.append(Resolution.DISMISS)
    return possible


def recover(
    instrument: Instrument,
    open_minor: int,
    *,
    line_key: BusinessKey,
    posting_key: BusinessKey,
    context: Context,
    now: datetime,
) -> Posting | None:
    """Take what is there of a shortfall from an instrument; None if nothing is.

    Never what another's granted lock reserves: its holder may be spending it.
    """
    amount_minor = min(open_minor, available_minor(instrument, posting_key, context))
    if not amount_minor:
        return None
    instrument.balance_minor -= amount_minor
    instrument.version += 1
    return Posting(
        instrument_id=instrument.instrument_id,
        version=instrument.version,
        key=posting_key,
        entry=Entry.RESOLUTION,
        operation=RECOVER,
        currency=instrument.currency,
        amount_minor=amount_minor,
        funded_minor=amount_minor,
        shortfall_minor=0,
        change_minor=-amount_minor,
        balance_after_minor=instrument.balance_minor,
        codes=(),
        posted_at=now,
        original=line_key,
    )
