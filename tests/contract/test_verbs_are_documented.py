"""docs/operations.md has a row for every verb of `hq`, and each row is true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from hq_service.cli import main

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SHORT_HELP_LENGTH_MAX = 200


def verbs(command: click.Command, path: str) -> Iterator[tuple[str, str]]:
    """Give every verb below a command, as it is typed, with what its help begins with."""
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from verbs(below, f"{path} {name}")
        return
    words = [
        f"[{parameter.opts[0]}]" if isinstance(parameter, click.Option) else str(parameter.name)
        for parameter in command.params
    ]
    typed = [word if word.startswith("[") else word.upper() for word in words]
    yield " ".join([path, *typed]), command.get_short_help_str(SHORT_HELP_LENGTH_MAX)


def test_every_verb_is_in_the_table_as_its_help_says_and_nothing_else() -> None:
    rows = re.findall(r"^\| `(hq [^`]+)` \| (.+) \|$", DOCUMENT, re.MULTILINE)
    assert len(rows) == len(dict(rows))
    assert dict(rows) == dict(verbs(main, "hq"))


def test_every_verb_that_is_named_somewhere_exists() -> None:
    known = {re.sub(r" \[.*| [A-Z].*", "", verb) for verb, _ in verbs(main, "hq")}
    files = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    for path in files:
        text = path.read_text("utf-8")
        for named in re.findall(r"`hq ([a-z-]+(?: [a-z][a-z-]*)*)(?: -[^`]*)?`", text):
            assert f"hq {named}" in known, f"{path.name}: hq {named}"
