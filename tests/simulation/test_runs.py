"""Short real runs: a real service, real tills, real faults; and services that misbehave."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hq_service.cli import main
from hq_service.simulation import verb
from hq_service.simulation.opening import SimulationFailed
from hq_service.simulation.result import Options
from tests.simulation.front import Front, Mischief

SMALL = Options(stores=1, tills_per_store=3, cards=40, minutes=0.12)
ENDED_SECONDS_MAX = 60

A_NUMBER = re.compile(r"6006\d{12}|CM\d{14}|\b[0-9A-HJKMNP-TV-Z]{16}\b|hq_[a-z0-9]{12}_")


@contextmanager
def no_database() -> Iterator[str]:
    raise AssertionError("it plays on a service that is there")
    yield


def play(options: Options, url: str, admin_key: str, report: Path | None = None) -> bool:
    return verb.run(options, url, report, {"HQ_ADMIN_KEY": admin_key}, no_database)


def off_rows(output: str) -> set[str]:
    rows = [line for line in output.splitlines() if line.endswith(" OFF")]
    return {re.split(r"\s{2,}", row.strip())[0] for row in rows}


@pytest.mark.parametrize(
    "mode",
    [
        {"minutes": 0.05},
        {"outages": True, "seed": 5},
        {"outages": True, "sockets": True, "seed": 2},
    ],
    ids=["healthy", "outages", "sockets"],
)
def test_every_tills_truth_is_hqs(
    service_url: str,
    admin_key: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    mode: dict[str, Any],
) -> None:
    options = replace(SMALL, **mode)
    report = tmp_path / "report.html"
    is_as_expected = play(options, service_url, admin_key, report)
    output = capsys.readouterr().out
    assert is_as_expected, output
    assert off_rows(output) == set()
    assert "every till's truth is HQ's" in output
    page = report.read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", page)
    for text in (output, page):
        assert not A_NUMBER.search(text)


def test_a_broken_lock_leaves_a_shortfall_that_equals_the_cases(
    service_url: str, admin_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = replace(SMALL, stores=2, tills_per_store=2, outages=True, break_locks=True, seed=4)
    is_as_expected = play(options, service_url, admin_key)
    output = capsys.readouterr().out
    assert is_as_expected, output
    amounts = re.findall(r"^  shortfall: .*?  +([0-9.]+) SEK  +([0-9.]+) SEK  ok$", output, re.M)
    [by_tills, in_cases] = amounts
    assert by_tills == in_cases
    assert by_tills[0] == by_tills[1] != "0.00"
    [(expected, found)] = re.findall(r"^  open cases: .*?  +(\d+)  +(\d+)  ok$", output, re.M)
    assert expected == found != "0"


@pytest.fixture(scope="module")
def misbehaved(service_url: str, admin_key: str) -> dict[Mischief, tuple[int, str]]:
    """How a simulation ends behind each mischief: exit code and output. They play at once."""
    arguments = "simulate --stores 1 --tills-per-store 4 --cards 30 --minutes 0.05".split()
    ended = {}
    with ExitStack() as fronts:
        playing = {}
        for mischief in Mischief:
            front = fronts.enter_context(Front(service_url, mischief))
            simulation = subprocess.Popen(
                [sys.executable, "-m", "hq_service", *arguments, "--url", front.url],
                env={**os.environ, "HQ_ADMIN_KEY": admin_key},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            playing[mischief] = (front, fronts.enter_context(simulation))
        for mischief, (front, simulation) in playing.items():
            output, _ = simulation.communicate(timeout=ENDED_SECONDS_MAX)
            assert front.has_happened.is_set(), output
            ended[mischief] = (simulation.returncode, output)
    return ended


@pytest.mark.parametrize(
    ("mischief", "rows"),
    [
        (
            Mischief.LOSES,
            {
                "lines lost: sold, and not posted at HQ",
                "sales concluded, and posted at HQ as they were told",
                "cards with the balance that sales and shortfall leave",
                "money on all cards",
                "locks left at HQ",
                "registers that HQ has not everything of",
            },
        ),
        (
            Mischief.CHANGES,
            {
                "lines posted with another amount",
                "sales concluded, and posted at HQ as they were told",
                "cards with the balance that sales and shortfall leave",
                "money on all cards",
            },
        ),
        (
            Mischief.TAKES_MORE,
            {
                "cards with the balance that sales and shortfall leave",
                "money on all cards",
            },
        ),
    ],
)
def test_a_service_that_misbehaves_is_found_out(
    misbehaved: dict[Mischief, tuple[int, str]], mischief: Mischief, rows: set[str]
) -> None:
    exit_code, output = misbehaved[mischief]
    assert exit_code == 1, output
    assert off_rows(output) == rows, output
    assert "HQ and the tills do not agree" in output


def test_a_run_can_be_repeated_on_the_same_service(
    service_url: str, admin_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = Options(stores=1, tills_per_store=1, cards=20, minutes=0.05)
    assert play(options, service_url, admin_key)
    assert play(options, service_url, admin_key)
    first, second = re.findall(r"^Plan ([0-9a-f]{16})", capsys.readouterr().out, re.M)
    assert first == second


# --- what is refused ------------------------------------------------------------------------------


def test_production_is_left_alone(service_url: str, admin_key: str) -> None:
    environment = {"HQ_ENV": "production", "HQ_ADMIN_KEY": admin_key}
    found = CliRunner().invoke(main, ["simulate", "--url", service_url], env=environment)
    assert found.exit_code == 1
    assert "HQ_ENV is production" in found.output


def test_a_given_service_needs_an_administrators_key(service_url: str) -> None:
    with pytest.raises(SimulationFailed, match="HQ_ADMIN_KEY is not set"):
        verb.run(SMALL, service_url, None, {}, no_database)
    with pytest.raises(SimulationFailed, match="set HQ_ADMIN_KEY to the key of an administrator"):
        verb.run(SMALL, service_url, None, {"HQ_ADMIN_KEY": "hq_wrong"}, no_database)


def test_a_service_that_is_not_there_is_told_in_a_sentence() -> None:
    with pytest.raises(SimulationFailed, match="cannot be reached"):
        play(SMALL, "http://127.0.0.1:9", "key")


def test_a_report_without_a_directory_is_refused_before_the_run(
    service_url: str, admin_key: str, tmp_path: Path
) -> None:
    with pytest.raises(SimulationFailed, match="There is no directory"):
        play(SMALL, service_url, admin_key, tmp_path / "nowhere" / "report.html")


def test_options_that_make_no_plan_are_told_in_a_sentence() -> None:
    arguments = ["simulate", "--stores", "1", "--tills-per-store", "1", "--break-locks"]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 1
    assert "it takes two tills" in found.output


# --- a service of its own, and the end ------------------------------------------------------------


def processes_below(process_id: int) -> dict[int, str]:
    """Return the command of every process that a process has started, directly or not."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    below: dict[int, str] = {}
    found = {process_id}
    while found:
        found = {
            int(row[0])
            for row in rows
            if int(row[1]) in found and int(row[0]) not in below and len(row) == 3
        }
        below |= {int(row[0]): row[2] for row in rows if int(row[0]) in found}
    return below


