"""Who uses the server: a file for each process, locked for as long as that process lives.

The kernel drops the lock even after kill -9; a list of pids alone would keep the server up for
ever. The callers hold the server's lock, so that nobody is counted while somebody comes or goes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

USERS_FD_VARIABLE = "HQ_EMBEDDED_USERS_FD"


@dataclass(frozen=True, slots=True)
class User:
    """A process that uses the server."""

    pid: int
    purpose: str

    def __str__(self) -> str:
        return f"{self.purpose} (process {self.pid})"


class Users:
    """The processes that use the server of one directory, this one perhaps among them."""

    def __init__(self, directory: Path) -> None:
        """Look at the directory of the users' files; `join()` makes it."""
        self._directory = directory

    def join(self, purpose: str) -> int:
        """Count this process among the users, also across an exec.

        The lock is on an inheritable descriptor, whose number HQ_EMBEDDED_USERS_FD hands on.

        Returns: the descriptor; the one already held when called again.
        """
        held = self._held()
        if held is not None:
            return held[0]
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._sweep()
        descriptor, _ = tempfile.mkstemp(prefix=f"{os.getpid()}-", dir=self._directory)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, os.fsencode(purpose))
        os.set_inheritable(descriptor, True)
        os.environ[USERS_FD_VARIABLE] = str(descriptor)
        return descriptor

    def leave(self) -> None:
        """Stop counting this process among the users; no-op when it is none of them."""
        held = self._held()
        if held is None:
            return
        descriptor, path = held
        del os.environ[USERS_FD_VARIABLE]
        path.unlink(missing_ok=True)
        # Explicitly: forked workers share the descriptor, and closing ours alone would leave
        # the lock to the slowest of them.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

    def has_joined(self) -> bool:
        """Tell whether this process has joined, in this program or before an exec."""
        return self._held() is not None

    def others(self) -> list[User]:
        """Return the users but this process, the oldest process first; changes nothing."""
        held = self._held()
        own = held and held[1]
        found = [_user_of(path) for path in self._paths() if path != own and _is_locked(path)]
        return sorted(found, key=lambda user: user.pid)

    def forget(self) -> None:
        """Remove the files of users that are gone, and the directory."""
        self._sweep()
        with contextlib.suppress(OSError):
            self._directory.rmdir()

    def _sweep(self) -> None:
        for path in self._paths():
            if not _is_locked(path):
                path.unlink(missing_ok=True)

    def _paths(self) -> Iterator[Path]:
        return self._directory.glob("[0-9]*-*")

    def _held(self) -> tuple[int, Path] | None:
        """Return the descriptor that join() opened, in this program or before its exec."""
        number = os.environ.get(USERS_FD_VARIABLE, "")
        try:
            opened = os.fstat(int(number))
        except (ValueError, OverflowError, OSError):
            return None
        # The variable alone proves nothing: children inherit it without the descriptor.
        for path in self._paths():
            if path.exists() and os.path.samestat(opened, path.stat()):
                return int(number), path
        return None


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _user_of(path: Path) -> User:
    try:
        purpose = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        purpose = ""
    return User(int(path.name.partition("-")[0]), purpose or "a process")
