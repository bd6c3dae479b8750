"""The scripts behind make, in a checkout made for the test: what they say, and what they refuse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SYSTEM_PATH = "/usr/bin:/bin"

# A Python that is its own environment, and whose pip says more than it should.
STAND_IN = r"""#!/bin/sh
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *" -m pip "* | "-m pip "*)
        echo "WARNING: Running pip as the 'root' user can result in broken permissions" >&2
        echo "[notice] A new release of pip is available" >&2
        [ -z "${PIP_FAILS:-}" ] || { echo "ERROR: No matching distribution found" >&2; exit 1; } ;;
    *"import flask"*) ;;
    *_base_executable*) printf '%s\n' "$0" ;;
    "- "*) mkdir -p "$2/.venv/bin" && : >"$2/.venv/bin/hq" ;;
    *) exec REAL "$@" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "a check out"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    shutil.copytree(ROOT / "requirements", root / "requirements")
    shutil.copy(ROOT / "Makefile", root)
    return root


def make(checkout: Path, target: str) -> subprocess.CompletedProcess[str]:
    # Not below the make that may run these tests: it would tell of its jobs and directories.
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    return subprocess.run(
        ["make", target], cwd=checkout, env=environment, capture_output=True, text=True
    )


def bootstrap(checkout: Path, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN.replace("REAL", sys.executable))
    stand_in.chmod(0o755)
    environment = {"PATH": SYSTEM_PATH, "PYTHON": str(stand_in), **variables}
    return subprocess.run(
        ["sh", "scripts/bootstrap.sh"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.skipif(shutil.which("uv", path=SYSTEM_PATH) is not None, reason="uv would be used")
def test_a_set_up_is_quiet_about_success_and_tells_all_of_a_failure(
    checkout: Path, tmp_path: Path
) -> None:
    failed = bootstrap(checkout, tmp_path, PIP_FAILS="yes")
    assert failed.returncode == 1
    assert "ERROR: No matching distribution found" in failed.stderr
    assert "bootstrap: the packages could not be installed." in failed.stderr
    assert not (checkout / ".venv/.hq-bootstrap").exists()

    done = bootstrap(checkout, tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        f"bootstrap: setting up {checkout}/.venv (once; up to a minute)",
        "bootstrap: done",
    ]
    again = bootstrap(checkout, tmp_path)
    assert (again.returncode, again.stdout + again.stderr) == (0, "")


@pytest.mark.parametrize("program", ["{checkout}/.venv/bin/python", ".venv/bin/python"])
def test_clean_refuses_while_something_runs_out_of_the_environment(
    checkout: Path, program: str
) -> None:
    if not program.startswith("{") and not Path("/proc/self/cwd").exists():
        pytest.skip("without /proc nobody can tell what a relative path is relative to")
    python = checkout / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (checkout / "package/__pycache__").mkdir(parents=True)
    command = [program.format(checkout=checkout), "-I", "-c", "print('here', flush=True); input()"]
    with subprocess.Popen(
        command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        refused = make(checkout, "clean")
        assert refused.returncode != 0
        assert "clean: .venv is in use by" in refused.stderr
        assert f"  process {process.pid}: " in refused.stderr
        assert "End it first, with Ctrl-C in its terminal" in refused.stderr
        assert python.exists()
        process.communicate("\n")

    done = make(checkout, "clean")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (checkout / ".venv").exists()
    assert not (checkout / "package/__pycache__").exists()
    assert make(checkout, "clean").returncode == 0, "with nothing to clean"


def test_clean_works_with_a_broken_environment(checkout: Path) -> None:
    python = checkout / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/nowhere/python")
    assert make(checkout, "clean").returncode == 0
    assert not os.path.lexists(python)
