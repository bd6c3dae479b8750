"""The command line: each verb calls one operation or starts one program.

The application, the operations and what they are made with take a second to import. Whatever needs
them imports them itself, so that every other verb starts in a fifth of that.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from hq_service import __version__
from hq_service.domain.actors import Actor, Role
from hq_service.domain.errors import HqError, Unavailable
from hq_service.domain.keyring import Keyring
from hq_service.embedded_postgres import (
    EmbeddedPostgres,
    EmbeddedPostgresError,
    ThrowawayPostgres,
)
from hq_service.embedded_postgres.development import SECRETS_NAME
from hq_service.embedded_postgres.psql import session_on
from hq_service.operations.clock import now
from hq_service.settings import (
    PORT_DEFAULT,
    Settings,
    SettingsError,
    database_url_from,
    is_production,
    port_from,
    settings_from,
)

if TYPE_CHECKING:
    from marshmallow.fields import Field

    from hq_service.operations.changes import Change

DEMO_KEYS_FILE = "demo-keys.json"
SECRET_FILES = ("number-secret", "grant-key")
# How a service is entered among the users of the embedded database, before its address.
THE_SERVICE_AT = "the service at "
_NOTHING_FOUND = "With this one every card in the database would be unknown."
KEYS_AT_ONCE = 200
FILE_PIECE_BYTES = 65_536
NOWHERE = {
    "DATABASE_URL": "postgresql://nowhere/nothing",
    "HQ_NUMBER_SECRET": "00" * 32,
    "HQ_GRANT_KEYS": "k1:" + "00" * 32,
}
"""What has no default, where nothing is opened."""
F = TypeVar("F", bound=Callable[..., Any])
COMMAND_LINE = Actor(Role.ADMIN, "command-line")


class Group(click.Group):
    """A group whose commands end with a sentence instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what can be expected to go wrong is told in one line."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except (SettingsError, EmbeddedPostgresError) as error:
            raise click.ClickException(str(error)) from error
        except HqError as error:
            raise click.ClickException(explained(error)) from error
        except _database_errors() as error:
            raise click.ClickException(
                "The database does not answer, or not as it should"
                f" ({type(error).__name__}). See that it runs and that DATABASE_URL is right."
            ) from error


def _database_errors() -> tuple[type[Exception], ...]:
    """Return what ends a verb when its database does not answer."""
    from hq_service.app import DATABASE_ERRORS

    return DATABASE_ERRORS


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
    address = f"127.0.0.1:{port or port_from(os.environ)}"
    if port is None:
        address = os.environ.get("HQ_BIND") or address
    _require_free_port(address)
    is_embedded = not os.environ.get("DATABASE_URL")
    if is_embedded:
        _start_embedded(f"{THE_SERVICE_AT}http://{address}")
    settings = settings_from(os.environ)
    if is_embedded:
        _prepare(settings)
        _create_demo_data(settings)
    else:
        _look_before_serving(settings)
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
    from hq_service.api import problems

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
    """Migrate, set time-outs and durability on the service's role, note the number secret."""
    with _settings_of_database() as settings:
        _prepare(settings)
    click.echo("The database is ready.")


@db.command()
def start() -> None:
    """Start the embedded database and leave it running until `hq db stop`."""
    embedded = _embedded()
    _refuse_in_production()
    click.echo(embedded.start(stays=True))


@db.command()
@click.option("--force", is_flag=True, help="Also while a service or a session uses it.")
def stop(force: bool) -> None:
    """Stop the embedded database; refuses while it is used."""
    was_running = _embedded().stop(force=force)
    click.echo(f"The embedded database {'is stopped' if was_running else 'was not running'}.")


