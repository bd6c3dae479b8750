"""The two ways in which a till is told no: by itself, and by headquarters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hq_service.terminal.client import Answer


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something cannot be done: a stable code, and a sentence in the words of the documents."""

    code: str
    sentence: str


class NotPossible(Exception):
    """The till itself says no; nothing was sent, or nothing of it counts.

    ``code`` is stable; ``reasons`` tells of each line of the sale that stands in the way.
    """

    def __init__(
        self, code: str, sentence: str, reasons: Mapping[int, Reason] | None = None
    ) -> None:
        self.code = code
        self.reasons: Mapping[int, Reason] = dict(reasons or {})
        details = [f"Line {line}: {reason.sentence}" for line, reason in self.reasons.items()]
        super().__init__(" ".join([sentence, *details]))


class Refused(Exception):
    """HQ said no: it is not applied, and the same again would be refused the same.

    ``code`` is one of docs/problems; ``members`` is the whole problem document; ``lines`` are the
    codes of the lines of a sale that are refused.
    """

    def __init__(self, answer: Answer, line_numbers: Mapping[int, int] | None = None) -> None:
        self.status = answer.status
        self.code: str = str(answer.at("code"))
        self.members: Mapping[str, Any] = answer.body
        self.retry_after_seconds = answer.retry_after_seconds
        self.lines = _codes_of_lines(answer, line_numbers or {})
        super().__init__(answer.sentence)


def _codes_of_lines(answer: Answer, line_numbers: Mapping[int, int]) -> dict[int, str]:
    """Return the code of each line that an answer points at: ``/lines/0`` is the first sent."""
    found = {}
    for error in answer.at("errors") or ():
        place = str(error.get("pointer", "")).removeprefix("/lines/").partition("/")[0]
        if place.isdecimal() and int(place) in line_numbers:
            found[line_numbers[int(place)]] = str(error.get("code") or answer.at("code"))
    return found
