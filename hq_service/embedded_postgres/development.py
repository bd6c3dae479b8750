"""The PostgreSQL behind `make run`: durable, and shared by every process of its directory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hq_service.embedded_postgres.account import Account, account_for
from hq_service.embedded_postgres.errors import EmbeddedPostgresError
from hq_service.embedded_postgres.files import exclusively
from hq_service.embedded_postgres.places import (
    DIRECTORY_VARIABLE,
    ROOT_DIRECTORY,
    default_directory,
    make_root_directory,
)
from hq_service.embedded_postgres.programs import find_binaries, major_version
from hq_service.embedded_postgres.psql import psql_program
from hq_service.embedded_postgres.secret_files import secret_in
from hq_service.embedded_postgres.server import (
    DATABASE,
    PARTIAL_DATA,
    PORT,
    ROLE,
    SETTINGS,
    SOCKET_PARENT,
    Answer,
    Server,
)
from hq_service.embedded_postgres.users import User, Users

LOG_BYTES_MAX = 10 * 1024 * 1024
LOG_NAME = "server.log"
SECRETS_NAME = "secrets"


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of the embedded server without changing anything."""

    is_running: bool
    # Until it is stopped; else the last user stops it.
    stays: bool
    users: list[User]
    url: str
    data_directory: Path
    log_file: Path
    binaries: Path
    major_version: int


