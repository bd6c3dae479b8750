"""docs/connection-status.md and the code say the same."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from hq_service.api.heartbeats import GAPS_TOLD_MAX
from hq_service.api.schemas.heartbeats import HeartbeatAnswerSchema, HeartbeatSchema
from hq_service.domain.completeness import Reason
from hq_service.domain.connection import (
    HEARTBEATS_PER_LEASE,
    TIPS_KEPT_MAX,
    TIPS_MAX,
    ConnectionState,
    SyncStatus,
    ToldState,
)
from hq_service.operations.heartbeats import JOURNALS_TOLD_MAX
from tests.support import Hq

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "connection-status.md").read_text(
    encoding="utf-8"
)
FIRST_COLUMN = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


def section(title: str) -> str:
    found = re.search(rf"## {title}\n(.*?)(?=\n## |\Z)", TEXT, re.DOTALL)
    assert found is not None
    return found[1]


def bodies() -> list[dict[str, Any]]:
    return [json.loads(one) for one in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]


def shape(value: Any) -> Any:
    """Return what a body is made of, without what differs from one moment to the next."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value]
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT.*", value):
        return "an instant"
    return value


def test_the_documented_heartbeat_is_answered_as_documented(hq: Hq) -> None:
    heartbeat, documented = bodies()
    ahead = datetime.now(UTC) - datetime.fromisoformat(heartbeat["sent_at"])

    def now(instant: str) -> str:
        return (datetime.fromisoformat(instant) + ahead - timedelta(seconds=1)).isoformat()

    heartbeat["sent_at"] = now(heartbeat["sent_at"])
    heartbeat["oldest_pending_at"] = now(heartbeat["oldest_pending_at"])
    heartbeat["last_sync"]["at"] = now(heartbeat["last_sync"]["at"])
    till = hq.till()
    answer = till.post("/v1/heartbeats", heartbeat)
    assert answer.status_code == 200, answer.json
    assert shape(answer.json) == shape(documented)
    [register] = hq.admin.get(f"/v1/admin/connection-status?store_id={till.store_id}").json[
        "registers"
    ]
    assert register["state"] == heartbeat["connection_state"]
    assert register["acknowledged_revision"] == heartbeat["parameter_revision"]


def test_the_documented_heartbeat_has_every_member_and_the_tables_explain_them() -> None:
    heartbeat, answer = bodies()
    members = list(HeartbeatSchema().fields)
    assert sorted(heartbeat) == sorted(members)
    named = FIRST_COLUMN.findall(section("Heartbeats"))
    assert named == [*heartbeat, *answer]
    assert list(answer) == list(HeartbeatAnswerSchema().fields)


def test_every_state_is_documented_and_no_other() -> None:
    assert sorted(FIRST_COLUMN.findall(section("States"))) == sorted(ConnectionState)
    for one in (*ToldState, *SyncStatus):
        assert f"`{one}`" in section("Heartbeats")


def test_every_reason_is_documented_in_its_order_and_no_other() -> None:
    assert FIRST_COLUMN.findall(section("Completeness")) == list(Reason)


def test_the_limits_are_the_documented_ones() -> None:
    assert f"at most {TIPS_MAX} of them" in TEXT
    assert f"tips of at most {TIPS_KEPT_MAX} journals" in TEXT
    assert f"Up to {JOURNALS_TOLD_MAX} journals are told" in TEXT
    assert f"the first {GAPS_TOLD_MAX} of all" in TEXT
    assert HEARTBEATS_PER_LEASE == 3, "a third of the lease"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(/v1/[a-z_/<>-]+)[`?]", TEXT))))
def test_every_path_that_is_named_is_there(app: Flask, path: str) -> None:
    rules = {re.sub(r"<\w+:", "<", rule.rule) for rule in app.url_map.iter_rules()}
    assert path in rules


def test_every_reference_leads_to_a_file() -> None:
    folder = Path(__file__).resolve().parents[2] / "docs"
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (folder / target).is_file(), target
