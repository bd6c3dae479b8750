"""Random lines of every operation, online and in batches, voided, broken, resolved and repeated.

No story says how such a schedule must end; but nothing may fail, and everything that must be true
at any moment must be true afterwards. The schedules are the same in every run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.acting import set_status, state_of, without_money
from tests.invariants import assert_invariants
from tests.support import Card, Hq, Till, sale_line

SEEDS = range(1, 25)
STEPS = 35
TILLS = 2
CARDS_MAX = 6
AMOUNTS = (1, 10, 20, 50, 60, 100)
OPERATIONS = ("redeem", "issue", "load", "refund", "cash_out", "release", "void")
STATUSES = ("voided", "cancelled", "suspended", "training")
PARTIAL_USES = ("reissue", "retain", "forfeit")


class Schedule:
    """Tills of one store, their cards and locks, and what they have done so far."""

    def __init__(self, hq: Hq, seed: int) -> None:
        self.hq = hq
        self.chance = random.Random(seed)
        # HQ makes its ids of these: with others, cards and cases would come in another order.
        self.store_id = hq.make_store(f"R{seed}")
        self.tills = [hq.till(self.store_id, f"T{number}") for number in range(TILLS)]
        for till in self.tills:
            till.journal_id = "journal"
        numbers = iter(f"6006{seed:06d}{number:06d}" for number in range(4))
        self.cards = [hq.issue(self.chance.choice([20, 50, 100]), next(numbers)) for _ in range(2)]
        self.cards += [hq.issue(60, next(numbers), kind="credit_memo") for _ in range(2)]
        self.locks: dict[tuple[str, str], tuple[TestResponse, str, Card]] = {}
        self.lines: list[dict[str, Any]] = []
        self.told: list[str] = []
        self.steps: list[Callable[[], TestResponse | None]] = [
            *[self.lock] * 3,
            self.lock_new,
            *[self.conclude] * 2,
            self.release,
            *[self.void] * 2,
            *[self.post_batch] * 4,
            self.post_again,
            *[self.resolve] * 3,
            self.break_lock,
            self.change_status,
        ]

    def play(self) -> None:
        for _ in range(STEPS):
            answer = self.chance.choice(self.steps)()
            if answer is not None:
                body = answer.json or {}
                came_to = body.get("code") or [
                    (one["outcome"], *one["codes"]) for one in body.get("results", ())
                ]
                self.told.append(f"  -> {answer.status_code} {came_to}")
                assert answer.status_code < 500, self.story()
        self.check()

    def check(self) -> None:
        unsettled = "SELECT batch_id FROM offline_batches WHERE settled_at IS NULL"
        assert not self.hq.sql(unsettled), self.story()
        try:
            assert_invariants(self.hq.sql)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from error

    def story(self) -> str:
        return "\n".join(self.told)

    def tell(self, *what: Any) -> None:
        self.told.append(" ".join(str(one) for one in what))

    def key(self) -> str:
        return f"X{self.chance.randint(1, 6)}"

    def till(self) -> Till:
        return self.chance.choice(self.tills)

    def name_of(self, card: Card) -> str:
        return f"{card.kind}:{card.instrument_id[:4]}"

    def lock(self) -> TestResponse:
        till, card, key = self.till(), self.chance.choice(self.cards), self.key()
        purpose = self.chance.choice(["redeem", "redeem", "load", "refund", "cash_out"])
        is_credit = purpose in ("load", "refund")
        more = {"amount_minor": self.chance.choice(AMOUNTS)} if is_credit else {}
        self.tell("lock", till.terminal_id, key, purpose, self.name_of(card), more)
        answer = till.lock(card, key, purpose=purpose, **more)
        if answer.status_code in (200, 201):
            self.locks[till.terminal_id, key] = (answer, purpose, self.hq.card_of(answer))
        return answer

    def lock_new(self) -> TestResponse:
        till, key = self.till(), self.key()
        kind = self.chance.choice(["gift_card", "credit_memo"])
        amount_minor = self.chance.choice(AMOUNTS)
        self.tell("lock to issue", till.terminal_id, key, kind, amount_minor)
        answer = till.lock_new(key, amount_minor, kind=kind)
        if answer.status_code in (200, 201):
            card = self.hq.card_of(answer)
            self.locks[till.terminal_id, key] = (answer, "issue", card)
            if len(self.cards) < CARDS_MAX and card not in self.cards:
                self.cards.append(card)
        return answer

    def a_lock(self) -> tuple[Till, str, TestResponse, str, Card] | None:
        """Return a lock that a till was given once, whatever became of it."""
        if not self.locks:
            return None
        terminal_id, key = self.chance.choice(sorted(self.locks))
        till = next(one for one in self.tills if one.terminal_id == terminal_id)
        return (till, key, *self.locks[terminal_id, key])

    def refunded(self) -> dict[str, Any]:
        """Return what a refund says of the line that it gives back."""
        if self.chance.random() < 0.6:
            return {"original": self.till().key_of(self.key())}
        return {"reason": "no receipt"}

    def conclude(self) -> TestResponse | None:
        found = self.a_lock()
        if found is None:
            return None
        till, key, lock, purpose, card = found
        more = self.refunded() if purpose == "refund" else {}
        limit = lock.json["max_amount_minor"]
        amount = limit if purpose == "cash_out" else min(self.chance.choice(AMOUNTS), limit)
        line = sale_line(lock, amount or 1, operation=purpose, **more)
        self.tell("conclude", till.terminal_id, key, purpose, self.name_of(card), amount, more)
        return till.conclude(key, line)

    def release(self) -> TestResponse | None:
        found = self.a_lock()
        if found is None:
            return None
        till, key, lock, _, card = found
        self.tell("release", till.terminal_id, key, self.name_of(card))
        return till.release(card, key, lock.json["lock_id"])

    def void(self) -> TestResponse:
        till, card, key = self.till(), self.chance.choice(self.cards), self.key()
        self.tell("void", till.terminal_id, key, self.name_of(card))
        return till.void(card, key)

    def a_line(self) -> dict[str, Any]:
        till, card, key = self.till(), self.chance.choice(self.cards), self.key()
        operation = self.chance.choice(OPERATIONS)
        more: dict[str, Any] = {}
        got = self.locks.get((till.terminal_id, key))
        if got is not None and self.chance.random() < 0.7:
            lock, purpose, card = got
            operation = self.chance.choice([purpose, purpose, operation])
            grant = lock.json["offline"]["grant"]
            if grant and self.chance.random() < 0.7:
                more["grant"] = grant
            if self.chance.random() < 0.3:
                more["lock_id"] = lock.json["lock_id"]
        if operation == "refund":
            more |= self.refunded()
        if self.chance.random() < 0.15:
            more["status"] = self.chance.choice(STATUSES)
        amount_minor = self.chance.choice(AMOUNTS)
        line = till.offline_line(card, key, amount_minor, operation=operation, **more)
        self.tell(
            "  line", till.terminal_id, key, operation, self.name_of(card), amount_minor, more
        )
        return without_money(line) if operation in ("release", "void") else line

    def post_batch(self) -> TestResponse:
        self.tell("batch")
        lines = [self.a_line() for _ in range(self.chance.randint(1, 4))]
        self.lines += lines
        return self.hq.post_batch(self.store_id, lines)

    def post_again(self) -> TestResponse | None:
        if not self.lines:
            return None
        lines = self.chance.sample(self.lines, min(3, len(self.lines)))
        names = [(one["terminal_id"], one["transaction_id"], one["operation"]) for one in lines]
        self.tell("batch again", names)
        return self.hq.post_batch(self.store_id, lines)

    def resolve(self) -> TestResponse | None:
        listed = self.hq.admin.get(f"/v1/admin/cases?store_id={self.store_id}")
        possible = [
            (one, resolution)
            for one in listed.json["cases"]
            for resolution in one["possible_resolutions"]
        ]
        if not possible:
            return None
        case, resolution = self.chance.choice(possible)
        names = ("outcome", "terminal_id", "transaction_id", "operation", "codes")
        self.tell("case", *[case[name] for name in names], resolution)
        return self.hq.resolve(case["case_id"], resolution)

    def change_status(self) -> None:
        """Let somebody at headquarters close, block, or free again what is there."""
        card = self.chance.choice(self.cards)
        status, balance_minor = state_of(self.hq, card)
        wanted = self.chance.choice(["blocked", "expired", "active", "closed"])
        if status in ("pending", "applied") or (wanted == "closed" and balance_minor):
            return
        self.tell("status", self.name_of(card), status, "->", wanted)
        set_status(self.hq, card, wanted)

    def break_lock(self) -> TestResponse | None:
        card = self.chance.choice(self.cards)
        shown = self.hq.admin.get(f"/v1/admin/locks/{card.instrument_id}")
        if shown.status_code != 200:
            return None
        self.tell("break the lock of", self.name_of(card), shown.json["transaction_id"])
        wish = {
            "instrument_id": card.instrument_id,
            "lock_id": shown.json["lock_id"],
            "accepted_exposure_minor": shown.json["exposure_minor"],
            "reason": "till is in the river",
        }
        return self.hq.admin.post("/v1/admin/lock-breaks", wish)


@pytest.fixture(scope="module")
def hq(hq: Hq) -> Hq:
    hq.set_parameters(gift_card_cash_out_threshold_minor={"SEK": 1_000})
    return hq


@pytest.mark.parametrize("seed", SEEDS)
def test_after_any_lines_in_any_order_the_books_agree(hq: Hq, seed: int) -> None:
    hq.set_parameters(
        credit_memo_partial_use=PARTIAL_USES[seed % len(PARTIAL_USES)],
        on_horizon=("sticky", "release")[seed % 2],
    )
    schedule = Schedule(hq, seed)
    if seed % 4:
        hq.allow_offline(*schedule.tills)
    schedule.play()
