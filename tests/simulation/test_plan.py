"""The plan: everything that is left to chance, drawn before anything runs."""

from __future__ import annotations

import functools
import os
import random
import subprocess
import sys
from dataclasses import replace

import pytest

from hq_service.domain.model import Kind
from hq_service.simulation.plan import (
    CASH_OUT_MINOR,
    Copy,
    Errand,
    Fate,
    Moment,
    Order,
    Plan,
    Visit,
    draw,
)
from hq_service.simulation.result import Options

ALL = Options(outages=True, break_locks=True)
SMALL = Options(stores=2, tills_per_store=3, cards=100, minutes=0.5, seed=3, outages=True)
DIGEST_OF_SMALL = "4ad37b8cec83dcb46c0c004d647d343a49e5bc3c646406cab9e869b85a52eb03"


drawn = functools.cache(draw)


def visits_of(plan: Plan) -> list[Visit]:
    return [visit for till in plan.tills for visit in till.visits]


def test_the_same_options_give_the_same_plan() -> None:
    assert draw(ALL) == draw(ALL)
    assert draw(ALL).digest == draw(ALL).digest


def test_the_digest_is_the_same_on_every_machine_and_python() -> None:
    assert draw(SMALL).digest == DIGEST_OF_SMALL


def test_the_digest_is_the_same_in_another_process() -> None:
    program = (
        "from hq_service.simulation.plan import draw;"
        "from hq_service.simulation.result import Options;"
        f"print(draw({SMALL!r}).digest)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "LC_ALL": "C"}
    told = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == DIGEST_OF_SMALL


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 8},
        {"stores": 2},
        {"tills_per_store": 5},
        {"cards": 1_999},
        {"minutes": 1.9},
        {"outages": False},
        {"break_locks": False},
    ],
)
def test_another_option_gives_another_plan(other: dict[str, int]) -> None:
    assert draw(replace(ALL, **other)).digest != drawn(ALL).digest  # type: ignore[arg-type]


def test_how_a_plan_is_carried_out_is_no_part_of_it() -> None:
    assert drawn(replace(ALL, sockets=True)).digest == drawn(ALL).digest


def test_drawing_a_plan_touches_nobody_elses_chance() -> None:
    before = random.getstate()
    draw(ALL)
    assert random.getstate() == before


def test_every_kind_of_fault_is_drawn_with_outages() -> None:
    plan = drawn(Options(outages=True))
    visits = visits_of(plan)
    assert {fate.fate for visit in visits for fate in visit.fates} == set(Fate)
    assert {visit.cut_at for visit in visits} == {None, *Moment}
    assert {one.is_answered for visit in visits if (one := visit.crash)} == {True, False}
    assert {visit.is_by_hand for visit in visits} == {True, False}
    assert {visit.errand for visit in visits} == set(Errand)
    copies = [copy for till in plan.tills for copy in till.copies]
    assert {copy.copy for copy in copies} == set(Copy)
    assert {copy.order for copy in copies} == set(Order)
    assert {copy.is_first for copy in copies} == {True, False}
    assert any(till.sync_crashes for till in plan.tills)
    assert any(till.sync_fates for till in plan.tills)
    assert {row.till is None for row in plan.outages} == {True, False}


def test_without_outages_there_are_no_faults_at_all() -> None:
    plan = drawn(Options())
    assert plan.outages == plan.breaks == ()
    for visit in visits_of(plan):
        assert visit.cut_at is None
        assert visit.crash is None
        assert not visit.fates
        assert not visit.is_by_hand
    for till in plan.tills:
        assert (till.sync_fates, till.sync_crashes, till.copies) == ((), (), ())


def test_every_operation_is_drawn() -> None:
    lines = [line for visit in visits_of(drawn(Options())) for line in visit.lines]
    assert {line.operation for line in lines} == {"redeem", "issue", "load", "refund", "cash_out"}
    assert {line.kind for line in lines} == set(Kind)
    assert {line.is_removed for line in lines} == {True, False}
    assert {line.is_named_at_once for line in lines} == {True, False}
    assert any(line.issued_in is not None for line in lines)


