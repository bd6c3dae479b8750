"""``hq sync``: the pending transactions of one till, or of all tills of a store, and the store's
sessions; for a till that is not running, or a store whose sync job is a program of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from hq_service.terminal.client import Client, Unreachable
from hq_service.terminal.downloads import do_sessions
from hq_service.terminal.link import Link
from hq_service.terminal.refusals import Refused
from hq_service.terminal.setup import Setup
from hq_service.terminal.store import FILE_NAME, StoreRefused, TillStore
from hq_service.terminal.sync import BackOff, Progress, Stopped, beat, let_go_of_strays, upload
from hq_service.terminal.terminal import utc_now

ATTEMPTS = 6
KEY_VARIABLE = "HQ_KEY"


class SyncFailed(Exception):
    """Why not everything could be synchronised; everything that is pending is kept."""


@dataclass(slots=True)
class SyncJob:
    """One run of the verb. ``speaks_for`` is the one register of a terminal's key, None for a
    sync job's: HQ tells.
    """

    client: Client
    directory: Path
    speaks_for: tuple[str, str] | None = None
    sleep: Callable[[float], None] = time.sleep

    def run(self) -> None:
        """Synchronise every store that is there; one that fails does not stop the others.

        Raises:  SyncFailed; Unreachable, Refused and StoreRefused before anything was sent.
        """
        self.speaks_for = self._retried(lambda: _register_of(self.client))
        failed = []
        for directory in directories_of(self.directory):
            try:
                self._synchronise(directory)
            except (StoreRefused, Unreachable, Stopped, Refused) as error:
                click.echo(f"{directory}: {error}", err=True)
                failed.append(directory)
        if self.speaks_for is None:
            try:
                for job_id, status in self._retried(
                    lambda: do_sessions(self.client, self.directory, lambda: not failed)
                ):
                    click.echo(f"session {job_id}: {status}")
            except (Unreachable, Refused) as error:
                raise SyncFailed(f"The store's sessions could not be done: {error}") from error
        if failed:
            raise SyncFailed(f"{len(failed)} could not be synchronised; everything is kept.")

    def _synchronise(self, directory: Path) -> None:
        with TillStore(directory) as store:
            name = f"{store.store_id} {store.terminal_id}"
            if self.speaks_for not in (None, (store.store_id, store.terminal_id)):
                raise StoreRefused(
                    f"it is the store of register {name}, and the key is another one's: set HQ_KEY"
                    " to that register's key, or to one of the store's sync job."
                )
            setup = Setup(store, utc_now)
            if self.speaks_for is not None:
                self._retried(lambda: let_go_of_strays(self.client, store, utc_now))
            with _progress_of(name) as progress:
                done = self._retried(lambda: upload(self.client, store, setup, utc_now, progress))
            if self.speaks_for is not None:
                self._retried(lambda: self._beat(store, setup))
            click.echo(
                f"{name}: {done.lines_count} lines in {done.batches_count} batches sent,"
                f" {store.pending().lines_count} pending."
            )

    def _beat(self, store: TillStore, setup: Setup) -> None:
        setup.fetch(self.client)
        state = Link(self.client, store, setup, utc_now).state
        beat(self.client, store, setup, state, utc_now)

    def _retried(self, do: Callable[[], Any]) -> Any:
        """Do something, and again with longer and longer pauses while HQ cannot be reached."""
        back_off = BackOff()
        for _ in range(ATTEMPTS - 1):
            try:
                return do()
            except Unreachable as error:
                seconds = back_off.failed(error.retry_after_seconds)
                click.echo(f"{error} Trying again in {seconds:.1f} s.", err=True)
                self.sleep(seconds)
        return do()


def key_from(environ: Mapping[str, str]) -> str:
    """Return the key to call HQ with: never an argument, which others on the machine could read.

    Raises:  SyncFailed without one.
    """
    key = environ.get(KEY_VARIABLE)
    if not key:
        raise SyncFailed(
            f"{KEY_VARIABLE} is not set: set it to the key of the till, or of the store's sync job."
        )
    return key


def synchronise(url: str, key: str, directory: Path) -> None:
    """Synchronise one till's directory, or every till's in a directory.

    Raises:  SyncFailed.
    """
    try:
        with Client(url, key) as client:
            SyncJob(client, directory).run()
    except (Unreachable, Refused, StoreRefused) as error:
        raise SyncFailed(f"{error} Everything that is pending is kept.") from error


def _register_of(client: Client) -> tuple[str, str] | None:
    """Return the register that a key is bound to; None for a sync job's key."""
    answer = client.final(client.get("/v1/register"))
    if answer.at("code") == "forbidden":
        return None
    if answer.is_problem:
        raise Refused(answer)
    return str(answer.at("store.store_id")), str(answer.at("register.terminal_id"))


def directories_of(directory: Path) -> list[Path]:
    """Return the directories with a till's store: the one itself, else those right below it.

    Raises:  StoreRefused if there is none.
    """
    if (directory / FILE_NAME).exists():
        return [directory]
    found = sorted(path.parent for path in directory.glob(f"*/{FILE_NAME}"))
    if not found:
        raise StoreRefused(f"There is no till's store ({FILE_NAME}) in {directory}, nor below it.")
    return found


@contextmanager
def _progress_of(name: str) -> Iterator[Progress]:
    """Show how far an upload is: a bar on a terminal, a line for each batch otherwise."""
    if not sys.stdout.isatty():
        yield lambda sent, total: click.echo(f"{name}: {sent} of {total} lines sent")
        return
    with click.progressbar(length=1, label=name) as bar:

        def show(sent: int, total: int) -> None:
            bar.length = total
            bar.update(sent - bar.pos)

        yield show
