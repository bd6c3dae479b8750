"""What happened around a case: postings, ended locks and voids, a bounded number of each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import and_, func, or_, select

from hq_service.domain.model import (
    HQ,
    BusinessKey,
    EndedLock,
    Entry,
    Lock,
    Posting,
    Tender,
    Void,
)
from hq_service.domain.numbers import bucket_of
from hq_service.store import tables
from hq_service.store.database import db

Posted = tables.Posting
Ended = tables.LockEvent
Voided = tables.Void

# Originals have an index of their own, and so has the rest.
_ANY_ENTRY = or_(Posted.entry == Entry.ORIGINAL, Posted.entry != Entry.ORIGINAL)


def postings_around(instrument_id: UUID, at: datetime, *, limit: int) -> list[Posting]:
    """Return an instrument's postings around an instant, newest first: half of them later ones."""
    its = and_(Posted.bucket == bucket_of(instrument_id), Posted.instrument_id == instrument_id)
    then = select(func.coalesce(func.max(Posted.version), 0)).where(its, Posted.posted_at <= at)
    found = (
        select(Posted)
        .where(its, Posted.version <= then.scalar_subquery() + limit // 2)
        .order_by(Posted.version.desc())
        .limit(limit)
    )
    return [_posting(row) for row in db.session.scalars(found)]


def postings_of_line(key: BusinessKey, *, limit: int) -> list[Posting]:
    """Return what was posted under a business key, on whatever instruments."""
    found = select(Posted).where(*_is_of(Posted, key), _ANY_ENTRY).order_by(Posted.posted_at.desc())
    return [_posting(row) for row in db.session.scalars(found.limit(limit))]


def postings_of_case(case_id: UUID, *, limit: int) -> list[Posting]:
    """Return what HQ posted to resolve a case, on whatever instruments."""
    found = (
        select(Posted)
        .where(
            Posted.store_id == HQ,
            Posted.terminal_id == HQ,
            Posted.transaction_id == case_id.hex,
            _ANY_ENTRY,
        )
        .order_by(Posted.posted_at.desc())
        .limit(limit)
    )
    return [_posting(row) for row in db.session.scalars(found)]


def ended_locks(
    instrument_id: UUID, of_transaction: BusinessKey | None, *, limit: int
) -> list[EndedLock]:
    """Return an instrument's locks that no posting ended: those of a transaction, and the newest
    of the others; newest first.
    """
    newest = Ended.ended_at.desc()
    found = select(Ended).where(
        Ended.bucket == bucket_of(instrument_id), Ended.instrument_id == instrument_id
    )
    if of_transaction is None:
        found = found.order_by(newest)
    else:
        is_own = and_(*_is_of(Ended, of_transaction)[:3])
        found = found.order_by(is_own.desc(), newest)
    rows = db.session.scalars(found.limit(limit))
    return sorted((_ended(row) for row in rows), key=lambda one: one.ended_at, reverse=True)


def voids_of(key: BusinessKey, *, limit: int) -> list[Void]:
    """Return the voids of a business key: one for each instrument that it was voided on."""
    found = select(Voided).where(*_is_of(Voided, key)).order_by(Voided.voided_at).limit(limit)
    return [
        Void(key, row.instrument_id, row.reason, row.voided_at, row.voided_by)
        for row in db.session.scalars(found)
    ]


def _is_of(table: Any, key: BusinessKey) -> Sequence[Any]:
    """Return the conditions of a business key: its transaction's three, and its line."""
    return (
        table.store_id == key.store_id,
        table.terminal_id == key.terminal_id,
        table.transaction_id == key.transaction_id,
        table.line == key.line,
    )


def _posting(row: tables.Posting) -> Posting:
    return Posting(
        instrument_id=row.instrument_id,
        version=row.version,
        key=BusinessKey(row.store_id, row.terminal_id, row.transaction_id, row.line),
        entry=row.entry,
        operation=row.operation,
        currency=row.currency,
        amount_minor=row.amount_minor,
        funded_minor=row.funded_minor,
        shortfall_minor=row.shortfall_minor,
        change_minor=row.change_minor,
        balance_after_minor=row.balance_after_minor,
        codes=tuple(row.codes or ()),
        posted_at=row.posted_at,
        concluded_at=row.concluded_at,
        lock_id=row.lock_id,
        locked_at=row.locked_at,
        original=_original(row),
        related_instrument_id=row.related_instrument_id,
        tender=_tender(row),
    )


def _original(row: tables.Posting) -> BusinessKey | None:
    store_id, terminal_id = row.original_store_id, row.original_terminal_id
    transaction_id, line = row.original_transaction_id, row.original_line
    if store_id is None or terminal_id is None or transaction_id is None or line is None:
        return None
    return BusinessKey(store_id, terminal_id, transaction_id, line)


def _tender(row: tables.Posting) -> Tender | None:
    if row.tender_amount_minor is None or row.tender_currency is None or row.exchange_rate is None:
        return None
    return Tender(row.tender_amount_minor, row.tender_currency, row.exchange_rate)


def _ended(row: tables.LockEvent) -> EndedLock:
    lock = Lock(
        row.lock_id,
        row.store_id,
        row.terminal_id,
        row.transaction_id,
        row.line,
        row.purpose,
        row.amount_minor,
        row.locked_at,
        row.grant_until,
        row.grant_revision,
    )
    return EndedLock(row.instrument_id, lock, row.ended, row.ended_at, row.ended_by, row.reason)
