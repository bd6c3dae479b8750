"""Settings that are wrong or missing: what is wrong, what to do, and never the secret itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hq_service.cli import main
from hq_service.settings import (
    Settings,
    SettingsError,
    database_url_from,
    port_from,
    settings_from,
)

ROOT = Path(__file__).resolve().parents[2]
NUMBER_SECRET = "5ec2e7" * 11
GRANT_SECRET = "9ca47d" * 11
PASSWORD = "pa55-w0rd"
GOOD = {
    "DATABASE_URL": f"postgresql://hq:{PASSWORD}@database/hq",
    "HQ_NUMBER_SECRET": NUMBER_SECRET,
    "HQ_GRANT_KEYS": f"k1:{GRANT_SECRET}",
}
PLANTED = (NUMBER_SECRET[:12], GRANT_SECRET[:12], PASSWORD)

# Variable, wrong value (None: missing), and what the message must say besides the variable.
WRONG: list[tuple[str, str | None, str]] = [
    ("DATABASE_URL", None, "Set it to a PostgreSQL 15 or later"),
    ("DATABASE_URL", "", "Set it to a PostgreSQL 15 or later"),
    ("DATABASE_URL", f"mysql://hq:{PASSWORD}@database/hq", "must begin with postgresql://"),
    ("DATABASE_URL", f"sqlite:///{PASSWORD}.db", "must begin with postgresql://"),
    ("DATABASE_URL", f"postgresql+psycopg2://hq:{PASSWORD}@h/hq", "must begin with postgresql://"),
    ("DATABASE_URL", f"POSTGRESQL://hq:{PASSWORD}@h/hq", "must begin with postgresql://"),
    ("HQ_NUMBER_SECRET", None, "openssl rand -hex 32"),
    ("HQ_NUMBER_SECRET", "", "openssl rand -hex 32"),
    ("HQ_NUMBER_SECRET", NUMBER_SECRET + "z", "hexadecimal"),
    ("HQ_NUMBER_SECRET", NUMBER_SECRET + "5", "hexadecimal"),
    ("HQ_NUMBER_SECRET", f" {NUMBER_SECRET}", "hexadecimal"),
    ("HQ_NUMBER_SECRET", f"{NUMBER_SECRET}\u00e9", "hexadecimal"),
    ("HQ_NUMBER_SECRET", NUMBER_SECRET[:30], "at least 32 digits"),
    ("HQ_GRANT_KEYS", None, "openssl rand -hex 32"),
    ("HQ_GRANT_KEYS", "", "openssl rand -hex 32"),
    ("HQ_GRANT_KEYS", GRANT_SECRET, "is written name:hexadecimal"),
    ("HQ_GRANT_KEYS", f":{GRANT_SECRET}", "needs a name of its own"),
    ("HQ_GRANT_KEYS", f"k-1:{GRANT_SECRET}", "needs a name of its own"),
    ("HQ_GRANT_KEYS", f"k\u00e9:{GRANT_SECRET}", "needs a name of its own"),
    ("HQ_GRANT_KEYS", f"k1:{GRANT_SECRET},k1:{GRANT_SECRET}", "needs a name of its own"),
    ("HQ_GRANT_KEYS", f"k1:{GRANT_SECRET},", "is written name:hexadecimal"),
    ("HQ_GRANT_KEYS", f"k1:{GRANT_SECRET},k2:", "at least 32 digits"),
    ("HQ_GRANT_KEYS", f"k1:{GRANT_SECRET},k2:{GRANT_SECRET[:30]}", "at least 32 digits"),
    ("HQ_GRANT_KEYS", f"k1:{GRANT_SECRET}z", "hexadecimal"),
    ("HQ_GRANT_KEYS", f"k1:{GRANT_SECRET},{GRANT_SECRET}", "is written name:hexadecimal"),
    ("HQ_GRANT_KEYS", f"k1={GRANT_SECRET}", "is written name:hexadecimal"),
    ("HQ_ENV", "prod", "development, production"),
    ("HQ_ENV", "PRODUCTION", "development, production"),
    ("HQ_LOG_LEVEL", "debug", "DEBUG, INFO, WARNING, ERROR"),
    ("HQ_LOG_LEVEL", "TRACE", "DEBUG, INFO, WARNING, ERROR"),
]
# Variable -> the bounds that the message must name.
BOUNDS = {
    "HQ_WORKERS": (1, 256),
    "HQ_THREADS": (1, 64),
    "HQ_BODY_BYTES_MAX": (1_024, 2**26),
    "HQ_BATCH_BODY_BYTES_MAX": (1_024, 2**28),
    "HQ_BATCH_LINES_MAX": (1, 1_000_000),
    "HQ_BATCH_SYNCHRONOUS_LINES_MAX": (1, 1_000_000),
    "HQ_SETTLE_CHUNK_LINES": (1, 10_000),
    "HQ_COMMIT_DEADLINE_SECONDS": (1, 60),
}
# Python itself refuses to read a number of more than 4300 digits.
NO_NUMBERS = [
    "9" * 5_000,
    "many",
    "-1",
    "+1",
    "1.0",
    "1e3",
    " 1",
    "1 ",
    "1_0",
    "0x1",
    "\u0661",
    "\u00b2",
]


def message_for(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        settings_from(environ)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def with_value(variable: str, value: str | None) -> dict[str, str]:
    changed = {**GOOD, variable: value or ""}
    if value is None:
        del changed[variable]
    return changed


def assert_tells_no_secret(text: str) -> None:
    for planted in PLANTED:
        assert planted not in text


def test_what_must_be_given_is_enough() -> None:
    found = settings_from(GOOD)
    assert found.database_url == f"postgresql+psycopg://hq:{PASSWORD}@database/hq"
    assert found.number_secret == bytes.fromhex(NUMBER_SECRET)
    assert found.grant_keys.current == "k1"
    assert found.environment == "development"


@pytest.mark.parametrize(("variable", "value", "remedy"), WRONG)
def test_a_wrong_setting_is_named_with_its_remedy(
    variable: str, value: str | None, remedy: str
) -> None:
    message = message_for(with_value(variable, value))
    assert variable in message
    assert remedy in message
    assert_tells_no_secret(message)


@pytest.mark.parametrize("variable", BOUNDS)
def test_a_number_out_of_bounds_is_told_the_bounds(variable: str) -> None:
    minimum, maximum = BOUNDS[variable]
    for value in (*NO_NUMBERS, str(minimum - 1), str(maximum + 1), "9" * 30):
        message = message_for(with_value(variable, value))
        assert message == f"{variable} must be a whole number from {minimum} to {maximum}."
    for value in (str(minimum), str(maximum), "0" * 5_000 + str(maximum), ""):
        settings_from(with_value(variable, value))


@pytest.mark.parametrize("value", [*NO_NUMBERS, "0", "65536"])
def test_a_port_out_of_bounds_is_told_the_bounds(value: str) -> None:
    with pytest.raises(SettingsError, match=r"^PORT must be a whole number from 1 to 65535\.$"):
        port_from({"PORT": value})
    assert port_from({"PORT": ""}) == port_from({}) == 8080


def test_every_setting_is_tried_above() -> None:
    source = (ROOT / "hq_service" / "settings.py").read_text(encoding="utf-8")
    tried = {variable for variable, _, _ in WRONG} | set(BOUNDS)
    assert all(f'"{variable}"' in source for variable in tried)
    assert len(tried) == len(Settings.__dataclass_fields__)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_the_usual_spellings_of_a_database_address_are_taken(scheme: str) -> None:
    found = database_url_from({"DATABASE_URL": f"{scheme}://hq@database/hq?sslmode=require"})
    assert found == "postgresql+psycopg://hq@database/hq?sslmode=require"


def test_what_prints_the_settings_prints_no_secret() -> None:
    found = settings_from(GOOD)
    assert_tells_no_secret(repr(found))
    assert repr(found.number_secret) not in repr(found)
    assert repr(found.grant_keys.masters["k1"]) not in repr(found)


# --- as a process ---------------------------------------------------------------------------------


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command with these settings and no others; whatever it does, it must end."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HQ_") and name not in ("DATABASE_URL", "PORT")
    }
    return subprocess.run(
        [sys.executable, "-m", "hq_service", *arguments],
        cwd=ROOT,
        env={**environment, "PORT": free_port(), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_ends_with_a_sentence(done: subprocess.CompletedProcess[str], variable: str) -> None:
    assert done.returncode != 0
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: ")
    assert variable in done.stderr
    assert done.stderr.rstrip().endswith(".")
    assert_tells_no_secret(done.stderr)


def test_production_without_a_database_does_not_start(tmp_path: Path) -> None:
    secrets = {name: GOOD[name] for name in ("HQ_NUMBER_SECRET", "HQ_GRANT_KEYS")}
    local = tmp_path / "local"
    done = run("serve", HQ_ENV="production", HQ_LOCAL_DIR=str(local), **secrets)
    assert_ends_with_a_sentence(done, "DATABASE_URL")
    assert "Production never falls back to the embedded database" in done.stderr
    assert not local.exists(), "not even its directory is made"


@pytest.mark.parametrize(
    "verb", ["db migrate", "db init", "db start", "db psql", "settle-pending", "audit verify"]
)
def test_production_without_a_database_does_nothing_else_either(tmp_path: Path, verb: str) -> None:
    local = tmp_path / "local"
    environ = {**GOOD, "DATABASE_URL": None, "HQ_ENV": "production", "HQ_LOCAL_DIR": str(local)}
    done = CliRunner().invoke(main, verb.split(), env=environ)
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit), "a sentence, not a traceback"
    assert "DATABASE_URL" in done.stderr
    assert_tells_no_secret(done.output)
    assert not local.exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HQ_NUMBER_SECRET", NUMBER_SECRET + "z"),
        ("DATABASE_URL", f"mysql://hq:{PASSWORD}@database/hq"),
        ("PORT", "http"),
        ("PORT", "9" * 5_000),
        ("HQ_WORKERS", "9" * 5_000),
        ("HQ_GRANT_KEYS", GRANT_SECRET),
    ],
)
def test_the_service_does_not_start_on_a_wrong_setting(variable: str, value: str) -> None:
    assert_ends_with_a_sentence(run("serve", **{**GOOD, variable: value}), variable)


@pytest.mark.parametrize(
    ("url", "threads"),
    [
        ("postgresql://hq@/hq?host=/run/postgresql", 2),
        ("postgresql://hq@localhost/hq", 2),
        ("postgres://hq@127.0.0.1:5433/hq", 2),
        ("postgresql://hq@[::1]/hq", 2),
        ("postgresql://hq@db.example:5432/hq", 4),
        ("postgresql://hq@/hq?host=db.example", 4),
        ("postgresql://hq@localhost/hq?host=db.example", 4),
        ("postgresql://hq@[nothing/hq", 4),
    ],
)
def test_a_database_of_this_machine_has_fewer_threads_waiting_for_it(
    url: str, threads: int
) -> None:
    assert settings_from({**GOOD, "DATABASE_URL": url}).threads == threads
    assert settings_from({**GOOD, "DATABASE_URL": url, "HQ_THREADS": "7"}).threads == 7
