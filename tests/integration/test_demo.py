"""The demo, played on a real service: gunicorn, an embedded PostgreSQL and HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hq_service.cli import DEMO_KEYS_FILE
from hq_service.domain.numbers import mask
from hq_service.embedded_postgres import EmbeddedPostgres
from hq_service.embedded_postgres.programs import BINARIES_VARIABLE
from hq_service.terminal import demo
from hq_service.terminal.client import Client, Unreachable
from hq_service.terminal.demo import KEY_VARIABLES, STORIES
from hq_service.terminal.scene import PARTIAL_USE, Company
from hq_service.terminal.steps import Step
from tests.support import place_for_data

READY_SECONDS_MAX = 60
ROW = re.compile(r"  (ok|OFF) +(administrator|till [AB]|sync job) +(.+?)  +(\S.*)")


@dataclass(frozen=True)
class Service:
    url: str
    directory: Path
    environment: dict[str, str]

    @property
    def keys(self) -> dict[str, str]:
        return json.loads((self.directory / DEMO_KEYS_FILE).read_text())

    @contextlib.contextmanager
    def administrator(self) -> Iterator[Client]:
        with Client(self.url, self.keys["HQ_ADMIN_KEY"]) as client:
            yield client

    def parameters(self) -> dict[str, object]:
        with self.administrator() as client:
            return client.get("/v1/admin/parameters").at("parameters")

    def set_parameters(self, **changes: object) -> None:
        with self.administrator() as client:
            seen = client.get("/v1/admin/parameters")
            body = {"parameters": changes, "reason": "test"}
            assert client.patch("/v1/admin/parameters", body, seen.etag).status == 200

    def play(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hq_service", "demo", *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=READY_SECONDS_MAX,
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment_with(directory: Path) -> dict[str, str]:
    """The caller's environment, without what would lead the service or the demo elsewhere."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == BINARIES_VARIABLE or not name.startswith(("HQ_", "DATABASE_URL", "PORT"))
    }
    return {**kept, "HQ_LOCAL_DIR": str(directory), "HQ_WORKERS": "2"}


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    with Client(url) as client:
        while True:
            with contextlib.suppress(Unreachable):
                if client.get("/readyz").status == 200:
                    return
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="hq-demo-", dir=place_for_data()))
    parent.chmod(0o711)
    yield parent / "local"
    embedded = EmbeddedPostgres(parent / "local")
    embedded.stop(force=True)
    shutil.rmtree(parent)


