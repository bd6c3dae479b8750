"""How many statements an operation sends: a budget that no machine changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from werkzeug.test import TestResponse

from tests.support import Hq, Till, a_name, sale_line


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collect every statement that any connection of this process sends."""
    sent: list[str] = []
    execute: Callable[..., Any] = psycopg.Cursor.execute

    def counted(self: Any, query: Any, *arguments: Any, **keywords: Any) -> Any:
        if query != POOL_CHECK:
            sent.append(str(query))
        return execute(self, query, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", counted)
        yield sent


def budget_of(
    monkeypatch: pytest.MonkeyPatch, request: Callable[[], TestResponse], status: int
) -> int:
    """Return how many statements a request sends, once what can be kept is kept."""
    with counting(monkeypatch) as sent:
        answer = request()
    assert answer.status_code == status, answer.json
    return len(sent)


def test_a_lock_a_redemption_and_a_balance_have_a_budget(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    till, card = hq.till(), hq.issue(1_000)
    till.redeem(card, "warm", 1, till.lock(card, "warm").json["lock_id"])  # parameters are kept
    answers: dict[str, TestResponse] = {}

    def lock() -> TestResponse:
        answers["lock"] = till.lock(card, "X1")
        return answers["lock"]

    assert budget_of(monkeypatch, lock, 201) == LOCK_STATEMENTS
    refused = hq.till(till.store_id)
    assert budget_of(monkeypatch, lambda: refused.lock(card, "X2"), 423) == DENIED_STATEMENTS
    lock_id = answers["lock"].json["lock_id"]
    redeem = budget_of(monkeypatch, lambda: till.redeem(card, "X1", 10, lock_id), 201)
    assert redeem == REDEEM_STATEMENTS
    balance = {"kind": card.kind, "number": card.number}
    inquiry = budget_of(monkeypatch, lambda: till.post("/v1/balance-inquiries", balance), 200)
    assert inquiry == BALANCE_STATEMENTS


POOL_CHECK = ";"  # the pool asks whether a connection still lives
SIGN_IN = 1
LOCK_STATEMENTS = SIGN_IN + 4  # read instrument, read facts, set lock, list it
DENIED_STATEMENTS = SIGN_IN + 2  # read instrument, read facts: nothing is written
# Rows, voids, postings, held lines; what is in force; lost locks are not asked for;
# posting, instrument, lock list; presence read.
REDEEM_STATEMENTS = SIGN_IN + 9
BALANCE_STATEMENTS = SIGN_IN + 1


@pytest.mark.parametrize("lines", [1, 100, 1_000])
def test_a_chunk_sends_the_same_number_of_statements_whatever_its_size(
    hq: Hq, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    assert chunk_statements(hq, monkeypatch, lines) == chunk_statements(hq, monkeypatch, 1)


def chunk_statements(hq: Hq, monkeypatch: pytest.MonkeyPatch, lines: int) -> int:
    till, card = hq.till(), hq.issue(10_000)
    batch = [till.offline_line(card, f"X{place}", 1) for place in range(lines)]
    sync = hq.sync(till.store_id)
    body = {"store_id": till.store_id, "batch_id": a_name("batch"), "lines": batch}
    with counting(monkeypatch) as sent:
        assert sync.post("/v1/offline-batches", body).status_code == 201
    return len(sent)


def test_a_sale_of_ten_lines_sends_as_many_statements_as_one_of_one(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sale_statements(hq, monkeypatch, 10) == sale_statements(hq, monkeypatch, 1)


def sale_statements(hq: Hq, monkeypatch: pytest.MonkeyPatch, lines: int) -> int:
    till: Till = hq.till()
    till.lock(hq.issue(1), "warm")
    sale = a_name("X")
    locked = [till.lock(hq.issue(10), sale, line) for line in range(1, lines + 1)]
    wish = [sale_line(lock, 10, line) for line, lock in enumerate(locked, start=1)]
    return budget_of(monkeypatch, lambda: till.conclude(sale, *wish), 201)
