"""A void and a lock of the same key: whoever comes first, no lock is left that nobody can use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.acting import is_free, posted, settled, void_line
from tests.concurrency.test_races import (
    held,
    row_of,
    started,
    wait_for_waiting,
)
from tests.support import Card, Hq, Till, a_number, on_its_own, running, together

pytestmark = pytest.mark.usefixtures("whole_afterwards", "either_way")

THREADS = 8


@pytest.fixture(scope="module")
def app(database_url: str) -> Iterator[Flask]:
    with running(database_url, threads=THREADS) as app:
        yield app


def a_till(hq: Hq, *, with_grants: bool) -> Till:
    """Return a till that gets a grant with each of its locks, or with none of them."""
    till = hq.till(supports_offline=with_grants)
    hq.allow_offline(till)
    return till


def assert_is_left_free(hq: Hq, till: Till, card: Card, lock: TestResponse) -> None:
    """The key is void for ever, and the card is there for the next terminal."""
    if lock.status_code == 201:
        late = till.redeem(card, "X1", 10, lock.json["lock_id"])
        assert (late.status_code, late.json["code"]) == (409, "voided")
    else:
        assert (lock.status_code, lock.json["code"]) == (409, "voided")
    assert is_free(hq, card)
    assert till.lock(card, "X1").json["code"] == "voided"
    assert is_free(hq, card)


@pytest.mark.parametrize("with_grants", [False, True])
@pytest.mark.parametrize("is_void_first", [False, True])
def test_of_a_void_and_a_lock_that_wait_for_one_card_none_leaves_a_lock_behind(
    hq: Hq, is_void_first: bool, with_grants: bool
) -> None:
    till, card = a_till(hq, with_grants=with_grants), hq.issue(100)
    calls = [
        lambda: on_its_own(hq, till).void(card, "X1"),
        lambda: on_its_own(hq, till).lock(card, "X1"),
    ]
    order = calls if is_void_first else calls[::-1]
    with started(2) as start, held(hq, row_of(card)):
        first = start(order[0])
        wait_for_waiting(hq, 1)
        second = start(order[1])
        wait_for_waiting(hq, 2)
    void, lock = (first, second) if is_void_first else (second, first)
    assert void.result().status_code == 201
    # Who comes second has read the row before the first wrote it, and is told all the same.
    assert lock.result().status_code == (409 if is_void_first else 201)
    assert_is_left_free(hq, till, card, lock.result())


def test_a_void_in_a_batch_and_a_lock_that_wait_for_one_card_leave_no_lock_behind(hq: Hq) -> None:
    till, card = a_till(hq, with_grants=True), hq.issue(100)
    line = void_line(till, card, "X1")
    sync = hq.sync(till.store_id)
    body = {"store_id": till.store_id, "batch_id": "b1", "lines": [line]}
    with started(2) as start, held(hq, row_of(card)):
        void = start(lambda: on_its_own(hq, sync).post("/v1/offline-batches", body))
        wait_for_waiting(hq, 1)
        lock = start(lambda: on_its_own(hq, till).lock(card, "X1"))
        wait_for_waiting(hq, 2)
    assert void.result().json["counts"] == {"applied": 1}
    assert (lock.result().status_code, lock.result().json["code"]) == (409, "voided")
    assert_is_left_free(hq, till, card, lock.result())


def test_voids_and_locks_in_any_order_leave_no_lock_behind(hq: Hq) -> None:
    for with_grants in [False, True] * 5:
        till, card = a_till(hq, with_grants=with_grants), hq.issue(100)
        void, lock = together(
            [
                lambda till=till, card=card: on_its_own(hq, till).void(card, "X1"),
                lambda till=till, card=card: on_its_own(hq, till).lock(card, "X1"),
            ]
        )
        assert void.status_code == 201
        assert_is_left_free(hq, till, card, lock)


def test_a_void_and_a_lock_of_a_card_that_is_not_there_yet_leave_it_to_the_next_sale(
    hq: Hq,
) -> None:
    for _ in range(5):
        till, number = hq.till(), a_number()
        # The till knows the id beforehand: an earlier lock of the same card told it.
        first = till.lock_new("X0", 100, number=number)
        card = hq.card_of(first, number)
        assert till.release(card, "X0", first.json["lock_id"]).status_code == 200
        void, lock = together(
            [
                lambda till=till, card=card: on_its_own(hq, till).void(card, "X1"),
                lambda till=till, number=number: on_its_own(hq, till).lock_new(
                    "X1", 100, number=number
                ),
            ]
        )
        assert void.status_code == 201
        assert lock.status_code in (201, 409)
        assert hq.till().lock_new("Y1", 100, number=number).status_code == 201


@pytest.mark.parametrize("with_grants", [False, True])
def test_a_lock_whose_key_was_voided_on_another_card_gives_way(hq: Hq, with_grants: bool) -> None:
    till, card, other = a_till(hq, with_grants=with_grants), hq.issue(100), hq.issue(100)
    lock = till.lock(card, "X1")
    assert lock.json["offline"]["allowed"] == with_grants
    assert till.void(other, "X1").status_code == 201
    assert till.lock(card, "X1").json["code"] == "voided"
    next_till = hq.till()
    taken = next_till.lock(card, "Y1")
    assert taken.status_code == 201, taken.json
    assert taken.json["max_amount_minor"] == 100
    ended = hq.sql("SELECT count(*) FROM lock_events WHERE lock_id = %s", lock.json["lock_id"])
    assert ended == [(1,)]
    assert next_till.redeem(card, "Y1", 100, taken.json["lock_id"]).status_code == 201
    assert (hq.balance(card), hq.balance(other)) == (0, 100)


@pytest.mark.parametrize("way", ["void", "voided"])
def test_a_lock_whose_key_a_batch_voided_on_another_card_gives_way(hq: Hq, way: str) -> None:
    till, card, other = a_till(hq, with_grants=True), hq.issue(100), hq.issue(100)
    till.lock(card, "X1")
    if way == "void":
        line = void_line(till, other, "X1")
    else:
        line = till.offline_line(other, "X1", 5, status=way)
    assert settled(hq, till, line)["codes"] == ["voided"]
    assert is_free(hq, card)


def test_two_cards_under_one_key_are_both_free_once_it_is_voided(hq: Hq) -> None:
    till, card, other = a_till(hq, with_grants=True), hq.issue(100), hq.issue(100)
    assert (till.lock(card, "X1").status_code, till.lock(other, "X1").status_code) == (201, 201)
    assert till.void(card, "X1").status_code == 201
    assert (is_free(hq, card), is_free(hq, other)) == (True, True)


def test_the_late_line_of_a_lock_that_gave_way_has_no_effect(hq: Hq) -> None:
    till, card, other = a_till(hq, with_grants=True), hq.issue(100), hq.issue(100)
    grant = till.lock(card, "X1").json["offline"]["grant"]
    assert till.void(other, "X1").status_code == 201
    assert hq.till().lock(card, "Y1").status_code == 201
    (result,) = posted(hq, till, till.offline_line(card, "X1", 60, grant=grant))
    assert (result["outcome"], result["codes"]) == ("applied", ["voided"])
    assert hq.balance(card) == 100


def test_a_lock_of_another_line_of_a_sale_stays_when_one_line_is_voided(hq: Hq) -> None:
    till, card, other = a_till(hq, with_grants=True), hq.issue(100), hq.issue(100)
    till.lock(card, "X1", 1)
    kept = till.lock(other, "X1", 2)
    assert till.void(card, "X1", 1).status_code == 201
    assert (is_free(hq, card), is_free(hq, other)) == (True, False)
    assert till.redeem(other, "X1", 100, kept.json["lock_id"], 2).status_code == 201
