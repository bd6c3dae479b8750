"""What HQ knows of a POS transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from hq_service.store.database import Connection
from hq_service.store.statements import statement


@dataclass(frozen=True, slots=True)
class KnownLine:
    """One thing that HQ knows of one line: that it was applied, voided or held."""

    line: int
    operation: str
    instrument_id: UUID
    amount_minor: int
    currency: str | None
    outcome: str
    codes: list[str]
    funded_minor: int
    shortfall_minor: int
    balance_after_minor: int | None
    known_at: datetime


def read(
    connection: Connection, store_id: str, terminal_id: str, transaction_id: str
) -> list[KnownLine]:
    """Return everything that is known of a transaction's lines, in their order."""
    cursor = connection.execute(
        statement("read_transaction"),
        {"store_id": store_id, "terminal_id": terminal_id, "transaction_id": transaction_id},
    )
    return [KnownLine(*row) for row in cursor.fetchall()]
