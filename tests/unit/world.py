"""A headquarters in memory: it keeps what the pure rules return, and holds no rule of its own.

It stands where ``operations`` and ``store`` stand: what they read it looks up, what they write it
keeps, and what the schema refuses it refuses, too. So a schedule that goes wrong here goes wrong
by the rules, and no database is needed to play thousands of them.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from hq_service.domain import issuing, locking, settlement
from hq_service.domain.journals import Journal
from hq_service.domain.judgement import Context, GoneLock, Known, OnlineRefusal, gone_lock
from hq_service.domain.locking import Acquisition, LockRequest
from hq_service.domain.model import (
    DEBITS,
    BusinessKey,
    Content,
    EndedLock,
    Entry,
    Instrument,
    InstrumentStatus,
    Line,
    Lock,
    LockEnd,
    Posting,
    Purpose,
    Terminal,
    UnreadableLine,
    Void,
    newborn,
)
from hq_service.domain.numbers import bucket_of, last4, uuid7
from hq_service.domain.outcomes import LineResult, Outcome, case_id_of
from hq_service.domain.parameters import STICKY, Parameters
from hq_service.domain.settlement import Settlement
from hq_service.operations.offline_batches import settlement_order
from tests.support import KEYRING

STORE_ID = "S001"
ENDLESS = 1_000_000

Lines = Sequence[Line | UnreadableLine]


class Stopped(Exception):
    """HQ stops between two chunks of a batch; what it has settled it keeps."""


@dataclass
class Question:
    """A case, as it was opened: the line, and what became of it."""

    line: Line
    result: LineResult
    resolution: str | None = None


@dataclass
class Batch:
    """A batch as received, and how far it is settled."""

    batch_id: str
    ordered: Lines
    received_at: datetime
    parameters: Parameters
    results: list[LineResult] = field(default_factory=list)


@dataclass
class World:
    """The store of one headquarters, for the tills of one shop.

    Shapes: ``given`` are all locks that anybody ever got, with their instruments; ``held`` the
    lines that are held, resolved or not; ``revisions`` the Commerce parameters, by revision.
    """

    terminals: dict[str, Terminal] = field(default_factory=dict)
    revisions: dict[int, Parameters] = field(default_factory=lambda: {0: Parameters()})
    instruments: dict[UUID, Instrument] = field(default_factory=dict)
    postings: list[Posting] = field(default_factory=list)
    voids: dict[BusinessKey, Void] = field(default_factory=dict)
    undone: dict[BusinessKey, LineResult] = field(default_factory=dict)
    given: list[tuple[UUID, Lock]] = field(default_factory=list)
    ended: list[EndedLock] = field(default_factory=list)
    held: dict[BusinessKey, dict[Content, LineResult]] = field(default_factory=dict)
    questions: dict[UUID, Question] = field(default_factory=dict)
    journals: dict[tuple[str, str], Journal] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)

    def copy(self) -> World:
        """Return a world that goes on from here by itself."""
        return copy.deepcopy(self)

    # What the store writes.

    def add_terminal(self, terminal_id: str) -> None:
        self.terminals[terminal_id] = Terminal(STORE_ID, terminal_id, supports_offline=True)

    def edit_parameters(self, parameters: Parameters) -> None:
        revision = max(self.revisions) + 1
        self.revisions[revision] = replace(parameters, revision=revision)

    @property
    def in_force(self) -> Parameters:
        return self.revisions[max(self.revisions)]

    def fetch_parameters(self, terminal_id: str, now: datetime) -> None:
        """Serve the parameters to a terminal, which acknowledges them thereby."""
        served = self.terminals[terminal_id].served_revisions | {self.in_force.revision}
        self.terminals[terminal_id] = replace(
            self.terminals[terminal_id],
            last_seen_at=now,
            acknowledged_revision=self.in_force.revision,
            served_revisions=served,
        )

    def touch(self, terminal_id: str, now: datetime) -> None:
        self.terminals[terminal_id] = replace(self.terminals[terminal_id], last_seen_at=now)

    def issue(self, kind: str, number: str, balance_minor: int, now: datetime) -> Instrument:
        """Issue an instrument at headquarters."""
        instrument, posting = issuing.issue(
            issuing.key_of_headquarters(f"issue-{number}"),
            KEYRING.instrument_id(kind, number),
            kind=kind,
            normalised_number=number,
            currency="SEK",
            amount_minor=balance_minor,
            now=now,
        )
        self.instruments[instrument.instrument_id] = instrument
        self.postings.append(posting)
        return instrument

    def keep(self, lines: Lines, done: Settlement) -> None:
        """Store what a settlement did, as the schema would let it be stored."""
        for line, result in zip(lines, done.results, strict=True):
            if result.outcome != Outcome.DUPLICATE and isinstance(line, Line):
                self._keep_result(line, result)
        for created in done.created.values():
            self.instruments.setdefault(
                created.instrument_id,
                newborn(
                    created.instrument_id, created.kind, created.currency, created.number_last4
                ),
            )
        self._refuse_what_the_schema_refuses(done)
        self.postings += done.postings
        self.instruments |= done.instruments
        self.ended += done.ended_locks
        for void in done.voids:
            assert void.key not in self.voids, ("voided twice", void)
            self.voids[void.key] = void
        for line, result in zip(lines, done.results, strict=True):
            if isinstance(line, Line) and line.is_void and line.key in self.voids:
                self.undone.setdefault(line.key, replace(result, undone=None))
        for case_id, outcome in done.closed_cases.items():
            question = self.questions.get(case_id)
            if question is not None and question.resolution is None:
                assert question.result.outcome == outcome
                question.resolution = "voided"
        self.journals |= done.journals

    def _keep_result(self, line: Line, result: LineResult) -> None:
        if result.outcome == Outcome.HELD:
            self.held.setdefault(line.key, {})[line.content] = result
        if result.case_id is not None:
            self.questions.setdefault(result.case_id, Question(line, result))

    def _refuse_what_the_schema_refuses(self, done: Settlement) -> None:
        before = [one for one in self.postings if one.key in {new.key for new in done.postings}]
        keys = [(*one.key, one.entry, bucket_of(one.instrument_id)) for one in before]
        keys += [(*one.key, one.entry, bucket_of(one.instrument_id)) for one in done.postings]
        assert len(keys) == len(set(keys)), "a business key is posted twice"
        spent = [*self._spent_locks(), *_locks_spent_by(done.postings)]
        assert len(spent) == len(set(spent)), "a lock funds two lines"
        for one in done.postings:
            assert one.amount_minor == one.funded_minor + one.shortfall_minor, one
            assert min(one.funded_minor, one.shortfall_minor) >= 0, one
            assert abs(one.change_minor) == one.funded_minor, one
            assert one.balance_after_minor >= 0, one
        for instrument in done.instruments.values():
            assert instrument.balance_minor >= 0, instrument
            is_worthless = instrument.status in (
                InstrumentStatus.PENDING,
                InstrumentStatus.APPLIED,
                InstrumentStatus.CLOSED,
            )
            assert not is_worthless or not instrument.balance_minor, instrument

    # What the store reads.

    def posted(self, key: BusinessKey) -> list[Posting]:
        return [one for one in self.postings if one.key == key]

    def _spent_locks(self) -> Iterable[UUID]:
        return _locks_spent_by(self.postings)

    def what_is_known_of(self, lines: Sequence[Line]) -> Known:
        """Return what ``store.settlements.load`` would find of the keys and locks of some lines."""
        originals = {line.original for line in lines if line.original is not None}
        keys = {line.key for line in lines} | originals
        known = Known(journals=self.journals)
        touched = {line.instrument_id for line in lines}
        voidable = {line.key for line in lines if line.is_void}
        refundable = originals | voidable
        of_refunds = {one.original for one in self.postings if one.key in voidable} - {None}
        known.voided = {key: self.undone[key] for key in (keys | of_refunds) & self.undone.keys()}
        refunded: dict[BusinessKey, int] = defaultdict(int)
        for key in keys:
            if found := {**self.held.get(key, {}), **self._told_of_postings(key)}:
                known.results[key] = found
        for one in self.postings:
            if one.original in refundable and one.operation == "refund":
                sign = -1 if one.entry == Entry.REVERSAL else 1
                refunded[one.original] += sign * one.amount_minor
            if one.lock_id and one.entry == Entry.ORIGINAL and one.instrument_id in touched:
                known.consumed_locks[one.instrument_id, one.lock_id] = one.key
        known.refunded_minor = dict(refunded)
        known.gone_locks = self._gone_locks(lines)
        return known

    def _told_of_postings(self, key: BusinessKey) -> dict[Content, LineResult]:
        own = self.posted(key)
        split = next((one for one in own if one.entry == Entry.REMAINDER_OUT), None)
        told = {}
        for one in own:
            if one.entry != Entry.ORIGINAL:
                continue
            result = LineResult(
                Outcome.APPLIED,
                one.codes,
                one.funded_minor,
                one.shortfall_minor,
                split.balance_after_minor if split else one.balance_after_minor,
                remainder_id=split.related_instrument_id if split else None,
                forfeited_minor=(
                    split.funded_minor if split and not split.related_instrument_id else 0
                ),
            )
            if result.needs_case:
                result.case_id = case_id_of(key, one.content)
            told[one.content] = result
        return told

    def _gone_locks(
        self, lines: Sequence[Line]
    ) -> dict[tuple[UUID, str, str, str], list[GoneLock]]:
        wanted = set()
        for line in lines:
            instrument = self.instruments.get(line.instrument_id)
            lock = instrument.lock if instrument else None
            if lock is None or not lock.belongs_to(line.key):
                wanted.add((line.instrument_id, *line.key[:3]))
        gone: dict[tuple[UUID, str, str, str], list[GoneLock]] = {}
        for one in self.ended:
            owner = (one.instrument_id, *one.lock.key[:3])
            if owner in wanted:
                lock = one.lock
                gone.setdefault(owner, []).append(gone_lock(lock, one.end))
        return gone

    # What the operations do.

    def find(self, kind: str, number: str) -> Instrument | None:
        """Return the instrument of a number; a used memo leads on to its remainder."""
        found = self.instruments.get(KEYRING.instrument_id(kind, number))
        while found is not None and found.remainder_id and found.status == "applied":
            found = self.instruments.get(found.remainder_id)
        return found

    def lock(
        self, request: LockRequest, kind: str, number: str | None, now: datetime
    ) -> tuple[Acquisition, Instrument]:
        """Decide on a lock request, and give the lock."""
        if request.purpose == Purpose.ISSUE:
            instrument = self._pending(request, kind, number)
        else:
            found = self.find(kind, number or "")
            assert found is not None, "the schedules lock what is there"
            instrument = found
        held = instrument.lock
        terminal = self.terminals[request.key.terminal_id]
        acknowledged = terminal.acknowledged_revision
        acquisition = locking.acquire(
            request,
            instrument,
            is_voided=request.key in self.voids,
            is_holder_voided=held is not None and held.key in self.voids,
            is_concluded=any(one.entry == Entry.ORIGINAL for one in self.posted(request.key)),
            holder_last_seen_at=self.terminals[held.terminal_id].last_seen_at if held else None,
            terminal=terminal,
            granting=None if acknowledged is None else self.revisions[acknowledged],
            parameters=self.in_force,
            lock_id=uuid7(now, len(self.given).to_bytes(10)),
            now=now,
        )
        if acquisition.lock is None:
            return acquisition, instrument
        self.touch(request.key.terminal_id, now)
        if acquisition.is_new:
            self._give(acquisition, instrument, now)
        return acquisition, self.instruments[instrument.instrument_id]

    def _pending(self, request: LockRequest, kind: str, number: str | None) -> Instrument:
        made = number or KEYRING.number_made_for(kind, request.key)
        instrument_id = KEYRING.instrument_id(kind, made)
        created = newborn(instrument_id, kind, request.currency or "SEK", last4(made))
        return self.instruments.setdefault(instrument_id, created)

    def _give(self, acquisition: Acquisition, instrument: Instrument, now: datetime) -> None:
        assert acquisition.lock is not None  # the caller looked
        locked = replace(instrument, lock=acquisition.lock)
        self.instruments[instrument.instrument_id] = locked
        self.given.append((instrument.instrument_id, acquisition.lock))
        if acquisition.displaced is not None and acquisition.displaced_end is not None:
            displaced, end = acquisition.displaced, acquisition.displaced_end
            self.ended.append(EndedLock(instrument.instrument_id, displaced, end, now, "till"))

    def conclude(
        self, lines: Sequence[Line], now: datetime
    ) -> list[LineResult] | dict[int, OnlineRefusal]:
        """Conclude the lines of one sale online, all or none."""
        key = lines[0].key
        here = Terminal(key.store_id, key.terminal_id, supports_offline=True)
        context = Context(
            received_at=now,
            now=now,
            parameters=self.in_force,
            terminals={(key.store_id, key.terminal_id): here},
            parameters_at={},
            keyring=KEYRING,
            actor="till",
            is_offline=False,
        )
        done = settlement.conclude(lines, self.instruments, self.what_is_known_of(lines), context)
        if isinstance(done, Settlement):
            self.keep(lines, done)
            self.touch(key.terminal_id, now)
            return done.results
        return done

    def break_lock(self, instrument_id: UUID, now: datetime) -> Lock | None:
        """End a lock as an administrator does; return it, None if there was none."""
        instrument = self.instruments[instrument_id]
        if instrument.lock is not None:
            broken = EndedLock(instrument_id, instrument.lock, LockEnd.BROKEN, now, "admin", "test")
            self.instruments[instrument_id] = replace(instrument, lock=None)
            self.ended.append(broken)
        return instrument.lock

    def post(
        self,
        batch_id: str,
        lines: Lines,
        now: datetime,
        *,
        chunk_lines: int = ENDLESS,
        stops_after: int | None = None,
    ) -> list[LineResult]:
        """Receive a batch and settle it, after every other unsettled one, chunk by chunk.

        Returns: what became of each line, in the sender's order.
        Raises:  Stopped after so many chunks.
        """
        ordered = sorted(lines, key=settlement_order)
        batch = self.batches.setdefault(batch_id, Batch(batch_id, ordered, now, self.in_force))
        left = iter(range(ENDLESS if stops_after is None else stops_after))
        for other in self.batches.values():
            while len(other.results) < len(other.ordered):
                if next(left, None) is None:
                    raise Stopped
                self._settle_chunk(other, now, chunk_lines)
        told = {id(line): result for line, result in zip(batch.ordered, batch.results, strict=True)}
        by_position = sorted(batch.ordered, key=lambda line: line.position)
        return [told[id(line)] for line in by_position]

    def _settle_chunk(self, batch: Batch, now: datetime, chunk_lines: int) -> None:
        chunk = batch.ordered[len(batch.results) :][:chunk_lines]
        context = Context(
            received_at=batch.received_at,
            now=now,
            parameters=batch.parameters,
            terminals={(STORE_ID, name): one for name, one in self.terminals.items()},
            parameters_at=self.revisions,
            keyring=KEYRING,
            actor="sync",
            batch_id=batch.batch_id,
        )
        readable = [line for line in chunk if isinstance(line, Line)]
        done = settlement.settle(chunk, self.instruments, self.what_is_known_of(readable), context)
        self.keep(chunk, done)
        batch.results += done.results

    # What is true of it.

    @property
    def live(self) -> Mapping[UUID, Lock]:
        """Return the live locks, by instrument."""
        return {
            instrument.instrument_id: instrument.lock
            for instrument in self.instruments.values()
            if instrument.lock is not None
        }

    def check(self) -> None:
        """Check what must be true at any moment."""
        for instrument in self.instruments.values():
            self._check_balance(instrument)
        ended = [one.lock.lock_id for one in self.ended]
        assert len(ended) == len(set(ended)), "a lock has ended twice"
        open_locks: dict[UUID, list[UUID]] = defaultdict(list)
        gone = {*ended, *self._spent_locks()}
        for instrument_id, lock in self.given:
            if lock.lock_id not in gone:
                open_locks[instrument_id].append(lock.lock_id)
        # Each lock that was given and has not ended is the one live lock of its instrument.
        assert open_locks == {one: [lock.lock_id] for one, lock in self.live.items()}
        self._check_what_is_reserved()

    def _check_what_is_reserved(self) -> None:
        """What a grant says its holder may spend is there, for as long as the lock lives."""
        if any(one.on_horizon != STICKY for one in self.revisions.values()):
            return
        for instrument_id, lock in self.live.items():
            # A transaction that voids a load of its own takes from what it reserves itself.
            is_voided_in_part = any(
                one.entry == Entry.REVERSAL and lock.belongs_to(one.key) for one in self.postings
            )
            if lock.grant_until is not None and lock.purpose in DEBITS and not is_voided_in_part:
                there_minor = self.instruments[instrument_id].balance_minor
                assert there_minor >= lock.amount_minor, ("a grant is not covered", lock)

    def _check_balance(self, instrument: Instrument) -> None:
        own = [one for one in self.postings if one.instrument_id == instrument.instrument_id]
        assert instrument.balance_minor >= 0, instrument
        assert instrument.version == len(own), ("versions have gaps", instrument)
        balance_minor = 0
        for version, one in enumerate(own, start=1):
            balance_minor += one.change_minor
            assert (one.version, one.balance_after_minor) == (version, balance_minor), one
        assert instrument.balance_minor == balance_minor, ("not the sum of postings", instrument)


def _locks_spent_by(postings: Iterable[Posting]) -> Iterable[UUID]:
    return [
        one.lock_id for one in postings if one.lock_id is not None and one.entry == Entry.ORIGINAL
    ]
