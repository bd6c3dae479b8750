"""The plan of a simulation: everything that is left to chance, drawn before anything runs.

The same options give the same plan on every machine and Python, so its digest tells whether two
runs had the same schedule. Only `random.Random.random` is used: what is made of it by other methods
may change from version to version, and by logarithms from machine to machine.

A plan goes by work, not by the clock: an outage begins in the middle of a certain visit and ends
before another one. On a slow machine all of it happens, only later.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeVar

from hq_service.domain.model import Kind, Operation
from hq_service.simulation.result import Options, OutageRow

T = TypeVar("T")

VISIT_EVERY_MS = 1_200
MINUTE_MS = 60_000
TIME_OUT_SECONDS = 2
"""The time-out interval of the fleet's offline profile: what comes later has not come."""

REQUESTS_DRAWN = 14
"""For how many requests of a visit a fate is drawn; what a till asks beyond them is delivered."""

LINES_MAX = 4
HOT_CARDS = 12
MEMO_EVERY = 5
SMALL_CARD_EVERY = 9
SMALL_MINOR = 45_00
CASH_OUT_MINOR = 50_00


class Fate(StrEnum):
    """What becomes of one request of a till."""

    REQUEST_LOST = "request_lost"
    ANSWER_LOST = "answer_lost"
    DUPLICATED = "duplicated"
    REFUSED = "refused"  # 503 of a gateway; HQ never sees it
    DELAYED = "delayed"
    LATE = "late"  # HQ gets it after the till has given up waiting


LOST = frozenset({Fate.REQUEST_LOST, Fate.ANSWER_LOST, Fate.REFUSED, Fate.LATE})
"""After these the till does not know what HQ did."""

# Of a thousand requests; the rest is delivered.
_FATES = (
    (Fate.REQUEST_LOST, 10),
    (Fate.ANSWER_LOST, 30),
    (Fate.DUPLICATED, 30),
    (Fate.REFUSED, 8),
    (Fate.DELAYED, 30),
    (Fate.LATE, 10),
)
_LOST_AGAIN_CHANCE = 0.5
_SILENT_CHANCE = 0.1


class Errand(StrEnum):
    """What a customer comes for."""

    SALE = "sale"
    VOID = "void"  # of an earlier sale of the same till
    INQUIRY = "inquiry"


class Moment(StrEnum):
    """When in a visit something happens."""

    BEGINNING = "beginning"
    LOCKING = "locking"  # after the first card is in the sale
    CONCLUDING = "concluding"


class Order(StrEnum):
    """In which order a second sync job sends the lines of a batch."""

    AS_SENT = "as_sent"
    REVERSED = "reversed"
    SHUFFLED = "shuffled"


class Copy(StrEnum):
    """What a second sync job makes of a till's batch."""

    SAME_BATCH = "same_batch"  # the same bytes under the same id
    OTHER_BATCH = "other_batch"  # the same lines under an id of its own
    LINE_BY_LINE = "line_by_line"  # a batch for each line


@dataclass(frozen=True, slots=True)
class PlannedCard:
    """An instrument that HQ issues before the fleet opens."""

    kind: str
    opening_minor: int


@dataclass(frozen=True, slots=True)
class PlannedLine:
    """A line that a customer wants.

    ``card`` is a place among the plan's cards; ``issued_in`` a visit of the same till that issued
    it; neither for an issue. ``amount_minor`` None is all that is there. ``is_named_at_once`` when
    the amount is named before the till knows what is on the card.
    """

    operation: str
    kind: str
    card: int | None = None
    issued_in: int | None = None
    amount_minor: int | None = None
    is_named_at_once: bool = False
    is_removed: bool = False


@dataclass(frozen=True, slots=True)
class PlannedFate:
    """What becomes of the n-th request of a visit, counted from 1."""

    request: int
    fate: Fate
    delay_ms: int = 0
    is_silent: bool = False


@dataclass(frozen=True, slots=True)
class Crash:
    """That the till's program ends at its n-th request, before it is sent or after its answer."""

    request: int
    is_answered: bool


