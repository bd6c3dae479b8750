"""What a session may become, what a package is, and when a schedule is run next."""

from __future__ import annotations

import hashlib
import itertools
import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hq_service.domain import distribution
from hq_service.domain.distribution import (
    ACKNOWLEDGEABLE,
    CHANNEL_TRANSACTIONS,
    GLOBAL_CONFIGURATION,
    JOBS,
    PACKAGE_BYTES_MAX,
    STATUSES,
    TRY_COUNT_MAX,
    Direction,
    Job,
    Session,
    SessionStatus,
    Verdict,
    acknowledged,
    canceled,
    faults_of_jobs,
    fetched,
    is_still_wanted,
    judge_acknowledgement,
    may_be_underway,
    opened,
    package_of,
    possible_acknowledgements,
)
from hq_service.operations.recurrence import fault_of_cron, next_run_at

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
PACKAGE = package_of(GLOBAL_CONFIGURATION, "S001", 7, {"parameters": {"lease_seconds": 900}})
UPLOAD_TOLD = {SessionStatus.UPLOADED, SessionStatus.UPLOAD_FAILED}
DOWNLOAD_TOLD = {SessionStatus.DOWNLOADED, SessionStatus.DOWNLOAD_FAILED}


def session(job: Job = GLOBAL_CONFIGURATION, **members: object) -> Session:
    made = opened(
        uuid.UUID(int=1),
        (uuid.UUID(int=2), "D1"),
        "S001",
        job,
        PACKAGE if job.direction is Direction.DOWNLOAD else None,
        applied_last=None,
        is_wanted_anyway=False,
        rerun_for=None,
        now=NOON,
    )
    return replace(made, **members)  # type: ignore[arg-type]


def told(one: Session, *statuses: SessionStatus) -> Session:
    """Tell one thing after the other, each of which is recorded."""
    for status in statuses:
        assert judge_acknowledgement(one, status) is Verdict.RECORDED, (one.status, status)
        one = acknowledged(one, status, None, NOON)
    return one


def fetch(one: Session) -> Session:
    after = fetched(one, NOON)
    assert after is not None
    return after


def test_the_jobs_are_those_of_dynamics() -> None:
    assert [(job.job_id, job.name, job.direction) for job in JOBS] == [
        ("1110", "Global configuration", "download"),
        ("1070", "Channel configuration", "download"),
        ("1090", "Registers", "download"),
        ("P-0001", "Channel transactions", "upload"),
    ]


def test_a_download_is_fetched_downloaded_and_applied() -> None:
    one = fetch(session())
    assert (one.status, one.try_count, one.requested_at) == ("requested", 1, NOON)
    one = told(one, SessionStatus.DOWNLOADED, SessionStatus.APPLIED)
    assert (one.status, one.applied_at, one.ended_at) == ("applied", NOON, NOON)


def test_fetching_again_without_telling_a_failure_is_the_same_try() -> None:
    one = fetch(session())
    assert fetched(one, NOON + timedelta(hours=1)) is one
    downloaded = told(one, SessionStatus.DOWNLOADED)
    assert fetched(downloaded, NOON) is downloaded


def test_what_nobody_fetched_nobody_can_have_applied() -> None:
    assert possible_acknowledgements(session()) == []
    never_fetched = canceled(session(), "test", None, NOON)
    assert judge_acknowledgement(never_fetched, SessionStatus.APPLIED) is Verdict.ENDED


@pytest.mark.parametrize(
    "failure", [SessionStatus.DOWNLOAD_FAILED, SessionStatus.APPLY_FAILED], ids=str
)
def test_a_download_that_fails_is_tried_until_the_try_count_and_has_ended_then(
    failure: SessionStatus,
) -> None:
    one = session()
    for try_number in range(1, TRY_COUNT_MAX + 1):
        assert one.ended_at is None
        one = told(fetch(one), failure)
        assert (one.status, one.try_count) == (failure, try_number)
        assert judge_acknowledgement(one, failure) is Verdict.REPEATED
    assert one.ended_at == NOON
    assert fetched(one, NOON) is None
    # It had the package all along, and tried once more by itself: that is a fact.
    assert told(one, SessionStatus.APPLIED).status == "applied"


