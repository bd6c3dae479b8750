"""A register as far as the stories need one: a sale, and a journal for the sync job."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hq_service.domain.model import Operation, Purpose
from hq_service.terminal.client import Answer, Client


class NotPossible(Exception):
    """The till itself says no: HQ has not given it what it would need."""


@dataclass(frozen=True, slots=True)
class Held:
    """The instrument that the till holds a lock on; ``grant`` is the right to go on offline."""

    instrument_id: str
    lock_id: str
    currency: str
    grant: str | None


class Till:
    """A register that makes one sale with one instrument in it.

    The journal is what the till stored while it was offline, one line per operation, numbered
    without gaps; `take_unsent` hands it to the sync job.
    """

    def __init__(
        self, client: Client, store_id: str, terminal_id: str, transaction_id: str
    ) -> None:
        self.store_id = store_id
        self.terminal_id = terminal_id
        self._client = client
        self._transaction_id = transaction_id
        self._revision: int | None = None
        self._held: Held | None = None
        self._journal_id = uuid.uuid4().hex
        self._sequence = 0
        self._unsent: list[dict[str, Any]] = []

    @property
    def grant(self) -> str | None:
        """Return the right to conclude this sale offline, if HQ gave it with the lock."""
        return self._held.grant if self._held is not None else None

    def fetch_parameters(self) -> Answer:
        """Fetch the Commerce parameters. HQ takes that as an acknowledgement."""
        answer = self._client.get("/v1/parameters")
        if not answer.is_problem:
            self._revision = answer.at("revision")
        return answer

    def inquire_balance(self, kind: str, number: str) -> Answer:
        """Ask for a balance, for information."""
        return self._client.post("/v1/balance-inquiries", {"kind": kind, "number": number})

    def lock(self, kind: str, number: str) -> Answer:
        """Ask for the lock, the moment the instrument is added to the sale."""
        wish = {"kind": kind, "number": number, "purpose": Purpose.REDEEM}
        answer = self._client.post("/v1/locks", {**self._business_key(), **wish})
        if answer.status in (200, 201):
            self._held = Held(
                instrument_id=answer.at("instrument.instrument_id"),
                lock_id=answer.at("lock_id"),
                currency=answer.at("instrument.currency"),
                grant=answer.at("offline.grant"),
            )
        return answer

    def redeem(self, amount_minor: int) -> Answer:
        """Conclude the sale online."""
        held = self._require_lock()
        body = {
            "instrument_id": held.instrument_id,
            "lock_id": held.lock_id,
            "amount_minor": amount_minor,
            "currency": held.currency,
        }
        return self._client.post("/v1/redemptions", {**self._business_key(), **body})

    def conclude_offline(self, amount_minor: int) -> None:
        """Conclude the sale without HQ and store it for the sync job.

        Raises:  NotPossible without a grant: nothing may be concluded offline that HQ did not
                 permit when the till was still online.
        """
        held = self._require_lock()
        if held.grant is None:
            raise NotPossible("The till has no grant, so it cannot conclude offline.")
        self._store(
            Operation.REDEEM,
            amount_minor=amount_minor,
            currency=held.currency,
            grant=held.grant,
            parameter_revision=self._revision,
        )

    def void_tender_offline(self) -> None:
        """Take the instrument out of the sale; the stored line gives its lock back later."""
        self._store(Operation.RELEASE)

    def take_unsent(self) -> list[dict[str, Any]]:
        """Hand over the lines that the sync job does not have yet."""
        unsent, self._unsent = self._unsent, []
        return unsent

    def _store(self, operation: Operation, **more: Any) -> None:
        held = self._require_lock()
        self._sequence += 1
        key = self._business_key()
        del key["store_id"]  # the batch's envelope says it
        self._unsent.append(
            {
                **key,
                "journal_id": self._journal_id,
                "sequence": self._sequence,
                "operation": operation,
                "instrument_id": held.instrument_id,
                "lock_id": held.lock_id,
                "concluded_at": datetime.now(UTC).isoformat(),
                **more,
            }
        )

    def _require_lock(self) -> Held:
        if self._held is None:
            raise NotPossible("The till holds no lock, so there is nothing to go on with.")
        return self._held

    def _business_key(self) -> dict[str, Any]:
        return {
            "store_id": self.store_id,
            "terminal_id": self.terminal_id,
            "transaction_id": self._transaction_id,
            "line": 1,
        }
