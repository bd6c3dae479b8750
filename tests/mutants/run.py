"""Plant defects, one at a time, in a copy of the tree, and see whether the tests find each.

A mutant that survives is a missing test. Run it with ``make mutants``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.at_once import AT_ONCE
from tests.mutants.mutant import Mutant
from tests.mutants.rules import RULES
from tests.mutants.store import STORE
from tests.mutants.stories import STORIES

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = (*RULES, *STORIES, *STORE, *AT_ONCE)

WORKERS = min(2, os.cpu_count() or 1)
MUTANT_SECONDS_MAX = 240
BASELINE_SECONDS_MAX = 900
PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider")
PASSED, FAILED = 0, 1
FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+?::\S.*?)(?: - (.*))?$", re.MULTILINE)
COLUMNS = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of a mutant: killed by a test, or why it was not."""

    mutant: Mutant
    verdict: str
    seconds: float
    detail: str

    @property
    def is_killed(self) -> bool:
        return self.verdict == "killed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants that are asked for; return 0 if every one is killed."""
    asked = parse(arguments)
    chosen = [one for one in MUTANTS if not asked.only or one.name in asked.only]
    if asked.list:
        for mutant in chosen:
            print(f"{mutant.name}\n{indented(mutant.what)}")
        return 0
    with copied_tree() as tree:
        stale = {one.name: reason for one in chosen if (reason := one.staleness(tree))}
        for name, reason in stale.items():
            print(f"stale: {name}: {reason}", file=sys.stderr)
        if stale or not baseline_passes(tree, chosen, asked.selection):
            return 1
    started = time.monotonic()
    findings = run_all(chosen, asked)
    print_table(findings)
    survivors = [one.mutant.name for one in findings if not one.is_killed]
    print(
        f"\n{len(findings) - len(survivors)} of {len(findings)} mutants are killed,"
        f" in {time.monotonic() - started:.0f} s."
    )
    if survivors:
        print(f"Not killed: {', '.join(survivors)}. Each is a missing test.", file=sys.stderr)
    return 1 if survivors else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    names = [one.name for one in MUTANTS]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", default=[])
    parser.add_argument("--list", action="store_true", help="show the mutants and run nothing")
    parser.add_argument(
        "--selection", nargs="+", default=(), help="run these tests instead of the mutants' own"
    )
    parser.add_argument("--workers", type=int, default=WORKERS, help="mutants at a time")
    return parser.parse_args(arguments)


@contextmanager
def copied_tree() -> Iterator[Path]:
    """Give a copy of what is in the repository, also of what is not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    with tempfile.TemporaryDirectory(prefix="hq-mutant-") as directory:
        tree = Path(directory)
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():  # and not deleted a moment ago
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, tree / name)
        yield tree


def pytest(
    tree: Path, selection: Sequence[str], seconds_max: int
) -> subprocess.CompletedProcess[str]:
    """Run tests in a tree: the package is that of the tree, the libraries those of .venv."""
    return subprocess.run(
        [*PYTEST, *selection],
        cwd=tree,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "400"},
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds_max,
    )


def baseline_passes(tree: Path, chosen: Sequence[Mutant], selection: Sequence[str]) -> bool:
    """Tell whether the tests pass without a defect; or else a kill would mean nothing."""
    union = list(selection or dict.fromkeys(one for each in chosen for one in each.selection))
    started = time.monotonic()
    done = pytest(tree, union, BASELINE_SECONDS_MAX)
    if done.returncode != PASSED:
        print(done.stdout, done.stderr, file=sys.stderr)
        print("The tests fail without any mutant.", file=sys.stderr)
        return False
    print(f"baseline passes ({time.monotonic() - started:.1f} s)", flush=True)
    return True


def run_all(chosen: Sequence[Mutant], asked: argparse.Namespace) -> list[Finding]:
    """Run mutants, a few at a time, and say how each ends; return them in their own order."""

    def tell(number: int, finding: Finding) -> Finding:
        detail = "" if finding.is_killed else f": {finding.detail}"
        print(
            f"[{number:2d}/{len(chosen)}] {finding.verdict:8} {finding.seconds:5.1f} s "
            f" {finding.mutant.name}{detail}",
            flush=True,
        )
        return finding

    def run(numbered: tuple[int, Mutant]) -> Finding:
        number, mutant = numbered
        return tell(number, tried(mutant, asked.selection or mutant.selection))

    with ThreadPoolExecutor(asked.workers) as threads:
        return list(threads.map(run, enumerate(chosen, start=1)))


def tried(mutant: Mutant, selection: Sequence[str]) -> Finding:
    """Plant one mutant and run the tests that should find it."""
    started = time.monotonic()
    verdict, detail = "survived", "every test passes with it"
    with copied_tree() as tree:
        stale = mutant.staleness(tree)
        if stale is not None:
            return Finding(mutant, "stale", 0.0, stale)
        mutant.plant(tree)
        try:
            done = pytest(tree, selection, MUTANT_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            verdict, detail = "hung", f"no end within {MUTANT_SECONDS_MAX} s"
        else:
            found = FAILURE.search(done.stdout)
            if done.returncode == FAILED and found:
                verdict, detail = "killed", "\n".join(filter(None, found.groups()))
            elif done.returncode != PASSED:
                # Tests that cannot even be collected prove nothing.
                verdict, detail = "broken", done.stdout[-500:] + done.stderr[-500:]
    return Finding(mutant, verdict, time.monotonic() - started, detail)


def print_table(findings: Sequence[Finding]) -> None:
    """Print each mutant with what it is, the test that found it and what that said."""
    print()
    for one in findings:
        print(f"{one.verdict:8} {one.seconds:5.1f} s  {one.mutant.name}")
        print(indented(one.mutant.what))
        test, _, said = one.detail.partition("\n")
        print(indented(test))
        if said:
            print(indented(textwrap.shorten(said, 3 * COLUMNS)))


def indented(text: str) -> str:
    """Return a text below the names of the table."""
    margin = " " * 18
    return textwrap.fill(
        text, COLUMNS, initial_indent=margin, subsequent_indent=margin, break_long_words=False
    )


if __name__ == "__main__":
    sys.exit(main())
