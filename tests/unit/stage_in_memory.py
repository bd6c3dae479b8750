"""What the schedules of ``tests/stateful`` play on when there is no service: a world in memory.

`Wire` answers what a till, a sync job or an administrator posts as the service would, as far as a
schedule reads the answer. It decides nothing: it names what the rules have decided.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, cast
from uuid import UUID

from flask.testing import FlaskClient

from hq_service.domain import locking
from hq_service.domain.locking import LockRequest, LockState
from hq_service.domain.model import (
    DEBITS,
    BusinessKey,
    Entry,
    InstrumentStatus,
    Line,
    LockEnd,
    Operation,
    Posting,
)
from hq_service.domain.outcomes import LineResult, Outcome
from hq_service.domain.parameters import Parameters
from hq_service.domain.reading import NO_CURRENCY, read_line
from tests.stateful.endings import Ending, Row
from tests.stateful.schedules import CarelessSchedule, Chance, Schedule
from tests.stateful.truth import Clock, Sale, StoreTill
from tests.support import KEYRING, Caller, Card, Till
from tests.unit.world import STORE_ID, Question, Stopped, World

CHUNK_LINES = 3
"""As few as the schedules on PostgreSQL have: most batches are cut, and HQ can stop in between."""

INSTRUMENTS_OF_A_KIND = 2
"""Fewer than they have there: three tills meet on them all the time."""

EXISTENCE_DOUBTS = frozenset(
    """business_key_reused currency_mismatch lock_already_used unknown_instrument unknown_original
    refund_exceeds_original instrument_expired instrument_closed instrument_applied""".split()
)
"""Why a line may be held; a doubt about its funding posts it, with a case."""

Body = Mapping[str, Any]


class Answer(NamedTuple):
    """What a schedule reads of an answer."""

    status_code: int
    json: dict[str, Any]


@dataclass
class Wire:
    """The line to HQ of everybody who calls it: each request runs a rule of the world."""

    world: World
    clock: Clock
    stops_after: int | None = None

    def post(self, path: str, body: Body) -> Answer:
        answer = {
            "/v1/locks": self._lock,
            "/v1/releases": self._release,
            "/v1/redemptions": self._redeem,
            "/v1/transactions": self._conclude,
            "/v1/voids": self._void,
            "/v1/offline-batches": self._settle,
            "/v1/admin/lock-breaks": self._break,
        }[path](body)
        self.world.check()
        return answer

    def get(self, path: str) -> Answer:
        """Show a lock to an administrator."""
        instrument_id = UUID(path.rpartition("/")[2])
        instrument = self.world.instruments.get(instrument_id)
        lock = instrument.lock if instrument is not None else None
        if instrument is None or lock is None:
            return Answer(404, {"code": "lock_not_found"})
        exposure_minor = locking.exposure_minor(
            lock, instrument, self.world.in_force, self.clock.instant
        )
        named = {"terminal_id": lock.terminal_id, "transaction_id": lock.transaction_id}
        return Answer(
            200, {**named, "lock_id": str(lock.lock_id), "exposure_minor": exposure_minor}
        )

    def _lock(self, body: Body) -> Answer:
        request = LockRequest(
            _key(body), body["purpose"], body.get("amount_minor"), body.get("currency")
        )
        number = body.get("number")
        acquisition, instrument = self.world.lock(request, body["kind"], number, self.clock.instant)
        lock = acquisition.lock
        if lock is None:
            is_offline = acquisition.holder_state is LockState.SUSPECT
            holder = {"presumed_offline": is_offline}
            return Answer(423, {"code": str(acquisition.refusal), "holder": holder})
        grant = locking.grant_of(lock, instrument)
        is_made = request.purpose == Operation.ISSUE and number is None
        made = KEYRING.number_made_for(body["kind"], request.key) if is_made else None
        told = {
            "lock_id": str(lock.lock_id),
            "max_amount_minor": lock.amount_minor,
            "instrument": {
                "instrument_id": str(instrument.instrument_id),
                "currency": instrument.currency,
            },
            "number": made,
            "offline": {"grant": KEYRING.sign(grant) if grant else None},
        }
        return Answer(201 if acquisition.is_new else 200, told)

    def _release(self, body: Body) -> Answer:
        line = Line(
            _key(body),
            Operation.RELEASE,
            UUID(body["instrument_id"]),
            0,
            NO_CURRENCY,
            lock_id=UUID(body["lock_id"]),
        )
        done = self.world.conclude([line], self.clock.instant)
        was_released = any(
            one.lock.lock_id == line.lock_id and one.end == LockEnd.RELEASED
            for one in self.world.ended
        )
        if isinstance(done, list) or was_released:
            return Answer(200, {})
        return Answer(409, {"code": str(done[0])})

    def _redeem(self, body: Body) -> Answer:
        answer = self._conclude({**body, "lines": [{**body, "operation": Operation.REDEEM}]})
        lines = answer.json.get("lines")
        return Answer(answer.status_code, lines[0]) if lines else answer

    def _conclude(self, body: Body) -> Answer:
        lines = [
            Line(
                BusinessKey(
                    body["store_id"], body["terminal_id"], body["transaction_id"], one["line"]
                ),
                one["operation"],
                UUID(one["instrument_id"]),
                one["amount_minor"],
                one["currency"],
                lock_id=UUID(one["lock_id"]),
                original=_key(one["original"]) if "original" in one else None,
                reason=one.get("reason"),
                concluded_at=self.clock.instant,
            )
            for one in body["lines"]
        ]
        done = self.world.conclude(lines, self.clock.instant)
        if not isinstance(done, list):
            return Answer(409, {"code": str(next(iter(done.values())))})
        is_replay = all(one.outcome == Outcome.DUPLICATE for one in done)
        told = [_concluded(line, result) for line, result in zip(lines, done, strict=True)]
        return Answer(200 if is_replay else 201, {"lines": told})

    def _void(self, body: Body) -> Answer:
        line = Line(
            _key(body),
            Operation.VOID,
            UUID(body["instrument_id"]),
            0,
            NO_CURRENCY,
            reason=body["reason"],
            concluded_at=self.clock.instant,
        )
        done = self.world.conclude([line], self.clock.instant)
        return Answer(201 if isinstance(done, list) else 422, {})

    def _settle(self, body: Body) -> Answer:
        lines = [
            read_line(raw, position, STORE_ID, KEYRING, self.clock.instant)
            for position, raw in enumerate(body["lines"])
        ]
        try:
            results = self.world.post(
                body["batch_id"],
                lines,
                self.clock.instant,
                chunk_lines=CHUNK_LINES,
                stops_after=self.stops_after,
            )
        except Stopped:
            return Answer(503, {"code": "unavailable"})
        continued = {
            (line.place.terminal_id, line.place.journal_id) for line in lines if line.place
        }
        journals = [
            {
                "terminal_id": terminal_id,
                "acknowledged_through": self.world.journals[
                    terminal_id, journal_id
                ].acknowledged_through,
            }
            for terminal_id, journal_id in sorted(continued)
        ]
        return Answer(201, {"results": [_settled(one) for one in results], "journals": journals})

    def _break(self, body: Body) -> Answer:
        self.world.break_lock(UUID(body["instrument_id"]), self.clock.instant)
        return Answer(201, {})


def _key(named: Body) -> BusinessKey:
    return BusinessKey(*(named[name] for name in BusinessKey._fields))


def _concluded(line: Line, result: LineResult) -> dict[str, Any]:
    number = KEYRING.remainder_number_for(line.key) if result.remainder_id else None
    remainder = {"instrument_id": result.remainder_id, "number": number}
    return {
        "balance_after_minor": result.balance_after_minor,
        "remainder": remainder if result.remainder_id else None,
    }


def _settled(result: LineResult) -> dict[str, Any]:
    names = ("outcome", "funded_minor", "shortfall_minor", "balance_after_minor", "case_id")
    told = {name: getattr(result, name) for name in names}
    return {**told, "codes": list(result.codes), "remainder_id": result.remainder_id}


@dataclass
class StageInMemory:
    """One world and its clock; ``seen`` counts what has happened in all schedules together."""

    seen: Counter[str] = field(default_factory=Counter)
    clock: Clock = field(default_factory=Clock)
    started: int = 0
    ended: int = 0
    played: Any = None

    def __post_init__(self) -> None:
        self.world = World()
        self.wire = Wire(self.world, self.clock)

    @property
    def hq(self) -> StageInMemory:
        """Return what has an administrator, as the running service has one."""
        return self

    @property
    def admin(self) -> Wire:
        return self.wire

    def open_store(
        self, tills_count: int, balances: Mapping[str, Sequence[int]]
    ) -> tuple[list[StoreTill], Caller, list[Card]]:
        """Return the tills, the sync job and the cards of the store."""
        tills: list[StoreTill] = []
        cards: list[Card] = []
        client = cast(FlaskClient, self.wire)
        for place in range(1, tills_count + 1):
            self.world.add_terminal(f"T{place}")
            caller = TillInMemory(client, "", STORE_ID, f"T{place}", f"J{place}")
            tills.append(StoreTill(f"till {place}", caller))
        for kind, of_kind in balances.items():
            for balance_minor in of_kind[:INSTRUMENTS_OF_A_KIND]:
                number = f"6006{len(cards):012d}"
                instrument = self.world.issue(kind, number, balance_minor, self.clock.instant)
                cards.append(Card(kind, number, str(instrument.instrument_id), "SEK"))
        return tills, cast(Caller, self.wire), cards

    def set_parameters(self, **wanted: Any) -> None:
        """Edit the parameters, unless they are so already."""
        in_force = self.world.in_force.values()
        changed = {**in_force, **wanted}
        if changed != in_force:
            self.world.edit_parameters(Parameters(**changed))


class TillInMemory(Till):
    """A till whose line is a `Wire`."""

    def post(self, path: str, body: Any, **_headers: str) -> Any:
        return self.client.post(path, body)

    def offline_line(self, *sold: Any, **more: Any) -> dict[str, Any]:
        wire = cast(Wire, self.client)
        return super().offline_line(*sold, concluded_at=wire.clock.instant.isoformat(), **more)

    def get(self, _path: str, **_headers: str) -> Any:
        """Fetch the parameters: tills get nothing else."""
        wire = cast(Wire, self.client)
        wire.world.fetch_parameters(self.terminal_id, wire.clock.instant)
        return Answer(200, {})


class ScheduleInMemory(Schedule):
    """What honest tills do, played on the rules alone."""

    stage: Any
    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        self.stage = StageInMemory(self.seen)
        super().__init__()

    def holder_of(self, sale: Sale) -> Any:
        found = self.stage.world.find(sale.card.kind, sale.card.number)
        return found.lock if found is not None else None

    def post(self, lines: Any, fate: Any, *, again: Any = None, stops_after: Any = None) -> None:
        self.stage.wire.stops_after = stops_after
        super().post(lines, fate, again=again, stops_after=stops_after)

    def teardown(self) -> None:
        self.come_back()
        EndingInMemory(self).check()


class CarelessScheduleInMemory(ScheduleInMemory, CarelessSchedule):
    """What everybody does wrong, played on the rules alone."""

    is_honest = False

    def resolve_a_case(self, chance: Chance) -> bool:
        """Leave the cases open: who resolves them is not the rules' concern."""
        return False