@pytest.fixture(scope="module")
def service(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    log = tmp_path_factory.mktemp("service") / "log"
    port = free_port()
    environment = environment_with(directory)
    command = [sys.executable, "-m", "hq_service", "serve", "--port", str(port)]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(process, url, log)
            yield Service(url, directory, environment)
        finally:
            process.terminate()
            process.wait(READY_SECONDS_MAX)


def rows(output: str) -> list[tuple[str, ...]]:
    return [match.groups() for match in map(ROW.fullmatch, output.splitlines()) if match]


Played = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo has its tills' stores."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def twice(service: Service, temporary: Path) -> tuple[Played, Played]:
    """Two runs on one database; the second finds the service by its port.

    Behind a proxy to the world outside, which does not know this machine.
    """
    port = service.url.rpartition(":")[2]
    environment = {"HTTP_PROXY": "http://127.0.0.1:9", "TMPDIR": str(temporary)}
    return service.play("--url", service.url), service.play(PORT=port, **environment)


def test_every_step_is_as_expected_as_often_as_it_is_played(
    service: Service, twice: tuple[Played, Played]
) -> None:
    for played in twice:
        assert played.returncode == 0, played.stdout + played.stderr
        assert played.stdout.startswith(f"Playing on the service that runs at {service.url}.")
        assert "70 steps, every one as expected." in played.stdout
        assert {mark for mark, *_ in rows(played.stdout)} == {"ok"}
        assert len(rows(played.stdout)) == 70
        assert mask(played.stdout) == played.stdout, "a card number is shown"
    first, second = (re.findall(r"\*\w{4}", played.stdout) for played in twice)
    assert first != second


def test_the_rows_say_what_the_documents_say(twice: tuple[Played, Played]) -> None:
    told = [(who, what, answered) for _, who, what, answered in rows(twice[0].stdout)]
    for row in (
        ("till B", "asks for the lock, too", "423 instrument_locked by T01"),
        ("till A", "loses connection; concludes 120.00 SEK offline", "(not asked)"),
        ("till B", "asks again; the card is still locked", "423 instrument_locked by T01"),
        (
            "sync job",
            "posts the batch, now that till A is back",
            "201 1 applied, balance 380.00 SEK (never arrives)",
        ),
        (
            "sync job",
            "posts the same batch once more, byte for byte",
            "200 replayed: 1 applied, balance 380.00 SEK",
        ),
        (
            "sync job",
            "posts the same line in another batch, from a backup",
            "201 1 duplicate, balance 380.00 SEK",
        ),
        (
            "till B",
            "asks for the balance: down once, and free",
            "200 balance 380.00 SEK, free",
        ),
        ("till B", "redeems 380.00 SEK, all that is left", "201 balance 0.00 SEK"),
        (
            "till B",
            "asks for the balance by the old number: the rest",
            "200 balance 150.00 SEK, free",
        ),
        ("sync job", "posts the batch", "201 1 duplicate, balance 250.00 SEK"),
        ("till A", "loses connection; has no grant: voids its tender", "(not asked)"),
        (
            "till B",
            "asks for the balance: the card is free, and whole",
            "200 balance 300.00 SEK, free",
        ),
    ):
        assert row in told


def test_what_the_tills_tell_their_cashiers_is_shown(twice: tuple[Played, Played]) -> None:
    said = re.findall(r"^       > (.+)$", twice[0].stdout, re.MULTILINE)
    goes_on = "The till switches to offline mode and the sale goes on."
    assert said.count(f"The line to HQ is cut. {goes_on}") == 4
    assert said.count(f"HQ's answer is lost. {goes_on}") == 1
    for kind in ("gift card", "credit memo"):
        [why] = [one for one in said if f"concluding {kind} transactions" in one]
        assert "is No in the Commerce parameters" in why
    assert len(said) == 7


def test_nothing_of_the_tills_is_left_behind(twice: tuple[Played, Played], temporary: Path) -> None:
    assert twice[1].returncode == 0
    assert list(temporary.iterdir()) == []


def test_the_parameters_are_put_back_also_when_a_step_is_off(service: Service) -> None:
    service.set_parameters(
        allow_concluding_credit_memo_transactions_offline=True, credit_memo_partial_use="forfeit"
    )
    before = service.parameters()
    assert service.play("--url", service.url).returncode == 0
    assert service.parameters() == before
    wrong_role = service.keys["HQ_AUDITOR_KEY"]
    assert service.play("--url", service.url, HQ_SYNC_S001_KEY=wrong_role).returncode == 1
    assert service.parameters() == before
    assert before[PARTIAL_USE] == "forfeit"


def test_a_key_of_the_wrong_role_is_noticed_and_its_row_marked(service: Service) -> None:
    played = service.play("--url", service.url, HQ_T02_KEY=service.keys["HQ_AUDITOR_KEY"])
    assert played.returncode == 1
    off = [row for row in rows(played.stdout) if row[0] == "OFF"]
    assert ("OFF", "till B", "asks for the lock, too", "403 forbidden") in off
    assert {who for _, who, _, _ in off} == {"till B"}
    assert "^ status is 403, expected 423. Use a key with another role." in played.stdout
    assert "(the story ends here; steps not played: 8)" in played.stdout
    assert re.search(r"5 of \d+ steps OFF, \d+ were not played\.", played.stdout)


def with_expectation(step: Step, **changed: object) -> Step:
    return replace(step, expected={**step.expected, **changed})


def test_an_answer_that_differs_is_noticed(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    gift_card, *_ = STORIES
    steps = [
        with_expectation(step, balance_minor=260_00) if "down once" in step.what else step
        for step in gift_card.steps
    ]
    keys = {who: service.keys[name] for who, name in KEY_VARIABLES.items()}
    with Company(service.url, keys) as company:
        assert not demo.play(company, [replace(gift_card, steps=steps)])
    output = capsys.readouterr().out
    found = "asks for the balance: down once, and free", "200 balance 380.00 SEK, free"
    assert [row for row in rows(output) if row[0] == "OFF"] == [("OFF", "till B", *found)]
    assert "^ balance_minor is 380.00 SEK, expected 260.00 SEK" in output
    assert "1 of 17 steps OFF, 2 were not played." in output


def test_a_service_of_its_own_is_started_and_stopped_when_none_is_there(service: Service) -> None:
    nobodys_port = free_port()
    played = service.play(PORT=str(nobodys_port))
    assert played.returncode == 0, played.stdout + played.stderr
    other, why, beginning, *_, end = played.stdout.splitlines()
    port = service.url.rpartition(":")[2]
    assert re.fullmatch(
        rf"There is also the service at {service.url} \(process \d+\);"
        rf" to play there: PORT={port} make demo",
        other,
    )
    assert why.startswith(f"No service answers at http://127.0.0.1:{nobodys_port} ")
    assert why.endswith("playing on one that is started just for this.")
    started = re.match(r"Starting a service at (\S+),", beginning)
    assert started is not None
    assert end == f"The service at {started[1]} has ended, as it was started just for this."
    with Client(started[1]) as client, pytest.raises(Unreachable):
        client.get("/readyz")


def test_no_answer_is_one_clear_sentence(service: Service) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    played = service.play("--url", nowhere)
    assert played.returncode == 1
    assert played.stderr.startswith(f"Error: {nowhere} cannot be reached: ")
    assert len(played.stderr.splitlines()) == 1


def test_production_is_never_played_on(service: Service) -> None:
    played = service.play("--url", service.url, HQ_ENV="production")
    assert played.returncode == 1
    assert "the demo edits parameters" in played.stderr
