"""Who and what a story is about: the company, its tills, and the lines that the story cuts."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hq_service.domain.model import Kind
from hq_service.domain.numbers import last4
from hq_service.terminal.client import Answer, Client, Unreachable
from hq_service.terminal.link import SwitchWarning
from hq_service.terminal.sale import Sale
from hq_service.terminal.terminal import Terminal

ADMINISTRATOR = "administrator"
SYNC_JOB = "sync job"
TILL_A = "till A"
TILL_B = "till B"

STORE_ID = "S001"
TERMINAL_IDS = {TILL_A: "T01", TILL_B: "T02"}

GIFT_CARDS_OFFLINE = "allow_concluding_gift_card_transactions_offline"
CREDIT_MEMOS_OFFLINE = "allow_concluding_credit_memo_transactions_offline"
PARTIAL_USE = "credit_memo_partial_use"
CHANGED_PARAMETERS = (GIFT_CARDS_OFFLINE, CREDIT_MEMOS_OFFLINE, PARTIAL_USE)
"""What the stories change, and what is put back afterwards."""

_NAMES = {Kind.GIFT_CARD: "gift card", Kind.CREDIT_MEMO: "credit memo"}
LONGEST_INSTRUMENT = "credit memo *0000"


class Unexpected(Exception):
    """Somebody did otherwise than the story says; the message is a sentence."""


class Wire(Client):
    """A line to HQ that the story can cut, or take the answers from.

    ``answers`` is what HQ answered, also if the answer was lost then.
    """

    def __init__(self, url: str, key: str) -> None:
        super().__init__(url, key)
        self.answers: list[Answer] = []
        self.is_cut = False
        self.loses_answers = False

    def _send(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        more_headers: Mapping[str, str] | None = None,
    ) -> Answer:
        if self.is_cut:
            raise Unreachable("The line to HQ is cut.")
        answer = super()._send(method, path, content, more_headers)
        self.answers.append(answer)
        if self.loses_answers:
            raise Unreachable("HQ's answer is lost.")
        return answer


class Company:
    """Everybody who calls HQ in one run.

    ``parameters`` is what HQ told the administrator last, ``parameters_before`` what the run
    changes, as it was before it; None as long as nothing is changed.
    """

    def __init__(self, url: str, keys: Mapping[str, str]) -> None:
        """Take the API keys by who uses them: ADMINISTRATOR, SYNC_JOB, TILL_A, TILL_B."""
        self.run_id = uuid.uuid4().hex[:10]
        self.url = url
        self.parameters_before: Mapping[str, Any] | None = None
        self.parameters = Answer(status=0)
        self.administrator = Client(url, keys[ADMINISTRATOR])
        self._keys = keys

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.administrator.close()

    def wire(self, who: str) -> Wire:
        """Return a new line to HQ, under somebody's key."""
        return Wire(self.url, self._keys[who])

    def edit_parameters(self, changes: Mapping[str, Any]) -> Answer:
        """Edit the Commerce parameters as they are now, and remember how they were at first."""
        seen = self._read_parameters()
        if seen.is_problem:
            return seen
        if self.parameters_before is None:
            self.parameters_before = _changed_parameters(seen)
        return self._save_parameters(changes, "demo", seen)

    def put_parameters_back(self) -> Answer:
        """Restore what `edit_parameters` found at first, unless that is what there is."""
        seen = self._read_parameters()
        before = self.parameters_before
        if seen.is_problem or before is None or _changed_parameters(seen) == before:
            return seen
        return self._save_parameters(before, "the demo is over", seen)

    def _read_parameters(self) -> Answer:
        self.parameters = self.administrator.get("/v1/admin/parameters")
        return self.parameters

    def _save_parameters(self, changes: Mapping[str, Any], reason: str, seen: Answer) -> Answer:
        body = {"parameters": dict(changes), "reason": reason}
        saved = self.administrator.patch("/v1/admin/parameters", body, seen.etag)
        self.parameters = saved
        return saved


def _changed_parameters(seen: Answer) -> dict[str, Any]:
    return {name: seen.at(f"parameters.{name}") for name in CHANGED_PARAMETERS}


class Scene:
    """What one story is about: its instrument, its tills, and what has come up so far.

    Each till has a store of its own, in a directory that is gone when the story is over.
    """

    def __init__(self, company: Company, name: str) -> None:
        self.company = company
        self.name = name
        self.kind = Kind.GIFT_CARD
        self.number = ""
        self.instrument_id: str | None = None
        self.remainder_id: str | None = None
        self._wires = {who: company.wire(who) for who in (SYNC_JOB, *TERMINAL_IDS)}
        self._temporary = tempfile.TemporaryDirectory(prefix="hq-demo-tills-")
        self.directory = Path(self._temporary.name)
        self._tills: dict[str, Terminal] = {}
        self._sales: dict[str, Sale] = {}
        self._said: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for till in self._tills.values():
            till.close()
        for wire in self._wires.values():
            wire.close()
        self._temporary.cleanup()

    @property
    def instrument(self) -> str:
        """Return the instrument as it may be shown."""
        return f"{_NAMES[self.kind]} *{last4(self.number)}" if self.number else _NAMES[self.kind]

    @property
    def spendable_id(self) -> str | None:
        """Return which instrument the number stands for now: a used memo's is its remainder."""
        return self.remainder_id or self.instrument_id

    def wire(self, who: str) -> Wire:
        """Return somebody's line to HQ."""
        return self._wires[who]

    def till(self, who: str) -> Terminal:
        """Return a till, started if it did not run yet."""
        if who not in self._tills:
            self._tills[who] = Terminal(
                self.company.url,
                "",  # the wire has the key
                self.place(who),
                STORE_ID,
                TERMINAL_IDS[who],
                on_warning=self._hear,
                client=self.wire(who),
            )
        return self._tills[who]

    def sale(self, who: str) -> Sale:
        """Return the one sale of a till in this story, begun if it was not yet."""
        if who not in self._sales:
            self._sales[who] = self.till(who).begin_sale(self.name)
        return self._sales[who]

    def place(self, who: str) -> Path:
        """Return the directory of a till's store."""
        return self.directory / TERMINAL_IDS[who]

    def back_up(self, who: str) -> None:
        """Copy a till's store, as a backup of its disk does."""
        shutil.copytree(self.place(who), self.backup_of(who))

    def backup_of(self, who: str) -> Path:
        """Return the directory of the copy that `back_up` makes."""
        return self.directory / f"{TERMINAL_IDS[who]}-backup"

    # --- what the cashiers are told -------------------------------------------------------------

    def say(self, sentence: str) -> None:
        """Let a till say something to its cashier."""
        self._said.append(sentence)

    def take_what_was_said(self) -> list[str]:
        """Return what the cashiers were told since this was asked last."""
        said, self._said = self._said, []
        return said

    def _hear(self, warning: SwitchWarning) -> None:
        self.say(warning.sentence)
