"""Processes: whether one runs, as what, and until when. No server is known here."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

# Slim images have no ps, and macOS has no /proc.
_HAS_PROC = Path("/proc/self/stat").exists()


def runs(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    if _HAS_PROC:
        try:
            status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return status.rpartition(")")[2].split()[0] not in "ZX"
    state = _ask_ps(pid, "stat")
    return bool(state) and not state.startswith("Z")


def command_line(pid: int) -> str:
    """Return how a process was called, its arguments separated by spaces; empty if it is gone."""
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


def ended_within(pid: int, seconds: float) -> bool:
    """Wait for the end of a process; False when time is up before."""
    deadline = time.monotonic() + seconds
    while runs(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def dead_pid() -> int:
    """Return a pid that belongs to nobody: that of a child just buried."""
    child = subprocess.Popen(["/bin/sh", "-c", ":"])
    child.wait()
    return child.pid
