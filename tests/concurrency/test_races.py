"""Requests that meet on the same cards, keys and batches, with real commits.

Where a race must be forced, a connection beside the service holds a lock, the requests are seen to
wait in ``pg_locks``, and then the lock is let go: no test sleeps and hopes.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from hq_service.domain.model import BusinessKey, Content
from hq_service.domain.numbers import bucket_of
from hq_service.domain.outcomes import case_id_of
from hq_service.operations import at_once
from hq_service.store import instruments
from hq_service.store.database import db
from tests.invariants import INVARIANTS, SETTLED, assert_invariants, violations
from tests.support import (
    KEYRING,
    Caller,
    Card,
    Hq,
    Till,
    a_name,
    a_number,
    on_its_own,
    psycopg_url,
    running,
    together,
)

pytestmark = pytest.mark.usefixtures("whole_afterwards")

# For races that differ when a request is carried out in full, by the rules.
either_way = pytest.mark.usefixtures("either_way")

MANY = 16
PATIENCE_SECONDS = 60.0

R = TypeVar("R")
C = TypeVar("C", bound=Caller)
Call = Callable[[], R]


@pytest.fixture(scope="module")
def app(database_url: str) -> Iterator[Flask]:
    # Chunks of seven lines: a batch of a few dozen is cut often, and meets others in between.
    with running(database_url, threads=MANY + 4, settle_chunk_lines=7) as app:
        yield app


@pytest.fixture
def hq_of_its_own(server: Any, template: str) -> Iterator[Hq]:
    """A database for one test, whatever it leaves behind."""
    with another_service(server.create_database(a_name("hq_race"), template)) as found:
        yield found


@pytest.fixture
def no_deadlock(hq: Hq) -> Iterator[None]:
    before = deadlocks(hq)
    yield
    assert deadlocks(hq) == before


@either_way
def test_of_two_tills_that_lock_a_card_at_once_one_wins(hq: Hq) -> None:
    assert_one_of_them_locks(hq, 2)


def test_of_sixteen_tills_that_lock_a_card_at_once_one_wins(hq: Hq) -> None:
    assert_one_of_them_locks(hq, MANY)


def assert_one_of_them_locks(hq: Hq, tills_count: int) -> None:
    card = hq.issue(500_00)
    tills = tills_in_one_store(hq, tills_count)
    calls = [lambda till=till: on_its_own(hq, till).lock(card, "X1") for till in tills]
    # All of them have read the card as free before any of them may write.
    answers = forced_to_meet(hq, calls, on=row_of(card))
    assert statuses(answers) == {201: 1, 423: tills_count - 1}
    winner = next(answer for answer in answers if answer.status_code == 201)
    live = hq.sql("SELECT lock_id FROM live_locks WHERE instrument_id = %s", card.instrument_id)
    assert live == [(UUID(winner.json["lock_id"]),)]
    for answer in answers:
        if answer.status_code == 423:
            assert answer.json["code"] == "instrument_locked"
            assert answer.headers["Retry-After"]


def test_a_lock_that_is_asked_for_sixteen_times_at_once_is_one_lock(hq: Hq) -> None:
    card, till = hq.issue(500_00), hq.till()
    calls = [lambda: on_its_own(hq, till).lock(card, "X1")] * MANY
    answers = forced_to_meet(hq, calls, on=row_of(card))
    assert statuses(answers) == {201: 1, 200: MANY - 1}
    assert len({answer.json["lock_id"] for answer in answers}) == 1


def test_a_lapsed_lock_is_taken_over_by_one_of_many(hq: Hq) -> None:
    card, holder = hq.issue(500_00), hq.till()
    lost = locked(holder, card, "X1")
    let_lapse(hq, holder, card)
    tills = tills_in_one_store(hq, 4)
    calls = [lambda till=till: on_its_own(hq, till).lock(card, "X1") for till in tills]
    answers = forced_to_meet(hq, calls, on=row_of(card))
    assert statuses(answers) == {201: 1, 423: 3}
    ends = hq.sql("SELECT lock_id, ended FROM lock_events WHERE lock_id = %s", lost)
    assert ends == [(UUID(lost), "lapsed")]
    assert holder.redeem(card, "X1", 10_00, lost).json["code"] == "lock_lost"


def test_a_redemption_that_comes_sixteen_times_at_once_is_posted_once(hq: Hq) -> None:
    # The amount is the whole balance: a misjudged repeat would be told that it is insufficient.
    card, till = hq.issue(500_00), hq.till()
    lock_id = locked(till, card, "X1")
    calls = [lambda: on_its_own(hq, till).redeem(card, "X1", 500_00, lock_id)] * MANY
    answers = forced_to_meet(hq, calls, on=row_of(card))
    assert statuses(answers) == {201: 1, 200: MANY - 1}
    for answer in answers:
        replayed = answer.headers.get("Idempotency-Replayed")
        assert replayed == ("true" if answer.status_code == 200 else None)
        assert answer.json["balance_after_minor"] == 0
    assert redemptions_of(hq, card) == 1
    assert hq.balance(card) == 0


def test_a_partly_used_memo_that_comes_sixteen_times_at_once_has_one_remainder(hq: Hq) -> None:
    memo, till = hq.issue(500_00, kind="credit_memo"), hq.till()
    lock_id = locked(till, memo, "X1")
    calls = [lambda: on_its_own(hq, till).redeem(memo, "X1", 120_00, lock_id)] * MANY
    answers = forced_to_meet(hq, calls, on=row_of(memo))
    assert statuses(answers) == {201: 1, 200: MANY - 1}
    assert len({answer.json["remainder"]["number"] for answer in answers}) == 1
    assert hq.balance(memo) == 380_00


def test_a_redemption_in_a_storm_of_repeats_without_any_order_is_posted_once(hq: Hq) -> None:
    till = hq.till()
    for round_number in range(5):
        card = hq.issue(500_00)
        transaction_id = f"X{round_number}"
        lock_id = locked(till, card, transaction_id)

        def redeem(
            card: Card = card, transaction_id: str = transaction_id, lock_id: str = lock_id
        ) -> TestResponse:
            return on_its_own(hq, till).redeem(card, transaction_id, 500_00, lock_id)

        assert statuses(together([redeem] * MANY)) == {201: 1, 200: MANY - 1}
        assert redemptions_of(hq, card) == 1


@either_way
def test_a_lock_request_that_waited_sees_the_lock_that_was_taken_meanwhile(hq: Hq) -> None:
    card, first, second = hq.issue(500_00), *tills_in_one_store(hq, 2)
    with started(2) as start, held(hq, "LOCK TABLE live_locks IN SHARE MODE"):
        # The first has changed the card's row, not committed, and waits for the list of locks.
        taking = start(lambda: on_its_own(hq, first).lock(card, "X1"))
        wait_for_waiting(hq, 1)
        refused = start(lambda: on_its_own(hq, second).lock(card, "X1"))
        wait_for_waiting(hq, 2)
    assert taking.result().status_code == 201
    assert refused.result().status_code == 423
    assert refused.result().json["holder"]["terminal_id"] == first.terminal_id


@either_way
def test_a_line_that_waited_for_a_lock_without_grant_takes_no_more_than_is_there(hq: Hq) -> None:
    card, holder, other = hq.issue(500_00), *tills_in_one_store(hq, 2)
    lock_id = locked(holder, card, "X1")
    line = other.offline_line(card, "X1", 400_00)
    with started(2) as start, held(hq, posting_in_the_way(holder, card, "X1")):
        spending = start(lambda: on_its_own(hq, holder).redeem(card, "X1", 300_00, lock_id))
        wait_for_waiting(hq, 1)
        settling = start(lambda: post_batch(hq, other.store_id, [line]))
        wait_for_waiting(hq, 2)
    assert spending.result().status_code == 201
    (result,) = settling.result().json["results"]
    assert (result["funded_minor"], result["shortfall_minor"]) == (200_00, 200_00)
    assert hq.balance(card) == 0


@either_way
def test_a_line_that_waited_respects_the_granted_lock_that_was_taken_meanwhile(hq: Hq) -> None:
    allow_offline(hq)
    card, taker, other = hq.issue(500_00), *tills_in_one_store(hq, 2)
    assert taker.get("/v1/parameters").status_code == 200
    line = other.offline_line(card, "X1", 400_00)
    with started(2) as start, held(hq, "LOCK TABLE live_locks IN SHARE MODE"):
        taking = start(lambda: on_its_own(hq, taker).lock(card, "X1"))
        wait_for_waiting(hq, 1)
        settling = start(lambda: post_batch(hq, other.store_id, [line]))
        wait_for_waiting(hq, 2)
    assert taking.result().json["offline"]["allowed"]
    (result,) = settling.result().json["results"]
    assert "contended" in result["codes"]
    assert (result["funded_minor"], result["shortfall_minor"]) == (0, 400_00)
    lock_id = taking.result().json["lock_id"]
    assert taker.redeem(card, "X1", 500_00, lock_id).status_code == 201


@either_way
def test_a_command_that_waited_while_its_lock_was_spent_gets_the_right_answer(hq: Hq) -> None:
    card, till = hq.issue(500_00), hq.till()
    lock_id = locked(till, card, "X1")
    with started(3) as start, held(hq, posting_in_the_way(till, card, "X1")):
        spending = start(lambda: on_its_own(hq, till).redeem(card, "X1", 500_00, lock_id))
        wait_for_waiting(hq, 1)
        repeated = start(lambda: on_its_own(hq, till).redeem(card, "X1", 500_00, lock_id))
        other_line = start(lambda: on_its_own(hq, till).redeem(card, "X1", 1_00, lock_id, line=2))
        wait_for_waiting(hq, 3)
    assert spending.result().status_code == 201
    assert repeated.result().status_code == 200
    assert other_line.result().status_code == 409
    assert other_line.result().json["code"] == "lock_lost"


def test_a_lock_taken_over_after_a_wait_is_worth_what_the_holder_left(hq: Hq) -> None:
    card, holder, other = hq.issue(500_00), *tills_in_one_store(hq, 2)
    lock_id = locked(holder, card, "X1")
    let_lapse(hq, holder, card)
    with started(2) as start, held(hq, posting_in_the_way(holder, card, "X1")):
        spending = start(lambda: on_its_own(hq, holder).redeem(card, "X1", 120_00, lock_id))
        wait_for_waiting(hq, 1)
        taking = start(lambda: on_its_own(hq, other).lock(card, "X1"))
        wait_for_waiting(hq, 2)
    assert spending.result().status_code == 201
    assert taking.result().status_code == 201
    assert taking.result().json["max_amount_minor"] == 380_00


@either_way
def test_a_redemption_that_waited_while_its_lapsed_lock_was_taken_is_refused(hq: Hq) -> None:
    card, holder, other = hq.issue(500_00), *tills_in_one_store(hq, 2)
    lock_id = locked(holder, card, "X1")
    let_lapse(hq, holder, card)
    with started(2) as start, held(hq, "LOCK TABLE live_locks IN SHARE MODE"):
        taking = start(lambda: on_its_own(hq, other).lock(card, "X1"))
        wait_for_waiting(hq, 1)
        spending = start(lambda: on_its_own(hq, holder).redeem(card, "X1", 120_00, lock_id))
        wait_for_waiting(hq, 2)
    assert taking.result().status_code == 201
    assert spending.result().status_code == 409
    assert spending.result().json["code"] == "lock_lost"


@either_way
@pytest.mark.parametrize("is_release_first", [False, True])
def test_of_a_release_and_a_redemption_that_race_the_first_wins(
    hq: Hq, is_release_first: bool
) -> None:
    card, till = hq.issue(500_00), hq.till()
    lock_id = locked(till, card, "X1")
    calls: list[Call[TestResponse]] = [
        lambda: on_its_own(hq, till).redeem(card, "X1", 120_00, lock_id),
        lambda: on_its_own(hq, till).release(card, "X1", lock_id),
    ]
    if is_release_first:
        calls.reverse()
    with started(2) as start, held(hq, row_of(card)):
        # Who waits for a row first gets it first.
        winner = start(calls[0])
        wait_for_waiting(hq, 1)
        loser = start(calls[1])
        wait_for_waiting(hq, 2)
    assert winner.result().status_code == (200 if is_release_first else 201)
    assert loser.result().status_code == 409
    assert loser.result().json["code"] == "lock_lost"
    assert redemptions_of(hq, card) == (0 if is_release_first else 1)
    assert hq.balance(card) == (500_00 if is_release_first else 380_00)


def test_a_release_that_comes_sixteen_times_at_once_ends_the_lock_once(hq: Hq) -> None:
    card, till = hq.issue(500_00), hq.till()
    lock_id = locked(till, card, "X1")
    calls = [lambda: on_its_own(hq, till).release(card, "X1", lock_id)] * MANY
    answers = forced_to_meet(hq, calls, on=row_of(card))
    assert statuses(answers) == {200: MANY}
    replayed = [answer.headers.get("Idempotency-Replayed") for answer in answers]
    assert Counter(replayed) == {None: 1, "true": MANY - 1}
    assert len(hq.sql("SELECT 1 FROM lock_events WHERE lock_id = %s", lock_id)) == 1


@either_way
def test_a_batch_and_an_online_redemption_of_one_key_post_once(hq: Hq) -> None:
    card, till = hq.issue(500_00), hq.till()
    lock_id = locked(till, card, "X1")
    line = till.offline_line(card, "X1", 500_00, lock_id=lock_id)
    with started(3) as start, held(hq, row_of(card)):
        settling = start(lambda: post_batch(hq, till.store_id, [line]))
        wait_for_waiting(hq, 1)
        redeeming = start(lambda: on_its_own(hq, till).redeem(card, "X1", 500_00, lock_id))
        wait_for_waiting(hq, 2)
        again = start(lambda: post_batch(hq, till.store_id, [line]))
        wait_for_waiting(hq, 3)
    assert settling.result().json["counts"] == {"applied": 1}
    assert redeeming.result().status_code == 200
    assert redeeming.result().headers["Idempotency-Replayed"] == "true"
    assert again.result().json["counts"] == {"duplicate": 1}
    assert redemptions_of(hq, card) == 1


@either_way
def test_a_batch_that_waits_for_an_online_redemption_of_one_key_is_a_duplicate(hq: Hq) -> None:
    card, till = hq.issue(500_00), hq.till()
    lock_id = locked(till, card, "X1")
    line = till.offline_line(card, "X1", 500_00, lock_id=lock_id)
    with started(2) as start, held(hq, posting_in_the_way(till, card, "X1")):
        redeeming = start(lambda: on_its_own(hq, till).redeem(card, "X1", 500_00, lock_id))
        wait_for_waiting(hq, 1)
        settling = start(lambda: post_batch(hq, till.store_id, [line]))
        wait_for_waiting(hq, 2)
    assert redeeming.result().status_code == 201
    (result,) = settling.result().json["results"]
    assert (result["outcome"], result["original_outcome"]) == ("duplicate", "applied")
    assert redemptions_of(hq, card) == 1


def test_a_lock_asked_for_while_a_batch_settles_the_old_one_is_refused_or_given(hq: Hq) -> None:
    card, holder, other = hq.issue(500_00), *tills_in_one_store(hq, 2)
    lock_id = locked(holder, card, "X1")
    line = holder.offline_line(card, "X1", 120_00, lock_id=lock_id)
    with started(2) as start, held(hq, "LOCK TABLE live_locks IN SHARE MODE"):
        settling = start(lambda: post_batch(hq, holder.store_id, [line]))
        wait_for_waiting(hq, 1)
        # Not committed yet, so the old lock still counts, and nobody waits to learn that.
        refused = start(lambda: on_its_own(hq, other).lock(card, "X1"))
        assert refused.result(PATIENCE_SECONDS).status_code == 423
    assert settling.result().json["counts"] == {"applied": 1}
    given = other.lock(card, "X1")
    assert given.status_code == 201
    assert given.json["max_amount_minor"] == 380_00


@either_way
@pytest.mark.parametrize("is_of_this_key", [False, True])
def test_a_lock_request_that_waited_while_a_batch_took_from_the_card_knows_of_it(
    hq: Hq, is_of_this_key: bool
) -> None:
    card, till = hq.issue(500_00), hq.till()
    line = till.offline_line(card, "X1" if is_of_this_key else "X2", 120_00)
    with started(2) as start, held(hq, "LOCK TABLE offline_batch_results IN SHARE MODE"):
        settling = start(lambda: post_batch(hq, till.store_id, [line]))
        wait_for_waiting(hq, 1)
        taking = start(lambda: on_its_own(hq, till).lock(card, "X1"))
        wait_for_waiting(hq, 2)
    assert settling.result().json["counts"] == {"applied": 1}
    if is_of_this_key:
        assert taking.result().status_code == 409
        assert taking.result().json["code"] == "already_concluded"
    else:
        assert taking.result().status_code == 201
        assert taking.result().json["max_amount_minor"] == 380_00


@pytest.mark.usefixtures("no_deadlock")
def test_batches_with_two_cards_in_opposite_orders_wait_for_the_lower_card_first(hq: Hq) -> None:
    tills = tills_in_one_store(hq, 2)
    low, high = sorted((hq.issue(500_00), hq.issue(500_00)), key=lambda card: card.instrument_id)
    orders = [(low, high), (high, low)]
    with started(2) as start, held(hq, row_of(low)):
        posted = [
            start(lambda till=till, order=order: post_batch(hq, till.store_id, sold(till, *order)))
            for till, order in zip(tills, orders, strict=True)
        ]
        wait_for_waiting(hq, 2)
        with held(hq, row_of(high) + " NOWAIT"):
            pass  # neither has taken the higher one before the lower one
    assert [answer.result().json["counts"] for answer in posted] == [{"applied": 2}] * 2
    assert [hq.balance(card) for card in orders[0]] == [480_00, 480_00]


@pytest.mark.usefixtures("no_deadlock")
def test_batches_with_two_cards_in_opposite_orders_never_deadlock(hq: Hq) -> None:
    tills = tills_in_one_store(hq, 4)
    one, other = hq.issue(100_000_00), hq.issue(100_000_00)
    rounds = 25
    for round_number in range(rounds):
        calls = []
        for place, till in enumerate(tills):
            order = (one, other) if place % 2 else (other, one)
            lines = sold(till, *order, transaction_id=f"X{round_number}")
            calls.append(lambda till=till, lines=lines: post_batch(hq, till.store_id, lines))
        assert statuses(together(calls)) == {201: 4}
    spent_minor = rounds * len(tills) * 10_00
    assert [hq.balance(card) for card in (one, other)] == [100_000_00 - spent_minor] * 2


@pytest.mark.usefixtures("no_deadlock")
def test_overlapping_shuffled_batches_and_online_redemptions_post_every_key_once(hq: Hq) -> None:
    chance = random.Random(20251121)
    tills = tills_in_one_store(hq, 4)
    sales = [a_locked_sale(hq, chance.choice(tills), place) for place in range(24)]
    shared = [hq.issue(10_000_00) for _ in range(6)]
    free = [
        (chance.choice(tills), chance.choice(shared), f"F{place}", chance.randint(1, 50_00))
        for place in range(40)
    ]
    lines = [
        till.offline_line(card, transaction_id, amount_minor, lock_id=lock_id)
        for till, card, transaction_id, amount_minor, lock_id in sales
    ] + [till.offline_line(card, *sold_free) for till, card, *sold_free in free]
    shuffled = [chance.sample(lines, 50) for _ in range(8)]
    calls: list[Call[Sequence[TestResponse]]] = [
        lambda mine=mine: [post_batch(hq, tills[0].store_id, mine)] for mine in shuffled
    ]
    calls += [
        lambda part=part: [on_its_own(hq, till).redeem(*sale) for till, *sale in part]
        for part in (sales[0::2], sales[1::2])
    ]
    for answers in together(calls):
        assert set(statuses(answers)) <= {200, 201}
    assert post_batch(hq, tills[0].store_id, lines).json["counts"] == {"duplicate": len(lines)}
    assert all(redemptions_of(hq, card) == 1 for _, card, *_ in sales)
    for card in shared:
        spent = [amount_minor for _, one, _, amount_minor in free if one == card]
        assert hq.balance(card) == 10_000_00 - sum(spent)
        assert redemptions_of(hq, card) == len(spent)
    assert hq.sql("SELECT batch_id FROM offline_batches WHERE settled_at IS NULL") == []


@pytest.mark.usefixtures("no_deadlock")
def test_a_batch_that_comes_eight_times_at_once_is_received_once(hq: Hq) -> None:
    tills = tills_in_one_store(hq, 2)
    cards = [hq.issue(500_00) for _ in range(10)]
    lines = [
        till.offline_line(card, f"X{place}", 10_00)
        for till in tills
        for place, card in enumerate(cards)
    ]
    batch_id, sync = a_name("batch"), hq.sync(tills[0].store_id)
    calls = [lambda: post_as(hq, sync, tills[0].store_id, lines, batch_id)] * 8
    answers = forced_to_meet(hq, calls, on="LOCK TABLE offline_batches IN SHARE MODE")
    assert statuses(answers) == {201: 1, 200: 7}
    assert all(answer.json["results"] == answers[0].json["results"] for answer in answers)
    assert all(answer.json["settled_at"] for answer in answers)
    stored = hq.sql(f"SELECT position FROM ({SETTLED}) AS one WHERE batch_id = %s", batch_id)
    assert sorted(position for (position,) in stored) == list(range(len(lines)))
    assert all(hq.balance(card) == 480_00 for card in cards)


def test_of_two_different_batches_with_one_id_at_once_one_is_refused(hq: Hq) -> None:
    card, till = hq.issue(500_00), hq.till()
    batch_id = a_name("batch")
    calls = [
        lambda line=line: post_batch(hq, till.store_id, [line], batch_id)
        for line in (till.offline_line(card, "X1", 10_00), till.offline_line(card, "X2", 10_00))
    ]
    answers = forced_to_meet(hq, calls, on="LOCK TABLE offline_batches IN SHARE MODE")
    assert statuses(answers) == {201: 1, 422: 1}
    refused = next(answer for answer in answers if answer.status_code == 422)
    assert refused.json["code"] == "batch_id_reused"
    assert redemptions_of(hq, card) == 1


def test_batches_with_the_same_unknown_cards_in_opposite_orders_do_not_deadlock(hq: Hq) -> None:
    till = hq.till()
    unknown = [Card("gift_card", a_number(), str(uuid4()), "SEK") for _ in range(5)]
    there = [till.offline_line(card, f"X{n}", 10_00) for n, card in enumerate(unknown)]
    sequences = [line["sequence"] for line in there]
    # The till was set up again and its journal counts the same sales in another order.
    back = [
        {**line, "sequence": sequence}
        for line, sequence in zip(there, reversed(sequences), strict=True)
    ]
    key = BusinessKey(till.store_id, till.terminal_id, "X2", 1)
    content = Content("redeem", UUID(unknown[2].instrument_id), 10_00, "SEK", None)
    assert_opposite_orders_settle(hq, till, there, case_id_of(key, content), back=back)


def assert_opposite_orders_settle(
    hq: Hq, till: Till, there: list[Any], middle_case_id: UUID, *, back: list[Any] | None = None
) -> None:
    """Let two batches open the same cases from both ends, and meet in the middle.

    The batch that arrives first is received last, so that neither waits for the other as a whole.
    """
    batch_id = a_name("batch")
    header = (
        "INSERT INTO offline_batches (store_id, batch_id, body_sha256, lines_count, received_at,"
        f" received_by, parameters_revision) VALUES ('{till.store_id}', '{batch_id}',"
        " sha256('other'), 1, now(), 'nobody', 0)"
    )
    middle = (
        "INSERT INTO cases (case_id, outcome, codes, store_id, shortfall_minor, opened_at)"
        f" VALUES ('{middle_case_id}', 'quarantined', '{{}}', 'S', 0, now())"
    )
    before = deadlocks(hq)
    with started(2) as start, held(hq, middle), held(hq, header) as arrival:
        first = start(lambda: post_batch(hq, till.store_id, there, batch_id))
        wait_for_waiting(hq, 1)
        second = start(lambda: post_batch(hq, till.store_id, back or there[::-1]))
        wait_for_waiting(hq, 2)
        arrival.rollback()
        received = "SELECT 1 FROM offline_batches WHERE batch_id = %s"
        wait_until(lambda: hq.sql(received, batch_id) == [(1,)], "received batch")
        wait_for_waiting(hq, 2)
    assert statuses([first.result(), second.result()]) == {201: 2}
    assert deadlocks(hq) == before


def test_of_two_administrators_who_edit_the_parameters_at_once_one_is_told(hq: Hq) -> None:
    seen = hq.admin.get("/v1/admin/parameters").headers["ETag"]
    calls = [
        lambda hours=hours: on_its_own(hq, hq.admin).patch(
            "/v1/admin/parameters",
            {"parameters": {"offline_grant_hours": hours}, "reason": "race"},
            If_Match=seen,
        )
        for hours in (24, 48)
    ]
    exclusive = "LOCK TABLE parameter_revisions IN SHARE ROW EXCLUSIVE MODE"
    answers = forced_to_meet(hq, calls, on=exclusive)
    assert statuses(answers) == {200: 1, 412: 1}
    saved = next(answer for answer in answers if answer.status_code == 200)
    refused = next(answer for answer in answers if answer.status_code == 412)
    assert refused.json["current_revision"] == saved.json["revision"]
    now = hq.admin.get("/v1/admin/parameters").json
    assert now["parameters"] == saved.json["parameters"]


def test_an_edit_of_a_store_overlooks_none_of_the_company_at_the_same_time(hq: Hq) -> None:
    company, store = "/v1/admin/parameters", f"/v1/admin/stores/{hq.make_store()}/parameters"
    hours = hq.admin.get(company).json["parameters"]["offline_grant_hours"] + 1
    seen = {path: hq.admin.get(path).headers["ETag"] for path in (company, store)}
    calls = [
        lambda path=path: on_its_own(hq, hq.admin).patch(
            path,
            {"parameters": {"offline_grant_hours": hours}, "reason": "race"},
            If_Match=seen[path],
        )
        for path in (company, store)
    ]
    exclusive = "LOCK TABLE parameter_revisions IN SHARE ROW EXCLUSIVE MODE"
    of_company, of_store = forced_to_meet(hq, calls, on=exclusive)
    assert of_company.status_code == 200, "an edit of a store makes nobody else stale"
    if of_store.status_code == 200:
        assert of_store.json["revision"] < of_company.json["revision"]
    else:
        assert of_store.status_code == 412
        assert of_store.json["current_revision"] == of_company.json["revision"]


def test_of_two_issues_of_one_number_at_once_one_wins(hq: Hq) -> None:
    number = a_number()
    calls = [lambda: an_issue(hq, a_name("issue"), number)] * 2
    answers = forced_to_meet(hq, calls, on="LOCK TABLE instruments IN SHARE MODE")
    assert statuses(answers) == {201: 1, 409: 1}
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.json["code"] == "instrument_exists"


@pytest.mark.parametrize("number", [None, "given"])
def test_an_issue_that_comes_sixteen_times_at_once_is_issued_once(
    hq: Hq, number: str | None
) -> None:
    reference = a_name("issue")
    chosen = a_number() if number else None
    calls = [lambda: an_issue(hq, reference, chosen)] * MANY
    answers = forced_to_meet(hq, calls, on="LOCK TABLE instruments IN SHARE MODE")
    assert statuses(answers) == {201: 1, 200: MANY - 1}
    assert len({answer.json["instrument"]["instrument_id"] for answer in answers}) == 1
    instrument_id = answers[0].json["instrument"]["instrument_id"]
    assert hq.sql("SELECT 1 FROM postings WHERE instrument_id = %s", instrument_id) == [(1,)]


def test_of_two_issues_of_one_reference_and_two_numbers_at_once_one_is_refused(
    hq_of_its_own: Hq,
) -> None:
    hq, reference = hq_of_its_own, a_name("issue")
    calls = [lambda number=number: an_issue(hq, reference, number) for number in two_far_apart()]
    answers = forced_to_meet(hq, calls, on="LOCK TABLE postings IN SHARE MODE")
    assert_invariants(hq.sql)
    assert statuses(answers) == {201: 1, 422: 1}


@either_way
def test_of_one_key_redeemed_on_two_cards_of_one_bucket_at_once_one_is_refused(hq: Hq) -> None:
    # Of two buckets both may be posted: docs/decisions/0008.
    till, first = hq.till(), a_number()
    while bucket_of_number(second := a_number()) != bucket_of_number(first):
        pass
    sales = [
        (card, "X1", 10_00, locked(till, card, "X1"))
        for card in (issued(hq, first), issued(hq, second))
    ]
    calls = [lambda sale=sale: on_its_own(hq, till).redeem(*sale) for sale in sales]
    answers = forced_to_meet(hq, calls, on="LOCK TABLE postings IN SHARE MODE")
    assert statuses(answers) == {201: 1, 422: 1}
    refused = next(answer for answer in answers if answer.status_code == 422)
    assert refused.json["code"] == "business_key_reused"


def test_a_deadlock_is_cured_by_trying_again(hq: Hq, database_url: str) -> None:
    if hq.sql("SHOW is_superuser") != [("on",)]:
        pytest.skip("only a superuser decides who notices a deadlock")
    card, till = hq.issue(500_00), hq.till()
    lock_id = locked(till, card, "X1")
    before = deadlocks(hq)
    with another_service(database_url, "deadlock_timeout=50ms") as impatient, started(1) as start:
        with held(hq, posting_in_the_way(till, card, "X1")) as beside:
            redeeming = start(lambda: on_its_own(impatient, till).redeem(card, "X1", 1, lock_id))
            wait_for_waiting(hq, 1)
            # Now each waits for the other; the service looks first and gives way.
            beside.execute(row_of(card).encode())
        assert redeeming.result().status_code == 201
    # That the count moves is what `no_deadlock` rests on.
    assert deadlocks(hq) == before + 1
    assert redemptions_of(hq, card) == 1


def test_a_row_that_stays_locked_is_told_as_unavailable_and_nothing_is_written(
    hq: Hq, database_url: str
) -> None:
    card, till = hq.issue(500_00), hq.till()
    lock_id = locked(till, card, "X1")
    line = till.offline_line(card, "X1", 120_00, lock_id=lock_id)
    with another_service(database_url, "lock_timeout=100ms") as impatient:
        other = hq.till()
        let_lapse(hq, till, card)
        calls: list[Call[TestResponse]] = [
            lambda: on_its_own(impatient, till).redeem(card, "X1", 120_00, lock_id),
            lambda: on_its_own(impatient, till).release(card, "X1", lock_id),
            lambda: on_its_own(impatient, other).lock(card, "X1"),
            lambda: post_batch(impatient, till.store_id, [line]),
        ]
        with started(len(calls)) as start, held(hq, row_of(card)):
            answers = [start(call).result(PATIENCE_SECONDS) for call in calls]
        for answer in answers:
            assert answer.status_code == 503, answer.json
            assert answer.json["code"] == "unavailable"
            assert answer.headers["Retry-After"]
        *commands, batch = answers
        assert all("was not applied" in one.json["detail"] for one in commands)
        assert batch.json["detail"].startswith("The batch is kept")
        assert redemptions_of(hq, card) == 0
        # The batch was received before its first chunk had to wait; the next one finishes it.
        assert post_batch(impatient, till.store_id, [line]).json["counts"] == {"duplicate": 1}
    assert redemptions_of(hq, card) == 1


def test_an_issue_is_answered_although_what_waited_for_it_cannot_be_judged_yet(
    hq: Hq, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    till, number = hq.till(), a_number()
    card = Card("gift_card", number, str(KEYRING.instrument_id("gift_card", number)), "SEK")
    hq.post_batch(till.store_id, [till.offline_line(card, "X1", 10)])
    wish = {"reference": a_name("issue"), "kind": "gift_card", "currency": "SEK"}
    wish |= {"amount_minor": 100, "number": number}
    with another_service(database_url, "lock_timeout=100ms") as impatient:
        with held(hq, "LOCK TABLE cases IN ACCESS EXCLUSIVE MODE"):
            answer = impatient.admin.post("/v1/admin/instruments", wish)
        assert answer.status_code == 201, answer.json
        assert "waiting lines are judged later" in caplog.text
        assert hq.balance(card) == 100
        hq.issue(1)  # the next arrival
    assert hq.balance(card) == 90


def test_a_lock_on_a_card_that_changes_at_every_attempt_is_told_to_come_back(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, till = hq.issue(500_00), hq.till()
    monkeypatch.setattr(at_once, "lock", lambda *_: None)
    monkeypatch.setattr(instruments, "set_lock", lambda *_: instruments.LockWrite.ROW_CHANGED)
    answer = till.lock(card, "X1")
    assert answer.json["code"] == "unavailable"
    assert answer.headers.get("Retry-After")


ONE_ISSUE_PER_BUCKET = """
    (bucket, instrument_id) IN (SELECT DISTINCT ON (bucket) bucket, instrument_id
                                  FROM postings
                                 WHERE operation = 'issue')
