"""Two stores with tills and sync jobs, each with a key of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime

from hq_service.app import create_app, disconnect
from hq_service.domain.actors import Role
from hq_service.domain.grants import GrantKeys
from hq_service.domain.keyring import Keyring
from hq_service.operations import database
from hq_service.settings import Settings, settings_from
from hq_service.store import keys, parameters, terminals
from hq_service.store.database import Connection, transactional

KEYRING = Keyring(bytes(range(32)), GrantKeys({"k1": bytes(range(32, 64))}))
STORES = ("S001", "S002")
TILLS_PER_STORE = 4
CURRENCY = "SEK"


@dataclass(frozen=True, slots=True)
class Till:
    """A till and the API key that it signs in with."""

    store_id: str
    terminal_id: str
    key: str


@dataclass(frozen=True, slots=True)
class Company:
    """Who calls. The tills were served the parameters, so their locks come with a grant."""

    tills: tuple[Till, ...]
    sync_keys: dict[str, str]

    def key_of(self, store_id: str, terminal_id: str) -> str:
        """Return the API key of a till."""
        for till in self.tills:
            if (till.store_id, till.terminal_id) == (store_id, terminal_id):
                return till.key
        raise LookupError(f"{store_id} has no till {terminal_id}")


def environment_of(url: str) -> dict[str, str]:
    """Return the environment of a service on a database: as it is here, with secrets made up."""
    masters = KEYRING.grant_keys.masters.items()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {
        **kept,
        "DATABASE_URL": url.replace("postgresql+psycopg://", "postgresql://", 1),
        "HQ_NUMBER_SECRET": KEYRING.number_secret.hex(),
        "HQ_GRANT_KEYS": ",".join(f"{name}:{secret.hex()}" for name, secret in masters),
    }


def settings_of(url: str) -> Settings:
    """Return the settings of a service on a database.

    Raises:  SettingsError for a wrong one among HQ_WORKERS and the like.
    """
    return settings_from(environment_of(url))


def found(url: str) -> Company:
    """Prepare a migrated database as `hq db init` does, and create the company in it."""
    app = create_app(settings_of(url))
    with app.app_context():
        now = datetime.now(UTC)
        database.prepare(KEYRING, now)
        company = _create(now)
        disconnect()
    return company


@transactional
def _create(connection: Connection, now: datetime) -> Company:
    allowed = {"allow_concluding_gift_card_transactions_offline": True}
    parameters.add(
        1, None, allowed, allowed, reason="benchmark", changed_at=now, changed_by="benchmark"
    )
    tills = []
    for store_id in STORES:
        terminals.add_store(store_id, "store", now)
        for place in range(1, TILLS_PER_STORE + 1):
            terminal_id = f"T{place:02d}"
            terminals.add(store_id, terminal_id, "register", supports_offline=True, now=now)
            terminals.acknowledge_parameters(connection, store_id, terminal_id, 1, now)
            key = keys.add(Role.TERMINAL, "till", now, store_id=store_id, terminal_id=terminal_id)
            tills.append(Till(store_id, terminal_id, key))
    sync_keys = {
        store_id: keys.add(Role.SYNC, "sync job", now, store_id=store_id) for store_id in STORES
    }
    return Company(tuple(tills), sync_keys)
