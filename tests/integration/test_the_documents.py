"""The story of the documents, told once for gift cards and once for credit memos.

Source: "Seamless offline switch for gift card and credit memo operations"; docs/requirements.md
names its sentences.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from werkzeug.test import TestResponse

from tests.support import Card, Hq, SyncJob, Till, a_name

PARAMETERS = {
    "gift_card": "allow_concluding_gift_card_transactions_offline",
    "credit_memo": "allow_concluding_credit_memo_transactions_offline",
}


@dataclass
class Store:
    """A store with a register, its sync job, and the schedule that headquarters runs for it."""

    hq: Hq
    till: Till
    sync: SyncJob
    schedule_id: str
    kind: str
    fetched_revision: int = 0

    def card(self) -> Card:
        return self.hq.issue(100_00, kind=self.kind)

    def save(self, *, is_allowed: bool) -> None:
        answer = self.hq.save_parameters(**{PARAMETERS[self.kind]: is_allowed})
        assert answer.status_code == 200, answer.json

    def distribute(self) -> None:
        """Run now; the store's sync job fetches the package and applies it."""
        assert self.hq.run_now(self.schedule_id, self.till.store_id).status_code == 201
        for session in self.sync.to_do():
            assert self.sync.apply(session["session_id"]).status_code == 200

    def fetch(self) -> TestResponse:
        answer = self.till.get("/v1/parameters")
        assert answer.status_code == 200, answer.json
        return answer

    def lock(self, card: Card, transaction_id: str) -> TestResponse:
        answer = self.till.lock(card, transaction_id)
        assert answer.status_code == 201, answer.json
        return answer

    def grants(self) -> bool:
        """Tell whether the till gets a grant with a lock now."""
        return self.lock(self.card(), a_name("X")).json["offline"]["grant"] is not None

    def conclude_offline(self, card: Card, lock: TestResponse, transaction_id: str) -> dict:
        """Let the till conclude without HQ, and its sync job post what it stored."""
        line = self.till.offline_line(
            card,
            transaction_id,
            30_00,
            lock_id=lock.json["lock_id"],
            grant=lock.json["offline"]["grant"],
            parameter_revision=self.fetched_revision,
        )
        answer = self.hq.post_batch(self.till.store_id, [line])
        assert answer.status_code == 201, answer.json
        return answer.json["results"][0]


@pytest.fixture(params=list(PARAMETERS))
def store(request: pytest.FixtureRequest, hq: Hq) -> Store:
    hq.set_parameters(**dict.fromkeys(PARAMETERS.values(), False))
    till = hq.till()
    schedule_id = hq.make_schedule("1110")
    return Store(hq, till, hq.sync(till.store_id), schedule_id, request.param)


def other_kind(kind: str) -> str:
    return next(one for one in PARAMETERS if one != kind)


def test_no_is_where_it_begins_and_nothing_is_concluded_offline(store: Store) -> None:
    store.fetch()
    lock = store.lock(card := store.card(), "X1")
    assert lock.json["offline"] == {"allowed": False, "grant": None, "until": None}
    assert store.hq.till().lock(card, "X9").status_code == 423  # the lock is there all the same


def test_yes_is_effective_where_it_was_saved_distributed_and_fetched(store: Store) -> None:
    store.fetch()
    store.save(is_allowed=True)
    assert not store.grants(), "saved, and not distributed"
    assert store.hq.parameter_state(store.till)["state"] == "saved"
    store.fetch()
    assert not store.grants(), "the till was served what its store has, not what is saved"
    store.distribute()
    assert not store.grants(), "distributed, and not fetched"
    state = store.hq.parameter_state(store.till)
    assert (state["state"], state["latest_effective_at"] is None) == ("distributed", False)
    store.fetch()
    assert store.grants(), "fetched"
    assert store.hq.parameter_state(store.till)["state"] == "effective"


def test_each_of_the_two_parameters_is_for_its_own_kind(store: Store) -> None:
    store.save(is_allowed=True)
    store.distribute()
    store.fetch()
    assert store.grants()
    store.kind = other_kind(store.kind)
    assert not store.grants()


def test_a_sale_that_is_forced_offline_is_settled_and_frees_the_card(store: Store) -> None:
    store.save(is_allowed=True)
    store.distribute()
    store.fetched_revision = store.fetch().json["revision"]
    card = store.card()
    lock = store.lock(card, "X1")
    elsewhere = store.hq.till()
    assert elsewhere.lock(card, "X9").status_code == 423
    result = store.conclude_offline(card, lock, "X1")
    assert (result["outcome"], result["codes"], result["case_id"]) == ("applied", [], None)
    assert elsewhere.lock(card, "X9").status_code == 201, "unlocked, for another terminal"
    assert store.hq.balance(card) == 70_00


def test_what_was_concluded_under_the_old_revision_settles_clean(store: Store) -> None:
    store.save(is_allowed=True)
    store.distribute()
    store.fetched_revision = store.fetch().json["revision"]
    before, after = store.card(), store.card()
    lock = store.lock(before, "X1")
    store.save(is_allowed=False)
    store.distribute()
    # The till goes by its copy, for up to a day; what it concludes by it is as good as before.
    assert store.conclude_offline(before, lock, "X1")["codes"] == []
    lock = store.lock(after, "X2")
    assert lock.json["offline"]["grant"] is not None, "HQ goes by what the till has acknowledged"
    assert store.conclude_offline(after, lock, "X2")["codes"] == []


def test_a_reset_of_the_cache_makes_a_change_effective_at_the_next_heartbeat(store: Store) -> None:
    store.save(is_allowed=True)
    store.distribute()
    store.fetch()
    store.save(is_allowed=False)
    store.distribute()
    assert store.till.heartbeat().json["parameters"]["reset_cache"] is False
    reset = {"store_id": store.till.store_id, "reason": "the parameter is No again"}
    assert store.hq.admin.post("/v1/admin/cache-resets", reset).status_code == 201
    assert store.grants(), "nobody has told the till yet"
    assert store.till.heartbeat().json["parameters"]["reset_cache"] is True
    store.fetch()  # what a till does that is told so
    assert not store.grants()
    assert store.till.heartbeat().json["parameters"]["reset_cache"] is False
