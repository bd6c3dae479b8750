"""Cases are listed, counted, and told with the whole story around them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hq_service.api.admin.stories import MEANINGS
from hq_service.domain.resolving import Resolution
from hq_service.operations import stories
from tests.support import Card, Hq, Till, a_name, a_number

CASES = "/v1/admin/cases"


def case_of(hq: Hq, till: Till, line: dict[str, Any]) -> str:
    """Post a line offline and return its case."""
    case_id: str = hq.post_batch(till.store_id, [line]).json["results"][0]["case_id"]
    assert case_id is not None
    return case_id


def listed(hq: Hq, store_id: str, query: str = "") -> list[dict[str, Any]]:
    answer = hq.admin.get(f"{CASES}?store_id={store_id}&{query}")
    assert answer.status_code == 200, answer.json
    found: list[dict[str, Any]] = answer.json["cases"]
    return found


def ids(cases: list[dict[str, Any]]) -> list[str]:
    return [case["case_id"] for case in cases]


def load(till: Till, card: Card, amount_minor: int) -> None:
    sale = a_name("L")
    lock = till.lock(card, sale, purpose="load", amount_minor=amount_minor)
    line = {"line": 1, "operation": "load", "amount_minor": amount_minor, "currency": "SEK"}
    named = {"instrument_id": card.instrument_id, "lock_id": lock.json["lock_id"]}
    assert till.conclude(sale, {**line, **named}).status_code == 201


# --- the list -------------------------------------------------------------------------------------


def test_cases_are_told_by_everything_that_tells_them_apart(hq: Hq) -> None:
    till = hq.till()
    sister = hq.till(till.store_id)
    short, whole, unknown = hq.issue(10), hq.issue(1_000), a_number()
    shortfall = case_of(hq, till, till.offline_line(short, "X1", 50))
    no_lock = case_of(hq, sister, sister.offline_line(whole, "X2", 5))
    line = till.offline_line(whole, "X3", 5, kind="gift_card", number=unknown)
    del line["instrument_id"]
    held = case_of(hq, till, line)
    unreadable = case_of(hq, till, {"nonsense": 1})
    everything = listed(hq, till.store_id)
    assert ids(everything) == [shortfall, no_lock, held, unreadable]
    for query, expected in (
        (f"terminal_id={sister.terminal_id}", [no_lock]),
        ("outcome=held", [held]),
        ("outcome=quarantined", [unreadable]),
        ("outcome=noticed", []),
        ("code=unknown_instrument", [held]),
        ("code=no_lock", [shortfall, no_lock]),
        (f"instrument_id={short.instrument_id}", [shortfall]),
        ("shortfall_minor_min=40", [shortfall]),
        ("shortfall_minor_min=41", []),
        (f"opened_from={everything[2]['opened_at'].replace('+', '%2B')}", [held, unreadable]),
        (f"opened_before={everything[2]['opened_at'].replace('+', '%2B')}", [shortfall, no_lock]),
        ("code=no_lock&shortfall_minor_min=1", [shortfall]),
    ):
        assert ids(listed(hq, till.store_id, query)) == expected, query


def test_resolved_cases_are_told_when_asked_for(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(1_000)
    resolved = case_of(hq, till, till.offline_line(card, "X1", 5))
    open_one = case_of(hq, till, till.offline_line(card, "X2", 5))
    assert hq.resolve(resolved, "dismiss").status_code == 200
    assert ids(listed(hq, till.store_id)) == [open_one]
    assert ids(listed(hq, till.store_id, "state=open")) == [open_one]
    assert ids(listed(hq, till.store_id, "state=all")) == [resolved, open_one]
    [told] = listed(hq, till.store_id, "state=resolved")
    assert (told["case_id"], told["possible_resolutions"]) == (resolved, [])


def test_pages_of_cases_survive_that_cases_are_resolved_in_between(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(1_000)
    opened = [case_of(hq, till, till.offline_line(card, f"X{place}", 1)) for place in range(5)]
    path = f"{CASES}?store_id={till.store_id}&limit=2"
    first = hq.admin.get(path).json
    assert ids(first["cases"]) == opened[:2]
    for case_id in opened[:3]:
        assert hq.resolve(case_id, "dismiss").status_code == 200
    second = hq.admin.get(f"{path}&after={first['next_after']}").json
    assert (ids(second["cases"]), second["next_after"]) == (opened[3:], None)


def test_cases_of_the_same_instant_are_all_told_once(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(1_000)
    lines = [till.offline_line(card, f"X{place}", 1) for place in range(5)]
    results = hq.post_batch(till.store_id, lines).json["results"]
    path, after, told = f"{CASES}?store_id={till.store_id}&limit=2", "", []
    while after is not None:
        page = hq.admin.get(path + after).json
        told += ids(page["cases"])
        after = page["next_after"] and f"&after={page['next_after']}"
    assert told == sorted(result["case_id"] for result in results)


def test_open_cases_are_counted_by_currency_and_by_code(hq: Hq) -> None:
    till = hq.till()
    other = hq.till(till.store_id)
    for currency, balance_minor in (("SEK", 10), ("SEK", 1_000), ("EUR", 0)):
        card = hq.issue(max(balance_minor, 1), currency=currency)
        case_of(hq, till, till.offline_line(card, a_name("X"), 50))
    hq.allow_offline(other)
    card = hq.issue(1_000)
    assert other.lock(card, "X9").status_code == 201
    contended = case_of(hq, till, till.offline_line(card, a_name("X"), 30))
    case_of(hq, till, {"nonsense": 1})
    summary = hq.admin.get(f"{CASES}/summary?store_id={till.store_id}").json
    assert summary["by_currency"] == [
        {"currency": "EUR", "cases_count": 1, "open_minor": 49},
        {"currency": "SEK", "cases_count": 3, "open_minor": 70},
        {"currency": None, "cases_count": 1, "open_minor": 0},
    ]
    counted = {(one["currency"], one["code"]): one for one in summary["by_code"]}
    assert counted["SEK", "contended"]["open_minor"] == 30
    assert counted["SEK", "no_lock"]["cases_count"] == 3
    assert counted[None, "unreadable"]["cases_count"] == 1
    assert hq.resolve(contended, "absorb").status_code == 200
    after = hq.admin.get(f"{CASES}/summary?store_id={till.store_id}").json
    assert after["by_currency"][1] == {"currency": "SEK", "cases_count": 2, "open_minor": 40}
    nowhere = hq.admin.get(f"{CASES}/summary?store_id=nowhere").json
    assert nowhere == {"by_currency": [], "by_code": []}
    company = hq.admin.get(f"{CASES}/summary").json
    assert sum(one["cases_count"] for one in company["by_currency"]) >= 4


# --- the story ------------------------------------------------------------------------------------


def test_the_story_of_a_shortfall_tells_what_came_in_and_what_became_of_it(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(10)
    line = till.offline_line(card, "X1", 50, parameter_revision=0)
    answer = hq.post_batch(till.store_id, [till.offline_line(hq.issue(5), "X0", 5), line])
    story = hq.case(answer.json["results"][1]["case_id"])
    assert story["batch"]["batch_id"] == answer.json["batch_id"]
    assert story["batch"]["received_by"].startswith("sync:")
    assert (story["batch"]["lines_count"], story["position"]) == (2, 1)
    received = story["received_line"]
    for name in ("terminal_id", "journal_id", "sequence", "transaction_id", "amount_minor"):
        assert received[name] == line[name]
    assert (received["has_grant"], received["store_id"]) == (False, till.store_id)
    assert datetime.fromisoformat(received["concluded_at"]) == datetime.fromisoformat(
        line["concluded_at"]
    )
    assert story["unreadable_line"] is None
    assert story["line_result"] == answer.json["results"][1]
    assert story["instrument"]["balance_minor"] == 0
    assert story["instrument"]["number_last4"] == card.number[-4:]
    assert story["live_lock"] is None
    told = [(one["operation"], one["change_minor"], one["is_of_case"]) for one in story["postings"]]
    assert told == [("redeem", -10, True), ("issue", 10, False)]
    assert (story["ended_locks"], story["voids"], story["other_cases"]) == ([], [], [])


def test_the_story_tells_locks_voids_and_other_cases_of_the_key_and_the_instrument(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    lock = till.lock(card, "X0").json
    till.release(card, "X0", lock["lock_id"])
    till.lock(card, "X1")
    shown = hq.admin.get(f"/v1/admin/locks/{card.instrument_id}").json
    breaking = {"instrument_id": card.instrument_id, "lock_id": shown["lock_id"]}
    accepted = {**breaking, "accepted_exposure_minor": 0, "reason": "customer is waiting"}
    assert hq.admin.post("/v1/admin/lock-breaks", accepted).status_code == 201
    broken = case_of(hq, till, till.offline_line(card, "X1", 60))
    reused = case_of(hq, till, till.offline_line(card, "X1", 61))
    other = hq.till(till.store_id)
    assert other.lock(card, "X2").status_code == 201
    assert till.void(card, "X1").status_code == 201
    story = hq.case(broken)
    assert [(one["ended"], one["transaction_id"]) for one in story["ended_locks"]] == [
        ("broken", "X1"),
        ("released", "X0"),
    ]
    assert story["ended_locks"][0]["reason"] == "customer is waiting"
    assert story["live_lock"]["terminal_id"] == other.terminal_id
    assert [(one["voided_by"], one["instrument_id"]) for one in story["voids"]] == [
        (f"terminal:{till.key.split('_')[1]}", card.instrument_id)
    ]
    assert ids(story["other_cases"]) == [reused]
    assert ids(hq.case(reused)["other_cases"]) == [broken]
    entries = [(one["entry"], one["is_of_case"]) for one in story["postings"]]
    assert entries == [("reversal", True), ("original", True), ("original", False)]
    assert (story["resolution"], story["previews"]) == ("voided", [])


def test_the_story_of_a_line_that_could_not_be_read_shows_it_masked(hq: Hq) -> None:
    till, number = hq.till(), a_number()
    case_id = case_of(hq, till, {"nonsense": 1, "number": number})
    answer = hq.admin.get(f"{CASES}/{case_id}")
    story = answer.json
    assert story["received_line"] is None
    assert f"***{number[-4:]}" in story["unreadable_line"]["masked_text"]
    assert number not in answer.text
    assert story["line_result"]["outcome"] == "quarantined"
    assert story["instrument"] is None
    [preview] = story["previews"]
    assert (preview["resolution"], preview["resolves"], preview["postings"]) == (
        "dismiss",
        True,
        [],
    )


def test_the_story_of_a_notice_has_its_batch_and_no_line(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    late = datetime.now(UTC) - timedelta(days=60)
    line = till.offline_line(card, "X1", 5, concluded_at=late.isoformat())
    posted = hq.post_batch(till.store_id, [line]).json
    [notice] = listed(hq, till.store_id, "outcome=noticed")
    story = hq.case(notice["case_id"])
    assert story["batch"]["batch_id"] == posted["batch_id"]
    assert (story["received_line"], story["line_result"], story["instrument"]) == (None, None, None)
    assert [one["resolution"] for one in story["previews"]] == ["dismiss"]


def test_the_story_of_a_case_without_a_batch_has_none(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(10)
    lock = till.lock(card, "L1", purpose="load", amount_minor=90)
    line = {"line": 1, "operation": "load", "amount_minor": 90, "currency": "SEK"}
    named = {"instrument_id": card.instrument_id, "lock_id": lock.json["lock_id"]}
    till.conclude("L1", {**line, **named})
    till.redeem(card, "X1", 80, till.lock(card, "X1").json["lock_id"])
    story = hq.case(till.void(card, "L1").json["case_id"])
    assert (story["batch"], story["received_line"], story["line_result"]) == (None, None, None)
    assert [one["entry"] for one in story["postings"] if one["is_of_case"]] == [
        "reversal",
        "original",
    ]


def test_a_story_never_tells_a_grant(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    hq.allow_offline(till)
    grant = till.lock(card, "X1").json["offline"]["grant"]
    case_id = case_of(hq, till, till.offline_line(card, "X1", 150, grant=grant))
    answer = hq.admin.get(f"{CASES}/{case_id}")
    assert answer.json["received_line"]["has_grant"] is True
    assert grant.rsplit(".", 1)[1] not in answer.text
    assert card.number not in answer.text


def test_a_story_is_bounded_and_tells_what_happened_around_the_case(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stories, "POSTINGS_MAX", 4)
    monkeypatch.setattr(stories, "ENDED_LOCKS_MAX", 3)
    monkeypatch.setattr(stories, "OTHER_CASES_MAX", 2)
    till, card = hq.till(), hq.issue(1_000)
    own = till.lock(card, "case").json
    till.release(card, "case", own["lock_id"])
    for place in range(4):
        lock = till.lock(card, f"A{place}").json
        till.release(card, f"A{place}", lock["lock_id"])
    hq.post_batch(till.store_id, [till.offline_line(card, f"B{place}", 1) for place in range(6)])
    case_id = case_of(hq, till, till.offline_line(card, "case", 2_000))
    load(till, card, 10)
    load(till, card, 20)
    load(till, card, 30)
    story = hq.case(case_id)
    # Its own posting is version 8: two later ones, and then the newest up to four.
    assert [one["version"] for one in story["postings"]] == [10, 9, 8, 7]
    assert [one["transaction_id"] for one in story["ended_locks"]] == ["A3", "A2", "case"]
    assert len(story["other_cases"]) == 2


def test_what_was_posted_on_a_remainder_to_resolve_a_case_is_in_its_story(hq: Hq) -> None:
    till, memo = hq.till(), hq.issue(100, kind="credit_memo")
    till.redeem(memo, "X1", 30, till.lock(memo, "X1").json["lock_id"])
    case_id = case_of(hq, till, till.offline_line(memo, "X2", 50))
    assert hq.resolve(case_id, "recover").status_code == 200
    story = hq.case(case_id)
    recovered = story["postings"][0]
    assert (recovered["operation"], recovered["is_of_case"]) == ("recover", True)
    assert recovered["instrument_id"] == story["instrument"]["remainder_id"]
    assert recovered["original"]["transaction_id"] == "X2"


# --- what resolving it would do -------------------------------------------------------------------


def preview_of(hq: Hq, case_id: str, resolution: str) -> dict[str, Any]:
    [told] = [one for one in hq.case(case_id)["previews"] if one["resolution"] == resolution]
    return dict(told)


def a_shortfall(hq: Hq) -> tuple[Till, Card, str]:
    till, card = hq.till(), hq.issue(10)
    return till, card, case_of(hq, till, till.offline_line(card, "X1", 50))


def a_partly_recoverable_one(hq: Hq) -> tuple[Till, Card, str]:
    till, card, case_id = a_shortfall(hq)
    load(till, card, 15)
    return till, card, case_id


def a_recovered_part(hq: Hq) -> tuple[Till, Card, str]:
    till, card, case_id = a_partly_recoverable_one(hq)
    assert hq.resolve(case_id, "recover").status_code == 200
    load(till, card, 100)
    return till, card, case_id


def a_held_line(hq: Hq) -> tuple[Till, Card, str]:
    till, card = hq.till(), hq.issue(45)
    till.redeem(card, "X1", 20, till.lock(card, "X1").json["lock_id"])
    return till, card, case_of(hq, till, till.offline_line(card, "X1", 30))


def a_locked_held_line(hq: Hq) -> tuple[Till, Card, str]:
    till, card = hq.till(), hq.issue(100)
    till.lock(card, "X1")
    return till, card, case_of(hq, till, till.offline_line(card, "X1", 30, currency="EUR"))


def a_load_that_was_spent(hq: Hq) -> tuple[Till, Card, str]:
    till, card = hq.till(), hq.issue(10)
    case_id = case_of(hq, till, till.offline_line(card, "L1", 90, operation="load"))
    till.redeem(card, "X1", 80, till.lock(card, "X1").json["lock_id"])
    return till, card, case_id


def a_used_memo(hq: Hq) -> tuple[Till, Card, str]:
    till, memo = hq.till(), hq.issue(100, kind="credit_memo")
    till.redeem(memo, "X1", 30, till.lock(memo, "X1").json["lock_id"])
    return till, memo, case_of(hq, till, till.offline_line(memo, "X2", 50))


SCENES = [
    (a_shortfall, "absorb"),
    (a_shortfall, "recover"),
    (a_shortfall, "confirm_duplicate"),
    (a_partly_recoverable_one, "recover"),
    (a_recovered_part, "recover"),
    (a_recovered_part, "confirm_duplicate"),
    (a_held_line, "apply"),
    (a_held_line, "confirm_duplicate"),
    (a_held_line, "dismiss"),
    (a_locked_held_line, "apply"),
    (a_locked_held_line, "dismiss"),
    (a_load_that_was_spent, "confirm_duplicate"),
    (a_used_memo, "recover"),
    (a_used_memo, "confirm_duplicate"),
]


@pytest.mark.parametrize(
    ("scene", "resolution"),
    [pytest.param(*one, id=f"{one[0].__name__}-{one[1]}") for one in SCENES],
)
def test_a_resolution_does_what_its_preview_said(hq: Hq, scene: Any, resolution: str) -> None:
    _, card, case_id = scene(hq)
    count = "SELECT count(*) FROM postings"
    before = hq.sql(count)
    told = preview_of(hq, case_id, resolution)
    assert hq.sql(count) == before, "a preview writes nothing"
    was_locked = hq.admin.get(f"/v1/admin/locks/{card.instrument_id}").status_code == 200
    answer = hq.resolve(case_id, resolution)
    if told["refusal"] is not None:
        assert answer.status_code == 409
        assert hq.sql(count) == before
        return
    assert answer.status_code == 200, answer.json
    assert (answer.json["resolution"] is not None) == told["resolves"]
    is_locked = hq.admin.get(f"/v1/admin/locks/{card.instrument_id}").status_code == 200
    assert told["frees_lock"] == (was_locked and not is_locked)
    if not told["resolves"]:
        left = answer.json["shortfall_minor"] - answer.json["recovered_minor"]
        assert told["open_minor"] == left
    entry = hq.admin.get(f"/v1/admin/audit-entries?subject=case:{case_id}&order=newest").json
    assert entry["entries"][0]["detail"]["posted"] == told["postings"]
    posted = hq.sql(count)[0][0] - before[0][0]
    assert posted == len(told["postings"])


def test_a_preview_says_why_a_resolution_cannot_be_done(hq: Hq) -> None:
    till, card, case_id = a_shortfall(hq)
    assert preview_of(hq, case_id, "recover")["refusal"] == (
        "There is nothing on the instrument to recover."
    )
    load(till, card, 100)
    assert preview_of(hq, case_id, "recover")["refusal"] is None
    holder = hq.till()
    hq.allow_offline(holder)
    assert holder.lock(card, "X9").json["offline"]["allowed"]
    reserved = preview_of(hq, case_id, "recover")
    assert "reserves the balance" in reserved["refusal"]
    assert reserved["open_minor"] == 40


def test_every_resolution_has_a_meaning_for_people() -> None:
    assert set(MEANINGS) == set(Resolution)
