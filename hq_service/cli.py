"""The command line: each verb calls one operation or starts one program."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click
from alembic import command
from alembic.config import Config

from hq_service import __version__
from hq_service.api import problems
from hq_service.app import DATABASE_ERRORS, create_app, disconnect
from hq_service.domain.actors import Actor, Role
from hq_service.domain.errors import HqError
from hq_service.domain.keyring import Keyring
from hq_service.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError
from hq_service.operations import database, demo_data, offline_batches, waiting
from hq_service.operations.clock import now
from hq_service.settings import Settings, SettingsError, is_production, settings_from
from hq_service.terminal import demo

DEMO_KEYS_FILE = "demo-keys.json"
DEFAULT_PORT = 8080
COMMAND_LINE = Actor(Role.ADMIN, "command-line")


class Group(click.Group):
    """A group whose commands end with a sentence instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what can be expected to go wrong is told in one line."""
        try:
            return super().invoke(ctx)
        except (SettingsError, EmbeddedPostgresError) as error:
            raise click.ClickException(str(error)) from error
        except HqError as error:
            raise click.ClickException(explained(error)) from error
        except DATABASE_ERRORS as error:
            raise click.ClickException(
                "The database does not answer, or not as it should"
                f" ({type(error).__name__}). See that it runs and that DATABASE_URL is right."
            ) from error


@click.group(cls=Group)
@click.version_option(__version__, prog_name="hq")
def main() -> None:
    """The headquarters authority over gift card and credit memo balances and locks."""


@main.command()
@click.option(
    "--port", type=click.IntRange(1, 65_535), help="Default: the variable PORT, else 8080."
)
def serve(port: int | None) -> None:
    """Serve until Ctrl-C; without DATABASE_URL on an embedded database of its own."""
    address = f"127.0.0.1:{port or _port_from_environment()}"
    if port is None:
        address = os.environ.get("HQ_BIND") or address
    _require_free_port(address)
    is_embedded = not os.environ.get("DATABASE_URL")
    if is_embedded:
        _start_embedded()
    settings = settings_from(os.environ)
    if is_embedded:
        _prepare(settings)
        _create_demo_data(settings)
    click.echo(_welcome(address))
    sys.stdout.flush()
    os.environ["HQ_BIND"] = address
    configuration = Path(__file__).with_name("server.py")
    os.execv(
        sys.executable,
        [sys.executable, "-m", "gunicorn", "--config", str(configuration)],
    )


def explained(error: HqError) -> str:
    """Return an error for a person at a terminal: what it is, where, and what to do."""
    kind = problems.PROBLEMS[error.code]
    remedy = error.detail or problems.REMEDIES.get(error.code, "")
    places = [f"{one['pointer']}: {one['detail']}" for one in error.members.get("errors", ())]
    return "\n  ".join([f"{error.code}: {kind.title}. {remedy}", *places])


@main.group()
def db() -> None:
    """Prepare a database; start, stop and look into the embedded one."""


@db.command()
def migrate() -> None:
    """Bring the tables of DATABASE_URL (or the embedded database) up to date."""
    with _settings_of_database() as settings:
        _migrate(settings)
    click.echo("The tables are up to date.")


@db.command()
def init() -> None:
    """Migrate, and set time-outs and durability on the role that the service connects as."""
    with _settings_of_database() as settings:
        _prepare(settings)
    click.echo("The database is ready.")


@db.command()
def start() -> None:
    """Start the embedded database and leave it running; `hq db stop` ends it."""
    click.echo(EmbeddedPostgres().start())


@db.command()
def stop() -> None:
    """Stop the embedded database, whoever uses it."""
    EmbeddedPostgres().stop()
    click.echo("The embedded database is stopped.")


@db.command()
def status() -> None:
    """Tell where the embedded database is and whether it runs."""
    found = EmbeddedPostgres().status()
    click.echo(f"running:   {'yes' if found.is_running else 'no'}")
    click.echo(f"data:      {found.data_directory}")
    click.echo(f"log:       {found.log_file}")
    click.echo(f"programs:  {found.binaries} (PostgreSQL {found.major_version})")


@db.command()
def psql() -> None:
    """Open an interactive SQL session on the embedded database."""
    embedded = EmbeddedPostgres()
    embedded.start()
    arguments = embedded.psql_command()
    os.execv(arguments[0], arguments)


@main.command("demo-keys")
def demo_keys() -> None:
    """Print the API keys of the demo data as shell exports, for eval."""
    for name, key in _read_demo_keys().items():
        click.echo(f"export {name}={key}")


@main.command("demo")
@click.option("--url", help="Default: the service on PORT, else one started just for this.")
def play_demo(url: str | None) -> None:
    """Play the stories of two tills on a running service, and check what HQ answers."""
    if is_production(os.environ):
        raise SettingsError("HQ_ENV is production: the demo edits parameters and issues cards.")
    if not demo.run(url, _port_from_environment(), os.environ, _read_demo_keys):
        raise SystemExit(1)


@main.command("settle-file")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
def settle_file(files: tuple[Path, ...]) -> None:
    """Post offline batches from files, in the order given, as a sync job would over HTTP.

    Files that end in .ndjson are read line by line.
    """
    with _application() as settings:
        keyring = _keyring(settings)
        for path in files:
            try:
                click.echo(f"{path.name}: {_settle(path, keyring, settings)}")
            except HqError as error:
                raise click.ClickException(f"{path.name}: {explained(error)}") from error


def _settle(path: Path, keyring: Keyring, settings: Settings) -> str:
    """Post one file, and return what its lines came to."""
    envelope, lines = offline_batches.read(
        path.read_bytes(),
        keyring,
        now(),
        is_ndjson=path.suffix == ".ndjson",
        lines_max=settings.batch_lines_max,
    )
    is_new = offline_batches.receive(envelope, lines, COMMAND_LINE, now())
    offline_batches.settle_store(
        envelope.store_id,
        envelope.batch_id,
        keyring,
        now(),
        chunk_lines=settings.settle_chunk_lines,
    )
    waiting.judge_again(keyring, now())
    state = offline_batches.state(envelope.store_id, envelope.batch_id, COMMAND_LINE)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(state.counts.items()))
    known = "" if is_new else " (received before; nothing changed)"
    return f"{state.lines_count} lines: {counts}{known}"


@main.command("settle-pending")
def settle_pending() -> None:
    """Finish every offline batch that a crash left unsettled."""
    with _application() as settings:
        settled, failed = offline_batches.settle_pending(
            _keyring(settings), now(), chunk_lines=settings.settle_chunk_lines
        )
        waiting.judge_again(_keyring(settings), now())
    for store_id, batch_id in settled:
        click.echo(f"settled {store_id} {batch_id}")
    for store_id, batch_id in failed:
        click.echo(f"cannot be settled: {store_id} {batch_id}; the log above says why", err=True)
    click.echo(f"{len(settled) + len(failed)} batches were pending, {len(failed)} still are.")
    if failed:
        raise SystemExit(1)


@main.command()
def openapi() -> None:
    """Print the OpenAPI 3.1 description of the service."""
    click.echo(json.dumps(description(), indent=2, sort_keys=True))


def description() -> dict[str, Any]:
    """Return the OpenAPI description; needs no database."""
    environ = {
        "DATABASE_URL": "postgresql://nowhere/nothing",
        "HQ_NUMBER_SECRET": "00" * 32,
        "HQ_GRANT_KEYS": "k1:" + "00" * 32,
    }
    app = create_app(settings_from(environ))
    answer = app.test_client().get("/openapi.json")
    found: dict[str, Any] = answer.get_json()
    return found


def _start_embedded() -> EmbeddedPostgres:
    """Start the embedded database and describe it, with its secrets, in the environment."""
    if is_production(os.environ):
        raise SettingsError(
            "HQ_ENV is production and DATABASE_URL is not set. Production never falls back to the"
            " embedded database: set DATABASE_URL to your PostgreSQL."
        )
    embedded = EmbeddedPostgres()
    embedded.join()
    os.environ["DATABASE_URL"] = embedded.start()
    os.environ.setdefault("HQ_NUMBER_SECRET", embedded.secret("number-secret").hex())
    os.environ.setdefault("HQ_GRANT_KEYS", f"k1:{embedded.secret('grant-key').hex()}")
    return embedded


@contextmanager
def _settings_of_database() -> Iterator[Settings]:
    """Give the settings for DATABASE_URL, or for the embedded database while it is used."""
    if os.environ.get("DATABASE_URL"):
        yield settings_from(os.environ)
        return
    embedded = _start_embedded()
    try:
        yield settings_from(os.environ)
    finally:
        del os.environ["DATABASE_URL"]
        embedded.leave()


@contextmanager
def _application() -> Iterator[Settings]:
    """Give the settings, with an application to run operations in."""
    with _settings_of_database() as settings, _in_application(settings):
        yield settings


@contextmanager
def _in_application(settings: Settings) -> Iterator[None]:
    with create_app(settings).app_context():
        try:
            yield
        finally:
            disconnect()


def _keyring(settings: Settings) -> Keyring:
    return Keyring(settings.number_secret, settings.grant_keys)


def _prepare(settings: Settings) -> None:
    _migrate(settings)
    with _in_application(settings):
        database.set_role_settings()


def _migrate(settings: Settings) -> None:
    configuration = Config(toml_file=_root() / "pyproject.toml")
    configuration.attributes["database_url"] = settings.database_url
    command.upgrade(configuration, "head")


def _root() -> Path:
    return Path(__file__).resolve().parent.parent


def _create_demo_data(settings: Settings) -> None:
    with _in_application(settings):
        made = demo_data.create(_keyring(settings), now())
    if made is None:
        return
    path = EmbeddedPostgres().directory / DEMO_KEYS_FILE
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(made.keys, file, indent=2)
    click.echo("Demo data is there, with these API keys:\n")
    for name, key in made.keys.items():
        click.echo(f"  {name:<18} {key}")
    click.echo(f"\n(kept for you alone in {path}; `hq demo-keys` prints them again)\n")


def _read_demo_keys() -> dict[str, str]:
    path = EmbeddedPostgres().directory / DEMO_KEYS_FILE
    try:
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise click.ClickException(
            "There is no demo data yet. Start the service once with `make run`."
        ) from None
    return found


def _port_from_environment() -> int:
    text = os.environ.get("PORT") or str(DEFAULT_PORT)
    if not text.isdigit() or not 1 <= int(text) <= 65_535:
        raise SettingsError("PORT must be a whole number from 1 to 65535.")
    return int(text)


def _require_free_port(address: str) -> None:
    """Refuse a taken port before anything is started: gunicorn would try for five seconds."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\[\]]+):([0-9]{1,5})", address)
    if match is None or not 1 <= int(match[2]) <= 65_535:
        raise SettingsError("HQ_BIND must be an address and a port, for example 127.0.0.1:8080.")
    host, port = match[1].strip("[]"), match[2]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            _taken(address, error)


def _taken(address: str, error: OSError) -> NoReturn:
    raise click.ClickException(
        f"{address} cannot be used ({error.strerror}). Something else may be listening there, a"
        " second `make run` perhaps: stop it, or choose another port with PORT=8081 make run."
    ) from error


def _welcome(address: str) -> str:
    port = address.rpartition(":")[2]
    demo = "make demo" if port == str(DEFAULT_PORT) else f"PORT={port} make demo"
    to_type = {
        demo: "the whole story, played by two tills",
        'eval "$(.venv/bin/hq demo-keys)"': "the demo's API keys as variables",
        f"curl http://{address}/readyz": "what was checked before taking requests",
        f"curl http://{address}/openapi.json": "every endpoint",
    }
    lines = "\n".join(f"  {command:<46} {purpose}" for command, purpose in to_type.items())
    return (
        f"\nThe balance and lock authority is at http://{address}"
        " (Ctrl-C stops it; the data stays).\n\n"
        f"What to type next, in another terminal:\n\n{lines}\n"
    )