def test_an_upload_that_fails_is_tried_until_the_try_count_and_has_ended_then() -> None:
    one = session(CHANNEL_TRANSACTIONS)
    one = told(one, SessionStatus.UPLOAD_FAILED)
    assert (one.try_count, one.ended_at) == (1, None)
    one = told(one, SessionStatus.UPLOADED, SessionStatus.APPLY_FAILED)
    assert (one.try_count, one.ended_at) == (2, None)
    one = told(one, SessionStatus.UPLOADED, SessionStatus.APPLY_FAILED)
    assert (one.try_count, one.ended_at) == (3, NOON)
    assert possible_acknowledgements(one) == []


def test_an_upload_has_no_package_and_is_applied_with_or_without_telling_that_it_is_uploaded() -> (
    None
):
    one = session(CHANNEL_TRANSACTIONS)
    assert (one.package_bytes, one.checksum_sha256) == (None, None)
    assert fetched(one, NOON) is None
    for before in (
        [],
        [SessionStatus.UPLOADED],
        [SessionStatus.UPLOAD_FAILED],
        [SessionStatus.UPLOADED, SessionStatus.APPLY_FAILED],
    ):
        done = told(one, *before, SessionStatus.APPLIED)
        assert (done.status, done.applied_at, done.ended_at) == ("applied", NOON, NOON)
        failures = len(distribution.FAILURES.intersection(before))
        assert done.try_count == 1 + failures


def test_that_a_canceled_upload_was_applied_is_a_fact_if_the_store_had_begun_it() -> None:
    begun = canceled(told(session(CHANNEL_TRANSACTIONS), SessionStatus.UPLOADED), "x", None, NOON)
    assert possible_acknowledgements(begun) == [SessionStatus.APPLIED]
    done = told(begun, SessionStatus.APPLIED)
    assert (done.status, done.try_count) == ("applied", 1)
    assert done.message == (
        "Applied although it had been canceled; the store had begun it before. x"
    )
    never = canceled(session(CHANNEL_TRANSACTIONS), "x", None, NOON)
    assert judge_acknowledgement(never, SessionStatus.APPLIED) is Verdict.ENDED


def test_a_canceled_session_goes_on_to_tell_what_it_had_failed_with() -> None:
    failed = acknowledged(fetch(session()), SessionStatus.APPLY_FAILED, "disk full", NOON)
    newer = uuid.UUID(int=9)
    gone = canceled(failed, "Replaced by a newer session.", newer, NOON)
    assert (gone.status, gone.replaced_by, gone.try_count) == ("canceled", newer, 1)
    assert gone.message == (
        "Replaced by a newer session. It had failed before: apply_failed, try 1. disk full"
    )
    assert canceled(fetch(session()), "Canceled.", None, NOON).message == "Canceled."


def test_a_session_with_just_the_same_package_is_still_wanted_and_so_is_every_upload() -> None:
    other = package_of(GLOBAL_CONFIGURATION, "S001", 8, {"parameters": {"lease_seconds": 901}})
    assert is_still_wanted(session(), PACKAGE)
    assert not is_still_wanted(session(), other)
    assert is_still_wanted(session(CHANNEL_TRANSACTIONS), None)


def test_a_canceled_session_is_not_handed_out_but_that_it_was_applied_is_a_fact() -> None:
    gone = canceled(fetch(session()), "Canceled: wrong store.", None, NOON)
    assert fetched(gone, NOON) is None
    assert judge_acknowledgement(gone, SessionStatus.DOWNLOADED) is Verdict.ENDED
    assert judge_acknowledgement(gone, SessionStatus.APPLY_FAILED) is Verdict.ENDED
    applied = acknowledged(gone, SessionStatus.APPLIED, "took a while", NOON)
    assert applied.status == "applied"
    assert applied.message == (
        "Applied although it had been canceled; the store had fetched it before."
        " Canceled: wrong store. took a while"
    )


