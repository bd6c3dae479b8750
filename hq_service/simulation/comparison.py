"""Whether HQ came to the same as the tills: facts in, sentences with verdicts out. Pure.

What the tills' customers were told is the truth. It is held against HQ twice: sale by sale, by the
business keys; and card by card, by the money, which also finds what came under a key that no till
ever used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hq_service.domain.model import BusinessKey, Operation
from hq_service.domain.money import display
from hq_service.simulation.result import CURRENCY, ComparisonRow
from hq_service.simulation.truth import Ending, TrueCard, TrueLine, TrueSale

SHOWN_MAX = 5
"""How many of the things that differ are shown in full."""

DEBITS = frozenset({Operation.REDEEM, Operation.CASH_OUT})
APPLIED = "applied"
HELD = "held"

Transaction = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class KnownLine:
    """One thing that HQ knows of one line."""

    line: int
    operation: str
    amount_minor: int
    outcome: str
    shortfall_minor: int = 0
    codes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class OpenCase:
    """A case that is open at HQ; ``key`` is None for one that is about no line."""

    case_id: str
    outcome: str
    codes: Sequence[str]
    key: BusinessKey | None
    open_minor: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What the tills and HQ say at the end.

    ``known`` is by transaction, ``balances_minor`` by the name of the card: None if HQ does not
    know it. ``broken`` are the lines whose locks an administrator broke. ``locks``,
    ``undelivered`` and ``surprises`` are sentences.
    """

    sales: Sequence[TrueSale]
    cards: Sequence[TrueCard]
    known: Mapping[Transaction, Sequence[KnownLine]]
    balances_minor: Mapping[str, int | None]
    cases: Sequence[OpenCase] = ()
    locks: Sequence[str] = ()
    undelivered: Sequence[str] = ()
    pending_lines: Mapping[str, int] = field(default_factory=dict)
    broken: Collection[BusinessKey] = ()
    surprises: Sequence[str] = ()


@dataclass(slots=True)
class _Found:
    """What does not agree, by kind; and the tills that it is about."""

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    voided: list[str] = field(default_factory=list)
    concluded: int = 0
    posted: int = 0
    by_till: Counter[str] = field(default_factory=Counter)
    shortfalls_minor: Counter[str] = field(default_factory=Counter)

    def note(self, kind: list[str], sale: TrueSale, sentence: str) -> None:
        kind.append(f"{_name(sale)}: {sentence}")
        self.by_till[f"{sale.store_id} {sale.terminal_id}"] += 1


def compare(facts: Facts) -> tuple[list[ComparisonRow], Mapping[str, int]]:
    """Return a row for each sentence, and how many differences are about each till."""
    found = _Found()
    for sale in facts.sales:
        known = facts.known.get((sale.store_id, sale.terminal_id, sale.transaction_id), ())
        _compare_sale(sale, known, found)
    rows = [
        *_rows_of_sales(found),
        *_rows_of_money(facts, found),
        *_rows_of_cases(facts, found),
        _nothing("locks left at HQ", facts.locks),
        _nothing("lines that tills still have pending", _pending(facts)),
        _nothing("registers that HQ has not everything of", facts.undelivered),
        _nothing("answers that the plan does not explain", facts.surprises),
    ]
    return rows, found.by_till


# --- sale by sale ---------------------------------------------------------------------------------


def _compare_sale(sale: TrueSale, known: Sequence[KnownLine], found: _Found) -> None:
    numbers = {one.line for one in known} | set(sale.lines)
    found.concluded += sale.is_concluded and bool(sale.lines)
    faults_before = sum(found.by_till.values())
    for number in sorted(numbers):
        entries = [one for one in known if one.line == number]
        true = sale.lines.get(number) if sale.is_concluded else None
        _compare_line(sale, number, true, entries, found)
    is_as_told = sum(found.by_till.values()) == faults_before
    found.posted += sale.is_concluded and bool(sale.lines) and is_as_told


def _compare_line(
    sale: TrueSale,
    number: int,
    true: TrueLine | None,
    entries: Sequence[KnownLine],
    found: _Found,
) -> None:
    applied = [one for one in entries if one.outcome == APPLIED]
    is_undone = any(one.outcome not in (APPLIED, HELD) for one in entries)
    has_effect = bool(applied) and not is_undone
    if true is None:
        if not has_effect:
            return
        what = f"line {number}, {_shown(applied[0])}"
        if sale.ending is Ending.VOIDED:
            found.note(found.voided, sale, f"{what}, stands at HQ, and the till voided the sale")
        else:
            found.note(found.unknown, sale, f"{what}, stands at HQ, and at the till it is not sold")
        return
    told = f"line {number}, {true.operation} {_money(true.amount_minor)} on {true.card.name}"
    if not has_effect:
        why = "undone" if applied else "held" if entries else "not known"
        found.note(found.lost, sale, f"{told}, is {why} at HQ")
        return
    if len(applied) > 1:
        found.note(found.twice, sale, f"{told}, is posted {len(applied)} times")
    for one in applied[:1]:
        if (one.operation, one.amount_minor) != (true.operation, true.amount_minor):
            found.note(found.other, sale, f"{told}, is {_shown(one)} at HQ")
    found.shortfalls_minor[true.card.name] += sum(one.shortfall_minor for one in applied)


