"""Which registers have delivered everything up to a business date."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from hq_service.operations import offline_batches
from tests.support import Hq, Till, a_name

COMPLETENESS = "/v1/admin/completeness"
DAY = timedelta(days=1)
# Not yesterday, which is another day once it is midnight, perhaps while these tests are running.
THE_DAY = datetime.now(UTC).date() - 7 * DAY
BEFORE_ITS_END = datetime.combine(THE_DAY, datetime.min.time(), UTC) + timedelta(hours=12)


def report(hq: Hq, query: str = "", business_date: date = THE_DAY) -> dict[str, Any]:
    answer = hq.admin.get(f"{COMPLETENESS}?business_date={business_date}{query}")
    assert answer.status_code == 200, answer.json
    return dict(answer.json)


def of(hq: Hq, till: Till, business_date: date = THE_DAY) -> dict[str, Any]:
    registers = report(hq, f"&store_id={till.store_id}", business_date)["registers"]
    [found] = [one for one in registers if one["terminal_id"] == till.terminal_id]
    return dict(found)


def reasons(hq: Hq, till: Till, business_date: date = THE_DAY) -> list[str]:
    found = of(hq, till, business_date)
    assert found["is_complete"] == (not found["reasons"])
    return list(found["reasons"])


def aged(hq: Hq, till: Till) -> Till:
    """Let a register have been there for long."""
    hq.sql(
        "UPDATE terminals SET created_at = now() - interval '400 days' WHERE store_id = %s",
        till.store_id,
    )
    return till


def an_old_till(hq: Hq, store_id: str | None = None, **more: Any) -> Till:
    return aged(hq, hq.till(store_id, **more))


# --- reasons --------------------------------------------------------------------------------------


def test_a_register_that_told_that_nothing_is_left_is_complete(hq: Hq) -> None:
    till = an_old_till(hq)
    till.heartbeat()
    found = of(hq, till)
    assert (found["is_complete"], found["reasons"]) == (True, [])
    assert found["day_ends_at"] == (THE_DAY + DAY).isoformat() + "T00:00:00+00:00"


def test_a_register_that_only_sold_was_never_heard(hq: Hq) -> None:
    till = an_old_till(hq)
    assert reasons(hq, till) == ["never_heard"]
    till.lock(hq.issue(1), "X1")
    assert reasons(hq, till) == ["never_heard"], "a sale says nothing of what is pending"


def test_today_is_complete_nowhere_because_it_has_not_ended(hq: Hq) -> None:
    till = an_old_till(hq)
    till.heartbeat()
    today = datetime.now(UTC).date()
    assert reasons(hq, till, today) == ["not_heard_since"]


def test_a_report_that_the_till_sent_before_the_end_of_the_day_does_not_do(hq: Hq) -> None:
    till = an_old_till(hq)
    till.heartbeat(sent_at=BEFORE_ITS_END.isoformat())
    assert reasons(hq, till) == ["not_heard_since"]
    assert reasons(hq, till, THE_DAY - DAY) == []


def test_what_is_pending_speaks_against_its_own_day_and_those_behind(hq: Hq) -> None:
    till = an_old_till(hq)
    pending = {"pending_count": 2, "pending_amounts_minor": {"SEK": 900}}
    till.heartbeat(**pending, oldest_pending_at=BEFORE_ITS_END.isoformat())
    found = of(hq, till)
    assert found["reasons"] == ["pending_transactions"]
    assert found["report"]["pending_amounts_minor"] == {"SEK": 900}
    assert reasons(hq, till, THE_DAY - DAY) == []
    till.heartbeat()
    assert reasons(hq, till) == []


def test_a_journal_with_a_gap_or_behind_its_tip_is_not_complete_until_the_lines_come(
    hq: Hq,
) -> None:
    till, card = an_old_till(hq), hq.issue(100)
    lines = [till.offline_line(card, f"X{number}", 1) for number in range(4)]
    hq.post_batch(till.store_id, [lines[0], lines[2]])
    till.heartbeat(journal_tips={till.journal_id: 3})
    assert reasons(hq, till) == ["journal_gap"]
    till.heartbeat(journal_tips={till.journal_id: 4})
    found = of(hq, till)
    assert found["reasons"] == ["journal_gap", "journal_behind"]
    assert (found["journal_gaps_count"], found["journals_behind_count"]) == (1, 1)
    hq.post_batch(till.store_id, [lines[1], lines[3]])
    assert reasons(hq, till) == []


def test_a_journal_of_which_nothing_has_arrived_is_behind(hq: Hq) -> None:
    till = an_old_till(hq)
    till.heartbeat(journal_tips={"J": 1, "K": 0})
    assert reasons(hq, till) == ["journal_behind"]


def test_what_a_till_wrote_and_did_not_send_is_not_forgotten_when_it_is_set_up_anew(
    hq: Hq,
) -> None:
    till, card = an_old_till(hq), hq.issue(100)
    lines = [till.offline_line(card, f"X{number}", 1) for number in range(5)]
    hq.post_batch(till.store_id, lines[:1])
    pending = {"pending_count": 4, "oldest_pending_at": BEFORE_ITS_END.isoformat()}
    till.heartbeat(journal_tips={till.journal_id: 5}, **pending)
    assert reasons(hq, till) == ["pending_transactions", "journal_behind"]
    till.heartbeat(journal_tips={"new": 0})
    assert reasons(hq, till) == ["journal_behind"]
    till.heartbeat(journal_tips={till.journal_id: 1})
    assert reasons(hq, till) == ["journal_behind"]
    hq.post_batch(till.store_id, lines[1:])
    assert reasons(hq, till) == []


def test_a_batch_that_is_received_and_not_settled_is_told_of_every_register_that_it_may_be_of(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    till, card = an_old_till(hq), hq.issue(100)
    sister = an_old_till(hq, till.store_id)
    elsewhere = an_old_till(hq)
    for one in (till, sister, elsewhere):
        one.heartbeat()

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError

    body = {"store_id": till.store_id, "batch_id": a_name("batch")}
    by_sync, by_till = [{**body, "batch_id": a_name("batch")} for _ in range(2)]
    by_sync["lines"] = [till.offline_line(card, "X1", 1)]
    by_till["lines"] = [till.offline_line(card, "X2", 1)]
    sync = hq.sync(till.store_id)
    with monkeypatch.context() as patch:
        patch.setattr(offline_batches, "settle_store", fail)
        assert till.post("/v1/offline-batches", by_till).status_code == 500
        assert reasons(hq, till) == ["unsettled_batch"]
        assert reasons(hq, sister) == [], "a till's own batch has lines of that till only"
        assert sync.post("/v1/offline-batches", by_sync).status_code == 500
        for one, count in ((till, 2), (sister, 1)):
            assert reasons(hq, one) == ["unsettled_batch"]
            assert of(hq, one)["unsettled_batches_count"] == count
        assert reasons(hq, elsewhere) == []
    assert sync.post("/v1/offline-batches", by_sync).status_code == 200
    for one in (till, sister, elsewhere):
        assert reasons(hq, one) == []


def test_a_live_grant_from_before_the_end_of_the_day_may_have_been_spent(hq: Hq) -> None:
    till, card = an_old_till(hq), hq.issue(100)
    hq.allow_offline(till)
    lock = till.lock(card, "X1")
    assert lock.json["offline"]["grant"]
    till.heartbeat()
    assert reasons(hq, till) == [], "it was taken later"
    hq.sql(
        "WITH moved AS (UPDATE instruments SET locked_at = locked_at - interval '9 days'"
        " WHERE instrument_id = %s RETURNING bucket, instrument_id, locked_at)"
        " UPDATE live_locks SET locked_at = moved.locked_at FROM moved"
        " WHERE (live_locks.bucket, live_locks.instrument_id)"
        " = (moved.bucket, moved.instrument_id)",
        card.instrument_id,
    )
    assert reasons(hq, till) == ["live_grant"]
    till.release(card, "X1", lock.json["lock_id"])
    assert reasons(hq, till) == []


def test_a_lock_without_a_grant_says_nothing(hq: Hq) -> None:
    till, card = an_old_till(hq, supports_offline=False), hq.issue(100)
    till.lock(card, "X1")
    hq.sql("UPDATE live_locks SET locked_at = now() - interval '19 days'")
    till.heartbeat()
    assert reasons(hq, till) == []


def test_open_cases_are_told_and_do_not_make_it_incomplete(hq: Hq) -> None:
    till, card = an_old_till(hq), hq.issue(10)
    hq.post_batch(till.store_id, [till.offline_line(card, "X1", 25)])
    till.heartbeat(journal_tips={till.journal_id: 1})
    found = of(hq, till)
    assert (found["open_cases_count"], found["is_complete"]) == (1, True)


# --- days and zones -------------------------------------------------------------------------------


def test_the_day_ends_at_midnight_of_the_store(hq: Hq) -> None:
    zones = ("Pacific/Kiritimati", "UTC", "Pacific/Pago_Pago")
    tills = {}
    for zone in zones:
        tills[zone] = an_old_till(hq)
        store_id = tills[zone].store_id
        hq.sql("UPDATE stores SET time_zone = %s WHERE store_id = %s", zone, store_id)
    told = {
        zone: datetime.fromisoformat(of(hq, till)["day_ends_at"]) for zone, till in tills.items()
    }
    midnight = datetime.combine(THE_DAY + DAY, datetime.min.time(), UTC)
    assert told == {
        "Pacific/Kiritimati": midnight - timedelta(hours=14),
        "UTC": midnight,
        "Pacific/Pago_Pago": midnight + timedelta(hours=11),
    }


@pytest.mark.parametrize(
    ("business_date", "ends_at"),
    [("2025-03-29", "2025-03-29T23:00:00"), ("2025-03-30", "2025-03-30T22:00:00")],
)
def test_summer_time_moves_the_end_of_the_day(hq: Hq, business_date: str, ends_at: str) -> None:
    till = hq.till()
    hq.sql("UPDATE stores SET time_zone = 'Europe/Stockholm' WHERE store_id = %s", till.store_id)
    hq.sql("UPDATE terminals SET created_at = '2020-01-01Z' WHERE store_id = %s", till.store_id)
    found = of(hq, till, date.fromisoformat(business_date))
    assert found["day_ends_at"] == ends_at + "+00:00"


def test_registers_that_were_not_there_on_the_day_are_left_out_and_counted(hq: Hq) -> None:
    old = an_old_till(hq)
    gone, going = (an_old_till(hq, old.store_id) for _ in range(2))
    new = hq.till(old.store_id)
    for till, at in ((gone, THE_DAY - DAY), (going, THE_DAY)):
        hq.sql(
            "UPDATE terminals SET retired_at = %s WHERE store_id = %s AND terminal_id = %s",
            datetime.combine(at, datetime.min.time(), UTC) + timedelta(hours=23),
            till.store_id,
            till.terminal_id,
        )
    found = report(hq, f"&store_id={old.store_id}")
    told = {one["terminal_id"]: one["retired_at"] is not None for one in found["registers"]}
    assert told == {old.terminal_id: False, going.terminal_id: True}
    assert new.terminal_id not in told
    assert found["summary"]["registers_left_out_count"] == 2
    assert found["summary"]["registers_count"] == 2


def retired_at(hq: Hq, till: Till, instant: datetime) -> None:
    hq.sql(
        "UPDATE terminals SET retired_at = %s WHERE store_id = %s AND terminal_id = %s",
        instant,
        till.store_id,
        till.terminal_id,
    )


def told_at(hq: Hq, till: Till, instant: datetime) -> None:
    """Let the last report of a till have been of an instant."""
    hq.sql(
        "UPDATE terminal_presence SET reported_at = %s, report_sent_at = %s"
        " WHERE store_id = %s AND terminal_id = %s",
        instant,
        instant,
        till.store_id,
        till.terminal_id,
    )


def test_a_retired_register_with_something_left_is_counted_until_it_has_come(hq: Hq) -> None:
    till, card = an_old_till(hq), hq.issue(100)
    line = till.offline_line(card, "X1", 1)
    gone_at = BEFORE_ITS_END - 2 * DAY
    pending = {"pending_count": 1, "oldest_pending_at": (gone_at - DAY).isoformat()}
    till.heartbeat(journal_tips={till.journal_id: 1}, **pending)
    told_at(hq, till, gone_at)
    retired_at(hq, till, gone_at)
    found = of(hq, till)
    assert found["reasons"] == ["pending_transactions", "journal_behind"]
    hq.sql("UPDATE terminals SET retired_at = NULL WHERE store_id = %s", till.store_id)
    assert hq.post_batch(till.store_id, [line]).json["results"][0]["outcome"] == "applied"
    retired_at(hq, till, gone_at)
    assert reasons(hq, till) == ["pending_transactions"], "as it told last"
    assert till.heartbeat(journal_tips={till.journal_id: 1}).status_code == 200
    summary = report(hq, f"&store_id={till.store_id}")["summary"]
    assert (summary["registers_count"], summary["registers_left_out_count"]) == (0, 1)
    assert reasons(hq, till, gone_at.date()) == []


@pytest.mark.parametrize("of_store", [False, True])
def test_a_register_that_was_retired_on_the_day_is_complete_by_its_last_report(
    hq: Hq, of_store: bool
) -> None:
    till = an_old_till(hq)
    till.heartbeat()
    if of_store:
        hq.sql(
            "UPDATE stores SET retired_at = %s WHERE store_id = %s", BEFORE_ITS_END, till.store_id
        )
    else:
        retired_at(hq, till, BEFORE_ITS_END)
    told_at(hq, till, BEFORE_ITS_END - timedelta(seconds=1))
    assert reasons(hq, till) == ["not_heard_since"]
    told_at(hq, till, BEFORE_ITS_END)
    assert reasons(hq, till) == []


def test_a_till_that_tells_after_its_retirement_that_nothing_is_left_is_complete(hq: Hq) -> None:
    till = an_old_till(hq)
    today = noon_at(hq, till.store_id)
    till.heartbeat()
    retired_at(hq, till, datetime.now(UTC))
    assert reasons(hq, till, today) == ["not_heard_since"]
    till.heartbeat()
    assert reasons(hq, till, today) == []


def noon_at(hq: Hq, store_id: str) -> date:
    """Move a store to where it is about noon, so that no test meets midnight; return its date."""
    hours_ahead = 12 - datetime.now(UTC).hour
    zone = f"Etc/GMT{-hours_ahead:+d}"  # which is behind by as much as it says
    hq.sql("UPDATE stores SET time_zone = %s WHERE store_id = %s", zone, store_id)
    return (datetime.now(UTC) + timedelta(hours=hours_ahead)).date()


# --- the summary and the pages --------------------------------------------------------------------


def test_the_summary_is_of_all_whatever_the_page_shows(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hq_service.operations.completeness.PART_REGISTERS", 2)
    store_id = hq.make_store()
    tills = [an_old_till(hq, store_id) for _ in range(5)]
    for till in tills[:3]:
        till.heartbeat()
    expected = {
        "stores_count": 1,
        "stores_complete_count": 0,
        "stores_incomplete_count": 1,
        "registers_count": 5,
        "registers_complete_count": 3,
        "registers_incomplete_count": 2,
        "registers_left_out_count": 0,
    }
    scope = f"&store_id={store_id}"
    for only, wanted in (("false", tills), ("true", tills[3:])):
        for limit in (1, 2, 200):
            told, after = [], ""
            while after is not None:
                page = report(hq, f"{scope}&only_incomplete={only}&limit={limit}{after}")
                assert page["summary"] == expected
                assert len(page["registers"]) <= limit
                told += [one["terminal_id"] for one in page["registers"]]
                after = page["next_after"] and f"&after={page['next_after']}"
            assert told == sorted(till.terminal_id for till in wanted), (only, limit)
    for till in tills[3:]:
        till.heartbeat()
    assert report(hq, scope)["summary"]["stores_complete_count"] == 1


def test_the_summary_of_all_stores_counts_each_store_once(hq: Hq) -> None:
    for _ in range(2):
        an_old_till(hq).heartbeat()
    registers, after = [], ""
    while after is not None:
        page = report(hq, f"&limit=7{after}")
        registers += page["registers"]
        after = page["next_after"] and f"&after={page['next_after']}"
    stores = {one["store_id"] for one in registers}
    incomplete = {one["store_id"] for one in registers if not one["is_complete"]}
    assert {name: page["summary"][name] for name in page["summary"] if "left_out" not in name} == {
        "stores_count": len(stores),
        "stores_complete_count": len(stores - incomplete),
        "stores_incomplete_count": len(incomplete),
        "registers_count": len(registers),
        "registers_complete_count": sum(one["is_complete"] for one in registers),
        "registers_incomplete_count": sum(not one["is_complete"] for one in registers),
    }


# --- what is asked for ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("", "/business_date"),
        ("business_date=", "/business_date"),
        ("business_date=31.1.2026", "/business_date"),
        ("business_date=20260131", "/business_date"),
        ("business_date=2026-02-30", "/business_date"),
        ("business_date=2026-W05-6", "/business_date"),
        ("business_date=2026-01-31T00:00:00", "/business_date"),
        ("business_date=1999-12-31", "/business_date"),
        ("business_date=9999-12-31", "/business_date"),
        (f"business_date={THE_DAY + 30 * DAY}", "/business_date"),
        ("business_date=2026-01-31&business_date=2026-01-30", "/business_date"),
        ("business_date=2026-01-31&only_incomplete=1", "/only_incomplete"),
        ("business_date=2026-01-31&after=S001", "/after"),
        ("business_date=2026-01-31&limit=201", "/limit"),
        ("business_date=2026-01-31&limit=0", "/limit"),
        ("business_date=2026-01-31&store_id=%00", "/store_id"),
        ("business_date=2026-01-31&state=complete", "/state"),
    ],
)
def test_a_wrong_question_is_pointed_at(hq: Hq, query: str, pointer: str) -> None:
    answer = hq.admin.get(f"{COMPLETENESS}?{query}")
    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert [fault["pointer"] for fault in answer.json["errors"]] == [pointer]


def test_a_store_that_there_is_not_has_no_report(hq: Hq) -> None:
    answer = hq.admin.get(f"{COMPLETENESS}?business_date={THE_DAY}&store_id=nothing")
    assert (answer.status_code, answer.json["code"]) == (404, "store_not_found")
