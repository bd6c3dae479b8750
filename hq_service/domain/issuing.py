"""Instruments that headquarters issues itself, without a sale."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from hq_service.domain.model import (
    HQ,
    BusinessKey,
    Entry,
    Instrument,
    InstrumentStatus,
    Operation,
    Posting,
)
from hq_service.domain.numbers import last4


def key_of_headquarters(reference: str) -> BusinessKey:
    """Return the business key of something HQ does under a reference of the administrator's."""
    return BusinessKey(HQ, HQ, reference, 1)


def issue(
    key: BusinessKey,
    instrument_id: UUID,
    *,
    kind: str,
    normalised_number: str,
    currency: str,
    amount_minor: int,
    now: datetime,
) -> tuple[Instrument, Posting]:
    """Return a new active instrument and the posting that it is worth something by."""
    instrument = Instrument(
        instrument_id=instrument_id,
        kind=kind,
        currency=currency,
        number_last4=last4(normalised_number),
        status=InstrumentStatus.ACTIVE,
        balance_minor=amount_minor,
        version=1,
        remainder_id=None,
        lock=None,
    )
    posting = Posting(
        instrument_id=instrument_id,
        version=instrument.version,
        key=key,
        entry=Entry.ORIGINAL,
        operation=Operation.ISSUE,
        currency=currency,
        amount_minor=amount_minor,
        funded_minor=amount_minor,
        shortfall_minor=0,
        change_minor=amount_minor,
        balance_after_minor=amount_minor,
        codes=(),
        posted_at=now,
    )
    return instrument, posting
