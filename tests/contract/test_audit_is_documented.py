"""docs/audit.md and the code say the same, and whatever can be in the audit gets there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from hq_service.domain.audit import Action
from hq_service.operations.stories import ENDED_LOCKS_MAX, OTHER_CASES_MAX, POSTINGS_MAX

ROOT = Path(__file__).resolve().parents[2]
AUDIT = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
ADMINISTRATORS = (ROOT / "docs" / "administrators.md").read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    found = re.search(rf"## {title}\n(.*?)(?=\n## |\Z)", text, re.DOTALL)
    assert found is not None
    return found[1]


def written() -> set[str]:
    """Return the actions that operations name."""
    found = set()
    for path in (ROOT / "hq_service" / "operations").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_action = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            if is_action and node.value.id == "Action":
                found.add(node.attr)
    return found


def test_every_action_is_documented_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \|", section(AUDIT, "Actions"), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == set(Action)


def test_every_action_is_written_by_some_operation() -> None:
    assert written() == set(Action.__members__)


def test_the_bounds_of_a_story_are_those_documented() -> None:
    bounds = (
        f"{POSTINGS_MAX} postings, {ENDED_LOCKS_MAX} ended locks, {OTHER_CASES_MAX} other cases"
    )
    assert bounds in ADMINISTRATORS
