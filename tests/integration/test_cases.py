"""Each resolution of a case posts what it says, with reason and actor; stuck locks are broken."""

from __future__ import annotations

from typing import Any

import pytest

from hq_service.domain.money import AMOUNT_MINOR_MAX
from tests.acting import break_lock
from tests.support import Card, Hq, Till, a_name, sale_line


def a_shortfall(hq: Hq, balance_minor: int = 10, amount_minor: int = 50) -> tuple[Card, str]:
    """Return a card and the case of an offline sale that it did not cover."""
    till, card = hq.till(), hq.issue(balance_minor)
    line = till.offline_line(card, "X1", amount_minor)
    result = hq.post_batch(till.store_id, [line]).json["results"][0]
    assert result["shortfall_minor"] == amount_minor - balance_minor
    return card, result["case_id"]


def load(hq: Hq, card: Card, amount_minor: int) -> None:
    till, sale = hq.till(), a_name("L")
    lock = till.lock(card, sale, purpose="load", amount_minor=amount_minor)
    line = {
        "line": 1,
        "operation": "load",
        "instrument_id": card.instrument_id,
        "lock_id": lock.json["lock_id"],
        "amount_minor": amount_minor,
        "currency": card.currency,
    }
    assert till.conclude(sale, line).status_code == 201


def ledger(hq: Hq) -> list[Any]:
    """Return stores and currencies whose debits and credits differ: there must be none."""
    return hq.sql(
        "SELECT store_id, currency, sum(debit_minor), sum(credit_minor) FROM ledger_entries"
        " GROUP BY store_id, currency HAVING sum(debit_minor) <> sum(credit_minor)"
    )


def shortfall_of(hq: Hq, store_id: str) -> int:
    rows = hq.sql(
        "SELECT coalesce(sum(debit_minor - credit_minor), 0)::bigint FROM ledger_entries"
        " WHERE account = 'offline_shortfall' AND store_id = %s",
        store_id,
    )
    open_minor: int = rows[0][0]
    return open_minor


def test_a_shortfall_is_absorbed_by_the_store(hq: Hq) -> None:
    card, case_id = a_shortfall(hq)
    store_id = hq.case(case_id)["store_id"]
    assert shortfall_of(hq, store_id) == 40
    resolved = hq.resolve(case_id, "absorb")
    assert resolved.status_code == 200, resolved.json
    assert (resolved.json["resolution"], resolved.json["resolution_reason"]) == (
        "absorb",
        "looked into it",
    )
    assert resolved.json["resolved_by"].startswith("admin:")
    assert hq.balance(card) == 0
    assert shortfall_of(hq, store_id) == 0
    assert hq.resolve(case_id, "absorb").json["code"] == "case_resolved"
    assert not ledger(hq)


def test_a_shortfall_is_recovered_as_far_as_the_card_goes(hq: Hq) -> None:
    card, case_id = a_shortfall(hq)
    nothing = hq.resolve(case_id, "recover")
    assert (nothing.status_code, nothing.json["code"]) == (409, "resolution_not_possible")
    load(hq, card, 15)
    part = hq.resolve(case_id, "recover")
    assert (part.json["recovered_minor"], part.json["resolution"]) == (15, None)
    load(hq, card, 100)
    whole = hq.resolve(case_id, "recover")
    assert (whole.json["recovered_minor"], whole.json["resolution"]) == (40, "recover")
    assert hq.balance(card) == 75
    assert shortfall_of(hq, whole.json["store_id"]) == 0
    assert not ledger(hq)


def test_recovering_never_takes_what_a_live_grant_reserves(hq: Hq) -> None:
    card, case_id = a_shortfall(hq)
    load(hq, card, 100)
    till = hq.till()
    hq.allow_offline(till)
    assert till.lock(card, "X2").json["offline"]["allowed"]
    answer = hq.resolve(case_id, "recover")
    assert (answer.status_code, answer.json["code"]) == (423, "instrument_locked")
    assert hq.balance(card) == 100


