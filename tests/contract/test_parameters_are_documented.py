"""docs/parameters.md and the code say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hq_service.domain.definitions import Definition, ValueType
from hq_service.domain.glossary import ENGLISH
from hq_service.domain.parameter_texts import DOCUMENTED, label
from hq_service.domain.parameters import DEFINITIONS, ChangeState

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "parameters.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)


def section(title: str) -> str:
    found = re.search(rf"## {title}\n(.*?)(?=\n## |\Z)", TEXT, re.DOTALL)
    assert found is not None
    return found[1]


def default_and_range(one: Definition) -> tuple[str, str]:
    """Return how a row of the table writes them."""
    match one.value_type:
        case ValueType.YES_NO:
            return "Yes" if one.default else "No", "Yes, No"
        case ValueType.INTEGER:
            return str(one.default), f"{one.minimum} to {one.maximum}"
        case ValueType.CHOICE:
            return f"`{one.default}`", ", ".join(f"`{choice}`" for choice in one.choices)
        case ValueType.AMOUNTS:
            amounts = "an amount for each currency, in its smallest unit"
            return f"`{json.dumps(one.default)}`", amounts


def test_the_table_has_every_parameter_with_its_default_and_range() -> None:
    rows = [row[:3] for row in ROW.findall(section("All of them"))]
    assert rows == [(one.name, *default_and_range(one)) for one in DEFINITIONS]


def test_the_documented_parameters_are_called_as_in_the_documents() -> None:
    rows = {name: purpose for name, _, _, purpose in ROW.findall(section("All of them"))}
    for name in DOCUMENTED:
        assert rows[name].startswith(f"*{label(name, ENGLISH)}*: ")


def test_the_states_are_those_of_the_code_in_their_order() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", section("When a change is effective"), re.MULTILINE)
    assert rows == list(ChangeState)
