"""The random schedules of ``tests/stateful``, played on the pure rules: hundreds in seconds.

The same tills make the same mistakes and lose the same messages, but HQ is a `World`: dictionaries
that keep what `settle`, `conclude` and `acquire` return. What goes wrong here is wrong in a rule.
The schedules are the same in every run; a failing one is shortened and printed as sentences.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from hq_service.domain.model import Instrument, Line
from hq_service.domain.parameters import Parameters
from hq_service.domain.reading import read_line
from tests.stateful.schedules import CARELESS, CHANCES, HONEST, TILLS, weighted
from tests.stateful.test_schedules import (
    CARELESS_SOMETIMES,
    FIRST_SEED,
    HONEST_SOMETIMES,
    shortened,
    told,
)
from tests.support import KEYRING
from tests.unit.builders import NOW, YES, a_card, a_key, a_line, a_lock
from tests.unit.stage_in_memory import CarelessScheduleInMemory, ScheduleInMemory
from tests.unit.test_settle import CARDS, a_chunk
from tests.unit.world import STORE_ID, World

HONEST_EXAMPLES = 150
CARELESS_EXAMPLES = 250
BATCH_EXAMPLES = 60
STEPS = {"min_size": 30, "max_size": 60}

# What only a database or an administrator's desk does.
NOT_IN_MEMORY = frozenset({"a case is resolved"})
SELDOM = frozenset({"code contended", "code stale_lock", "code sequence_reused"})
CARELESS_IN_MEMORY = {what: often for what, often in CARELESS.items() if what != "resolve_a_case"}

THE_SAME_EACH_TIME = settings(derandomize=True, database=None, deadline=None)
MUCH_LATER = timedelta(days=400)


def played_in_memory(examples: int) -> Callable[[Any], Any]:
    """Let hypothesis draw the same examples in every run; what fails is shortened by ourselves."""
    how = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: seed(FIRST_SEED)(how(test))


def steps_of(weights: Mapping[str, int]) -> st.SearchStrategy[Any]:
    return st.lists(st.tuples(weighted(weights), CHANCES), **STEPS)


def play(
    machine: type[ScheduleInMemory],
    examples: int,
    weights: Mapping[str, int],
    openings: st.SearchStrategy[dict[str, Any]],
    sometimes: frozenset[str],
) -> None:
    """Play schedules to their end, each in a world of its own."""
    last = machine()
    machine.seen = Counter()

    @played_in_memory(examples)
    @given(openings, steps_of(weights))
    def schedule(opening: dict[str, Any], steps: list[Any]) -> None:
        nonlocal last
        last = machine()
        last.open_with(**opening)
        for what, chance in steps:
            last.step(what, chance)
        last.teardown()

    try:
        schedule()
    except Exception as failure:  # noqa: BLE001 - whatever it is, it is told
        raise AssertionError(told(shortened(last, failure))) from None
    never = sometimes - machine.seen.keys()
    assert not never, f"no schedule has come to this: {', '.join(sorted(never))}"


ALL_AWARE = st.just({"aware": {0, 1}, "is_allowed": True})
ANYBODY_AWARE = st.fixed_dictionaries({"aware": st.sets(TILLS), "is_allowed": st.booleans()})


def test_what_was_granted_never_falls_short() -> None:
    play(ScheduleInMemory, HONEST_EXAMPLES, HONEST, ALL_AWARE, HONEST_SOMETIMES)


def test_whatever_happens_every_sale_is_posted_once_or_held_once() -> None:
    sometimes = (CARELESS_SOMETIMES | SELDOM) - NOT_IN_MEMORY
    play(CarelessScheduleInMemory, CARELESS_EXAMPLES, CARELESS_IN_MEMORY, ANYBODY_AWARE, sometimes)


# One batch, on whatever a schedule has left behind.


@dataclass(repr=False)
class Delivery:
    """A world in the middle of a schedule, and everything that its tills have written by then."""

    played: CarelessScheduleInMemory

    def __repr__(self) -> str:
        return "\n".join(["", *self.played.story])

    @property
    def world(self) -> World:
        return cast(World, self.played.stage.world)

    @property
    def now(self) -> datetime:
        return cast(datetime, self.played.stage.clock.instant)

    @property
    def written(self) -> list[dict[str, Any]]:
        return [line for till in self.played.tills for line in till.journal]


@st.composite
def a_delivery(draw: st.DrawFn) -> Delivery:
    played = CarelessScheduleInMemory()
    played.open_with(**draw(ANYBODY_AWARE))
    for what, chance in draw(steps_of(CARELESS_IN_MEMORY)):
        played.step(what, chance)
    return Delivery(played)


@st.composite
def a_list(draw: st.DrawFn) -> tuple[World, list[Line]]:
    """Return instruments in whatever state, and lines that no schedule would write."""
    lines, cards = draw(a_chunk())
    return a_world_of(cards), lines


@st.composite
def a_mix_up(draw: st.DrawFn) -> tuple[World, list[Line]]:
    """Return cards that are all locked, and lines each of which names one of their locks."""
    locks = [a_lock(a_key(f"X{number}")) for number, _ in enumerate(CARDS, start=1)]
    cards = {
        card_id: a_card(lock=lock, instrument_id=card_id)
        for card_id, lock in zip(CARDS, locks, strict=True)
    }
    line = st.builds(
        lambda key, card_id, lock: a_line(key, 10, instrument_id=card_id, lock_id=lock.lock_id),
        st.builds(a_key, st.sampled_from(["X1", "X2", "X3"]), st.integers(1, 3)),
        st.sampled_from(CARDS),
        st.sampled_from(locks),
    )
    return a_world_of(cards), draw(st.lists(line, min_size=4, max_size=9))


def a_world_of(cards: dict[UUID, Instrument]) -> World:
    world = World(revisions={0: Parameters(), 1: YES}, instruments=cards)
    for terminal_id in ("T01", "T02", "T03"):
        world.add_terminal(terminal_id)
    return world


def read(raw: list[dict[str, Any]], now: datetime) -> list[Line]:
    lines = [read_line(one, place, STORE_ID, KEYRING, now) for place, one in enumerate(raw)]
    assert all(isinstance(line, Line) for line in lines)
    return cast(list[Line], lines)


def books(world: World) -> tuple[Any, ...]:
    """Return everything that a batch can change."""
    return (
        world.instruments,
        world.postings,
        world.voids,
        world.ended,
        world.held,
        {case_id: (one.result, one.resolution) for case_id, one in world.questions.items()},
        world.journals,
    )


@played_in_memory(BATCH_EXAMPLES)
@given(a_delivery(), st.integers(1, 5))
def test_splitting_a_batch_anywhere_comes_to_the_same(delivery: Delivery, chunk_lines: int) -> None:
    lines = read(delivery.written, delivery.now)
    assert_splitting_does_not_matter(delivery.world, lines, delivery.now, chunk_lines)


@THE_SAME_EACH_TIME
@given(a_list(), st.integers(1, 12))
def test_splitting_any_list_anywhere_comes_to_the_same(
    given_list: tuple[World, list[Line]], chunk_lines: int
) -> None:
    assert_splitting_does_not_matter(*given_list, NOW, chunk_lines)


@THE_SAME_EACH_TIME
@given(a_mix_up(), st.integers(1, 2))
def test_splitting_lines_that_mix_up_their_locks_comes_to_the_same(
    given_list: tuple[World, list[Line]], chunk_lines: int
) -> None:
    assert_splitting_does_not_matter(*given_list, NOW, chunk_lines)


def assert_splitting_does_not_matter(
    world: World, lines: list[Line], now: datetime, chunk_lines: int
) -> None:
    whole, cut = world.copy(), world.copy()
    told_whole = whole.post("last", lines, now)
    told_cut = cut.post("last", lines, now, chunk_lines=chunk_lines)
    assert told_whole == told_cut
    assert books(whole) == books(cut)


@played_in_memory(BATCH_EXAMPLES)
@given(a_delivery(), st.integers(1, 9), st.sampled_from([timedelta(), MUCH_LATER]))
def test_settling_a_batch_twice_equals_settling_it_once(
    delivery: Delivery, chunk_lines: int, later: timedelta
) -> None:
    lines = read(delivery.written, delivery.now)
    assert_twice_is_once(delivery.world, lines, delivery.now, chunk_lines, later)


@THE_SAME_EACH_TIME
@given(a_list())
def test_settling_any_list_twice_equals_settling_it_once(
    given_list: tuple[World, list[Line]],
) -> None:
    assert_twice_is_once(*given_list, NOW, 100, timedelta())


def assert_twice_is_once(
    world: World, lines: list[Line], now: datetime, chunk_lines: int, later: timedelta
) -> None:
    world.post("last", lines, now)
    once = world.copy()
    world.post("again", lines, now + later, chunk_lines=chunk_lines)
    # A repeat of a held line lets go of the lock that it kept; nothing else may change.
    assert (world.postings, world.voids, world.held) == (once.postings, once.voids, once.held)
    assert (world.questions, world.journals) == (once.questions, once.journals)
    for instrument_id, instrument in world.instruments.items():
        assert instrument.balance_minor == once.instruments[instrument_id].balance_minor


@played_in_memory(BATCH_EXAMPLES)
@given(a_delivery(), st.randoms(use_true_random=False))
def test_shuffling_a_batch_does_not_matter_while_its_sequences_stay(
    delivery: Delivery, order: random.Random
) -> None:
    # Two lines in one place of a journal have no other order than that of the array.
    places = {(one["terminal_id"], one["sequence"]): one for one in reversed(delivery.written)}
    in_order = list(places.values())
    turned = order.sample(range(len(in_order)), len(in_order))
    shuffled = [in_order[place] for place in turned]
    one, other = delivery.world.copy(), delivery.world.copy()
    told_in_order = one.post("last", read(in_order, delivery.now), delivery.now)
    told_shuffled = other.post("last", read(shuffled, delivery.now), delivery.now)
    assert [told_in_order[place] for place in turned] == told_shuffled
    assert books(one) == books(other)


@pytest.mark.parametrize("sold", [("X1", "X2"), ("X2", "X1")])
def test_the_sequence_decides_who_falls_short(sold: tuple[str, str]) -> None:
    delivery = Delivery(CarelessScheduleInMemory())
    delivery.played.open_with({0, 1}, is_allowed=True)
    card, till = delivery.played.cards[0], delivery.played.tills[0].caller
    raw = [till.offline_line(card, one, 70) for one in sold]
    told = delivery.world.post("only", read(raw[::-1], delivery.now), delivery.now)
    assert [(one.funded_minor, one.shortfall_minor) for one in told] == [(30, 40), (70, 0)]
