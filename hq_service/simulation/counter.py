"""What a cashier does for one customer, and what the customer takes home as the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hq_service.domain.model import Operation
from hq_service.simulation.plan import PlannedLine, Visit
from hq_service.simulation.result import CURRENCY
from hq_service.simulation.truth import Ending, TillTruth, TrueCard, TrueSale
from hq_service.terminal.refusals import NotPossible, Refused
from hq_service.terminal.sale import Added, Sale
from hq_service.terminal.store import SaleState
from hq_service.terminal.terminal import Terminal

REFUSALS_OF_TILLS = frozenset(
    {"nothing_starts_offline", "lock_unanswered", "above_grant", "offline"}
)
"""Why a till says no by itself, on an ordinary day."""

REFUSALS_OF_HQ = frozenset(
    {
        "instrument_locked",
        "instrument_already_in_transaction",
        "instrument_applied",
        "instrument_not_active",
        "cash_out_not_allowed",
        "unknown_original",
    }
)
"""Why HQ says no, on an ordinary day: another till has the card; two numbers are the same memo;
the memo was used; the card was sold, or money is given back for a sale, offline, and that has not
arrived yet; too much is on the card for cash.
"""


class Moments(Protocol):
    """What happens around a sale, at the moments that the plan knows."""

    def after_locking(self, visit: Visit) -> None:
        """Come after the first card is in the sale."""

    def before_concluding(self, visit: Visit) -> None:
        """Come before the sale is concluded."""

    def after_concluding(self, visit: Visit) -> None:
        """Come after it, whatever came of it."""


class Cashier:
    """Serves customers at one till, until its program ends."""

    def __init__(
        self, terminal: Terminal, truth: TillTruth, cards: Sequence[TrueCard], moments: Moments
    ) -> None:
        self._terminal = terminal
        self._truth = truth
        self._cards = cards
        self._moments = moments

    # --- errands --------------------------------------------------------------------------------

    def inquire(self, line: PlannedLine) -> None:
        """Ask what is on a card."""
        card = self._card_of(line)
        assert card is not None  # an inquiry is about one that there is
        try:
            self._terminal.balance(card.kind, card.number)
        except (NotPossible, Refused) as refusal:
            self._note(refusal)

    def void_earlier(self, visit: Visit) -> None:
        """Undo an earlier sale, if it came to one."""
        assert visit.original is not None  # the plan says which
        true = self._truth.by_visit.get(visit.original)
        if true is None or not true.is_concluded:
            return
        sale = self._terminal.find_sale(true.transaction_id)
        if sale is None:
            self._surprise(f"the till has forgotten the sale {true.transaction_id}")
            return
        self._void(sale, true)

    def sell(self, number: int, visit: Visit) -> None:
        """Make a sale, as far as the cards are taken."""
        try:
            sale = self._terminal.begin_sale()
        except NotPossible as refusal:
            self._surprise(f"no sale can be begun: {refusal}")
            return
        store = self._terminal.store
        true = TrueSale(store.store_id, store.terminal_id, sale.transaction_id)
        self._truth.begin(true, number)
        for place, line in enumerate(visit.lines):
            self._add(sale, true, line, visit)
            if place == 0:
                self._moments.after_locking(visit)
        for line_number, wish in list(true.wishes.items()):
            if wish.is_removed:
                self._remove(sale, line_number)
        if visit.is_abandoned:
            self._void(sale, true)
            return
        self._moments.before_concluding(visit)
        self._conclude(sale, true)
        self._note_issued(number, true)
        self._moments.after_concluding(visit)

    def finish_after_crash(self, visit: Visit | None) -> None:
        """Finish the sale that the program before this one left, if there is one."""
        unfinished = self._terminal.store.unfinished_sale()
        if unfinished is None:
            return
        true = self._truth.named(unfinished.transaction_id)
        try:
            sale = self._terminal.resume()
        except Refused as refusal:
            self._surprise(f"a sale cannot be resumed: {refusal}")
            return
        if sale is None:
            true.ending = Ending.VOIDED
            return
        self._take_what_came_back(sale, true)
        if visit is not None and visit.is_voided_after_crash:
            self._void(sale, true)
            return
        if sale.state is SaleState.OPEN:
            for added in sale.lines:
                wish = true.wishes.get(added.line)
                if added.amount_minor is None:
                    self._name_amount(sale, added, wish.amount_minor if wish else None)
        self._conclude(sale, true)
        for number, one in self._truth.by_visit.items():
            if one is true:
                self._note_issued(number, true)

    # --- a line ---------------------------------------------------------------------------------

    def _card_of(self, line: PlannedLine) -> TrueCard | None:
        if line.card is not None:
            return self._cards[line.card]
        if line.issued_in is not None:
            return self._truth.issued.get(line.issued_in)
        return None

    def _add(self, sale: Sale, true: TrueSale, line: PlannedLine, visit: Visit) -> None:
        card = self._card_of(line)
        original = None
        if line.operation == Operation.REFUND:
            card, original = self._to_give_back(visit)
        if card is None and line.operation != Operation.ISSUE:
            return  # the customer had no such card issued after all
        true.asked = card, line
        amount_minor = line.amount_minor
        try:
            added = self._asked_for(sale, line, card, original, true)
        except NotPossible as refusal:
            self._note(refusal)
            if refusal.code != "above_grant":
                true.asked = None
                return
            added, amount_minor = sale.lines[-1], None
        except Refused as refusal:
            self._note(refusal)
            true.asked = None
            return
        self._take(true, added)
        if added.amount_minor is None:
            self._name_amount(sale, added, amount_minor)

    def _asked_for(
        self,
        sale: Sale,
        line: PlannedLine,
        card: TrueCard | None,
        original: TrueSale | None,
        true: TrueSale,
    ) -> Added:
        """Ask the till for a line. Raises:  NotPossible; Refused."""
        amount_minor = line.amount_minor
        if card is None:
            return sale.issue(line.kind, amount_minor or 0, CURRENCY)
        # A used memo is found by its own number, and by that of what is left of it.
        is_newest = len(self._truth.sales) % 2 == 0
        number = card.newest_number if is_newest else card.number
        if line.operation == Operation.LOAD:
            return sale.load(number, amount_minor or 0)
        if line.operation == Operation.CASH_OUT:
            return sale.cash_out(number)
        if line.operation == Operation.REFUND:
            if original is None:
                return sale.refund(number, amount_minor or 0, reason="no receipt")
            bought = original.lines[1].amount_minor
            given_back = min(amount_minor or 0, bought)
            true.asked = card, line
            return sale.refund(number, given_back, original=original.key_of(1))
        named = amount_minor if line.is_named_at_once else None
        return sale.redeem(line.kind, number, named)

    def _to_give_back(self, visit: Visit) -> tuple[TrueCard | None, TrueSale | None]:
        """Return the card that money is given back to, and the sale that took it, if it did."""
        assert visit.original is not None  # the plan says which
        original = self._truth.by_visit.get(visit.original)
        if original is None or 1 not in original.cards:
            return None, None
        is_taken = original.is_concluded and 1 in original.lines
        return original.cards[1], original if is_taken else None

    def _take(self, true: TrueSale, added: Added) -> None:
        """Note that the card which was handed over last is in the sale."""
        assert true.asked is not None  # it was just asked for
        card, wish = true.asked
        true.asked = None
        if card is None:
            card = self._made_card(true, added)
        true.cards[added.line] = card
        true.wishes[added.line] = wish

    def _made_card(self, true: TrueSale, added: Added) -> TrueCard:
        if added.made_number is None:
            self._surprise(f"HQ made no number for an issue in {true.transaction_id}")
        name = f"{added.kind} *{added.number_last4} issued in {true.transaction_id}"
        card = TrueCard(name, added.kind, added.made_number or "")
        self._truth.made_cards.append(card)
        return card

    def _take_what_came_back(self, sale: Sale, true: TrueSale) -> None:
        """Find again, after a crash, the line whose answer the program did not live to see."""
        for added in sale.lines:
            if added.line not in true.cards:
                self._take(true, added)
        true.asked = None

    def _name_amount(self, sale: Sale, added: Added, amount_minor: int | None) -> None:
        """Say how much is meant: no more than there is. An empty card is taken out again."""
        if not added.max_amount_minor:
            self._truth.refused += 1
            self._remove(sale, added.line)
            return
        there = added.max_amount_minor
        sale.set_amount(added.line, there if amount_minor is None else min(amount_minor, there))

    def _remove(self, sale: Sale, line_number: int) -> None:
        if line_number not in [one.line for one in sale.lines]:
            return  # it is out of the sale already
        try:
            sale.remove(line_number)
        except Refused as refusal:
            self._surprise(f"a line cannot be removed: {refusal}")

    # --- the end of a sale ----------------------------------------------------------------------

    def _conclude(self, sale: Sale, true: TrueSale) -> None:
        """Conclude a sale; what is refused is taken out of it, and the customer pays otherwise."""
        for _ in range(1 + len(sale.lines)):
            if not sale.lines:
                break
            try:
                true.conclude(sale.conclude())
            except Refused as refusal:
                self._note(refusal)
                for line_number in refusal.lines or [one.line for one in sale.lines]:
                    self._remove(sale, line_number)
            except NotPossible as refusal:
                self._note(refusal)
                break
            else:
                return
        was_without = not sale.lines
        self._void(sale, true)
        if was_without and true.ending is Ending.VOIDED:
            true.ending = Ending.WITHOUT_CARD

    def _void(self, sale: Sale, true: TrueSale) -> None:
        try:
            sale.void()
        except Refused as refusal:
            self._surprise(f"{true.transaction_id} cannot be voided: {refusal}")
            return
        true.ending = Ending.VOIDED

    def _note_issued(self, number: int, true: TrueSale) -> None:
        """Note the gift card that a visit ended with: its customer brings it again."""
        first = true.lines.get(1)
        if true.is_concluded and first is not None and first.operation == Operation.ISSUE:
            self._truth.issued[number] = first.card

    # --- refusals -------------------------------------------------------------------------------

    def _note(self, refusal: NotPossible | Refused) -> None:
        self._truth.refused += 1
        ordinary = REFUSALS_OF_HQ if isinstance(refusal, Refused) else REFUSALS_OF_TILLS
        codes = (
            {refusal.code}
            if not isinstance(refusal, Refused)
            else set(refusal.lines.values()) or {refusal.code}
        )
        if not codes <= ordinary:
            self._surprise(str(refusal))

    def _surprise(self, sentence: str) -> None:
        store = self._terminal.store
        self._truth.surprises.append(f"{store.store_id} {store.terminal_id}: {sentence}")
