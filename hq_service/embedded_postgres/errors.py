"""What goes wrong with the embedded server; every message names the remedy."""

from __future__ import annotations


class EmbeddedPostgresError(RuntimeError):
    """The embedded server cannot do what was asked; the message names the remedy."""


class BinariesNotFoundError(EmbeddedPostgresError):
    """No usable PostgreSQL programs are on this machine."""
