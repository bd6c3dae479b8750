"""What the customers at the counters were told: the truth that HQ must come to in the end.

It is kept beside the tills and never read from their journals, or a till that forgets a sale would
be believed. Card numbers are in it, so it is in memory only and nothing of it is shown but names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from hq_service.domain.model import BusinessKey
from hq_service.simulation.plan import PlannedLine
from hq_service.terminal.sale import Receipt


class Ending(StrEnum):
    """What became of a sale, as its customer knows it."""

    OPEN = "open"
    ONLINE = "concluded online"
    OFFLINE = "concluded offline"
    VOIDED = "voided"
    WITHOUT_CARD = "without a card"  # every card was refused, and the customer paid otherwise


CONCLUDED = frozenset({Ending.ONLINE, Ending.OFFLINE})


@dataclass(eq=False, slots=True)
class TrueCard:
    """An instrument in somebody's hand.

    ``newest_number`` is that of the memo that carries what is left of a used one.
    """

    name: str
    kind: str
    number: str = field(repr=False)
    opening_minor: int = 0
    instrument_id: str | None = None
    newest_number: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        self.newest_number = self.number


@dataclass(frozen=True, slots=True)
class TrueLine:
    """A line on a receipt."""

    operation: str
    card: TrueCard
    amount_minor: int


@dataclass(slots=True)
class TrueSale:
    """A sale that was begun. ``cards`` are those in it by line; ``lines`` those on its receipt.

    ``asked`` is the card that was handed over last, and what for: whether it came into the sale is
    not known while the till has not answered.
    """

    store_id: str
    terminal_id: str
    transaction_id: str
    ending: Ending = Ending.OPEN
    cards: dict[int, TrueCard] = field(default_factory=dict)
    wishes: dict[int, PlannedLine] = field(default_factory=dict)
    lines: dict[int, TrueLine] = field(default_factory=dict)
    asked: tuple[TrueCard | None, PlannedLine] | None = None

    @property
    def is_concluded(self) -> bool:
        """Tell whether goods have changed hands and nobody took that back."""
        return self.ending in CONCLUDED

    def key_of(self, line: int) -> BusinessKey:
        """Return the business key of a line."""
        return BusinessKey(self.store_id, self.terminal_id, self.transaction_id, line)

    def conclude(self, receipt: Receipt) -> None:
        """Take a receipt: from now on this sale has happened."""
        self.ending = Ending.OFFLINE if receipt.is_offline else Ending.ONLINE
        for line in receipt.lines:
            card = self.cards[line.line]
            self.lines[line.line] = TrueLine(line.operation, card, line.amount_minor)
            if line.remainder_number is not None:
                card.newest_number = line.remainder_number


@dataclass(slots=True)
class TillTruth:
    """Everything that happened at one till. ``surprises`` are sentences that no plan explains."""

    sales: list[TrueSale] = field(default_factory=list)
    by_visit: dict[int, TrueSale] = field(default_factory=dict)
    issued: dict[int, TrueCard] = field(default_factory=dict)
    made_cards: list[TrueCard] = field(default_factory=list)
    refused: int = 0
    crashes: int = 0
    surprises: list[str] = field(default_factory=list)

    def begin(self, sale: TrueSale, visit: int) -> TrueSale:
        """Add a sale that was begun."""
        self.sales.append(sale)
        self.by_visit[visit] = sale
        return sale

    def count(self, ending: Ending) -> int:
        """Return how many sales have come to an ending."""
        return sum(sale.ending is ending for sale in self.sales)

    def named(self, transaction_id: str) -> TrueSale:
        """Return the sale of a name."""
        [found] = [one for one in self.sales if one.transaction_id == transaction_id]
        return found
