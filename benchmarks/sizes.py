"""How much work a run does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """The fixed work of one round, and how many rounds there are.

    Units: whatever is counted: requests, transactions, lines, instruments. ``large_instruments``
    None takes the main database for the large one. ``has_full_batches`` adds batches that no ratio
    is made of. ``long_batch_lines`` must be above HQ_BATCH_SYNCHRONOUS_LINES_MAX to be settled
    behind the answer. ``batches`` are (lines, how many of them) to
    post one after the other.
    """

    rounds: int
    instruments: int
    small_instruments: int
    large_instruments: int | None
    numbered_instruments: int
    connections: int
    hellos: int
    balances: int
    selects: int
    locks: int
    cycles: int
    denials: int
    denials_for_update: int
    redeems: int
    textbook_redeems: int
    floor_redeems: int
    tpcb_transactions: int
    tpcb_scale: int
    sized_redeems: int
    batch_lines: int
    long_batch_lines: int
    has_full_batches: bool
    batches: tuple[tuple[int, int], ...]
    row_commit_lines: int
    textbook_lines: int
    redeems_beside_batches: int
    lines_beside: int


FULL = Sizes(
    rounds=5,
    instruments=1_000_000,
    small_instruments=10_000,
    large_instruments=5_000_000,
    numbered_instruments=50_000,
    connections=16,
    hellos=6_000,
    balances=6_000,
    selects=40_000,
    locks=5_000,
    cycles=2_500,
    denials=24_000,
    denials_for_update=4_000,
    redeems=6_000,
    textbook_redeems=1_000,
    floor_redeems=20_000,
    tpcb_transactions=10_000,
    tpcb_scale=10,
    sized_redeems=3_000,
    batch_lines=10_000,
    long_batch_lines=100_000,
    has_full_batches=True,
    batches=((1, 200), (100, 20), (1_000, 4)),
    row_commit_lines=5_000,
    textbook_lines=1_000,
    redeems_beside_batches=1_500,
    lines_beside=10_000,
)

QUICK = Sizes(
    rounds=2,
    instruments=1_000_000,
    small_instruments=10_000,
    large_instruments=None,
    numbered_instruments=25_000,
    connections=16,
    hellos=1_200,
    balances=1_200,
    selects=8_000,
    locks=700,
    cycles=200,
    denials=6_000,
    denials_for_update=1_000,
    redeems=1_000,
    textbook_redeems=300,
    floor_redeems=6_000,
    tpcb_transactions=2_000,
    tpcb_scale=1,
    sized_redeems=600,
    batch_lines=5_000,
    long_batch_lines=11_000,
    has_full_batches=False,
    batches=((1, 20), (100, 3), (1_000, 1)),
    row_commit_lines=1_500,
    textbook_lines=200,
    redeems_beside_batches=200,
    lines_beside=2_000,
)