def is_running(process_id: int) -> bool:
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process_id)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(listed) and not listed.startswith("Z")


@dataclass
class Playing:
    """A simulation on a service of its own, in a temporary directory of its own."""

    process: subprocess.Popen[str]
    directory: Path
    below: dict[int, str] = field(default_factory=dict)

    @classmethod
    def start(cls, directory: Path) -> Playing:
        directory.mkdir()
        environment = {
            **{name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
            "TMPDIR": str(directory),
            "PYTHONUNBUFFERED": "1",
        }
        options = "--stores 1 --tills-per-store 2 --cards 20 --minutes 5 --outages".split()
        process = subprocess.Popen(
            [sys.executable, "-m", "hq_service", "simulate", *options],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A background job of a shell would ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )
        return cls(process, directory)

    def wait_until_it_sells(self) -> Path:
        """Return the directory of its database."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "are open at" in line:
                break
        time.sleep(1)
        self.below = processes_below(self.process.pid)
        commands = " ".join(self.below.values())
        assert "gunicorn" in commands
        [database] = set(re.findall(r"/\S*hqtest-[^/\s]+", commands))
        assert list(self.directory.glob("hq-simulation-*/*"))
        assert Path(database).is_dir()
        return Path(database)


def test_what_ends_it_early_leaves_no_process_and_no_directory(tmp_path: Path) -> None:
    expected = {signal.SIGINT: 1, signal.SIGTERM: 128 + signal.SIGTERM}
    playing = {ending: Playing.start(tmp_path / ending.name) for ending in expected}
    try:
        databases = {ending: one.wait_until_it_sells() for ending, one in playing.items()}
        for ending, one in playing.items():
            one.process.send_signal(ending)
        for ending, one in playing.items():
            output, _ = one.process.communicate(timeout=ENDED_SECONDS_MAX)
            assert one.process.returncode == expected[ending], output
            assert "Traceback" not in output
            assert [command for pid, command in one.below.items() if is_running(pid)] == []
            assert list(one.directory.iterdir()) == []
            assert not databases[ending].exists()
    finally:
        for one in playing.values():
            one.process.kill()
            one.process.wait()
