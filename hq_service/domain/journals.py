"""Terminal journals: which sequence numbers have arrived, without a gap up to where.

A till numbers the lines of a journal from 1. It may forget a line when HQ says that everything up
to it is durable and settled; a gap means that something is still out there.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator

Range = tuple[int, int]


class Journal:
    """The sequence numbers of one journal that have arrived.

    Shapes: ``ranges`` are half-open, ascending and apart: ``[(1, 5), (7, 8)]`` is 1 to 4 and 7.
    """

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self.ranges: list[Range] = sorted(ranges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Journal) and self.ranges == other.ranges

    def __hash__(self) -> int:
        return hash(tuple(self.ranges))

    def copy(self) -> Journal:
        """Return a journal of its own with the same numbers."""
        return Journal(self.ranges)

    def __contains__(self, sequence: int) -> bool:
        before = bisect.bisect_right(self.ranges, (sequence, _ENDLESS)) - 1
        return before >= 0 and sequence < self.ranges[before][1]

    def add(self, sequence: int) -> bool:
        """Note that a number has arrived; return whether it is new."""
        after = bisect.bisect_right(self.ranges, (sequence, _ENDLESS))
        if after and sequence < self.ranges[after - 1][1]:
            return False
        start, end = sequence, sequence + 1
        if after < len(self.ranges) and self.ranges[after][0] == end:
            end = self.ranges.pop(after)[1]
        if after and self.ranges[after - 1][1] == start:
            after -= 1
            start = self.ranges.pop(after)[0]
        self.ranges.insert(after, (start, end))
        return True

    @property
    def acknowledged_through(self) -> int:
        """Return up to where nothing is missing: the till may purge to there; 0 for nothing."""
        return self.ranges[0][1] - 1 if self.ranges and self.ranges[0][0] == 1 else 0

    @property
    def highest(self) -> int:
        """Return the highest number that has arrived, whatever is missing below; 0 for nothing."""
        return self.ranges[-1][1] - 1 if self.ranges else 0

    def gaps(self) -> Iterator[Range]:
        """Return what is missing below the highest number, as first and last of each gap."""
        expected = 1
        for start, end in self.ranges:
            if start > expected:
                yield expected, start - 1
            expected = end


_ENDLESS = 2**63
