"""A till that starts anew asks HQ which locks it holds, and goes on with them."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from hq_service.domain.actors import Role
from hq_service.store import database
from tests.acting import unissued_card
from tests.support import NOTHING_AT_STAKE, Card, Hq, Tables, Till, a_name, sale_line

LOCKS = "/v1/locks"


def own_locks(till: Till, query: str = "") -> list[dict[str, Any]]:
    """Return what a till is told of its locks, of all pages."""
    told: list[dict[str, Any]] = []
    after = ""
    while True:
        answer = till.get(f"{LOCKS}?{query}{after}")
        assert answer.status_code == 200, answer.json
        told += answer.json["locks"]
        if answer.json["next_after"] is None:
            return told
        after = f"&after={answer.json['next_after']}"


def as_listed(till: Till, lock: TestResponse, transaction_id: str, line: int = 1) -> dict[str, Any]:
    """Return the answer to a lock request as it is listed: with the key that it was asked for."""
    return {**till.key_of(transaction_id, line), **lock.json}


def keys_of(told: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(lock["transaction_id"], lock["line"]) for lock in told]


def test_a_listed_lock_tells_all_that_the_answer_told_and_its_key(hq: Hq) -> None:
    till, card, memo = hq.till(), hq.issue(500), hq.issue(300, kind="credit_memo")
    hq.allow_offline(till)
    first, second = till.lock(card, "sale"), till.lock(memo, "sale", 2)
    assert first.json["offline"]["allowed"]
    assert own_locks(till) == [as_listed(till, first, "sale"), as_listed(till, second, "sale", 2)]


def test_a_lock_without_a_grant_is_listed_as_one_without(hq: Hq) -> None:
    till, card = hq.till(supports_offline=False), hq.issue(500)
    till.lock(card, "sale")
    [told] = own_locks(till)
    assert told["offline"] == {"allowed": False, "grant": None, "until": None}


def test_the_number_that_hq_made_for_an_issue_is_told_again(hq: Hq) -> None:
    till = hq.till()
    made = till.lock_new("sale", 300)
    assert made.json["number"]
    assert own_locks(till) == [as_listed(till, made, "sale")]


def test_a_number_that_the_till_named_is_told_to_nobody(hq: Hq) -> None:
    till, card = hq.till(), unissued_card()
    named = till.lock_new("sale", 300, number=card.number)
    assert named.status_code == 201, named.json
    answer = till.get(LOCKS)
    assert card.number not in answer.text
    [told] = answer.json["locks"]
    assert (told["number"], told["instrument"]["instrument_id"]) == (None, card.instrument_id)


def test_a_transaction_may_be_asked_for(hq: Hq) -> None:
    till = hq.till()
    for transaction_id in ("A", "B"):
        for line in (1, 2):
            assert till.lock(hq.issue(1), transaction_id, line).status_code == 201
    assert keys_of(own_locks(till, "transaction_id=B")) == [("B", 1), ("B", 2)]
    assert own_locks(till, "transaction_id=C") == []


def test_a_till_is_told_its_own_locks_and_no_others(hq: Hq) -> None:
    till = hq.till()
    sister, stranger = hq.till(till.store_id), hq.till()
    namesake = namesake_of(hq, till)
    for one in (sister, stranger, namesake):
        assert one.lock(hq.issue(1), "sale").status_code == 201
    assert own_locks(till) == []
    assert len(own_locks(namesake)) == 1


def namesake_of(hq: Hq, till: Till) -> Till:
    """Return a till of another store that has the same number."""
    store_id, terminal_id = hq.make_store(), till.terminal_id
    register = {"terminal_id": terminal_id, "name": "namesake", "supports_offline": False}
    path = f"/v1/admin/stores/{store_id}/registers"
    made = hq.admin.post(path, {**register, "reason": "test"})
    assert made.status_code == 201, made.json
    key = hq.make_key(Role.TERMINAL, store_id=store_id, terminal_id=terminal_id)
    return Till(hq.client, key, store_id, terminal_id)


@pytest.mark.parametrize("way", ["concluded", "released", "voided", "settled", "broken"])
def test_a_lock_that_has_ended_is_not_listed(hq: Hq, way: str) -> None:
    till, card, sale = hq.till(), hq.issue(500), a_name("X")
    lock = till.lock(card, sale)
    assert keys_of(own_locks(till)) == [(sale, 1)]
    end(hq, till, card, sale, lock, way)
    assert own_locks(till) == []


def end(hq: Hq, till: Till, card: Card, sale: str, lock: TestResponse, way: str) -> None:
    lock_id = lock.json["lock_id"]
    if way == "concluded":
        answer = till.conclude(sale, sale_line(lock, 100))
    elif way == "released":
        answer = till.release(card, sale, lock_id)
    elif way == "voided":
        answer = till.void(card, sale)
    elif way == "settled":
        answer = hq.post_batch(till.store_id, [till.offline_line(card, sale, 1, lock_id=lock_id)])
    else:
        wish = {"instrument_id": card.instrument_id, "lock_id": lock_id, "reason": "test"}
        answer = hq.admin.post("/v1/admin/lock-breaks", {**wish, "accepted_exposure_minor": 0})
    assert answer.status_code in (200, 201), answer.json


def test_a_lapsed_lock_is_listed_until_somebody_takes_it(hq: Hq) -> None:
    till, card = hq.till(supports_offline=False), hq.issue(500)
    lock = till.lock(card, "sale")
    hq.sql(
        "UPDATE instruments SET locked_at = locked_at - interval '1 day' WHERE instrument_id = %s",
        card.instrument_id,
    )
    silent = "UPDATE terminal_presence SET last_seen_at = now() - interval '1 day'"
    hq.sql(f"{silent} WHERE store_id = %s", till.store_id)
    [told] = own_locks(till)
    assert told["lock_id"] == lock.json["lock_id"]
    assert told["lease"]["ends_at"] < lock.json["lease"]["ends_at"]
    # Asking was no command: the next terminal takes it.
    assert hq.till().lock(card, "theirs").status_code == 201
    assert own_locks(till) == []


def test_asking_writes_nothing_and_renews_no_lease(hq: Hq, app: Flask) -> None:
    till = hq.till()
    till.lock(hq.issue(500), "sale")
    with Tables.of(app) as tables:
        before = tables.rows()
        assert len(own_locks(till)) == 1
        assert tables.rows() == before


def test_a_till_that_starts_anew_concludes_by_the_lock_that_is_listed(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(500)
    till.lock(card, "sale")
    [told] = own_locks(till, "transaction_id=sale")
    assert till.redeem(card, "sale", 120, told["lock_id"]).status_code == 201
    assert hq.balance(card) == 380


def test_the_grant_that_is_listed_concludes_offline(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(500)
    hq.allow_offline(till)
    till.lock(card, "sale")
    [told] = own_locks(till)
    grant = told["offline"]["grant"]
    line = till.offline_line(card, "sale", 120, lock_id=told["lock_id"], grant=grant)
    [result] = hq.post_batch(till.store_id, [line]).json["results"]
    assert (result["outcome"], result["codes"], result["funded_minor"]) == ("applied", [], 120)


def test_a_till_of_a_retired_store_may_still_ask(hq: Hq) -> None:
    till = hq.till()
    till.lock(hq.issue(500), "sale")
    path = f"/v1/admin/stores/{till.store_id}/retirement"
    assert (
        hq.admin.post(path, {"reason": "closed", "accepted": NOTHING_AT_STAKE}).status_code == 200
    )
    assert len(own_locks(till)) == 1


def test_pages_of_own_locks_tell_each_once(hq: Hq) -> None:
    till = hq.till()
    expected = [("sale", line) for line in range(1, 6)]
    for _, line in expected:
        till.lock(hq.issue(1), "sale", line)
    for limit in (1, 2, 4, 5, 6):
        assert keys_of(own_locks(till, f"limit={limit}")) == expected


def test_locks_that_are_told_wait_for_the_standby_like_one_that_is_asked_again(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmed = []
    monkeypatch.setattr(
        "hq_service.operations.locks.confirm_durable",
        lambda connection: confirmed.append(database.confirm_durable(connection)),
    )
    till = hq.till()
    assert own_locks(till) == []
    assert confirmed == []
    till.lock(hq.issue(1), "sale")
    assert len(own_locks(till)) == 1
    assert len(confirmed) == 1
