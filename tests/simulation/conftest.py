"""One service for all simulations: a process of its own, on a database of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from flask import Flask

from hq_service.operations import database
from hq_service.operations.clock import now
from tests.conftest import Server
from tests.support import KEYRING, Hq, served


@pytest.fixture(scope="session")
def database_url(server: Server, template: str) -> str:
    return server.create_database(f"hq_simulated_{uuid.uuid4().hex[:8]}", template)


@pytest.fixture(scope="session")
def service_url(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("service") / "log"
    with served(database_url, log, HQ_THREADS="8") as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def admin_key(app: Flask, hq: Hq) -> str:
    """The key of an administrator of a service that is prepared, as `hq db init` does it."""
    with app.app_context():
        assert database.prepare(KEYRING, now())
    return hq.admin.key
