"""Demo data for a first look: one company, two stores, four registers, cards and memos."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from hq_service.domain import issuing
from hq_service.domain.actors import Role
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import Kind
from hq_service.store import instruments, keys, settlements, terminals
from hq_service.store.database import Connection, transactional

STORES = {"S001": "Stockholm Central", "S002": "Rotterdam Markthal"}
TERMINALS = {
    ("S001", "T01"): "Register 1",
    ("S001", "T02"): "Register 2",
    ("S002", "T03"): "Register 1",
    ("S002", "T04"): "Register 2",
}
INSTRUMENTS = (
    (Kind.GIFT_CARD, "6006000000000001", "SEK", 500_00),
    (Kind.GIFT_CARD, "6006000000000002", "EUR", 50_00),
    (Kind.GIFT_CARD, "6006000000000003", "JPY", 5_000),
    (Kind.GIFT_CARD, "6006000000000004", "KWD", 20_000),
    (Kind.CREDIT_MEMO, "CM00000000000001", "SEK", 250_00),
    (Kind.CREDIT_MEMO, "CM00000000000002", "EUR", 25_00),
    (Kind.CREDIT_MEMO, "CM00000000000003", "JPY", 2_500),
    (Kind.CREDIT_MEMO, "CM00000000000004", "KWD", 10_000),
)


@dataclass(frozen=True, slots=True)
class DemoKeys:
    """The API keys of the demo data by name, told this once."""

    keys: dict[str, str]


@transactional
def create(connection: Connection, keyring: Keyring, now: datetime) -> DemoKeys | None:
    """Create the demo data, unless the database has stores already."""
    if any(terminals.store_exists(store_id) for store_id in STORES):
        return None
    for store_id, name in STORES.items():
        terminals.add_store(store_id, name, now)
    for (store_id, terminal_id), name in TERMINALS.items():
        terminals.add(store_id, terminal_id, name, supports_offline=True, now=now)
    made = {
        "HQ_ADMIN_KEY": keys.add(Role.ADMIN, "demo administrator", now),
        "HQ_AUDITOR_KEY": keys.add(Role.AUDITOR, "demo auditor", now),
    }
    for store_id in STORES:
        made[f"HQ_SYNC_{store_id}_KEY"] = keys.add(
            Role.SYNC, f"demo sync job of {store_id}", now, store_id=store_id
        )
    for store_id, terminal_id in TERMINALS:
        made[f"HQ_{terminal_id}_KEY"] = keys.add(
            Role.TERMINAL,
            f"demo till {terminal_id}",
            now,
            store_id=store_id,
            terminal_id=terminal_id,
        )
    _issue_instruments(connection, keyring, now)
    return DemoKeys(made)


def _issue_instruments(connection: Connection, keyring: Keyring, now: datetime) -> None:
    issued = [
        issuing.issue(
            issuing.key_of_headquarters(f"demo-{place}"),
            keyring.instrument_id(kind, number),
            kind=kind,
            normalised_number=number,
            currency=currency,
            amount_minor=amount_minor,
            now=now,
        )
        for place, (kind, number, currency, amount_minor) in enumerate(INSTRUMENTS, start=1)
    ]
    instruments.insert(connection, [instrument for instrument, _ in issued], now)
    settlements.insert_postings(connection, [posting for _, posting in issued], now)
