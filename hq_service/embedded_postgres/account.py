"""The account that the server's programs run as, since PostgreSQL refuses to run as root."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hq_service.embedded_postgres.errors import EmbeddedPostgresError
from hq_service.embedded_postgres.places import (
    DIRECTORY_VARIABLE,
    ROOT_DIRECTORY,
    make_root_directory,
)
from hq_service.embedded_postgres.programs import (
    BINARIES_VARIABLE,
    WHEEL,
    find_binaries,
    major_version,
    program_environment,
)


@dataclass(frozen=True, slots=True)
class Account:
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
            env=program_environment(),
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


def account_for(cluster: Path | None) -> Account:
    """Return who may run the server; whoever owns a cluster keeps it."""
    binaries = find_binaries()
    major = major_version(binaries)
    assert major is not None, "find_binaries() returns only programs of a known version"
    own = Account(binaries, major, os.geteuid(), os.getegid())
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


def _switched(own: Account, user_id: int, group_id: int) -> Account:
    """Return the account that root switches to, with programs which that account can execute."""
    account = Account(own.binaries, own.major_version, user_id, group_id, is_other=True)
    try:
        if account.run(own.binaries / "initdb", "--version").returncode == 0:
            return account
    except PermissionError as error:
        # EPERM: setuid itself is forbidden. EACCES: a directory on the way is closed, and opening
        # root's home to everybody, as others do, is not ours to decide.
        if error.errno == errno.EPERM:
            return _in_user_namespace(own)
    copied = _copied(own.binaries)
    return Account(copied, own.major_version, user_id, group_id, is_other=True)


def _in_user_namespace(own: Account) -> Account:
    """Return root seen as nobody in a user namespace: for containers with a single account."""
    account = Account(
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
    if package.name != WHEEL:
        raise EmbeddedPostgresError(
            f"The account for the server cannot execute the programs in {binaries}. Make them"
            f" readable for everybody, or set {BINARIES_VARIABLE} to others."
        )
    # By content: every checkout of this machine shares one copy.
    digest = hashlib.sha256((binaries / "postgres").read_bytes()).hexdigest()[:12]
    target = ROOT_DIRECTORY / f"bin-{digest}"
    copied = target / package.name / prefix.name / "bin"
    if target.exists():
        return copied
    make_root_directory()
    partial = Path(tempfile.mkdtemp(prefix="bin-partial-", dir=ROOT_DIRECTORY))
    ignored = shutil.ignore_patterns("include", "pgxs", "__pycache__")
    # The programs look for their libraries relative to themselves, so the layout has to stay.
    for part in (prefix, package.parent / f"{WHEEL}.libs", package / ".dylibs"):
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
