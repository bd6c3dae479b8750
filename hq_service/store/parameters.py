"""Revisions of the Commerce parameters. They are immutable, so what was read once is kept."""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, Engine, Select, and_, bindparam, func, or_, select, tuple_
from sqlalchemy.orm import aliased

from hq_service.domain.parameters import Parameters, in_force
from hq_service.store import tables
from hq_service.store.database import DATABASE_ERRORS, Connection, db, engine, unavailable

Revision = tables.ParameterRevision
Presence = tables.TerminalPresence


@dataclass(frozen=True, slots=True)
class Distributed:
    """What a store has applied, and what one of its terminals has acknowledged."""

    revision: int
    applied_at: datetime | None
    acknowledged_revision: int | None


@dataclass(frozen=True, slots=True)
class Edited:
    """A revision as its editor left it, with the values of its scope before; null is company."""

    revision: int
    store_id: str | None
    changed_at: datetime
    changed_by: str
    reason: str
    changes: Mapping[str, Any]
    values_before: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TerminalRow:
    """A store and one of its registers: what is saved, distributed, and acknowledged there.

    ``terminal_id`` is None for a store without registers, ``acknowledged`` for one that never
    fetched.
    """

    store_id: str
    saved_revision: int
    saved_at: datetime | None
    distributed_revision: int
    applied_at: datetime | None
    terminal_id: str | None
    acknowledged: Parameters | None
    acknowledged_at: datetime | None


STORES_KEPT_MAX = 10_000
RESOLVED_KEPT_MAX = 10_000
"""Of how many stores the revisions of their own are kept; most have none, and cost next to nothing.

Those of the company are always kept, once for all stores.
"""


@dataclass(frozen=True, slots=True)
class _Scope:
    """What the company, or one store, sets itself: every revision of it up to one of all numbers.

    Shapes: ``revisions`` ascend, ``values`` are in the same order.
    """

    up_to: int = 0
    revisions: tuple[int, ...] = ()
    values: tuple[Mapping[str, Any], ...] = ()

    def at(self, revision: int) -> tuple[int, Mapping[str, Any]]:
        """Return the newest revision of the scope at a revision, with its values; 0 is none."""
        place = bisect_right(self.revisions, revision)
        return (self.revisions[place - 1], self.values[place - 1]) if place else (0, {})

    def followed_by(self, rows: Iterable[tuple[int, Mapping[str, Any]]], up_to: int) -> _Scope:
        """Return the scope with what was read of it later."""
        newer = [row for row in rows if row[0] > self.up_to]
        return _Scope(
            max(self.up_to, up_to),
            self.revisions + tuple(revision for revision, _ in newer),
            self.values + tuple(values for _, values in newer),
        )


