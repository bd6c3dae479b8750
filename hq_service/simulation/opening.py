"""What HQ has to know before the fleet opens: stores, registers, keys, parameters and cards.

All of it over HTTP, as an administrator and the stores' sync jobs do it. Every run makes stores and
cards of its own, so that it can be repeated on the same service; nothing company-wide is changed.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hq_service.domain.model import Kind
from hq_service.simulation.plan import CASH_OUT_MINOR, TIME_OUT_SECONDS, Plan, PlannedCard
from hq_service.simulation.result import CURRENCY
from hq_service.simulation.truth import TrueCard
from hq_service.terminal.client import Answer, Client
from hq_service.terminal.downloads import do_sessions
from hq_service.terminal.setup import parameter_of

REASON = "a simulation"
AT_ONCE = 4
"""How many requests are made beside one another where the order does not matter."""

PROFILE = {
    "time_out_interval_seconds": TIME_OUT_SECONDS,
    "reconnection_attempt_interval_seconds": 10,
    "transaction_upload_interval_seconds": 5,
    "upload_transaction_size": 20,
    "retry_count_to_offline": 1,
}
_SCHEDULE = "/v1/admin/distribution-schedules/commerce-configuration/runs"


class SimulationFailed(Exception):
    """The simulation cannot go on; the message says why, and what to do if anything can be done."""


@dataclass(frozen=True, slots=True)
class Register:
    """A register of this run, with the key of its till and the directory of its store."""

    store_id: str
    terminal_id: str
    key: str = field(repr=False)
    directory: Path


@dataclass(frozen=True, slots=True)
class Fleet:
    """What a run has at HQ. ``registers`` and ``cards`` are in the order of the plan."""

    url: str
    admin_key: str = field(repr=False)
    store_ids: tuple[str, ...]
    sync_keys: Mapping[str, str] = field(repr=False)
    registers: tuple[Register, ...]
    cards: tuple[TrueCard, ...]


def open_fleet(url: str, admin_key: str, plan: Plan, directory: Path) -> Fleet:
    """Make everything that a plan needs.

    Raises:  SimulationFailed; Unreachable.
    """
    run_id = "".join(secrets.choice(string.ascii_lowercase) for _ in range(6))
    with Client(url, admin_key) as admin:
        _require_administrator(admin)
        profile_id = f"sim-{run_id}"
        body = {"offline_profile_id": profile_id, "name": "Simulation", "values": PROFILE}
        create(admin, "/v1/admin/offline-profiles", body)
        store_ids = tuple(f"sim-{run_id}-{one}" for one in range(1, plan.options.stores + 1))
        for store_id in store_ids:
            _make_store(admin, store_id)
        registers = tuple(
            _make_register(
                admin, store_ids[till.store - 1], till.terminal_id, profile_id, directory
            )
            for till in plan.tills
        )
        sync_keys = {
            store_id: make_key(admin, role="sync", store_id=store_id) for store_id in store_ids
        }
        _distribute(admin, url, sync_keys, directory)
    cards = _issue_cards(url, admin_key, run_id, plan.cards)
    return Fleet(url, admin_key, store_ids, sync_keys, registers, cards)


def done(answer: Answer) -> Answer:
    """Return an answer that says yes.

    Raises:  SimulationFailed.
    """
    if answer.is_problem or not answer.is_from_hq:
        raise SimulationFailed(f"HQ did not do what the simulation needs: {answer.sentence}")
    return answer


def create(client: Client, path: str, body: Mapping[str, Any]) -> Answer:
    """Post something that needs a reason.

    Raises:  SimulationFailed; Unreachable.
    """
    return done(client.post(path, {**body, "reason": REASON}))


def make_key(admin: Client, **scope: str) -> str:
    """Make an API key for a role, and return it.

    Raises:  SimulationFailed; Unreachable.
    """
    made = create(admin, "/v1/admin/keys", {**scope, "label": "simulation"})
    return str(made.at("api_key"))


def _require_administrator(admin: Client) -> None:
    answer = admin.get("/v1/admin/stores?limit=1")
    if answer.status in (401, 403):
        raise SimulationFailed(
            f"{admin.url} does not take the key: set HQ_ADMIN_KEY to the key of an administrator."
        )
    done(answer)


def _make_store(admin: Client, store_id: str) -> None:
    create(admin, "/v1/admin/stores", {"store_id": store_id, "name": "Simulated store"})
    path = f"/v1/admin/stores/{store_id}/parameters"
    seen = done(admin.get(path))
    wanted = {
        parameter_of(Kind.GIFT_CARD): True,
        parameter_of(Kind.CREDIT_MEMO): True,
        "gift_card_cash_out_threshold_minor": {CURRENCY: CASH_OUT_MINOR},
        "credit_memo_partial_use": "reissue",
        "parameter_cache_seconds": 86_400,
        "offline_grant_hours": 72,
        "lease_seconds": 900,
        "on_horizon": "sticky",
    }
    # Overrides of the store: another company's defaults must not change what is simulated.
    done(admin.patch(path, {"parameters": wanted, "reason": REASON}, seen.etag))


def _make_register(
    admin: Client, store_id: str, terminal_id: str, profile_id: str, directory: Path
) -> Register:
    body = {
        "terminal_id": terminal_id,
        "name": "Simulated register",
        "supports_offline": True,
        "offline_profile_id": profile_id,
    }
    create(admin, f"/v1/admin/stores/{store_id}/registers", body)
    key = make_key(admin, role="terminal", store_id=store_id, terminal_id=terminal_id)
    return Register(store_id, terminal_id, key, directory / store_id / terminal_id)


def _distribute(admin: Client, url: str, sync_keys: Mapping[str, str], directory: Path) -> None:
    """Run the schedule now, and let every store's sync job apply what it fetches."""
    create(admin, _SCHEDULE, {"store_ids": list(sync_keys)})
    for store_id, key in sync_keys.items():
        folder = directory / store_id
        folder.mkdir(mode=0o700, exist_ok=True)
        with Client(url, key) as sync_job:
            statuses = {status for _, status in do_sessions(sync_job, folder, lambda: True)}
        if statuses != {"applied"}:
            raise SimulationFailed(f"Store {store_id} could not apply its parameters.")


def _issue_cards(
    url: str, admin_key: str, run_id: str, planned: tuple[PlannedCard, ...]
) -> tuple[TrueCard, ...]:
    """Issue the cards, several beside one another."""
    cards = [_card(place, one) for place, one in enumerate(planned)]

    def issue(part: list[TrueCard]) -> None:
        with Client(url, admin_key) as admin:
            for card in part:
                body = {
                    "reference": f"sim-{run_id}-{card.name.replace(' ', '-')}",
                    "kind": card.kind,
                    "number": card.number,
                    "currency": CURRENCY,
                    "amount_minor": card.opening_minor,
                }
                made = done(admin.post("/v1/admin/instruments", body))
                card.instrument_id = str(made.at("instrument.instrument_id"))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(issue, [cards[start::AT_ONCE] for start in range(AT_ONCE)]))
    return tuple(cards)


def _card(place: int, planned: PlannedCard) -> TrueCard:
    if planned.kind == Kind.CREDIT_MEMO:
        number, name = f"CM{secrets.randbelow(10**14):014d}", f"memo {place}"
    else:
        number, name = f"6006{secrets.randbelow(10**12):012d}", f"card {place}"
    return TrueCard(name, planned.kind, number, planned.opening_minor)
