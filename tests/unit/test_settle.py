"""The fold: conservation, exactly once, and what one line leaves for the next."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hq_service.domain.judgement import Context, Known, gone_lock
from hq_service.domain.model import Instrument, Line, Place, UnreadableLine
from hq_service.domain.outcomes import Outcome
from hq_service.domain.settlement import Settlement, conclude, settle
from tests.unit.builders import (
    CARD_ID,
    KEYRING,
    YES,
    a_card,
    a_context,
    a_grant,
    a_key,
    a_line,
    a_lock,
    a_memo,
    a_uuid,
)

CARDS = tuple(a_uuid() for _ in range(3))


@st.composite
def a_chunk(draw: st.DrawFn) -> tuple[list[Line], dict]:
    """Lines of three sales on three cards, with repeats, reuse, releases and unknown cards, and
    with locks that they mix up.
    """
    cards = {}
    for card_id in CARDS:
        holder = draw(st.sampled_from([None, "X1", "X2", "X3"]))
        granted = draw(st.booleans())
        lock = a_lock(a_key(holder), draw(st.integers(0, 120)), granted=granted) if holder else None
        kind = draw(st.sampled_from(["gift_card", "credit_memo"]))
        cards[card_id] = a_card(
            draw(st.integers(0, 200)), lock=lock, instrument_id=card_id, kind=kind
        )
    lock_ids = [one.lock.lock_id for one in cards.values() if one.lock is not None]
    lines = draw(
        st.lists(
            st.builds(
                lambda transaction, line, card, amount, operation, currency, lock_id: a_line(
                    a_key(transaction, line),
                    amount,
                    instrument_id=card,
                    operation=operation,
                    currency=currency,
                    lock_id=lock_id,
                ),
                st.sampled_from(["X1", "X2", "X3"]),
                st.integers(1, 2),
                st.sampled_from([*CARDS, CARD_ID]),
                st.integers(1, 150),
                st.sampled_from(["redeem", "redeem", "redeem", "load", "release"]),
                st.sampled_from(["SEK", "SEK", "SEK", "EUR"]),
                st.sampled_from([None, *lock_ids]),
            ),
            max_size=12,
        )
    )
    return lines, cards


def after(settlement: Settlement, known: Known, cards: dict) -> tuple[dict, Known]:
    """Return what a next chunk would find: as stored and read again."""
    found = {**cards, **settlement.instruments}
    later = Known(
        {key: dict(results) for key, results in known.results.items()},
        dict(known.voided),
        {owner: list(gone) for owner, gone in known.gone_locks.items()},
        dict(known.consumed_locks),
    )
    for posting in settlement.postings:
        if posting.lock_id is not None:
            later.consumed_locks[posting.instrument_id, posting.lock_id] = posting.key
    for ended in settlement.ended_locks:
        lock = ended.lock
        owner = (ended.instrument_id, *lock.key[:3])
        later.gone_locks.setdefault(owner, []).append(gone_lock(lock, ended.end))
    return found, later


def remember(known: Known, lines: list[Line], settlement: Settlement) -> None:
    for line, result in zip(lines, settlement.results, strict=True):
        posts = any(
            one.key == line.key and one.content == line.content
            for one in settlement.postings
            if one.entry == "original"
        )
        if result.outcome == Outcome.HELD or (result.outcome == Outcome.APPLIED and posts):
            known.results.setdefault(line.key, {}).setdefault(line.content, result)


def settled(
    lines: list[Line], cards: dict, known: Known, context: Context
) -> tuple[Settlement, dict, Known]:
    settlement = settle(lines, cards, known, context)
    found, later = after(settlement, known, cards)
    remember(later, lines, settlement)
    return settlement, found, later


@given(a_chunk(), st.randoms(use_true_random=False))
def test_in_any_order_money_is_conserved_and_nothing_is_below_zero(
    chunk, order: random.Random
) -> None:
    lines, cards = chunk
    order.shuffle(lines)
    settlement, found, _ = settled(lines, cards, Known(), a_context())
    for card_id, card in found.items():
        before = cards[card_id].balance_minor if card_id in cards else 0
        moved = sum(one.change_minor for one in settlement.postings if one.instrument_id == card_id)
        assert card.balance_minor == before + moved
        assert card.balance_minor >= 0
    for one in settlement.postings:
        assert one.amount_minor == one.funded_minor + one.shortfall_minor
        assert abs(one.change_minor) == one.funded_minor
    keys = [one.key for one in settlement.postings if one.entry == "original"]
    assert len(keys) == len(set(keys))
    locks = [one.lock_id for one in settlement.postings if one.lock_id is not None]
    assert len(locks) == len(set(locks))


@given(a_chunk())
def test_every_doubt_has_a_case_and_nothing_given_is_changed(chunk) -> None:
    lines, cards = chunk
    copies = {card_id: replace(card) for card_id, card in cards.items()}
    known = Known()
    settlement = settle(lines, cards, known, a_context())
    assert cards == copies
    assert known == Known()
    assert len(settlement.results) == len(lines)
    for result in settlement.results:
        doubtful = result.outcome == Outcome.HELD or result.shortfall_minor > 0
        assert result.case_id is not None or not doubtful


def test_a_repeated_old_line_does_not_free_the_next_tills_lock() -> None:
    old = a_line(a_key("X1"))
    card = a_card(lock=a_lock(a_key("X1")))
    first, found, known = settled([old], {CARD_ID: card}, Known(), a_context())
    assert first.instruments[CARD_ID].lock is None
    relocked = replace(found[CARD_ID], lock=a_lock(a_key("X2", terminal_id="T02")))
    again, found, _ = settled([old], {CARD_ID: relocked}, known, a_context())
    assert again.results[0].outcome == Outcome.DUPLICATE
    assert found[CARD_ID].lock == relocked.lock


def test_a_repeated_old_line_does_not_free_a_later_lock_of_its_own_transaction() -> None:
    old = a_line(a_key("X1", 1))
    _, found, known = settled(
        [old], {CARD_ID: a_card(200, lock=a_lock(a_key("X1", 1)))}, Known(), a_context()
    )
    relocked = replace(found[CARD_ID], lock=a_lock(a_key("X1", 2)))
    _, found, _ = settled([old], {CARD_ID: relocked}, known, a_context())
    assert found[CARD_ID].lock == relocked.lock


def test_a_repeated_release_does_not_free_a_later_lock_of_the_same_line() -> None:
    first = a_lock()
    release = a_line(operation="release", amount_minor=0, lock_id=first.lock_id)
    _, found, known = settled([release], {CARD_ID: a_card(lock=first)}, Known(), a_context())
    assert found[CARD_ID].lock is None
    relocked = replace(found[CARD_ID], lock=a_lock(granted=True))
    _, found, _ = settled([release], {CARD_ID: relocked}, known, a_context())
    assert found[CARD_ID].lock == relocked.lock


def test_a_repeated_release_that_names_no_lock_does_not_free_a_later_one_either() -> None:
    release = a_line(operation="release", amount_minor=0, journal_id="J1", sequence=1)
    first, found, known = settled([release], {CARD_ID: a_card(lock=a_lock())}, Known(), a_context())
    assert found[CARD_ID].lock is None
    relocked = replace(found[CARD_ID], lock=a_lock())
    known.journals = first.journals
    _, found, _ = settled([release], {CARD_ID: relocked}, known, a_context())
    assert found[CARD_ID].lock == relocked.lock


def test_a_lock_taken_again_for_a_line_that_was_concluded_is_freed_by_its_repeat() -> None:
    line = a_line()
    _, found, known = settled([line], {CARD_ID: a_card(lock=a_lock())}, Known(), a_context())
    stray = replace(found[CARD_ID], lock=a_lock())
    again, found, _ = settled([line], {CARD_ID: stray}, known, a_context())
    assert found[CARD_ID].lock is None
    assert [one.end for one in again.ended_locks] == ["released"]


def test_a_memo_used_in_part_is_applied_and_its_rest_is_a_new_memo() -> None:
    memo = a_memo(100, lock=a_lock())
    settlement, found, _ = settled([a_line(amount_minor=30)], {CARD_ID: memo}, Known(), a_context())
    old = found[CARD_ID]
    assert (old.status, old.balance_minor) == ("applied", 0)
    remainder = found[old.remainder_id]
    assert (remainder.status, remainder.balance_minor) == ("active", 70)
    assert remainder.number_last4 != ""
    assert [one.entry for one in settlement.postings] == [
        "original",
        "remainder_out",
        "remainder_in",
    ]
    assert settlement.results[0].remainder_id == old.remainder_id
    assert sum(one.change_minor for one in settlement.postings) == -30


def test_a_memo_used_in_full_leaves_no_remainder() -> None:
    _, found, _ = settled([a_line()], {CARD_ID: a_memo(lock=a_lock())}, Known(), a_context())
    assert (found[CARD_ID].status, found[CARD_ID].remainder_id) == ("applied", None)
    assert list(found) == [CARD_ID]


@pytest.mark.parametrize(
    ("use", "status", "balance_minor"), [("retain", "active", 70), ("forfeit", "applied", 0)]
)
def test_the_rest_of_a_memo_goes_where_the_parameter_says(
    use: str, status: str, balance_minor: int
) -> None:
    context = a_context(parameters=replace(YES, credit_memo_partial_use=use))
    memo = a_memo(100, lock=a_lock())
    settlement, found, _ = settled([a_line(amount_minor=30)], {CARD_ID: memo}, Known(), context)
    assert (found[CARD_ID].status, found[CARD_ID].balance_minor) == (status, balance_minor)
    assert found[CARD_ID].remainder_id is None
    assert sum(one.change_minor for one in settlement.postings) == balance_minor - 100


def test_one_lock_funds_one_line() -> None:
    lock = a_lock(granted=True)
    lines = [
        a_line(a_key("X1", 1), 50, lock_id=lock.lock_id),
        a_line(a_key("X1", 2), 50, lock_id=lock.lock_id),
    ]
    settlement, _, _ = settled(lines, {CARD_ID: a_card(lock=lock)}, Known(), a_context())
    assert [one.outcome for one in settlement.results] == ["applied", "held"]
    assert settlement.results[1].codes == ("lock_already_used",)


def test_a_held_line_sent_twice_has_one_case() -> None:
    line = a_line(currency="EUR")
    settlement, _, _ = settled([line, line], {CARD_ID: a_card()}, Known(), a_context())
    first, second = settlement.results
    assert (first.outcome, second.outcome) == ("held", "duplicate")
    assert first.case_id == second.case_id is not None


def test_an_unreadable_line_stops_no_other() -> None:
    unreadable = UnreadableLine("S001", 0, '{"x":1}', "unknown member x")
    settlement = settle([unreadable, a_line()], {CARD_ID: a_card()}, Known(), a_context())
    assert [one.outcome for one in settlement.results] == ["quarantined", "applied"]
    assert settlement.results[0].case_id is not None


def unreadable_case(line: UnreadableLine, batch_id: str) -> object:
    settlement = settle([line], {}, Known(), a_context(batch_id=batch_id))
    return settlement.results[0].case_id


def test_two_lines_that_are_cut_off_at_the_same_letter_are_two_questions() -> None:
    cut_off = [UnreadableLine("S001", place, '{"terminal', "not JSON") for place in (0, 1)]
    cases = {unreadable_case(line, batch_id) for line in cut_off for batch_id in ("B1", "B2")}
    assert len(cases) == 4


def test_an_unreadable_line_that_tells_its_place_has_one_case_however_often_it_comes() -> None:
    place = Place("T01", "J1", 7)
    again = [UnreadableLine("S001", position, "{}", "?", place) for position in (0, 5)]
    assert unreadable_case(again[0], "B1") == unreadable_case(again[1], "B2")
    elsewhere = UnreadableLine("S001", 0, "{}", "?", Place("T02", "J1", 7))
    assert unreadable_case(again[0], "B1") != unreadable_case(elsewhere, "B1")


def test_concluding_online_is_a_settlement_of_one() -> None:
    lock = a_lock()
    line = a_line(amount_minor=60, lock_id=lock.lock_id)
    card: Instrument = a_card(100, lock=lock)
    online = conclude([line], {CARD_ID: card}, Known(), a_context(is_offline=False))
    assert isinstance(online, Settlement)
    offline = settle([line], {CARD_ID: card}, Known(), a_context(is_offline=False))
    assert online == offline


def test_a_line_whose_grant_names_a_spent_lock_is_held_whatever_lock_it_names_itself() -> None:
    grant = a_grant()
    known = Known(consumed_locks={(CARD_ID, grant.lock_id): a_key("X0")})
    line = a_line(lock_id=a_uuid(), grant=KEYRING.sign(grant))
    settlement = settle([line], {CARD_ID: a_card()}, known, a_context())
    assert settlement.results[0].codes == ("lock_already_used",)


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_lock_that_was_spent_on_one_card_says_nothing_of_another(is_cut: bool) -> None:
    lock, other_id = a_lock(), a_uuid()
    cards = {CARD_ID: a_card(lock=lock), other_id: a_card(instrument_id=other_id)}
    first = a_line(a_key("X1", 1), 50, lock_id=lock.lock_id)
    mixed_up = a_line(a_key("X1", 2), 50, instrument_id=other_id, lock_id=lock.lock_id)
    if is_cut:
        _, cards, known = settled([first], cards, Known(), a_context())
        settlement, found, _ = settled([mixed_up], cards, known, a_context())
    else:
        settlement, found, _ = settled([first, mixed_up], cards, Known(), a_context())
    assert settlement.results[-1].codes == ("no_lock", "offline_not_permitted")
    assert [found[one].balance_minor for one in (CARD_ID, other_id)] == [50, 50]


def test_a_line_that_is_given_nothing_does_not_use_up_a_memo() -> None:
    theirs = a_lock(a_key("X9", terminal_id="T02"), 100, granted=True)
    memo = a_memo(100, lock=theirs)
    settlement, found, _ = settled([a_line(amount_minor=1)], {CARD_ID: memo}, Known(), a_context())
    assert settlement.results[0].shortfall_minor == 1
    assert (found[CARD_ID].status, found[CARD_ID].balance_minor) == ("active", 100)
    assert found[CARD_ID].lock == theirs


@pytest.mark.parametrize("status", ["blocked", "expired"])
def test_the_remainder_of_a_doubtful_memo_is_as_doubtful(status: str) -> None:
    memo = a_memo(100, status=status)
    _, found, _ = settled([a_line(amount_minor=1)], {CARD_ID: memo}, Known(), a_context())
    remainder = found[found[CARD_ID].remainder_id]
    assert (remainder.status, remainder.balance_minor) == (status, 99)


def test_a_line_sent_by_a_stranger_first_still_opens_its_own_case() -> None:
    line = a_line(amount_minor=500)
    stranger = settle([line], {CARD_ID: a_card()}, Known(), a_context(terminals=("T02",)))
    owner = settle([line], {CARD_ID: a_card()}, Known(), a_context())
    assert stranger.results[0].outcome == "quarantined"
    assert owner.results[0].shortfall_minor == 400
    assert stranger.results[0].case_id != owner.results[0].case_id
