"""What a register's words and its silence mean, at the boundaries and for whatever may come."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hq_service.domain import locking
from hq_service.domain.connection import (
    ConnectionState,
    Heartbeat,
    RegisterPresence,
    Report,
    SyncStatus,
    ToldState,
    faults,
    is_acknowledged,
    is_reset_open,
    state_of,
)
from hq_service.domain.locking import LockState
from hq_service.domain.parameters import Parameters
from tests.unit.builders import NOW, a_lock

LEASE_SECONDS = 900
LEASE = timedelta(seconds=LEASE_SECONDS)
TICK = timedelta(microseconds=1)
SKEW_SECONDS = 60


def a_report(**changes: Any) -> Report:
    told: dict[str, Any] = {
        "reported_at": NOW,
        "sent_at": NOW,
        "connection_state": "online",
        "connection_state_since": NOW - timedelta(hours=3),
        "pending_count": 0,
        "pending_amounts_minor": {},
        "oldest_pending_at": None,
        "last_sync_at": None,
        "last_sync_status": "none",
        "last_sync_message": None,
        "journal_tips": {},
        "offline_profile_version": None,
    }
    return Report(**{**told, **changes})


def a_register(**changes: Any) -> RegisterPresence:
    known: dict[str, Any] = {
        "store_id": "S001",
        "terminal_id": "T01",
        "name": "register",
        "supports_offline": True,
        "created_at": NOW - timedelta(days=400),
        "retired_at": None,
        "last_seen_at": NOW,
        "acknowledged_revision": None,
        "reported_revision": None,
        "report": None,
    }
    return RegisterPresence(**{**known, **changes})


def a_heartbeat(**changes: Any) -> Heartbeat:
    told: dict[str, Any] = {
        "sent_at": NOW,
        "connection_state": ToldState.ONLINE,
        "pending_count": 0,
        "pending_amounts_minor": {},
        "oldest_pending_at": None,
        "last_sync_at": None,
        "last_sync_status": SyncStatus.NONE,
        "last_sync_message": None,
        "journal_tips": {},
    }
    return Heartbeat(**{**told, **changes})


# --- states ---------------------------------------------------------------------------------------


def test_a_register_is_what_it_told_while_its_lease_lasts() -> None:
    for told in ToldState:
        report = a_report(connection_state=told)
        state = state_of(a_register(report=report), LEASE_SECONDS, NOW)
        assert state == (ConnectionState(told), report.connection_state_since)


def test_a_register_is_presumed_offline_from_the_moment_after_its_lease_on() -> None:
    register = a_register(report=a_report())
    ends_at = NOW + LEASE
    assert state_of(register, LEASE_SECONDS, ends_at)[0] is ConnectionState.ONLINE
    presumed = (ConnectionState.PRESUMED_OFFLINE, ends_at)
    assert state_of(register, LEASE_SECONDS, ends_at + TICK) == presumed
    assert state_of(register, LEASE_SECONDS, ends_at + timedelta(days=9)) == presumed


def test_silence_says_more_than_an_old_word() -> None:
    told = a_register(report=a_report(connection_state="offline"))
    assert state_of(told, LEASE_SECONDS, NOW + LEASE)[0] is ConnectionState.OFFLINE
    assert state_of(told, LEASE_SECONDS, NOW + LEASE + TICK)[0] is ConnectionState.PRESUMED_OFFLINE


def test_a_till_that_sells_and_sends_no_heartbeats_is_online_nobody_knows_since_when() -> None:
    assert state_of(a_register(), LEASE_SECONDS, NOW) == (ConnectionState.ONLINE, None)


def test_a_register_that_was_never_seen_is_so_since_it_was_created() -> None:
    register = a_register(last_seen_at=None)
    never = (ConnectionState.NEVER_SEEN, register.created_at)
    assert state_of(register, LEASE_SECONDS, NOW) == never


def test_a_retired_register_is_retired_whatever_it_told() -> None:
    gone_at = NOW - timedelta(hours=1)
    for last_seen_at in (None, NOW, NOW - LEASE - TICK):
        register = a_register(retired_at=gone_at, last_seen_at=last_seen_at, report=a_report())
        assert state_of(register, LEASE_SECONDS, NOW) == (ConnectionState.RETIRED, gone_at)


@given(
    silent=st.timedeltas(timedelta(0), timedelta(days=3)),
    lease_seconds=st.integers(30, 86_400),
    granted=st.booleans(),
    locked_after=st.timedeltas(timedelta(days=-1), timedelta(days=3)),
)
def test_a_register_is_presumed_offline_exactly_when_its_locks_are_suspect_or_lapsed(
    silent: timedelta, lease_seconds: int, granted: bool, locked_after: timedelta
) -> None:
    # A lock is a sign of life of its own: not each one renews what is kept of the terminal.
    seen_at = NOW - silent
    lock = a_lock(granted=granted, locked_at=min(seen_at + locked_after, NOW))
    parameters = Parameters(lease_seconds=lease_seconds)
    of_lock = locking.state_of(lock, seen_at, parameters, NOW)
    of_register, since = state_of(
        a_register(last_seen_at=seen_at, report=a_report(), newest_locked_at=lock.locked_at),
        lease_seconds,
        NOW,
    )
    is_presumed = of_register is ConnectionState.PRESUMED_OFFLINE
    assert is_presumed == (of_lock in (LockState.SUSPECT, LockState.LAPSED))
    if is_presumed:
        assert since == locking.lease_ends_at(lock, seen_at, parameters)


instants = st.timedeltas(timedelta(days=-9), timedelta(days=9)).map(lambda apart: NOW + apart)
registers = st.builds(
    a_register,
    last_seen_at=st.none() | instants,
    retired_at=st.none() | instants,
    report=st.none()
    | st.builds(a_report, connection_state=st.sampled_from([*ToldState]), reported_at=instants),
)


@given(registers, st.integers(30, 86_400), instants)
def test_every_register_is_in_exactly_one_state_and_none_is_online_by_its_silence(
    register: RegisterPresence, lease_seconds: int, now: datetime
) -> None:
    state, _ = state_of(register, lease_seconds, now)
    assert (state is ConnectionState.RETIRED) == (register.retired_at is not None)
    if state in (ConnectionState.ONLINE, ConnectionState.OFFLINE):
        assert register.last_seen_at is not None
        assert now - register.last_seen_at <= timedelta(seconds=lease_seconds)


def test_a_report_speaks_up_to_whichever_clock_was_earlier() -> None:
    assert a_report(sent_at=NOW - TICK).tells_until == NOW - TICK
    assert a_report(sent_at=NOW + LEASE).tells_until == NOW


# --- what cannot be -------------------------------------------------------------------------------


def test_a_quiet_and_a_busy_heartbeat_have_no_fault() -> None:
    busy = a_heartbeat(
        pending_count=1,
        pending_amounts_minor={"SEK": 5},
        oldest_pending_at=NOW,
        last_sync_at=NOW,
        last_sync_status=SyncStatus.FAILED,
        last_sync_message="timed out",
    )
    for one in (a_heartbeat(), busy, a_heartbeat(pending_amounts_minor={"SEK": 0})):
        assert faults(one, NOW, SKEW_SECONDS) == {}


@pytest.mark.parametrize("pointer", ["/oldest_pending_at", "/last_sync/at"])
def test_an_instant_may_be_ahead_of_hq_as_far_as_clocks_may_differ(pointer: str) -> None:
    ahead = NOW + timedelta(seconds=SKEW_SECONDS)
    instants = {"sent_at": ahead, "oldest_pending_at": ahead, "last_sync_at": ahead}
    busy = a_heartbeat(pending_count=1, last_sync_status=SyncStatus.SUCCEEDED, **instants)
    assert faults(busy, NOW, SKEW_SECONDS) == {}
    member = {"/oldest_pending_at": "oldest_pending_at", "/last_sync/at": "last_sync_at"}[pointer]
    beyond = replace(busy, **{member: ahead + TICK, "sent_at": ahead + TICK})
    assert sorted(faults(beyond, NOW, SKEW_SECONDS)) == sorted([pointer, "/sent_at"])


def test_a_heartbeat_is_not_sent_later_than_clocks_may_differ() -> None:
    ahead = NOW + timedelta(seconds=SKEW_SECONDS)
    assert faults(a_heartbeat(sent_at=ahead), NOW, SKEW_SECONDS) == {}
    assert list(faults(a_heartbeat(sent_at=ahead + TICK), NOW, SKEW_SECONDS)) == ["/sent_at"]


def test_nothing_a_till_tells_of_is_later_than_its_own_heartbeat() -> None:
    sent_at = NOW - timedelta(hours=1)
    busy = a_heartbeat(sent_at=sent_at, pending_count=1, oldest_pending_at=sent_at + TICK)
    assert list(faults(busy, NOW, SKEW_SECONDS)) == ["/oldest_pending_at"]


# --- a reported acknowledgement -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reported", "applied", "known", "served", "in_store", "is_taken"),
    [
        (None, 5, None, False, False, False),
        (0, 0, None, False, True, True),
        (5, 5, None, False, True, True),
        (6, 5, None, True, True, False),
        (5, 5, 5, True, True, False),
        (4, 5, 5, True, True, False),
        (5, 9, 4, False, True, True),
        (5, 9, 4, False, False, False),  # saved and passed over
        (5, 9, None, False, True, False),  # perhaps a new device
        (5, 9, None, True, True, True),
    ],
)
def test_a_reported_revision_counts_if_the_store_had_it_and_it_is_news(
    reported: int | None,
    applied: int,
    known: int | None,
    served: bool,
    in_store: bool,
    is_taken: bool,
) -> None:
    found = is_acknowledged(
        reported,
        applied=applied,
        known=known,
        was_served_to_it=served,
        was_applied_in_store=in_store,
    )
    assert found is is_taken


def test_a_cache_reset_waits_for_a_fetch_after_it() -> None:
    assert not is_reset_open(None, None)
    assert is_reset_open(NOW, None)
    assert is_reset_open(NOW, NOW)
    assert not is_reset_open(NOW, NOW + TICK)
