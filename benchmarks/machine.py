"""What was measured on: machine, versions, settings."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from hq_service.embedded_postgres.server import SOCKET_PARENT

ROOT = Path(__file__).resolve().parent.parent
FLUSHES = 100
PACKAGES = ("flask", "flask-smorest", "gunicorn", "marshmallow", "orjson", "psycopg", "sqlalchemy")


def machine() -> dict[str, Any]:
    """Return what the machine is, and how busy it was when the run began."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_mb": psutil.virtual_memory().total // 2**20,
        "load_average": list(os.getloadavg()),
        "flush_us": _flush_us(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, of the libraries that matter, and of this service."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "hq-service": _revision(), **found}


def service_settings(workers: int, threads: int) -> dict[str, Any]:
    """Return how the servers were run."""
    return {"worker_class": "gthread", "workers": workers, "threads": threads}


def _flush_us() -> float:
    """Return how long 8 kB take to reach the disk: what a commit that waits alone must wait."""
    # Where a throwaway server has its data; macOS has no fdatasync.
    flush = getattr(os, "fdatasync", os.fsync)
    taken = []
    with tempfile.NamedTemporaryFile(dir=SOCKET_PARENT) as file:
        for _ in range(FLUSHES):
            os.pwrite(file.fileno(), bytes(8_192), 0)
            begun_at = time.perf_counter()
            flush(file.fileno())
            taken.append(time.perf_counter() - begun_at)
    return statistics.median(taken) * 1e6


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _revision() -> str:
    """Return the commit that was measured, marked if files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
