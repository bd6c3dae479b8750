"""Heartbeats of one till that arrive in any order, and all at once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from flask import Flask

from tests.support import Caller, Hq, Till, running

MANY = 12
ROUNDS = 4


@pytest.fixture(scope="module")
def app(database_url: str) -> Iterator[Flask]:
    with running(database_url, threads=MANY + 2) as app:
        yield app


def test_whatever_arrives_first_the_report_that_was_sent_last_stays(hq: Hq) -> None:
    till = hq.till()
    chance = random.Random(7)
    for turn in range(ROUNDS):
        began_at = datetime.now(UTC) - timedelta(seconds=100 - 20 * turn)
        numbers = chance.sample(range(MANY), MANY)
        barrier = Barrier(MANY)

        def send(number: int, began_at: datetime = began_at, barrier: Barrier = barrier) -> int:
            sent_at = (began_at + timedelta(milliseconds=number)).isoformat()
            own = Till(hq.app.test_client(), till.key, till.store_id, till.terminal_id)
            barrier.wait()
            answer = own.heartbeat(
                sent_at=sent_at,
                pending_count=number + 1,
                oldest_pending_at=sent_at,
                parameter_revision=0,
            )
            return int(answer.status_code)

        with ThreadPoolExecutor(MANY) as pool:
            assert set(pool.map(send, numbers)) == {200}
        [register] = (
            Caller(hq.app.test_client(), hq.admin.key)
            .get(f"/v1/admin/connection-status?store_id={till.store_id}")
            .json["registers"]
        )
        assert register["report"]["pending_count"] == MANY
        assert register["acknowledged_revision"] == 0