"""
PLANTED = {
    "a balance is the sum of its postings": """
        UPDATE instruments SET balance_minor = balance_minor + 1 WHERE status = 'active'
    """,
    "versions count the postings without a gap": """
        UPDATE instruments SET version = version + 1
    """,
    "each posting carries the balance after it": """
        UPDATE postings SET balance_after_minor = balance_after_minor + 1 WHERE version = 1
    """,
    "each posting and each live lock has its instrument, in its bucket": """
        UPDATE live_locks SET bucket = 1023 - bucket
    """,
    "a business key has one original, whatever its bucket": f"""
        UPDATE postings SET transaction_id = 'X', line = 1
         WHERE operation = 'issue' AND {ONE_ISSUE_PER_BUCKET}
    """,
    "a lock funds one line": f"""
        UPDATE postings SET lock_id = '00000000-0000-4000-8000-000000000000', locked_at = posted_at
         WHERE operation = 'issue' AND {ONE_ISSUE_PER_BUCKET}
    """,
    "the list of live locks is what the instruments carry": "DELETE FROM live_locks",
    "a live lock is neither spent nor ended": """
        INSERT INTO lock_events (bucket, instrument_id, lock_id, store_id, terminal_id,
                                 transaction_id, line, purpose, amount_minor, locked_at,
                                 ended, ended_at, ended_by)
        SELECT bucket, instrument_id, lock_id, store_id, terminal_id,
               'X', 1, 'redeem', amount_minor, locked_at,
               'lapsed', locked_at, 'nobody'
          FROM live_locks
    """,
    "a shortfall has exactly one case": "DELETE FROM cases WHERE shortfall_minor > 0",
    "a held or quarantined line has its case": "DELETE FROM cases WHERE outcome = 'quarantined'",
    "an applied redemption has its posting": """
        UPDATE postings SET store_id = 'S' WHERE operation = 'redeem' AND entry = 'original'
    """,
    "a business key is applied in one line of one batch": """
        UPDATE offline_batch_results
           SET results = convert_to(replace(convert_from(results, 'UTF8'),
                                            '"duplicate"', '"applied"'), 'UTF8')
    """,
    "what leaves a used memo arrives on its remainder": """
        UPDATE instruments SET remainder_id = NULL
    """,
    "debits are credits": "DELETE FROM postings WHERE entry = 'remainder_in'",
    "the account of shortfalls is what the open cases are about": """
        UPDATE cases SET shortfall_minor = shortfall_minor - 1 WHERE shortfall_minor > 0
    """,
    "a voided line was reversed": "DELETE FROM postings WHERE entry = 'reversal'",
    "a voided line and its refunds give back what it took": """
        UPDATE postings
           SET change_minor = change_minor - 1, funded_minor = funded_minor - 1,
               amount_minor = amount_minor - 1
         WHERE entry = 'reversal'
    """,
    "what was forfeited comes back once and in full": """
        UPDATE postings SET related_instrument_id = NULL WHERE entry = 'remainder_in'
    """,
    "a used memo leads to each memo that its rest went to": """
        UPDATE instruments SET remainder_id = NULL
    """,
    "the rest of a memo is the rest of that one alone": """
        UPDATE instruments SET remainder_id = '00000000-0000-4000-8000-000000000000'
         WHERE kind = 'credit_memo'
    """,
    "the number of a used memo leads on to money that is there": """
        UPDATE instruments SET remainder_id = instrument_id WHERE remainder_id IS NOT NULL
    """,
    "a batch counts the lines that are stored": "DELETE FROM offline_batch_results",
    "what is told to be held or quarantined has a row of its own": "DELETE FROM quarantined_lines",
    "a chunk says what is in it": """
        UPDATE offline_batch_results SET counts = counts - 'duplicate'
    """,
}


@pytest.mark.parametrize("name", INVARIANTS)
def test_a_planted_fault_is_found(hq: Hq, name: str) -> None:
    till, short, memo = hq.till(), hq.issue(10_00), hq.issue(50_00, kind="credit_memo")
    lines = [till.offline_line(short, "X1", 20_00), "nonsense"]
    for _ in range(2):
        assert post_batch(hq, till.store_id, lines).status_code == 201
    assert till.redeem(memo, "X2", 20_00, locked(till, memo, "X2")).status_code == 201
    locked(till, hq.issue(10_00), "X3")
    undone = hq.issue(10_00)
    assert till.redeem(undone, "X4", 5_00, locked(till, undone, "X4")).status_code == 201
    assert till.void(undone, "X4").status_code == 201
    with held(hq, PLANTED[name]) as beside:
        found = violations(lambda query: beside.execute(query.encode()).fetchall())
    assert name in found


def forced_to_meet(hq: Hq, calls: Sequence[Call[R]], *, on: str) -> list[R]:
    """Run calls, let each run into a lock that a statement takes, and only then let them go on."""
    with started(len(calls)) as start, held(hq, on):
        running = [start(call) for call in calls]
        wait_for_waiting(hq, len(calls))
    return [one.result() for one in running]


@contextmanager
def started(threads_count: int) -> Iterator[Callable[[Call[R]], Future[R]]]:
    """Give a function that starts a call beside the test; all are awaited at the end."""
    with ThreadPoolExecutor(threads_count) as threads:
        yield threads.submit


@contextmanager
def held(hq: Hq, statement: str) -> Iterator[psycopg.Connection[Any]]:
    """Hold whatever a statement locks, on a connection beside the service, then roll it back."""
    connection = psycopg.connect(psycopg_url(hq.app.config["SQLALCHEMY_DATABASE_URI"]))
    try:
        connection.execute(statement.encode())
        yield connection
    finally:
        connection.rollback()
        connection.close()


def posting_in_the_way(till: Till, card: Card, transaction_id: str) -> str:
    """Return the statement that keeps a line's posting from being written: whoever writes it has
    the card's row by then, and waits until this is rolled back.
    """
    return (
        "INSERT INTO postings (bucket, instrument_id, version, store_id, terminal_id,"
        " transaction_id, line, entry, operation, currency, amount_minor, funded_minor,"
        " shortfall_minor, change_minor, balance_after_minor, posted_at)"
        f" SELECT bucket, instrument_id, 1000000, '{till.store_id}', '{till.terminal_id}',"
        f" '{transaction_id}', 1, 'original', 'redeem', currency, 0, 0, 0, 0, 0, now()"
        f" FROM instruments WHERE instrument_id = '{card.instrument_id}'"
    )


def wait_for_waiting(hq: Hq, sessions_count: int) -> None:
    """Return when so many sessions of this database wait for a lock."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    wait_until(lambda: hq.sql(waiting) == [(sessions_count,)], f"{sessions_count} waiting sessions")


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"no {what} within {PATIENCE_SECONDS} s"
        time.sleep(0.01)