@db.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(yes: bool) -> None:
    """Delete the embedded database with its secrets and demo keys, to start anew."""
    embedded = _embedded()
    if not yes:
        what = f"Delete every balance, lock, secret and key in {embedded.directory}?"
        click.confirm(what, abort=True)
    secrets = [f"{SECRETS_NAME}/{name}" for name in SECRET_FILES]
    if embedded.delete(DEMO_KEYS_FILE, *secrets):
        click.echo(f"The embedded database is deleted; it was in {embedded.directory}.")
    else:
        click.echo(f"There is no embedded database in {embedded.directory}.")


@db.command()
def status() -> None:
    """Tell where the embedded database is, whether it runs, and who uses it."""
    if os.environ.get("DATABASE_URL"):
        click.echo("DATABASE_URL is set: the service uses that database, and not this one.\n")
    found = EmbeddedPostgres().status()
    until = ", until `hq db stop`" if found.stays else ""
    click.echo(f"running:   {f'yes{until}' if found.is_running else 'no'}")
    click.echo(f"used by:   {', '.join(map(str, found.users)) or 'nobody'}")
    click.echo(f"data:      {found.data_directory}")
    click.echo(f"log:       {found.log_file}")
    click.echo(f"programs:  {found.binaries} (PostgreSQL {found.major_version})")


@db.command()
def psql() -> None:
    """Open an interactive SQL session, on DATABASE_URL or the embedded database."""
    if os.environ.get("DATABASE_URL"):
        url = database_url_from(os.environ).replace("+psycopg", "", 1)
        arguments, environment = session_on(url, os.environ)
        os.execve(arguments[0], arguments, environment)
    _refuse_in_production()
    embedded = EmbeddedPostgres()
    embedded.join("`hq db psql`")
    try:
        embedded.start()
        # Ctrl-C is for psql, which cancels a statement by it, and must not end us before.
        signal.signal(signal.SIGINT, lambda *_: None)
        raise SystemExit(subprocess.run(embedded.psql_command()).returncode)
    finally:
        embedded.leave()


def _embedded() -> EmbeddedPostgres:
    """Return the embedded database, if that is what the caller must have meant."""
    if os.environ.get("DATABASE_URL"):
        verb = click.get_current_context().command_path
        raise SettingsError(
            "DATABASE_URL is set, so the service uses that database, and this verb is about the"
            f" embedded one. If that is meant, leave DATABASE_URL out: env -u DATABASE_URL {verb}."
        )
    return EmbeddedPostgres()


def _as_over_http(
    field: Callable[[], Field[Any]],
) -> Callable[[click.Context, click.Parameter, str], str]:
    """Return the check of an option that the API takes as a member of a body."""

    def check(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
        from marshmallow import ValidationError

        try:
            # Bytes that are no UTF-8 came as surrogates, and could not be stored.
            value.encode("utf-8")
            taken: str = field().deserialize(value)
        except UnicodeEncodeError:
            raise click.BadParameter("Must be UTF-8.") from None
        except ValidationError as error:
            raise click.BadParameter(" ".join(map(str, error.messages))) from None
        return taken

    return check


def _label_over_http() -> Field[Any]:
    from hq_service.api.schemas.common import display_name

    return display_name()


def _reason_over_http() -> Field[Any]:
    from hq_service.api.schemas.common import reason

    return reason()


def _reason_option(default: str) -> Callable[[F], F]:
    return click.option(
        "--reason",
        default=default,
        callback=_as_over_http(_reason_over_http),
        help="Goes into the audit.",
    )


@main.group("keys")
def api_keys() -> None:
    """Create, list and revoke API keys: how a new installation gets its first administrator."""


@api_keys.command("create")
@click.option("--role", required=True, type=click.Choice([str(one) for one in Role]))
@click.option(
    "--label",
    required=True,
    callback=_as_over_http(_label_over_http),
    help="What people call it: who has it, what it is for.",
)
@click.option("--store", "store_id", help="For the roles terminal and sync.")
@click.option("--terminal", "terminal_id", help="For the role terminal.")
@click.option("--days", type=click.IntRange(1, 3_650), help="When it expires. Default: never.")
@_reason_option("created on the command line")
def create_key(
    role: str,
    label: str,
    store_id: str | None,
    terminal_id: str | None,
    days: int | None,
    reason: str,
) -> None:
    """Create a key and print it: this once, and nothing else on the standard output."""
    from hq_service.operations import keys

    with _prepared() as settings:
        change = _change(reason, settings)
        expires_at = change.now + timedelta(days=days) if days else None
        wish = keys.NewKey(Role(role), store_id, terminal_id, label, expires_at)
        made = keys.create(wish, change)
    click.echo(f"key {made.key.key_id}: keep it, HQ does not", err=True)
    click.echo(made.text)


@api_keys.command("list")
@click.option("--all", "with_ended", is_flag=True, help="Also those that ended.")
def list_keys(*, with_ended: bool) -> None:
    """List the keys, one a line: id, role, store, terminal, expires, revoked, label."""
    from hq_service.operations import keys

    wanted, after = keys.KeyFilter(None, None, with_ended), ""
    header = _key_row("key_id", "role", "store", "terminal", "expires", "revoked", "label")
    with _prepared():
        click.echo(header)
        while found := keys.page(wanted, after=after, limit=KEYS_AT_ONCE, now=now()):
            for key in found:
                places = (key.store_id or "-", key.terminal_id or "-")
                ends = [
                    f"{one:%Y-%m-%d}" if one else "-" for one in (key.expires_at, key.revoked_at)
                ]
                click.echo(_key_row(key.key_id, key.role, *places, *ends, key.label))
            after = found[-1].key_id


def _key_row(*cells: str) -> str:
    widths = (12, 8, 8, 8, 10, 10, 0)
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))


