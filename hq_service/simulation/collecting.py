"""What HQ says at the end: every sale, every card, every case and every lock, over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

from hq_service.domain.completeness import Reason
from hq_service.domain.model import BusinessKey
from hq_service.simulation.comparison import KnownLine, OpenCase, Transaction
from hq_service.simulation.opening import AT_ONCE, Fleet, done
from hq_service.simulation.truth import TrueCard, TrueSale
from hq_service.terminal.client import Client

PAGE = 200

Asked = TypeVar("Asked")
Told = TypeVar("Told")


def known_sales(fleet: Fleet, sales: Sequence[TrueSale]) -> dict[Transaction, Sequence[KnownLine]]:
    """Ask what HQ knows of each sale that was ever begun.

    Raises:  SimulationFailed; Unreachable.
    """

    def ask(admin: Client, sale: TrueSale) -> tuple[Transaction, Sequence[KnownLine]]:
        names = sale.store_id, sale.terminal_id, sale.transaction_id
        answer = admin.get(f"/v1/transactions/{'/'.join(names)}")
        if answer.at("code") == "transaction_not_found":
            return names, []
        return names, [_known_line(one) for one in done(answer).at("lines")]

    return dict(_all(fleet, sales, ask))


def balances_minor(fleet: Fleet, cards: Sequence[TrueCard]) -> dict[str, int | None]:
    """Ask for the balance of each card, by its name; None is one that HQ does not know.

    Raises:  SimulationFailed; Unreachable.
    """

    def ask(admin: Client, card: TrueCard) -> tuple[str, int | None]:
        answer = admin.post("/v1/balance-inquiries", {"kind": card.kind, "number": card.number})
        if answer.at("code") == "instrument_not_found":
            return card.name, None
        return card.name, int(done(answer).at("balance_minor"))

    return dict(_all(fleet, cards, ask))


def open_cases(admin: Client, fleet: Fleet) -> list[OpenCase]:
    """Return the cases of the fleet's stores that are open.

    Raises:  SimulationFailed; Unreachable.
    """
    return [
        _open_case(one)
        for store_id in fleet.store_ids
        for one in _pages(admin, f"/v1/admin/cases?store_id={store_id}", "cases")
    ]


def locks_left(admin: Client, fleet: Fleet) -> list[str]:
    """Return a sentence for each lock that the fleet still has.

    Raises:  SimulationFailed; Unreachable.
    """
    return [
        f"{one['store_id']} {one['terminal_id']} {one['transaction_id']} line {one['line']}:"
        f" {one['purpose']} on {one['instrument']['kind']} *{one['instrument']['number_last4']}"
        for store_id in fleet.store_ids
        for one in _pages(admin, f"/v1/admin/locks?store_id={store_id}", "locks")
    ]


def undelivered(admin: Client, fleet: Fleet) -> list[str]:
    """Return a sentence for each register of which HQ has not everything up to now.

    That a register was not heard of since the end of the day says only that the day is not over.

    Raises:  SimulationFailed; Unreachable.
    """
    today = datetime.now(UTC).date()
    found = []
    for store_id in fleet.store_ids:
        path = f"/v1/admin/completeness?business_date={today}&store_id={store_id}"
        for one in _pages(admin, path, "registers"):
            reasons = set(one["reasons"]) - {Reason.NOT_HEARD_SINCE}
            if reasons:
                found.append(f"{store_id} {one['terminal_id']}: {', '.join(sorted(reasons))}")
    return found


def _all(
    fleet: Fleet, wanted: Sequence[Asked], ask: Callable[[Client, Asked], Told]
) -> Iterator[Told]:
    """Ask for many things, several beside one another."""

    def part(start: int) -> list[Told]:
        with Client(fleet.url, fleet.admin_key) as admin:
            return [ask(admin, one) for one in wanted[start::AT_ONCE]]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for told in pool.map(part, range(AT_ONCE)):
            yield from told


def _pages(admin: Client, path: str, member: str) -> Iterator[Mapping[str, Any]]:
    after = None
    while True:
        more = f"&after={after}" if after else ""
        answer = done(admin.get(f"{path}&limit={PAGE}{more}"))
        yield from answer.at(member)
        after = answer.at("next_after")
        if after is None:
            return


def _known_line(told: Mapping[str, Any]) -> KnownLine:
    return KnownLine(
        told["line"],
        told["operation"],
        told["amount_minor"],
        told["outcome"],
        told["shortfall_minor"],
        tuple(told["codes"]),
    )


def _open_case(told: Mapping[str, Any]) -> OpenCase:
    names = told["store_id"], told["terminal_id"], told["transaction_id"]
    key = BusinessKey(*names, told["line"]) if told["line"] is not None else None
    return OpenCase(
        told["case_id"],
        told["outcome"],
        tuple(told["codes"]),
        key,
        told["shortfall_minor"] - told["recovered_minor"],
    )
