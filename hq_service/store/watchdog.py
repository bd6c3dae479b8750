"""A deadline for commits that never cancels them.

PostgreSQL answers a cancelled COMMIT with success although no standby has it. So a commit that
takes too long gets its socket shut instead: the client sees an error, the outcome stays open, and
the server goes on waiting. One thread per process watches all commits; registering one costs two
dictionary operations.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

import psycopg

CHECK_SECONDS = 0.25


class CommitWatchdog:
    """Shuts the socket of any commit that is under way for longer than ``deadline_seconds``."""

    def __init__(self, deadline_seconds: float = 8.0) -> None:
        self.deadline_seconds = deadline_seconds
        self._due: dict[psycopg.Connection[Any], float] = {}
        self._mutex = threading.Lock()
        self._thread_of_process: int | None = None

    def watch(self, connection: psycopg.Connection[Any]) -> None:
        """Watch a connection that commits, until `forget`."""
        self._start_once()
        with self._mutex:
            self._due[connection] = time.monotonic() + self.deadline_seconds

    def forget(self, connection: psycopg.Connection[Any]) -> None:
        """Watch a connection no longer: it may serve somebody else."""
        with self._mutex:
            self._due.pop(connection, None)

    def _start_once(self) -> None:
        # Threads do not survive the fork into a worker, so the process is remembered.
        if self._thread_of_process == os.getpid():
            return
        with self._mutex:
            if self._thread_of_process == os.getpid():
                return
            self._thread_of_process = os.getpid()
            threading.Thread(target=self._watch, name="commit-watchdog", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(CHECK_SECONDS)
            now = time.monotonic()
            with self._mutex:
                # Shut under the mutex: afterwards the connection may serve somebody else.
                for connection in [one for one, due in self._due.items() if due < now]:
                    del self._due[connection]
                    _shut(connection)


def _shut(connection: psycopg.Connection[Any]) -> None:
    try:
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg.Error):
        pass  # closed meanwhile: the commit has already failed by itself
