"""One service for all tests of the till: a process of its own, on a database of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Server
from tests.faults.service import environment, run_hq
from tests.support import Hq, served
from tests.terminal.shop import Shop


@pytest.fixture(scope="session")
def database_url(server: Server, template: str) -> str:
    url = server.create_database(f"hq_tills_{uuid.uuid4().hex[:8]}", template)
    run_hq(environment(url), "db", "init")  # without it the service is never ready
    return url


@pytest.fixture(scope="session")
def service_url(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("service") / "log"
    with served(database_url, log) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def shop(hq: Hq, service_url: str, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(hq, service_url, tmp_path)
    yield shop
    shop.close()
