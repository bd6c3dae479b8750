"""Random secrets that are kept beside the data they belong to."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from hq_service.embedded_postgres.errors import EmbeddedPostgresError
from hq_service.embedded_postgres.files import exclusively, synchronise_directory


def secret_in(place: Path, name: str, length: int) -> bytes:
    """Return the random secret of this name, made on first use.

    Units:   length in bytes.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ValueError(f"a secret's name is lower-case letters, digits, - and _: {name!r}")
    place.mkdir(mode=0o700, exist_ok=True)
    path = place / name
    with exclusively(place / ".lock"):
        if not path.exists():
            _write(path, secrets.token_bytes(length))
        found = bytes.fromhex(path.read_text())
    if len(found) != length:
        raise EmbeddedPostgresError(
            f"{path} holds {len(found)} bytes where {length} are asked. Restore the file that"
            " belongs to the data; remove it only together with the data (`hq db reset`)."
        )
    return found


def _write(path: Path, value: bytes) -> None:
    # Under another name first, so that a secret that is there is whole.
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(value.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    synchronise_directory(path.parent)
