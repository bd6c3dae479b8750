"""What a batch tells while it is settled, of its sender, and of what is missing in its journals."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask import Flask

from hq_service.domain.actors import Actor, Role
from hq_service.operations import batch_lines, offline_batches
from hq_service.operations.batch_lines import BatchReader
from tests.acting import posted, redeemed, release_line, settled
from tests.support import KEYRING, Card, Hq, Till, a_name, psycopg_url, running

pytestmark = pytest.mark.usefixtures("whole_afterwards")

LINES = 20
SETTLED = 10
PATIENCE_SECONDS = 30.0


@pytest.fixture(scope="module")
def app(database_url: str) -> Iterator[Flask]:
    # A batch of a few lines counts as a large one, and is settled behind its answer.
    with running(database_url, batch_synchronous_lines_max=9, settle_chunk_lines=5) as app:
        yield app


# In which order a batch is settled whose lines are too many to stay in memory.


@pytest.mark.parametrize("window_lines", [1, 7, 1_000])
def test_the_lines_of_a_long_batch_are_settled_in_order_however_they_came(
    hq: Hq, monkeypatch: pytest.MonkeyPatch, window_lines: int
) -> None:
    monkeypatch.setattr(batch_lines, "WINDOW_LINES", window_lines)
    first, card = hq.till(), hq.issue(LINES)
    tills = (first, hq.till(first.store_id))
    lines = [till.offline_line(card, f"X{n}", 1) for n in range(LINES) for till in tills]
    random.Random(7).shuffle(lines)
    answer = hq.post_batch(first.store_id, [{"no": "line"}, *lines])
    assert answer.status_code == 202
    wait_until_settled(hq, answer.headers["Location"], 1 + len(lines))
    unreadable, *results = hq.admin.get(f"{answer.headers['Location']}/lines").json["results"]
    assert unreadable["outcome"] == "quarantined"
    in_order = sorted(lines, key=lambda line: (line["terminal_id"], line["sequence"]))
    for line, result in zip(lines, results, strict=True):
        left = LINES - in_order.index(line)
        assert result["funded_minor"] == int(left > 0)
        assert result["balance_after_minor"] == max(left - 1, 0)


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_a_stored_batch_has_the_same_order_as_its_lines_in_memory(
    hq: Hq, is_shuffled: bool
) -> None:
    """Also if it is stored in several parts, and settled through several windows."""
    till = hq.till()
    card = Card("gift_card", "6006123456789012", str(uuid4()), "SEK")
    lines = [
        {**till.offline_line(card, f"X{n}", 1), "terminal_id": f"T{n // 3_000}"}
        for n in range(batch_lines.WINDOW_LINES + 1_001)
    ]
    lines[:0] = [{"no": "line"}, {**lines[0], "line": 0}]
    if is_shuffled:
        random.Random(7).shuffle(lines)
    body = {"store_id": till.store_id, "batch_id": a_name("batch"), "lines": lines}
    whose = (body["store_id"], body["batch_id"])
    at = datetime.now(UTC)
    reader = BatchReader(KEYRING, at, lines_max=len(lines), kept_max=len(lines))
    envelope, received = reader.read([json.dumps(body).encode()], is_ndjson=False)
    actor = Actor(Role.SYNC, "test", till.store_id)
    with hq.app.app_context():
        offline_batches.receive(envelope, received, actor, at)
        stored = offline_batches._stored_in_order(*whose)
        in_memory = offline_batches._in_order(*whose, received.kept)
        assert stored.terminal_ids == in_memory.terminal_ids == {"T0", "T1", "T2", "T3"}
        for start in [*range(0, len(lines), 700), 5, len(lines) - 1, 8_500, 0]:
            assert stored[start : start + 700] == in_memory[start : start + 700]
        assert is_shuffled == (in_memory[0:9_000] != received.kept[0:9_000])
        offline_batches.settle_batch(*whose, KEYRING, at, chunk_lines=10_000)
        assert offline_batches._stored_in_order(*whose) is None


# Pages of a batch that is being settled.


@contextmanager
def stopped_half_way(hq: Hq, lines: list[dict[str, Any]], till: Till, card: Card) -> Iterator[str]:
    """Post a batch that comes as far as the lines of a card, and give its location."""
    url = psycopg_url(hq.app.config["SQLALCHEMY_DATABASE_URI"])
    with psycopg.connect(url) as beside:
        beside.execute(
            "SELECT 1 FROM instruments WHERE instrument_id = %s FOR UPDATE", [card.instrument_id]
        )
        answer = hq.post_batch(till.store_id, lines)
        assert answer.status_code == 202, answer.json
        location: str = answer.headers["Location"]
        wait_until_settled(hq, location, SETTLED)
        yield location
        beside.rollback()
    wait_until_settled(hq, location, len(lines))


def wait_until_settled(hq: Hq, location: str, lines_count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (state := hq.admin.get(location).json)["settled_count"] != lines_count:
        assert time.monotonic() < deadline, state
        time.sleep(0.02)


def a_journal(hq: Hq) -> tuple[Till, Card, list[dict[str, Any]]]:
    """Return a till, the card that its later lines are about, and its lines as it wrote them."""
    till, first, second = hq.till(), hq.issue(100), hq.issue(100)
    lines = [
        till.offline_line(first if number < SETTLED else second, f"X{number}", 1)
        for number in range(LINES)
    ]
    return till, second, lines


def page(hq: Hq, location: str, after: int, limit: int) -> tuple[list[int], int | None]:
    """Return the positions that a page tells, and after which one the next begins."""
    answer = hq.admin.get(f"{location}/lines?after={after}&limit={limit}")
    assert answer.status_code == 200, answer.json
    positions = [one["position"] for one in answer.json["results"]]
    return positions, answer.json["next_after"]


def read_to_the_end(hq: Hq, location: str, after: int, limit: int) -> list[int]:
    """Turn the pages of a settled batch until there is none any more."""
    seen: list[int] = []
    next_after: int | None = after
    while next_after is not None:
        positions, next_after = page(hq, location, next_after, limit)
        seen += positions
    return seen


@pytest.mark.parametrize("limit", [3, SETTLED, 1_000])
def test_a_reader_that_comes_half_way_is_told_the_beginning_and_to_come_again(
    hq: Hq, limit: int
) -> None:
    till, card, lines = a_journal(hq)
    with stopped_half_way(hq, lines, till, card) as location:
        seen, after = [], -1
        while True:
            positions, next_after = page(hq, location, after, limit)
            assert next_after is not None
            assert next_after == (positions[-1] if positions else after)
            seen += positions
            if not positions or len(positions) < limit:
                break
            after = next_after
        assert seen == list(range(SETTLED))
    assert seen + read_to_the_end(hq, location, seen[-1], limit) == list(range(LINES))


@pytest.mark.parametrize("limit", [3, 1_000])
def test_a_reader_of_a_batch_that_is_settled_from_behind_loses_nothing(hq: Hq, limit: int) -> None:
    till, card, lines = a_journal(hq)
    with stopped_half_way(hq, lines[::-1], till, card) as location:
        positions, next_after = page(hq, location, -1, limit)
        assert (positions, next_after) == ([], -1)
    assert read_to_the_end(hq, location, -1, limit) == list(range(LINES))


def test_a_reader_is_not_told_what_lies_behind_a_line_that_is_not_settled_yet(hq: Hq) -> None:
    till, card, lines = a_journal(hq)
    # The sender's array begins with four early lines; then one that is settled late.
    shuffled = [*lines[:4], lines[-1], *lines[4:-1]]
    with stopped_half_way(hq, shuffled, till, card) as location:
        assert page(hq, location, -1, 1_000) == ([0, 1, 2, 3], 3)
        assert page(hq, location, 3, 1_000) == ([], 3)
    assert read_to_the_end(hq, location, 3, 7) == list(range(4, LINES))


# The sender.


def make_silent(hq: Hq, till: Till, hours: int = 3) -> None:
    """Make a till's last sign of life so old that it is presumed offline."""
    hq.sql(
        "UPDATE terminal_presence SET last_seen_at = last_seen_at - make_interval(hours => %s)"
        " WHERE store_id = %s AND terminal_id = %s",
        hours,
        till.store_id,
        till.terminal_id,
    )