def test_a_shortfall_of_a_memo_is_recovered_from_its_remainder(hq: Hq) -> None:
    till, memo = hq.till(), hq.issue(100, kind="credit_memo")
    lock = till.lock(memo, "X1")
    till.redeem(memo, "X1", 30, lock.json["lock_id"])
    late = till.offline_line(memo, "X2", 50)
    result = hq.post_batch(till.store_id, [late]).json["results"][0]
    assert result["shortfall_minor"] == 50
    resolved = hq.resolve(result["case_id"], "recover")
    assert resolved.json["resolution"] == "recover"
    assert hq.balance(memo) == 20


def test_a_posted_line_that_was_a_duplicate_is_reversed(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    result = hq.post_batch(till.store_id, [till.offline_line(card, "X1", 60)]).json["results"][0]
    resolved = hq.resolve(result["case_id"], "confirm_duplicate")
    assert resolved.json["resolution"] == "confirm_duplicate", resolved.json
    assert hq.balance(card) == 100
    assert not ledger(hq)


def test_a_reversed_shortfall_gives_back_what_was_recovered_too(hq: Hq) -> None:
    card, case_id = a_shortfall(hq)
    load(hq, card, 15)
    hq.resolve(case_id, "recover")
    assert hq.balance(card) == 0
    assert hq.resolve(case_id, "confirm_duplicate").status_code == 200
    assert hq.balance(card) == 25
    assert shortfall_of(hq, hq.case(case_id)["store_id"]) == 0
    assert not ledger(hq)


def a_held_line(hq: Hq, till: Till, card: Card) -> str:
    """Return the case of a line whose key was used before with another amount."""
    lock = till.lock(card, "X1")
    till.redeem(card, "X1", 20, lock.json["lock_id"])
    line = till.offline_line(card, "X1", 30)
    result = hq.post_batch(till.store_id, [line]).json["results"][0]
    assert result["codes"] == ["business_key_reused"]
    case_id: str = result["case_id"]
    return case_id


def test_a_held_line_is_applied_under_a_key_of_hqs_own(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    case_id = a_held_line(hq, till, card)
    applied = hq.resolve(case_id, "apply")
    assert applied.status_code == 200, applied.json
    assert applied.json["outcome"] == "applied"
    assert hq.balance(card) == 50
    rows = hq.sql(
        "SELECT store_id, entry, original_store_id FROM postings"
        " WHERE instrument_id = %s AND entry = 'resolution'",
        card.instrument_id,
    )
    assert rows == [("HQ", "resolution", till.store_id)]
    assert not ledger(hq)


def test_a_held_line_that_is_applied_and_falls_short_leaves_its_shortfall_open(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(30)
    case_id = a_held_line(hq, till, card)
    applied = hq.resolve(case_id, "apply")
    assert applied.json["shortfall_minor"] == 20
    assert applied.json["resolution"] is None
    assert hq.resolve(case_id, "absorb").json["resolution"] == "absorb"
    assert not ledger(hq)


@pytest.mark.parametrize("resolution", ["confirm_duplicate", "dismiss"])
def test_resolving_a_held_line_releases_its_own_lock(hq: Hq, resolution: str) -> None:
    till, card = hq.till(), hq.issue(100)
    till.lock(card, "X1")
    line = till.offline_line(card, "X1", 30, currency="EUR")
    result = hq.post_batch(till.store_id, [line]).json["results"][0]
    assert hq.till().lock(card, "X9").status_code == 423
    assert hq.resolve(result["case_id"], "apply").json["code"] == "resolution_not_possible"
    assert hq.resolve(result["case_id"], resolution).status_code == 200
    assert hq.till().lock(card, "X9").status_code == 201
    assert hq.balance(card) == 100


def test_a_shortfall_is_never_just_dismissed(hq: Hq) -> None:
    _, case_id = a_shortfall(hq)
    answer = hq.resolve(case_id, "dismiss")
    assert (answer.status_code, answer.json["code"]) == (409, "resolution_not_possible")
    assert answer.json["possible_resolutions"] == ["absorb", "recover", "confirm_duplicate"]


def test_the_shortfall_of_a_voided_load_is_absorbed_in_its_own_currency(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(10, currency="EUR")
    lock = till.lock(card, "L1", purpose="load", amount_minor=90)
    till.conclude("L1", sale_line(lock, 90, operation="load"))
    spending = till.lock(card, "X1")
    till.redeem(card, "X1", 80, spending.json["lock_id"])
    voided = till.void(card, "L1").json
    case = hq.case(voided["case_id"])
    assert (case["currency"], case["amount_minor"], case["shortfall_minor"]) == ("EUR", 90, 70)
    assert hq.resolve(voided["case_id"], "absorb").status_code == 200
    assert shortfall_of(hq, till.store_id) == 0
    assert not ledger(hq)


def test_open_cases_are_listed_page_by_page(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(1_000)
    lines = [till.offline_line(card, f"X{place}", 1) for place in range(5)]
    hq.post_batch(till.store_id, lines)
    first = hq.admin.get(f"/v1/admin/cases?store_id={till.store_id}&limit=3").json
    assert len(first["cases"]) == 3
    path = f"/v1/admin/cases?store_id={till.store_id}&limit=3&after={first['next_after']}"
    second = hq.admin.get(path).json
    assert len(second["cases"]) == 2
    assert second["next_after"] is None


def test_shortfalls_that_are_more_than_64_bits_together_are_counted(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(1)
    lines = [till.offline_line(card, f"X{number}", AMOUNT_MINOR_MAX) for number in range(1_026)]
    posted = hq.post_batch(till.store_id, lines)
    assert posted.json["counts"] == {"applied": len(lines)}
    summary = hq.admin.get(f"/v1/admin/cases/summary?store_id={till.store_id}")
    assert summary.status_code == 200, summary.json
    open_minor = AMOUNT_MINOR_MAX * len(lines) - 1
    assert open_minor > 2**63
    assert summary.json["by_currency"] == [
        {"currency": "SEK", "cases_count": len(lines), "open_minor": open_minor}
    ]


def test_a_lock_is_broken_with_the_exposure_that_was_shown(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    hq.allow_offline(till)
    till.lock(card, "X1")
    shown = hq.admin.get(f"/v1/admin/locks/{card.instrument_id}").json
    assert (shown["exposure_minor"], shown["terminal_id"]) == (100, till.terminal_id)
    assert shown["holder_last_seen_at"] is not None
    wish = {
        "instrument_id": card.instrument_id,
        "lock_id": shown["lock_id"],
        "accepted_exposure_minor": 99,
        "reason": "till is in the river",
    }
    refused = hq.admin.post("/v1/admin/lock-breaks", wish)
    assert (refused.status_code, refused.json["code"]) == (409, "exposure_changed")
    wish["accepted_exposure_minor"] = 100
    assert hq.admin.post("/v1/admin/lock-breaks", wish).status_code == 201
    assert hq.admin.post("/v1/admin/lock-breaks", wish).json["code"] == "lock_not_found"


def test_the_late_batch_of_a_broken_lock_is_recognised(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    hq.allow_offline(till)
    lock = till.lock(card, "X1").json
    break_lock(hq, card)
    other = hq.till()
    taken = other.lock(card, "X2").json
    other.redeem(card, "X2", 70, taken["lock_id"])
    line = till.offline_line(card, "X1", 50, grant=lock["offline"]["grant"])
    result = hq.post_batch(till.store_id, [line]).json["results"][0]
    assert result["codes"] == ["lock_broken"]
    assert (result["funded_minor"], result["shortfall_minor"]) == (30, 20)
    assert result["case_id"] is not None


def test_a_broken_locks_late_line_does_not_take_what_anothers_grant_reserves(hq: Hq) -> None:
    till, other, card = hq.till(), hq.till(), hq.issue(100)
    hq.allow_offline(till, other)
    till.lock(card, "X1")
    break_lock(hq, card)
    assert other.lock(card, "X2").json["offline"]["allowed"]
    result = hq.post_batch(till.store_id, [till.offline_line(card, "X1", 50)]).json["results"][0]
    assert result["codes"] == ["lock_broken", "contended"]
    assert (result["funded_minor"], result["shortfall_minor"]) == (0, 50)
    assert hq.balance(card) == 100


def test_a_load_under_a_broken_lock_is_credited_in_full(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    till.lock(card, "X1", purpose="load", amount_minor=50)
    break_lock(hq, card)
    line = till.offline_line(card, "X1", 50, operation="load")
    result = hq.post_batch(till.store_id, [line]).json["results"][0]
    assert result["funded_minor"] == 50
    assert hq.balance(card) == 150
