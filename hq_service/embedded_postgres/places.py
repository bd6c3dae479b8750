"""Where the embedded server keeps its data."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

DIRECTORY_VARIABLE = "HQ_LOCAL_DIR"
ROOT_DIRECTORY = Path("/var/lib/hq-service")


def default_directory() -> Path:
    """Return where the embedded database of this checkout lives.

    HQ_LOCAL_DIR overrides. Root's checkouts keep theirs under /var/lib/hq-service, each in its
    own directory, because the server's account cannot reach into root's home.
    """
    chosen = os.environ.get(DIRECTORY_VARIABLE)
    if chosen:
        return Path(chosen).resolve()
    root = Path(__file__).resolve().parents[2]
    if os.geteuid() == 0:
        digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
        return ROOT_DIRECTORY / f"{root.name}-{digest}"
    if (root / "pyproject.toml").exists():
        return root / ".local"
    # Installed as a package: site-packages is no place for data.
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(home) / "hq-service"


def make_root_directory() -> None:
    """Make the directory that is root's own and that the server's account passes through."""
    ROOT_DIRECTORY.mkdir(parents=True, exist_ok=True)
    # Whatever the umask: the server's account has to pass through.
    ROOT_DIRECTORY.chmod(0o755)