def test_what_was_told_before_the_last_thing_is_a_repeat() -> None:
    one = told(fetch(session()), SessionStatus.DOWNLOADED, SessionStatus.APPLIED)
    for status in (SessionStatus.DOWNLOADED, SessionStatus.APPLIED):
        assert judge_acknowledgement(one, status) is Verdict.REPEATED
    assert judge_acknowledgement(one, SessionStatus.APPLY_FAILED) is Verdict.ENDED
    assert judge_acknowledgement(one, SessionStatus.UPLOADED) is Verdict.ENDED


def walks() -> list[Session]:
    """Return every session that fetching, telling and canceling can lead to, in six steps."""
    found, edge = [], [session(), session(CHANNEL_TRANSACTIONS)]
    for _ in range(6):
        found += edge
        after = []
        for one in edge:
            after += [acknowledged(one, status, None, NOON) for status in _recorded(one)]
            again = fetched(one, NOON)
            if again is not None and again is not one:
                after.append(again)
            if one.ended_at is None:
                after.append(canceled(one, "test", None, NOON))
        edge = list(dict.fromkeys(after))
    return found


def _recorded(one: Session) -> list[SessionStatus]:
    return [x for x in ACKNOWLEDGEABLE if judge_acknowledgement(one, x) is Verdict.RECORDED]


def test_whatever_happens_a_session_is_sound() -> None:
    reached = set()
    for one in walks():
        reached.add((one.direction, one.status))
        assert one.status in STATUSES[one.direction]
        assert (one.status == "applied") == (one.applied_at is not None)
        assert 0 <= one.try_count <= TRY_COUNT_MAX
        assert (one.ended_at is None) or one.status in (
            *("applied", "canceled"),
            *distribution.FAILURES,
        )
        wrong_way = UPLOAD_TOLD if one.direction is Direction.DOWNLOAD else DOWNLOAD_TOLD
        assert not wrong_way & set(_recorded(one))
        if one.status == "applied":
            assert _recorded(one) == []
    # What is made in one transaction, or ends as it is made, is not on these ways.
    made_at_once = {SessionStatus.STARTED, SessionStatus.CREATE_FAILED, SessionStatus.NO_DATA}
    everything = {
        (direction, status) for direction, of in STATUSES.items() for status in of - made_at_once
    }
    assert reached == everything


def test_every_status_belongs_to_a_direction() -> None:
    assert set(itertools.chain(*STATUSES.values())) == set(SessionStatus)


def test_a_package_is_canonical_json_with_its_checksum() -> None:
    store = {"name": "Malm\u00f6", "store_id": "S001"}
    package = package_of(GLOBAL_CONFIGURATION, "S001", 7, {"store": store, "a": [1, {"c": 1}]})
    assert (
        package.data
        == (
            '{"a":[1,{"c":1}],"format_version":1,"job_id":"1110","revision":7,'
            '"store":{"name":"Malm\u00f6","store_id":"S001"},"store_id":"S001"}'
        ).encode()
    )
    assert package.checksum_sha256 == hashlib.sha256(package.data).digest()


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans(), max_size=5))
def test_the_same_content_makes_the_same_bytes_in_whatever_order(
    values: dict[str, object],
) -> None:
    one = package_of(GLOBAL_CONFIGURATION, "S001", 1, {"parameters": values})
    other = dict(reversed(values.items()))
    assert package_of(GLOBAL_CONFIGURATION, "S001", 1, {"parameters": other}) == one
    assert json.loads(one.data)["parameters"] == values


