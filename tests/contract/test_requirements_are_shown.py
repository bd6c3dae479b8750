"""docs/requirements.md names tests: each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from hq_service.domain.offline_profiles import DEFINITION_BY_NAME

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "requirements.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[a-z_/]+\.py)::(test_\w+)`", TEXT)))
ROWS = re.findall(r"^\| ([SPF]\d+) \| (.+) \|$", TEXT, re.MULTILINE)


@pytest.mark.parametrize(("path", "name"), NAMED, ids=lambda value: str(value).rsplit("/", 1)[-1])
def test_a_test_that_a_requirement_names_exists(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_sentence_has_a_behaviour_a_place_and_a_test() -> None:
    for number, row in ROWS:
        said, here, where, shown = row.split(" | ")
        assert all((said, here, where)), number
        assert re.fullmatch(r"`tests/\S+::test_\w+`(, `tests/\S+::test_\w+`)*", shown), number


def test_sentences_and_fields_are_numbered_without_gaps() -> None:
    for letter in "SPF":
        numbers = [int(number[1:]) for number, _ in ROWS if number.startswith(letter)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= 10


def test_every_field_of_the_offline_profile_has_a_row() -> None:
    rows = [row.split(" | ")[2].strip("`") for number, row in ROWS if number.startswith("F")]
    assert sorted(rows) == sorted(DEFINITION_BY_NAME)
