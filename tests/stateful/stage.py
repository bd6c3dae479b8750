"""What all schedules share: the running service, its clock, and a look into its database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from unittest import mock

import psycopg

from hq_service.domain import issuing
from hq_service.domain.actors import Role
from hq_service.domain.errors import Unavailable
from hq_service.domain.model import Instrument, Posting
from hq_service.operations import offline_batches
from hq_service.store import instruments, keys, settlements, terminals
from hq_service.store.database import transactional
from tests.stateful.truth import START, Clock, StoreTill
from tests.support import KEYRING, Caller, Card, Hq, Till


@dataclass
class Stage:
    """The service under test; ``seen`` counts what has happened in all schedules together."""

    hq: Hq
    clock: Clock
    connection: psycopg.Connection[Any]
    seen: Counter[str] = field(default_factory=Counter)
    started: int = 0
    ended: int = 0
    played: Any = None
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def open_store(
        self, tills_count: int, balances: Mapping[str, Sequence[int]]
    ) -> tuple[list[StoreTill], Caller, list[Card]]:
        """Return the tills, the sync job and the cards of a new store, made in one go."""
        store_id = f"S{next(self.numbers)}"
        cards = {
            Card(kind, number, str(KEYRING.instrument_id(kind, number)), "SEK"): balance
            for kind, of_kind in balances.items()
            for number, balance in [(f"6006{next(self.numbers):012d}", one) for one in of_kind]
        }

        @transactional
        def make(connection: Any) -> tuple[list[StoreTill], Caller]:
            terminals.add_store(store_id, "test store", START)
            tills = [self._till(store_id, number) for number in range(1, tills_count + 1)]
            issued = [_issued(card, balance) for card, balance in cards.items()]
            instruments.insert(connection, [one for one, _ in issued], START)
            settlements.insert_postings(connection, [one for _, one in issued], START)
            key = keys.add(Role.SYNC, "test", START, store_id=store_id)
            return tills, Caller(self.hq.client, key)

        with self.hq.app.app_context():
            tills, sync = make()
        return tills, sync, list(cards)

    def _till(self, store_id: str, number: int) -> StoreTill:
        terminal_id = f"T{number}"
        terminals.add(store_id, terminal_id, "test register", supports_offline=True, now=START)
        scope = {"store_id": store_id, "terminal_id": terminal_id}
        key = keys.add(Role.TERMINAL, "test", START, **scope)
        return StoreTill(f"till {number}", Till(self.hq.client, key, store_id, terminal_id))

    def set_parameters(self, **wanted: Any) -> None:
        """Edit the parameters, unless they are so already: every revision costs time."""
        in_force = self.hq.admin.get("/v1/admin/parameters").json["parameters"]
        changes = {name: value for name, value in wanted.items() if in_force[name] != value}
        if changes:
            self.hq.set_parameters(**changes)


def _issued(card: Card, balance_minor: int) -> tuple[Instrument, Posting]:
    key = issuing.key_of_headquarters(f"issue-{card.number}")
    return issuing.issue(
        key,
        KEYRING.instrument_id(card.kind, card.number),
        kind=card.kind,
        normalised_number=card.number,
        currency=card.currency,
        amount_minor=balance_minor,
        now=START,
    )


def stopped_after(chunks: int | None) -> Any:
    """Let HQ lose its database when some chunks of a batch are settled; never if None."""
    settle = offline_batches._settle_chunk
    left = iter(range(chunks if chunks is not None else 1_000_000))

    def stops(*arguments: Any, **keywords: Any) -> bool:
        if next(left, None) is None:
            raise Unavailable("stopped by the test")
        return settle(*arguments, **keywords)

    return mock.patch.object(offline_batches, "_settle_chunk", stops)
