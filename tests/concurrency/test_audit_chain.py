"""Administrators who do something at the same time make one chain, without a fork."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from hq_service.operations import audit
from tests.concurrency.test_races import (
    MANY,
    another_service,
    deadlocks,
    forced_to_meet,
    held,
    statuses,
)
from tests.support import KEYRING, Card, Hq, Till, a_name, a_number, on_its_own, running, together

Call = Callable[[], TestResponse]

AUDIT_TABLE = "LOCK TABLE audit_entries IN SHARE ROW EXCLUSIVE MODE"


@pytest.fixture
def hq(server: Any, template: str) -> Iterator[Hq]:
    """A database for one test, with a connection for everybody in it."""
    with running(server.create_database(a_name("hq_chain"), template), threads=20) as app:
        yield Hq(app)


def assert_one_chain(app: Flask, entries_count: int) -> None:
    """Check that the chain holds and has so many entries: one for each operation."""
    with app.app_context():
        found = audit.verify(KEYRING, {}, lambda _walked, _total: None)
    assert (found.fault, found.holding) == (None, entries_count)


def an_issue(hq: Hq) -> Call:
    wish = {"reference": a_name("issue"), "kind": "gift_card", "number": a_number()}
    body = {**wish, "currency": "SEK", "amount_minor": 100}
    return lambda: on_its_own(hq, hq.admin).post("/v1/admin/instruments", body)


def a_break(hq: Hq, till: Till, card: Card) -> Call:
    """Return the breaking of a lock that a till takes now."""
    lock = till.lock(card, a_name("X"))
    wish = {"instrument_id": card.instrument_id, "lock_id": lock.json["lock_id"]}
    body = {**wish, "accepted_exposure_minor": 0, "reason": "test"}
    return lambda: on_its_own(hq, hq.admin).post("/v1/admin/lock-breaks", body)


def a_resolution(hq: Hq, case_id: str, resolution: str) -> Call:
    body = {"resolution": resolution, "reason": "test"}
    path = f"/v1/admin/cases/{case_id}/resolutions"
    return lambda: on_its_own(hq, hq.admin).post(path, body)


def cases_of(hq: Hq, till: Till, *cards: Card) -> list[str]:
    lines = [till.offline_line(card, a_name("X"), 5) for card in cards]
    results = hq.post_batch(till.store_id, lines).json["results"]
    return [result["case_id"] for result in results]


def test_sixteen_administrators_at_once_make_one_chain(hq: Hq) -> None:
    answers = forced_to_meet(hq, [an_issue(hq) for _ in range(MANY)], on=AUDIT_TABLE)
    assert statuses(answers) == {201: MANY}
    assert_one_chain(hq.app, MANY)


def test_entries_of_operations_that_meet_on_the_same_cards_do_not_deadlock(hq: Hq) -> None:
    till, cards = hq.till(), [hq.issue(1_000) for _ in range(4)]
    before, entries_count = deadlocks(hq), len(cards)
    for turn in range(3):
        case_ids = cases_of(hq, till, *cards)
        calls = [a_break(hq, till, card) for card in cards]
        # Reversing takes the case's row, then the card's that a break waits for, then the audit.
        calls += [a_resolution(hq, case_id, "confirm_duplicate") for case_id in case_ids]
        calls += [a_resolution(hq, case_id, "confirm_duplicate") for case_id in case_ids]
        calls += [an_issue(hq) for _ in range(4)]
        random.Random(turn).shuffle(calls)
        answers = together(calls)
        # Each case is resolved once; the other of the two is told so.
        assert statuses(answers) == {200: 4, 201: 8, 409: 4}
        entries_count += 12
    assert deadlocks(hq) == before
    assert_one_chain(hq.app, entries_count)


def test_batches_and_sales_do_not_wait_for_the_audit(hq: Hq) -> None:
    till, card, other = hq.till(), hq.issue(1_000), hq.issue(1_000)
    lock_id = till.lock(card, "X1").json["lock_id"]
    sync = hq.sync(till.store_id)
    batch = {
        "store_id": till.store_id,
        "batch_id": a_name("batch"),
        "lines": [till.offline_line(other, "X2", 5)],
    }

    def sell() -> list[int]:
        own = on_its_own(hq, till)
        return [
            own.redeem(card, "X1", 5, lock_id).status_code,
            own.lock(card, "X3").status_code,
            on_its_own(hq, sync).post("/v1/offline-batches", batch).status_code,
        ]

    answers: list[list[int]] = []

    def sell_meanwhile() -> TestResponse:
        answers.append(sell())
        return an_issue(hq)()

    # The till's part is answered while the audit is held: only the issue behind it waits.
    [issued] = forced_to_meet(hq, [sell_meanwhile], on=AUDIT_TABLE)
    assert (answers, issued.status_code) == ([[201, 201, 201]], 201)


def test_what_cannot_be_written_into_the_audit_is_not_done(hq: Hq, database_url: str) -> None:
    with another_service(database_url, "lock_timeout=50ms") as impatient:
        issue = an_issue(impatient)
        with held(impatient, AUDIT_TABLE):
            answer = issue()
        assert (answer.status_code, answer.json["code"]) == (503, "unavailable")
        assert impatient.sql("SELECT 1 FROM instruments") == []
        assert issue().status_code == 201
        assert_one_chain(impatient.app, 1)