def test_a_package_that_is_too_large_cannot_be_made() -> None:
    package = package_of(GLOBAL_CONFIGURATION, "S001", 1, {"text": "x" * PACKAGE_BYTES_MAX})
    one = opened(
        uuid.UUID(int=1),
        (uuid.UUID(int=2), "D1"),
        "S001",
        GLOBAL_CONFIGURATION,
        package,
        applied_last=None,
        is_wanted_anyway=True,
        rerun_for=None,
        now=NOON,
    )
    assert (one.status, one.ended_at, one.package_bytes) == ("create_failed", NOON, 0)
    assert one.message == f"The package would have more than {PACKAGE_BYTES_MAX} bytes."
    assert package_of(GLOBAL_CONFIGURATION, "S001", 1, {"text": "x" * 1000}).data


def test_what_the_store_applied_last_is_no_data_unless_something_else_may_be_underway() -> None:
    for wanted_anyway, status in ((False, "no_data"), (True, "available")):
        one = opened(
            uuid.UUID(int=1),
            (uuid.UUID(int=2), "D1"),
            "S001",
            GLOBAL_CONFIGURATION,
            PACKAGE,
            applied_last=PACKAGE.checksum_sha256,
            is_wanted_anyway=wanted_anyway,
            rerun_for=None,
            now=NOON,
        )
        assert (one.status, one.ended_at is None) == (status, wanted_anyway)
    assert not may_be_underway(session(), PACKAGE)
    assert not may_be_underway(fetch(session()), PACKAGE)
    other = replace(session(), checksum_sha256=bytes(32))
    assert not may_be_underway(other, PACKAGE)
    assert may_be_underway(fetch(other), PACKAGE)


def test_jobs_are_known_and_named_once() -> None:
    assert faults_of_jobs([job.job_id for job in JOBS]) == {}
    assert faults_of_jobs(["1110", "9999", "1110"]) == {
        1: "must be one of 1110, 1070, 1090, P-0001",
        2: "is in the list already",
    }


@given(
    st.integers(60, 3_000_000),
    st.timedeltas(timedelta(0), timedelta(days=400)),
)
def test_the_next_run_of_an_interval_is_after_now_and_in_its_rhythm(
    every_seconds: int, slept: timedelta
) -> None:
    next_at = next_run_at(every_seconds, None, NOON, NOON + slept)
    assert next_at is not None
    interval = timedelta(seconds=every_seconds)
    assert NOON + slept < next_at <= NOON + slept + interval
    assert (next_at - NOON) % interval == timedelta(0)


@pytest.mark.parametrize(
    ("cron", "now", "expected"),
    [
        ("0 2 * * *", "2026-11-20T01:59:59.999999", "2026-11-20T02:00"),
        ("0 2 * * *", "2026-11-20T02:00", "2026-11-21T02:00"),
        ("0 2 * * *", "2026-11-20T02:00:00.000001", "2026-11-21T02:00"),
        ("*/15 6-22 * * MON-FRI", "2026-11-20T22:46", "2026-11-23T06:00"),
        ("0 0 29 2 *", "2026-11-20T12:00", "2028-02-29T00:00"),
        ("0 0 L * *", "2026-11-20T12:00", "2026-11-30T00:00"),
    ],
)
def test_the_next_run_of_a_cron_expression_is_strictly_after_now_in_utc(
    cron: str, now: str, expected: str
) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert fault_of_cron(cron, at) is None
    found = next_run_at(None, cron, at - timedelta(days=30), at)
    assert found == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_a_schedule_without_recurrence_has_no_next_run() -> None:
    assert next_run_at(None, None, None, NOON) is None


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "* * * *",
        "* * * * * *",
        "@daily",
        "60 * * * *",
        "* 24 * * *",
        "0 0 0 * *",
        "0 0 31 2 *",
        "0 0 30 2 *",
        "a b c d e",
        "*/0 * * * *",
        "5-1 * * * *",
        "\u0661 * * * *",
        "0 0 */32 2 MON#5",
        f"{','.join(['1'] * 60)} * * * *",
    ],
)
def test_a_cron_expression_that_is_none_or_never_comes_is_refused(cron: str) -> None:
    assert fault_of_cron(cron, NOON)
