"""How gunicorn runs the service. Read by gunicorn as its configuration file.

Worker class gthread, never sync: a sync worker that runs out of time makes the driver cancel the
statement under way, and PostgreSQL answers a cancelled COMMIT with success although no standby has
it.
"""

from __future__ import annotations

import gc
import os
from typing import Any

from hq_service.embedded_postgres import EmbeddedPostgres
from hq_service.settings import settings_from

_settings = settings_from(os.environ)

wsgi_app = "hq_service.app:from_environment()"
bind = os.environ.get("HQ_BIND") or "127.0.0.1:8080"
worker_class = "gthread"
workers = _settings.workers
threads = _settings.threads
timeout = 30
graceful_timeout = 25
keepalive = 5
# gunicorn would open a control socket in the home directory, which need not be writable.
control_socket_disable = True
proc_name = "hq-service"
loglevel = "warning"


def post_worker_init(_worker: Any) -> None:
    """Let the search for garbage in cycles leave out the application itself, and be rarer.

    A batch makes tens of thousands of objects that live until it is settled. At the default, a
    third of its time went by with looking through them, and through all modules, for nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def worker_abort(_worker: Any) -> None:
    """End a stuck worker at once, so that no statement of its is cancelled on the way out."""
    os._exit(1)


def on_exit(_server: Any) -> None:
    """Stop the embedded database, if this was its last user."""
    if "HQ_EMBEDDED_USERS_FD" in os.environ:
        EmbeddedPostgres().leave()
