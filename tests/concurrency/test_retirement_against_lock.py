"""A retirement and a lock of the same register: one of them knows of the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.acting import is_free
from tests.concurrency.test_races import (
    held,
    row_of,
    started,
    wait_for_waiting,
)
from tests.support import NOTHING_AT_STAKE, Hq, Till, on_its_own, running, together

pytestmark = pytest.mark.usefixtures("whole_afterwards", "either_way")

THREADS = 8
LIST_IS_HELD = "LOCK TABLE live_locks IN SHARE MODE"
AUDIT_IS_HELD = "LOCK TABLE audit_entries IN ACCESS EXCLUSIVE MODE"


@pytest.fixture(scope="module")
def app(database_url: str) -> Iterator[Flask]:
    with running(database_url, threads=THREADS) as app:
        yield app


@pytest.fixture
def till(hq: Hq) -> Till:
    till = hq.till()
    hq.allow_offline(till)
    return till


def path_of(till: Till, *, is_store: bool) -> str:
    """Return the path of the store or the register that is retired."""
    store = f"/v1/admin/stores/{till.store_id}"
    return store if is_store else f"{store}/registers/{till.terminal_id}"


def retired(hq: Hq, path: str) -> TestResponse:
    """Retire a register or a store at which nothing is at stake, as far as is known."""
    body = {"reason": "test", "accepted": NOTHING_AT_STAKE}
    return on_its_own(hq, hq.admin).post(f"{path}/retirement", body)


def assert_is_refused(lock: TestResponse) -> None:
    assert (lock.status_code, lock.json["code"]) == (403, "terminal_retired")


@pytest.mark.parametrize("is_store", [False, True])
def test_a_retirement_waits_for_a_lock_that_is_being_given_and_counts_it(
    hq: Hq, till: Till, is_store: bool
) -> None:
    path, card = path_of(till, is_store=is_store), hq.issue(100)
    with started(2) as start, held(hq, LIST_IS_HELD):
        lock = start(lambda: on_its_own(hq, till).lock(card, "X1"))
        wait_for_waiting(hq, 1)
        retirement = start(lambda: retired(hq, path))
        wait_for_waiting(hq, 2)
    assert lock.result().json["offline"]["allowed"]
    refused = retirement.result()
    assert (refused.status_code, refused.json["at_stake"]["live_grants_count"]) == (409, 1)
    assert refused.json["at_stake"]["exposures_minor"] == {"SEK": 100}
    assert hq.admin.get(path).json["retired_at"] is None


@pytest.mark.parametrize("is_store", [False, True])
def test_a_lock_that_waited_for_a_card_sees_that_its_register_was_retired_meanwhile(
    hq: Hq, till: Till, is_store: bool
) -> None:
    card = hq.issue(100)
    with started(1) as start, held(hq, row_of(card)):
        lock = start(lambda: on_its_own(hq, till).lock(card, "X1"))
        wait_for_waiting(hq, 1)
        assert retired(hq, path_of(till, is_store=is_store)).status_code == 200
    assert_is_refused(lock.result())
    assert is_free(hq, card)


@pytest.mark.parametrize("is_store", [False, True])
def test_a_lock_waits_for_the_retirement_of_its_register_that_is_not_committed_yet(
    hq: Hq, till: Till, is_store: bool
) -> None:
    card = hq.issue(100)
    with started(2) as start, held(hq, AUDIT_IS_HELD):
        retirement = start(lambda: retired(hq, path_of(till, is_store=is_store)))
        wait_for_waiting(hq, 1)
        lock = start(lambda: on_its_own(hq, till).lock(card, "X1"))
        wait_for_waiting(hq, 2)
    assert retirement.result().status_code == 200
    assert_is_refused(lock.result())
    assert is_free(hq, card)


def test_a_lock_that_waited_for_a_retirement_that_was_refused_is_given(hq: Hq, till: Till) -> None:
    first, card = hq.issue(100), hq.issue(100)
    path = path_of(till, is_store=False)
    with started(3) as start, held(hq, LIST_IS_HELD):
        counted = start(lambda: on_its_own(hq, till).lock(first, "X1"))
        wait_for_waiting(hq, 1)
        retirement = start(lambda: retired(hq, path))
        wait_for_waiting(hq, 2)
        lock = start(lambda: on_its_own(hq, till).lock(card, "X2"))
        wait_for_waiting(hq, 3)
    assert (counted.result().status_code, lock.result().status_code) == (201, 201)
    assert retirement.result().json["code"] == "register_not_clear"


@pytest.mark.parametrize("is_store", [False, True])
def test_of_a_retirement_and_a_lock_at_once_one_is_refused(hq: Hq, is_store: bool) -> None:
    for _ in range(6):
        till, card = hq.till(), hq.issue(100)
        hq.allow_offline(till)
        path = path_of(till, is_store=is_store)
        retirement, lock = together(
            [
                lambda path=path: retired(hq, path),
                lambda till=till, card=card: on_its_own(hq, till).lock(card, "X1"),
            ]
        )
        assert {retirement.status_code, lock.status_code} in ({200, 403}, {409, 201})
        assert is_free(hq, card) == (lock.status_code == 403)


def test_locks_of_one_register_do_not_wait_for_each_other(hq: Hq, till: Till) -> None:
    cards = [hq.issue(100) for _ in range(4)]
    with started(4) as start, held(hq, LIST_IS_HELD):
        locks = [
            start(lambda place=place, card=card: on_its_own(hq, till).lock(card, f"X{place}"))
            for place, card in enumerate(cards)
        ]
        # All of them have got as far as the list: nobody waits for another one.
        wait_for_waiting(hq, 4)
    assert [lock.result().status_code for lock in locks] == [201] * 4


def test_the_audit_of_a_retirement_tells_the_grant_that_was_accepted(hq: Hq, till: Till) -> None:
    card, path = hq.issue(100), path_of(till, is_store=False)
    assert till.lock(card, "X1").json["offline"]["allowed"]
    body = {"reason": "test", "accepted": {**NOTHING_AT_STAKE, "live_grants_count": 1}}
    assert hq.admin.post(f"{path}/retirement", body).status_code == 200
    detail: dict[str, Any] = json.loads(
        hq.sql(
            "SELECT detail FROM audit_entries WHERE subject = %s",
            f"register:{till.store_id}/{till.terminal_id}",
        )[0][0]
    )
    assert detail["at_stake"]["live_grants_count"] == 1
    assert_is_refused(till.lock(hq.issue(100), "X2"))
