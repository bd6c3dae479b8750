"""Who gets a lock, and what state a live one is in."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hq_service.domain.locking import (
    Acquisition,
    LockRequest,
    LockState,
    acquire,
    grant_of,
    lease_ends_at,
    state_of,
)
from hq_service.domain.model import Instrument, LockEnd, Terminal
from hq_service.domain.parameters import Parameters
from tests.unit.builders import NOW, YES, a_card, a_key, a_lock, a_memo, a_uuid

TILL = Terminal("S001", "T01", supports_offline=True)
LONG_AGO = NOW - timedelta(hours=1)
OTHERS = a_key("X9", terminal_id="T02")


def acquired(
    instrument: Instrument, request: LockRequest | None = None, **changes: Any
) -> Acquisition:
    given: dict[str, Any] = {
        "is_voided": False,
        "is_concluded": False,
        "is_holder_voided": False,
        "holder_last_seen_at": None,
        "terminal": TILL,
        "granting": YES,
        "parameters": YES,
        "lock_id": a_uuid(),
        "now": NOW,
    }
    wish = request or LockRequest(a_key(), "redeem")
    return acquire(wish, instrument, **{**given, **changes})


def test_a_free_card_is_locked_for_its_whole_balance_with_a_grant() -> None:
    got = acquired(a_card(300))
    assert got.is_new
    assert got.lock is not None
    assert (got.lock.amount_minor, got.lock.key) == (300, a_key())
    assert got.lock.grant_until == NOW + timedelta(hours=72)
    assert got.lock.grant_revision == YES.revision


@pytest.mark.parametrize(
    ("terminal", "granting"),
    [
        (TILL, None),
        (TILL, Parameters(revision=3)),
        (replace(TILL, supports_offline=False), YES),
    ],
)
def test_no_grant_without_an_acknowledged_yes_and_offline_support(
    terminal: Terminal, granting: Parameters | None
) -> None:
    got = acquired(a_card(), terminal=terminal, granting=granting)
    assert got.lock is not None
    assert got.lock.grant_until is None
    assert grant_of(got.lock, a_card()) is None


def test_each_kind_has_a_parameter_of_its_own() -> None:
    only_cards = Parameters(1, allow_concluding_gift_card_transactions_offline=True)
    card, memo = acquired(a_card(), granting=only_cards), acquired(a_memo(), granting=only_cards)
    assert card.lock is not None
    assert memo.lock is not None
    assert card.lock.grant_until is not None
    assert memo.lock.grant_until is None


def test_the_same_key_again_gets_the_same_lock_and_the_same_grant() -> None:
    mine = a_lock(granted=True)
    got = acquired(a_card(lock=mine, status="blocked"), is_concluded=False)
    assert got.lock is mine
    assert not got.is_new
    assert grant_of(mine, a_card()) == grant_of(mine, a_card())


@pytest.mark.parametrize(
    ("instrument", "changes", "refusal"),
    [
        (a_card(lock=a_lock()), {"is_voided": True}, "voided"),
        (a_card(), {"is_concluded": True}, "already_concluded"),
        (a_card(lock=a_lock(a_key("X1", 2))), {}, "instrument_already_in_transaction"),
        (a_card(lock=a_lock(OTHERS)), {}, "instrument_locked"),
        (a_card(0, status="pending"), {}, "instrument_not_active"),
        (a_card(status="blocked"), {}, "instrument_blocked"),
        (a_card(status="expired"), {}, "instrument_expired"),
        (a_card(0, status="closed"), {}, "instrument_closed"),
        (a_memo(0, status="applied"), {}, "instrument_applied"),
    ],
)
def test_a_refusal_says_which_rule(
    instrument: Instrument, changes: dict[str, Any], refusal: str
) -> None:
    got = acquired(instrument, **changes)
    assert got.refusal == refusal
    assert got.lock is None


def test_a_lock_for_issue_wants_a_pending_instrument() -> None:
    wish = LockRequest(a_key(), "issue", 500)
    pending = acquired(a_card(0, status="pending"), wish)
    assert pending.lock is not None
    assert pending.lock.amount_minor == 500
    assert acquired(a_card(), wish).refusal == "instrument_already_active"


def test_a_silent_holder_without_a_grant_gives_way() -> None:
    theirs = a_lock(OTHERS, locked_at=LONG_AGO)
    got = acquired(a_card(lock=theirs))
    assert got.lock is not None
    assert (got.displaced, got.displaced_end) == (theirs, LockEnd.LAPSED)


def test_a_silent_holder_with_a_grant_is_presumed_offline_and_keeps_it() -> None:
    got = acquired(a_card(lock=a_lock(OTHERS, locked_at=LONG_AGO, granted=True)))
    assert got.refusal == "instrument_locked"
    assert got.holder_state is LockState.SUSPECT


def test_a_heartbeat_of_the_holder_renews_every_lock_it_holds() -> None:
    theirs = a_lock(OTHERS, locked_at=LONG_AGO)
    seen = NOW - timedelta(seconds=10)
    assert acquired(a_card(lock=theirs), holder_last_seen_at=seen).refusal == "instrument_locked"
    assert lease_ends_at(theirs, seen, YES) == seen + timedelta(seconds=YES.lease_seconds)


def test_a_grant_that_ran_out_is_kept_or_freed_as_the_parameter_says() -> None:
    theirs = a_lock(OTHERS, locked_at=NOW - timedelta(days=30), granted=True)
    assert acquired(a_card(lock=theirs)).refusal == "instrument_locked"
    freeing = replace(YES, on_horizon="release")
    got = acquired(a_card(lock=theirs), parameters=freeing)
    assert got.displaced_end is LockEnd.HORIZON


def test_the_lease_is_inclusive_and_the_state_follows_the_clock() -> None:
    lock = a_lock(locked_at=NOW)
    end = NOW + timedelta(seconds=YES.lease_seconds)
    assert state_of(lock, None, YES, end) is LockState.ACTIVE
    assert state_of(lock, None, YES, end + timedelta(microseconds=1)) is LockState.LAPSED
