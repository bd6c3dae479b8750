"""docs/settlement.md and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path

from hq_service.domain.judgement import OnlineRefusal
from hq_service.domain.model import Operation
from hq_service.domain.outcomes import CASE_CODES, NOTICE_CODES, Code, Outcome
from hq_service.domain.resolving import Resolution

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "settlement.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"## {title}\n(.*?)(?=\n## |\Z)", TEXT, re.DOTALL)
    assert found is not None
    return found[1]


def first_column(title: str) -> set[str]:
    return set(re.findall(r"^\| `([a-z_]+)` \|", section(title), re.MULTILINE))


def named(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_]+)`", text))


def test_every_outcome_is_documented_and_no_other() -> None:
    assert first_column("Outcomes") == set(Outcome)


def test_every_code_is_in_the_table_or_among_the_notices() -> None:
    assert set(Code) <= named(section("The table")) | named(section("Notices"))


def test_the_codes_that_make_a_notice_are_those_documented() -> None:
    assert named(section("Notices")) == set(NOTICE_CODES)


def test_every_operation_and_resolution_is_documented() -> None:
    assert first_column("Operations") == set(Operation)
    assert first_column("Resolutions") == set(Resolution)


def test_the_codes_that_open_a_case_are_those_documented() -> None:
    assert named(section("Cases")) == set(CASE_CODES)


def test_every_online_refusal_is_documented() -> None:
    documented = named(section("Online"))
    by_code_of_row_15 = {one for one in OnlineRefusal if one.startswith("instrument_")}
    assert set(OnlineRefusal) - by_code_of_row_15 <= documented
