"""A grant proves its lock even to an HQ that was restored from an older backup."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq_service.app import create_app
from hq_service.embedded_postgres import ThrowawayPostgres
from hq_service.store.database import db
from tests.conftest import migrate
from tests.support import Hq, place_for_data, test_settings


class Restorable:
    """An HQ whose database can be backed up and restored: a cold copy of its data directory."""

    def __init__(self, postgres: ThrowawayPostgres) -> None:
        self.postgres = postgres
        self.data = postgres.directory / "data"
        self.copy = postgres.directory / "backup"
        migrate(postgres.url)
        self.hq = Hq(create_app(test_settings(postgres.url)))

    def back_up(self) -> None:
        self._while_stopped(self.data, self.copy)

    def restore(self) -> None:
        shutil.rmtree(self.data)
        self._while_stopped(self.copy, self.data)

    def _while_stopped(self, source: Path, target: Path) -> None:
        with self.hq.app.app_context():
            db.engine.dispose()
        self.postgres.stop()
        # cp and not shutil: the files belong to the server's account.
        subprocess.run(["cp", "-a", str(source), str(target)], check=True)
        self.postgres.start()


@pytest.fixture(scope="module")
def restorable() -> Iterator[Restorable]:
    with ThrowawayPostgres(place_for_data(), fsync=True) as postgres:
        one = Restorable(postgres)
        yield one
        with one.hq.app.app_context():
            db.engine.dispose()


def test_a_sale_under_a_grant_settles_clean_after_hq_forgot_the_lock(
    restorable: Restorable,
) -> None:
    hq = restorable.hq
    till, card = hq.till(), hq.issue(100)
    hq.allow_offline(till)
    restorable.back_up()
    lock = till.lock(card, "X1").json
    assert lock["offline"]["allowed"]
    restorable.restore()
    assert hq.sql("SELECT lock_id FROM instruments WHERE lock_id IS NOT NULL") == []
    line = till.offline_line(card, "X1", 60, grant=lock["offline"]["grant"])
    result = hq.post_batch(till.store_id, [line]).json["results"][0]
    assert (result["outcome"], result["codes"]) == ("applied", ["lock_reconstructed"])
    assert (result["funded_minor"], result["case_id"]) == (60, None)
    assert hq.balance(card) == 40
    second = till.offline_line(card, "X1", 10, line=2, grant=lock["offline"]["grant"])
    result = hq.post_batch(till.store_id, [second]).json["results"][0]
    assert result["codes"] == ["lock_already_used"]


def test_a_card_issued_and_spent_under_grants_comes_back_after_a_restore(
    restorable: Restorable,
) -> None:
    hq = restorable.hq
    till = hq.till()
    hq.allow_offline(till)
    shutil.rmtree(restorable.copy, ignore_errors=True)
    restorable.back_up()
    lock = till.lock_new("X1", 100)
    card = hq.card_of(lock)
    restorable.restore()
    line = till.offline_line(
        card, "X1", 100, operation="issue", grant=lock.json["offline"]["grant"]
    )
    result = hq.post_batch(till.store_id, [line]).json["results"][0]
    assert (result["outcome"], result["codes"]) == ("applied", ["lock_reconstructed"])
    assert hq.balance(card) == 100
