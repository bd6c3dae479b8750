"""How a schedule must end: what the database says, compared with what the tills know."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Protocol
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from hq_service.domain.model import BusinessKey
from hq_service.domain.model import Content as StoredContent
from hq_service.domain.outcomes import case_id_of
from tests.stateful.truth import Content, Sale, Standing

Row = dict[str, Any]
Key = tuple[str, str, int]

OWN_INSTRUMENTS = """
    SELECT instrument_id FROM instruments WHERE instrument_id = ANY (%(instruments)s)
     UNION
    SELECT instrument_id FROM postings WHERE store_id = %(store)s
     UNION
    SELECT related_instrument_id FROM postings WHERE store_id = %(store)s
"""

BROKEN_RULES = {
    "a balance is the sum of its postings and the last one says so": """
        SELECT instrument.instrument_id, balance_minor, instrument.version, sum(change_minor)
          FROM instruments AS instrument
          LEFT JOIN postings AS posting USING (bucket, instrument_id, currency)
         WHERE instrument.instrument_id = ANY (%(instruments)s)
         GROUP BY instrument.bucket, instrument.instrument_id
        HAVING balance_minor <> coalesce(sum(change_minor), 0)
            OR instrument.version <> count(posting.version)
            OR balance_minor < 0
    """,
    "each posting carries the balance after it": """
        SELECT *
          FROM (SELECT instrument_id, version, balance_after_minor,
                       sum(change_minor) OVER (PARTITION BY instrument_id ORDER BY version)
                       AS expected_minor
                  FROM postings
                 WHERE instrument_id = ANY (%(instruments)s)) AS chain
         WHERE balance_after_minor <> expected_minor
    """,
    "debits are credits": """
        SELECT store_id, currency, sum(debit_minor), sum(credit_minor)
          FROM ledger_entries
         WHERE store_id = %(store)s
         GROUP BY store_id, currency
        HAVING sum(debit_minor) <> sum(credit_minor)
    """,
    "the account of shortfalls is what the open cases are about": """
        SELECT booked.minor, open.minor
          FROM (SELECT coalesce(sum(debit_minor - credit_minor), 0) AS minor
                  FROM ledger_entries
                 WHERE store_id = %(store)s AND account = 'offline_shortfall') AS booked,
               (SELECT coalesce(sum(shortfall_minor - recovered_minor), 0) AS minor
                  FROM cases
                 WHERE store_id = %(store)s AND resolved_at IS NULL) AS open
         WHERE booked.minor <> open.minor
    """,
    "the list of live locks is what the instruments carry": """
        SELECT instrument.instrument_id, instrument.lock_id, live.lock_id
          FROM (SELECT * FROM instruments WHERE lock_id IS NOT NULL) AS instrument
          FULL JOIN live_locks AS live USING (bucket, instrument_id)
         WHERE instrument_id = ANY (%(instruments)s)
           AND (instrument.lock_id, instrument.lock_terminal_id, instrument.lock_amount_minor)
               IS DISTINCT FROM (live.lock_id, live.terminal_id, live.amount_minor)
    """,
    "a live lock is neither spent nor ended": """
        SELECT live.instrument_id, live.lock_id
          FROM live_locks AS live
         WHERE live.instrument_id = ANY (%(instruments)s)
           AND (EXISTS (SELECT 1 FROM postings WHERE postings.lock_id = live.lock_id)
                OR EXISTS (SELECT 1 FROM lock_events WHERE lock_events.lock_id = live.lock_id))
    """,
    "a lock funds one line": """
        SELECT lock_id, count(*)
          FROM postings
         WHERE instrument_id = ANY (%(instruments)s) AND entry = 'original' AND lock_id IS NOT NULL
         GROUP BY lock_id
        HAVING count(*) > 1
    """,
    "what leaves a used memo arrives on its remainder": """
        SELECT gone.instrument_id, gone.funded_minor, arrived.funded_minor
          FROM postings AS gone
          LEFT JOIN postings AS arrived
            ON arrived.instrument_id = gone.related_instrument_id
           AND arrived.entry = 'remainder_in'
           AND (arrived.store_id, arrived.terminal_id, arrived.transaction_id, arrived.line)
             = (gone.store_id, gone.terminal_id, gone.transaction_id, gone.line)
         WHERE gone.instrument_id = ANY (%(instruments)s)
           AND gone.entry = 'remainder_out'
           AND gone.related_instrument_id IS NOT NULL
           AND gone.funded_minor IS DISTINCT FROM arrived.funded_minor
    """,
    "nothing is left to settle": """
        SELECT batch_id FROM offline_batches WHERE store_id = %(store)s AND settled_at IS NULL
    """,
}


class Played(Protocol):
    """What an ending looks at of a schedule."""

    store_id: str
    sales: list[Sale]
    is_honest: bool

    @property
    def connection(self) -> psycopg.Connection[Any]: ...


class Ending:
    """The database at the end of a schedule, with the truth beside it."""

    def __init__(self, played: Played) -> None:
        self.played = played
        self.named: dict[str, Any] = {
            "store": played.store_id,
            "instruments": [
                UUID(sale.instrument_id) for sale in played.sales if sale.instrument_id
            ],
        }
        own = self.rows(OWN_INSTRUMENTS)
        self.named["instruments"] = [row["instrument_id"] for row in own if row["instrument_id"]]
        self.postings = self.rows(
            "SELECT * FROM postings WHERE store_id = %(store)s OR original_store_id = %(store)s"
        )
        self.cases = self.rows("SELECT * FROM cases WHERE store_id = %(store)s")
        self.case_ids = {case["case_id"]: case for case in self.cases}
        self.of_line: dict[Key, list[Row]] = defaultdict(list)
        for posting in self.postings:
            self.of_line[self.line_of(posting)].append(posting)

    def rows(self, query: str) -> list[Row]:
        cursor = self.played.connection.cursor(row_factory=dict_row)
        return cursor.execute(query.encode(), self.named).fetchall()

    def line_of(self, posting: Row) -> Key:
        """Return the till's line that a posting is about: HQ's own name it as their original."""
        prefix = "" if posting["store_id"] == self.played.store_id else "original_"
        names = ("terminal_id", "transaction_id", "line")
        terminal_id, transaction_id, line = (posting[prefix + name] for name in names)
        return terminal_id, transaction_id, line

    def check(self) -> None:
        for what, query in BROKEN_RULES.items():
            assert not (found := self.rows(query)), (what, found)
        self.check_that_nothing_unsold_is_posted()
        for sale in self.played.sales:
            self.check_sale(sale)
        self.check_that_every_shortfall_has_one_case()
        self.check_that_no_lock_is_stranded()
        if self.played.is_honest:
            self.check_that_nothing_fell_short()

    def check_that_nothing_unsold_is_posted(self) -> None:
        sales = {sale.place: sale for sale in self.played.sales}
        for posting in self.postings:
            sale = sales.get(self.line_of(posting))
            assert sale is not None, ("nobody sold", brief(posting))
            if posting["entry"] == "original":
                may_be = {sale.content, *sale.sent}
                assert content_of(posting) in may_be, (
                    "not what was sold",
                    str(sale),
                    brief(posting),
                )

    def check_sale(self, sale: Sale) -> None:
        own = self.of_line[sale.place]
        said = (str(sale), sale.standing, list(map(brief, own)))
        originals = [one for one in own if one["entry"] == "original"]
        assert len(originals) <= 1, ("posted twice", *said)
        if sale.is_voided or sale.is_reversed_by_hq:
            self.check_that_nothing_is_left(sale, own)
        elif sale.is_sold:
            self.check_sold_once(sale, own)
        elif sale.standing is not Standing.DOUBTFUL:
            assert not own, ("posted although it was given up", *said)

    def check_sold_once(self, sale: Sale, own: list[Row]) -> None:
        said = (str(sale), sale.standing, sale.content, list(map(brief, own)))
        entries = ("original", "resolution")
        posted = [
            one
            for one in own
            if one["entry"] in entries
            and one["operation"] != "recover"
            and (one["entry"] == "resolution" or content_of(one) == sale.content)
        ]
        case = self.case_ids.get(stored_case_id(sale))
        assert not any(one["entry"] == "reversal" for one in own), ("reversed", *said)
        if posted:
            assert len(posted) == 1, ("posted more than once", *said)
            assert posted[0]["amount_minor"] == sale.amount_minor, ("another amount", *said)
        else:
            assert case is not None, ("lost", *said)
            assert case["outcome"] == "held", ("lost", *said)
            assert case["resolution"] != "apply", ("lost", *said)

    def check_that_nothing_is_left(self, sale: Sale, own: list[Row]) -> None:
        """A voided line: what was booked is booked back, and no question is left.

        Together with its linked refunds, which have given back a part of it already; a voided one
        of those is looked at with its voided original.
        """
        if sale.original is not None and sale.original.is_voided:
            return
        own = [*own, *self.refunds_of(sale)]
        said = (str(sale), sale.standing, list(map(brief, own)))
        own = [one for one in own if not self.is_applied_after_all(one)]
        signs = [(-1 if one["operation"] in ("redeem", "recover") else 1, one) for one in own]
        booked = 0
        moved = 0
        for sign, one in signs:
            # The rest of a memo stays where it went: on its remainder, or forfeited.
            moved += one["change_minor"] if not one["entry"].startswith("remainder") else 0
            if one["entry"] == "original":
                booked += sign * one["amount_minor"]
            elif one["entry"] == "reversal":
                booked -= sign * one["amount_minor"]
        short = sum(
            one["shortfall_minor"]
            for one in own
            if one["entry"] == "reversal" and one["operation"] != "redeem"
        )
        assert moved == short, ("something is left of a voided line", *said)
        recovered = sum(one["amount_minor"] for one in own if one["operation"] == "recover")
        is_debit = any(one["operation"] == "redeem" for one in own)
        assert not is_debit or booked in (0, recovered), ("booked back otherwise", *said)
        for case in self.cases_of(sale.place):
            is_open = case["resolved_at"] is None
            is_closed_by_void = case["operation"] != "void" and case["outcome"] != "held"
            assert not (is_open and is_closed_by_void), (
                "a void left a case open",
                *said,
                brief(case),
            )

    def refunds_of(self, sale: Sale) -> list[Row]:
        names = ("original_terminal_id", "original_transaction_id", "original_line")
        return [
            one
            for one in self.postings
            if one["operation"] == "refund"
            and one["entry"] in ("original", "reversal")
            and tuple(one[name] for name in names) == sale.place
        ]

    def is_applied_after_all(self, posting: Row) -> bool:
        """Tell whether an administrator posted a held line under HQ's own key, void or not."""
        return posting["entry"] == "resolution" and posting["operation"] != "recover"

    def cases_of(self, place: Key) -> Iterable[Row]:
        names = ("terminal_id", "transaction_id", "line")
        return [case for case in self.cases if tuple(case[name] for name in names) == place]

    def check_that_every_shortfall_has_one_case(self) -> None:
        for posting in self.postings:
            is_debit = posting["operation"] == "redeem"
            if not posting["shortfall_minor"] or (posting["entry"] == "reversal" and is_debit):
                continue
            wanted = {"original": posting["operation"], "resolution": posting["operation"]}
            operation = wanted.get(posting["entry"], "void")
            found = [
                case
                for case in self.cases_of(self.line_of(posting))
                if case["operation"] == operation
                and case["amount_minor"] == posting["amount_minor"]
                and case["instrument_id"] == posting["instrument_id"]
            ]
            assert len(found) == 1, (
                "a shortfall has not one case",
                brief(posting),
                list(map(brief, found)),
            )

    def check_that_no_lock_is_stranded(self) -> None:
        """When all tills have come back, no instrument stays locked, but for a held line's.

        One exception: the number of a used memo led on to its remainder, the answer that said so
        was lost, and the till let go of the memo that it knew.
        """
        sales = {sale.place: sale for sale in self.played.sales}
        live = self.rows(
            "SELECT lock_terminal_id, lock_transaction_id, lock_line, instrument_id"
            "  FROM instruments"
            " WHERE instrument_id = ANY (%(instruments)s) AND lock_store_id = %(store)s"
        )
        for row in live:
            terminal_id, transaction_id, line, instrument_id = row.values()
            place = (terminal_id, transaction_id, line)
            is_held = any(case["outcome"] == "held" for case in self.cases_of(place))
            is_unknown_to_its_till = sales[place].instrument_id != str(instrument_id)
            assert is_held or is_unknown_to_its_till, ("a lock is stranded", row)

    def check_that_nothing_fell_short(self) -> None:
        short = [one for one in self.postings if one["shortfall_minor"]]
        assert not short, ("what was granted fell short", list(map(brief, short)))


def brief(row: Row) -> str:
    """Return a posting or a case as short as it can be told."""
    names = (
        "entry operation amount_minor funded_minor shortfall_minor recovered_minor change_minor"
        " outcome codes currency resolution store_id terminal_id transaction_id line"
    )
    return " ".join(f"{name}={row[name]}" for name in names.split() if row.get(name) is not None)


def content_of(posting: Row) -> Content:
    names = ("store_id", "terminal_id", "transaction_id", "line")
    original = tuple(posting[f"original_{name}"] for name in names)
    is_linked = original[0] is not None
    return (
        posting["operation"],
        str(posting["instrument_id"]),
        posting["amount_minor"],
        posting["currency"],
        original if is_linked else None,
    )


def stored_case_id(sale: Sale) -> UUID:
    """Return the id of the case that a sale's line has, if it has one."""
    operation, instrument_id, amount_minor, currency, original = sale.content
    content = StoredContent(
        operation,
        UUID(instrument_id),
        amount_minor,
        currency,
        BusinessKey(*original) if original else None,
    )
    return case_id_of(BusinessKey(**sale.key), content)