@dataclass(frozen=True, slots=True)
class Visit:
    """One customer at a till.

    ``original`` is the earlier visit that is voided, or refunded by the line that says so.
    ``takes_ms`` is how long it takes from the first card to the conclusion, beside the requests.
    ``cut_at`` is when in the visit an outage begins, or, in the middle of one, `Moment.BEGINNING`;
    None is a visit with HQ. ``is_by_hand``: the cashier disconnects before concluding.
    ``connects_by_hand``: the cashier of a till that is offline chooses Connect first.
    """

    at_ms: int
    errand: Errand = Errand.SALE
    lines: tuple[PlannedLine, ...] = ()
    original: int | None = None
    is_abandoned: bool = False
    takes_ms: int = 0
    cut_at: Moment | None = None
    is_by_hand: bool = False
    connects_by_hand: bool = False
    fates: tuple[PlannedFate, ...] = ()
    crash: Crash | None = None
    is_voided_after_crash: bool = False
    holds_for_break: int | None = None
    spends_after_break: int | None = None


@dataclass(frozen=True, slots=True)
class PlannedCopy:
    """That a second sync job sends the n-th batch of a till, too: before it does, or at the end."""

    batch: int
    copy: Copy
    order: Order
    shuffle_seed: int
    is_first: bool


@dataclass(frozen=True, slots=True)
class PlannedTill:
    """All that happens at one till. Names are of this run's own stores: ``1``, ``T2``."""

    store: int
    terminal_id: str
    visits: tuple[Visit, ...]
    sync_fates: tuple[PlannedFate, ...] = ()
    sync_crashes: tuple[Crash, ...] = ()
    copies: tuple[PlannedCopy, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedBreak:
    """A lock that an administrator breaks while its till is out and spends under it.

    The visits of the two tills carry its number. ``is_before_conclusion``: the lock is broken
    first, and the till, which cannot know, concludes then.
    """

    card: int
    holder: tuple[int, int]
    spender: tuple[int, int]
    is_before_conclusion: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that will happen. ``tills`` are in order of store and name."""

    options: Options
    cards: tuple[PlannedCard, ...]
    tills: tuple[PlannedTill, ...]
    breaks: tuple[PlannedBreak, ...]
    outages: tuple[OutageRow, ...]

    @property
    def digest(self) -> str:
        """Return the SHA-256 over the plan in a canonical form; how it is carried out is no part
        of it.
        """
        document: dict[str, Any] = asdict(self)
        del document["options"]["sockets"]
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def seconds(self) -> float:
        """Return how long it takes if nothing is slow."""
        return self.options.minutes * 60


class Chance:
    """A source of chance by a name of its own: the same name and seed, the same draws."""

    def __init__(self, seed: int, *names: object) -> None:
        # A seed of text is the same in every process and version.
        text = " ".join(str(one) for one in (seed, *names))
        self._random = random.Random(text)  # noqa: S311 - repeatable is the point

    def below(self, end: int) -> int:
        """Return a whole number from 0, below ``end``."""
        return int(self._random.random() * end)

    def between(self, first: int, last: int) -> int:
        """Return a whole number from ``first`` to ``last``."""
        return first + self.below(last - first + 1)

    def happens(self, chance: float) -> bool:
        """Tell whether something of this chance, from 0 to 1, happens."""
        return self._random.random() < chance

    def one_of(self, things: Sequence[T]) -> T:
        """Return one of some things."""
        return things[self.below(len(things))]


@dataclass(frozen=True, slots=True)
class _Window:
    """A time without HQ, from inside the visit ``first`` until before the visit ``end``."""

    from_ms: int
    to_ms: int
    moment: Moment
    is_of_a_break: bool = False


@dataclass(slots=True)
class _Till:
    """A till while its plan is drawn."""

    store: int
    terminal_id: str
    chance: Chance
    slots_ms: list[int]
    windows: list[_Window] = field(default_factory=list)
    holds: dict[int, int] = field(default_factory=dict)
    spends: dict[int, int] = field(default_factory=dict)

    def go_out(self, from_ms: int, to_ms: int) -> bool:
        """Add an outage, unless the till is needed then; return whether that is so."""
        if self.is_needed(from_ms, to_ms):
            return False
        moment = self.chance.one_of([Moment.LOCKING, Moment.CONCLUDING, Moment.CONCLUDING])
        self.windows.append(_Window(from_ms, to_ms, moment))
        return True

    def is_needed(self, from_ms: int, to_ms: int) -> bool:
        """Tell whether the till holds or spends a card whose lock is broken at that time."""
        spends = any(from_ms <= self.slots_ms[slot] <= to_ms for slot in self.spends)
        of_breaks = [one for one in self.windows if one.is_of_a_break]
        return spends or any(one.from_ms <= to_ms and from_ms <= one.to_ms for one in of_breaks)

    def cut_at(self, at_ms: int, before_ms: int) -> Moment | None:
        """Return when in a visit the till is cut off; ``before_ms`` is when the one before was."""
        inside = [one for one in self.windows if one.from_ms <= at_ms < one.to_ms]
        if not inside:
            return None
        if any(one.from_ms <= before_ms for one in inside):
            return Moment.BEGINNING
        return inside[0].moment


def draw(options: Options) -> Plan:
    """Draw a plan.

    Raises:  ValueError, with a sentence, for options that no plan can be made of.
    """
    _check(options)
    tills = [
        _Till(store, f"T{number}", chance, _slots(chance, options.minutes))
        for store in range(1, options.stores + 1)
        for number in range(1, options.tills_per_store + 1)
        for chance in [Chance(options.seed, "till", store, number)]
    ]
    breaks, outages = _draw_breaks(options, tills) if options.break_locks else ([], [])
    if options.outages:
        outages += _draw_outages(options, tills)
    cards = _draw_cards(options, breaks)
    pool = _Pool(cards, len(breaks))
    return Plan(
        options,
        tuple(cards),
        tuple(_draw_till(till, pool, options, breaks) for till in tills),
        tuple(breaks),
        tuple(sorted(outages, key=lambda one: (one.from_second, one.store, one.till or ""))),
    )


def _check(options: Options) -> None:
    if options.break_locks and options.stores * options.tills_per_store < 2:
        raise ValueError("To break locks it takes two tills: one that holds, one that spends.")
    if options.cards < 20:
        raise ValueError("A fleet needs 20 cards at least.")
    if options.minutes * MINUTE_MS < 2 * VISIT_EVERY_MS:
        raise ValueError("A fleet needs some seconds: at least 0.05 minutes.")


def _slots(chance: Chance, minutes: float) -> list[int]:
    """Return when customers come to a till."""
    count = int(minutes * MINUTE_MS) // VISIT_EVERY_MS
    return [one * VISIT_EVERY_MS + chance.below(VISIT_EVERY_MS) for one in range(count)]


# --- outages --------------------------------------------------------------------------------------


def _draw_outages(options: Options, tills: Sequence[_Till]) -> list[OutageRow]:
    """Draw the times without HQ: of whole stores, and of single tills."""
    end_ms = int(options.minutes * MINUTE_MS)
    rows = []
    for store in range(1, options.stores + 1):
        chance = Chance(options.seed, "outages of store", store)
        of_store = [till for till in tills if till.store == store]
        for from_ms, to_ms in _windows(chance, end_ms, every_ms=60_000, longest_ms=9_000):
            hit = [till for till in of_store if till.go_out(from_ms, to_ms)]
            if hit == of_store:
                rows.append(_row(store, None, from_ms, to_ms))
            else:
                rows += [_row(store, till.terminal_id, from_ms, to_ms) for till in hit]
    for till in tills:
        rows += [
            _row(till.store, till.terminal_id, from_ms, to_ms)
            for from_ms, to_ms in _windows(till.chance, end_ms, every_ms=40_000, longest_ms=5_000)
            if till.go_out(from_ms, to_ms)
        ]
    return rows


def _windows(
    chance: Chance, end_ms: int, *, every_ms: int, longest_ms: int
) -> list[tuple[int, int]]:
    """Return one window in each stretch of time, from and to; none goes beyond the end."""
    found = []
    for stretch_ms in range(0, end_ms, every_ms):
        ends_ms = min(stretch_ms + every_ms, end_ms)
        length_ms = min(chance.between(1_500, longest_ms), (ends_ms - stretch_ms) // 2)
        from_ms = chance.between(stretch_ms, ends_ms - length_ms)
        found.append((from_ms, from_ms + length_ms))
    return found


def _row(store: int, terminal_id: str | None, from_ms: int, to_ms: int) -> OutageRow:
    return OutageRow(str(store), terminal_id, from_ms / 1000, to_ms / 1000)


# --- broken locks ---------------------------------------------------------------------------------


def _draw_breaks(
    options: Options, tills: Sequence[_Till]
) -> tuple[list[PlannedBreak], list[OutageRow]]:
    """Draw which locks are broken: whose, and which till spends the card then."""
    chance = Chance(options.seed, "broken locks")
    wanted = max(2, round(options.minutes * len(tills) / 2))
    breaks: list[PlannedBreak] = []
    rows = []
    for _ in range(100 * wanted):
        places = _places_for_a_break(chance, tills)
        if places is None or len(breaks) == wanted:
            continue
        (holder, held_slot), (spender, spent_slot) = places
        from_ms, to_ms = tills[holder].slots_ms[held_slot], tills[spender].slots_ms[spent_slot] + 1
        tills[holder].windows.append(_Window(from_ms, to_ms, Moment.CONCLUDING, is_of_a_break=True))
        tills[holder].holds[held_slot] = tills[spender].spends[spent_slot] = len(breaks)
        rows.append(_row(tills[holder].store, tills[holder].terminal_id, from_ms, to_ms))
        # Cards of breaks come first, and are nobody else's.
        breaks.append(
            PlannedBreak(
                len(breaks), (holder, held_slot), (spender, spent_slot), chance.happens(0.5)
            )
        )
    if not breaks:
        raise ValueError("In so short a time no lock can be broken: give it more minutes or tills.")
    return breaks, rows


_Place = tuple[int, int]


def _places_for_a_break(chance: Chance, tills: Sequence[_Till]) -> tuple[_Place, _Place] | None:
    """Return till and slot of the holder and of the spender, both with HQ then; None if these
    cannot be.

    Tills wait for one another, but always for something that comes earlier in the plan, so they
    never wait in a circle.
    """
    holder, spender = chance.below(len(tills)), chance.below(len(tills))
    one, other = tills[holder], tills[spender]
    held = chance.below(len(one.slots_ms))
    from_ms = one.slots_ms[held]
    after = [slot for slot, at_ms in enumerate(other.slots_ms) if 500 < at_ms - from_ms < 8_000]
    if holder == spender or not after:
        return None
    spent = chance.one_of(after)
    to_ms = other.slots_ms[spent]
    if one.is_needed(from_ms, to_ms) or other.is_needed(to_ms, to_ms):
        return None
    return (holder, held), (spender, spent)


# --- cards ----------------------------------------------------------------------------------------


def _draw_cards(options: Options, breaks: Sequence[PlannedBreak]) -> list[PlannedCard]:
    """Draw what HQ issues; the first ones, gift cards, are those whose locks are broken."""
    chance = Chance(options.seed, "cards")
    cards = []
    for place in range(max(options.cards, len(breaks) + 20)):
        opening_minor = chance.between(80_00, 900_00)
        if place < len(breaks) + HOT_CARDS:
            cards.append(PlannedCard(Kind.GIFT_CARD, opening_minor))
        elif place % MEMO_EVERY == 0:
            cards.append(PlannedCard(Kind.CREDIT_MEMO, opening_minor))
        elif place % SMALL_CARD_EVERY == 0:
            cards.append(PlannedCard(Kind.GIFT_CARD, chance.between(1_00, SMALL_MINOR)))
        else:
            cards.append(PlannedCard(Kind.GIFT_CARD, opening_minor))
    return cards


class _Pool:
    """The cards that customers bring; the same few again and again, and any of the others."""

    def __init__(self, cards: Sequence[PlannedCard], reserved: int) -> None:
        free = range(reserved, len(cards))
        self.hot = list(free[:HOT_CARDS])
        others = free[HOT_CARDS:]
        self.memos = [one for one in others if cards[one].kind == Kind.CREDIT_MEMO]
        self.gift_cards = [one for one in others if cards[one].kind == Kind.GIFT_CARD]
        self.small = [one for one in self.gift_cards if cards[one].opening_minor <= SMALL_MINOR]

    def gift_card(self, chance: Chance) -> int:
        return chance.one_of(self.hot if chance.happens(0.12) else self.gift_cards)


# --- visits ---------------------------------------------------------------------------------------


def _draw_till(
    till: _Till, pool: _Pool, options: Options, breaks: Sequence[PlannedBreak]
) -> PlannedTill:
    drawer = _Visits(till, pool, options, breaks)
    visits = tuple(drawer.draw(slot) for slot in range(len(till.slots_ms)))
    if not options.outages:
        return PlannedTill(till.store, till.terminal_id, visits)
    chance = Chance(options.seed, "sync of till", till.store, till.terminal_id)
    requests = 20 + int(options.minutes * 60)
    return PlannedTill(
        till.store,
        till.terminal_id,
        visits,
        tuple(replace(one, is_silent=False) for one in _draw_fates(chance, requests)),
        tuple(
            Crash(number, chance.happens(0.5))
            for number in range(1, requests)
            if chance.happens(0.02)
        ),
        tuple(_draw_copies(chance, 10 + len(visits) // 3)),
    )


class _Visits:
    """Draws the visits of a till, one after the other: later ones refer to earlier ones."""

    def __init__(
        self, till: _Till, pool: _Pool, options: Options, breaks: Sequence[PlannedBreak]
    ) -> None:
        self._till = till
        self._pool = pool
        self._options = options
        self._breaks = breaks
        self._chance = till.chance
        # Earlier visits by what may still be done about them.
        self._redeemed: list[int] = []
        self._issued: list[int] = []
        self._voidable: list[int] = []

    def draw(self, slot: int) -> Visit:
        """Draw the next visit."""
        till = self._till
        at_ms = till.slots_ms[slot]
        if slot in till.holds:
            return self._holding(at_ms, till.holds[slot])
        if slot in till.spends:
            return self._spending(at_ms, till.spends[slot])
        visit = self._with_an_errand(slot, at_ms)
        if not self._options.outages and not self._options.break_locks:
            return visit
        before_ms = till.slots_ms[slot - 1] if slot else -1
        cut_at = till.cut_at(at_ms, before_ms)
        connects_by_hand = self._chance.happens(0.7)
        visit = replace(visit, cut_at=cut_at, connects_by_hand=connects_by_hand)
        if cut_at in (Moment.LOCKING, Moment.CONCLUDING):
            # The line is down, and so may the cashier be puzzled.
            visit = replace(visit, takes_ms=self._chance.between(500, 2_500))
        return self._with_faults(visit) if self._options.outages else visit

    def _with_faults(self, visit: Visit) -> Visit:
        chance = self._chance
        crash = None
        if chance.happens(0.06):
            crash = Crash(chance.between(1, 4), chance.happens(0.5))
        return replace(
            visit,
            is_by_hand=visit.cut_at is None and chance.happens(0.06),
            fates=tuple(_draw_fates(chance, REQUESTS_DRAWN)),
            crash=crash,
            is_voided_after_crash=_may_be_voided(visit) and chance.happens(0.4),
        )

    def _with_an_errand(self, slot: int, at_ms: int) -> Visit:
        chance = self._chance
        drawn = chance.below(100)
        if drawn < 4:
            card = self._pool.gift_card(chance)
            line = PlannedLine(Operation.REDEEM, Kind.GIFT_CARD, card)
            return Visit(at_ms, Errand.INQUIRY, (line,))
        if drawn < 11 and self._voidable:
            original = self._voidable.pop(chance.below(len(self._voidable)))
            for used in (self._redeemed, self._issued):
                if original in used:
                    used.remove(original)
            return Visit(at_ms, Errand.VOID, original=original)
        if drawn < 19 and self._redeemed:
            return self._refund(at_ms)
        return self._sale(slot, at_ms)

    def _refund(self, at_ms: int) -> Visit:
        chance = self._chance
        original = self._redeemed.pop(chance.below(len(self._redeemed)))
        if original in self._voidable:
            self._voidable.remove(original)
        amount_minor = chance.between(5_00, 60_00)
        line = PlannedLine(Operation.REFUND, Kind.GIFT_CARD, amount_minor=amount_minor)
        return Visit(at_ms, lines=(line,), original=original)

    def _sale(self, slot: int, at_ms: int) -> Visit:
        chance = self._chance
        count = 1 if chance.happens(0.6) else chance.between(2, LINES_MAX)
        lines: list[PlannedLine] = []
        for _ in range(count):
            line = self._line()
            if line.card is None or line.card not in [one.card for one in lines]:
                is_removed = chance.happens(0.08)
                lines.append(replace(line, is_removed=is_removed) if is_removed else line)
        visit = Visit(
            at_ms,
            lines=tuple(lines),
            is_abandoned=chance.happens(0.05),
            takes_ms=chance.between(50, 450),
        )
        if not visit.is_abandoned:
            self._remember(slot, visit)
        return visit

    def _remember(self, slot: int, visit: Visit) -> None:
        first = visit.lines[0]
        if _may_be_voided(visit):
            self._voidable.append(slot)
        if first.is_removed:
            return
        if first.operation == Operation.REDEEM and first.card in self._pool.gift_cards:
            self._redeemed.append(slot)
        if first.operation == Operation.ISSUE and first.kind == Kind.GIFT_CARD:
            self._issued.append(slot)

    def _line(self) -> PlannedLine:
        chance, pool = self._chance, self._pool
        drawn = chance.below(100)
        amount_minor = chance.between(5_00, 150_00)
        if drawn < 8:
            kind = chance.one_of([Kind.GIFT_CARD, Kind.CREDIT_MEMO])
            return PlannedLine(Operation.ISSUE, kind, amount_minor=amount_minor)
        if drawn < 16:
            card = pool.gift_card(chance)
            return PlannedLine(Operation.LOAD, Kind.GIFT_CARD, card, amount_minor=amount_minor)
        if drawn < 21 and pool.small:
            return PlannedLine(Operation.CASH_OUT, Kind.GIFT_CARD, chance.one_of(pool.small))
        if drawn < 41 and pool.memos:
            is_whole = chance.happens(0.4)
            card = chance.one_of(pool.memos)
            amount = None if is_whole else amount_minor
            return PlannedLine(Operation.REDEEM, Kind.CREDIT_MEMO, card, amount_minor=amount)
        if drawn < 47 and self._issued:
            # What is spent cannot be voided away any more.
            issued_in = self._issued.pop(chance.below(len(self._issued)))
            if issued_in in self._voidable:
                self._voidable.remove(issued_in)
            return PlannedLine(
                Operation.REDEEM, Kind.GIFT_CARD, issued_in=issued_in, amount_minor=amount_minor
            )
        return PlannedLine(
            Operation.REDEEM,
            Kind.GIFT_CARD,
            pool.gift_card(chance),
            amount_minor=amount_minor,
            is_named_at_once=chance.happens(0.2),
        )

    def _holding(self, at_ms: int, number: int) -> Visit:
        """The visit in which the till locks a card, goes out, and concludes without HQ."""
        line = PlannedLine(
            Operation.REDEEM,
            Kind.GIFT_CARD,
            self._breaks[number].card,
            amount_minor=self._chance.between(40_00, 80_00),
        )
        return Visit(
            at_ms,
            lines=(line,),
            takes_ms=self._chance.between(300, 900),
            cut_at=Moment.CONCLUDING,
            connects_by_hand=True,
            holds_for_break=number,
        )

    def _spending(self, at_ms: int, number: int) -> Visit:
        """The visit in which another till spends that card, after its lock was broken."""
        is_all = self._chance.happens(0.7)
        amount_minor = None if is_all else self._chance.between(1_00, 40_00)
        line = PlannedLine(
            Operation.REDEEM,
            Kind.GIFT_CARD,
            self._breaks[number].card,
            amount_minor=amount_minor,
        )
        return Visit(at_ms, lines=(line,), connects_by_hand=True, spends_after_break=number)


def _may_be_voided(visit: Visit) -> bool:
    """Tell whether a sale may be undone after HQ concluded it without anybody being short.

    Money that was loaded may be spent by then. What is left of a memo is on another one, whose
    number nobody was told if the sale was concluded offline.
    """
    if visit.errand is not Errand.SALE:
        return False
    return not any(
        line.operation in (Operation.LOAD, Operation.REFUND)
        or (line.kind == Kind.CREDIT_MEMO and line.amount_minor is not None)
        for line in visit.lines
    )


def _draw_fates(chance: Chance, requests: int) -> list[PlannedFate]:
    """Draw what becomes of some requests; what is lost is often lost again when it is repeated."""
    drawn: list[PlannedFate] = []
    for request in range(1, requests + 1):
        before = drawn[-1] if drawn and drawn[-1].request == request - 1 else None
        fate = _fate(chance.below(1_000))
        if before is not None and before.fate in LOST and chance.happens(_LOST_AGAIN_CHANCE):
            # To wait twice for what is late would only take time.
            fate = Fate.REQUEST_LOST if before.fate is Fate.LATE else before.fate
        if fate is None:
            continue
        delay_ms = 0
        if fate is Fate.DELAYED:
            delay_ms = chance.between(50, 400)
        elif fate is Fate.LATE:
            delay_ms = TIME_OUT_SECONDS * 1000 + chance.between(300, 2_500)
        is_silent = fate in (Fate.REQUEST_LOST, Fate.ANSWER_LOST) and chance.happens(_SILENT_CHANCE)
        drawn.append(PlannedFate(request, fate, delay_ms, is_silent))
    return drawn


def _fate(drawn: int) -> Fate | None:
    for fate, of_thousand in _FATES:
        if drawn < of_thousand:
            return fate
        drawn -= of_thousand
    return None


def _draw_copies(chance: Chance, batches: int) -> list[PlannedCopy]:
    return [
        PlannedCopy(
            batch,
            chance.one_of(list(Copy)),
            chance.one_of(list(Order)),
            chance.below(1_000_000),
            chance.happens(0.4),
        )
        for batch in range(1, batches + 1)
        if chance.happens(0.35)
    ]