def deadlocks(hq: Hq) -> int:
    """Return how many deadlocks this database has seen.

    A session adds what it met when it ends, so all sessions of the service are ended first.
    """
    with hq.app.app_context():
        db.engine.dispose()
    sessions = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'hq-service'"
    )
    wait_until(lambda: hq.sql(sessions) == [(0,)], "end of the service's sessions")
    ((count,),) = hq.sql(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    return int(count)


@contextmanager
def another_service(database_url: str, option: str = "") -> Iterator[Hq]:
    """Run the service a second time, on the same database with a setting of its own or another."""
    if option:
        separator = "&" if "?" in database_url else "?"
        database_url += f"{separator}options=-c%20{option.replace('=', '%3D')}"
    with running(database_url, settle_chunk_lines=7) as app:
        yield Hq(app)


def statuses(answers: Sequence[TestResponse]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


def row_of(card: Card) -> str:
    return f"SELECT 1 FROM instruments WHERE instrument_id = '{card.instrument_id}' FOR UPDATE"


def locked(till: Till, card: Card, transaction_id: str) -> str:
    answer = till.lock(card, transaction_id)
    assert answer.status_code == 201, answer.json
    lock_id: str = answer.json["lock_id"]
    return lock_id


def let_lapse(hq: Hq, holder: Till, card: Card) -> None:
    """Make a lock and its holder's last sign of life two hours old."""
    for table in ("instruments", "live_locks"):
        hq.sql(
            f"UPDATE {table} SET locked_at = locked_at - interval '2 hours'"
            " WHERE instrument_id = %s",
            card.instrument_id,
        )
    hq.sql(
        "UPDATE terminal_presence SET last_seen_at = last_seen_at - interval '2 hours'"
        " WHERE terminal_id = %s",
        holder.terminal_id,
    )


def tills_in_one_store(hq: Hq, count: int) -> list[Till]:
    store_id = hq.make_store()
    return [hq.till(store_id) for _ in range(count)]


def sold(till: Till, *cards: Card, transaction_id: str = "X1") -> list[dict[str, Any]]:
    """Return the lines of one sale that took ten from each of some cards, in their order."""
    return [
        till.offline_line(card, transaction_id, 10_00, line=number)
        for number, card in enumerate(cards, start=1)
    ]


def a_locked_sale(hq: Hq, till: Till, place: int) -> tuple[Till, Card, str, int, str]:
    """Return a till and what it redeems: card, transaction, amount and lock."""
    card, transaction_id = hq.issue(500_00), f"L{place}"
    return till, card, transaction_id, 100_00 + place, locked(till, card, transaction_id)


def post_batch(
    hq: Hq, store_id: str, lines: Sequence[Any], batch_id: str | None = None
) -> TestResponse:
    return post_as(hq, hq.sync(store_id), store_id, lines, batch_id or a_name("batch"))


def post_as(
    hq: Hq, sync: Caller, store_id: str, lines: Sequence[Any], batch_id: str
) -> TestResponse:
    body = {"store_id": store_id, "batch_id": batch_id, "lines": lines}
    return on_its_own(hq, sync).post("/v1/offline-batches", body)


def allow_offline(hq: Hq) -> None:
    hq.set_parameters(allow_concluding_gift_card_transactions_offline=True)


def redemptions_of(hq: Hq, card: Card) -> int:
    """Return how many redemptions of a card were posted."""
    ((count,),) = hq.sql(
        "SELECT count(*) FROM postings WHERE instrument_id = %s"
        " AND operation = 'redeem' AND entry = 'original'",
        card.instrument_id,
    )
    return int(count)


def an_issue(hq: Hq, reference: str, number: str | None) -> TestResponse:
    wish = {"reference": reference, "kind": "gift_card", "currency": "SEK", "amount_minor": 50_00}
    named = wish if number is None else {**wish, "number": number}
    return on_its_own(hq, hq.admin).post("/v1/admin/instruments", named)


def issued(hq: Hq, number: str) -> Card:
    answer = an_issue(hq, a_name("issue"), number)
    assert answer.status_code == 201, answer.json
    return Card("gift_card", number, answer.json["instrument"]["instrument_id"], "SEK")


def two_far_apart() -> list[str]:
    """Return two card numbers whose instruments are in different buckets."""
    first = a_number()
    while bucket_of_number(second := a_number()) == bucket_of_number(first):
        pass
    return [first, second]


def bucket_of_number(number: str) -> int:
    return bucket_of(KEYRING.instrument_id("gift_card", number))
