"""The counter-examples that the rules were made for, each a story of a few messages.

Two more are in ``test_settle.py``: a repeated old line, and a held line that comes twice. All of
them are told again over HTTP in ``tests/integration``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from tests.support import KEYRING, Card, Till, sale_line
from tests.unit.stage_in_memory import Answer, StageInMemory
from tests.unit.world import STORE_ID, World


@dataclass
class Shop:
    """Two tills, a card and a memo of 100 each, and HQ in memory; offline is allowed."""

    stage: StageInMemory = field(default_factory=StageInMemory)

    def __post_init__(self) -> None:
        self.stage.set_parameters(
            allow_concluding_gift_card_transactions_offline=True,
            allow_concluding_credit_memo_transactions_offline=True,
        )
        balances = {"gift_card": (100, 100), "credit_memo": (100,)}
        tills, self.sync, (self.card, self.other_card, self.memo) = self.stage.open_store(
            2, balances
        )
        self.till, self.other = (one.caller for one in tills)
        for till in (self.till, self.other):
            till.get("/v1/parameters")

    @property
    def world(self) -> World:
        return self.stage.world

    def post_batch(self, *lines: dict[str, Any]) -> list[dict[str, Any]]:
        """Post a batch of its own; return what its lines came to."""
        body = {
            "store_id": STORE_ID,
            "batch_id": f"B{len(self.world.batches)}",
            "lines": lines,
        }
        results: list[dict[str, Any]] = self.sync.post("/v1/offline-batches", body).json["results"]
        return results

    def balance(self, card: Card) -> int:
        return self.world.instruments[UUID(card.instrument_id)].balance_minor

    def break_lock(self, card: Card) -> None:
        self.world.break_lock(UUID(card.instrument_id), self.stage.clock.instant)

    def sell(self, till: Till, card: Card, transaction_id: str, amount_minor: int) -> Answer:
        lock = till.lock(card, transaction_id)
        return till.redeem(card, transaction_id, amount_minor, lock.json["lock_id"])


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_a_broken_locks_late_line_does_not_take_what_anothers_grant_reserves(shop: Shop) -> None:
    shop.till.lock(shop.card, "X1")
    shop.break_lock(shop.card)
    assert shop.other.lock(shop.card, "X2").json["offline"]["grant"]
    (late,) = shop.post_batch(shop.till.offline_line(shop.card, "X1", 50))
    assert late["codes"] == ["lock_broken", "contended"]
    assert (late["funded_minor"], late["shortfall_minor"]) == (0, 50)
    assert late["case_id"] in shop.world.questions
    (granted,) = shop.post_batch(shop.other.offline_line(shop.card, "X2", 100))
    assert (granted["codes"], granted["funded_minor"]) == ([], 100)


def test_a_broken_locks_late_line_is_told_although_it_is_funded(shop: Shop) -> None:
    shop.till.lock(shop.card, "X1")
    shop.break_lock(shop.card)
    (late,) = shop.post_batch(shop.till.offline_line(shop.card, "X1", 50))
    assert (late["codes"], late["funded_minor"]) == (["lock_broken"], 50)
    assert late["case_id"] in shop.world.questions


def test_a_sale_voided_offline_after_its_online_redeem_gives_the_money_back(shop: Shop) -> None:
    shop.sell(shop.till, shop.card, "X1", 70)
    voided = shop.till.offline_line(shop.card, "X1", 70, status="voided")
    (first,) = shop.post_batch(voided)
    assert (first["codes"], shop.balance(shop.card)) == (["voided"], 100)
    (again,) = shop.post_batch(voided)
    assert (again["outcome"], shop.balance(shop.card)) == ("duplicate", 100)


def test_a_sale_that_arrives_after_its_void_takes_nothing(shop: Shop) -> None:
    shop.till.lock(shop.card, "X1")
    shop.till.void(shop.card, "X1")
    (late,) = shop.post_batch(shop.till.offline_line(shop.card, "X1", 70))
    assert (late["outcome"], late["codes"]) == ("applied", ["voided"])
    assert shop.balance(shop.card) == 100


def test_a_partial_memo_redemption_whose_answer_was_lost_tells_the_same_number(shop: Shop) -> None:
    lock = shop.till.lock(shop.memo, "X1").json
    first = shop.till.redeem(shop.memo, "X1", 30, lock["lock_id"]).json["remainder"]
    again = shop.till.redeem(shop.memo, "X1", 30, lock["lock_id"])
    assert (again.status_code, again.json["remainder"]) == (200, first)
    assert KEYRING.instrument_id("credit_memo", first["number"]) == first["instrument_id"]
    assert shop.world.instruments[first["instrument_id"]].balance_minor == 70


def test_a_key_reused_on_another_card_is_held(shop: Shop) -> None:
    shop.sell(shop.till, shop.card, "X1", 40)
    reused = shop.till.offline_line(shop.other_card, "X1", 40)
    (first,) = shop.post_batch(reused)
    assert (first["outcome"], first["codes"]) == ("held", ["business_key_reused"])
    assert (shop.balance(shop.card), shop.balance(shop.other_card)) == (60, 100)
    (again,) = shop.post_batch(reused)
    assert (again["outcome"], again["case_id"]) == ("duplicate", first["case_id"])


def test_a_key_reused_with_another_amount_is_held_and_both_versions_are_kept(shop: Shop) -> None:
    shop.sell(shop.till, shop.card, "X1", 40)
    (reused,) = shop.post_batch(shop.till.offline_line(shop.card, "X1", 41))
    assert (reused["outcome"], reused["codes"]) == ("held", ["business_key_reused"])
    assert shop.balance(shop.card) == 60
    question = shop.world.questions[reused["case_id"]]
    assert question.line.amount_minor == 41


def test_a_load_under_a_broken_lock_is_credited_in_full(shop: Shop) -> None:
    shop.till.lock(shop.card, "X1", purpose="load", amount_minor=50)
    shop.break_lock(shop.card)
    (late,) = shop.post_batch(shop.till.offline_line(shop.card, "X1", 50, operation="load"))
    assert (late["codes"], late["funded_minor"]) == (["lock_broken"], 50)
    assert shop.balance(shop.card) == 150


def test_voiding_a_spent_load_falls_short_with_a_case(shop: Shop) -> None:
    lock = shop.till.lock(shop.card, "L1", purpose="load", amount_minor=90)
    shop.till.conclude("L1", sale_line(lock, 90, operation="load"))
    shop.sell(shop.other, shop.card, "X1", 170)
    void = shop.till.offline_line(shop.card, "L1", 90, operation="load", status="voided")
    (voided,) = shop.post_batch(void)
    assert (voided["funded_minor"], voided["shortfall_minor"]) == (20, 70)
    assert shop.balance(shop.card) == 0
    assert shop.world.questions[voided["case_id"]].result.shortfall_minor == 70


def test_a_void_of_what_fell_short_closes_its_case(shop: Shop) -> None:
    (short,) = shop.post_batch(shop.till.offline_line(shop.card, "X1", 130))
    assert (short["shortfall_minor"], shop.balance(shop.card)) == (30, 0)
    shop.till.void(shop.card, "X1")
    assert shop.balance(shop.card) == 100
    assert shop.world.questions[short["case_id"]].resolution == "voided"


def test_one_grant_funds_one_line(shop: Shop) -> None:
    grant = shop.till.lock(shop.card, "X1").json["offline"]["grant"]
    first, second = shop.post_batch(
        *(shop.till.offline_line(shop.card, "X1", 50, line, grant=grant) for line in (1, 2))
    )
    assert (first["codes"], second["codes"]) == ([], ["lock_already_used"])
    assert shop.balance(shop.card) == 50


def test_one_grant_funds_one_line_also_when_the_second_comes_in_another_batch(shop: Shop) -> None:
    grant = shop.till.lock(shop.card, "X1").json["offline"]["grant"]
    told = [
        shop.post_batch(shop.till.offline_line(shop.card, "X1", 50, line, grant=grant))[0]
        for line in (1, 2)
    ]
    assert [one["codes"] for one in told] == [[], ["lock_already_used"]]
    assert shop.balance(shop.card) == 50


def test_a_re_imaged_till_that_counts_from_1_again_loses_nothing(shop: Shop) -> None:
    (before,) = shop.post_batch(shop.till.offline_line(shop.card, "X1", 10))
    shop.till.journal_id, shop.till.sequence = "new-journal", 0
    (after,) = shop.post_batch(shop.till.offline_line(shop.card, "X2", 20))
    assert [before["outcome"], after["outcome"]] == ["applied", "applied"]
    assert "sequence_reused" not in after["codes"]
    assert shop.balance(shop.card) == 70
    through = {name: one.acknowledged_through for name, one in shop.world.journals.items()}
    assert set(through.values()) == {1}


def test_a_number_of_a_journal_that_comes_again_with_another_sale_loses_nothing(
    shop: Shop,
) -> None:
    (before,) = shop.post_batch(shop.till.offline_line(shop.card, "X1", 10))
    shop.till.sequence = 0
    (after,) = shop.post_batch(shop.till.offline_line(shop.card, "X2", 20))
    assert [before["outcome"], after["outcome"]] == ["applied", "applied"]
    assert "sequence_reused" in after["codes"]
    assert shop.balance(shop.card) == 70


def test_a_repeat_after_years_is_still_a_repeat(shop: Shop) -> None:
    shop.sell(shop.till, shop.card, "X1", 40)
    line = shop.till.offline_line(shop.card, "X1", 40)
    shop.stage.clock.go_on(5 * 365 * 86_400)
    (late,) = shop.post_batch(line)
    assert (late["outcome"], shop.balance(shop.card)) == ("duplicate", 60)
