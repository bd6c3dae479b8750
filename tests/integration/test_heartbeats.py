"""Heartbeats: what a till tells is kept, its lease renewed, and what HQ has for it told."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from hq_service.api.heartbeats import GAPS_TOLD_MAX
from hq_service.domain.connection import (
    MESSAGE_LENGTH_MAX,
    PENDING_MAX,
    TIPS_KEPT_MAX,
    TIPS_MAX,
)
from hq_service.domain.parameters import Parameters
from tests.acting import connection_of
from tests.support import Hq, Tables, Till, a_name

WHY = {"reason": "test"}
LEASE_SECONDS = Parameters().lease_seconds
LEEWAY_SECONDS = 60  # a slow machine may take its time between two steps


def at(**ago: float) -> str:
    """Return an instant so long ago, as a till writes it."""
    return (datetime.now(UTC) - timedelta(**ago)).isoformat()


def report_of(hq: Hq, till: Till) -> dict[str, Any]:
    """Return what HQ has of what a till told."""
    return dict(connection_of(hq, till)["report"])


def faults_of(answer: TestResponse) -> list[str]:
    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed"), answer.json
    return sorted(fault["pointer"] for fault in answer.json["errors"])


def silent_for(hq: Hq, till: Till, seconds: float) -> None:
    """Let everything that HQ has of a till be so much older, as if nothing had come since."""
    hq.sql(
        "UPDATE terminal_presence SET last_seen_at = last_seen_at - %s * interval '1 s',"
        " reported_at = reported_at - %s * interval '1 s' WHERE store_id = %s AND terminal_id = %s",
        seconds,
        seconds,
        till.store_id,
        till.terminal_id,
    )


# --- what is told ---------------------------------------------------------------------------------


def test_what_a_till_tells_is_kept_as_a_whole(hq: Hq) -> None:
    till = hq.till()
    told = {
        "sent_at": at(seconds=1),
        "connection_state": "offline",
        "pending_count": 3,
        "pending_amounts_minor": {"SEK": 125_00, "JPY": 0},
        "oldest_pending_at": at(hours=2),
        "last_sync": {"at": at(minutes=5), "status": "failed", "message": "timed out"},
        "offline_profile_version": 4,
    }
    assert till.heartbeat(**told, journal_tips={"J1": 7}).status_code == 200
    found = report_of(hq, till)
    assert found.pop("reported_at") > told["sent_at"]
    instants = {"sent_at", "oldest_pending_at"}
    for name in instants:
        assert datetime.fromisoformat(found[name]) == datetime.fromisoformat(told[name])
    assert datetime.fromisoformat(found["last_sync"].pop("at")) < datetime.now(UTC)
    assert found["last_sync"] == {"status": "failed", "message": "timed out"}
    rest = told.keys() - instants - {"last_sync"}
    assert {name: found[name] for name in rest} == {name: told[name] for name in rest}
    assert till.heartbeat().status_code == 200
    found = report_of(hq, till)
    assert (found["pending_count"], found["pending_amounts_minor"]) == (0, {})
    assert found["last_sync"] == {"at": None, "status": "none", "message": None}
    assert (found["oldest_pending_at"], found["offline_profile_version"]) == (None, None)


def test_a_card_number_in_a_message_is_masked(hq: Hq) -> None:
    till = hq.till()
    message = "cannot post 6006000000000001"
    last_sync = {"at": at(seconds=1), "status": "failed", "message": message}
    assert till.heartbeat(last_sync=last_sync).status_code == 200
    assert report_of(hq, till)["last_sync"]["message"] == "cannot post ***0001"


def test_a_heartbeat_renews_the_lease_of_every_lock_of_the_terminal(hq: Hq) -> None:
    till = hq.till()
    cards = [hq.issue(100) for _ in range(5)]
    for number, card in enumerate(cards):
        assert till.lock(card, f"X{number}").status_code == 201
    hq.sql(
        "UPDATE instruments SET locked_at = locked_at - interval '2 hours'"
        " WHERE lock_terminal_id = %s AND lock_store_id = %s",
        till.terminal_id,
        till.store_id,
    )
    silent_for(hq, till, 7_200)
    states = [lock_state(hq, card.instrument_id) for card in cards]
    assert states == ["lapsed"] * len(cards)
    assert till.heartbeat().status_code == 200
    states = [lock_state(hq, card.instrument_id) for card in cards]
    assert states == ["active"] * len(cards)


def lock_state(hq: Hq, instrument_id: str) -> str:
    return str(hq.admin.get(f"/v1/admin/locks/{instrument_id}").json["state"])


# --- which of two reports counts ------------------------------------------------------------------


def test_a_heartbeat_that_comes_late_is_a_sign_of_life_and_no_more(hq: Hq) -> None:
    till = hq.till()
    earlier, later = at(seconds=20), at(seconds=10)
    pending = {"pending_count": 2, "oldest_pending_at": at(hours=1), "journal_tips": {"J": 9}}
    assert till.heartbeat(sent_at=later, connection_state="offline", **pending).status_code == 200
    before = connection_of(hq, till)
    answer = till.heartbeat(sent_at=earlier, connection_state="online", journal_tips={"J": 7})
    assert answer.status_code == 200
    after = connection_of(hq, till)
    assert after["last_seen_at"] > before["last_seen_at"], "HQ's own time of receipt counts"
    assert (after["report"], after["since"]) == (before["report"], before["since"])
    assert hq.sql(
        "SELECT journal_tips FROM terminal_presence WHERE store_id = %s", till.store_id
    ) == [({"J": 9},)]


def tips_of(hq: Hq, till: Till) -> dict[str, int]:
    [(tips,)] = hq.sql(
        "SELECT journal_tips FROM terminal_presence WHERE store_id = %s", till.store_id
    )
    return dict(tips)


def test_of_every_journal_the_highest_tip_that_was_told_is_kept(hq: Hq) -> None:
    till = hq.till()
    for tips in ({"A": 5, "B": 1}, {"A": 4}, {"B": 2, "C": 0}, {}):
        till.heartbeat(journal_tips=tips)
    assert tips_of(hq, till) == {"A": 5, "B": 2, "C": 0}
    till.heartbeat(sent_at=at(minutes=5), journal_tips={"A": 9})
    assert tips_of(hq, till)["A"] == 9, "it came late, and is true all the same"


def test_of_too_many_journals_those_that_are_behind_are_kept(hq: Hq) -> None:
    till = hq.till()
    hq.sql(
        "INSERT INTO terminal_journals (store_id, terminal_id, journal_id, arrived)"
        " SELECT %s, %s, 'A' || number, '{[1,5)}' FROM generate_series(0, 299) AS number",
        till.store_id,
        till.terminal_id,
    )
    till.heartbeat(journal_tips={"Z": 1, "A7": 5})
    for begin in (0, 100, 200):
        told = {f"A{number}": 4 for number in range(begin, begin + TIPS_MAX)}
        till.heartbeat(journal_tips=told)
    tips = tips_of(hq, till)
    assert len(tips) == TIPS_KEPT_MAX
    assert (tips["Z"], tips["A7"]) == (1, 5)


def test_of_two_heartbeats_of_the_same_moment_the_one_that_came_last_counts(hq: Hq) -> None:
    till, sent_at = hq.till(), at(seconds=1)
    till.heartbeat(sent_at=sent_at, connection_state="offline")
    till.heartbeat(sent_at=sent_at, connection_state="online")
    assert report_of(hq, till)["connection_state"] == "online"


def test_a_till_whose_clock_was_set_back_is_believed_again_after_a_lease(hq: Hq) -> None:
    till = hq.till()
    till.heartbeat(sent_at=at(minutes=-14), connection_state="offline")
    till.heartbeat(connection_state="online")
    assert report_of(hq, till)["connection_state"] == "offline"
    silent_for(hq, till, LEASE_SECONDS - LEEWAY_SECONDS)
    till.heartbeat(connection_state="online")
    assert report_of(hq, till)["connection_state"] == "offline"
    silent_for(hq, till, LEEWAY_SECONDS + 1)
    till.heartbeat(connection_state="online")
    assert report_of(hq, till)["connection_state"] == "online"


def test_since_when_a_till_says_the_same_is_remembered(hq: Hq) -> None:
    till = hq.till()
    since = []
    for state in ("online", "online", "offline", "offline", "online"):
        assert till.heartbeat(connection_state=state).status_code == 200
        found = connection_of(hq, till)
        assert found["state"] == state
        since.append(found["since"])
    assert since[0] == since[1] < since[2] == since[3] < since[4]


def test_a_silence_longer_than_the_lease_ends_what_a_till_said_before(hq: Hq) -> None:
    till = hq.till()
    till.heartbeat()
    before = connection_of(hq, till)["since"]
    silent_for(hq, till, LEASE_SECONDS - LEEWAY_SECONDS)
    till.heartbeat()
    assert connection_of(hq, till)["since"] == before, "within the lease"
    silent_for(hq, till, LEASE_SECONDS + 1)
    assert connection_of(hq, till)["state"] == "presumed_offline"
    till.heartbeat()
    found = connection_of(hq, till)
    assert (found["state"], found["since"]) == ("online", found["last_seen_at"])


# --- the answer -----------------------------------------------------------------------------------


def test_the_answer_tells_what_hq_has_for_the_till(hq: Hq) -> None:
    hq.set_parameters(lease_seconds=300)
    till = hq.till()
    before = datetime.now(UTC)
    answer = till.heartbeat().json
    assert before <= datetime.fromisoformat(answer.pop("server_time")) <= datetime.now(UTC)
    applied = till.get("/v1/parameters").json["revision"]
    assert answer == {
        "parameters": {"revision": applied, "reset_cache": False},
        "offline_profile_version": 0,
        "journals": [],
        "upload_requested": False,
        "next_heartbeat_seconds": 100,
        "register_retired": False,
    }
    hq.set_parameters(lease_seconds=900)
    assert till.heartbeat().json["next_heartbeat_seconds"] == 300


def test_the_answer_tells_the_revision_that_the_store_applied_not_the_one_that_is_saved(
    hq: Hq,
) -> None:
    till = hq.till()
    applied = till.heartbeat().json["parameters"]["revision"]
    seen = hq.admin.get("/v1/admin/parameters").headers["ETag"]
    change = {"parameters": {"offline_grant_hours": 71}, **WHY}
    assert hq.admin.patch("/v1/admin/parameters", change, If_Match=seen).status_code == 200
    assert till.heartbeat().json["parameters"]["revision"] == applied
    hq.set_parameters(offline_grant_hours=72)
    assert till.heartbeat().json["parameters"]["revision"] > applied


def test_the_answer_tells_the_version_of_the_offline_profile(hq: Hq) -> None:
    till, profile_id = hq.till(), a_name("P")
    body = {"offline_profile_id": profile_id, "name": "test", **WHY}
    assert hq.admin.post("/v1/admin/offline-profiles", body).status_code == 201
    path = f"/v1/admin/stores/{till.store_id}/registers/{till.terminal_id}"
    seen = hq.admin.get(path).headers["ETag"]
    change = {"offline_profile_id": profile_id, **WHY}
    assert hq.admin.patch(path, change, If_Match=seen).status_code == 200
    assert till.heartbeat().json["offline_profile_version"] == 1
    path = f"/v1/admin/offline-profiles/{profile_id}"
    hq.admin.patch(path, {"name": "another", **WHY}, If_Match='"1"')
    assert till.heartbeat().json["offline_profile_version"] == 2


def test_the_answer_tells_what_has_arrived_of_the_tills_journals(hq: Hq) -> None:
    till = hq.till()
    sister = hq.till(till.store_id)
    card = hq.issue(1_000)
    lines = [till.offline_line(card, f"X{number}", 1) for number in range(1, 8)]
    kept = [line for line in lines if line["sequence"] not in (3, 5, 6)]
    hq.post_batch(till.store_id, [*kept, sister.offline_line(card, "Y1", 1)])
    answer = till.heartbeat(journal_tips={till.journal_id: 9, "new": 4, "empty": 0}).json
    assert {one.pop("journal_id"): one for one in answer["journals"]} == {
        till.journal_id: {
            "acknowledged_through": 2,
            "gaps": [{"first": 3, "last": 3}, {"first": 5, "last": 6}],
            "gaps_count": 2,
        },
        "new": {"acknowledged_through": 0, "gaps": [], "gaps_count": 0},
        "empty": {"acknowledged_through": 0, "gaps": [], "gaps_count": 0},
    }
    assert len(till.heartbeat().json["journals"]) == 1, "also of a journal that it does not name"


def test_of_many_gaps_the_first_are_told_and_all_are_counted(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(1_000)
    lines = [till.offline_line(card, f"X{number}", 1) for number in range(1, 61)]
    hq.post_batch(till.store_id, lines[1::2])
    [journal] = till.heartbeat().json["journals"]
    assert len(journal["gaps"]) == GAPS_TOLD_MAX
    assert (journal["gaps"][0], journal["gaps_count"]) == ({"first": 1, "last": 1}, 30)


def test_the_answer_asks_for_an_upload_while_a_session_waits_for_the_store(hq: Hq) -> None:
    till, elsewhere = hq.till(), hq.till()
    hq.run_now(hq.make_schedule("P-0001"), till.store_id)
    assert till.heartbeat().json["upload_requested"] is True
    assert elsewhere.heartbeat().json["upload_requested"] is False
    sync = hq.sync(till.store_id)
    [session] = sync.to_do()
    for status in ("uploaded", "applied"):
        assert till.heartbeat().json["upload_requested"] is True
        assert sync.tell(session["session_id"], status).status_code == 200
    assert till.heartbeat().json["upload_requested"] is False


# --- a reported acknowledgement -------------------------------------------------------------------


def applied_of(hq: Hq, till: Till) -> int:
    [(applied,)] = hq.sql("SELECT applied_revision FROM stores WHERE store_id = %s", till.store_id)
    return int(applied)


def acknowledged_of(hq: Hq, till: Till) -> tuple[int | None, int | None]:
    """Return what a till acknowledged, and what it said last that it acts on."""
    found = connection_of(hq, till)
    return found["acknowledged_revision"], found["reported_revision"]


def served_of(hq: Hq, till: Till) -> list[int]:
    rows = hq.sql(
        "SELECT revision FROM parameter_acknowledgements"
        " WHERE store_id = %s AND terminal_id = %s ORDER BY revision",
        till.store_id,
        till.terminal_id,
    )
    return [revision for (revision,) in rows]


def test_a_reported_revision_is_acknowledged_only_if_the_store_has_it(hq: Hq) -> None:
    till, other = hq.till(), hq.till()
    hq.set_parameters(offline_age_hours_max=700)
    applied = applied_of(hq, till)
    foreign = hq.save_parameters(other.store_id, lease_seconds=90).json["saved"]["revision"]
    assert till.heartbeat(parameter_revision=applied).status_code == 200
    assert acknowledged_of(hq, till) == (applied, applied)
    hq.set_parameters(offline_age_hours_max=720)
    newest = applied_of(hq, till)
    assert applied < foreign < newest
    steps = [
        (newest + 1, applied),  # nobody has that
        (foreign, applied),  # says nothing for this store
        (newest, newest),
        (None, newest),
    ]
    for reported, acknowledged in steps:
        assert till.heartbeat(parameter_revision=reported).status_code == 200
        assert acknowledged_of(hq, till)[0] == acknowledged, reported
    assert acknowledged_of(hq, till)[1] == newest, "as it said last"
    assert served_of(hq, till) == [applied, newest]


def test_a_revision_that_was_saved_and_skipped_is_acknowledged_by_nobody(hq: Hq) -> None:
    till, name = hq.till(), "allow_concluding_gift_card_transactions_offline"
    hq.set_parameters(**{name: False})
    till.get("/v1/parameters")
    before = acknowledged_of(hq, till)[0]
    skipped = hq.save_parameters(**{name: True}).json["revision"]
    hq.set_parameters(**{name: False})
    assert till.heartbeat(parameter_revision=skipped).status_code == 200
    assert acknowledged_of(hq, till) == (before, skipped)
    assert till.lock(hq.issue(10), "X1").json["offline"]["grant"] is None


@pytest.mark.parametrize("way", ["a session", "a sister"])
def test_a_revision_that_the_store_applied_before_is_acknowledged(hq: Hq, way: str) -> None:
    till = hq.till()
    sister, sync = hq.till(till.store_id), hq.sync(till.store_id)
    till.get("/v1/parameters")
    revision = hq.save_parameters(offline_age_hours_max=701).json["revision"]
    if way == "a session":
        hq.run_now(hq.make_schedule("1110"), till.store_id)
        [session] = sync.to_do()
        sync.apply(session["session_id"])
        assert applied_of(hq, till) == revision
    else:
        hq.distribute()
        assert sister.get("/v1/parameters").status_code == 200
    hq.set_parameters(offline_age_hours_max=720)
    assert till.heartbeat(parameter_revision=revision).status_code == 200
    assert acknowledged_of(hq, till) == (revision, revision)


def test_a_till_that_acts_on_an_older_revision_than_it_was_served_acknowledges_that(
    hq: Hq,
) -> None:
    till = hq.till()
    hq.allow_offline(till)
    old = applied_of(hq, till)
    hq.set_parameters(allow_concluding_gift_card_transactions_offline=False)
    sent_before = at()
    till.get("/v1/parameters")
    new = applied_of(hq, till)
    till.heartbeat(sent_at=sent_before, parameter_revision=old)
    assert acknowledged_of(hq, till) == (new, old), "it had not fetched yet"
    till.heartbeat(parameter_revision=old)
    assert acknowledged_of(hq, till) == (old, old), "the answer was lost"
    assert hq.parameter_state(till)["effective"]["revision"] == old
    assert served_of(hq, till) == [old, new], "what it was served stays: lines are judged by it"
    till.heartbeat(parameter_revision=new)
    assert acknowledged_of(hq, till) == (new, new)


def test_a_new_device_is_granted_nothing_before_it_fetches(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    hq.allow_offline(till)
    applied, before = applied_of(hq, till), served_of(hq, till)
    for _ in range(2):
        till.heartbeat(parameter_revision=0)
        assert acknowledged_of(hq, till) == (None, 0)
    lock = till.lock(card, "X1").json
    assert lock["offline"]["grant"] is None
    till.release(card, "X1", lock["lock_id"])
    till.get("/v1/parameters")
    assert acknowledged_of(hq, till)[0] == applied
    assert till.lock(card, "X2").json["offline"]["grant"] is not None
    assert served_of(hq, till) == before


def test_a_heartbeat_that_comes_late_takes_no_acknowledgement_back(hq: Hq) -> None:
    till = hq.till()
    till.get("/v1/parameters")
    old = applied_of(hq, till)
    hq.set_parameters(offline_age_hours_max=702)
    early = at()
    till.heartbeat(parameter_revision=applied_of(hq, till))
    before = acknowledged_of(hq, till)
    till.heartbeat(sent_at=early, parameter_revision=old)
    assert acknowledged_of(hq, till) == before
    hq.set_parameters(offline_age_hours_max=720)


def test_a_revision_that_is_saved_and_not_distributed_cannot_be_acknowledged(hq: Hq) -> None:
    till = hq.till()
    applied = till.heartbeat().json["parameters"]["revision"]
    till.heartbeat(parameter_revision=applied)
    seen = hq.admin.get("/v1/admin/parameters").headers["ETag"]
    change = {"parameters": {"clock_skew_seconds_max": 901}, **WHY}
    saved = hq.admin.patch("/v1/admin/parameters", change, If_Match=seen).json["revision"]
    till.heartbeat(parameter_revision=saved)
    assert connection_of(hq, till)["acknowledged_revision"] == applied
    hq.distribute()
    till.heartbeat(parameter_revision=saved)
    assert connection_of(hq, till)["acknowledged_revision"] == saved


def test_a_reported_yes_is_good_for_a_grant(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    hq.set_parameters(allow_concluding_gift_card_transactions_offline=True)
    assert till.lock(card, "X1").json["offline"]["grant"] is None
    revision = till.heartbeat().json["parameters"]["revision"]
    till.heartbeat(parameter_revision=revision)
    assert till.lock(hq.issue(100), "X2").json["offline"]["grant"] is not None


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["terminals", "stores"])
def test_what_a_retired_register_tells_is_kept_and_it_is_told(hq: Hq, of: str) -> None:
    till = hq.till()
    assert till.heartbeat().json["register_retired"] is False
    hq.sql(f"UPDATE {of} SET retired_at = now() WHERE store_id = %s", till.store_id)
    answer = till.heartbeat(pending_count=2, oldest_pending_at=at(hours=1))
    assert (answer.status_code, answer.json["register_retired"]) == (200, True)
    found = connection_of(hq, till)
    assert (found["state"], found["report"]["pending_count"]) == ("retired", 2)
    assert till.lock(hq.issue(1), "X").status_code == 403


NEVER = {"at": None, "status": "none", "message": None}
# What is told -> what is pointed at.
BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a negative count": ({"pending_count": -1}, ["/pending_count"]),
    "too many": ({"pending_count": PENDING_MAX + 1}, ["/pending_count"]),
    "a negative amount": ({"pending_amounts_minor": {"SEK": -1}}, ["/pending_amounts_minor/SEK"]),
    "an amount that is true": (
        {"pending_amounts_minor": {"SEK": True}},
        ["/pending_amounts_minor/SEK"],
    ),
    "an amount with decimals": (
        {"pending_amounts_minor": {"SEK": 1.5}},
        ["/pending_amounts_minor/SEK"],
    ),
    "no amount": ({"pending_amounts_minor": {"SEK": None}}, ["/pending_amounts_minor/SEK"]),
    "an endless amount": (
        {"pending_amounts_minor": {"SEK": 2**53}},
        ["/pending_amounts_minor/SEK"],
    ),
    "unknown currencies": (
        {"pending_amounts_minor": {"XXX": 1, "sek": 1, "": 1, "EUR": 1}},
        ["/pending_amounts_minor/", "/pending_amounts_minor/XXX", "/pending_amounts_minor/sek"],
    ),
    "pending, and no oldest": ({"pending_count": 1}, ["/oldest_pending_at"]),
    "an oldest, and nothing pending": ({"oldest_pending_at": at()}, ["/oldest_pending_at"]),
    "an amount, and nothing pending": (
        {"pending_amounts_minor": {"SEK": 1}},
        ["/pending_amounts_minor"],
    ),
    "pending from the future": (
        {"pending_count": 1, "oldest_pending_at": at(days=-1), "sent_at": at(days=-2)},
        ["/oldest_pending_at", "/sent_at"],
    ),
    "pending from after it was sent": (
        {"pending_count": 1, "oldest_pending_at": at(seconds=10), "sent_at": at(seconds=20)},
        ["/oldest_pending_at"],
    ),
    "an attempt without its instant": ({"last_sync": {"status": "failed"}}, ["/last_sync/at"]),
    "an instant without an attempt": (
        {"last_sync": {"status": "none", "at": at(hours=1)}},
        ["/last_sync/at"],
    ),
    "a message without an attempt": (
        {"last_sync": {"status": "none", "message": "well"}},
        ["/last_sync/message"],
    ),
    "an attempt in the future": (
        {"last_sync": {"status": "failed", "at": at(days=-1)}, "sent_at": at(days=-2)},
        ["/last_sync/at", "/sent_at"],
    ),
    "an unknown status": ({"last_sync": {**NEVER, "status": "Failed"}}, ["/last_sync/status"]),
    "no status": ({"last_sync": {"at": at(hours=1)}}, ["/last_sync/status"]),
    "an unknown member of an attempt": (
        {"last_sync": {**NEVER, "result": "x"}},
        ["/last_sync/result"],
    ),
    "a long message": (
        {
            "last_sync": {
                "at": at(hours=1),
                "status": "failed",
                "message": "a" * (MESSAGE_LENGTH_MAX + 1),
            }
        },
        ["/last_sync/message"],
    ),
    "control characters": (
        {"last_sync": {"at": at(hours=1), "status": "failed", "message": "a\x1b[31m"}},
        ["/last_sync/message"],
    ),
    "a negative tip": ({"journal_tips": {"J": -1}}, ["/journal_tips/J"]),
    "an endless tip": ({"journal_tips": {"J": 2**53}}, ["/journal_tips/J"]),
    "a tip as text": ({"journal_tips": {"J": "7"}}, ["/journal_tips/J"]),
    "no name of a journal": (
        {"journal_tips": {"a b": 1, "": 1}},
        ["/journal_tips/", "/journal_tips/a b"],
    ),
    "a journal named like a card": (
        {"journal_tips": {"6006 0000 0000 0001": 1}},
        ["/journal_tips/***0001"],
    ),
    "more journals than there can be": (
        {"journal_tips": {f"J{number}": 1 for number in range(TIPS_MAX + 1)}},
        ["/journal_tips"],
    ),
    "a thousand journals": (
        {"journal_tips": {f"J{number}": 1 for number in range(1_000)}},
        ["/journal_tips"],
    ),
    "a negative revision": ({"parameter_revision": -1}, ["/parameter_revision"]),
    "no revision of the database": ({"parameter_revision": 2**31}, ["/parameter_revision"]),
    "a version that is none": ({"offline_profile_version": "1"}, ["/offline_profile_version"]),
    "sent in a year": ({"sent_at": at(days=-365)}, ["/sent_at"]),
    "sent at no instant": ({"sent_at": "2026-01-01T00:00:00"}, ["/sent_at"]),
    "several faults at once": (
        {"pending_count": -1, "journal_tips": {"J": -1}, "connection_state": "away"},
        ["/connection_state", "/journal_tips/J", "/pending_count"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_pointed_at_and_nothing_is_written(hq: Hq, app: Flask, case: str) -> None:
    told, pointers = BAD[case]
    till = hq.till()
    with Tables.of(app) as tables:
        before = tables.rows()
        assert faults_of(till.heartbeat(**told)) == pointers
        assert tables.rows() == before


def test_a_clock_that_is_a_little_ahead_is_no_fault(hq: Hq) -> None:
    till = hq.till()
    ahead = {"sent_at": at(minutes=-11), "pending_count": 1, "oldest_pending_at": at(minutes=-10)}
    assert till.heartbeat(**ahead).status_code == 200


def test_as_many_journals_as_a_till_may_name_are_all_told(hq: Hq) -> None:
    till = hq.till()
    named = {uuid.uuid4().hex: 1 for _ in range(TIPS_MAX)}
    answer = till.heartbeat(journal_tips=named)
    assert [one["journal_id"] for one in answer.json["journals"]] == sorted(named)


def test_of_more_journals_than_are_told_the_till_gets_those_that_it_names(hq: Hq) -> None:
    till = hq.till()
    hq.sql(
        "INSERT INTO terminal_journals (store_id, terminal_id, journal_id, arrived)"
        " SELECT %s, %s, 'J' || lpad(number::text, 4, '0'), '{[1,5)}'"
        " FROM generate_series(1, 500) AS number",
        till.store_id,
        till.terminal_id,
    )
    told = till.heartbeat(journal_tips={"J0499": 4, "K": 1}).json["journals"]
    by_id = {one["journal_id"]: one["acknowledged_through"] for one in told}
    assert (by_id["J0499"], by_id["K"], by_id["J0001"]) == (4, 0, 4)
    assert len(told) == TIPS_MAX + 1
