"""The decision table, row by row; the numbers are those of docs/settlement.md."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from hq_service.domain.judgement import (
    GoneLock,
    Judgement,
    Known,
    LockEffect,
    OnlineRefusal,
    judge,
    refusal_online,
)
from hq_service.domain.model import Instrument
from hq_service.domain.outcomes import Code, LineResult, Outcome
from hq_service.domain.parameters import Parameters
from tests.unit.builders import (
    CARD_ID,
    KEYRING,
    NOW,
    YES,
    a_card,
    a_context,
    a_grant,
    a_key,
    a_line,
    a_lock,
    a_memo,
    a_uuid,
)

GRANTED = a_lock(granted=True)
VOIDED = {a_key(): LineResult(Outcome.APPLIED, (Code.VOIDED,))}


def judged(line=None, instrument: Instrument | None = None, known=None, **context) -> Judgement:
    return judge(line or a_line(), instrument, known or Known(), a_context(**context))


def test_row_1_a_line_of_a_terminal_that_the_sender_may_not_speak_for_is_quarantined() -> None:
    judgement = judged(a_line(a_key(terminal_id="T09")), a_card())
    assert judgement.outcome is Outcome.QUARANTINED
    assert judgement.codes == (Code.FOREIGN_TERMINAL,)
    assert not judgement.posts


def test_row_5_a_release_posts_nothing_and_releases() -> None:
    judgement = judged(a_line(operation="release", amount_minor=0), a_card(lock=a_lock()))
    assert (judgement.outcome, judgement.posts) == (Outcome.APPLIED, False)
    assert judgement.lock_effect is LockEffect.RELEASED


@pytest.mark.parametrize(
    ("status", "effect"), [("training", LockEffect.NONE), ("suspended", LockEffect.KEPT)]
)
def test_row_5_training_and_suspended_sales_never_move_money(
    status: str, effect: LockEffect
) -> None:
    judgement = judged(a_line(status=status), a_card(lock=a_lock()))
    assert (judgement.outcome, judgement.posts) == (Outcome.APPLIED, False)
    assert judgement.lock_effect is effect


def known_as(outcome: Outcome, line) -> Known:
    return Known(results={line.key: {line.content: LineResult(outcome, funded_minor=100)}})


@pytest.mark.parametrize("outcome", [Outcome.APPLIED, Outcome.HELD])
def test_row_2_a_known_key_with_the_same_content_is_a_duplicate(outcome: Outcome) -> None:
    line = a_line()
    judgement = judged(line, a_card(0), known_as(outcome, line))
    assert judgement.outcome is Outcome.DUPLICATE
    assert judgement.original is not None
    assert judgement.original.outcome == outcome
    assert judgement.lock_effect is LockEffect.RELEASED


@pytest.mark.parametrize(
    "other",
    [
        a_line(amount_minor=99),
        a_line(currency="EUR"),
        a_line(instrument_id=a_uuid()),
        a_line(operation="load"),
        a_line(original=a_key("X0")),
    ],
)
def test_row_3_a_known_key_with_other_content_is_held(other) -> None:
    judgement = judged(other, a_card(lock=a_lock()), known_as(Outcome.APPLIED, a_line()))
    assert judgement.outcome is Outcome.HELD
    assert judgement.codes == (Code.BUSINESS_KEY_REUSED,)
    assert judgement.lock_effect is LockEffect.NONE


@pytest.mark.parametrize(
    "repeat",
    [
        a_line(lock_id=a_uuid()),
        a_line(sequence=77, journal_id="other"),
        a_line(parameter_revision=9),
        a_line(grant="g1.other"),
        a_line(concluded_at=NOW),
    ],
)
def test_row_2_content_is_money_and_nothing_else(repeat) -> None:
    assert judged(repeat, a_card(), known_as(Outcome.APPLIED, a_line())).outcome == "duplicate"


def test_row_4_a_line_that_was_voided_earlier_has_no_effect() -> None:
    judgement = judged(instrument=a_card(lock=a_lock()), known=Known(voided=VOIDED))
    assert (judgement.outcome, judgement.codes) == (Outcome.APPLIED, (Code.VOIDED,))
    assert not judgement.posts
    assert judgement.lock_effect is LockEffect.RELEASED


def test_row_6_a_line_on_an_unknown_instrument_is_held() -> None:
    judgement = judged(instrument=None)
    assert (judgement.outcome, judgement.codes) == (Outcome.HELD, (Code.UNKNOWN_INSTRUMENT,))


def test_row_7_a_line_in_another_currency_is_held_and_keeps_its_lock() -> None:
    judgement = judged(a_line(currency="EUR"), a_card(lock=a_lock()))
    assert (judgement.outcome, judgement.codes) == (Outcome.HELD, (Code.CURRENCY_MISMATCH,))
    assert judgement.lock_effect is LockEffect.KEPT


def test_row_10_a_lock_spent_by_another_key_funds_no_second_line() -> None:
    lock = a_lock()
    known = Known(consumed_locks={(CARD_ID, lock.lock_id): a_key("X0")})
    judgement = judged(a_line(lock_id=lock.lock_id), a_card(), known)
    assert (judgement.outcome, judgement.codes) == (Outcome.HELD, (Code.LOCK_ALREADY_USED,))


def test_row_10_counts_a_lock_that_only_the_grant_names() -> None:
    grant = a_grant()
    known = Known(consumed_locks={(CARD_ID, grant.lock_id): a_key("X0")})
    judgement = judged(a_line(grant=KEYRING.sign(grant)), a_card(), known)
    assert judgement.codes == (Code.LOCK_ALREADY_USED,)


def test_row_8_a_line_under_its_own_lock_is_posted_in_full() -> None:
    judgement = judged(instrument=a_card(lock=GRANTED))
    assert (judgement.outcome, judgement.codes) == (Outcome.APPLIED, ())
    assert (judgement.funded_minor, judgement.shortfall_minor) == (100, 0)
    assert judgement.lock_effect is LockEffect.CONSUMED
    assert judgement.lock_id == GRANTED.lock_id


def test_row_8_a_lapsed_lock_that_nobody_took_still_works_for_its_holder() -> None:
    old = a_lock(locked_at=NOW - timedelta(days=30))
    assert judged(instrument=a_card(lock=old)).lock_effect is LockEffect.CONSUMED


def test_row_8_another_transactions_lock_is_not_its_own() -> None:
    for key in (a_key("X2"), a_key(terminal_id="T02"), a_key(store_id="S002")):
        judgement = judged(instrument=a_card(lock=a_lock(key)))
        assert Code.NO_LOCK in judgement.codes
        assert judgement.lock_effect is LockEffect.NONE


def test_row_9_above_the_lock_the_rest_is_shortfall() -> None:
    judgement = judged(a_line(amount_minor=150), a_card(100, lock=GRANTED))
    assert judgement.codes == (Code.OVER_GRANT,)
    assert (judgement.funded_minor, judgement.shortfall_minor) == (100, 50)
    assert judgement.lock_effect is LockEffect.CONSUMED


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("released", Code.STALE_LOCK),
        ("lapsed", Code.STALE_LOCK),
        ("horizon", Code.STALE_LOCK),
        ("broken", Code.LOCK_BROKEN),
    ],
)
def test_row_11_a_gone_lock_is_funded_by_what_is_there(end: str, code: Code) -> None:
    gone = GoneLock(a_uuid(), NOW, end, NOW + timedelta(hours=1), 1, "redeem", 100)
    known = Known(gone_locks={(a_card().instrument_id, "S001", "T01", "X1"): [gone]})
    judgement = judged(instrument=a_card(70), known=known)
    assert judgement.codes == (code,)
    assert (judgement.funded_minor, judgement.shortfall_minor) == (70, 30)
    assert judgement.lock_effect is LockEffect.NONE
    assert judgement.lock_id == gone.lock_id


def test_row_11_a_gone_lock_that_another_line_spent_is_no_lock_any_more() -> None:
    gone = GoneLock(a_uuid(), NOW, "released", None, None, "redeem", 100)
    known = Known(
        gone_locks={(a_card().instrument_id, "S001", "T01", "X1"): [gone]},
        consumed_locks={(CARD_ID, gone.lock_id): a_key("X1", 2)},
    )
    assert Code.NO_LOCK in judged(instrument=a_card(), known=known).codes


def test_row_11_a_lock_past_its_horizon_is_gone_when_the_parameter_frees_it() -> None:
    old = a_lock(granted=True, locked_at=NOW - timedelta(days=30))
    sticky = judged(instrument=a_card(lock=old))
    assert sticky.lock_effect is LockEffect.CONSUMED
    freed = judged(instrument=a_card(lock=old), parameters=replace(YES, on_horizon="release"))
    assert Code.STALE_LOCK in freed.codes
    assert freed.lock_effect is LockEffect.NONE


def test_row_12_a_valid_grant_proves_a_lock_that_hq_does_not_know() -> None:
    grant = a_grant()
    judgement = judged(a_line(grant=KEYRING.sign(grant)), a_card(100))
    assert judgement.codes == (Code.LOCK_RECONSTRUCTED,)
    assert judgement.funded_minor == 100
    assert judgement.lock_id == grant.lock_id


def test_row_13_without_any_lock_the_rest_is_shortfall() -> None:
    judgement = judged(a_line(amount_minor=150), a_card(100))
    assert Code.NO_LOCK in judgement.codes
    assert (judgement.funded_minor, judgement.shortfall_minor) == (100, 50)


@pytest.mark.parametrize(
    "text",
    [
        KEYRING.sign(a_grant(a_key(terminal_id="T02"))),
        KEYRING.sign(a_grant(instrument_id=a_uuid())),
        KEYRING.sign(a_grant(a_key("X2"))),
        KEYRING.sign(a_grant())[:-1] + "A",
        "",
    ],
)
def test_row_13_a_grant_that_fails_its_check_counts_as_absent_and_is_told(text: str) -> None:
    judgement = judged(a_line(grant=text), a_card())
    assert judgement.codes[:2] == (Code.NO_LOCK, Code.GRANT_INVALID)


def test_row_14_what_another_grant_reserves_is_not_taken() -> None:
    theirs = a_lock(a_key("X9", terminal_id="T02"), amount_minor=60, granted=True)
    judgement = judged(instrument=a_card(100, lock=theirs))
    assert Code.CONTENDED in judgement.codes
    assert (judgement.funded_minor, judgement.shortfall_minor) == (40, 60)


def test_row_14_a_lock_without_a_grant_reserves_nothing() -> None:
    theirs = a_lock(a_key("X9", terminal_id="T02"), amount_minor=60)
    judgement = judged(instrument=a_card(100, lock=theirs))
    assert Code.CONTENDED not in judgement.codes
    assert judgement.funded_minor == 100


@pytest.mark.parametrize(
    ("status", "code", "funded_minor"),
    [
        ("blocked", Code.INSTRUMENT_BLOCKED, 100),
        ("expired", Code.INSTRUMENT_EXPIRED, 100),
        ("closed", Code.INSTRUMENT_CLOSED, 0),
        ("applied", Code.INSTRUMENT_APPLIED, 0),
    ],
)
def test_row_15_the_instruments_status_is_told(status: str, code: Code, funded_minor: int) -> None:
    judgement = judged(instrument=a_memo(100, status=status, lock=GRANTED))
    assert judgement.codes == (code,)
    assert judgement.funded_minor == funded_minor
    assert judgement.lock_effect is LockEffect.CONSUMED


@pytest.mark.parametrize("status", ["expired", "closed", "applied"])
def test_credits_to_an_instrument_that_takes_none_are_held(status: str) -> None:
    judgement = judged(a_line(operation="load"), a_memo(0, status=status))
    assert judgement.outcome is Outcome.HELD
    assert judgement.codes == (f"instrument_{status}",)


def test_credits_post_in_full_and_never_fall_short() -> None:
    judgement = judged(a_line(operation="load", amount_minor=500), a_card(0))
    assert (judgement.funded_minor, judgement.shortfall_minor) == (500, 0)


def test_row_16_without_a_grant_concluding_offline_is_not_permitted() -> None:
    assert judged(instrument=a_card(lock=a_lock())).codes == (Code.OFFLINE_NOT_PERMITTED,)


def test_row_16_permission_goes_by_the_grants_revision() -> None:
    no_longer = Parameters(revision=2)
    judgement = judged(
        instrument=a_card(lock=GRANTED),
        parameters=no_longer,
        parameters_at={1: YES, 2: no_longer},
    )
    assert judgement.codes == ()


def test_row_16_a_newer_revision_that_the_terminal_was_served_counts() -> None:
    at = {1: YES, 2: Parameters(revision=2)}
    line = a_line(parameter_revision=2)
    served = judged(
        line, a_card(lock=GRANTED), parameters_at=at, served_revisions=frozenset({1, 2})
    )
    assert served.codes == (Code.OFFLINE_NOT_PERMITTED,)
    never = judged(line, a_card(lock=GRANTED), parameters_at=at)
    assert never.codes == ()


def test_row_16_age_and_clock_are_told_and_change_nothing() -> None:
    late = judged(a_line(concluded_at=NOW - timedelta(days=40)), a_card(lock=GRANTED))
    assert late.codes == (Code.TOO_OLD,)
    assert late.funded_minor == 100
    past_grant = judged(
        a_line(concluded_at=NOW - timedelta(hours=1)),
        a_card(lock=a_lock(granted=True, locked_at=NOW - timedelta(hours=80))),
    )
    assert past_grant.codes == (Code.TOO_OLD,)
    ahead = judged(a_line(concluded_at=NOW + timedelta(hours=1)), a_card(lock=GRANTED))
    assert ahead.codes == (Code.CLOCK_SKEW,)


def refused(line, instrument: Instrument | None, known=None) -> OnlineRefusal | None:
    judgement = judge(line, instrument, known or Known(), a_context(is_offline=False))
    return refusal_online(judgement, line, instrument)


def test_online_only_the_own_lock_in_full_succeeds() -> None:
    lock = a_lock()
    named = a_line(lock_id=lock.lock_id)
    assert refused(named, a_card(lock=lock)) is None
    assert refused(a_line(lock_id=a_uuid()), a_card(lock=lock)) is OnlineRefusal.LOCK_LOST
    assert refused(named, a_card()) is OnlineRefusal.LOCK_LOST
    loading = a_lock(purpose="load")
    assert refused(a_line(lock_id=loading.lock_id), a_card(lock=loading)) == "lock_lost"


@pytest.mark.parametrize(
    ("line", "instrument", "known", "refusal"),
    [
        (a_line(amount_minor=101), a_card(100, lock=GRANTED), None, "insufficient_balance"),
        (a_line(), a_card(40, lock=GRANTED), None, "insufficient_balance"),
        (a_line(), a_card(lock=GRANTED), Known(voided=VOIDED), "voided"),
        (a_line(), None, None, "instrument_not_found"),
        (a_line(currency="EUR"), a_card(lock=GRANTED), None, "currency_mismatch"),
        (a_line(), a_card(status="blocked", lock=GRANTED), None, "instrument_blocked"),
        (a_line(), a_card(status="expired", lock=GRANTED), None, "instrument_expired"),
        (a_line(), a_card(0, status="closed", lock=GRANTED), None, "instrument_closed"),
        (a_line(), a_memo(0, status="applied", lock=GRANTED), None, "instrument_applied"),
        (a_line(), a_card(), known_as(Outcome.HELD, a_line()), "held"),
        (a_line(), a_card(), known_as(Outcome.APPLIED, a_line(a_key(), 7)), "business_key_reused"),
    ],
)
def test_online_every_doubt_is_a_refusal(line, instrument, known, refusal: str) -> None:
    assert refused(replace(line, lock_id=GRANTED.lock_id), instrument, known) == refusal


def test_online_a_repeat_is_told_its_first_answer() -> None:
    line = a_line(lock_id=a_uuid())
    assert refused(line, a_card(0), known_as(Outcome.APPLIED, line)) is None