class EmbeddedPostgres:
    """The PostgreSQL behind `make run`: durable, one per directory, shared by its processes.

    A process that serves calls `join()`, then `start()`, then may exec; when it ends it calls
    `leave()`. The order matters: joining waits for a last user who is just stopping the server.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """Look at the directory, `default_directory()` if none is given; nothing is made yet."""
        self.directory = (directory or default_directory()).resolve()
        self._users = Users(self.directory / "users")
        # There while the server shall outlast its users.
        self._stays_file = self.directory / "stays"
        self._lock_file = self.directory / "server.lock"

    def start(self, *, stays: bool = False) -> str:
        """Make cluster and database if needed, start the server if needed, return the URL.

        With `stays` the server runs until `stop()`, whoever leaves it meanwhile.

        Returns: a SQLAlchemy URL of the database `hq`.
        Raises:  EmbeddedPostgresError with the remedy.
        """
        with self._alone():
            server = self._server(make_directories=True)
            if server.answer() is not Answer.READY:
                if server.postmaster_pid() is None:
                    # Said of a server that is gone.
                    self._stays_file.unlink(missing_ok=True)
                server.initialise(is_durable=True)
                self._limit_log(server.log_file)
                server.bring_up(_launch_daemon)
            server.create_database(DATABASE)
            if stays:
                self._stays_file.touch(mode=0o600)
        return server.url()

    def stop(self, *, force: bool = False) -> bool:
        """Stop the server; with `force` also under those who use it.

        Returns: whether it ran.
        Raises:  EmbeddedPostgresError, naming the users, unless `force`.
        """
        if not self._cluster_directory().exists():
            return False
        with self._alone():
            server = self._server(make_directories=False)
            was_running = server.postmaster_pid() is not None
            if was_running and not force:
                self._require_unused(
                    "; or stop the database under it with `hq db stop --force`"
                    " (`make stop ARGS=--force`), and requests fail from then on"
                )
            self._shut_down(server)
        return was_running

    def delete(self, *beside: str) -> bool:
        """Stop the server and delete data, logs, secrets, and the files of these names beside them.

        Whatever else the directory holds stays: HQ_LOCAL_DIR may be anywhere.

        Returns: whether there was any data.
        Raises:  EmbeddedPostgresError while somebody uses it.
        """
        # Of every version, and also what an interrupted deletion left.
        clusters = {data.parent for data in self.directory.glob("pg[0-9]*/data*")}
        if not clusters:
            return False
        with self._alone():
            self._require_unused()
            for cluster in clusters:
                self._shut_down(self._server_over(cluster))
                _delete_cluster(cluster)
            secret_files = self.directory / SECRETS_NAME
            for name in beside:
                (self.directory / name).unlink(missing_ok=True)
            (secret_files / ".lock").unlink(missing_ok=True)
            self._users.forget()
            self._lock_file.unlink()
            for directory in (secret_files, self.directory):
                _remove_if_empty(directory)
        return True

    def status(self) -> Status:
        """Return where everything is and whether the server answers; changes nothing."""
        server = self._server(make_directories=False)
        is_running = server.answer() is Answer.READY
        return Status(
            is_running=is_running,
            stays=is_running and self._stays_file.exists(),
            users=self.users(),
            url=server.url(),
            data_directory=server.data,
            log_file=server.log_file,
            binaries=server.account.binaries,
            major_version=server.account.major_version,
        )

    def users(self) -> list[User]:
        """Return the processes that use the server, this one aside."""
        return self._users.others()

    def psql_command(self) -> list[str]:
        """Return the command of an interactive session; the server must run."""
        server = self._server(make_directories=False)
        program = psql_program(server.account.binaries)
        host = str(server.socket_directory)
        return [program, "-h", host, "-p", str(PORT), "-U", ROLE, "-d", DATABASE]

    def join(self, purpose: str) -> int:
        """Count this process among the users of the server, also across an exec.

        `purpose` is what others are told of it: "the service at http://127.0.0.1:8080".

        Returns: the descriptor that an exec has to leave open.
        """
        with self._alone():
            return self._users.join(purpose)

    def leave(self) -> bool:
        """Stop counting this process among the users; the last one stops the server.

        Returns: whether the server was stopped.
        """
        if not self._users.has_joined():
            return False
        with self._alone():
            self._users.leave()
            if self._users.others() or self._stays_file.exists():
                return False
            if self._cluster_directory().exists():
                self._shut_down(self._server(make_directories=False))
        return True

    def secret(self, name: str, length: int = 32) -> bytes:
        """Return the random secret of this name, made on first use beside the data.

        Units:   length in bytes.
        """
        self._make_directory()
        return secret_in(self.directory / SECRETS_NAME, name, length)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only one who starts, stops, joins or leaves."""
        self._make_directory()
        with exclusively(self._lock_file):
            yield

    def _require_unused(self, otherwise: str = "") -> None:
        users = self.users()
        if users:
            names = ", ".join(map(str, users))
            pids = " ".join(str(user.pid) for user in users)
            raise EmbeddedPostgresError(
                f"The embedded database is used by {names}. End that first, with Ctrl-C in its"
                f" terminal or `kill {pids}`{otherwise}."
            )

    def _shut_down(self, server: Server) -> None:
        server.shut_down()
        server.remove_socket()
        self._stays_file.unlink(missing_ok=True)

    def _cluster_directory(self) -> Path:
        # The major version in the path: another version cannot read the files.
        return self.directory / f"pg{major_version(find_binaries())}"

    def _server(self, *, make_directories: bool) -> Server:
        return self._server_over(self._cluster_directory(), make_directories=make_directories)

    def _server_over(self, cluster: Path, *, make_directories: bool = False) -> Server:
        data = cluster / "data"
        account = account_for(cluster)
        if make_directories:
            account.make_directory(cluster)
            self._check_reach(account, cluster)
        return Server(
            account=account,
            data=data,
            socket_directory=_socket_directory(account, data, make=make_directories),
            log_file=cluster / LOG_NAME,
            settings=SETTINGS,
        )

    def _make_directory(self) -> None:
        try:
            if os.geteuid() == 0 and ROOT_DIRECTORY in self.directory.parents:
                make_root_directory()
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddedPostgresError(
                f"{self.directory} cannot be made: {error.strerror}. Set {DIRECTORY_VARIABLE} to"
                " a directory that you may write."
            ) from error

    def _check_reach(self, account: Account, cluster: Path) -> None:
        """Make sure that the account gets through to its directory."""
        if not account.is_other:
            return
        # Root's own directory: the account may pass through it, and see nothing else in it.
        if self.directory.stat().st_uid == 0:
            self.directory.chmod(self.directory.stat().st_mode & 0o7777 | 0o011)
        if account.run("/bin/sh", "-c", 'test -w "$0"', cluster).returncode:
            name = pwd.getpwuid(account.user_id).pw_name
            raise EmbeddedPostgresError(
                f"PostgreSQL refuses to run as root, and the account {name} cannot reach"
                f" {cluster}. Set {DIRECTORY_VARIABLE} to a directory outside of closed ones, for"
                f" example {DIRECTORY_VARIABLE}={ROOT_DIRECTORY}, or work as another user."
            )

    @staticmethod
    def _limit_log(log_file: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            if log_file.stat().st_size > LOG_BYTES_MAX:
                log_file.rename(log_file.with_suffix(".log.1"))


def _launch_daemon(server: Server) -> int:
    """Start the server so that it outlives this process, and return its pid.

    Through a shell that ends at once: a direct child would be reaped by gunicorn, which takes over
    this process, and gunicorn reads the return codes of its children as its workers'.
    """
    script = '"$@" </dev/null >>"$0" 2>&1 & echo $!'
    started = server.account.run("/bin/sh", "-c", script, server.log_file, *server.command())
    return int(started.stdout)


def _delete_cluster(cluster: Path) -> None:
    """Delete what a server made in its directory; it must not run."""
    data = cluster / "data"
    if data.exists():
        # Under a name that the next start clears: half of it must not be taken for a cluster.
        data.rename(data.with_name(PARTIAL_DATA + "deleted"))
    for partial in cluster.glob(f"{PARTIAL_DATA}*"):
        shutil.rmtree(partial)
    for log_file in cluster.glob(f"{LOG_NAME}*"):
        log_file.unlink()
    _remove_if_empty(cluster)


def _remove_if_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()


def _socket_directory(account: Account, data: Path, *, make: bool) -> Path:
    """Return the directory of the socket, after making sure that only the account can enter it.

    The name is short, for the limit on socket paths, and follows from the data's place, so that
    every process finds it.
    """
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    path = SOCKET_PARENT / f"hqpg-{account.user_id}-{digest}"
    if make:
        account.make_directory(path)
    elif not path.exists():
        return path
    found = path.lstat()
    if (
        not stat.S_ISDIR(found.st_mode)
        or found.st_uid != account.user_id
        or stat.S_IMODE(found.st_mode) & 0o077
    ):
        raise EmbeddedPostgresError(
            f"{path} is not a private directory of the server's account, so anybody could pose as"
            " the database. Find out who made it, remove it, and try again."
        )
    return path