def test_many_tills_want_the_same_few_cards() -> None:
    wanted: dict[int, set[int]] = {}
    for number, till in enumerate(drawn(Options()).tills):
        for visit in till.visits:
            for line in visit.lines:
                if line.card is not None:
                    wanted.setdefault(line.card, set()).add(number)
    assert sum(len(tills) >= 3 for tills in wanted.values()) >= 10


@pytest.mark.parametrize("seed", range(3))
def test_what_is_undone_was_sold_before_and_is_undone_once(seed: int) -> None:
    for till in drawn(Options(seed=seed, outages=True)).tills:
        undone = [visit.original for visit in till.visits if visit.original is not None]
        assert len(set(undone)) == len(undone)
        for place, visit in enumerate(till.visits):
            if visit.original is not None:
                original = till.visits[visit.original]
                assert visit.original < place
                assert original.errand is Errand.SALE
                assert not original.is_abandoned


@pytest.mark.parametrize("seed", range(3))
def test_no_voided_sale_leaves_somebody_short(seed: int) -> None:
    """Loaded money may be spent, and what is left of a memo is on another one."""
    for till in drawn(Options(seed=seed, outages=True)).tills:
        voided = [one.original for one in till.visits if one.errand is Errand.VOID]
        after_crash = [n for n, one in enumerate(till.visits) if one.is_voided_after_crash]
        for number in [*voided, *after_crash]:
            assert number is not None
            for line in till.visits[number].lines:
                assert line.operation not in ("load", "refund")
                assert (
                    line.kind != Kind.CREDIT_MEMO
                    or line.amount_minor is None
                    or (line.operation == "issue")
                )
        spent = {line.issued_in for one in till.visits for line in one.lines} - {None}
        assert not spent & set(voided)


@pytest.mark.parametrize("seed", range(4))
def test_a_broken_lock_has_a_holder_that_is_out_and_a_spender_that_is_not(seed: int) -> None:
    plan = drawn(replace(ALL, seed=seed))
    assert len(plan.breaks) == 12
    for number, planned in enumerate(plan.breaks):
        till, place = planned.holder
        holding = plan.tills[till].visits[place]
        other, other_place = planned.spender
        spending = plan.tills[other].visits[other_place]
        assert till != other
        assert holding.holds_for_break == spending.spends_after_break == number
        assert holding.cut_at is Moment.CONCLUDING
        assert spending.cut_at is None
        assert not holding.fates
        assert not spending.fates
        assert holding.at_ms < spending.at_ms
        # Until the card is spent the holder stays out, and nobody waits for it meanwhile.
        for visit in plan.tills[till].visits[place + 1 :]:
            if visit.at_ms <= spending.at_ms:
                assert visit.cut_at is Moment.BEGINNING
                assert visit.spends_after_break is None


@pytest.mark.parametrize("seed", range(4))
def test_the_cards_of_broken_locks_are_nobody_elses(seed: int) -> None:
    plan = drawn(replace(ALL, seed=seed))
    reserved = {planned.card for planned in plan.breaks}
    for visit in visits_of(plan):
        is_of_a_break = visit.holds_for_break is not None or visit.spends_after_break is not None
        if not is_of_a_break:
            assert not reserved & {line.card for line in visit.lines}


def test_what_is_cashed_out_is_small_enough() -> None:
    plan = drawn(Options())
    cards = [
        plan.cards[line.card]
        for visit in visits_of(plan)
        for line in visit.lines
        if line.operation == "cash_out" and line.card is not None
    ]
    assert cards
    assert all(card.opening_minor <= CASH_OUT_MINOR for card in cards)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (Options(cards=19), "20 cards"),
        (Options(minutes=0.01), "some seconds"),
        (Options(stores=1, tills_per_store=1, break_locks=True), "two tills"),
    ],
)
def test_options_that_no_plan_can_be_made_of_are_refused(options: Options, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        draw(options)
