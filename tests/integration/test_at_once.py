"""What is tried in one statement comes to the same as what is carried out in full, by the rules."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from hq_service.api import at_once
from hq_service.store import prepared
from tests.support import Card, Hq, Till, a_name

BALANCE_MINOR = 500

# What happened on the card before, by name: each is played over HTTP, in full.
Past = Callable[["Scene"], None]


@dataclass
class Scene:
    """A card, its till and another one of the same store; ``names`` are what differs between two
    scenes that are alike.
    """

    hq: Hq
    kind: str
    is_granted: bool
    till: Till = field(init=False)
    other: Till = field(init=False)
    card: Card = field(init=False)
    lock_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def __post_init__(self) -> None:
        self.till = self.hq.till()
        self.other = self.hq.till(self.till.store_id)
        if self.is_granted:
            changed = self.hq.save_parameters(
                self.till.store_id,
                allow_concluding_gift_card_transactions_offline=True,
                allow_concluding_credit_memo_transactions_offline=True,
            )
            assert changed.status_code == 200, changed.json
            self.hq.distribute()
            assert self.till.get("/v1/parameters").status_code == 200
        self.card = self.hq.issue(BALANCE_MINOR, kind=self.kind)

    def take(self, transaction_id: str = "X1", line: int = 1, till: Till | None = None) -> None:
        answer = (till or self.till).lock(self.card, transaction_id, line)
        assert answer.status_code == 201, answer.json
        self.lock_id = answer.json["lock_id"]

    def everything(self) -> list[Any]:
        """Return what the database has of the card and its tills."""
        of_card = self.card.instrument_id
        rows: list[Any] = []
        for table in ("instruments", "live_locks", "lock_events", "postings", "voids", "cases"):
            query = f"SELECT to_jsonb(t) FROM {table} AS t WHERE instrument_id = %s"
            rows += [(table, row[0]) for row in self.hq.sql(query, of_card)]
        presence = "SELECT terminal_id, last_seen_at IS NULL, acknowledged_revision IS NULL"
        rows += self.hq.sql(
            f"{presence} FROM terminal_presence WHERE store_id = %s ORDER BY terminal_id",
            self.till.store_id,
        )
        return sorted(json.dumps(self.without_names(row), sort_keys=True) for row in rows)

    def without_names(self, told: Any) -> Any:
        """Return what was told, the same for two scenes that are alike."""
        text = json.dumps(told, default=str)
        for name, value in (
            ("store", self.till.store_id),
            ("till", self.till.terminal_id),
            ("other", self.other.terminal_id),
            ("card", self.card.instrument_id),
            ("last4", self.card.number[-4:]),
        ):
            text = text.replace(f'"{value}"', f'"<{name}>"')
        text = re.sub(r'"20\d\d-[^"]*[+Z:0-9]"', '"<instant>"', text)
        text = re.sub(r'"[0-9a-f]{8}-[0-9a-f-]{27}"', '"<id>"', text)
        text = re.sub(r'"g1\.[^"]*"', '"<grant>"', text)
        text = re.sub(r'"(bucket|grant_revision|lock_grant_revision)": \d+', r'"\1": "<n>"', text)
        text = re.sub(r'"number_last4": "[^"<]*"', '"number_last4": "<last4>"', text)
        text = re.sub(r'"request_id": "[0-9a-f]{32}"', '"request_id": "<id>"', text)
        text = re.sub(r'"(issue|batch)-[a-z]+"', r'"<\1>"', text)
        text = re.sub(r'"(terminal:|admin:)[a-z0-9]{12}"', r'"<\1>"', text)
        return json.loads(text)


def nothing(_scene: Scene) -> None:
    """The card is as it was issued."""


def locked(scene: Scene) -> None:
    scene.take()


def locked_for_another_line(scene: Scene) -> None:
    scene.take(line=2)


def locked_in_another_transaction(scene: Scene) -> None:
    scene.take("X9")


def locked_by_another_till(scene: Scene) -> None:
    scene.take(till=scene.other)


def redeemed(scene: Scene) -> None:
    scene.take()
    answer = scene.till.redeem(scene.card, "X1", 100, scene.lock_id)
    assert answer.status_code == 201, answer.json


def redeemed_and_locked_again(scene: Scene) -> None:
    redeemed(scene)
    if scene.hq.balance(scene.card):
        scene.take("X2")


def released(scene: Scene) -> None:
    scene.take()
    assert scene.till.release(scene.card, "X1", scene.lock_id).status_code == 200


def voided_before(scene: Scene) -> None:
    assert scene.till.void(scene.card, "X1").status_code == 201


def locked_and_voided(scene: Scene) -> None:
    scene.take()
    voided_before(scene)


def held_before(scene: Scene) -> None:
    line = scene.till.offline_line(scene.card, "X1", 100, currency="NOK")
    posted(scene, line)


def locked_and_held(scene: Scene) -> None:
    scene.take()
    held_before(scene)


def spent_offline(scene: Scene) -> None:
    scene.take()
    posted(scene, scene.till.offline_line(scene.card, "X1", 100, lock_id=scene.lock_id))


def key_used_on_another_card(scene: Scene) -> None:
    elsewhere = scene.hq.issue(BALANCE_MINOR)
    lock_id = scene.till.lock(elsewhere, "X1").json["lock_id"]
    assert scene.till.redeem(elsewhere, "X1", 100, lock_id).status_code == 201
    scene.take("X1", 2)


def key_used_on_another_card_meanwhile(scene: Scene) -> None:
    scene.take()
    elsewhere = scene.hq.issue(BALANCE_MINOR)
    lock_id = scene.till.lock(elsewhere, "X1").json["lock_id"]
    assert scene.till.redeem(elsewhere, "X1", 100, lock_id).status_code == 201


def voided_on_another_card_meanwhile(scene: Scene) -> None:
    scene.take()
    assert scene.till.void(scene.hq.issue(BALANCE_MINOR), "X1").status_code == 201


def retired_while_locked(scene: Scene) -> None:
    scene.take()
    retire(scene)


def retired_before(scene: Scene) -> None:
    retire(scene)


def blocked(scene: Scene) -> None:
    set_status(scene, "blocked")


def locked_and_blocked(scene: Scene) -> None:
    scene.take()
    set_status(scene, "blocked")


def key_revoked(scene: Scene) -> None:
    scene.take()
    key_id = scene.till.key.split("_")[1]
    scene.hq.sql("UPDATE api_keys SET revoked_at = now() WHERE key_id = %s", key_id)


def key_expired(scene: Scene) -> None:
    scene.take()
    key_id = scene.till.key.split("_")[1]
    scene.hq.sql("UPDATE api_keys SET expires_at = now() WHERE key_id = %s", key_id)


def grant_run_out(scene: Scene) -> None:
    scene.take()
    scene.hq.sql(
        "UPDATE instruments SET locked_at = now() - interval '99 days', lock_grant_until ="
        " CASE WHEN lock_grant_until IS NOT NULL THEN now() - interval '9 days' END"
        " WHERE instrument_id = %s",
        scene.card.instrument_id,
    )


def posted(scene: Scene, line: dict[str, Any]) -> None:
    body = {"store_id": scene.till.store_id, "batch_id": a_name("batch"), "lines": [line]}
    answer = scene.till.post("/v1/offline-batches", body)
    assert answer.status_code == 201, answer.json


def retire(scene: Scene) -> None:
    scene.hq.sql(
        "UPDATE terminals SET retired_at = now() WHERE store_id = %s AND terminal_id = %s",
        scene.till.store_id,
        scene.till.terminal_id,
    )


def set_status(scene: Scene, status: str) -> None:
    scene.hq.sql(
        "UPDATE instruments SET status = %s WHERE instrument_id = %s",
        status,
        scene.card.instrument_id,
    )


PASTS: tuple[Past, ...] = (
    nothing,
    locked,
    locked_for_another_line,
    locked_in_another_transaction,
    locked_by_another_till,
    redeemed,
    redeemed_and_locked_again,
    released,
    voided_before,
    locked_and_voided,
    held_before,
    locked_and_held,
    spent_offline,
    key_used_on_another_card,
    key_used_on_another_card_meanwhile,
    voided_on_another_card_meanwhile,
    retired_while_locked,
    retired_before,
    blocked,
    locked_and_blocked,
    key_revoked,
    key_expired,
    grant_run_out,
)


@dataclass(frozen=True)
class Wish:
    """A request, as far as it differs from the plain one."""

    path: str
    amount_minor: Any = 100
    line: Any = 1
    transaction_id: Any = "X1"
    currency: Any = "SEK"
    has_own_lock: bool = True
    is_in_capitals: bool = False
    kind: str | None = None
    more: tuple[tuple[str, Any], ...] = ()
    speaks_for_other: bool = False

    def of(self, scene: Scene) -> dict[str, Any]:
        speaker = scene.other if self.speaks_for_other else scene.till
        body: dict[str, Any] = {}
        if self.path != "/v1/balance-inquiries":
            body |= {**speaker.key_of(self.transaction_id), "line": self.line}
        if self.path == "/v1/redemptions":
            instrument_id = scene.card.instrument_id
            body |= {
                "instrument_id": instrument_id.upper() if self.is_in_capitals else instrument_id,
                "lock_id": scene.lock_id if self.has_own_lock else str(uuid.uuid4()),
                "amount_minor": self.amount_minor,
                "currency": self.currency,
            }
        else:
            body |= {"kind": self.kind or scene.card.kind, "number": scene.card.number}
        if self.path == "/v1/locks":
            body["purpose"] = "redeem"
        return body | dict(self.more)


REDEMPTIONS = st.builds(
    Wish,
    st.just("/v1/redemptions"),
    amount_minor=st.sampled_from(
        [100, 1, BALANCE_MINOR, BALANCE_MINOR + 1, 0, -1, 1.5, "1", 2**63]
    ),
    line=st.sampled_from([1, 1, 1, 2, 0, True]),
    transaction_id=st.sampled_from(["X1", "X1", "X1", "X2", "a b", ""]),
    currency=st.sampled_from(["SEK", "SEK", "SEK", "NOK", "sek", 7]),
    has_own_lock=st.sampled_from([True, True, True, False]),
    is_in_capitals=st.sampled_from([False, False, True]),
    more=st.sampled_from([(), (), (("extra", 1),), (("reason", "none"),)]),
    speaks_for_other=st.sampled_from([False, False, False, True]),
)
LOCKS = st.builds(
    Wish,
    st.just("/v1/locks"),
    line=st.sampled_from([1, 1, 1, 2]),
    transaction_id=st.sampled_from(["X1", "X1", "X2"]),
    kind=st.sampled_from([None, None, None, "credit_memo", "gift_card", "voucher"]),
    more=st.sampled_from([(), (), (), (("amount_minor", 5),), (("number", "short"),)]),
    speaks_for_other=st.sampled_from([False, False, False, True]),
)
BALANCES = st.builds(
    Wish,
    st.just("/v1/balance-inquiries"),
    kind=st.sampled_from([None, None, "credit_memo", "gift_card"]),
    more=st.sampled_from([(), (), (("number", "6006000000000000"),), (("number", 6006),)]),
)


class BothWays:
    """Plays the same in two scenes that are alike: at once where possible, and in full."""

    def __init__(self, hq: Hq, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hq = hq
        self._monkeypatch = monkeypatch
        self.at_once_count = 0

    def play(self, kind: str, past: Past, wish: Wish, *, is_granted: bool) -> TestResponse:
        answers, left = [], []
        for is_in_full in (False, True):
            with self._monkeypatch.context() as patch:
                patch.setattr(at_once, "small_json_body", lambda _request: None)
                scene = Scene(self.hq, kind, is_granted)
                past(scene)
                if not is_in_full:
                    patch.undo()
                    patch.setattr(prepared, "_row", self._counted(prepared._row))
                answers.append(scene.till.post(wish.path, wish.of(scene)))
            told = answers[-1]
            headers = {name for name, _ in told.headers}
            left.append(
                (told.status_code, scene.without_names(told.json), headers, scene.everything())
            )
        assert left[0] == left[1]
        return answers[0]

    def _counted(self, row_of: Callable[..., Any]) -> Callable[..., Any]:
        def counted(own: Any, name: str, values: Any) -> Any:
            row = row_of(own, name, values)
            self.at_once_count += name.endswith("_at_once") and row is not None
            return row

        return counted


@pytest.fixture
def both_ways(hq: Hq, monkeypatch: pytest.MonkeyPatch) -> BothWays:
    return BothWays(hq, monkeypatch)


@given(
    st.sampled_from(["gift_card", "gift_card", "credit_memo"]),
    st.sampled_from(PASTS),
    st.one_of(REDEMPTIONS, LOCKS, BALANCES),
    st.booleans(),
)
@settings(
    max_examples=60,
    derandomize=True,  # the same in every run: each costs two shops
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_both_ways_come_to_the_same(
    both_ways: BothWays, kind: str, past: Past, wish: Wish, is_granted: bool
) -> None:
    both_ways.play(kind, past, wish, is_granted=is_granted)


@pytest.mark.parametrize("path", ["/v1/redemptions", "/v1/locks"])
@pytest.mark.parametrize("past", PASTS, ids=lambda past: past.__name__)
def test_the_plain_request_comes_to_the_same_after_whatever_was_before(
    both_ways: BothWays, past: Past, path: str
) -> None:
    both_ways.play("gift_card", past, Wish(path), is_granted=True)


@pytest.mark.parametrize(
    ("path", "past", "status"),
    [
        ("/v1/redemptions", locked, 201),
        ("/v1/locks", nothing, 201),
        ("/v1/balance-inquiries", locked, 200),
    ],
)
def test_what_most_tills_ask_is_done_at_once(
    both_ways: BothWays, path: str, past: Past, status: int
) -> None:
    answer = both_ways.play("gift_card", past, Wish(path), is_granted=True)
    assert (answer.status_code, both_ways.at_once_count >= 1) == (status, True)


def test_another_lock_than_the_cards_comes_to_the_same(both_ways: BothWays) -> None:
    wish = Wish("/v1/redemptions", has_own_lock=False)
    answer = both_ways.play("gift_card", locked, wish, is_granted=False)
    assert (answer.status_code, answer.json["code"]) == (409, "lock_lost")


def test_a_register_that_acknowledged_something_since_is_granted_by_that(hq: Hq) -> None:
    till, first, second = hq.till(), hq.issue(BALANCE_MINOR), hq.issue(BALANCE_MINOR)
    allowed = {"allow_concluding_gift_card_transactions_offline": True}
    assert hq.save_parameters(till.store_id, **allowed).status_code == 200
    hq.distribute()
    for transaction_id in ("X1", "X2"):  # what its grants depend on is known by now
        lock = till.lock(first, transaction_id).json
        assert lock["offline"]["grant"] is None
        till.release(first, transaction_id, lock["lock_id"])
    assert till.get("/v1/parameters").status_code == 200
    assert till.lock(second, "X3").json["offline"]["allowed"] is True


def test_a_lease_is_as_long_as_what_was_saved_since_says(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(BALANCE_MINOR)
    for transaction_id in ("X1", "X2"):  # what its locks depend on is known by now
        till.release(card, transaction_id, till.lock(card, transaction_id).json["lock_id"])
    assert hq.save_parameters(till.store_id, lease_seconds=60).status_code == 200
    assert till.lock(card, "X3").json["lease"]["seconds"] == 60
