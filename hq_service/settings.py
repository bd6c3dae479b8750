"""Deployment settings: environment variables, read once when the service starts.

Business rules are something else: the Commerce parameters, in the database. Every setting is in
the README's table; a test compares the two.
"""

from __future__ import annotations

import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from hq_service.domain.grants import GrantKeys

PRODUCTION = "production"
PORT_DEFAULT = 8080
SECRET_BYTES_MIN = 16
THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
THREADS_HERE = 2
THREADS_ELSEWHERE = 4


class SettingsError(Exception):
    """A setting is missing or wrong; the message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a deployment decides. Units are in the names."""

    database_url: str = field(repr=False)  # it may hold a password
    number_secret: bytes = field(repr=False)
    grant_keys: GrantKeys = field(repr=False)
    environment: str = "development"
    workers: int = os.cpu_count() or 2
    threads: int = 2
    body_bytes_max: int = 64 * 1024
    batch_body_bytes_max: int = 64 * 1024 * 1024
    batch_lines_max: int = 100_000
    batch_synchronous_lines_max: int = 10_000
    settle_chunk_lines: int = 500
    commit_deadline_seconds: int = 8
    log_level: str = "INFO"


def settings_from(environ: Mapping[str, str]) -> Settings:
    """Return the settings that an environment describes.

    Raises:  SettingsError for whatever is missing or wrong.
    """
    database_url = database_url_from(environ)
    return Settings(
        database_url=database_url,
        number_secret=_number_secret(environ),
        grant_keys=_grant_keys(environ),
        environment=_environment(environ),
        workers=_integer(environ, "HQ_WORKERS", os.cpu_count() or 2, 1, 256),
        threads=_integer(environ, "HQ_THREADS", _threads_for(database_url), 1, 64),
        body_bytes_max=_integer(environ, "HQ_BODY_BYTES_MAX", 65_536, 1_024, 2**26),
        batch_body_bytes_max=_integer(environ, "HQ_BATCH_BODY_BYTES_MAX", 2**26, 1_024, 2**28),
        batch_lines_max=_integer(environ, "HQ_BATCH_LINES_MAX", 100_000, 1, 1_000_000),
        batch_synchronous_lines_max=_integer(
            environ, "HQ_BATCH_SYNCHRONOUS_LINES_MAX", 10_000, 1, 1_000_000
        ),
        settle_chunk_lines=_integer(environ, "HQ_SETTLE_CHUNK_LINES", 500, 1, 10_000),
        commit_deadline_seconds=_integer(environ, "HQ_COMMIT_DEADLINE_SECONDS", 8, 1, 60),
        log_level=_choice(environ, "HQ_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR")),
    )


def database_url_from(environ: Mapping[str, str]) -> str:
    """Return DATABASE_URL in the form that SQLAlchemy takes for psycopg 3."""
    url = environ.get("DATABASE_URL", "")
    if not url:
        raise SettingsError(
            "DATABASE_URL is not set. Set it to a PostgreSQL 15 or later, for example"
            " DATABASE_URL=postgresql://user:password@host/hq, or leave HQ_ENV unset and start"
            " with `make run`, which brings its own database."
        )
    for prefix in ("postgres://", "postgresql://"):
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url.removeprefix(prefix)
    if url.startswith("postgresql+psycopg://"):
        return url
    raise SettingsError(
        "DATABASE_URL must begin with postgresql://; this service runs on PostgreSQL only."
    )


def _threads_for(database_url: str) -> int:
    """Return how many threads a worker has by default.

    Threads wait for the database. One on this machine answers with the same cores: more of them
    only get into each other's way (docs/performance.md). For one elsewhere, the way there counts.
    """
    try:
        parts = urlsplit(database_url)
    except ValueError:  # whoever connects says what is wrong with it
        return THREADS_ELSEWHERE
    hosts = [parts.hostname or "", *parse_qs(parts.query).get("host", [])]
    is_here = all(host in ("", *THIS_MACHINE) or host.startswith("/") for host in hosts)
    return THREADS_HERE if is_here else THREADS_ELSEWHERE


def port_from(environ: Mapping[str, str]) -> int:
    """Return PORT: the port on this machine that is served, and that the demo looks at."""
    return _integer(environ, "PORT", PORT_DEFAULT, 1, 65_535)


def is_production(environ: Mapping[str, str]) -> bool:
    """Tell whether the environment says that money is at stake."""
    return _environment(environ) == PRODUCTION


def _environment(environ: Mapping[str, str]) -> str:
    return _choice(environ, "HQ_ENV", "development", ("development", PRODUCTION))


def _number_secret(environ: Mapping[str, str]) -> bytes:
    text = environ.get("HQ_NUMBER_SECRET", "")
    if not text:
        raise SettingsError(
            "HQ_NUMBER_SECRET is not set. Set it to at least 32 hexadecimal digits, for example"
            " from `openssl rand -hex 32`, and keep it for the life of the data: every instrument"
            " id is made with it, so it can never change."
        )
    return _secret("HQ_NUMBER_SECRET", text)


def _grant_keys(environ: Mapping[str, str]) -> GrantKeys:
    text = environ.get("HQ_GRANT_KEYS", "")
    if not text:
        raise SettingsError(
            "HQ_GRANT_KEYS is not set. Set it to one or more `name:hexadecimal` pairs separated by"
            " commas, for example k1:$(openssl rand -hex 32). The first signs new grants; keep an"
            " old one behind it until its last grant has run out."
        )
    masters: dict[str, bytes] = {}
    for pair in text.split(","):
        key_id, colon, secret = pair.strip().partition(":")
        if not colon:
            raise SettingsError(
                "HQ_GRANT_KEYS: each key is written name:hexadecimal, for example"
                " k1:$(openssl rand -hex 32); several are separated by commas."
            )
        if not key_id.isalnum() or not key_id.isascii() or key_id in masters:
            raise SettingsError(
                "HQ_GRANT_KEYS: each key needs a name of its own, of letters and digits only."
            )
        masters[key_id] = _secret("HQ_GRANT_KEYS", secret)
    return GrantKeys(masters)


def _secret(name: str, text: str) -> bytes:
    try:
        secret = binascii.unhexlify(text)
    except (binascii.Error, ValueError):
        # From None: the cause would show the secret.
        raise SettingsError(f"{name} must be written in hexadecimal digits.") from None
    if len(secret) < SECRET_BYTES_MIN:
        raise SettingsError(f"{name} is too short: at least {2 * SECRET_BYTES_MIN} digits.")
    return secret


def _integer(
    environ: Mapping[str, str], name: str, default: int, minimum: int, maximum: int
) -> int:
    text = environ.get(name, "")
    if not text:
        return default
    digits = text.lstrip("0") or "0"
    is_number = text.isascii() and text.isdigit()
    # The length first: Python refuses to read numbers of thousands of digits.
    is_short = len(digits) <= len(str(maximum))
    if not is_number or not is_short or not minimum <= int(digits) <= maximum:
        raise SettingsError(f"{name} must be a whole number from {minimum} to {maximum}.")
    return int(digits)


def _choice(environ: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    value = environ.get(name, "") or default
    if value not in choices:
        raise SettingsError(f"{name} must be one of {', '.join(choices)}.")
    return value
