"""The benchmark measures what it says: its names, its checks. No figure is judged here."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

import benchmarks
from benchmarks import __main__ as command
from benchmarks import batches, processes, redeem, requests
from benchmarks.load import LOST, Job, Load
from benchmarks.measuring import Figures, Part, Stage, Way, measure_load
from benchmarks.ratios import BARS
from benchmarks.servers import HttpServer, started
from benchmarks.sizes import QUICK

TINY = replace(
    QUICK,
    rounds=1,
    instruments=8_000,
    numbered_instruments=200,
    # CPU is told in hundredths of a second: less work might take none at all.
    hellos=320,
    balances=16,
    selects=16,
    redeems=64,
    textbook_redeems=16,
    floor_redeems=320,
    tpcb_transactions=16,
    batch_lines=30,
    long_batch_lines=40,
    has_full_batches=True,
    batches=((1, 2),),
    row_commit_lines=20,
    textbook_lines=10,
)

# The names that others read from latest.json.
NAMES = """
    redeem_over_hello redeem_over_textbook redeem_pg_over_floor redeem_wal_bytes lock_over_hello
    balance_over_hello denied_lock_over_for_update batch_10k_over_row_commit
    batch_10k_two_posters_over_row_commit batch_10k_over_textbook batch_duplicates_over_fresh
    ndjson_100k_growth_mb ndjson_100k_over_10k redeem_5m_over_10k p99_over_median
""".split()


@pytest.fixture(autouse=True)
def on_a_server_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fsync on, which the server of the other tests need not have; and with few processes."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("HQ_WORKERS", "1")


def run(parts: list[Part], output: Path) -> tuple[int, Any]:
    code = command.run(parts, TINY, output)
    return code, json.loads(output.read_text(encoding="utf-8"))


def asking(way: str, *, place: int, with_a_planted_balance: bool) -> Part:
    """Return a part that asks for the balance of one card, and may put money on another."""

    def ask(stage: Stage, service: HttpServer) -> Figures:
        if with_a_planted_balance:
            stage.database.connection.execute(
                "UPDATE instruments SET balance_minor = balance_minor + 1"
                " WHERE instrument_id = md5('card0')::uuid"
            )
        till = stage.database.company.tills[0]
        job = Job(service.port, [(requests.balance_inquiry(till, place),)] * 4, 2)
        return measure_load(stage, way, stage.database, service, [job])[0]

    @contextmanager
    def ways(stage: Stage) -> Iterator[Mapping[str, Way]]:
        with started(HttpServer(stage.database.url)) as (service,):
            yield {way: lambda: ask(stage, service)}

    return Part(way, way, ways, {})


def test_every_module_can_be_imported() -> None:
    names = [one.name for one in pkgutil.iter_modules(benchmarks.__path__)]
    assert len(names) > 10
    for name in names:
        importlib.import_module(f"benchmarks.{name}")


def test_the_parts_make_every_ratio_that_is_promised_and_each_has_a_bar() -> None:
    made = [name for part in command.PARTS for name in part.ratios]
    assert sorted(made) == sorted(NAMES)
    assert list(BARS) == NAMES


def test_a_run_writes_its_ratios_and_every_figure(tmp_path: Path) -> None:
    code, result = run([redeem.PART, batches.PART], tmp_path / "latest.json")
    assert result["faults"] == []
    assert code == 0
    assert set(result["ratios"]) == {*redeem.PART.ratios, *batches.PART.ratios}
    assert all(value > 0 for name, value in result["ratios"].items() if "growth" not in name)
    redemption = result["parts"]["redeem"]["ways"]["redeem"]
    assert redemption["operations"]["values"] == [TINY.redeems]
    assert {"service_us", "postgres_us", "load_us", "wal_bytes", "p99_ms"} <= set(redemption)
    checks = result["parts"]["batches"]["checks"]
    assert checks["hot_share"] >= 0.95
    assert checks["deadlocks"] == 0
    assert result["postgresql"]["fsync"] == "on"


def test_a_balance_that_nobody_posted_and_a_run_of_refusals_only_make_it_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = asking("refused", place=10**9, with_a_planted_balance=False)
    planted = asking("planted", place=0, with_a_planted_balance=True)
    code, result = run([refused, planted], tmp_path / "latest.json")
    assert code == 1
    void, wrong_sum, wrong_card = result["faults"]
    assert "nothing but refusals (4 x instrument_not_found)" in void
    assert wrong_sum == "planted: the postings come to -7800, but the balances changed by -7799."
    assert wrong_card == "planted: the balance of 1 cards is not what was posted."
    assert f"FAILED: {wrong_sum}" in capsys.readouterr().out


def test_the_cpu_of_a_process_that_has_ended_stays_with_its_parent() -> None:
    burning = "import time\nwhile time.process_time() < 0.3: pass"
    script = f'"{sys.executable}" -c "$0"; echo done; read word'
    with subprocess.Popen(
        ["sh", "-c", script, burning], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"done\n"
        assert processes.cpu_seconds(parent.pid) >= 0.25
        parent.communicate(b"end\n")


class Counting(BaseHTTPRequestHandler):
    """Answers by the path, and notes it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        if self.path == "/broken":
            self.close_connection = True
            return
        body = b'{"code":"not_here"}' if self.path == "/missing" else b"x" * 100_000
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def test_the_load_generator_sends_every_request_once_and_tells_what_came_of_it() -> None:
    paths = [f"/{place}" for place in range(60)] + ["/missing", "/broken"]
    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        units = [(requests.get(path),) for path in paths]
        job = Job(server.server_port, units, connections=4, warm_up=10)
        with Load([job]) as load:
            warm = load.warm_up()
            load.go()
            done = load.results()[0]
        server.shutdown()
    assert Counting.asked == Counter(paths)
    assert warm[0].statuses == {200: 10}
    assert done.statuses == {200: 50, 404: 1, LOST: 1}
    assert done.refusals == {"not_here": 1}
    assert len(done.latencies) == 52


def test_a_server_whose_commits_need_not_reach_the_disk_is_refused(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    assert command.run([redeem.PART], TINY, tmp_path / "latest.json") == 1
    assert not (tmp_path / "latest.json").exists()
