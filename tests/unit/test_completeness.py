"""When a business date is complete: nothing speaks against it, and HQ can know."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hq_service.domain.completeness import (
    Delivery,
    Reason,
    Summary,
    day_ends_at,
    is_left_out,
    judge,
)
from hq_service.domain.connection import RegisterPresence, Report
from hq_service.domain.journals import Journal
from tests.unit.test_connection import a_register, a_report

DATE = date(2026, 10, 31)
ZONE = "Europe/Stockholm"
ENDS_AT = datetime(2026, 10, 31, 23, 0, tzinfo=UTC)
BEGINS_AT = datetime(2026, 10, 30, 23, 0, tzinfo=UTC)
TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)


def told(**changes: Any) -> Report:
    """Return a report from the end of the day, with nothing pending."""
    return a_report(**{"reported_at": ENDS_AT, "sent_at": ENDS_AT, **changes})


def a_delivery(report: Report | None = None, **changes: Any) -> Delivery:
    """Return a register that has delivered everything."""
    known: dict[str, Any] = {
        "register": a_register(report=report or told()),
        "time_zone": ZONE,
        "journals": {},
        "granted_at": (),
        "unsettled_batches_count": 0,
        "open_cases_count": 0,
    }
    return Delivery(**{**known, **changes})


def reasons(delivery: Delivery) -> list[str]:
    return [str(one) for one in judge(delivery, DATE).reasons]


def journal(*arrived: int) -> Journal:
    found = Journal()
    for sequence in arrived:
        found.add(sequence)
    return found


# --- the end of the day ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "day", "ends_at"),
    [
        ("UTC", "2026-10-31", "2026-11-01T00:00:00"),
        ("Europe/Stockholm", "2026-07-31", "2026-07-31T22:00:00"),
        ("Europe/Stockholm", "2026-01-31", "2026-01-31T23:00:00"),
        # The day on which summer time begins has 23 hours, the one on which it ends 25.
        ("Europe/Stockholm", "2026-03-28", "2026-03-28T23:00:00"),
        ("Europe/Stockholm", "2026-03-29", "2026-03-29T22:00:00"),
        ("Europe/Stockholm", "2026-10-24", "2026-10-24T22:00:00"),
        ("Europe/Stockholm", "2026-10-25", "2026-10-25T23:00:00"),
        ("Asia/Shanghai", "2026-10-31", "2026-10-31T16:00:00"),
        ("Pacific/Kiritimati", "2026-10-31", "2026-10-31T10:00:00"),
        ("Asia/Kathmandu", "2026-10-31", "2026-10-31T18:15:00"),
        # Clocks are put forward at midnight: the day begins with the change.
        ("Africa/Cairo", "2026-04-23", "2026-04-23T22:00:00"),
        # Midnight comes twice: the first one.
        ("America/Havana", "2026-10-31", "2026-11-01T04:00:00"),
        # There was no 30 December 2011.
        ("Pacific/Apia", "2011-12-29", "2011-12-30T10:00:00"),
    ],
)
def test_a_day_ends_at_midnight_of_the_store(zone: str, day: str, ends_at: str) -> None:
    assert day_ends_at(date.fromisoformat(day), zone) == datetime.fromisoformat(ends_at + "+00:00")


@given(
    st.dates(date(2000, 1, 2), date(2050, 1, 1)),
    st.sampled_from(
        ["UTC", ZONE, "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "Africa/Cairo"]
    ),
)
def test_days_follow_one_another_and_last_about_a_day(day: date, zone: str) -> None:
    lasts = day_ends_at(day, zone) - day_ends_at(day - DAY, zone)
    assert timedelta(hours=22) <= lasts <= timedelta(hours=26)


# --- who is counted -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("created_at", "retired_at", "is_counted"),
    [
        (ENDS_AT - TICK, None, True),
        (ENDS_AT, None, False),
        (BEGINS_AT - DAY, BEGINS_AT - TICK, False),
        (BEGINS_AT - DAY, BEGINS_AT, True),
        (BEGINS_AT - DAY, ENDS_AT + DAY, True),
    ],
)
def test_a_register_counts_if_it_was_in_use_on_the_day(
    created_at: datetime, retired_at: datetime | None, is_counted: bool
) -> None:
    register = a_register(created_at=created_at, retired_at=retired_at)
    found = judge(a_delivery(register=register), DATE)
    assert is_left_out(found, DATE) is not is_counted


GONE_AT = BEGINS_AT - DAY


@pytest.mark.parametrize(
    ("left", "is_counted"),
    [
        ({}, False),
        ({"report": None}, False),
        ({"report": told(reported_at=GONE_AT - DAY)}, False),  # silent before it was retired
        ({"report": told(pending_count=1, oldest_pending_at=GONE_AT - DAY)}, True),
        ({"report": told(journal_tips={"J": 1})}, True),
        ({"journals": {"J": journal(2)}}, True),
        ({"granted_at": (GONE_AT,)}, True),
        ({"unsettled_batches_count": 1}, True),
    ],
)
def test_a_register_that_was_retired_before_is_counted_if_something_is_left_in_it(
    left: dict[str, Any], is_counted: bool
) -> None:
    report = left.get("report", told())
    register = a_register(retired_at=GONE_AT, report=report)
    rest = {name: value for name, value in left.items() if name != "report"}
    found = judge(a_delivery(**{"register": register, **rest}), DATE)
    assert is_left_out(found, DATE) is not is_counted


def test_a_register_that_was_retired_is_heard_of_long_enough_up_to_then() -> None:
    for retired_at in (ENDS_AT - timedelta(hours=6), ENDS_AT, ENDS_AT + DAY):
        until = min(retired_at, ENDS_AT)
        for told_at, expected in ((until, []), (until - TICK, ["not_heard_since"])):
            report = told(sent_at=told_at, reported_at=told_at)
            register = a_register(retired_at=retired_at, report=report)
            assert reasons(a_delivery(register=register)) == expected


# --- what speaks against it -----------------------------------------------------------------------


def test_a_register_is_complete_when_nothing_speaks_against_it() -> None:
    found = judge(a_delivery(), DATE)
    assert (found.is_complete, found.reasons, found.day_ends_at) == (True, (), ENDS_AT)


def test_a_register_that_never_told_anything_is_not_complete() -> None:
    silent = a_delivery(register=a_register(last_seen_at=ENDS_AT + DAY, report=None))
    assert reasons(silent) == ["never_heard"]


@pytest.mark.parametrize(
    ("sent_at", "reported_at"),
    [(ENDS_AT - TICK, ENDS_AT), (ENDS_AT, ENDS_AT - TICK), (ENDS_AT - DAY, ENDS_AT + DAY)],
)
def test_a_report_from_before_the_end_of_the_day_by_either_clock_does_not_do(
    sent_at: datetime, reported_at: datetime
) -> None:
    # A till whose clock is slow dates its next sale into the day that has ended at HQ.
    early = told(sent_at=sent_at, reported_at=reported_at)
    assert reasons(a_delivery(early)) == ["not_heard_since"]


@pytest.mark.parametrize(
    ("oldest_at", "is_against"), [(ENDS_AT, True), (ENDS_AT + TICK, False), (None, True)]
)
def test_what_is_pending_speaks_against_the_day_of_its_oldest(
    oldest_at: datetime | None, is_against: bool
) -> None:
    pending = told(
        reported_at=ENDS_AT + DAY,
        sent_at=ENDS_AT + DAY,
        pending_count=1,
        oldest_pending_at=oldest_at,
    )
    assert reasons(a_delivery(pending)) == ["pending_transactions"] * is_against


def test_what_is_missing_of_a_journal_speaks_against_every_day() -> None:
    arrived = {"J": journal(1, 2, 4), "K": journal(1, 2)}
    found = judge(a_delivery(told(journal_tips={"J": 4, "K": 2}), journals=arrived), DATE)
    assert (found.reasons, found.journal_gaps_count) == ((Reason.JOURNAL_GAP,), 1)


@pytest.mark.parametrize(
    ("tips", "behind"),
    [
        ({"J": 2}, 0),
        ({"J": 1}, 0),  # more has arrived since
        ({"J": 3}, 1),
        ({"J": 3, "K": 1, "L": 0}, 2),  # of a journal of which nothing has arrived, too
    ],
)
def test_a_journal_that_was_written_further_than_it_arrived_is_behind(
    tips: dict[str, int], behind: int
) -> None:
    found = judge(a_delivery(told(journal_tips=tips), journals={"J": journal(1, 2)}), DATE)
    assert found.journals_behind_count == behind
    assert found.reasons == (Reason.JOURNAL_BEHIND,) * bool(behind)


def test_a_batch_that_is_not_settled_speaks_against_every_day() -> None:
    assert reasons(a_delivery(unsettled_batches_count=1)) == ["unsettled_batch"]


def test_a_live_grant_speaks_against_the_days_from_when_it_was_taken() -> None:
    taken = (ENDS_AT - DAY, ENDS_AT, ENDS_AT + TICK)
    found = judge(a_delivery(granted_at=taken), DATE)
    assert (found.reasons, found.live_grants_count) == ((Reason.LIVE_GRANT,), 2)
    assert reasons(a_delivery(granted_at=taken[2:])) == []


def test_open_cases_are_told_and_do_not_speak_against_it() -> None:
    found = judge(a_delivery(open_cases_count=7), DATE)
    assert found.is_complete
    assert found.delivery.open_cases_count == 7


# --- whatever may come ----------------------------------------------------------------------------

instants = st.timedeltas(-4 * DAY, 3 * DAY).map(lambda apart: ENDS_AT + apart)
reports = st.builds(
    lambda pending, oldest_at, **rest: a_report(
        pending_count=pending, oldest_pending_at=oldest_at if pending else None, **rest
    ),
    pending=st.integers(0, 3),
    oldest_at=instants,
    reported_at=instants,
    sent_at=instants,
    journal_tips=st.dictionaries(st.sampled_from("JK"), st.integers(0, 5)),
)
deliveries = st.builds(
    Delivery,
    register=st.builds(a_register, report=st.none() | reports, retired_at=st.none() | instants),
    time_zone=st.sampled_from([ZONE, "UTC", "Pacific/Kiritimati", "America/Los_Angeles"]),
    journals=st.dictionaries(
        st.sampled_from("JK"), st.sets(st.integers(1, 5)).map(lambda one: journal(*one))
    ),
    granted_at=st.lists(instants, max_size=2).map(tuple),
    unsettled_batches_count=st.integers(0, 1),
    open_cases_count=st.integers(0, 3),
)


@given(deliveries)
def test_complete_is_never_said_of_what_hq_cannot_know(delivery: Delivery) -> None:
    found = judge(delivery, DATE)
    assert found.is_complete == (not found.reasons)
    if not found.is_complete:
        return
    report = delivery.register.report
    assert report is not None
    needed_at = min(found.day_ends_at, delivery.register.retired_at or found.day_ends_at)
    assert min(report.reported_at, report.sent_at) >= needed_at
    assert not report.pending_count or (report.oldest_pending_at or BEGINS_AT) > found.day_ends_at
    for journal_id, tip in report.journal_tips.items():
        arrived = delivery.journals.get(journal_id, Journal())
        assert all(sequence in arrived for sequence in range(1, tip + 1))
    assert delivery.unsettled_batches_count == 0
    assert all(granted_at > found.day_ends_at for granted_at in delivery.granted_at)


@given(deliveries, st.integers(1, 4))
def test_a_register_that_is_complete_up_to_a_day_is_up_to_every_day_before(
    delivery: Delivery, days: int
) -> None:
    if judge(delivery, DATE).is_complete:
        assert judge(delivery, DATE - days * DAY).is_complete


@given(deliveries)
def test_every_reason_is_of_the_list_each_once_and_in_its_order(delivery: Delivery) -> None:
    found = judge(delivery, DATE).reasons
    assert list(found) == [one for one in Reason if one in found]
    assert not {Reason.NEVER_HEARD, Reason.NOT_HEARD_SINCE} <= set(found)


# --- the summary ----------------------------------------------------------------------------------


def test_a_store_is_complete_when_all_its_registers_are() -> None:
    def of(store_id: str, *, is_complete: bool) -> Delivery:
        delivery = a_delivery(unsettled_batches_count=int(not is_complete))
        register: RegisterPresence = replace(delivery.register, store_id=store_id)
        return replace(delivery, register=register)

    summary = Summary()
    for store_id, is_complete in (
        ("A", True),
        ("A", False),
        ("B", True),
        ("C", False),
        ("B", True),
    ):
        summary.add(judge(of(store_id, is_complete=is_complete), DATE))
    assert (summary.registers_count, summary.registers_complete_count) == (5, 3)
    assert (summary.stores_count, summary.stores_complete_count) == (3, 1)