@api_keys.command("revoke")
@click.argument("key_id")
@_reason_option("revoked on the command line")
def revoke_key(key_id: str, reason: str) -> None:
    """End a key at once; the last administrator's stays."""
    from hq_service.operations import keys

    with _prepared() as settings:
        keys.revoke(key_id, _change(reason, settings))
    click.echo(f"{key_id} is revoked.")


def _change(reason: str, settings: Settings) -> Change:
    """Return a change that the audit can record: its chain is hashed with the number secret."""
    from hq_service.operations.changes import Change

    return Change(COMMAND_LINE, reason, now(), _keyring_of_data(settings))


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
    from hq_service.terminal import demo

    port = port_from(os.environ)
    if url is None:
        _tell_of_other_services(port)
    if not demo.run(url, port, os.environ, _read_demo_keys):
        raise SystemExit(1)


def _tell_of_other_services(port: int) -> None:
    """Say where else the demo could play, since one port alone is tried."""
    for user in EmbeddedPostgres().users():
        url = user.purpose.removeprefix(THE_SERVICE_AT)
        other_port = url.rpartition(":")[2]
        if url != user.purpose and other_port != str(port):
            click.echo(f"There is also {user}; to play there: PORT={other_port} make demo")


@main.command()
@click.option(
    "--directory",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A till's directory, or one with the directories of a store's tills.",
)
@click.option("--url", help="Default: the service on PORT of this machine.")
def sync(directory: Path, url: str | None) -> None:
    """Upload what tills have pending, fetch what HQ has for them; the key is in HQ_KEY."""
    from hq_service.terminal import sync_job

    try:
        key = sync_job.key_from(os.environ)
        sync_job.synchronise(url or f"http://127.0.0.1:{port_from(os.environ)}", key, directory)
    except sync_job.SyncFailed as error:
        raise click.ClickException(str(error)) from error


