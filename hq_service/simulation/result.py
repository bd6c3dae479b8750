"""What a simulation came to: what the last tables and the report are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from hq_service.simulation.samples import Sample

CURRENCY = "SEK"
"""Every card of the fleet is in this currency."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; with the same options the same schedule is drawn."""

    stores: int = 3
    tills_per_store: int = 4
    cards: int = 2_000
    minutes: float = 2.0
    seed: int = 7
    outages: bool = False
    break_locks: bool = False
    sockets: bool = False


@dataclass(frozen=True, slots=True)
class OutageRow:
    """A time without HQ, of one till, or of a whole store when ``till`` is None.

    Units:  seconds since the fleet opened.
    """

    store: str
    till: str | None
    from_second: float
    to_second: float


@dataclass(frozen=True, slots=True)
class TillRow:
    """One till at the end, by its own truth; ``differences`` are what HQ sees otherwise."""

    store: str
    till: str
    sales_online: int
    sales_offline: int
    voided: int
    refused: int
    crashes: int
    messages_lost: int
    pending_lines: int
    differences: int

    @property
    def is_ok(self) -> bool:
        """Tell whether HQ and the till agree, and nothing is left in the till."""
        return not self.differences and not self.pending_lines


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One sentence of the comparison: what was expected, what was found, and whether that is it.

    ``expected`` is by the tills' own truth unless ``what`` says otherwise. ``differing`` shows some
    of what differs in full: ids and last digits, never a card number.

    Units:  counts, or with ``is_amount`` the smallest unit of `CURRENCY`.
    """

    what: str
    expected: int
    found: int
    is_ok: bool
    is_amount: bool = False
    differing: Sequence[str] = ()

    @property
    def verdict(self) -> str:
        """Return the word of the table."""
        return "ok" if self.is_ok else "OFF"


@dataclass(frozen=True, slots=True)
class Result:
    """A whole run. ``digest`` is the plan's; ``seconds`` from the opening to the last upload."""

    options: Options
    digest: str
    started_at: datetime
    seconds: float
    samples: Sequence[Sample]
    outages: Sequence[OutageRow]
    tills: Sequence[TillRow]
    comparisons: Sequence[ComparisonRow]

    @property
    def is_as_expected(self) -> bool:
        """Tell whether the tills and HQ agree in everything."""
        return all(row.is_ok for row in self.comparisons) and all(row.is_ok for row in self.tills)