class EndingInMemory(Ending):
    """The world at the end of a schedule, with the truth beside it."""

    def __init__(self, played: ScheduleInMemory) -> None:
        self.played: Any = played
        self.world: World = played.stage.world
        self.postings = [_posting_row(one) for one in self.world.postings if one.key[0] == STORE_ID]
        self.cases = [_case_row(*one) for one in self.world.questions.items()]
        self.case_ids = {case["case_id"]: case for case in self.cases}
        self.of_line = defaultdict(list)
        for posting in self.postings:
            self.of_line[self.line_of(posting)].append(posting)

    def rows(self, _query: str) -> list[Row]:
        """Return the live locks that hold something up: what else there is was read before."""
        return [
            {
                "lock_terminal_id": lock.terminal_id,
                "lock_transaction_id": lock.transaction_id,
                "lock_line": lock.line,
                "instrument_id": instrument_id,
            }
            for instrument_id, lock in self.world.live.items()
            if self.world.instruments[instrument_id].status != InstrumentStatus.APPLIED
            and not self.is_release_taken_for_a_repeat(lock.key)
        ]

    def is_release_taken_for_a_repeat(self, key: BusinessKey) -> bool:
        """Tell whether a till wrote another line into the place of a release.

        To HQ the one that comes second is a repeat of the first, and a repeat frees nothing.
        """
        journal = next(
            till.journal for till in self.played.tills if till.caller.terminal_id == key.terminal_id
        )
        written = Counter(line["sequence"] for line in journal)
        return any(
            written[line["sequence"]] > 1
            for line in journal
            if line["operation"] == Operation.RELEASE
            and (line["transaction_id"], line["line"]) == key[2:]
        )

    def check_the_books(self) -> None:
        self.world.check()
        assert all(
            len(batch.results) == len(batch.ordered) for batch in self.world.batches.values()
        )
        arrived = {
            (one.key, one.related_instrument_id): one.funded_minor
            for one in self.world.postings
            if one.entry == "remainder_in"
        }
        for one in self.world.postings:
            if one.entry == "remainder_out" and one.related_instrument_id is not None:
                assert arrived[one.key, one.instrument_id] == one.funded_minor

    def check(self) -> None:
        self.check_the_books()
        self.check_that_nothing_unsold_is_posted()
        for sale in self.played.sales:
            self.check_sale(sale)
        self.check_that_every_shortfall_has_one_case()
        self.check_that_only_what_may_not_exist_is_held()
        self.check_that_open_cases_are_what_is_short()
        self.check_that_no_lock_is_stranded()
        if self.played.is_honest:
            self.check_that_nothing_fell_short()

    def check_that_only_what_may_not_exist_is_held(self) -> None:
        held = [case for case in self.cases if case["outcome"] == "held"]
        assert all(EXISTENCE_DOUBTS.issuperset(case["codes"]) for case in held), held

    def check_that_open_cases_are_what_is_short(self) -> None:
        """Nothing is clamped: what was not funded is asked about, until it is cancelled."""
        short_minor = 0
        for one in self.world.postings:
            is_cancelled = one.entry == Entry.REVERSAL and one.operation in DEBITS
            short_minor += -one.shortfall_minor if is_cancelled else one.shortfall_minor
        open_minor = sum(
            one.result.shortfall_minor
            for one in self.world.questions.values()
            if one.resolution is None
        )
        assert short_minor == open_minor


def _posting_row(posting: Posting) -> Row:
    return {
        **_columns(posting.key),
        **_columns(posting.original, "original_"),
        "entry": str(posting.entry),
        "operation": str(posting.operation),
        "instrument_id": posting.instrument_id,
        "currency": posting.currency,
        "amount_minor": posting.amount_minor,
        "funded_minor": posting.funded_minor,
        "shortfall_minor": posting.shortfall_minor,
        "change_minor": posting.change_minor,
        "codes": list(posting.codes),
    }


def _case_row(case_id: UUID, question: Question) -> Row:
    line, result = question.line, question.result
    content = result.undone or line.content
    return {
        **_columns(line.key),
        "case_id": case_id,
        "operation": "void" if result.undone else str(line.operation),
        "instrument_id": line.instrument_id,
        "amount_minor": content.amount_minor,
        "shortfall_minor": result.shortfall_minor,
        "outcome": str(result.outcome),
        "codes": list(result.codes),
        "resolution": question.resolution,
        "resolved_at": question.resolution,
    }


def _columns(key: BusinessKey | None, prefix: str = "") -> Row:
    named = key._asdict() if key else dict.fromkeys(BusinessKey._fields)
    return {f"{prefix}{name}": value for name, value in named.items()}
