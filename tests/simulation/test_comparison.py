"""The comparison: each kind of difference, planted, is found and said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hq_service.domain.model import BusinessKey
from hq_service.simulation.comparison import Facts, KnownLine, OpenCase, compare
from hq_service.simulation.result import ComparisonRow
from hq_service.simulation.truth import Ending, TrueCard, TrueLine, TrueSale

CARD = TrueCard("card 1", "gift_card", "6006000000001234", 500_00)
OTHER = TrueCard("card 2", "gift_card", "6006000000005678", 100_00)

SALES = "sales concluded, and posted at HQ as they were told"
LOST = "lines lost: sold, and not posted at HQ"
TWICE = "lines posted twice"
OTHER_AMOUNT = "lines posted with another amount"
UNKNOWN = "lines at HQ that no till sold"
VOIDED = "lines at HQ of sales that were voided"
BALANCES = "cards with the balance that sales and shortfall leave"
MONEY = "money on all cards"
SHORTFALL = "shortfall: by the tills, and by HQ's postings"
SHORTFALL_IN_CASES = "shortfall: by HQ's postings, and in open cases"
CASES = "open cases: one for each sale under a broken lock"
HELD = "lines that HQ holds for an administrator"
LOCKS = "locks left at HQ"
PENDING = "lines that tills still have pending"
UNDELIVERED = "registers that HQ has not everything of"
SURPRISES = "answers that the plan does not explain"


def sale(name: str, *lines: TrueLine, ending: Ending = Ending.ONLINE, till: str = "T1") -> TrueSale:
    numbered = dict(enumerate(lines, start=1))
    cards = {number: line.card for number, line in numbered.items()}
    return TrueSale("S1", till, name, ending, cards, lines=numbered)


def took(amount_minor: int, card: TrueCard = CARD) -> TrueLine:
    return TrueLine("redeem", card, amount_minor)


def posted(amount_minor: int, line: int = 1, operation: str = "redeem", **more: Any) -> KnownLine:
    return KnownLine(line, operation, amount_minor, more.pop("outcome", "applied"), **more)


def facts(
    *sales: tuple[TrueSale, Sequence[KnownLine]], balances: dict[str, int | None], **more: Any
) -> Facts:
    known = {(one.store_id, one.terminal_id, one.transaction_id): told for one, told in sales}
    return Facts(
        [one for one, _ in sales],
        [CARD, OTHER],
        known,
        {"card 1": 500_00, "card 2": 100_00, **balances},
        **more,
    )


def off(found: Facts) -> dict[str, ComparisonRow]:
    """Return the rows that are OFF, by what they say."""
    rows, _ = compare(found)
    return {row.what: row for row in rows if not row.is_ok}


AGREEING = facts(
    (sale("a", took(120_00)), [posted(120_00)]),
    (sale("b", TrueLine("load", OTHER, 50_00)), [posted(50_00, operation="load")]),
    (sale("c", took(80_00), ending=Ending.OFFLINE, till="T2"), [posted(80_00)]),
    (
        sale("d", took(10_00), ending=Ending.VOIDED),
        [posted(10_00), posted(10_00, outcome="voided")],
    ),
    (sale("e", ending=Ending.VOIDED), [posted(0, operation="void", outcome="voided")]),
    (sale("f", ending=Ending.WITHOUT_CARD), []),
    balances={"card 1": 300_00, "card 2": 150_00},
    pending_lines={"S1 T1": 0, "S1 T2": 0},
)


def test_where_all_agree_every_row_is_ok() -> None:
    rows, differences = compare(AGREEING)
    assert [row.what for row in rows if not row.is_ok] == []
    assert not differences
    assert {row.what: (row.expected, row.found) for row in rows}[SALES] == (3, 3)


def test_a_sale_that_hq_does_not_know_is_lost() -> None:
    found = off(facts((sale("a", took(120_00)), []), balances={}))
    assert set(found) == {SALES, LOST, BALANCES, MONEY}
    assert (
        "S1 T1 a (concluded online): line 1, redeem 120.00 SEK on card 1, is not known"
        in (found[LOST].differing[0])
    )
    assert (found[SALES].expected, found[SALES].found) == (1, 0)


def test_a_line_that_is_held_is_lost_until_somebody_decides() -> None:
    case = OpenCase("c1", "held", ["unknown_original"], BusinessKey("S1", "T1", "a", 1), 0)
    found = off(
        facts(
            (sale("a", took(120_00)), [posted(120_00, outcome="held")]),
            balances={},
            cases=[case],
        )
    )
    assert set(found) == {SALES, LOST, BALANCES, MONEY, CASES, HELD}
    assert "is held at HQ" in found[LOST].differing[0]


def test_a_sale_that_was_undone_behind_the_tills_back_is_lost() -> None:
    entries = [posted(120_00), posted(120_00, outcome="voided")]
    assert set(off(facts((sale("a", took(120_00)), entries), balances={}))) == {
        SALES,
        LOST,
        BALANCES,
        MONEY,
    }


def test_a_line_that_is_applied_twice_is_found() -> None:
    entries = [posted(120_00), posted(120_00)]
    found = off(facts((sale("a", took(120_00)), entries), balances={"card 1": 260_00}))
    assert set(found) == {SALES, TWICE, BALANCES, MONEY}
    assert "posted 2 times" in found[TWICE].differing[0]


def test_another_amount_is_found() -> None:
    found = off(facts((sale("a", took(120_00)), [posted(121_00)]), balances={"card 1": 379_00}))
    assert set(found) == {SALES, OTHER_AMOUNT, BALANCES, MONEY}
    assert (
        "redeem 120.00 SEK on card 1, is redeem 121.00 SEK at HQ"
        in (found[OTHER_AMOUNT].differing[0])
    )


def test_another_operation_is_found() -> None:
    entries = [posted(120_00, operation="cash_out")]
    found = off(facts((sale("a", took(120_00)), entries), balances={"card 1": 380_00}))
    assert set(found) == {SALES, OTHER_AMOUNT}


def test_a_line_that_no_till_sold_is_found() -> None:
    found = off(
        facts(
            (sale("a", took(120_00)), [posted(120_00), posted(5_00, line=2)]),
            balances={"card 1": 375_00},
        )
    )
    assert set(found) == {SALES, UNKNOWN, BALANCES, MONEY}


def test_a_sale_that_was_given_up_and_stands_at_hq_is_found() -> None:
    begun = sale("a", ending=Ending.WITHOUT_CARD)
    found = off(facts((begun, [posted(120_00)]), balances={"card 1": 380_00}))
    assert set(found) == {UNKNOWN, BALANCES, MONEY}


def test_a_voided_sale_that_still_has_effect_is_found() -> None:
    begun = sale("a", took(120_00), ending=Ending.VOIDED)
    found = off(facts((begun, [posted(120_00)]), balances={"card 1": 380_00}))
    assert set(found) == {VOIDED, BALANCES, MONEY}
    assert "the till voided the sale" in found[VOIDED].differing[0]


def test_a_balance_that_is_off_by_one_is_found() -> None:
    found = off(replace(AGREEING, balances_minor={"card 1": 300_01, "card 2": 150_00}))
    assert set(found) == {BALANCES, MONEY}
    [sentence] = found[BALANCES].differing
    assert sentence == (
        "card 1 *1234: 500.00 SEK + 0.00 SEK - 200.00 SEK + 0.00 SEK short = 300.00 SEK,"
        " and HQ says 300.01 SEK"
    )


def test_two_balances_that_are_off_by_the_same_are_found() -> None:
    found = off(replace(AGREEING, balances_minor={"card 1": 300_01, "card 2": 149_99}))
    assert set(found) == {BALANCES}


def test_a_card_that_hq_does_not_know_is_found() -> None:
    found = off(replace(AGREEING, balances_minor={"card 1": None, "card 2": 150_00}))
    assert set(found) == {BALANCES, MONEY}


# --- broken locks ---------------------------------------------------------------------------------

HOLDER = BusinessKey("S1", "T1", "a", 1)
OF_HOLDER = OpenCase("c1", "applied", ["lock_broken"], HOLDER, 200_00)


def broken(*cases: OpenCase, balance_minor: int = 0, short_minor: int = 200_00) -> Facts:
    """A card of 500.00: 300.00 offline under a lock that was broken, 400.00 at another till."""
    return facts(
        (
            sale("a", took(300_00), ending=Ending.OFFLINE),
            [posted(300_00, shortfall_minor=short_minor, codes=["lock_broken"])],
        ),
        (sale("b", took(400_00), till="T2"), [posted(400_00)]),
        balances={"card 1": balance_minor},
        cases=cases,
        broken={HOLDER},
    )


def test_what_is_short_after_a_broken_lock_is_as_it_should_be() -> None:
    assert off(broken(OF_HOLDER)) == {}


def test_a_missing_case_is_found() -> None:
    found = off(broken())
    assert set(found) == {CASES, SHORTFALL_IN_CASES}
    assert "there is no case" in found[CASES].differing[0]


def test_a_case_for_another_amount_is_found() -> None:
    assert set(off(broken(replace(OF_HOLDER, open_minor=199_99)))) == {SHORTFALL_IN_CASES}


def test_a_shortfall_above_what_the_tills_took_too_much_is_found() -> None:
    found = off(broken(replace(OF_HOLDER, open_minor=200_01), balance_minor=1, short_minor=200_01))
    assert set(found) == {SHORTFALL}


def test_a_case_that_nothing_explains_is_found() -> None:
    more = OpenCase("c2", "applied", ["contended"], BusinessKey("S1", "T2", "b", 1), 0)
    found = off(broken(OF_HOLDER, more))
    assert set(found) == {CASES}
    assert found[CASES].differing == ["case c2: applied, contended, S1 T2 b line 1"]


def test_a_case_in_the_place_of_another_is_found() -> None:
    other = replace(OF_HOLDER, key=BusinessKey("S1", "T2", "b", 1))
    assert set(off(broken(other))) == {CASES}


def test_a_notice_about_no_line_is_found() -> None:
    notice = OpenCase("c3", "noticed", ["sequence_gap"], None, 0)
    assert set(off(replace(AGREEING, cases=[notice]))) == {CASES, HELD}


# --- what is left ---------------------------------------------------------------------------------


def test_whatever_is_left_is_found() -> None:
    left = replace(
        AGREEING,
        locks=["S1 T1 x line 1: redeem on gift_card *1234"],
        undelivered=["S1 T2: journal_gap"],
        pending_lines={"S1 T1": 3},
        surprises=["S1 T1: unheard of"],
    )
    found = off(left)
    assert set(found) == {LOCKS, PENDING, UNDELIVERED, SURPRISES}
    assert found[PENDING].found == 3


def test_the_till_that_a_difference_is_about_is_named() -> None:
    _, differences = compare(
        facts(
            (sale("a", took(120_00), till="T7"), []),
            (sale("b", took(1_00)), [posted(1_00)]),
            balances={"card 1": 499_00},
        )
    )
    assert dict(differences) == {"S1 T7": 1}


def test_no_row_shows_a_card_number() -> None:
    found = off(replace(AGREEING, balances_minor={"card 1": 1, "card 2": None}))
    for row in found.values():
        for text in row.differing:
            assert CARD.number not in text
            assert OTHER.number not in text
