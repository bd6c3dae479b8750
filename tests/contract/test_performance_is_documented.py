"""docs/performance.md tells every ratio that counts, with its bar and its goal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.ratios import BARS, Bar

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
ROW = re.compile(
    r"^\| `(\w+)` \| (.+?) \| ([\d.,]+) \| .+? \| (\S) ([\d.,]+) \| (?:\S ([\d.,]+))? ?\|$"
)


def rows() -> dict[str, tuple[str, ...]]:
    found = map(ROW.match, PAGE.read_text(encoding="utf-8").splitlines())
    return {row[1]: row.groups(default="") for row in found if row}


def test_the_page_has_each_ratio_once() -> None:
    assert list(rows()) == list(BARS)


@pytest.mark.parametrize(("name", "bar"), BARS.items(), ids=BARS)
def test_a_ratio_is_told_with_its_bar_and_its_goal(name: str, bar: Bar) -> None:
    _, what, _, sign, told, goal = rows()[name]
    assert (what, sign) == (bar.what, "≤" if bar.is_at_most else "≥")
    assert (float(told), float(goal) if goal else None) == (bar.bar, bar.goal)


@pytest.mark.parametrize("name", BARS)
def test_what_is_told_to_be_met_is_met(name: str) -> None:
    # The page says that no bar is missed.
    assert "no bar is missed" in PAGE.read_text(encoding="utf-8")
    assert BARS[name].is_met(float(rows()[name][2].replace(",", "")), BARS[name].bar)
