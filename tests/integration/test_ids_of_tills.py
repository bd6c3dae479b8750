"""What tills choose to name their sales, journals and batches: taken and told as it is, always.

Whether an id happens to have eight digits in a row must decide nothing: a till whose sale is
refused for its number one time in twelve could not be put to use.
"""

from __future__ import annotations

import pytest

from hq_service.domain.numbers import mask
from tests.support import Hq

IDS = {
    "a UUID": "0192f0ab-1234-7123-8123-123456789012",
    "a UUID without hyphens": "0192f0ab123471238123123456789012",
    "a UUID without hyphens and letters": "01921234567871238123123456789012",
    "an instant": "20261121143012345",
    "till, date and number": "T01-20261121-000123",
    "sixteen letters and digits": "Z9Y8X7W6V5T4S3R2",
    "fours": "a1b2-c3d4-e5f6-a7b8",
    "digits in fours": "6006-0000-0000-0001",
    "the longest": "2026.11:21_" + "7" * 53,
}


def test_most_of_these_would_be_masked_in_a_text() -> None:
    assert [name for name, one in IDS.items() if mask(one) == one] == ["a UUID"]


@pytest.mark.parametrize("name", IDS)
def test_a_sale_is_locked_concluded_and_found_under_whatever_id(hq: Hq, name: str) -> None:
    till, card, sale = hq.till(), hq.issue(500), IDS[name]
    lock = till.lock(card, sale)
    assert lock.status_code == 201, lock.json
    [told] = till.get(f"/v1/locks?transaction_id={sale}").json["locks"]
    assert told["transaction_id"] == sale
    assert hq.admin.get(f"/v1/admin/locks/{card.instrument_id}").json["transaction_id"] == sale
    assert till.redeem(card, sale, 100, lock.json["lock_id"]).status_code == 201
    known = till.get(f"/v1/transactions/{till.store_id}/{till.terminal_id}/{sale}")
    assert (known.status_code, known.json["lines"][0]["outcome"]) == (200, "applied")
    assert till.void(card, sale).status_code == 201


@pytest.mark.parametrize("name", IDS)
def test_a_journal_and_a_batch_are_settled_and_told_under_whatever_id(hq: Hq, name: str) -> None:
    till, card = hq.till(), hq.issue(10)
    till.journal_id = one = IDS[name]
    answer = hq.post_batch(till.store_id, [till.offline_line(card, one, 25)], batch_id=one)
    assert (answer.status_code, answer.json["batch_id"]) == (201, one)
    [result] = answer.json["results"]
    assert (result["outcome"], result["shortfall_minor"]) == ("applied", 15)
    story = hq.case(result["case_id"])
    assert (story["transaction_id"], story["batch"]["batch_id"]) == (one, one)
    assert story["received_line"]["journal_id"] == one
    assert hq.admin.get(answer.headers["Location"]).json["batch_id"] == one
    [journal] = till.heartbeat(journal_tips={one: 1}).json["journals"]
    assert (journal["journal_id"], journal["acknowledged_through"]) == (one, 1)


@pytest.mark.parametrize("name", IDS)
def test_a_line_that_cannot_be_read_still_tells_where_it_stands_under_whatever_id(
    hq: Hq, name: str
) -> None:
    till, card = hq.till(), hq.issue(10)
    till.journal_id = one = IDS[name]
    lines = [{**till.offline_line(card, one, 1), "amount_minor": "ten"} for _ in range(2)]
    # Its number has arrived: it is no gap, and is acknowledged with those before it.
    results = hq.post_batch(till.store_id, lines).json["results"]
    assert [result["outcome"] for result in results] == ["quarantined"] * 2
    [journal] = till.heartbeat().json["journals"]
    assert (journal["journal_id"], journal["acknowledged_through"]) == (one, 2)
