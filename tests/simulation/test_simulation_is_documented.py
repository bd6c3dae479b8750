"""docs/simulation.md has every option and every row of the comparison, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from hq_service.cli import play_simulation
from hq_service.simulation.comparison import Facts, compare

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "simulation.md").read_text("utf-8")


def section(title: str) -> str:
    return DOCUMENT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_option_is_in_the_table_and_nothing_else() -> None:
    cells = re.findall(r"^\| (`--.+?) \|", section("Options"), re.MULTILINE)
    told = [option for cell in cells for option in re.findall(r"`(--[a-z-]+)`", cell)]
    assert told == [one.opts[0] for one in play_simulation.params]


def test_every_row_of_the_comparison_is_in_the_table_and_nothing_else() -> None:
    told = re.findall(r"^\| (.+?) \|", section("The tables"), re.MULTILINE)[1:]
    rows, _ = compare(Facts([], [], {}, {}))
    assert told == [row.what for row in rows]