@dataclass(slots=True)
class _Kept:
    """What is kept of one database. Its scopes are replaced, never changed: threads share them."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    company: _Scope = field(default_factory=_Scope)
    # The least recently used first.
    stores: OrderedDict[str, _Scope] = field(default_factory=OrderedDict)
    # At each revision of the company, for all stores that set nothing themselves.
    of_company: dict[int, Parameters] = field(default_factory=dict)
    # What tills ask for all day: what a revision says does not change any more.
    resolved: dict[tuple[str, int], Parameters] = field(default_factory=dict)

    def scopes(self, store_ids: Iterable[str]) -> tuple[_Scope, dict[str, _Scope]]:
        """Return what is kept of the company and of some stores."""
        with self.lock:
            found = {store_id: self.stores.get(store_id, _Scope()) for store_id in store_ids}
            for store_id in found.keys() & self.stores.keys():
                self.stores.move_to_end(store_id)
            return self.company, found

    def keep(self, company: _Scope, stores: Mapping[str, _Scope]) -> None:
        """Keep what was read, unless another thread has read more."""
        with self.lock:
            if company.up_to > self.company.up_to:
                self.company = company
            for store_id, scope in stores.items():
                if scope.up_to >= self.stores.get(store_id, scope).up_to:
                    self.stores[store_id] = scope
                self.stores.move_to_end(store_id)
            while len(self.stores) > STORES_KEPT_MAX:
                self.stores.popitem(last=False)

    def resolve(self, company: _Scope, own: _Scope | None, revision: int) -> Parameters:
        """Return the parameters at a revision, of what the company and a store set."""
        of_company, values = company.at(revision)
        of_store, override = own.at(revision) if own else (0, {})
        if of_store or of_company != revision:
            return in_force(revision, values, override)
        known = self.of_company.get(revision)
        if known is None:
            known = self.of_company[revision] = in_force(revision, values)
        return known


# Per database: one process may serve several, as tests do.
_kept: weakref.WeakKeyDictionary[Engine, _Kept] = weakref.WeakKeyDictionary()


# Asked with every batch: put together once.
_NEWEST = select(func.coalesce(func.max(Revision.revision), 0)).where(
    or_(Revision.store_id.is_(None), Revision.store_id == bindparam("store_id"))
)


def latest_revision(store_id: str | None) -> int:
    """Return the newest revision that says something for a store, 0 before the first edit."""
    return db.session.scalar(_NEWEST, {"store_id": store_id}) or 0


def saved_at(revision: int) -> datetime | None:
    """Return when a revision was saved, None for what was there before the first."""
    return db.session.scalar(select(Revision.changed_at).where(Revision.revision == revision))


def distributed_to(store_id: str, terminal_id: str | None = None) -> Distributed | None:
    """Return what a store has applied, and what one of its terminals has acknowledged.

    None if there is no such store.
    """
    has_presence = and_(
        Presence.store_id == tables.Store.store_id, Presence.terminal_id == terminal_id
    )
    row = db.session.execute(
        select(
            tables.Store.applied_revision,
            tables.Store.applied_at,
            Presence.acknowledged_revision,
        )
        .outerjoin(Presence, has_presence)
        .where(tables.Store.store_id == store_id)
    ).first()
    return Distributed(*row) if row else None


def in_force_at(store_id: str | None, revision: int) -> Parameters:
    """Return the parameters of a store (or of the company) as a revision leaves them.

    Not for a revision that may still be rolled back: its number would be given again.
    """
    return in_force_of({store_id: revision})[store_id]


def kept_at(store_id: str, revision: int) -> Parameters | None:
    """Return the parameters of a store as a revision leaves them, if no statement is needed."""
    kept = _kept.get(engine())
    if kept is None:
        return None
    known = kept.resolved.get((store_id, revision))
    if known is not None and store_id in kept.stores:
        return known
    company, stores = kept.scopes((store_id,))
    if stores[store_id].up_to < revision or company.up_to < revision:
        return None
    if len(kept.resolved) >= RESOLVED_KEPT_MAX:
        kept.resolved.clear()
    known = kept.resolved[store_id, revision] = kept.resolve(company, stores[store_id], revision)
    return known


def read_at(store_id: str, revision: int) -> Parameters:
    """Return the parameters of a store as a revision leaves them, also without a session.

    Raises:  Unavailable.
    """
    kept = _kept.setdefault(engine(), _Kept())
    company, stores = kept.scopes([store_id])
    try:
        with engine().connect() as connection:
            company, stores = _read(kept, company, stores, [revision], connection)
    except DATABASE_ERRORS as error:
        raise unavailable() from error
    return kept.resolve(company, stores[store_id], revision)


def in_force_now(store_ids: Iterable[str]) -> dict[str, Parameters]:
    """Return the parameters that are saved for some stores: at most two statements, however many.

    Not in a transaction that saves a revision, as for `in_force_at`.
    """
    named = sorted(set(store_ids))
    found = db.session.execute(
        select(Revision.store_id, func.max(Revision.revision))
        .where(or_(Revision.store_id.is_(None), Revision.store_id.in_(named)))
        .group_by(Revision.store_id)
    )
    newest: dict[str | None, int] = {row[0]: row[1] for row in found}
    company = newest.get(None, 0)
    # Most stores set nothing themselves: theirs are the company's.
    wanted = {None: company} | {one: max(company, revision) for one, revision in newest.items()}
    resolved = in_force_of(wanted)
    return {store_id: resolved.get(store_id, resolved[None]) for store_id in named}


def in_force_of(wanted: Mapping[str | None, int]) -> dict[str | None, Parameters]:
    """Return the parameters of stores (None is the company), each as a revision leaves them.

    One statement for whatever is not kept yet, however many stores and revisions that is.
    """
    kept = _kept.setdefault(engine(), _Kept())
    company, stores = kept.scopes(store_id for store_id in wanted if store_id is not None)
    behind = [store_id for store_id in stores if stores[store_id].up_to < wanted[store_id]]
    if behind or company.up_to < max(wanted.values(), default=0):
        company, read = _read(kept, company, {one: stores[one] for one in behind}, wanted.values())
        stores |= read
    return {
        store_id: kept.resolve(
            company, stores[store_id] if store_id is not None else None, revision
        )
        for store_id, revision in wanted.items()
    }


class _OfStore(Mapping[int, Parameters]):
    """The parameters of a store by revision, each resolved when it is asked for."""

    def __init__(self, kept: _Kept, company: _Scope, own: _Scope) -> None:
        self._kept, self._company, self._own = kept, company, own
        self._revisions = {0, *company.revisions, *own.revisions}

    def __getitem__(self, revision: int) -> Parameters:
        if revision not in self._revisions:
            raise KeyError(revision)
        return self._kept.resolve(self._company, self._own, revision)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._revisions))

    def __len__(self) -> int:
        return len(self._revisions)


def all_of_store(store_id: str) -> Mapping[int, Parameters]:
    """Return the parameters of a store at every revision that says something for it.

    One statement, and another one if not all of them are kept yet.
    """
    kept = _kept.setdefault(engine(), _Kept())
    company, stores = kept.scopes([store_id])
    if min(company.up_to, stores[store_id].up_to) < latest_revision(store_id):
        company, stores = _read(kept, company, stores, ())
    return _OfStore(kept, company, stores[store_id])


def _read(
    kept: _Kept,
    company: _Scope,
    stores: Mapping[str, _Scope],
    asked: Iterable[int],
    source: sqlalchemy.Connection | None = None,
) -> tuple[_Scope, dict[str, _Scope]]:
    """Read what the company and some stores have set since what is kept of them, and keep it.

    Revisions are committed in the order of their numbers: who sees one sees all before it. So the
    newest one seen tells how far everything that was read is complete. ``asked`` are looked for as
    well, as they may say nothing for these stores.
    """
    since = min((scope.up_to for scope in stores.values()), default=0)
    is_wanted = [
        and_(Revision.store_id.is_(None), Revision.revision > company.up_to),
        Revision.revision.in_(sorted(set(asked))),
    ]
    if stores:
        is_wanted.append(and_(Revision.store_id.in_(sorted(stores)), Revision.revision > since))
    columns = (Revision.store_id, Revision.revision, Revision.values)
    query = select(*columns).where(or_(*is_wanted)).order_by(Revision.revision)
    found = (source or db.session).execute(query).all()
    up_to = max([company.up_to, *(row.revision for row in found)])
    rows: dict[str | None, list[tuple[int, Mapping[str, Any]]]] = {}
    for row in found:
        rows.setdefault(row.store_id, []).append((row.revision, row.values))
    company = company.followed_by(rows.get(None, ()), up_to)
    read = {one: scope.followed_by(rows.get(one, ()), up_to) for one, scope in stores.items()}
    kept.keep(company, read)
    return company, read


def values_at(store_id: str | None, revision: int) -> Mapping[str, Any]:
    """Return what a store sets itself, or what the company sets, as a revision leaves it."""
    values = db.session.scalar(
        select(Revision.values)
        .where(_is_scope(store_id), Revision.revision <= revision)
        .order_by(Revision.revision.desc())
        .limit(1)
    )
    return values or {}


def _is_scope(store_id: str | None) -> ColumnElement[bool]:
    return Revision.store_id.is_(None) if store_id is None else Revision.store_id == store_id


def lock_for_edit(connection: Connection) -> int:
    """Let only one edit at a time number its revision; return the newest number of all."""
    # Cold and short: an edit is a person pressing a button.
    connection.execute("LOCK TABLE parameter_revisions IN SHARE ROW EXCLUSIVE MODE")
    return db.session.scalar(select(func.coalesce(func.max(Revision.revision), 0))) or 0


def add(
    revision: int,
    store_id: str | None,
    values: Mapping[str, Any],
    changes: Mapping[str, Any],
    *,
    reason: str,
    changed_at: datetime,
    changed_by: str,
) -> None:
    """Append a revision."""
    db.session.add(
        Revision(
            revision=revision,
            store_id=store_id,
            values=dict(values),
            changes=dict(changes),
            reason=reason,
            changed_at=changed_at,
            changed_by=changed_by,
        )
    )
    db.session.flush()


def edits(*, store_id: str | None, name: str | None, after: int | None, limit: int) -> list[Edited]:
    """Return revisions, newest first, before a revision; of one store or of all scopes, and those
    that changed one parameter or any.
    """
    older = aliased(Revision)
    before = (
        select(older.values)
        .where(
            older.store_id.is_not_distinct_from(Revision.store_id),
            older.revision < Revision.revision,
        )
        .order_by(older.revision.desc())
        .limit(1)
        .scalar_subquery()
    )
    wanted = select(Revision, before).order_by(Revision.revision.desc()).limit(limit)
    if store_id is not None:
        wanted = wanted.where(Revision.store_id == store_id)
    if name is not None:
        wanted = wanted.where(Revision.changes.op("?")(name))
    if after is not None:
        wanted = wanted.where(Revision.revision < after)
    return [
        Edited(
            one.revision,
            one.store_id,
            one.changed_at,
            one.changed_by,
            one.reason,
            one.changes,
            values or {},
        )
        for one, values in db.session.execute(wanted)
    ]


def terminal_rows(
    *, store_id: str | None, after: tuple[str, str] | None, limit: int
) -> list[TerminalRow]:
    """Return the registers in use by store and id, after one, with what each has acknowledged.

    A store in use without registers is a row, too. One statement, whatever the number of rows.
    """
    page = _page_of_terminals(store_id, after, limit).subquery()
    saved = aliased(Revision)
    newest = (
        select(func.coalesce(func.max(Revision.revision), 0))
        .where(or_(Revision.store_id.is_(None), Revision.store_id == page.c.store_id))
        .correlate(page)
        .scalar_subquery()
    )
    company = _values_at(page, Revision.store_id.is_(None))
    override = _values_at(page, Revision.store_id == page.c.store_id)
    served = tables.ParameterAcknowledgement
    was_served = and_(
        served.store_id == page.c.store_id,
        served.terminal_id == page.c.terminal_id,
        served.revision == page.c.acknowledged_revision,
    )
    rows = db.session.execute(
        select(
            page,
            newest.label("saved_revision"),
            saved.changed_at,
            served.acknowledged_at,
            company.label("company"),
            override.label("override"),
        )
        .select_from(page)
        .outerjoin(saved, saved.revision == newest)
        .outerjoin(served, was_served)
        .order_by(page.c.store_id, page.c.place)
    )
    return [
        TerminalRow(
            row.store_id,
            row.saved_revision,
            row.changed_at,
            row.applied_revision,
            row.applied_at,
            row.terminal_id,
            None
            if row.acknowledged_revision is None
            else in_force(row.acknowledged_revision, row.company or {}, row.override or {}),
            row.acknowledged_at,
        )
        for row in rows
    ]


def _page_of_terminals(
    store_id: str | None, after: tuple[str, str] | None, limit: int
) -> Select[*tuple[Any, ...]]:
    store, register = tables.Store, tables.Terminal
    place = func.coalesce(register.terminal_id, "")
    in_use = and_(register.store_id == store.store_id, register.retired_at.is_(None))
    is_its_presence = and_(
        Presence.store_id == register.store_id, Presence.terminal_id == register.terminal_id
    )
    wanted = (
        select(
            store.store_id,
            store.applied_revision,
            store.applied_at,
            register.terminal_id,
            place.label("place"),
            Presence.acknowledged_revision,
        )
        .outerjoin(register, in_use)
        .outerjoin(Presence, is_its_presence)
        .where(store.retired_at.is_(None))
        .order_by(store.store_id, place)
        .limit(limit)
    )
    if store_id is not None:
        wanted = wanted.where(store.store_id == store_id)
    if after is not None:
        wanted = wanted.where(tuple_(store.store_id, place) > after)
    return wanted


def _values_at(page: Any, scope: ColumnElement[bool]) -> Any:
    """Return the values of a scope at the revision that each terminal of a page acknowledged."""
    return (
        select(Revision.values)
        .where(scope, Revision.revision <= page.c.acknowledged_revision)
        .correlate(page)
        .order_by(Revision.revision.desc())
        .limit(1)
        .scalar_subquery()
    )
