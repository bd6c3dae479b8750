"""Distribution schedules, Run now, and what the sync jobs of stores do with the sessions."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from werkzeug.test import TestResponse

from hq_service.domain.distribution import PACKAGE_BYTES_MAX, TRY_COUNT_MAX
from hq_service.operations.database import prepare
from hq_service.operations.distribution import due, run_due
from tests.acting import audited
from tests.support import KEYRING, Caller, Hq, SyncJob, a_name

SCHEDULES = "/v1/admin/distribution-schedules"
SESSIONS = "/v1/admin/distribution-sessions"


def applied_revision(hq: Hq, store_id: str) -> tuple[int, datetime | None]:
    query = "SELECT applied_revision, applied_at FROM stores WHERE store_id = %s"
    [(revision, applied_at)] = hq.sql(query, store_id)
    return revision, applied_at


def save(hq: Hq, **changes: Any) -> int:
    """Save company-wide parameters, distribute nothing, and return the revision."""
    seen = hq.admin.get("/v1/admin/parameters").headers["ETag"]
    body = {"parameters": changes, "reason": "test"}
    answer = hq.admin.patch("/v1/admin/parameters", body, If_Match=seen)
    assert answer.status_code == 200, answer.json
    revision: int = answer.json["revision"]
    return revision


def start(hq: Hq, *job_ids: str, store_id: str | None = None) -> tuple[str, str, SyncJob]:
    """Run a new schedule for one store; return the schedule, the store, and its sync job."""
    store = store_id or hq.make_store()
    schedule_id = hq.make_schedule(*job_ids)
    assert hq.run_now(schedule_id, store).status_code == 201
    return schedule_id, store, hq.sync(store)


def only(sync: SyncJob) -> dict[str, Any]:
    [session] = sync.to_do()
    return session


def shown(hq: Hq, session_id: str) -> dict[str, Any]:
    answer = hq.admin.get(f"{SESSIONS}/{session_id}")
    assert answer.status_code == 200, answer.json
    found: dict[str, Any] = answer.json
    return found


def change(hq: Hq, session_id: str, what: str) -> TestResponse:
    return hq.admin.post(f"{SESSIONS}/{session_id}/{what}", {"reason": "looked into it"})


def test_a_change_reaches_the_store_by_run_now_and_its_sync_job(hq: Hq) -> None:
    till = hq.till()
    before, _ = applied_revision(hq, till.store_id)
    revision = save(hq, lease_seconds=600)
    # Saved, and nothing else: tills and their store still have what they had.
    assert till.get("/v1/parameters").json["revision"] == before
    _, _, sync = start(hq, "1110", store_id=till.store_id)
    session = only(sync)
    assert (session["status"], session["job_name"]) == ("available", "Global configuration")
    assert session["parameters_revision"] == revision
    package = sync.fetch(session["session_id"])
    assert package.content_type == "application/json"
    checksum = hashlib.sha256(package.data).hexdigest()
    assert package.headers["ETag"] == f'"{checksum}"'
    assert session["checksum_sha256"] == checksum
    assert package.json["revision"] == revision
    assert package.json["parameters"]["lease_seconds"] == 600
    told = sync.tell(session["session_id"], "downloaded")
    assert (told.status_code, told.json["status"]) == (200, "downloaded")
    assert applied_revision(hq, till.store_id)[0] == before
    told = sync.tell(session["session_id"], "applied", checksum_sha256=checksum)
    assert (told.status_code, told.json["status"]) == (200, "applied")
    found, applied_at = applied_revision(hq, till.store_id)
    assert found == revision
    assert datetime.fromisoformat(told.json["applied_at"]) == applied_at
    assert sync.to_do() == []
    assert till.get("/v1/parameters").json["revision"] == revision


def test_a_run_makes_one_session_per_job_and_store_in_use_in_the_order_of_the_jobs(
    hq: Hq,
) -> None:
    store, other, retired = (hq.make_store() for _ in range(3))
    hq.sql("UPDATE stores SET retired_at = now() WHERE store_id = %s", retired)
    schedule_id = hq.make_schedule("1090", "1110", "P-0001", "1070")
    run = hq.run_now(schedule_id)
    assert run.status_code == 201
    assert (run.json["schedule_id"], run.json["started_by"][:6]) == (schedule_id, "admin:")
    assert sum(run.json["counts"].values()) == run.json["sessions_count"] >= 2 * 4
    for store_id in (store, other):
        jobs = [one["job_id"] for one in hq.sync(store_id).to_do()]
        assert jobs == ["1090", "1110", "P-0001", "1070"]
    assert hq.sync(retired).to_do() == []
    [(action, detail)] = audited(hq, f"schedule:{schedule_id}")[1:]
    assert (action, detail["run_id"]) == ("schedule_run", run.json["run_id"])
    assert (detail["reason"], detail["store_ids"]) == ("test", None)


def test_a_run_for_some_stores_leaves_the_others_alone(hq: Hq) -> None:
    _, store_id, sync = start(hq, "1110")
    other = hq.make_store()
    assert len(sync.to_do()) == 1
    assert hq.sync(other).to_do() == []
    schedule_id = hq.make_schedule("1110")
    retired = hq.make_store()
    hq.sql("UPDATE stores SET retired_at = now() WHERE store_id = %s", retired)
    answer = hq.run_now(schedule_id, store_id, "nowhere", retired)
    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert answer.json["errors"] == [
        {"pointer": "/store_ids/1", "detail": "is not a store"},
        {"pointer": "/store_ids/2", "detail": "is retired"},
    ]
    assert len(sync.to_do()) == 1


def test_a_newer_session_replaces_the_pending_one(hq: Hq) -> None:
    schedule_id, store_id, sync = start(hq, "1110", "1070")
    older = {one["job_id"]: one["session_id"] for one in sync.to_do()}
    only_one = hq.make_schedule("1110")
    save(hq, lease_seconds=611)
    assert hq.run_now(only_one, store_id).status_code == 201
    newer = {one["job_id"]: one["session_id"] for one in sync.to_do()}
    assert newer["1070"] == older["1070"]
    replaced = shown(hq, older["1110"])
    assert (replaced["status"], replaced["replaced_by"]) == ("canceled", newer["1110"])
    assert replaced["message"] == "Replaced by a newer session."
    answer = sync.fetch(older["1110"])
    assert (answer.status_code, answer.json["code"]) == (409, "session_ended")
    assert answer.json["session_status"] == "canceled"
    assert replaced["schedule_id"] == schedule_id


def run_by_worker(hq: Hq, schedule_id: str) -> None:
    """Let a recurring schedule be due, and run it as the worker does."""
    due_now = "UPDATE distribution_schedules SET next_run_at = now() WHERE schedule_id = %s"
    hq.sql(due_now, schedule_id)
    with hq.app.app_context():
        assert run_due(schedule_id, "worker", datetime.now(UTC) + timedelta(seconds=1)) is not None


def test_a_package_that_fails_comes_to_its_last_try_however_often_its_schedule_recurs(
    hq: Hq,
) -> None:
    save(hq, lease_seconds=620)
    store_id = hq.make_store()
    save(hq, lease_seconds=621)
    sync, schedule_id = hq.sync(store_id), hq.make_schedule("1110", every_seconds=60)
    seen = set()
    for _ in range(TRY_COUNT_MAX):
        run_by_worker(hq, schedule_id)
        session_id = only(sync)["session_id"]
        seen.add(session_id)
        assert sync.fetch(session_id).status_code == 200
        assert sync.tell(session_id, "apply_failed", message="disk full").status_code == 200
    assert len(seen) == 1
    assert sync.to_do() == []
    [failed] = hq.admin.get(f"{SESSIONS}?store_id={store_id}&status=apply_failed").json["sessions"]
    assert (failed["try_count"], failed["message"]) == (TRY_COUNT_MAX, "disk full")
    assert failed["ended_at"] is not None


@pytest.mark.parametrize("status", ["available", "requested", "downloaded", "download_failed"])
def test_a_run_leaves_a_session_with_the_same_package_as_it_is(hq: Hq, status: str) -> None:
    schedule_id, store_id, sync = start(hq, "1110", "1090")
    session_id = sync.to_do()[0]["session_id"]
    if status != "available":
        assert sync.fetch(session_id).status_code == 200
    if status in ("downloaded", "download_failed"):
        assert sync.tell(session_id, status, message="as told").status_code == 200
    before = sync.to_do()
    assert before[0]["status"] == status
    run = hq.run_now(schedule_id, store_id).json
    assert (run["sessions_count"], run["counts"], run["kept_count"]) == (0, {}, 2)
    assert sync.to_do() == before
    hq.till(store_id)  # another package of 1090 only
    run = hq.run_now(schedule_id, store_id).json
    assert (run["counts"], run["kept_count"]) == ({"available": 1}, 1)
    assert sync.apply(session_id).json["status"] == "applied"


def test_a_replaced_session_keeps_what_it_failed_with_and_the_new_one_carries_on_nothing(
    hq: Hq,
) -> None:
    save(hq, lease_seconds=630)
    schedule_id, store_id, sync = start(hq, "1110")
    failed = only(sync)["session_id"]
    sync.fetch(failed)
    sync.tell(failed, "apply_failed", message="disk full")
    save(hq, lease_seconds=631)
    assert hq.run_now(schedule_id, store_id).json["counts"] == {"available": 1}
    newer = only(sync)
    assert (newer["status"], newer["try_count"], newer["message"]) == ("available", 0, None)
    gone = shown(hq, failed)
    assert (gone["status"], gone["replaced_by"]) == ("canceled", newer["session_id"])
    assert gone["message"] == (
        "Replaced by a newer session. It had failed before: apply_failed, try 1. disk full"
    )


def test_an_upload_goes_on_over_new_runs_and_is_applied_in_whatever_order_it_is_told(
    hq: Hq,
) -> None:
    schedule_id, store_id, sync = start(hq, "P-0001")
    upload = only(sync)["session_id"]
    assert sync.tell(upload, "uploaded").status_code == 200
    assert hq.run_now(schedule_id, store_id).json["kept_count"] == 1
    assert only(sync)["session_id"] == upload
    assert sync.tell(upload, "applied").json["status"] == "applied"
    # Only that it is done, which is a fact.
    assert hq.run_now(schedule_id, store_id).json["counts"] == {"available": 1}
    assert sync.tell(only(sync)["session_id"], "applied").json["try_count"] == 1
    # Replaced after it was uploaded.
    assert hq.run_now(schedule_id, store_id).json["counts"] == {"available": 1}
    upload = only(sync)["session_id"]
    assert sync.tell(upload, "uploaded").status_code == 200
    assert change(hq, upload, "reruns").status_code == 201
    assert shown(hq, upload)["status"] == "canceled"
    done = sync.tell(upload, "applied")
    assert (done.status_code, done.json["status"]) == (200, "applied")
    assert sync.tell(upload, "applied").json == done.json
    # Replaced before the store began it.
    untouched = only(sync)["session_id"]
    assert change(hq, untouched, "reruns").status_code == 201
    assert sync.tell(untouched, "applied").json["code"] == "session_ended"


def test_asking_for_the_headers_alone_fetches_nothing_and_acknowledges_nothing(hq: Hq) -> None:
    till = hq.till()
    _, store_id, sync = start(hq, "1090", store_id=till.store_id)
    session = only(sync)
    noted = "SELECT * FROM terminal_presence WHERE store_id = %s"
    before = hq.sql(noted, store_id)
    for caller, path in (
        (sync, f"/v1/distribution-sessions/{session['session_id']}/package"),
        (till, "/v1/parameters"),
    ):
        headers = {"Authorization": f"Bearer {caller.key}"}
        answer = hq.client.open(path, method="HEAD", headers=headers)
        assert (answer.status_code, answer.data) == (405, b"")
        assert set(answer.headers["Allow"].split(", ")) == {"GET", "OPTIONS"}
    assert only(sync) == session
    assert hq.sql(noted, store_id) == before


def test_any_tag_of_several_in_if_match_stands_for_what_was_seen(hq: Hq) -> None:
    paths = {
        f"{SCHEDULES}/{hq.make_schedule('1110')}": {"name": "another"},
        f"/v1/admin/stores/{hq.make_store()}": {"name": "another"},
        f"/v1/admin/stores/{hq.make_store()}/parameters": {"parameters": {"lease_seconds": 640}},
        "/v1/admin/parameters": {"parameters": {"lease_seconds": 641}},
    }
    for path, edit in paths.items():
        body = {**edit, "reason": "test"}
        seen = hq.admin.get(path).headers["ETag"]
        for stale in ('"998", "999"', f'"999", W/{seen}', '"x", "999"'):
            refused = hq.admin.patch(path, body, If_Match=stale)
            assert (refused.status_code, refused.json["code"]) == (412, "precondition_failed")
        edited = hq.admin.patch(path, body, If_Match=f'"999", {seen}, "998"')
        assert edited.status_code == 200, path
        assert edited.headers["ETag"] != seen
        again = {**body, "name": "third"} if "name" in edit else body
        refused = hq.admin.patch(path, again, If_Match=f'"999", {seen}')
        assert refused.status_code == 412, path


def test_what_the_store_has_already_is_no_data_and_hidden(hq: Hq) -> None:
    schedule_id, store_id, sync = start(hq, "1110", "1090")
    for session in sync.to_do():
        assert sync.apply(session["session_id"]).status_code == 200
    run = hq.run_now(schedule_id, store_id)
    assert run.json["counts"] == {"no_data": 2}
    assert sync.to_do() == []
    listed = hq.admin.get(f"{SESSIONS}?store_id={store_id}").json["sessions"]
    assert [one["status"] for one in listed] == ["applied", "applied"]
    asked = hq.admin.get(f"{SESSIONS}?store_id={store_id}&status=no_data").json["sessions"]
    assert {one["run_id"] for one in asked} == {run.json["run_id"]}
    assert all(one["ended_at"] for one in asked)
    # Another parameter makes another package, of that job only.
    save(hq, offline_grant_hours=48)
    assert hq.run_now(schedule_id, store_id).json["counts"] == {"available": 1, "no_data": 1}
    assert only(sync)["job_id"] == "1110"


def test_what_the_store_has_follows_when_something_else_may_be_on_its_way(hq: Hq) -> None:
    schedule_id, store_id, sync = start(hq, "1090")
    assert sync.apply(only(sync)["session_id"]).status_code == 200
    hq.till(store_id)
    hq.run_now(schedule_id, store_id)
    fetched = only(sync)["session_id"]
    assert sync.fetch(fetched).status_code == 200
    # Back to what the store applied last; but it may yet apply what it fetched.
    hq.sql("DELETE FROM api_keys WHERE store_id = %s AND terminal_id IS NOT NULL", store_id)
    hq.sql("DELETE FROM terminals WHERE store_id = %s", store_id)
    assert hq.run_now(schedule_id, store_id).json["counts"] == {"available": 1}
    assert only(sync)["session_id"] != fetched


def test_the_packages_have_the_store_and_its_registers_with_their_profiles(hq: Hq) -> None:
    till = hq.till(supports_offline=False)
    retired = hq.till(till.store_id)
    profile_id = a_name("P")
    hq.sql(
        "INSERT INTO offline_profiles (offline_profile_id, name, version, values, created_at)"
        " VALUES (%s, 'slow line', 3, '{\"time_out_interval_seconds\": 45}', now())",
        profile_id,
    )
    hq.sql(
        "UPDATE terminals SET offline_profile_id = %s, version = 2"
        " WHERE (store_id, terminal_id) = (%s, %s)",
        profile_id,
        till.store_id,
        till.terminal_id,
    )
    hq.sql(
        "UPDATE terminals SET retired_at = now() WHERE (store_id, terminal_id) = (%s, %s)",
        retired.store_id,
        retired.terminal_id,
    )
    _, store_id, sync = start(hq, "1070", "1090", store_id=till.store_id)
    channel, registers = [sync.fetch(one["session_id"]).json for one in sync.to_do()]
    assert (channel["format_version"], channel["job_id"]) == (1, "1070")
    assert channel["store"] == {
        "store_id": store_id,
        "name": "test store",
        "time_zone": "UTC",
        "version": 1,
    }
    assert set(channel["parameters"]) == set(
        hq.admin.get("/v1/admin/parameters").json["parameters"]
    )
    assert (registers["job_id"], registers["revision"]) == ("1090", None)
    one, other = sorted(registers["registers"], key=lambda register: register["is_retired"])
    assert one == {
        "terminal_id": till.terminal_id,
        "name": "test register",
        "supports_offline": False,
        "is_retired": False,
        "offline_profile_id": profile_id,
        "version": 2,
    }
    assert (other["is_retired"], other["offline_profile_id"]) == (True, None)
    defaults, own = registers["offline_profiles"]
    assert (own["offline_profile_id"], own["version"]) == (profile_id, 3)
    # What a profile does not say is the default; who has none goes by the defaults.
    assert own["values"] == {**defaults["values"], "time_out_interval_seconds": 45}
    assert (defaults["offline_profile_id"], defaults["version"]) == (None, 0)


def test_either_job_with_the_parameters_brings_their_revision_and_it_never_goes_back(
    hq: Hq,
) -> None:
    revision = save(hq, lease_seconds=700)
    _, store_id, sync = start(hq, "1070")
    older = only(sync)
    assert sync.fetch(older["session_id"]).status_code == 200
    newer_revision = save(hq, lease_seconds=800)
    start(hq, "1110", store_id=store_id)
    newer = next(one for one in sync.to_do() if one["job_id"] == "1110")
    assert sync.apply(newer["session_id"]).status_code == 200
    found = applied_revision(hq, store_id)
    assert found[0] == newer_revision > revision == older["parameters_revision"]
    assert sync.apply(older["session_id"]).json["status"] == "applied"
    assert applied_revision(hq, store_id) == found, "nor does since when the store has it"


@pytest.mark.parametrize("checksum", ["0" * 64, None, "", "f" * 63, "F" * 64, 7])
def test_a_wrong_checksum_is_refused_and_changes_nothing(hq: Hq, checksum: Any) -> None:
    save(hq, lease_seconds=901)
    _, store_id, sync = start(hq, "1110")
    session_id = only(sync)["session_id"]
    assert sync.fetch(session_id).status_code == 200
    before = (shown(hq, session_id), applied_revision(hq, store_id))
    more = {} if checksum is None else {"checksum_sha256": checksum}
    answer = sync.tell(session_id, "applied", **more)
    if checksum == "0" * 64:
        assert (answer.status_code, answer.json["code"]) == (409, "checksum_mismatch")
    else:
        assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
        assert [one["pointer"] for one in answer.json["errors"]] == ["/checksum_sha256"]
    assert (shown(hq, session_id), applied_revision(hq, store_id)) == before


def test_a_store_gets_its_own_values_over_those_of_the_company(hq: Hq) -> None:
    store_id, other = hq.make_store(), hq.make_store()
    company_revision = save(hq, lease_seconds=450, offline_grant_hours=24)
    path = f"/v1/admin/stores/{store_id}/parameters"
    body = {"parameters": {"lease_seconds": 120}, "reason": "slow line"}
    assert hq.admin.patch(path, body, If_Match="*").status_code == 200
    schedule_id = hq.make_schedule("1110")
    assert hq.run_now(schedule_id, store_id, other).status_code == 201
    own, companys = (
        sync.fetch(only(sync)["session_id"]).json for sync in (hq.sync(store_id), hq.sync(other))
    )
    assert own["revision"] > companys["revision"] == company_revision
    assert (own["parameters"]["lease_seconds"], companys["parameters"]["lease_seconds"]) == (
        120,
        450,
    )
    assert own["parameters"]["offline_grant_hours"] == 24


def test_a_wrong_checksum_is_refused_of_whatever_is_told(hq: Hq) -> None:
    _, _, sync = start(hq, "1110")
    session_id = only(sync)["session_id"]
    sync.fetch(session_id)
    answer = sync.tell(session_id, "downloaded", checksum_sha256="0" * 64)
    assert (answer.status_code, answer.json["code"]) == (409, "checksum_mismatch")
    assert sync.tell(session_id, "downloaded").json["status"] == "downloaded"


def test_everything_the_sync_job_does_can_be_repeated(hq: Hq) -> None:
    _, _, sync = start(hq, "1110")
    session_id = only(sync)["session_id"]
    first, again = sync.fetch(session_id), sync.fetch(session_id)
    assert (first.data, first.headers["ETag"]) == (again.data, again.headers["ETag"])
    assert shown(hq, session_id)["try_count"] == 1
    checksum = first.headers["ETag"].strip('"')
    for status in ("downloaded", "applied"):
        told = sync.tell(session_id, status, checksum_sha256=checksum)
        repeated = sync.tell(session_id, status, checksum_sha256=checksum, message="again")
        assert (told.status_code, repeated.status_code) == (200, 200)
        assert told.json == repeated.json
    assert sync.tell(session_id, "downloaded").json["status"] == "applied"
    late = sync.tell(session_id, "apply_failed")
    assert (late.status_code, late.json["code"]) == (409, "session_ended")


@pytest.mark.parametrize("failure", ["download_failed", "apply_failed"])
def test_a_failure_is_tried_again_until_the_try_count_and_then_needs_a_rerun(
    hq: Hq, failure: str
) -> None:
    _, store_id, sync = start(hq, "1110")
    session_id = only(sync)["session_id"]
    for try_number in range(1, TRY_COUNT_MAX + 1):
        assert only(sync)["session_id"] == session_id
        assert sync.fetch(session_id).status_code == 200
        told = sync.tell(session_id, failure, message="disk full at 6006000000000001")
        assert (told.json["status"], told.json["try_count"]) == (failure, try_number)
        assert told.json["message"] == "disk full at ***0001"
        assert sync.tell(session_id, failure).json == told.json
    assert sync.to_do() == []
    assert sync.fetch(session_id).json["code"] == "session_ended"
    revision = save(hq, lease_seconds=902)
    rerun = change(hq, session_id, "reruns")
    assert (rerun.status_code, rerun.json["status"]) == (201, "available")
    assert (rerun.json["rerun_for"], rerun.json["try_count"]) == (session_id, 0)
    assert rerun.json["parameters_revision"] == revision, "made anew of what is saved"
    assert only(sync)["session_id"] == rerun.json["session_id"]
    [(action, detail)] = audited(hq, f"session:{session_id}")
    assert (action, detail["reason"]) == ("session_rerun", "looked into it")
    assert (detail["store_id"], detail["session_id"]) == (store_id, rerun.json["session_id"])


def test_a_rerun_is_there_to_be_fetched_although_the_store_has_the_same(hq: Hq) -> None:
    _, _, sync = start(hq, "1110")
    session_id = only(sync)["session_id"]
    assert sync.apply(session_id).status_code == 200
    first, second = change(hq, session_id, "reruns"), change(hq, session_id, "reruns")
    assert (first.json["status"], second.json["status"]) == ("available", "available")
    assert only(sync)["session_id"] == second.json["session_id"]
    assert shown(hq, first.json["session_id"])["replaced_by"] == second.json["session_id"]


def test_nothing_is_rerun_for_a_retired_store(hq: Hq) -> None:
    _, store_id, sync = start(hq, "1110")
    session_id = only(sync)["session_id"]
    hq.sql("UPDATE stores SET retired_at = now() WHERE store_id = %s", store_id)
    answer = change(hq, session_id, "reruns")
    assert (answer.status_code, answer.json["code"]) == (409, "retired")


def test_a_canceled_session_is_not_handed_out_and_ends_once(hq: Hq) -> None:
    _, store_id, sync = start(hq, "1110")
    session_id = only(sync)["session_id"]
    gone = change(hq, session_id, "cancellations")
    assert (gone.status_code, gone.json["status"]) == (200, "canceled")
    assert gone.json["message"] == "Canceled: looked into it"
    assert sync.to_do() == []
    assert sync.fetch(session_id).json["code"] == "session_ended"
    again = change(hq, session_id, "cancellations")
    assert (again.status_code, again.json["code"]) == (409, "session_ended")
    # Never fetched, so it cannot have been applied either.
    checksum = gone.json["checksum_sha256"]
    told = sync.tell(session_id, "applied", checksum_sha256=checksum)
    assert (told.status_code, told.json["code"]) == (409, "session_ended")
    [(action, detail)] = audited(hq, f"session:{session_id}")
    assert (action, detail["old"]) == ("session_canceled", {"status": "available"})
    assert detail["store_id"] == store_id


def test_that_a_canceled_package_was_applied_all_the_same_is_a_fact(hq: Hq) -> None:
    revision = save(hq, lease_seconds=903)
    _, store_id, sync = start(hq, "1110")
    session_id = only(sync)["session_id"]
    checksum = sync.fetch(session_id).headers["ETag"].strip('"')
    assert change(hq, session_id, "cancellations").status_code == 200
    assert sync.tell(session_id, "downloaded").json["code"] == "session_ended"
    told = sync.tell(session_id, "applied", checksum_sha256=checksum)
    assert (told.status_code, told.json["status"]) == (200, "applied")
    assert told.json["message"] == (
        "Applied although it had been canceled; the store had fetched it before."
        " Canceled: looked into it"
    )
    assert applied_revision(hq, store_id)[0] == revision


def test_an_acknowledgement_that_does_not_follow_is_refused_with_what_would(hq: Hq) -> None:
    _, _, sync = start(hq, "1110", "P-0001")
    download, upload = (one["session_id"] for one in sync.to_do())
    sync.fetch(download)
    answer = sync.tell(download, "uploaded")
    assert (answer.status_code, answer.json["code"]) == (409, "acknowledgement_not_possible")
    assert answer.json["session_status"] == "requested"
    assert answer.json["possible_acknowledgements"] == [
        *("downloaded", "applied", "download_failed", "apply_failed")
    ]
    answer = sync.tell(upload, "downloaded")
    assert answer.json["possible_acknowledgements"] == ["applied", "uploaded", "upload_failed"]
    answer = sync.tell(upload, "uploaded", checksum_sha256="0" * 64)
    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    answer = sync.fetch(upload)
    assert (answer.status_code, answer.json["code"]) == (404, "package_not_found")


def test_an_upload_asks_the_sync_job_to_post_what_is_pending(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(500)
    _, store_id, sync = start(hq, "P-0001", store_id=till.store_id)
    session = only(sync)
    assert (session["direction"], session["status"]) == ("upload", "available")
    assert (session["checksum_sha256"], session["package_bytes"]) == (None, None)
    failed = sync.tell(session["session_id"], "upload_failed", message="no line to HQ")
    assert (failed.json["status"], failed.json["try_count"]) == ("upload_failed", 1)
    assert only(sync)["session_id"] == session["session_id"]
    assert hq.post_batch(store_id, [till.offline_line(card, "X1", 100)]).status_code == 201
    uploaded = sync.tell(session["session_id"], "uploaded")
    assert (uploaded.json["status"], uploaded.json["try_count"]) == ("uploaded", 2)
    assert sync.tell(session["session_id"], "uploaded").json == uploaded.json
    assert sync.tell(session["session_id"], "applied").json["status"] == "applied"
    assert sync.to_do() == []
    # An upload is never without data: HQ does not know what the tills have.
    schedule_id = session["schedule_id"]
    assert hq.run_now(schedule_id, store_id).json["counts"] == {"available": 1}
    again = only(sync)["session_id"]
    for failure in ("upload_failed", "uploaded", "apply_failed", "uploaded", "apply_failed"):
        assert sync.tell(again, failure).status_code == 200
    assert sync.to_do() == []
    assert change(hq, again, "reruns").json["direction"] == "upload"
    assert only(sync)["rerun_for"] == again


def test_another_stores_session_looks_like_one_that_is_not_there(hq: Hq) -> None:
    _, _, sync = start(hq, "1110")
    session_id = only(sync)["session_id"]
    stranger = hq.sync(hq.make_store())
    assert stranger.to_do() == []
    checksum = sync.fetch(session_id).headers["ETag"].strip('"')
    answers = [
        ask(one)
        for one in (session_id, str(uuid.uuid4()))
        for ask in (
            stranger.fetch,
            lambda one: stranger.tell(one, "applied", checksum_sha256=checksum),
            lambda one: stranger.tell(one, "downloaded"),
        )
    ]
    for answer in answers:
        assert (answer.status_code, answer.json["code"]) == (404, "session_not_found")
        del answer.json["request_id"]
        assert answer.json["title"] == answers[0].json["title"]
    assert shown(hq, session_id)["status"] == "requested"


def test_a_package_that_is_too_large_ends_its_session_and_no_other(hq: Hq) -> None:
    store_id, other = hq.make_store(), hq.make_store()
    registers_count = PACKAGE_BYTES_MAX // 400
    hq.sql(
        "INSERT INTO terminals (store_id, terminal_id, name, supports_offline, created_at)"
        " SELECT %s, 'T' || n, repeat('x', 400), true, now() FROM generate_series(1, %s) AS n",
        store_id,
        registers_count,
    )
    schedule_id = hq.make_schedule("1090", "1110")
    run = hq.run_now(schedule_id, store_id, other)
    assert run.json["counts"] == {"available": 3, "create_failed": 1}
    [failed] = hq.admin.get(f"{SESSIONS}?store_id={store_id}&status=create_failed").json["sessions"]
    assert failed["message"] == f"The package would have more than {PACKAGE_BYTES_MAX} bytes."
    assert [one["job_id"] for one in hq.sync(store_id).to_do()] == ["1110"]


def test_sessions_are_listed_newest_first_page_by_page_and_by_what_is_asked(hq: Hq) -> None:
    store_id = hq.make_store()
    schedules = [hq.make_schedule("1110", "1070"), hq.make_schedule("1090")]
    runs = [hq.run_now(schedules[n], store_id).json["run_id"] for n in (0, 1)]
    save(hq, lease_seconds=612)
    runs.append(hq.run_now(schedules[0], store_id).json["run_id"])
    everything = hq.admin.get(f"{SESSIONS}?store_id={store_id}").json
    assert everything["next_after"] is None
    sessions = everything["sessions"]
    assert [one["run_id"] for one in sessions] == [runs[2], runs[2], runs[1], runs[0], runs[0]]
    paged: list[dict[str, Any]] = []
    after = ""
    while True:
        page = hq.admin.get(f"{SESSIONS}?store_id={store_id}&limit=2{after}").json
        paged += page["sessions"]
        if page["next_after"] is None:
            break
        after = f"&after={page['next_after']}"
    assert paged == sessions

    def asked(query: str) -> set[str]:
        found = hq.admin.get(f"{SESSIONS}?store_id={store_id}&{query}").json["sessions"]
        return {one["run_id"] for one in found}

    assert asked(f"schedule_id={schedules[1]}") == asked("job_id=1090") == {runs[1]}
    assert asked("status=canceled") == {runs[0]}
    assert asked(f"run_id={runs[2]}&status=available") == {runs[2]}
    assert asked("job_id=P-0001") == asked("status=no_data") == set()
    sync = hq.sync(store_id)
    todo = sync.to_do()
    first = sync.get("/v1/distribution-sessions?limit=1").json
    rest = sync.get(f"/v1/distribution-sessions?after={first['next_after']}").json
    assert [*first["sessions"], *rest["sessions"]] == todo
    assert [one["run_id"] for one in todo] == [runs[1], runs[2], runs[2]]


def test_a_schedule_is_created_listed_and_edited(hq: Hq) -> None:
    schedule_id = a_name("D")
    wish = {"schedule_id": schedule_id, "name": "Nightly", "job_ids": ["1110", "1090"]}
    before = datetime.now(UTC)
    made = hq.admin.post(SCHEDULES, {**wish, "cron": "0 2 * * *", "reason": "test"})
    assert (made.status_code, made.headers["ETag"]) == (201, '"1"')
    next_run_at = datetime.fromisoformat(made.json["next_run_at"])
    assert (next_run_at.hour, next_run_at.minute) == (2, 0)
    assert before < next_run_at <= datetime.now(UTC) + timedelta(days=1)
    read = hq.admin.get(f"{SCHEDULES}/{schedule_id}")
    assert (read.json, read.headers["ETag"]) == (made.json, '"1"')
    assert made.json in hq.admin.get(SCHEDULES).json["schedules"]
    again = hq.admin.post(SCHEDULES, {**wish, "reason": "test"})
    assert (again.status_code, again.json["code"]) == (409, "already_exists")

    def edit(seen: str | None, **changes: Any) -> TestResponse:
        headers = {} if seen is None else {"If_Match": seen}
        body = {**changes, "reason": "tidy up"}
        return hq.admin.patch(f"{SCHEDULES}/{schedule_id}", body, **headers)

    renamed = edit('"1"', name="Every night")
    assert (renamed.status_code, renamed.headers["ETag"]) == (200, '"2"')
    assert renamed.json["next_run_at"] == made.json["next_run_at"]
    stale = edit('"1"', name="Never")
    assert (stale.status_code, stale.json["code"]) == (412, "precondition_failed")
    assert stale.json["current_version"] == 2
    assert edit(None, name="Never").json["code"] == "precondition_required"
    hourly = edit('"2"', every_seconds=3_600).json
    assert (hourly["every_seconds"], hourly["cron"]) == (3_600, None)
    paused = edit('"3"', is_active=False).json
    assert (paused["is_active"], paused["next_run_at"]) == (False, None)
    refused = hq.run_now(schedule_id)
    assert (refused.status_code, refused.json["code"]) == (409, "schedule_inactive")
    nightly = edit('"4"', is_active=True, cron="30 1 * * 1-5").json
    assert (nightly["every_seconds"], nightly["cron"]) == (None, "30 1 * * 1-5")
    assert nightly["next_run_at"] is not None
    by_hand = edit("*", cron=None).json
    assert (by_hand["cron"], by_hand["next_run_at"], by_hand["version"]) == (None, None, 6)
    entries = audited(hq, f"schedule:{schedule_id}")
    assert [action for action, _ in entries] == ["schedule_created", *["schedule_edited"] * 5]
    assert entries[0][1]["new"]["cron"] == "0 2 * * *"
    assert entries[2][1]["old"] == {"every_seconds": None, "cron": "0 2 * * *"}
    assert entries[2][1]["new"] == {"every_seconds": 3_600, "cron": None}


@pytest.mark.parametrize(
    ("members", "pointers"),
    [
        ({"job_ids": ["9999", "1110", "1110"]}, ["/job_ids/0", "/job_ids/2"]),
        ({"job_ids": []}, ["/job_ids"]),
        ({"cron": "0 0 30 2 *"}, ["/cron"]),
        ({"cron": "nightly"}, ["/cron"]),
        ({"cron": "0 2 * * *", "every_seconds": 3600}, ["/cron"]),
        ({"every_seconds": 59}, ["/every_seconds"]),
        ({"every_seconds": 10**9}, ["/every_seconds"]),
        ({"every_seconds": "60"}, ["/every_seconds"]),
        ({"is_active": "yes"}, ["/is_active"]),
        ({"name": " "}, ["/name"]),
        ({"next_run_at": None}, ["/next_run_at"]),
    ],
)
def test_a_schedule_that_makes_no_sense_is_pointed_at(
    hq: Hq, members: dict[str, Any], pointers: list[str]
) -> None:
    schedule_id = a_name("D")
    good = {"schedule_id": schedule_id, "name": "test", "job_ids": ["1110"], "reason": "test"}
    refused = hq.admin.post(SCHEDULES, good | members)
    assert (refused.status_code, refused.json["code"]) == (422, "validation_failed")
    assert [one["pointer"] for one in refused.json["errors"]] == pointers
    assert hq.admin.get(f"{SCHEDULES}/{schedule_id}").json["code"] == "schedule_not_found"
    there = hq.make_schedule("1110")
    body = {**members, "reason": "test"}
    refused = hq.admin.patch(f"{SCHEDULES}/{there}", body, If_Match='"1"')
    assert [one["pointer"] for one in refused.json["errors"]] == pointers
    assert hq.admin.get(f"{SCHEDULES}/{there}").json["version"] == 1


def test_an_edit_that_changes_nothing_is_refused(hq: Hq) -> None:
    path = f"{SCHEDULES}/{hq.make_schedule('1110')}"
    answer = hq.admin.patch(path, {"reason": "test"}, If_Match='"1"')
    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert [one["pointer"] for one in answer.json["errors"]] == [""]


@pytest.mark.parametrize("schedule_id", ["nothing", "a%00b", "a%20b", "%C3%A5"])
def test_a_schedule_that_is_not_there_is_not_found(hq: Hq, schedule_id: str) -> None:
    path = f"{SCHEDULES}/{schedule_id}"
    for answer in (
        hq.admin.get(path),
        hq.admin.patch(path, {"name": "x", "reason": "test"}, If_Match='"1"'),
        hq.admin.patch(path, {"name": "x", "reason": "test"}, If_Match="*"),
        hq.admin.post(f"{path}/runs", {"reason": "test"}),
    ):
        assert (answer.status_code, answer.json["code"]) == (404, "schedule_not_found")


def test_a_worker_that_slept_runs_a_schedule_once(hq: Hq) -> None:
    schedule_id = hq.make_schedule("1110", every_seconds=60)
    hq.make_store()
    slept = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=10)
    hq.sql(
        "UPDATE distribution_schedules SET next_run_at = %s WHERE schedule_id = %s",
        slept,
        schedule_id,
    )
    now = slept + timedelta(hours=10, seconds=5)
    with hq.app.app_context():
        assert schedule_id in due(now)
        run = run_due(schedule_id, "worker", now)
        assert run is not None
        assert (run.started_by, run.counts["available"] > 0) == ("worker", True)
        assert run_due(schedule_id, "worker", now) is None
        assert schedule_id not in due(now)
    found = hq.admin.get(f"{SCHEDULES}/{schedule_id}").json
    expected = slept + timedelta(hours=10, seconds=60)
    assert datetime.fromisoformat(found["next_run_at"]) == expected
    assert found["version"] == 1, "that it ran is no edit"
    # No administrator did that; the run itself names the worker.
    assert [action for action, _ in audited(hq, f"schedule:{schedule_id}")] == ["schedule_created"]


def test_preparing_a_database_makes_a_schedule_once_and_keeps_what_became_of_it(hq: Hq) -> None:
    path = f"{SCHEDULES}/commerce-configuration"
    assert hq.admin.get(path).status_code == 404
    with hq.app.app_context():
        assert prepare(KEYRING, datetime.now(UTC))
    made = hq.admin.get(path)
    assert made.json["job_ids"] == ["1110", "1070", "1090"]
    assert (made.json["every_seconds"], made.json["cron"]) == (None, None)
    assert made.json["is_active"] is True
    body = {"cron": "0 3 * * *", "reason": "test"}
    edited = hq.admin.patch(path, body, If_Match=made.headers["ETag"])
    with hq.app.app_context():
        assert prepare(KEYRING, datetime.now(UTC))
    assert hq.admin.get(path).json == edited.json
    assert hq.run_now("commerce-configuration").status_code == 201


@pytest.mark.parametrize(
    ("query", "pointer", "lists"),
    [
        ("limit=0", "/limit", (SCHEDULES, SESSIONS)),
        ("limit=201", "/limit", (SCHEDULES, SESSIONS)),
        ("limit=1.0", "/limit", (SCHEDULES, SESSIONS)),
        ("after=%00", "/after", (SCHEDULES, SESSIONS)),
        ("after=", "/after", (SCHEDULES, SESSIONS)),
        ("after=x", "/after", (SESSIONS,)),
        ("after=a%20b", "/after", (SCHEDULES,)),
        ("status=APPLIED", "/status", (SESSIONS,)),
        ("status=", "/status", (SESSIONS,)),
        ("status=available", "/status", (SCHEDULES,)),
        ("job_id=9999", "/job_id", (SESSIONS,)),
        ("run_id=7", "/run_id", (SESSIONS,)),
        ("store_id=%00", "/store_id", (SESSIONS,)),
        ("schedule_id=", "/schedule_id", (SESSIONS,)),
        ("direction=upload", "/direction", (SESSIONS, SCHEDULES)),
    ],
)
def test_a_wrong_question_for_a_list_is_pointed_at(
    hq: Hq, query: str, pointer: str, lists: tuple[str, ...]
) -> None:
    asked: list[tuple[Caller, str]] = [(hq.admin, path) for path in lists]
    if pointer in ("/limit", "/after") and SESSIONS in lists:
        asked.append((hq.sync(hq.make_store()), "/v1/distribution-sessions"))
    for caller, path in asked:
        answer = caller.get(f"{path}?{query}")
        assert (answer.status_code, answer.json["code"]) == (422, "validation_failed"), path
        assert [one["pointer"] for one in answer.json["errors"]] == [pointer]
