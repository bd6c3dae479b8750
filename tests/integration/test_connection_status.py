"""The connection status of registers, and what an outage exposes."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from hq_service.domain import locking
from hq_service.domain.connection import ConnectionState
from hq_service.domain.model import Purpose
from hq_service.domain.parameters import Parameters
from hq_service.domain.registers import live_locks
from hq_service.store import locks, parameters, presence
from hq_service.store.database import reading
from tests.acting import connection_of
from tests.support import NOTHING_AT_STAKE, Card, Hq, Till, sale_line

WHY = {"reason": "test"}
STATUS = "/v1/admin/connection-status"


def statuses(hq: Hq, query: str) -> list[dict[str, Any]]:
    answer = hq.admin.get(f"{STATUS}?{query}")
    assert answer.status_code == 200, answer.json
    return list(answer.json["registers"])


def exposure_of(hq: Hq, store_id: str) -> dict[str, Any]:
    answer = hq.admin.get(f"/v1/admin/stores/{store_id}/exposure")
    assert answer.status_code == 200, answer.json
    return dict(answer.json)


def silent_for(hq: Hq, till: Till, seconds: int) -> None:
    hq.sql(
        "UPDATE terminal_presence SET last_seen_at = now() - %s * interval '1 s'"
        " WHERE store_id = %s AND terminal_id = %s",
        seconds,
        till.store_id,
        till.terminal_id,
    )


def lock_taken_at(hq: Hq, card: Card, instant: datetime) -> None:
    """Let the lock of an instrument have been taken at an instant."""
    for table in ("instruments", "live_locks"):
        hq.sql(
            f"UPDATE {table} SET locked_at = %s WHERE instrument_id = %s",
            instant,
            card.instrument_id,
        )


def override(hq: Hq, store_id: str, **changes: Any) -> None:
    """Let a store set some parameters itself."""
    path = f"/v1/admin/stores/{store_id}/parameters"
    seen = hq.admin.get(path).headers["ETag"]
    answer = hq.admin.patch(path, {"parameters": changes, **WHY}, If_Match=seen)
    assert answer.status_code == 200, answer.json


def retired(hq: Hq, till: Till) -> None:
    hq.sql(
        "UPDATE terminals SET retired_at = now() WHERE store_id = %s AND terminal_id = %s",
        till.store_id,
        till.terminal_id,
    )


# --- states ---------------------------------------------------------------------------------------


def test_every_register_of_a_store_is_told_with_its_state(hq: Hq) -> None:
    store_id = hq.make_store()
    tills = {state: hq.till(store_id) for state in ConnectionState}
    first = statuses(hq, f"store_id={store_id}")[0]
    assert first["state"] == "never_seen"
    tills[ConnectionState.ONLINE].heartbeat()
    tills[ConnectionState.OFFLINE].heartbeat(connection_state="offline")
    tills[ConnectionState.PRESUMED_OFFLINE].heartbeat()
    silent_for(hq, tills[ConnectionState.PRESUMED_OFFLINE], 901)
    tills[ConnectionState.RETIRED].heartbeat()
    retired(hq, tills[ConnectionState.RETIRED])
    found = {one["terminal_id"]: one for one in statuses(hq, f"store_id={store_id}")}
    for state, till in tills.items():
        one = found[till.terminal_id]
        assert one["state"] == state
        assert one["since"] is not None
        assert (one["report"] is None) == (state is ConnectionState.NEVER_SEEN)
    silent = found[tills[ConnectionState.PRESUMED_OFFLINE].terminal_id]
    lease = datetime.fromisoformat(silent["since"]) - datetime.fromisoformat(silent["last_seen_at"])
    assert lease == timedelta(seconds=900), "since the lease ended"


def test_the_lease_is_the_stores_own_as_it_is_saved(hq: Hq) -> None:
    till, elsewhere = hq.till(), hq.till()
    for one in (till, elsewhere):
        one.heartbeat()
        silent_for(hq, one, 100)
    override(hq, till.store_id, lease_seconds=60)
    assert connection_of(hq, till)["state"] == "presumed_offline", (
        "saved is enough for HQ's own rules"
    )
    assert connection_of(hq, elsewhere)["state"] == "online"
    assert till.heartbeat().json["next_heartbeat_seconds"] == 20


def test_a_till_that_only_sells_is_online_and_nobody_knows_since_when(hq: Hq) -> None:
    till = hq.till()
    assert till.lock(hq.issue(1), "X1").status_code == 201
    found = connection_of(hq, till)
    assert (found["state"], found["since"], found["report"]) == ("online", None, None)
    assert found["last_seen_at"] is not None


def test_a_register_is_present_for_as_long_as_its_newest_lock(hq: Hq) -> None:
    till, card, older = hq.till(), hq.issue(100), hq.issue(100)
    till.heartbeat()
    for one in (older, card):
        assert till.lock(one, "X1", 1 if one is card else 2).status_code == 201
    silent_for(hq, till, 920)
    now = datetime.now(UTC)
    lock_taken_at(hq, older, now - timedelta(seconds=5_000))
    lock_taken_at(hq, card, now - timedelta(seconds=600))

    def told() -> tuple[str, str, str]:
        lock = hq.admin.get(f"/v1/admin/locks/{card.instrument_id}").json
        return connection_of(hq, till)["state"], lock["state"], lock["lease_ends_at"]

    assert told()[:2] == ("online", "active"), "the lock renewed nothing else"
    lock_taken_at(hq, card, now - timedelta(seconds=901))
    state, of_lock, ends_at = told()
    assert (state, of_lock) == ("presumed_offline", "lapsed")
    since = datetime.fromisoformat(connection_of(hq, till)["since"])
    assert since == datetime.fromisoformat(ends_at)


def test_registers_of_a_retired_store_are_retired(hq: Hq) -> None:
    till = hq.till()
    till.heartbeat()
    retirement = f"/v1/admin/stores/{till.store_id}/retirement"
    assert hq.admin.post(retirement, {**WHY, "accepted": NOTHING_AT_STAKE}).status_code == 200
    assert connection_of(hq, till)["state"] == "retired"


def test_a_state_picks_registers_and_pages_follow_one_another(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hq_service.operations.connection.PART_REGISTERS", 2)
    store_id = hq.make_store()
    tills = [hq.till(store_id) for _ in range(9)]
    for till in tills[::3]:
        till.heartbeat(connection_state="offline")
    wanted = sorted(till.terminal_id for till in tills[::3])
    for limit in (1, 2, 3, 200):
        told, after = [], ""
        while after is not None:
            answer = hq.admin.get(
                f"{STATUS}?store_id={store_id}&state=offline&limit={limit}{after}"
            )
            assert len(answer.json["registers"]) <= limit
            told += [one["terminal_id"] for one in answer.json["registers"]]
            after = answer.json["next_after"] and f"&after={answer.json['next_after']}"
        assert told == wanted, limit


def test_a_page_that_has_looked_long_enough_ends_and_says_where(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hq_service.operations.connection.PART_REGISTERS", 2)
    monkeypatch.setattr("hq_service.operations.connection.PARTS_MAX", 1)
    store_id = hq.make_store()
    tills = [hq.till(store_id) for _ in range(4)]
    last = max(tills, key=lambda till: till.terminal_id)
    last.heartbeat()
    first = hq.admin.get(f"{STATUS}?store_id={store_id}&state=online").json
    assert first["registers"] == []
    rest = hq.admin.get(f"{STATUS}?store_id={store_id}&state=online&after={first['next_after']}")
    assert [one["terminal_id"] for one in rest.json["registers"]] == [last.terminal_id]


def test_a_store_that_there_is_not_has_no_status(hq: Hq) -> None:
    for path in (f"{STATUS}?store_id=nothing", "/v1/admin/stores/nothing/exposure"):
        answer = hq.admin.get(path)
        assert (answer.status_code, answer.json["code"]) == (404, "store_not_found")


# --- figures --------------------------------------------------------------------------------------


def test_a_register_is_told_with_its_locks_grants_gaps_and_revision(hq: Hq) -> None:
    till = hq.till()
    hq.allow_offline(till)
    for amount_minor, currency in ((500, "SEK"), (300, "SEK"), (77, "EUR")):
        till.lock(hq.issue(amount_minor, currency=currency), f"G{amount_minor}")
    till.lock_new("I1", 40_00)  # a granted credit: nothing can be lost by it
    hq.sql("UPDATE terminals SET supports_offline = false WHERE store_id = %s", till.store_id)
    till.lock(hq.issue(9_999), "L1")
    card = hq.issue(100)
    lines = [till.offline_line(card, f"O{number}", 1) for number in range(4)]
    hq.post_batch(till.store_id, [lines[1], lines[3]])
    found = connection_of(hq, till)
    assert (found["live_locks_count"], found["unspent_grants_count"]) == (5, 4)
    assert found["exposures_minor"] == {"SEK": 800, "EUR": 77}
    assert (found["journal_gaps_count"], found["supports_offline"]) == (2, False)
    revision = till.get("/v1/parameters").json["revision"]
    assert found["acknowledged_revision"] == revision


def test_a_grant_is_unspent_until_its_line_is_settled(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(500)
    hq.allow_offline(till)
    lock = till.lock(card, "X1")
    assert connection_of(hq, till)["exposures_minor"] == {"SEK": 500}
    assert till.conclude("X1", sale_line(lock, 500)).status_code == 201
    found = connection_of(hq, till)
    assert (found["unspent_grants_count"], found["exposures_minor"]) == (0, {})


def test_the_exposure_of_a_store_is_told_by_currency_and_by_register(hq: Hq) -> None:
    one = hq.till()
    two, idle = hq.till(one.store_id), hq.till(one.store_id)
    hq.allow_offline(one, two, idle)
    one.lock(hq.issue(500), "X1")
    one.lock(hq.issue(70, currency="EUR"), "X2")
    two.lock(hq.issue(200), "Y1")
    two.lock(hq.issue(50), "Y2")
    silent_for(hq, two, 5_000)
    for name in ("Y1", "Y2"):
        moved_back(hq, two, name, hours=1)
    found = exposure_of(hq, one.store_id)
    assert [(by["currency"], by["exposure_minor"]) for by in found["by_currency"]] == [
        ("EUR", 70),
        ("SEK", 750),
    ]
    assert [by["unspent_grants_count"] for by in found["by_currency"]] == [1, 3]
    by_register = {
        register["terminal_id"]: [by["exposure_minor"] for by in register["by_currency"]]
        for register in found["registers"]
    }
    assert by_register == {one.terminal_id: [70, 500], two.terminal_id: [250]}
    states = {register["terminal_id"]: register["state"] for register in found["registers"]}
    assert states == {one.terminal_id: "online", two.terminal_id: "presumed_offline"}
    retired(hq, two)
    assert len(exposure_of(hq, one.store_id)["registers"]) == 2, "retired, and still exposed"


def test_the_oldest_grant_and_the_next_horizon_are_those_of_all_grants(hq: Hq) -> None:
    till = hq.till()
    hq.allow_offline(till)
    for name in ("old", "middle", "new"):
        till.lock(hq.issue(100), name)
    before = granted_rows(hq, till)
    moved_back(hq, till, "old", hours=100)
    moved_back(hq, till, "middle", hours=10)
    [found] = exposure_of(hq, till.store_id)["by_currency"]
    assert (found["unspent_grants_count"], found["past_horizon_count"]) == (3, 1)
    assert found["exposure_minor"] == 300, "one that has run out is kept: sticky"
    oldest_at, next_at = before["old"][0], before["middle"][1]
    told = datetime.fromisoformat(found["oldest_grant_at"])
    assert told == oldest_at - timedelta(hours=100)
    assert datetime.fromisoformat(found["next_horizon_at"]) == next_at - timedelta(hours=10)
    override(hq, till.store_id, on_horizon="release")
    [found] = exposure_of(hq, till.store_id)["by_currency"]
    assert (found["unspent_grants_count"], found["past_horizon_count"]) == (2, 0)
    assert found["exposure_minor"] == 200


def granted_rows(hq: Hq, till: Till) -> dict[str, tuple[datetime, datetime]]:
    rows = hq.sql(
        "SELECT lock_transaction_id, locked_at, lock_grant_until FROM instruments"
        " WHERE lock_store_id = %s AND lock_terminal_id = %s",
        till.store_id,
        till.terminal_id,
    )
    return {name: (locked_at, until) for name, locked_at, until in rows}


def moved_back(hq: Hq, till: Till, transaction_id: str, *, hours: int) -> None:
    """Let a granted lock have been taken earlier."""
    hq.sql(
        "WITH moved AS (UPDATE instruments SET locked_at = locked_at - %s * interval '1 hour',"
        " lock_grant_until = lock_grant_until - %s * interval '1 hour'"
        " WHERE lock_store_id = %s AND lock_terminal_id = %s AND lock_transaction_id = %s"
        " RETURNING lock_id, locked_at, lock_grant_until)"
        " UPDATE live_locks SET locked_at = moved.locked_at, grant_until = moved.lock_grant_until"
        " FROM moved WHERE moved.lock_id = live_locks.lock_id",
        hours,
        hours,
        till.store_id,
        till.terminal_id,
        transaction_id,
    )


# --- one rule for exposure ------------------------------------------------------------------------


def random_lock(hq: Hq, till: Till, chance: random.Random, number: int) -> None:
    """Take some lock, on some instrument, and let it have been taken some time ago."""
    purpose = chance.choice([*Purpose])
    currency = chance.choice(["SEK", "EUR", "JPY"])
    name = f"R{number}"
    amount_minor = chance.randint(1, 900)
    if purpose == Purpose.ISSUE:
        answer: TestResponse = till.lock_new(name, amount_minor, currency=currency)
    else:
        card: Card = hq.issue(chance.randint(1, 900), currency=currency)
        more = {"amount_minor": amount_minor} if purpose in ("load", "refund") else {}
        answer = till.lock(card, name, purpose=purpose, **more)
    assert answer.status_code == 201, answer.json
    moved_back(hq, till, name, hours=chance.choice([0, 0, 71, 73, 200]))
    if chance.random() < 0.3:  # less is left than was locked: an adjustment, a late batch
        hq.sql(
            "UPDATE instruments SET balance_minor = balance_minor / 2"
            " WHERE lock_store_id = %s AND lock_transaction_id = %s",
            till.store_id,
            name,
        )


@pytest.mark.parametrize("on_horizon", ["sticky", "release"])
def test_the_sum_of_the_database_is_that_of_the_rule_for_one_lock(
    hq: Hq, app: Flask, on_horizon: str
) -> None:
    chance = random.Random(f"exposure {on_horizon}")
    store_id = hq.make_store()
    tills = [hq.till(store_id), hq.till(store_id, supports_offline=False), hq.till(store_id)]
    hq.set_parameters(gift_card_cash_out_threshold_minor=dict.fromkeys(("SEK", "EUR", "JPY"), 900))
    hq.allow_offline(*tills)
    override(hq, store_id, on_horizon=on_horizon)
    for number in range(90):
        random_lock(hq, chance.choice(tills), chance, number)
    now = datetime.now(UTC)

    @reading
    def one_by_one(_connection: Any, store_id: str) -> Parameters:
        return parameters.in_force_at(store_id, parameters.latest_revision(store_id))

    @reading
    def read(connection: Any) -> tuple[Any, Any, Parameters]:
        in_force_of = parameters.in_force_now([store_id])
        places = [(store_id, till.terminal_id) for till in tills]
        figures = presence.lock_figures(connection, places, in_force_of, now)
        wanted = locking.LockFilter(store_id=store_id)
        return figures, locks.page(wanted, after=None, limit=1_000), in_force_of[store_id]

    with app.app_context():
        figures, locked, in_force = read()
    assert in_force.on_horizon == on_horizon
    with app.app_context():
        assert in_force == one_by_one(store_id)
    assert len(locked) == 90
    for till in tills:
        own = [one for one, _ in locked if one.lock.terminal_id == till.terminal_id]
        of_database = [one for one in figures if one.terminal_id == till.terminal_id]
        by_rule: dict[str, int] = {}
        for instrument in own:
            exposure = locking.exposure_minor(instrument.lock, instrument, in_force, now)
            currency = instrument.currency
            by_rule[currency] = by_rule.get(currency, 0) + exposure
        assert {one.currency: one.exposure_minor for one in of_database} == by_rule
        summed = live_locks(own, in_force, now)
        assert sum(one.locks_count for one in of_database) == summed.locks_count == len(own)
        assert sum(one.grants_count for one in of_database) == summed.grants_count
    assert any(one.exposure_minor for one in figures)
