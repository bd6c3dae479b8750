"""Live locks are listed for administrators: the oldest first, by what matters about them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from hq_service.operations import breaks
from tests.support import Card, Hq, Till

LOCKS = "/v1/admin/locks"


@pytest.fixture(autouse=True)
def the_usual_parameters(hq: Hq) -> None:
    hq.set_parameters(on_horizon="sticky", lease_seconds=900)


def listed(hq: Hq, till: Till, query: str = "") -> list[dict[str, Any]]:
    """Return the locks of a store, of all pages."""
    told, after = [], ""
    while True:
        answer = hq.admin.get(f"{LOCKS}?store_id={till.store_id}&{query}{after}")
        assert answer.status_code == 200, answer.json
        told += answer.json["locks"]
        if answer.json["next_after"] is None:
            return told
        after = f"&after={answer.json['next_after']}"


def lock_some(hq: Hq, till: Till, count: int) -> list[Card]:
    cards = [hq.issue(100 + place) for place in range(count)]
    for place, card in enumerate(cards):
        assert till.lock(card, f"X{place}").status_code == 201
    return cards


def age(hq: Hq, card: Card, hours: int) -> None:
    """Make a lock older."""
    for table in ("instruments", "live_locks"):
        hq.sql(
            f"UPDATE {table} SET locked_at = locked_at - %s * interval '1 hour'"
            " WHERE instrument_id = %s",
            hours,
            card.instrument_id,
        )


def silence(hq: Hq, till: Till, hours: int = 48) -> None:
    """Let a till not have been heard of for hours."""
    hq.sql(
        "UPDATE terminal_presence SET last_seen_at = now() - %s * interval '1 hour'"
        " WHERE store_id = %s AND terminal_id = %s",
        hours,
        till.store_id,
        till.terminal_id,
    )


def cards_of(told: list[dict[str, Any]]) -> list[str]:
    return [lock["instrument"]["instrument_id"] for lock in told]


def ids(*cards: Card) -> list[str]:
    return [card.instrument_id for card in cards]


def test_a_listed_lock_tells_all_that_one_looked_at_tells(hq: Hq) -> None:
    till = hq.till()
    hq.allow_offline(till)
    [card] = lock_some(hq, till, 1)
    [told] = listed(hq, till)
    assert told == hq.admin.get(f"{LOCKS}/{card.instrument_id}").json
    assert told["instrument"] == {
        "instrument_id": card.instrument_id,
        "kind": "gift_card",
        "number_last4": card.number[-4:],
        "currency": "SEK",
        "balance_minor": 100,
        "status": "active",
    }
    assert (told["state"], told["exposure_minor"], told["purpose"]) == ("active", 100, "redeem")
    assert told["terminal_id"] == till.terminal_id
    assert told["grant_until"] > told["locked_at"]


def test_aged_locks_are_on_top(hq: Hq) -> None:
    till = hq.till()
    cards = lock_some(hq, till, 3)
    age(hq, cards[1], 72)
    age(hq, cards[2], 2)
    assert cards_of(listed(hq, till)) == ids(cards[1], cards[2], cards[0])
    before = datetime.now(UTC) - timedelta(days=1)
    assert cards_of(listed(hq, till, f"locked_before={before:%Y-%m-%dT%H:%M:%SZ}")) == ids(cards[1])


def test_pages_of_locks_survive_what_comes_and_goes_in_between(hq: Hq) -> None:
    till = hq.till()
    cards = lock_some(hq, till, 5)
    first = hq.admin.get(f"{LOCKS}?store_id={till.store_id}&limit=2").json
    assert cards_of(first["locks"]) == ids(*cards[:2])
    # The lock that the page ended with is gone, one before and one behind it, too; one is new.
    for place in (0, 1, 2):
        lock_id = hq.admin.get(f"{LOCKS}/{cards[place].instrument_id}").json["lock_id"]
        assert till.release(cards[place], f"X{place}", lock_id).status_code == 200
    new = hq.issue(1)
    assert till.lock(new, "new").status_code == 201
    path = f"{LOCKS}?store_id={till.store_id}&limit=2&after={first['next_after']}"
    second = hq.admin.get(path).json
    assert cards_of(second["locks"]) == ids(cards[3], cards[4])
    third = hq.admin.get(f"{path.partition('&after')[0]}&after={second['next_after']}").json
    assert (cards_of(third["locks"]), third["next_after"]) == (ids(new), None)


def test_locks_of_the_same_instant_are_all_told_once(hq: Hq) -> None:
    till = hq.till()
    cards = lock_some(hq, till, 5)
    for table in ("instruments", "live_locks"):
        hq.sql(
            f"UPDATE {table} SET locked_at = '2026-01-01T00:00:00Z'"
            " WHERE instrument_id = ANY(%s::uuid[])",
            ids(*cards),
        )
    assert cards_of(listed(hq, till, "limit=2")) == sorted(ids(*cards))


def test_locks_are_told_by_state_as_time_and_silence_make_it(hq: Hq) -> None:
    granted, plain = hq.till(), None
    hq.allow_offline(granted)
    plain = hq.till(granted.store_id, supports_offline=False)
    [suspect, horizon] = lock_some(hq, granted, 2)
    [lapsed] = lock_some(hq, plain, 1)
    present = hq.till(granted.store_id, supports_offline=False)
    [active] = lock_some(hq, present, 1)
    for card in (suspect, horizon, lapsed):
        age(hq, card, 48)
    hq.sql(
        "UPDATE instruments SET lock_grant_until = now() - interval '1 hour'"
        " WHERE instrument_id = %s",
        horizon.instrument_id,
    )
    for till in (granted, plain):
        silence(hq, till)
    by_state = {
        state: sorted(cards_of(listed(hq, granted, f"state={state}&limit=1")))
        for state in ("active", "suspect", "lapsed", "horizon")
    }
    assert by_state == {
        "active": ids(active),
        "suspect": sorted(ids(suspect, horizon)),
        "lapsed": ids(lapsed),
        "horizon": [],
    }
    hq.set_parameters(on_horizon="release")
    assert cards_of(listed(hq, granted, "state=horizon")) == ids(horizon)
    assert cards_of(listed(hq, granted, "state=suspect")) == ids(suspect)
    [told] = listed(hq, granted, "state=horizon")
    assert told["exposure_minor"] == 0
    hq.set_parameters(lease_seconds=86_400)
    silence(hq, plain, hours=1)
    assert cards_of(listed(hq, granted, "state=lapsed")) == []


def test_locks_are_told_by_terminal_kind_and_grant(hq: Hq) -> None:
    granted = hq.till()
    hq.allow_offline(granted)
    plain = hq.till(granted.store_id, supports_offline=False)
    [card] = lock_some(hq, granted, 1)
    memo = hq.issue(50, kind="credit_memo")
    assert plain.lock(memo, "X1").status_code == 201
    for query, expected in (
        (f"terminal_id={granted.terminal_id}", card),
        (f"terminal_id={plain.terminal_id}", memo),
        ("kind=gift_card", card),
        ("kind=credit_memo", memo),
        ("is_granted=true", card),
        ("is_granted=false", memo),
    ):
        assert cards_of(listed(hq, granted, query)) == ids(expected), query
    assert listed(hq, granted, "kind=credit_memo&is_granted=true") == []


def test_a_lock_whose_holder_was_never_heard_of_again_is_listed_without_a_sign_of_life(
    hq: Hq,
) -> None:
    till = hq.till()
    lock_some(hq, till, 1)
    hq.sql("DELETE FROM terminal_presence WHERE terminal_id = %s", till.terminal_id)
    [told] = listed(hq, till)
    assert told["holder_last_seen_at"] is None


def test_what_ends_is_off_the_list(hq: Hq) -> None:
    till = hq.till()
    released, redeemed, broken = lock_some(hq, till, 3)
    shown = {lock["instrument"]["instrument_id"]: lock for lock in listed(hq, till)}
    till.release(released, "X0", shown[released.instrument_id]["lock_id"])
    till.redeem(redeemed, "X1", 1, shown[redeemed.instrument_id]["lock_id"])
    wish = {"instrument_id": broken.instrument_id, "reason": "test", "accepted_exposure_minor": 0}
    stuck = {**wish, "lock_id": shown[broken.instrument_id]["lock_id"]}
    assert hq.admin.post("/v1/admin/lock-breaks", stuck).status_code == 201
    assert listed(hq, till) == []


def test_a_break_is_answered_with_the_lock_as_it_was_but_broken(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    hq.allow_offline(till)
    till.lock(card, "X1")
    shown = hq.admin.get(f"/v1/admin/locks/{card.instrument_id}").json
    assert (shown["state"], shown["exposure_minor"]) == ("active", 100)
    wish = {"instrument_id": card.instrument_id, "lock_id": shown["lock_id"], "reason": "test"}
    broken = hq.admin.post("/v1/admin/lock-breaks", {**wish, "accepted_exposure_minor": 100})
    assert broken.status_code == 201, broken.json
    assert broken.json == {**shown, "state": "broken"}


def test_a_state_that_few_locks_have_is_read_on_for_until_the_page_is_full(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaks, "PART_LOCKS", 2)
    till = hq.till(supports_offline=False)
    cards = lock_some(hq, till, 7)
    silent = hq.till(till.store_id, supports_offline=False)
    stuck = [hq.issue(1), hq.issue(1)]
    for place, card in enumerate(stuck):
        silent.lock(card, f"X{place}")
        age(hq, card, 1)
    silence(hq, silent)
    for card in cards[:6]:  # older, but their holder was heard of just now
        age(hq, card, 24)
    path = f"{LOCKS}?store_id={till.store_id}&state=lapsed"
    whole = hq.admin.get(path).json
    assert (cards_of(whole["locks"]), whole["next_after"]) == (ids(*stuck), None)
    one = hq.admin.get(f"{path}&limit=1").json
    assert cards_of(one["locks"]) == ids(stuck[0])
    rest = hq.admin.get(f"{path}&limit=1&after={one['next_after']}").json
    assert (cards_of(rest["locks"]), rest["next_after"]) == (ids(stuck[1]), None)


def test_a_page_looks_at_a_bounded_number_of_locks_and_says_where_it_stopped(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaks, "PART_LOCKS", 2)
    monkeypatch.setattr(breaks, "PARTS_MAX", 2)
    till = hq.till(supports_offline=False)
    cards = lock_some(hq, till, 9)
    silence(hq, till)
    age(hq, cards[8], 0)
    for card in cards[:8]:
        age(hq, card, 48)
    hq.sql(
        "UPDATE terminal_presence SET last_seen_at = now() WHERE terminal_id = %s",
        till.terminal_id,
    )
    path = f"{LOCKS}?store_id={till.store_id}&state=lapsed"
    pages = [hq.admin.get(path).json]
    while pages[-1]["next_after"] is not None:
        pages.append(hq.admin.get(f"{path}&after={pages[-1]['next_after']}").json)
    assert [page["locks"] for page in pages] == [[], [], []]


def test_the_list_is_empty_where_nothing_is_locked(hq: Hq, app: Flask) -> None:
    answer = hq.admin.get(f"{LOCKS}?store_id=nowhere")
    assert answer.json == {"locks": [], "next_after": None}
