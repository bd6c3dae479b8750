"""docs/distribution.md says what the code does, and its requests are answered as it says."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from hq_service.domain import distribution
from hq_service.domain.actors import Role
from hq_service.domain.distribution import (
    ACKNOWLEDGEABLE,
    CHANNEL_TRANSACTIONS,
    GLOBAL_CONFIGURATION,
    JOBS,
    STATUSES,
    Direction,
    Job,
    Session,
    SessionStatus,
    Verdict,
)
from hq_service.operations.database import prepare
from hq_service.store import terminals
from hq_service.store.database import transactional
from tests.support import KEYRING, Hq

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "distribution.md").read_text("utf-8")
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
# Whatever has such a value in the document has another one each time.
VARYING = re.compile(
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{64}|admin:[a-z0-9]{12}"
    r"|\d{4}-\d\d-\d\dT[\d:.]+\+00:00"
)
VARYING_NUMBERS = {"package_bytes", "parameters_revision", "revision"}


def rows(title: str) -> list[list[str]]:
    found = re.search(rf"\n## {title}\n(.*?)\n## ", TEXT, re.DOTALL)
    assert found is not None
    lines = re.findall(r"^\| `(.+?) \|$", found[1], re.MULTILINE)
    return [[cell.strip(" `") for cell in line.split(" | ")] for line in lines]


def test_the_jobs_are_those_of_the_code() -> None:
    told = [row[:3] for row in rows("Jobs")]
    assert told == [[job.job_id, job.name, job.direction] for job in JOBS]


def test_the_statuses_are_those_of_the_code_and_their_directions() -> None:
    def direction(status: SessionStatus) -> str:
        of = [str(one) for one, statuses in STATUSES.items() if status in statuses]
        return "both" if len(of) > 1 else of[0]

    assert [row[:2] for row in rows("Statuses")] == [
        [status, direction(status)]
        for status in sorted(SessionStatus, key=[row[0] for row in rows("Statuses")].index)
    ]


def edges_of(job: Job) -> set[tuple[str, str]]:
    """Return every change of status that the code allows."""
    download = job.direction is Direction.DOWNLOAD
    first = distribution.opened(
        UUID(int=1),
        (UUID(int=2), "D"),
        "S",
        job,
        distribution.package_of(job, "S", 1, {}) if download else None,
        applied_last=None,
        is_wanted_anyway=False,
        rerun_for=None,
        now=NOW,
    )
    found = {("[*]", "available")} | (
        {("[*]", "no_data"), ("[*]", "create_failed")} if download else set()
    )
    seen, edge = {first}, [first]
    while edge:
        one = edge.pop()
        for other in after(one):
            found.add((one.status, other.status))
            if other not in seen:
                seen.add(other)
                edge.append(other)
    return found


def after(one: Session) -> list[Session]:
    """Return what a session can be next."""
    found = [
        distribution.acknowledged(one, told, None, NOW)
        for told in ACKNOWLEDGEABLE
        if distribution.judge_acknowledgement(one, told) is Verdict.RECORDED
    ]
    fetched = distribution.fetched(one, NOW)
    if fetched is not None and fetched is not one:
        found.append(fetched)
    if one.ended_at is None:
        found.append(distribution.canceled(one, "", None, NOW))
    return found


@pytest.mark.parametrize("job", [GLOBAL_CONFIGURATION, CHANNEL_TRANSACTIONS])
def test_the_diagrams_have_exactly_the_changes_that_the_code_allows(job: Job) -> None:
    diagrams = re.findall(r"```mermaid\n(.*?)```", TEXT, re.DOTALL)
    [diagram] = [one for one in diagrams if f" as {job.direction} " in one]
    assert set(re.findall(r"(\S+) --> (\S+)", diagram)) == edges_of(job)


def test_the_limits_are_those_of_the_code() -> None:
    assert distribution.PACKAGE_BYTES_MAX == 1024 * 1024
    assert "(1 MiB at most)" in TEXT
    least, most = distribution.EVERY_SECONDS_MIN, distribution.EVERY_SECONDS_MAX
    assert f"`every_seconds` ({least} to {most})" in TEXT
    assert f"({distribution.MESSAGE_LENGTH_MAX} characters at most)" in TEXT
    assert distribution.TRY_COUNT_MAX == 3
    assert "Below three tries" in TEXT


def exchanges() -> list[tuple[str, str]]:
    """Return the requests of the document with the answers behind them."""
    blocks = re.findall(r"```http\n(.*?)```", TEXT, re.DOTALL)
    requests, answers = blocks[::2], blocks[1::2]
    assert len(requests) == len(answers) == 5
    assert all(answer.startswith("HTTP/1.1 ") for answer in answers)
    return list(zip(requests, answers, strict=True))


def head_and_body(block: str) -> tuple[str, dict[str, str], Any]:
    head, _, body = block.partition("\n\n")
    first, *lines = head.strip().splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    return first, headers, json.loads(body) if body.strip() else None


def compare(told: Any, came: Any, names: dict[str, str], place: str = "") -> None:
    """Compare what the document tells with what came, and note what stands for what."""
    if isinstance(told, dict):
        assert isinstance(came, dict), place
        missing = set(came) - set(told)
        assert "..." in told or not missing, f"{place}: {missing}"
        for name in set(told) - {"..."}:
            if name not in VARYING_NUMBERS:
                compare(told[name], came[name], names, f"{place}/{name}")
            else:
                assert type(told[name]) is type(came[name]), f"{place}/{name}"
    elif isinstance(told, list):
        assert len(told) == len(came), place
        for number, (one, other) in enumerate(zip(told, came, strict=True)):
            compare(one, other, names, f"{place}/{number}")
    elif isinstance(told, str) and VARYING.fullmatch(told):
        assert isinstance(came, str), place
        assert VARYING.fullmatch(came), f"{place}: {came}"
        is_instant = told.endswith("+00:00")
        assert is_instant or names.setdefault(told, came) == came, f"{place}: another one"
    else:
        assert told == came, place


def test_the_requests_of_the_document_are_answered_as_it_says(hq: Hq) -> None:
    @transactional
    def make_store(_connection: Any) -> None:
        terminals.add_store("S001", "Stockholm Central", datetime.now(UTC))

    with hq.app.app_context():
        make_store()
        assert prepare(KEYRING, datetime.now(UTC))
    seen = hq.admin.get("/v1/admin/parameters").headers["ETag"]
    changes = {"allow_concluding_gift_card_transactions_offline": True}
    edit = {"parameters": changes, "reason": "test"}
    assert hq.admin.patch("/v1/admin/parameters", edit, If_Match=seen).status_code == 200
    keys = {
        "$HQ_ADMIN_KEY": hq.admin.key,
        "$HQ_SYNC_S001_KEY": hq.make_key(Role.SYNC, store_id="S001"),
    }
    # The second session of the list is the one that fails further down.
    names: dict[str, str] = {}
    failing = next(
        session_id
        for request, _ in exchanges()
        if "apply_failed" in request
        for session_id in VARYING.findall(request)
    )
    for request, answer in exchanges():
        first, headers, body = head_and_body(request)
        method, path = first.split(" ", 1)
        if failing in path:
            names[failing] = second_session(hq, keys["$HQ_SYNC_S001_KEY"])
        for told, came in names.items():
            path = path.replace(told, came)
            body = json.loads(json.dumps(body).replace(told, came))
        headers["Authorization"] = f"Bearer {keys[headers['Authorization'].split()[1]]}"
        came_back = hq.client.open(path, method=method, headers=headers, json=body)
        status_line, told_headers, told_body = head_and_body(answer)
        assert status_line == f"HTTP/1.1 {came_back.status}", came_back.json
        compare(told_body, came_back.json, names)
        compare(
            {name: value.strip('"') for name, value in told_headers.items()},
            {name: came_back.headers[name].strip('"') for name in told_headers},
            names,
        )


def second_session(hq: Hq, key: str) -> str:
    """Fetch what is left to do first of all, and return its session."""
    headers = {"Authorization": f"Bearer {key}"}
    todo = hq.client.get("/v1/distribution-sessions", headers=headers).json["sessions"]
    session_id: str = todo[0]["session_id"]
    path = f"/v1/distribution-sessions/{session_id}/package"
    assert hq.client.get(path, headers=headers).status_code == 200
    return session_id
