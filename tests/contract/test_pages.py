"""Every list: page by page it is told what it tells at once, and the last page says so."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support import Caller, Hq, a_name

WHY = {"reason": "test"}
# Path -> the list in it.
LISTS = {
    "/v1/admin/stores": "stores",
    "/v1/admin/stores/{store_id}/registers": "registers",
    "/v1/admin/offline-profiles": "offline_profiles",
    "/v1/admin/keys": "keys",
    "/v1/admin/audit-entries": "entries",
    "/v1/admin/audit-entries?order=newest": "entries",
    "/v1/admin/cases": "cases",
    "/v1/admin/locks": "locks",
    "/v1/admin/cache-resets": "cache_resets",
    "/v1/admin/connection-status": "registers",
    "/v1/admin/completeness?business_date={today}": "registers",
    "/v1/admin/distribution-schedules": "schedules",
    "/v1/admin/distribution-sessions": "sessions",
    "/v1/admin/parameters/history": "revisions",
    "/v1/admin/parameters/states?store_id={store_id}": "stores",
    "/v1/distribution-sessions": "sessions",
    "/v1/locks": "locks",
}


@pytest.fixture(scope="module")
def world(hq: Hq) -> dict[str, Any]:
    """Two or more of everything that is listed."""
    hq.make_store()
    till = hq.till()
    hq.till(till.store_id)
    for profile_id in (a_name("P"), a_name("P")):
        body = {"offline_profile_id": profile_id, "name": "test", **WHY}
        assert hq.admin.post("/v1/admin/offline-profiles", body).status_code == 201
    hq.post_batch(till.store_id, [{}, {"x": 1}])
    for name in ("X1", "X2"):
        assert till.lock(hq.issue(100), name).status_code == 201
        assert hq.admin.post("/v1/admin/cache-resets", WHY).status_code == 201
    hq.set_parameters(lease_seconds=60)
    hq.set_parameters(lease_seconds=90)
    hq.make_schedule("1110")
    hq.run_now(hq.make_schedule("1110", "1090"), till.store_id)
    return {"till": till, "sync": hq.sync(till.store_id), "store_id": till.store_id}


@pytest.mark.parametrize("path", LISTS)
def test_page_by_page_a_list_is_what_it_is_at_once_and_the_last_page_says_so(
    hq: Hq, world: dict[str, Any], path: str
) -> None:
    caller: Caller = hq.admin
    if not path.startswith("/v1/admin"):
        caller = world["till" if path == "/v1/locks" else "sync"]
    name = LISTS[path]
    path = path.format(store_id=world["store_id"], today=datetime.now(UTC).date())
    path += "&" if "?" in path else "?"
    whole = caller.get(f"{path}limit=20" if "resets" in path else f"{path}limit=200").json
    assert whole["next_after"] is None
    parts: list[Any] = []
    after = ""
    while True:
        page = caller.get(f"{path}limit=1{after}")
        assert page.status_code == 200, page.json
        assert len(page.json[name]) == 1, "also the last page has something"
        parts += page.json[name]
        if page.json["next_after"] is None:
            break
        after = f"&after={page.json['next_after']}"
    if "states" in path:  # a store goes on with its registers on the next page
        parts = [{**parts[0], "terminals": [one for part in parts for one in part["terminals"]]}]
        assert len(parts[0]["terminals"]) == 2
    else:
        assert len(parts) >= 2
    assert parts == whole[name]


def test_the_lists_above_are_all_that_have_pages(hq: Hq) -> None:
    description = hq.client.get("/openapi.json").json
    with_pages = {
        path
        for path, described in description["paths"].items()
        if any(one["name"] == "limit" for one in described.get("get", {}).get("parameters", []))
    }
    # Those of a batch are tested in tests/integration/test_what_a_batch_tells.py.
    with_pages -= {"/v1/offline-batches/{store_id}/{batch_id}/lines"}
    assert with_pages == {path.partition("?")[0] for path in LISTS}
