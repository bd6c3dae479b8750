"""What the README promises: the walk works, the settings are all there."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
START_SECONDS_MAX = 60


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a service that was started as the README says, with data of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    # Not below pytest's private directory: as root the database runs as another user.
    data = Path(tempfile.gettempdir()) / f"hqtest-{uuid.uuid4().hex[:8]}"
    environment = {
        **{name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
        "PORT": str(free),
        "HQ_LOCAL_DIR": str(data),
    }
    os.environ["HQ_LOCAL_DIR"] = environment["HQ_LOCAL_DIR"]
    log = tmp_path_factory.mktemp("readme") / "service.log"
    with log.open("wb") as output:
        service = subprocess.Popen(
            [sys.executable, "-m", "hq_service", "serve"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until_ready(free, service, log)
            yield free
        finally:
            os.environ.pop("HQ_LOCAL_DIR")
            service.send_signal(signal.SIGTERM)
            service.wait(30)
            shutil.rmtree(data, ignore_errors=True)


def wait_until_ready(port: int, service: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and service.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text(encoding="utf-8", errors="replace"))


def test_the_walk_works_as_written(port: int) -> None:
    walk = re.search(r"<!-- walk:.*?-->\n```sh\n(.*?)```", README, re.DOTALL)
    assert walk is not None
    done = subprocess.run(
        ["bash", "-euc", walk[1]],
        cwd=ROOT,
        env={**os.environ, "PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line]
    assert len(told) == 6, done.stdout
    balance, lock, refusal, redemption, batch, balance_after = told
    assert '"balance_minor":50000' in balance
    assert '"max_amount_minor":50000' in lock
    assert '"code":"instrument_locked"' in refusal
    assert '"balance_after_minor":49000' in redemption
    assert '"outcome":"duplicate"' in batch
    assert '"balance_minor":49000' in balance_after
    assert '"lock"' not in balance_after or '"lock":null' in balance_after


def variables_read(path: Path) -> set[str]:
    """Return the environment variables that a module reads: the names it writes as literals."""
    literals = {
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {one for one in literals if re.fullmatch(r"HQ_[A-Z_]+|DATABASE_URL|PORT", one)}


def test_every_setting_is_in_the_table_and_nothing_else() -> None:
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE))
    package = ROOT / "hq_service"
    read = {
        variable
        for pattern in ("settings.py", "cli.py", "server.py", "embedded_postgres/*.py")
        for path in package.glob(pattern)
        for variable in variables_read(path)
    }
    # Handed from `hq serve` to the gunicorn it becomes; nobody sets it.
    read.discard("HQ_EMBEDDED_USERS_FD")
    assert documented == read


def test_the_two_commands_stand_on_the_first_screen() -> None:
    first_screen = README.splitlines()[:25]
    assert any(line.startswith("make run") for line in first_screen)
    assert any(line.startswith("make test") for line in first_screen)


def test_every_link_leads_somewhere() -> None:
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
