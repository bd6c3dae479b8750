"""The deployment files say what the service needs, checked without Docker and without a network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from hq_service.api.problems import PROBLEMS

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
NGINX = ROOT / "deploy/nginx.conf"
DOCKERFILE = ROOT / "Dockerfile"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return YAML(typ="safe").load(COMPOSE)["services"]


def test_the_compose_file_fits_the_schema_of_compose():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    checked = subprocess.run(
        [*command, "vendor.compose-spec", COMPOSE], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_database_keeps_its_data_where_postgresql_18_wants_it(services):
    assert services["database"]["image"].startswith("postgres:18")
    assert services["database"]["volumes"] == ["database:/var/lib/postgresql"]


def test_each_service_waits_for_what_it_needs(services):
    waits = {
        name: {needed: how["condition"] for needed, how in service.get("depends_on", {}).items()}
        for name, service in services.items()
    }
    assert waits == {
        "database": {},
        "migrate": {"database": "service_healthy"},
        "api": {"migrate": "service_completed_successfully"},
        "worker": {"migrate": "service_completed_successfully"},
        "nginx": {"api": "service_healthy"},
    }
    awaited = [name for needs in waits.values() for name, how in needs.items() if "healthy" in how]
    assert all("healthcheck" in services[name] for name in awaited)


def test_the_migration_runs_once_and_the_api_starts_as_the_image_says(services):
    # Not `db migrate`: without the role's time-outs the service never gets ready.
    assert services["migrate"]["command"] == ["python", "-m", "hq_service", "db", "init"]
    assert services["migrate"]["restart"] == "no"
    assert "command" not in services["api"]
    assert services["worker"]["command"] == ["python", "-m", "hq_service", "worker"]
    assert 'CMD ["python", "-m", "hq_service", "serve"]' in DOCKERFILE.read_text()


def test_every_secret_must_be_given_and_none_is_written_down(services):
    text = COMPOSE.read_text()
    for name in ("HQ_DATABASE_PASSWORD", "HQ_NUMBER_SECRET", "HQ_GRANT_KEYS"):
        used = re.findall(r"\$\{" + name + r"(.?.?)", text)
        assert used, name
        assert set(used) == {":?"}, f"{name} must be refused when it is missing"
    assert services["api"]["environment"]["HQ_ENV"] == "production"


def test_nothing_is_published_beyond_this_machine(services):
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8080:8080"]


def test_the_image_holds_runtime_packages_only_and_does_not_run_as_root():
    dockerfile = DOCKERFILE.read_text()
    assert "--require-hashes" in dockerfile
    assert "development" not in dockerfile
    users = re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE)
    assert users, "the image must name a user"
    assert users[-1] not in ("0", "root")
    for path in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        for source in path.split():
            assert (ROOT / source).exists(), source
            assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines()


def test_nginx_sends_no_request_twice_and_limits_bodies():
    text = NGINX.read_text()
    assert "proxy_next_upstream off;" in text
    assert "proxy_request_buffering on;" in text
    assert "proxy_set_header X-Request-Id $passed_request_id;" in text
    assert re.findall(r"client_max_body_size (\w+);", text) == ["64k", "64m"]
    batches = text.split("location = /v1/offline-batches")[1].split("}")[0]
    assert "client_max_body_size 64m;" in batches


def test_what_nginx_refuses_itself_is_a_problem_that_the_service_knows():
    answers = re.findall(r"return (\d+) '(\{.*?\})';", NGINX.read_text(), re.DOTALL)
    assert len(answers) == 3
    for status, text in answers:
        document = json.loads(text)
        known = PROBLEMS[document["code"]]
        assert document["type"] == f"/problems/{document['code']}"
        assert (document["title"], document["status"]) == (known.title, known.status)
        assert document["status"] == int(status)
        assert document["retryable"] == known.retryable


def test_nginx_accepts_its_configuration(tmp_path):
    # An ordinary user's PATH on Debian lacks /usr/sbin.
    nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    # The name of the service exists in the Compose network only.
    text = NGINX.read_text().replace("api:8080", "127.0.0.1:8080").replace("/tmp/", f"{tmp_path}/")
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(text)
    checked = subprocess.run(
        [nginx, "-t", "-p", tmp_path, "-c", configuration], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