def last_seen(hq: Hq, till: Till) -> datetime:
    ((seen_at,),) = hq.sql(
        "SELECT last_seen_at FROM terminal_presence WHERE store_id = %s AND terminal_id = %s",
        till.store_id,
        till.terminal_id,
    )
    assert isinstance(seen_at, datetime)
    return seen_at


def batch_of(till: Till, *lines: dict[str, Any]) -> dict[str, Any]:
    return {"store_id": till.store_id, "batch_id": a_name("batch"), "lines": list(lines)}


def test_a_till_that_posts_its_own_batch_is_seen(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    redeemed(till, card, "X1", 10)
    make_silent(hq, till)
    assert datetime.now(UTC) - last_seen(hq, till) > timedelta(hours=2)
    answer = till.post("/v1/offline-batches", batch_of(till, till.offline_line(card, "X2", 10)))
    assert answer.status_code == 201, answer.json
    assert datetime.now(UTC) - last_seen(hq, till) < timedelta(minutes=5)


def test_a_till_that_posts_its_own_batch_is_not_presumed_offline(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    hq.allow_offline(till)
    till.lock(card, "X1")
    make_silent(hq, till)
    for table in ("instruments", "live_locks"):
        hq.sql(
            f"UPDATE {table} SET locked_at = locked_at - interval '3 hours'"
            " WHERE instrument_id = %s",
            card.instrument_id,
        )
    other = hq.till()
    assert other.lock(card, "Y1").json["holder"]["presumed_offline"] is True
    line = till.offline_line(hq.issue(5), "X2", 1)
    assert till.post("/v1/offline-batches", batch_of(till, line)).status_code == 201
    assert other.lock(card, "Y1").json["holder"]["presumed_offline"] is False


def test_a_till_whose_batch_its_store_posts_is_not_seen(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    redeemed(till, card, "X1", 10)
    make_silent(hq, till)
    before = last_seen(hq, till)
    settled(hq, till, till.offline_line(card, "X2", 10))
    assert last_seen(hq, till) == before


# Training, totals and gaps.


def test_a_void_in_training_moves_nothing(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    redeemed(till, card, "X1", 40)
    line = till.offline_line(card, "X1", 40, status="training")
    result = settled(hq, till, {**line, "operation": "void"})
    assert (result["outcome"], result["funded_minor"]) == ("applied", 0)
    assert "voided" not in result["codes"]
    assert hq.balance(card) == 60
    assert till.void(card, "X1").status_code == 201
    assert hq.balance(card) == 100


def test_a_void_in_training_of_a_key_that_is_not_known_keeps_nothing_from_it(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    line = till.offline_line(card, "X1", 40, status="training")
    settled(hq, till, {**line, "operation": "void"})
    redeemed(till, card, "X1", 40)
    assert hq.balance(card) == 60


@pytest.mark.parametrize("amounts", [{"SEK": 0}, {"SEK": 0, "EUR": 0}, {}])
def test_totals_of_nothing_agree_with_lines_without_money(hq: Hq, amounts: dict[str, int]) -> None:
    till, card = hq.till(), hq.issue(100)
    totals = {"lines_count": 1, "amounts_minor": amounts}
    body = {**batch_of(till, release_line(till, card, "X1")), "control_totals": totals}
    assert hq.sync(till.store_id).post("/v1/offline-batches", body).status_code == 201
    assert open_notices(hq, till) == []


def test_totals_may_name_a_currency_that_no_line_is_in(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    totals = {"lines_count": 1, "amounts_minor": {"SEK": 10, "EUR": 0}}
    body = {**batch_of(till, till.offline_line(card, "X1", 10)), "control_totals": totals}
    assert hq.sync(till.store_id).post("/v1/offline-batches", body).status_code == 201
    assert open_notices(hq, till) == []


def test_totals_that_leave_out_what_lines_say_are_still_told(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    totals = {"lines_count": 1, "amounts_minor": {"SEK": 0}}
    body = {**batch_of(till, till.offline_line(card, "X1", 10)), "control_totals": totals}
    assert hq.sync(till.store_id).post("/v1/offline-batches", body).status_code == 201
    assert [codes for _, codes in open_notices(hq, till)] == [["control_total_mismatch"]]


def open_notices(hq: Hq, till: Till) -> list[tuple[str, list[str]]]:
    rows = hq.sql(
        "SELECT case_id::text, codes FROM cases WHERE store_id = %s AND outcome = 'noticed'"
        " AND resolved_at IS NULL ORDER BY case_id",
        till.store_id,
    )
    return [(case_id, codes) for case_id, codes in rows]


def a_gap(hq: Hq) -> tuple[Till, Card, list[dict[str, Any]]]:
    """Return a till of whose journal numbers 2 and 3 have not arrived, and their lines."""
    till, card = hq.till(), hq.issue(100)
    lines = [till.offline_line(card, f"X{number}", 1) for number in range(1, 5)]
    posted(hq, till, lines[0], lines[3])
    return till, card, lines[1:3]


def test_a_gap_that_stays_is_one_case_however_many_batches_come(hq: Hq) -> None:
    till, card, missing = a_gap(hq)
    for number in range(3):
        settled(hq, till, till.offline_line(card, f"Y{number}", 1))
    assert [codes for _, codes in open_notices(hq, till)] == [["sequence_gap"]]
    posted(hq, till, *missing)
    assert open_notices(hq, till) == []


def test_a_gap_in_an_old_journal_is_one_case_when_a_new_journal_goes_on(hq: Hq) -> None:
    till, card, _ = a_gap(hq)
    till.journal_id, till.sequence = "new", 0
    for number in range(5):
        settled(hq, till, till.offline_line(card, f"Y{number}", 1))
    assert [codes for _, codes in open_notices(hq, till)] == [["sequence_gap"]]


def test_a_gap_that_was_dismissed_is_not_told_again_by_the_next_batch(hq: Hq) -> None:
    till, card, _ = a_gap(hq)
    ((case_id, _),) = open_notices(hq, till)
    assert hq.resolve(case_id, "dismiss").status_code == 200
    for number in range(2):
        settled(hq, till, till.offline_line(card, f"Y{number}", 1))
    assert open_notices(hq, till) == []
    assert hq.case(case_id)["resolution"] == "dismiss"


def test_two_tills_of_a_store_have_a_case_for_the_gaps_of_each(hq: Hq) -> None:
    till, _, _ = a_gap(hq)
    other, card = hq.till(till.store_id), hq.issue(100)
    lines = [other.offline_line(card, f"X{number}", 1) for number in range(1, 4)]
    posted(hq, other, lines[0], lines[2])
    assert [codes for _, codes in open_notices(hq, till)] == [["sequence_gap"]] * 2