def _rows_of_sales(found: _Found) -> Iterator[ComparisonRow]:
    yield ComparisonRow(
        "sales concluded, and posted at HQ as they were told",
        found.concluded,
        found.posted,
        found.concluded == found.posted,
    )
    yield _nothing("lines lost: sold, and not posted at HQ", found.lost)
    yield _nothing("lines posted twice", found.twice)
    yield _nothing("lines posted with another amount", found.other)
    yield _nothing("lines at HQ that no till sold", found.unknown)
    yield _nothing("lines at HQ of sales that were voided", found.voided)


# --- card by card ---------------------------------------------------------------------------------


def _rows_of_money(facts: Facts, found: _Found) -> Iterator[ComparisonRow]:
    taken, given = _moved(facts.sales)
    differing = []
    expected_total = balance_total = true_shortfall = 0
    for card in facts.cards:
        moved = given[card.name] - taken[card.name]
        short = found.shortfalls_minor[card.name]
        expected = card.opening_minor + moved + short
        balance = facts.balances_minor.get(card.name)
        true_shortfall += max(0, -(card.opening_minor + moved))
        expected_total += expected
        balance_total += balance or 0
        if balance != expected:
            says = "does not know it" if balance is None else f"says {_money(balance)}"
            differing.append(
                f"{_with_digits(card)}: {_money(card.opening_minor)} + {_money(given[card.name])}"
                f" - {_money(taken[card.name])} + {_money(short)} short ="
                f" {_money(expected)}, and HQ {says}"
            )
    posted_shortfall = sum(found.shortfalls_minor.values())
    open_shortfall = sum(case.open_minor for case in facts.cases)
    yield ComparisonRow(
        "cards with the balance that sales and shortfall leave",
        len(facts.cards),
        len(facts.cards) - len(differing),
        not differing,
        differing=differing[:SHOWN_MAX],
    )
    yield _amounts("money on all cards", expected_total, balance_total)
    yield _amounts(
        "shortfall: by the tills, and by HQ's postings", true_shortfall, posted_shortfall
    )
    yield _amounts(
        "shortfall: by HQ's postings, and in open cases", posted_shortfall, open_shortfall
    )


def _moved(sales: Sequence[TrueSale]) -> tuple[Counter[str], Counter[str]]:
    """Return what was taken from each card and what was given to it, by its name."""
    taken: Counter[str] = Counter()
    given: Counter[str] = Counter()
    for sale in sales:
        for line in sale.lines.values() if sale.is_concluded else ():
            side = taken if line.operation in DEBITS else given
            side[line.card.name] += line.amount_minor
    return taken, given


def _amounts(what: str, expected_minor: int, found_minor: int) -> ComparisonRow:
    is_ok = expected_minor == found_minor
    return ComparisonRow(what, expected_minor, found_minor, is_ok, is_amount=True)


# --- cases ----------------------------------------------------------------------------------------


def _rows_of_cases(facts: Facts, found: _Found) -> Iterator[ComparisonRow]:
    """A case is explained by a lock that was broken while its till sold under it without HQ."""
    explained = {
        sale.key_of(number)
        for sale in facts.sales
        if sale.ending is Ending.OFFLINE
        for number in sale.lines
        if sale.key_of(number) in facts.broken
    }
    opened = {case.key for case in facts.cases if case.outcome == APPLIED}
    differing = [
        f"{_shown_key(key)}: its lock was broken while it was sold offline, and there is no case"
        for key in sorted(explained - opened)
    ]
    unexplained = [case for case in facts.cases if case.key not in explained]
    differing += [
        f"case {case.case_id}: {case.outcome}, {', '.join(case.codes)},"
        f" {_shown_key(case.key) if case.key else 'about no line'}"
        for case in unexplained
    ]
    for case in unexplained:
        if case.key is not None:
            found.by_till[f"{case.key.store_id} {case.key.terminal_id}"] += 1
    yield ComparisonRow(
        "open cases: one for each sale under a broken lock",
        len(explained),
        len(facts.cases),
        not differing and len(facts.cases) == len(explained),
        differing=differing[:SHOWN_MAX],
    )
    held = [case.case_id for case in facts.cases if case.outcome != APPLIED]
    yield _nothing("lines that HQ holds for an administrator", held)


# --- words ----------------------------------------------------------------------------------------


def _pending(facts: Facts) -> list[str]:
    return [
        f"{till}: line {number} of {lines}"
        for till, lines in facts.pending_lines.items()
        for number in range(1, lines + 1)
    ]


def _nothing(what: str, differing: Sequence[str]) -> ComparisonRow:
    return ComparisonRow(
        what, 0, len(differing), not differing, differing=list(differing[:SHOWN_MAX])
    )


def _name(sale: TrueSale) -> str:
    return f"{sale.store_id} {sale.terminal_id} {sale.transaction_id} ({sale.ending})"


def _shown_key(key: BusinessKey) -> str:
    return f"{key.store_id} {key.terminal_id} {key.transaction_id} line {key.line}"


def _shown(known: KnownLine) -> str:
    return f"{known.operation} {_money(known.amount_minor)}"


def _with_digits(card: TrueCard) -> str:
    return f"{card.name} *{card.number[-4:]}"


def _money(amount_minor: int) -> str:
    return display(amount_minor, CURRENCY)
