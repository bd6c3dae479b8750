"""The ratios that count: their names, bars and goals."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.measuring import Part, Round
from benchmarks.postgres import Unmeasurable


@dataclass(frozen=True, slots=True)
class Bar:
    """What a ratio must keep to, and what the project is after.

    ``is_at_most`` False means at least.
    """

    what: str
    bar: float
    goal: float | None = None
    is_at_most: bool = True

    def is_met(self, value: float, wanted: float) -> bool:
        """Tell whether a ratio keeps to the bar or the goal."""
        return value <= wanted if self.is_at_most else value >= wanted


BARS: Mapping[str, Bar] = {
    "redeem_over_hello": Bar("redeem over HTTP / Flask's hello (CPU)", 2.5, 2.0),
    "redeem_over_textbook": Bar("redeem over HTTP / textbook version (CPU)", 0.25),
    "redeem_pg_over_floor": Bar("redeem, PostgreSQL's share / one statement (CPU)", 1.5),
    "redeem_wal_bytes": Bar("redeem, WAL (bytes)", 800),
    "lock_over_hello": Bar("lock over HTTP / Flask's hello (CPU)", 2.8, 2.2),
    "balance_over_hello": Bar("balance inquiry over HTTP / Flask's hello (CPU)", 1.7, 1.4),
    "denied_lock_over_for_update": Bar(
        "denied lock in SQL / SELECT FOR UPDATE first (per second)", 8, is_at_most=False
    ),
    "batch_10k_over_row_commit": Bar(
        "10,000 lines, one poster / row by row (per second)", 3, is_at_most=False
    ),
    "batch_10k_two_posters_over_row_commit": Bar(
        "10,000 lines, two posters / row by row (per second)", 4, 8, is_at_most=False
    ),
    "batch_10k_over_textbook": Bar(
        "10,000 lines, one poster / textbook version (per second)", 25, is_at_most=False
    ),
    "batch_duplicates_over_fresh": Bar(
        "the same lines again / fresh (per second)", 1.7, is_at_most=False
    ),
    "ndjson_100k_growth_mb": Bar("100,000 lines as NDJSON: growth of a worker (MB)", 64),
    "ndjson_100k_over_10k": Bar("100,000 lines / 10,000 lines (time per line)", 1.3),
    "redeem_5m_over_10k": Bar("redeem at 5 million / at 10 thousand instruments (CPU)", 1.25),
    "p99_over_median": Bar("redeem at 16 connections: p99 / median", 3),
}


def ratios_of(part: Part, rounds: Sequence[Round]) -> dict[str, dict[str, Any]]:
    """Return the ratios of a part: each made in every round, and the median of them."""
    found = {}
    for name, ratio in part.ratios.items():
        try:
            values = [ratio(one) for one in rounds]
        except ZeroDivisionError:
            raise Unmeasurable(
                f"{name}: what it is compared with took less CPU than the clock can tell; give it"
                " more work (benchmarks/sizes.py)."
            ) from None
        bar, value = BARS[name], statistics.median(values)
        found[name] = {
            "what": bar.what,
            "value": value,
            "lowest": min(values),
            "highest": max(values),
            "bar": bar.bar,
            "is_at_most": bar.is_at_most,
            "is_met": bar.is_met(value, bar.bar),
            "goal": bar.goal,
            "is_goal_met": None if bar.goal is None else bar.is_met(value, bar.goal),
        }
    return found
