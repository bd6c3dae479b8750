"""docs/settlement.md and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path

from hq_service.domain.settlement import CASE_CODES, Code, OnlineRefusal, Outcome

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "settlement.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"## {title}\n(.*?)(?=\n## |\Z)", TEXT, re.DOTALL)
    assert found is not None
    return found[1]


def named(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_]+)`", text))


def test_every_outcome_is_documented_and_no_other() -> None:
    assert set(re.findall(r"^\| `([a-z]+)` \|", section("Outcomes"), re.MULTILINE)) == set(Outcome)


def test_every_code_is_in_the_table() -> None:
    assert set(Code) <= named(section("The table"))


def test_the_codes_that_open_a_case_are_those_documented() -> None:
    assert named(section("Cases")) == set(CASE_CODES)


def test_every_online_refusal_is_documented() -> None:
    documented = named(section("Online"))
    by_code_of_row_15 = {one for one in OnlineRefusal if one.startswith("instrument_")}
    assert set(OnlineRefusal) - by_code_of_row_15 <= documented
