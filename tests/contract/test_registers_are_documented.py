"""docs/registers.md and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask

from hq_service.cli import main
from hq_service.domain.definitions import Definition
from hq_service.domain.offline_profiles import DEFINITIONS
from hq_service.operations.keys import OVERLAP_SECONDS_MAX

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "registers.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (\w*) ?\| (\w+) \| ([\w, ]+) \| [^|]+ \| (\w+) \|$", re.MULTILINE)


def row_of(definition: Definition) -> tuple[str, ...]:
    """Return what the table says of a field, but for the words."""
    unit = "" if definition.unit is None else str(definition.unit)
    if isinstance(definition.default, bool):
        return (definition.name, unit, "Yes" if definition.default else "No", "Yes, No")
    allowed = f"{definition.minimum} to {definition.maximum}"
    return (definition.name, unit, str(definition.default), allowed)


def test_the_table_has_exactly_the_fields_of_offline_profiles() -> None:
    rows = [row[:4] for row in ROW.findall(TEXT)]
    assert rows == [row_of(one) for one in DEFINITIONS]
    named = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
    assert len(named) == len(rows), "no row that the expression above does not understand"


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`hq (\w+ \w+)", TEXT))))
def test_every_command_that_is_named_is_there(command: str) -> None:
    done = CliRunner().invoke(main, [*command.split(), "--help"])
    assert done.exit_code == 0, done.output


def test_every_path_that_is_named_whole_is_there(app: Flask) -> None:
    rules = {re.sub(r"<\w+:", "<", rule.rule) for rule in app.url_map.iter_rules()}
    named = set(re.findall(r"(/v1/[a-z_/<>-]+)`", TEXT))
    assert named
    assert named <= rules


def test_the_longest_overlap_is_the_documented_one() -> None:
    assert f"(0 to {OVERLAP_SECONDS_MAX}, 30 days)" in TEXT
    assert OVERLAP_SECONDS_MAX == 30 * 86_400
