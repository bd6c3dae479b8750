"""Stores, registers and offline profiles: set up, edited, retired once it is clear what is at
stake, and read by the tills.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import psycopg
import pytest
from werkzeug.test import TestResponse

from hq_service.domain import offline_profiles
from tests.acting import audited
from tests.support import (
    NOTHING_AT_STAKE,
    Caller,
    Hq,
    Till,
    a_name,
    on_its_own,
    psycopg_url,
    together,
)

NOTHING_OF_A_STORE = {
    **NOTHING_AT_STAKE,
    "registers_count": 0,
    "live_locks_count": 0,
    "exposures_minor": {},
    "pending_told_count": 0,
    "pending_count": None,
    "pending_amounts_minor": None,
    "oldest_pending_at": None,
}
WHY = {"reason": "test"}


def store_path(store_id: str) -> str:
    return f"/v1/admin/stores/{store_id}"


def path_of(till: Till) -> str:
    return f"/v1/admin/stores/{till.store_id}/registers/{till.terminal_id}"


def edited(caller: Caller, path: str, **changes: Any) -> TestResponse:
    """Edit something as it is now."""
    seen = caller.get(path).headers["ETag"]
    return caller.patch(path, {**changes, **WHY}, If_Match=seen)


def retired(hq: Hq, till: Till) -> None:
    """Retire a register, accepting whatever is at stake."""
    left = hq.admin.get(f"{path_of(till)}/retirement").json["at_stake"]
    accepted = {name: left[name] for name in NOTHING_AT_STAKE}
    answer = hq.admin.post(f"{path_of(till)}/retirement", {**WHY, "accepted": accepted})
    assert answer.status_code == 200, answer.json


def store_retired(hq: Hq, store_id: str, **accepted: int) -> TestResponse:
    """Retire a store, accepting what is named and nothing else."""
    body = {**WHY, "accepted": {**NOTHING_AT_STAKE, **accepted}}
    return hq.admin.post(f"{store_path(store_id)}/retirement", body)


def profile(hq: Hq, **values: Any) -> str:
    """Create an offline profile and return its id."""
    profile_id = a_name("P")
    body = {"offline_profile_id": profile_id, "name": "test", "values": values, **WHY}
    answer = hq.admin.post("/v1/admin/offline-profiles", body)
    assert answer.status_code == 201, answer.json
    return profile_id


# --- stores ---------------------------------------------------------------------------------------


def test_a_store_is_created_edited_retired_and_taken_into_use_again(hq: Hq) -> None:
    store_id = a_name("S")
    path = store_path(store_id)
    body = {"store_id": store_id, "name": "Stockholm", "time_zone": "Europe/Stockholm", **WHY}
    created = hq.admin.post("/v1/admin/stores", body)
    assert (created.status_code, created.headers["ETag"]) == (201, '"1"')
    assert created.json == hq.admin.get(path).json
    change = edited(hq.admin, path, time_zone="Asia/Tokyo")
    assert (change.status_code, change.headers["ETag"]) == (200, '"2"')
    assert (change.json["name"], change.json["time_zone"]) == ("Stockholm", "Asia/Tokyo")
    gone = store_retired(hq, store_id)
    assert gone.json["retired_at"] is not None
    assert store_retired(hq, store_id).json == gone.json, "a repeat changes nothing"
    assert edited(hq.admin, path, name="Tokyo").json["code"] == "retired"
    back = hq.admin.post(f"{path}/reactivation", WHY)
    assert (back.json["retired_at"], back.json["version"]) == (None, 4)
    assert hq.admin.post(f"{path}/reactivation", WHY).json == back.json
    assert audited(hq, f"store:{store_id}") == [
        (
            "store_created",
            {"reason": "test", "new": {"name": "Stockholm", "time_zone": "Europe/Stockholm"}},
        ),
        (
            "store_edited",
            {
                "reason": "test",
                "old": {"time_zone": "Europe/Stockholm"},
                "new": {"time_zone": "Asia/Tokyo"},
            },
        ),
        (
            "store_retired",
            {"reason": "test", "at_stake": NOTHING_OF_A_STORE, "canceled_sessions": []},
        ),
        ("store_reactivated", {"reason": "test"}),
    ]


def test_the_id_of_a_store_is_never_used_twice(hq: Hq) -> None:
    store_id = hq.make_store()
    again = {"store_id": store_id, "name": "another", **WHY}
    assert hq.admin.post("/v1/admin/stores", again).json["code"] == "already_exists"
    store_retired(hq, store_id)
    answer = hq.admin.post("/v1/admin/stores", again)
    assert (answer.status_code, answer.json["code"]) == (409, "already_exists")


@pytest.mark.parametrize(
    ("looks", "is_taken"),
    [
        ("like-a-name", True),
        ("S-1234567", True),
        ("S-12345678", False),
        ("2026-1121", False),
        ("26-11-21-x", True),
        ("A1B2C3D4E5F6G7H8", False),
        ("a1b2-c3d4-e5f6-g7h8", False),
        ("A1B2C3D4E5F6G7HI", True),
        ("ABCDEFGHJKMNPQRSX", True),
        ("12345678-abcd-7123-8123-123456789012", True),
        ("12345678abcd71238123123456789012", False),
    ],
)
def test_an_id_that_looks_like_a_card_number_is_refused_as_documented(
    hq: Hq, looks: str, is_taken: bool
) -> None:
    answer = hq.admin.post("/v1/admin/stores", {"store_id": looks, "name": "test", **WHY})
    assert answer.status_code == (201 if is_taken else 422), answer.json


def test_of_two_who_create_the_same_store_at_once_one_does(hq: Hq) -> None:
    body = {"store_id": a_name("S"), "name": "test", **WHY}
    callers = [on_its_own(hq, hq.admin) for _ in range(4)]
    answers = together(
        [lambda caller=caller: caller.post("/v1/admin/stores", body) for caller in callers]
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


def test_ids_that_differ_in_capitals_only_are_refused(hq: Hq) -> None:
    till = hq.till()
    stores, registers = "/v1/admin/stores", f"{store_path(till.store_id)}/registers"
    for path, member, taken in (
        (stores, "store_id", till.store_id),
        (registers, "terminal_id", till.terminal_id),
    ):
        for other in (taken.lower(), taken.upper(), taken.swapcase()):
            answer = hq.admin.post(path, {member: other, "name": "another", **WHY})
            assert (answer.status_code, answer.json["code"]) == (409, "already_exists"), other
            if other != taken:
                assert answer.json["detail"].startswith(f"There is {taken} already")
    # In another store it is another register.
    elsewhere = f"{store_path(hq.make_store())}/registers"
    same = {"terminal_id": till.terminal_id.lower(), "name": "another", **WHY}
    assert hq.admin.post(elsewhere, same).status_code == 201
    for reserved in ("HQ", "hq", "Hq"):
        refused = hq.admin.post(stores, {"store_id": reserved, "name": "headquarters", **WHY})
        assert (refused.status_code, refused.json["code"]) == (422, "validation_failed")


@pytest.mark.parametrize("what", ["store", "register"])
def test_of_ids_that_differ_in_capitals_and_come_at_once_one_is_taken(hq: Hq, what: str) -> None:
    new_id = a_name("capitals")
    if what == "store":
        path, member = "/v1/admin/stores", "store_id"
    else:
        path, member = f"{store_path(hq.make_store())}/registers", "terminal_id"
    spelled = [new_id, new_id.upper(), new_id.capitalize(), new_id.swapcase().title()]
    callers = [Caller(hq.app.test_client(), hq.admin.key) for _ in spelled]
    answers = together(
        [
            lambda caller=caller, one=one: caller.post(path, {member: one, "name": "x", **WHY})
            for caller, one in zip(callers, spelled, strict=True)
        ]
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


def test_of_two_who_edit_the_same_store_at_once_one_does(hq: Hq) -> None:
    path = store_path(hq.make_store())
    callers = [on_its_own(hq, hq.admin) for _ in range(4)]
    answers = together(
        [
            lambda caller=caller, name=str(name): caller.patch(
                path, {"name": name, **WHY}, If_Match='"1"'
            )
            for name, caller in enumerate(callers)
        ]
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]
    losers = [answer.json for answer in answers if answer.status_code == 412]
    assert [loser["current_version"] for loser in losers] == [2, 2, 2]
    assert hq.admin.get(path).json["version"] == 2


def test_an_edit_names_what_it_edits_and_which_state_it_saw(hq: Hq) -> None:
    path = store_path(hq.make_store())
    body = {"name": "another", **WHY}
    assert hq.admin.patch(path, body).json["code"] == "precondition_required"
    for seen in ('"2"', '"0"', '"x"', 'W/"1"', '"2", "3"', '"99999999999999999999"'):
        stale = hq.admin.patch(path, body, If_Match=seen)
        assert (stale.status_code, stale.json["code"]) == (412, "precondition_failed"), seen
        assert stale.json["current_version"] == 1
    nothing = hq.admin.patch(path, WHY, If_Match='"1"')
    assert (nothing.status_code, nothing.json["errors"][0]["pointer"]) == (422, "")
    assert hq.admin.patch(path, body, If_Match="*").json["version"] == 2, "whatever there is"
    assert hq.admin.patch("/v1/admin/stores/nowhere", body, If_Match="*").status_code == 404


def test_stores_are_listed_by_page_and_retired_ones_only_if_asked(hq: Hq) -> None:
    prefix = f"~page-{a_name('x')}".replace("~", "z")  # behind every other store
    ids = [f"{prefix}-{number}" for number in range(5)]
    for store_id in ids:
        hq.admin.post("/v1/admin/stores", {"store_id": store_id, "name": store_id, **WHY})
    store_retired(hq, ids[2])

    def pages(more: str) -> list[list[str]]:
        found, after = [], prefix
        while after is not None:
            page = hq.admin.get(f"/v1/admin/stores?limit=2&after={after}{more}").json
            found.append([store["store_id"] for store in page["stores"]])
            after = page["next_after"]
        return found

    assert pages("") == [[ids[0], ids[1]], [ids[3], ids[4]]]
    assert pages("&with_retired=true") == [ids[0:2], ids[2:4], ids[4:5]]


# --- a retired store ------------------------------------------------------------------------------


def test_in_a_retired_store_nothing_is_locked_but_what_is_under_way_is_concluded(hq: Hq) -> None:
    till, card, other = hq.till(), hq.issue(1_000), hq.issue(1_000)
    lock_id = till.lock(card, "X1").json["lock_id"]
    store_retired(hq, till.store_id)
    refused = till.lock(other, "X2")
    assert (refused.status_code, refused.json["code"]) == (403, "terminal_retired")
    assert till.redeem(card, "X1", 300, lock_id).status_code == 201
    assert hq.balance(card) == 700
    hq.admin.post(f"{store_path(till.store_id)}/reactivation", WHY)
    assert till.lock(other, "X2").status_code == 201


def test_the_sync_job_of_a_retired_store_still_posts_what_is_pending(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(1_000)
    hq.allow_offline(till)
    sync, grant = hq.sync(till.store_id), till.lock(card, "X1").json["offline"]["grant"]
    assert store_retired(hq, till.store_id, live_grants_count=1).status_code == 200
    lines = [till.offline_line(card, "X1", 250, grant=grant)]
    body = {"store_id": till.store_id, "batch_id": a_name("batch"), "lines": lines}
    posted = sync.post("/v1/offline-batches", body)
    [result] = posted.json["results"]
    assert (posted.status_code, result["outcome"], result["codes"]) == (201, "applied", [])
    assert hq.balance(card) == 750


def test_a_retired_store_gets_no_new_register_and_no_new_key(hq: Hq) -> None:
    store_id = hq.make_store()
    store_retired(hq, store_id)
    body = {"terminal_id": "T1", "name": "test", **WHY}
    answer = hq.admin.post(f"{store_path(store_id)}/registers", body)
    assert (answer.status_code, answer.json["code"]) == (409, "retired")
    key = {"role": "sync", "store_id": store_id, "label": "test", **WHY}
    refused = hq.admin.post("/v1/admin/keys", key)
    assert refused.json["errors"] == [{"pointer": "/store_id", "detail": "is a retired store"}]


def test_retiring_a_store_shows_first_what_is_at_stake_at_all_its_registers(hq: Hq) -> None:
    till = till_with_everything_at_stake(hq)
    other, silent = hq.till(till.store_id), hq.till(till.store_id)
    hq.allow_offline(other)
    assert other.lock(hq.issue(50), "G1").json["offline"]["grant"]
    pending = {"pending_count": 2, "pending_amounts_minor": {"SEK": 50, "EUR": 7}}
    oldest_at = "2026-01-02T03:04:05Z"
    told = other.heartbeat(connection_state="offline", oldest_pending_at=oldest_at, **pending)
    assert told.status_code == 200, told.json
    retired(hq, silent)
    path = store_path(till.store_id)
    shown = hq.admin.get(f"{path}/retirement").json
    assert shown["store"] == hq.admin.get(path).json
    assert shown["at_stake"] == {
        "registers_count": 3,
        "gaps_count": 1,
        "live_locks_count": 5,
        "live_grants_count": 4,
        "exposures_minor": {"SEK": 850, "EUR": 77},
        "open_cases_count": 2,
        "pending_told_count": 2,
        "pending_count": 6,
        "pending_amounts_minor": {"SEK": 1_300, "EUR": 7},
        "oldest_pending_at": shown["at_stake"]["oldest_pending_at"],
    }
    oldest = shown["at_stake"]["oldest_pending_at"]
    assert datetime.fromisoformat(oldest) == datetime.fromisoformat(oldest_at)
    assert hq.admin.get(f"{store_path('nowhere')}/retirement").json["code"] == "store_not_found"


def test_a_store_is_retired_only_by_who_accepts_what_is_there(hq: Hq) -> None:
    till = till_with_everything_at_stake(hq)
    there = {"gaps_count": 1, "live_grants_count": 3, "open_cases_count": 2}
    path = store_path(till.store_id)
    assert hq.admin.post(f"{path}/retirement", WHY).status_code == 422
    for name in there:
        refused = store_retired(hq, till.store_id, **{**there, name: there[name] - 1})
        assert (refused.status_code, refused.json["code"]) == (409, "store_not_clear")
        assert {one: refused.json["at_stake"][one] for one in there} == there
        assert hq.admin.get(path).json["retired_at"] is None
    done = store_retired(hq, till.store_id, **there)
    assert (done.status_code, done.json["version"]) == (200, 2)
    assert store_retired(hq, till.store_id).json == done.json, "it is done"
    [(action, detail)] = audited(hq, f"store:{till.store_id}")
    assert (action, detail["at_stake"]["exposures_minor"]) == (
        "store_retired",
        {"SEK": 800, "EUR": 77},
    )


def test_packages_of_a_retired_store_are_canceled_but_uploads_go_on(hq: Hq) -> None:
    store_id = hq.make_store()
    sync, schedule_id = hq.sync(store_id), hq.make_schedule("1110", "P-0001")
    hq.run_now(schedule_id, store_id)
    kept = {one["job_id"]: one["session_id"] for one in sync.to_do()}
    assert set(kept) == {"1110", "P-0001"}
    refused = store_retired(hq, store_id, gaps_count=1)
    assert refused.status_code == 409
    assert len(sync.to_do()) == 2, "nothing is canceled by what is refused"
    assert store_retired(hq, store_id).status_code == 200
    assert [one["job_id"] for one in sync.to_do()] == ["P-0001"]
    session = hq.admin.get(f"/v1/admin/distribution-sessions/{kept['1110']}").json
    assert session["status"] == "canceled"
    assert session["message"] == "Canceled: the store was retired. test"
    [(_, detail)] = audited(hq, f"store:{store_id}")
    assert detail["canceled_sessions"] == [kept["1110"]]


# --- registers ------------------------------------------------------------------------------------


def test_a_register_is_created_and_edited(hq: Hq) -> None:
    store_id, profile_id = hq.make_store(), profile(hq)
    body = {"terminal_id": "T1", "name": "Register 1", **WHY}
    created = hq.admin.post(f"{store_path(store_id)}/registers", body)
    path = f"{store_path(store_id)}/registers/T1"
    assert (created.status_code, created.headers["ETag"]) == (201, '"1"')
    assert created.json == hq.admin.get(path).json
    told = {name: created.json[name] for name in ("supports_offline", "offline_profile_id")}
    assert told == {"supports_offline": False, "offline_profile_id": None}
    again = hq.admin.post(f"{store_path(store_id)}/registers", body)
    assert (again.status_code, again.json["code"]) == (409, "already_exists")
    change = edited(hq.admin, path, supports_offline=True, offline_profile_id=profile_id)
    assert (change.json["supports_offline"], change.json["version"]) == (True, 2)
    assert edited(hq.admin, path, offline_profile_id=None).json["offline_profile_id"] is None
    stale = hq.admin.patch(path, {"name": "late", **WHY}, If_Match='"1"')
    assert (stale.status_code, stale.json["current_version"]) == (412, 3)
    unseen = hq.admin.patch(path, {"name": "late", **WHY})
    assert (unseen.status_code, unseen.json["code"]) == (428, "precondition_required")
    assert [action for action, _ in audited(hq, f"register:{store_id}/T1")] == [
        "register_created",
        "register_edited",
        "register_edited",
    ]
    assert audited(hq, f"register:{store_id}/T1")[1][1] == {
        "reason": "test",
        "old": {"supports_offline": False, "offline_profile_id": None},
        "new": {"supports_offline": True, "offline_profile_id": profile_id},
    }


def test_a_register_is_refused_a_profile_that_is_unknown_or_retired(hq: Hq) -> None:
    till, gone = hq.till(), profile(hq)
    assert hq.admin.post(f"/v1/admin/offline-profiles/{gone}/retirement", WHY).status_code == 200
    for profile_id, fault in (
        ("no-such-profile", "is not an offline profile"),
        (gone, "is a retired offline profile"),
    ):
        expected = [{"pointer": "/offline_profile_id", "detail": fault}]
        change = edited(hq.admin, path_of(till), offline_profile_id=profile_id)
        assert (change.status_code, change.json["errors"]) == (422, expected)
        new = {"terminal_id": "T9", "name": "test", "offline_profile_id": profile_id, **WHY}
        created = hq.admin.post(f"{store_path(till.store_id)}/registers", new)
        assert (created.status_code, created.json["errors"]) == (422, expected)
    assert hq.admin.get(path_of(till)).json["version"] == 1
    assert hq.admin.get(f"{store_path(till.store_id)}/registers/T9").status_code == 404


def test_the_registers_of_a_store_are_listed_by_page(hq: Hq) -> None:
    store_id = hq.make_store()
    tills = sorted((hq.till(store_id) for _ in range(3)), key=lambda till: till.terminal_id)
    hq.till()  # of another store
    retired(hq, tills[1])
    path = f"{store_path(store_id)}/registers"

    def listed(query: str) -> tuple[list[str], str | None]:
        page = hq.admin.get(f"{path}?{query}").json
        return [one["terminal_id"] for one in page["registers"]], page["next_after"]

    first, middle, last = (till.terminal_id for till in tills)
    assert listed("") == ([first, last], None)
    assert listed("with_retired=true") == ([first, middle, last], None)
    assert listed("limit=1") == ([first], first)
    assert listed(f"limit=1&after={first}") == ([last], None)
    assert hq.admin.get("/v1/admin/stores/nowhere/registers").json["code"] == "store_not_found"


@pytest.mark.parametrize("part", ["%00", "a%00b", "%ff", "%20", "a" * 500])
def test_a_path_of_an_impossible_store_register_profile_or_key_is_not_found(
    hq: Hq, part: str
) -> None:
    store_id = hq.make_store()
    for path, code in (
        (f"/v1/admin/stores/{part}", "store_not_found"),
        (f"/v1/admin/stores/{part}/registers", "store_not_found"),
        (f"/v1/admin/stores/{part}/registers/T1", "register_not_found"),
        (f"/v1/admin/stores/{store_id}/registers/{part}", "register_not_found"),
        (f"/v1/admin/stores/{store_id}/registers/{part}/retirement", "register_not_found"),
        (f"/v1/admin/offline-profiles/{part}", "offline_profile_not_found"),
        (f"/v1/admin/keys/{part}", "key_not_found"),
    ):
        answer = hq.admin.get(path)
        assert (answer.status_code, answer.json["code"]) == (404, code), path


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/limit"),
        ("limit=201", "/limit"),
        ("limit=x", "/limit"),
        ("after=a%00b", "/after"),
        ("after=a%20b", "/after"),
        ("with_retired=yes", "/with_retired"),
        ("with_retired=", "/with_retired"),
        ("with_retired=true&with_retired=true", "/with_retired"),
        ("store_id=S001", "/store_id"),
    ],
)
def test_a_wrong_page_is_pointed_at(hq: Hq, query: str, pointer: str) -> None:
    for path in (
        "/v1/admin/stores",
        f"/v1/admin/stores/{hq.make_store()}/registers",
        "/v1/admin/offline-profiles",
    ):
        answer = hq.admin.get(f"{path}?{query}")
        assert (answer.status_code, answer.json["code"]) == (422, "validation_failed"), path
        assert [one["pointer"] for one in answer.json["errors"]] == [pointer]


# --- retiring a register --------------------------------------------------------------------------


def till_with_everything_at_stake(hq: Hq) -> Till:
    """Return a till with a gap, two live grants and a lock, an open case, and sales pending."""
    till = hq.till()
    hq.allow_offline(till)
    for number, amount_minor in enumerate((500, 300)):
        assert till.lock(hq.issue(amount_minor), f"G{number}").json["offline"]["grant"]
    assert till.lock(hq.issue(77, currency="EUR"), "E1").json["offline"]["grant"]
    till.offline_line(hq.issue(1), "lost", 1)  # its number never comes
    hq.post_batch(till.store_id, [till.offline_line(hq.issue(10), "X1", 25)])  # a shortfall
    hq.sql("UPDATE terminals SET supports_offline = false WHERE store_id = %s", till.store_id)
    assert till.lock(hq.issue(9_999), "L1").json["offline"]["grant"] is None
    hq.sql(
        "UPDATE terminal_presence SET reported_at = now(), report_sent_at = now(),"
        " connection_state = 'offline', connection_state_since = now(),"
        " pending_count = 4, pending_amounts_minor = '{\"SEK\": 1250}', oldest_pending_at = now(),"
        " last_sync_status = 'failed', journal_tips = '{}' WHERE store_id = %s",
        till.store_id,
    )
    return till


def test_retiring_a_register_shows_first_what_is_at_stake(hq: Hq) -> None:
    till = till_with_everything_at_stake(hq)
    shown = hq.admin.get(f"{path_of(till)}/retirement").json
    assert shown["register"] == hq.admin.get(path_of(till)).json
    left = shown["at_stake"]
    assert left["gaps"] == [{"journal_id": till.journal_id, "first": 1, "last": 1}]
    assert (left["gaps_count"], left["live_locks_count"], left["live_grants_count"]) == (1, 4, 3)
    assert left["exposures_minor"] == {"SEK": 800, "EUR": 77}
    assert left["open_cases_count"] == 2, "a shortfall, and the notice of the gap"
    assert (left["pending_count"], left["pending_amounts_minor"]) == (4, {"SEK": 1250})
    assert left["last_seen_at"] is not None
    assert left["oldest_pending_at"] is not None


def test_a_register_that_told_nothing_has_nothing_at_stake(hq: Hq) -> None:
    till = hq.till()
    assert hq.admin.get(f"{path_of(till)}/retirement").json["at_stake"] == {
        "gaps": [],
        "gaps_count": 0,
        "live_locks_count": 0,
        "live_grants_count": 0,
        "exposures_minor": {},
        "open_cases_count": 0,
        "pending_count": None,
        "pending_amounts_minor": None,
        "oldest_pending_at": None,
        "reported_at": None,
        "last_seen_at": None,
    }


def test_a_register_is_retired_only_by_who_accepts_what_is_there(hq: Hq) -> None:
    till = till_with_everything_at_stake(hq)
    there = {"gaps_count": 1, "live_grants_count": 3, "open_cases_count": 2}
    path = f"{path_of(till)}/retirement"
    for name in there:
        accepted = {**there, name: there[name] - 1}
        refused = hq.admin.post(path, {**WHY, "accepted": accepted})
        assert (refused.status_code, refused.json["code"]) == (409, "register_not_clear")
        assert {one: refused.json["at_stake"][one] for one in there} == there
        assert refused.json["at_stake"]["exposures_minor"] == {"SEK": 800, "EUR": 77}
        assert hq.admin.get(path_of(till)).json["retired_at"] is None
    done = hq.admin.post(path, {**WHY, "accepted": there})
    assert (done.status_code, done.json["version"]) == (200, 2)
    assert done.json["retired_at"] is not None
    repeat = hq.admin.post(path, {**WHY, "accepted": NOTHING_AT_STAKE})
    assert repeat.json == done.json, "it is done"
    [(action, detail)] = audited(hq, f"register:{till.store_id}/{till.terminal_id}")
    assert (action, detail["at_stake"]["live_grants_count"]) == ("register_retired", 3)


def test_a_grant_that_ran_out_and_is_freed_is_a_lock_only(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    hq.allow_offline(till)
    till.lock(card, "X1")
    hq.sql(
        "UPDATE instruments SET lock_grant_until = now() - interval '1 minute',"
        " locked_at = now() - interval '4 days' WHERE instrument_id = %s",
        card.instrument_id,
    )
    path = f"{path_of(till)}/retirement"
    assert hq.admin.get(path).json["at_stake"]["live_grants_count"] == 1, "sticky"
    hq.set_parameters(on_horizon="release")
    try:
        left = hq.admin.get(path).json["at_stake"]
    finally:
        hq.set_parameters(on_horizon="sticky")
    assert (left["live_locks_count"], left["live_grants_count"]) == (1, 0)
    assert left["exposures_minor"] == {}


def test_a_retirement_waits_for_a_batch_that_is_being_settled(hq: Hq) -> None:
    """What it counts it counts as that batch leaves it."""
    till = hq.till()
    till.offline_line(hq.issue(1), "lost", 1)
    hq.post_batch(till.store_id, [till.offline_line(hq.issue(100), "X1", 1)])
    accepted = hq.admin.get(f"{path_of(till)}/retirement").json["at_stake"]
    body = {**WHY, "accepted": {name: accepted[name] for name in NOTHING_AT_STAKE}}
    assert body["accepted"]["gaps_count"] == 1
    other = on_its_own(hq, hq.admin)
    url = psycopg_url(hq.app.config["SQLALCHEMY_DATABASE_URI"])
    with psycopg.connect(url) as settling, ThreadPoolExecutor(1) as pool:
        settling.execute(
            "UPDATE terminal_journals SET arrived = '{[1,3)}' WHERE store_id = %s",
            (till.store_id,),
        )
        answer = pool.submit(other.post, f"{path_of(till)}/retirement", body)
        waiting = (
            "SELECT 1 FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        while not hq.sql(waiting):
            assert not answer.done()
        settling.commit()
        refused = answer.result()
    assert (refused.status_code, refused.json["at_stake"]["gaps_count"]) == (409, 0)
    assert hq.admin.get(path_of(till)).json["retired_at"] is None


def test_a_retired_register_is_locked_nothing(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    lock_id = till.lock(card, "X1").json["lock_id"]
    retired(hq, till)
    refused = till.lock(hq.issue(100), "X2")
    assert (refused.status_code, refused.json["code"]) == (403, "terminal_retired")
    assert till.redeem(card, "X1", 40, lock_id).status_code == 201, "that sale was under way"


def test_what_a_retired_or_unknown_register_sends_is_kept_and_quarantined(hq: Hq) -> None:
    till, sister, card = hq.till(), Till(hq.client, "", "", "T-unknown"), hq.issue(1_000)
    retired(hq, till)
    lines = [till.offline_line(card, "X1", 100), sister.offline_line(card, "X2", 100)]
    results = hq.post_batch(till.store_id, lines).json["results"]
    for result in results:
        assert (result["outcome"], result["codes"]) == ("quarantined", ["foreign_terminal"])
        assert hq.case(result["case_id"])["resolved_at"] is None
    kept = hq.sql(
        "SELECT terminal_id, transaction_id, masked_text FROM quarantined_lines"
        " WHERE store_id = %s ORDER BY position",
        till.store_id,
    )
    assert [row[:2] for row in kept] == [(till.terminal_id, "X1"), ("T-unknown", "X2")]
    assert all(card.instrument_id in row[2] for row in kept)
    assert hq.balance(card) == 1_000


def test_what_was_received_before_a_register_was_retired_is_settled_as_ever(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(1_000)
    lines = [till.offline_line(card, "X1", 100)]
    batch_id = a_name("batch")
    assert hq.post_batch(till.store_id, lines, batch_id).json["results"][0]["outcome"] == "applied"
    retired(hq, till)
    again = hq.post_batch(till.store_id, lines, batch_id)
    assert again.json["results"][0]["outcome"] == "applied", "told again, not judged again"


def test_a_register_in_use_again_sends_again_what_was_quarantined(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(1_000)
    retired(hq, till)
    lines = [till.offline_line(card, "X1", 100)]
    assert hq.post_batch(till.store_id, lines).json["results"][0]["outcome"] == "quarantined"
    back = hq.admin.post(f"{path_of(till)}/reactivation", WHY)
    assert (back.status_code, back.json["retired_at"], back.json["version"]) == (200, None, 3)
    assert hq.admin.post(f"{path_of(till)}/reactivation", WHY).json == back.json
    assert hq.post_batch(till.store_id, lines).json["results"][0]["outcome"] == "applied"
    assert hq.balance(card) == 900
    assert till.lock(card, "X2").status_code == 201
    actions = [one for one, _ in audited(hq, f"register:{till.store_id}/{till.terminal_id}")]
    assert actions == ["register_retired", "register_reactivated"]


def test_a_register_in_use_again_goes_by_the_defaults_if_its_profile_is_retired(hq: Hq) -> None:
    till, profile_id = hq.till(), profile(hq, retry_count_to_offline=9)
    edited(hq.admin, path_of(till), offline_profile_id=profile_id)
    retired(hq, till)
    assert edited(hq.admin, path_of(till), name="late").json["code"] == "retired"
    gone = hq.admin.post(f"/v1/admin/offline-profiles/{profile_id}/retirement", WHY)
    assert gone.status_code == 200, "no register in use has it"
    back = hq.admin.post(f"{path_of(till)}/reactivation", WHY)
    assert back.json["offline_profile_id"] is None
    assert till.get("/v1/register").json["offline_profile"]["version"] == 0


def test_only_a_register_that_supports_offline_is_granted_anything(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    hq.allow_offline(till)
    edited(hq.admin, path_of(till), supports_offline=False)
    lock = till.lock(card, "X1").json
    assert (lock["offline"]["allowed"], lock["offline"]["grant"]) == (False, None)
    till.release(card, "X1", lock["lock_id"])
    edited(hq.admin, path_of(till), supports_offline=True)
    assert till.lock(card, "X2").json["offline"]["grant"]


# --- offline profiles -----------------------------------------------------------------------------


def test_a_profile_has_a_value_for_every_field_and_a_version(hq: Hq) -> None:
    profile_id = profile(hq, time_out_interval_seconds=10)
    path = f"/v1/admin/offline-profiles/{profile_id}"
    created = hq.admin.get(path)
    assert created.headers["ETag"] == '"1"'
    assert created.json["values"] == offline_profiles.complete({"time_out_interval_seconds": 10})
    change = edited(hq.admin, path, values={"pause_offline_synchronization": True}, name="paused")
    assert (change.json["name"], change.json["version"]) == ("paused", 2)
    assert change.json["values"] == {
        **created.json["values"],
        "pause_offline_synchronization": True,
    }
    stale = hq.admin.patch(path, {"name": "late", **WHY}, If_Match='"1"')
    assert (stale.status_code, stale.json["current_version"]) == (412, 2)
    unseen = hq.admin.patch(path, {"name": "late", **WHY})
    assert (unseen.status_code, unseen.json["code"]) == (428, "precondition_required")
    again = {"offline_profile_id": profile_id, "name": "again", **WHY}
    assert hq.admin.post("/v1/admin/offline-profiles", again).json["code"] == "already_exists"
    assert audited(hq, f"profile:{profile_id}")[1] == (
        "profile_edited",
        {
            "reason": "test",
            "old": {"pause_offline_synchronization": False, "name": "test"},
            "new": {"pause_offline_synchronization": True, "name": "paused"},
        },
    )


WRONG_VALUES = {
    "time_out_interval_seconds": [0, 301, "30", None, 1.5, True],
    "reconnection_attempt_interval_seconds": [9, 86_401],
    "transaction_upload_interval_seconds": [4, 86_401],
    "upload_transaction_size": [0, 10_001],
    "retry_count_to_offline": [-1, 11],
    "prompt_on_seamless_offline": [0, "yes", None],
    "system_health_check_interval_minutes": [0, 1_441],
    "no_such_field": [1],
    "No Such Field": [1],
}


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_a_wrong_value_of_a_profile_is_pointed_at(hq: Hq, name: str) -> None:
    profile_id = profile(hq)
    for value in WRONG_VALUES[name]:
        wish = {"values": {name: value}, "name": "test"}
        new = {"offline_profile_id": a_name("P"), **wish, **WHY}
        for answer in (
            hq.admin.post("/v1/admin/offline-profiles", new),
            edited(hq.admin, f"/v1/admin/offline-profiles/{profile_id}", **wish),
        ):
            assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
            assert [one["pointer"] for one in answer.json["errors"]] == [f"/values/{name}"]
    assert hq.admin.get(f"/v1/admin/offline-profiles/{profile_id}").json["version"] == 1


def test_a_profile_that_a_register_uses_is_not_retired(hq: Hq) -> None:
    till, profile_id = hq.till(), profile(hq)
    path = f"/v1/admin/offline-profiles/{profile_id}"
    edited(hq.admin, path_of(till), offline_profile_id=profile_id)
    refused = hq.admin.post(f"{path}/retirement", WHY)
    assert (refused.status_code, refused.json["code"]) == (409, "offline_profile_in_use")
    user = {"store_id": till.store_id, "terminal_id": till.terminal_id}
    assert refused.json["registers"] == [user]
    edited(hq.admin, path_of(till), offline_profile_id=None)
    gone = hq.admin.post(f"{path}/retirement", WHY)
    assert gone.json["retired_at"] is not None
    assert hq.admin.post(f"{path}/retirement", WHY).json == gone.json
    assert edited(hq.admin, path, name="late").json["code"] == "retired"
    listed = hq.admin.get(f"/v1/admin/offline-profiles?limit=1&after={profile_id[:-1]}").json
    assert profile_id not in [one["offline_profile_id"] for one in listed["offline_profiles"]]


@pytest.mark.parametrize("_", range(8))
def test_a_profile_is_not_retired_while_a_register_is_being_given_it(hq: Hq, _: int) -> None:
    till, profile_id = hq.till(), profile(hq)
    one, other = (on_its_own(hq, hq.admin) for _ in range(2))
    given = {"offline_profile_id": profile_id, **WHY}
    change, gone = together(
        [
            lambda: one.patch(path_of(till), given, If_Match='"1"'),
            lambda: other.post(f"/v1/admin/offline-profiles/{profile_id}/retirement", WHY),
        ]
    )
    assert (change.status_code, gone.status_code) in {(200, 409), (422, 200)}


# --- what a till reads ----------------------------------------------------------------------------


def test_a_till_reads_its_store_its_record_and_its_profile(hq: Hq) -> None:
    till, profile_id = hq.till(), profile(hq, time_out_interval_seconds=7)
    edited(hq.admin, store_path(till.store_id), name="Lund", time_zone="Europe/Stockholm")
    edited(hq.admin, path_of(till), offline_profile_id=profile_id, name="Register 1")
    answer = till.get("/v1/register")
    assert answer.json == {
        "store": {
            "store_id": till.store_id,
            "name": "Lund",
            "time_zone": "Europe/Stockholm",
            "retired_at": None,
        },
        "register": {
            "terminal_id": till.terminal_id,
            "name": "Register 1",
            "supports_offline": True,
            "retired_at": None,
        },
        "offline_profile": {
            "offline_profile_id": profile_id,
            "version": 1,
            "values": offline_profiles.complete({"time_out_interval_seconds": 7}),
        },
    }
    assert answer.headers["Cache-Control"] == "private, max-age=86400"


def test_a_till_without_a_profile_goes_by_the_defaults(hq: Hq) -> None:
    assert hq.till().get("/v1/register").json["offline_profile"] == {
        "offline_profile_id": None,
        "version": 0,
        "values": offline_profiles.complete({}),
    }


def test_a_till_is_told_anew_whenever_anything_that_it_reads_has_changed(hq: Hq) -> None:
    till, profile_id, other_id = hq.till(), profile(hq), profile(hq)
    profile_path = f"/v1/admin/offline-profiles/{profile_id}"
    tag = till.get("/v1/register").headers["ETag"]
    for change in (
        lambda: edited(hq.admin, store_path(till.store_id), name="another"),
        lambda: edited(hq.admin, path_of(till), offline_profile_id=profile_id),
        lambda: edited(hq.admin, profile_path, values={"retry_count_to_offline": 4}),
        lambda: edited(hq.admin, path_of(till), offline_profile_id=other_id),
        lambda: retired(hq, till),
    ):
        same = till.get("/v1/register", If_None_Match=tag)
        assert (same.status_code, same.headers["ETag"], same.data) == (304, tag, b"")
        change()
        fresh = till.get("/v1/register", If_None_Match=tag)
        assert fresh.status_code == 200
        tag = fresh.headers["ETag"]
    assert till.get("/v1/register").json["register"]["retired_at"] is not None
