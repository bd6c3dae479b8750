"""A store with tills, and a line to HQ that loses what a test says."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from hq_service.terminal.client import Answer, Client, Unreachable
from hq_service.terminal.link import SwitchWarning
from hq_service.terminal.terminal import Terminal
from tests.support import Card, Hq
from tests.support import Till as Register

CASH_OUT_MINOR = 50_00


class Fate(StrEnum):
    DELIVERED = "delivered"
    REQUEST_LOST = "request lost"
    ANSWER_LOST = "answer lost"
    BUSY = "busy"
    ANOTHER_ANSWERS = "another answers"


@dataclass(frozen=True)
class Sent:
    """A request that the till made, whether or not it arrived."""

    method: str
    path: str
    content: bytes | None

    @property
    def body(self) -> Any:
        return json.loads(self.content or b"null")


class Line(Client):
    """A client whose requests have fates: the next ones first, then as it is said for all."""

    def __init__(self, url: str, key: str) -> None:
        super().__init__(url, key)
        self.next: deque[Fate] = deque()
        self.always = Fate.DELIVERED
        self.sent: list[Sent] = []
        self.waited: list[float] = []

    def posted_to(self, path: str) -> list[Sent]:
        return [one for one in self.sent if one.method == "POST" and one.path == path]

    def _send(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        more_headers: Mapping[str, str] | None = None,
    ) -> Answer:
        self.sent.append(Sent(method, path, content))
        self.waited.append(self._seconds_max)
        fate = self.next.popleft() if self.next else self.always
        if fate is Fate.REQUEST_LOST:
            raise Unreachable("HQ did not answer within the time-out.")
        if fate is Fate.BUSY:
            problem = {"code": "unavailable", "title": "Too busy", "detail": "Repeat it."}
            return Answer(503, problem, retry_after_seconds=None)
        if fate is Fate.ANOTHER_ANSWERS:
            return Answer(200, {}, content=b"<html>Welcome to the shopping centre</html>")
        answer = super()._send(method, path, content, more_headers)
        if fate is Fate.ANSWER_LOST:
            raise Unreachable("HQ did not answer within the time-out.")
        return answer


class Clock:
    """The till's time: the real one, and as much later as a test says."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def go_on(self, **later: float) -> None:
        self.ahead += timedelta(**later)


@dataclass
class Till:
    """A running till, with what a test looks at."""

    terminal: Terminal
    line: Line
    clock: Clock
    register: Register
    directory: Path
    warnings: list[SwitchWarning] = field(default_factory=list)

    @property
    def journal(self) -> list[Mapping[str, Any]]:
        return self.terminal.store.journal()


class Shop:
    """One store at HQ; each of its tills has a directory of its own."""

    def __init__(self, hq: Hq, url: str, directory: Path, *, says_yes: bool = True) -> None:
        self.hq = hq
        self.url = url
        self.directory = directory
        self.store_id = hq.make_store()
        self.sync_key = hq.sync(self.store_id).key
        self._open: list[Terminal] = []
        self.set_parameters(
            allow_concluding_gift_card_transactions_offline=says_yes,
            allow_concluding_credit_memo_transactions_offline=says_yes,
            gift_card_cash_out_threshold_minor={"SEK": CASH_OUT_MINOR},
        )

    def set_parameters(self, **changes: Any) -> None:
        """Save parameters of the store, and let it apply them."""
        answer = self.hq.save_parameters(self.store_id, **changes)
        assert answer.status_code == 200, answer.json
        self.hq.distribute()

    def till(self, *, supports_offline: bool = True, **profile: Any) -> Till:
        """Set up a register, with an offline profile if values of it are given, and start it."""
        register = self.hq.till(self.store_id, supports_offline=supports_offline)
        if profile:
            self.set_profile(register, **profile)
        return self.start(register)

    def set_profile(self, register: Register, **values: Any) -> None:
        """Give a register an offline profile of its own."""
        profile_id = f"P-{self.store_id}-{register.terminal_id}"
        made = self.hq.admin.post(
            "/v1/admin/offline-profiles",
            {
                "offline_profile_id": profile_id,
                "name": "test",
                "values": values,
                "reason": "test",
            },
        )
        assert made.status_code == 201, made.json
        path = f"/v1/admin/stores/{self.store_id}/registers/{register.terminal_id}"
        seen = self.hq.admin.get(path).headers["ETag"]
        edit = {"offline_profile_id": profile_id, "reason": "test"}
        given = self.hq.admin.patch(path, edit, If_Match=seen)
        assert given.status_code == 200, given.json

    def start(self, register: Register, clock: Clock | None = None) -> Till:
        """Start the till of a register, for the first time or again."""
        directory = self.directory / register.terminal_id
        line, clock = Line(self.url, register.key), clock or Clock()
        warnings: list[SwitchWarning] = []
        terminal = Terminal(
            self.url,
            register.key,
            directory,
            register.store_id,
            register.terminal_id,
            on_warning=warnings.append,
            clock=clock,
            client=line,
        )
        self._open.append(terminal)
        return Till(terminal, line, clock, register, directory, warnings)

    def restart(self, till: Till) -> Till:
        """End a till and start it again on the same directory."""
        till.terminal.close()
        return self.start(till.register, till.clock)

    def close(self) -> None:
        for terminal in self._open:
            terminal.close()

    # --- what HQ says ---------------------------------------------------------------------------

    def locked_by(self, till: Till) -> int:
        """Return how many locks HQ has of a till."""
        [(count,)] = self.hq.sql(
            "SELECT count(*) FROM live_locks WHERE store_id = %s AND terminal_id = %s",
            self.store_id,
            till.register.terminal_id,
        )
        return count

    def cases(self) -> list[tuple[Any, ...]]:
        """Return what is in the open cases of the store."""
        return self.hq.sql(
            "SELECT codes, outcome FROM cases WHERE store_id = %s AND resolved_at IS NULL",
            self.store_id,
        )

    def shown(self, till: Till) -> Mapping[str, Any]:
        """Return the connection status of a till as administrators see it."""
        answer = self.hq.admin.get(f"/v1/admin/connection-status?store_id={self.store_id}")
        [found] = [
            one
            for one in answer.json["registers"]
            if one["terminal_id"] == till.register.terminal_id
        ]
        return dict(found)

    def card(self, amount_minor: int, kind: str = "gift_card") -> Card:
        return self.hq.issue(amount_minor, kind=kind)