@main.command("simulate")
@click.option("--stores", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--tills-per-store", type=click.IntRange(1, 50), default=4, show_default=True)
@click.option("--cards", type=click.IntRange(20, 1_000_000), default=2_000, show_default=True)
@click.option("--minutes", type=click.FloatRange(0.05, 1_440), default=2.0, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True, help="Another one, another plan.")
@click.option("--outages", is_flag=True, help="Lose, double and delay messages; crash tills.")
@click.option("--break-locks", is_flag=True, help="Break locks under which tills sell offline.")
@click.option("--sockets", is_flag=True, help="Real sockets are cut, by a proxy for each till.")
@click.option("--url", help="A running service; its administrator's key is in HQ_ADMIN_KEY.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write a page with charts, an HTML file that needs no network.",
)
def play_simulation(url: str | None, report: Path | None, **options: Any) -> None:
    """Let a fleet of tills sell, lose its connections, crash, and compare it with HQ."""
    if is_production(os.environ):
        raise SettingsError("HQ_ENV is production: the simulation makes stores and issues cards.")
    from hq_service.simulation import verb as simulation
    from hq_service.simulation.opening import SimulationFailed
    from hq_service.simulation.result import Options

    try:
        is_as_expected = simulation.run(
            Options(**options), url, report, os.environ, _throwaway_database
        )
    except SimulationFailed as error:
        raise click.ClickException(str(error)) from error
    if not is_as_expected:
        raise SystemExit(1)


@contextmanager
def _throwaway_database() -> Iterator[str]:
    with ThrowawayPostgres() as postgres:
        yield postgres.url


@main.command("settle-file")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
def settle_file(files: tuple[Path, ...]) -> None:
    """Post offline batches from files, in the order given, as a sync job would over HTTP.

    Files that end in .ndjson are read line by line. One that is a dry_run posts nothing.
    """
    with _prepared() as settings:
        keyring = _keyring_of_data(settings)
        for path in files:
            try:
                click.echo(f"{path.name}: {_settle(path, keyring, settings)}")
            except HqError as error:
                raise click.ClickException(f"{path.name}: {explained(error)}") from error


def _settle(path: Path, keyring: Keyring, settings: Settings) -> str:
    """Post one file, and return what its lines came to."""
    from hq_service.operations import offline_batches, waiting
    from hq_service.operations.batch_lines import BatchReader

    reader = BatchReader(
        keyring,
        now(),
        lines_max=settings.batch_lines_max,
        kept_max=settings.batch_synchronous_lines_max,
    )
    with path.open("rb") as file:
        pieces = iter(partial(file.read, FILE_PIECE_BYTES), b"")
        envelope, lines = reader.read(pieces, is_ndjson=path.suffix == ".ndjson")
    if envelope.dry_run:
        judged = offline_batches.dry_run(envelope, lines.kept, COMMAND_LINE, keyring, now())
        counts = Counter(result.outcome for _, result in judged)
        return f"dry run, nothing is kept: {_told(len(judged), counts)}"
    is_new = offline_batches.receive(envelope, lines, COMMAND_LINE, now())
    offline_batches.settle_store(
        envelope.store_id,
        envelope.batch_id,
        keyring,
        now(),
        chunk_lines=settings.settle_chunk_lines,
        lines=lines.kept if is_new else None,
    )
    waiting.judge_again(keyring, now())
    state = offline_batches.state(envelope.store_id, envelope.batch_id, COMMAND_LINE)
    known = "" if is_new else " (received before; nothing changed)"
    return f"{_told(state.lines_count, state.counts)}{known}"


def _told(lines_count: int, counts: Mapping[str, int]) -> str:
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return f"{lines_count} lines: {outcomes}"


@main.command("settle-pending")
def settle_pending() -> None:
    """Finish every offline batch that a crash left unsettled."""
    from hq_service.operations import offline_batches, waiting

    with _prepared() as settings:
        keyring = _keyring_of_data(settings)
        settled, failed = offline_batches.settle_pending(
            keyring, now(), chunk_lines=settings.settle_chunk_lines
        )
        waiting.judge_again(keyring, now())
    for store_id, batch_id in settled:
        click.echo(f"settled {store_id} {batch_id}")
    for store_id, batch_id in failed:
        click.echo(f"cannot be settled: {store_id} {batch_id}; the log above says why", err=True)
    click.echo(f"{len(settled) + len(failed)} batches were pending, {len(failed)} still are.")
    if failed:
        raise SystemExit(1)


@main.command()
@click.option("--once", is_flag=True, help="Do what there is to do and end: for cron.")
@click.option(
    "--every-seconds",
    type=click.IntRange(1, 3_600),
    default=10,
    show_default=True,
    help="How long to wait before looking again.",
)
def worker(*, once: bool, every_seconds: int) -> None:
    """Run due distribution schedules, finish unsettled batches, judge waiting lines again.

    Until Ctrl-C or SIGTERM, which ends it after the piece of work that it is at. Several may run.
    """
    from hq_service import observability
    from hq_service.worker import Worker, WrongSecret

    with _application() as settings:
        observability.configure_logging(settings.log_level)
        one = Worker(_keyring(settings), settings.settle_chunk_lines, every_seconds)
        for end in (signal.SIGTERM, signal.SIGINT):
            signal.signal(end, lambda *_: one.ending.set())
        try:
            if not once:
                one.run()
                return
            failed, why_away = one.work()
            if failed:
                why = why_away or "the log says what"
                raise click.ClickException(f"Not everything could be done: {why}.")
        except WrongSecret as error:
            raise SettingsError(str(error)) from error


@main.group()
def audit() -> None:
    """Prove that nobody edited the audit, or copy it elsewhere."""


@audit.command()
@click.option(
    "--expect",
    "expected",
    multiple=True,
    metavar="NUMBER:HASH",
    help="An entry as it was noted earlier; proves that nothing up to it was cut off or redone.",
)
def verify(expected: tuple[str, ...]) -> None:
    """Walk the whole chain; print how many entries hold, and the newest one, to be noted."""
    from hq_service.operations import audit as audit_operations

    pairs = {_noted(text) for text in expected}
    noted = dict(pairs)
    if len(noted) != len(pairs):
        raise click.BadParameter("one number with two hashes", param_hint="--expect")
    with _prepared() as settings:
        found = audit_operations.verify(_keyring_of_data(settings), noted, _show_progress)
    click.echo(f"{found.holding} entries hold.")
    if found.fault is not None:
        click.echo(f"entry {found.broken_number} does not: {found.fault}", err=True)
        raise SystemExit(1)
    if found.holding:
        click.echo(f"newest: {found.holding}:{found.newest_hash.hex()}")


@audit.command()
@click.option(
    "--after", type=click.IntRange(0), default=0, help="The last number that is exported already."
)
def export(after: int) -> None:
    """Print every entry of the audit as one line of JSON, in the order of the chain."""
    from hq_service.operations import audit as audit_operations

    with _prepared():
        for entry in audit_operations.export(after=after):
            click.echo(json.dumps(audit_operations.as_line(entry)))


def _noted(text: str) -> tuple[int, bytes]:
    """Return number and hash of an entry as `hq audit verify` printed it."""
    match = re.fullmatch(r"([1-9][0-9]{0,18}):([0-9a-f]{64})", text)
    if match is None:
        raise click.BadParameter(
            "must be NUMBER:HASH, as printed by an earlier `hq audit verify`",
            param_hint="--expect",
        )
    return int(match[1]), bytes.fromhex(match[2])


def _show_progress(walked: int, total: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{walked} of {total} ", nl=False, err=True)
        if walked >= total:
            click.echo(err=True)


@main.command()
def openapi() -> None:
    """Print the OpenAPI 3.1 description of the service."""
    click.echo(json.dumps(description(), indent=2, sort_keys=True))


def description() -> dict[str, Any]:
    """Return the OpenAPI description; needs no database."""
    from hq_service.app import create_app

    app = create_app(settings_from(NOWHERE))
    answer = app.test_client().get("/openapi.json")
    found: dict[str, Any] = answer.get_json()
    return found


def _refuse_in_production() -> None:
    if is_production(os.environ):
        raise SettingsError(
            "HQ_ENV is production and DATABASE_URL is not set. Production never falls back to the"
            " embedded database: set DATABASE_URL to your PostgreSQL."
        )


def _start_embedded(purpose: str) -> EmbeddedPostgres:
    """Start the embedded database and describe it, with its secrets, in the environment."""
    _refuse_in_production()
    # What is wrong in a setting is said before anything is started for it.
    settings_from({**NOWHERE, **os.environ, "DATABASE_URL": NOWHERE["DATABASE_URL"]})
    embedded = EmbeddedPostgres()
    embedded.join(purpose)
    # When it comes to no exec, because a setting is wrong for example.
    atexit.register(embedded.leave)
    os.environ["DATABASE_URL"] = embedded.start()
    number_secret, grant_key = (embedded.secret(name).hex() for name in SECRET_FILES)
    os.environ.setdefault("HQ_NUMBER_SECRET", number_secret)
    os.environ.setdefault("HQ_GRANT_KEYS", f"k1:{grant_key}")
    return embedded


@contextmanager
def _settings_of_database() -> Iterator[Settings]:
    """Give the settings for DATABASE_URL, or for the embedded database while it is used."""
    if os.environ.get("DATABASE_URL"):
        yield settings_from(os.environ)
        return
    embedded = _start_embedded(f"`{click.get_current_context().command_path}`")
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
    from hq_service.app import create_app, disconnect

    with create_app(settings).app_context():
        try:
            yield
        finally:
            disconnect()


@contextmanager
def _prepared() -> Iterator[Settings]:
    """Give the settings, with an application to run operations in, on a database with tables."""
    from hq_service.operations import readiness

    with _application() as settings:
        schema = readiness.check(now, _keyring(settings))["schema"]
        if schema != readiness.OK:
            raise SettingsError(f"The tables of this version are not there: {schema} first.")
        yield settings


def _keyring(settings: Settings) -> Keyring:
    return Keyring(settings.number_secret, settings.grant_keys)


def _keyring_of_data(settings: Settings) -> Keyring:
    """Return the secrets, if the data is made with them: others find no card, and forge a chain."""
    from hq_service.operations import readiness

    keyring = _keyring(settings)
    if readiness.check(now, keyring).get("number_secret") == readiness.MADE_WITH_ANOTHER:
        raise SettingsError(f"{readiness.MADE_WITH_ANOTHER}. {_NOTHING_FOUND}")
    return keyring


def _prepare(settings: Settings) -> None:
    from hq_service.operations import database, readiness

    _migrate(settings)
    with _in_application(settings):
        is_same_secret = database.prepare(_keyring(settings), now())
    if not is_same_secret:
        raise SettingsError(f"{readiness.MADE_WITH_ANOTHER}. {_NOTHING_FOUND}")


def _look_before_serving(settings: Settings) -> None:
    """Refuse to serve data of another number secret; warn of what keeps the service unready.

    A database that is away will come back, and one that is not migrated yet soon will be:
    `/readyz` says when. A wrong secret would tell tills that their customers' cards do not exist.
    """
    from hq_service.operations import readiness

    with _in_application(settings):
        try:
            checks = readiness.check(now, _keyring(settings))
        except Unavailable:
            checks = {"database": readiness.AWAY}
    if checks.get("number_secret") == readiness.MADE_WITH_ANOTHER:
        raise SettingsError(f"{readiness.MADE_WITH_ANOTHER}. {_NOTHING_FOUND}")
    for name, found in checks.items():
        if found != readiness.OK:
            click.echo(f"Not ready yet: {name}: {found}.", err=True)


def _migrate(settings: Settings) -> None:
    from alembic import command
    from alembic.config import Config

    configuration = Config(toml_file=_root() / "pyproject.toml")
    configuration.attributes["database_url"] = settings.database_url
    command.upgrade(configuration, "head")


def _root() -> Path:
    return Path(__file__).resolve().parent.parent


def _create_demo_data(settings: Settings) -> None:
    from hq_service.operations import demo_data

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
    demo = "make demo" if port == str(PORT_DEFAULT) else f"PORT={port} make demo"
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
