"""The download and upload sessions of a store's sync job: packages of the distribution schedules.

A package is kept as a file of its own, whole or not at all, before HQ is told that it is applied.
Source: docs/distribution.md, "What a sync job has to do".
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hq_service.terminal.client import Answer, Client
from hq_service.terminal.refusals import Refused

PACKAGES_NAME = "packages"
SESSIONS_AT_ONCE = 100


def do_sessions(
    client: Client, directory: Path, is_uploaded: Callable[[], bool]
) -> list[tuple[str, str]]:
    """Do every session that HQ has for the store, the oldest first; return job and status of each.

    ``is_uploaded`` says whether everything that the tills had pending has arrived.

    Raises:  Unreachable, Refused.
    """
    listed = _answered(client.get(f"/v1/distribution-sessions?limit={SESSIONS_AT_ONCE}"), client)
    done = []
    for session in listed.at("sessions"):
        if session["direction"] == "upload":
            status = _upload_session(client, session, is_uploaded=is_uploaded())
        else:
            status = _download_session(client, session, directory)
        done.append((session["job_id"], status))
    return done


def _download_session(client: Client, session: Mapping[str, Any], directory: Path) -> str:
    path = f"/v1/distribution-sessions/{session['session_id']}"
    package = _answered(client.get(f"{path}/package"), client)
    checksum = hashlib.sha256(package.content).hexdigest()
    if checksum != session["checksum_sha256"]:
        return _tell(client, path, "download_failed", message="the package did not arrive whole")
    try:
        keep_package(directory, session["job_id"], package.content)
    except OSError as error:
        return _tell(client, path, "apply_failed", message=f"it cannot be kept: {error.strerror}")
    return _tell(client, path, "applied", checksum_sha256=checksum)


def _upload_session(client: Client, session: Mapping[str, Any], *, is_uploaded: bool) -> str:
    path = f"/v1/distribution-sessions/{session['session_id']}"
    if not is_uploaded:
        return _tell(client, path, "upload_failed", message="not everything has arrived at HQ yet")
    if session["status"] != "uploaded":
        _tell(client, path, "uploaded")
    return _tell(client, path, "applied")


def keep_package(directory: Path, job_id: str, content: bytes) -> Path:
    """Replace the store's package of a job; after a crash it is the old one or the new one."""
    folder = directory / PACKAGES_NAME
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{job_id}.json"
    half = path.with_suffix(".part")
    with half.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
    return path


def _tell(client: Client, path: str, status: str, **more: Any) -> str:
    answer = client.post(f"{path}/acknowledgements", {"status": status, **more})
    return str(_answered(answer, client).at("status"))


def _answered(answer: Answer, client: Client) -> Answer:
    if client.final(answer).is_problem:
        raise Refused(answer)
    return answer
