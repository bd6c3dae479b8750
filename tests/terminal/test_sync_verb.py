"""`hq sync`, as a process of its own: one till, or a store with its sessions."""

from __future__ import annotations

import hashlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hq_service.cli import main
from hq_service.terminal.sync_job import ATTEMPTS, SyncFailed, SyncJob
from tests.terminal.shop import Fate, Line, Shop, Till
from tests.terminal.test_sync import sell_offline

ROOT = Path(__file__).resolve().parents[2]


def arguments(shop: Shop, directory: Path) -> list[str]:
    return ["sync", "--directory", str(directory), "--url", shop.url]


def sync(shop: Shop, directory: Path, key: str | None) -> Result:
    return CliRunner().invoke(main, arguments(shop, directory), env={"HQ_KEY": key})


def sync_in_a_process(
    shop: Shop, directory: Path, key: str, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hq_service", *arguments(shop, directory)],
        cwd=ROOT,
        env={**os.environ, "HQ_KEY": key, "COLUMNS": "80"},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def name_of(till: Till) -> str:
    return f"{till.register.store_id} {till.register.terminal_id}"


def test_it_synchronises_one_till_with_the_tills_key(shop: Shop) -> None:
    till, cards = shop.till(), [shop.card(100_00) for _ in range(2)]
    sell_offline(till, *cards)
    in_use = sync_in_a_process(shop, till.directory, till.register.key)
    assert (in_use.returncode, len(till.journal)) == (1, 2)
    assert "in use by another process: end that till" in in_use.stderr
    till.terminal.close()
    done = sync(shop, till.directory, till.register.key)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        f"{name_of(till)}: 2 of 2 lines sent",
        f"{name_of(till)}: 2 lines in 1 batches sent, 0 pending.",
    ]
    assert [shop.hq.balance(card) for card in cards] == [90_00] * 2
    assert shop.shown(till)["report"]["last_sync"]["status"] == "succeeded"
    again = sync(shop, till.directory, till.register.key)
    assert again.stdout == f"{name_of(till)}: 0 lines in 0 batches sent, 0 pending.\n"


def test_it_synchronises_a_store_with_its_sessions_with_the_sync_jobs_key(shop: Shop) -> None:
    tills, cards = [shop.till() for _ in range(2)], [shop.card(100_00) for _ in range(2)]
    for till, card in zip(tills, cards, strict=True):
        sell_offline(till, card)
        till.terminal.close()
    schedule = shop.hq.make_schedule("1110", "1090", "P-0001")
    assert shop.hq.run_now(schedule, shop.store_id).status_code == 201
    done = sync(shop, shop.directory, shop.sync_key)
    assert done.exit_code == 0, done.output
    told = done.stdout.splitlines()
    assert sum("1 lines in 1 batches sent, 0 pending" in line for line in told) == 2
    sessions = {line for line in told if line.startswith("session")}
    assert sessions == {f"session {job}: applied" for job in ("1110", "1090", "P-0001")}
    [(checksum,)] = shop.hq.sql(
        "SELECT checksum_sha256 FROM distribution_sessions"
        " WHERE store_id = %s AND job_id = '1110' AND status = 'applied'",
        shop.store_id,
    )
    package = shop.directory / "packages" / "1110.json"
    assert hashlib.sha256(package.read_bytes()).digest() == bytes(checksum)
    assert [shop.hq.balance(card) for card in cards] == [90_00] * 2


def test_it_stops_at_a_refusal_says_why_and_keeps_everything(shop: Shop) -> None:
    till, other = shop.till(), shop.till()
    sell_offline(till, shop.card(100_00))
    till.terminal.close()
    nobody = sync(shop, till.directory, "not-a-key")
    assert nobody.exit_code == 1
    assert "A valid API key is needed" in nobody.stderr
    assert "kept" in nobody.stderr
    wrong = sync(shop, till.directory, other.register.key)
    assert wrong.exit_code == 1
    assert f"it is the store of register {name_of(till)}" in wrong.stderr
    without = sync(shop, till.directory, None)
    assert without.exit_code == 1
    assert "HQ_KEY is not set" in without.stderr
    empty = shop.directory / "empty"
    empty.mkdir()
    nothing = sync(shop, empty, till.register.key)
    assert nothing.exit_code == 1
    assert "There is no till's store" in nothing.stderr
    assert len(shop.start(till.register).journal) == 1


def test_on_a_terminal_it_shows_a_bar(shop: Shop) -> None:
    till = shop.till()
    sell_offline(till, shop.card(100_00))
    till.terminal.close()
    reading, terminal = pty.openpty()
    try:
        done = sync_in_a_process(shop, till.directory, till.register.key, stdout=terminal)
        shown = os.read(reading, 65_536).decode()
    finally:
        os.close(reading)
        os.close(terminal)
    assert done.returncode == 0, done.stderr
    assert "100%" in shown
    assert f"{name_of(till)}: 1 lines in 1 batches sent, 0 pending." in shown


def test_it_tries_again_with_pauses_and_keeps_everything_when_hq_stays_away(shop: Shop) -> None:
    till = shop.till()
    sell_offline(till, shop.card(100_00))
    till.terminal.close()
    line, pauses = Line(shop.url, till.register.key), []
    line.next.extend([Fate.DELIVERED, Fate.BUSY])
    SyncJob(line, till.directory, sleep=pauses.append).run()
    assert len(pauses) == 1
    sell_offline(till := shop.start(till.register), shop.card(100_00))
    till.terminal.close()
    line.next.extend([Fate.DELIVERED, *[Fate.REQUEST_LOST] * ATTEMPTS])
    with line, pytest.raises(SyncFailed, match="everything is kept"):
        SyncJob(line, till.directory, sleep=pauses.append).run()
    assert len(pauses) == 1 + ATTEMPTS - 1
    assert len(shop.start(till.register).journal) == 1
