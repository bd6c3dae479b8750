"""docs/online-offline.md, played cell by cell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.support import Card, Hq, Till, a_name, sale_line

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "online-offline.md").read_text("utf-8")
ROWS = {
    what: (online, offline_yes, offline_no)
    for what, online, offline_yes, offline_no in re.findall(
        r"^\| ([a-z][^|]+?) \| [^|]* \| (yes|no) \| (yes|no) \| (yes|no) \|$", TEXT, re.MULTILINE
    )
}
OPERATIONS = ("redeem", "issue", "load", "refund", "cash_out")
AMOUNT_MINOR = 40_00
MODES = ("online", "offline, Yes", "offline, No")


def cell(what: str, mode: str) -> str:
    return ROWS[what][MODES.index(mode)]


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest, hq: Hq) -> str:
    is_allowed = request.param == "offline, Yes"
    hq.set_parameters(
        allow_concluding_gift_card_transactions_offline=is_allowed,
        gift_card_cash_out_threshold_minor={"SEK": 500_00},
    )
    return str(request.param)


@pytest.fixture
def till(hq: Hq, mode: str) -> Till:
    till = hq.till()
    assert till.get("/v1/parameters").status_code == 200
    return till


def locked(hq: Hq, till: Till, operation: str) -> tuple[TestResponse, Card]:
    """Lock an instrument for an operation, online."""
    wish: dict[str, Any] = {"purpose": operation}
    if operation == "issue":
        answer = till.lock_new("X1", AMOUNT_MINOR)
        assert answer.status_code == 201, answer.json
        return answer, hq.card_of(answer)
    if operation in ("load", "refund"):
        wish["amount_minor"] = AMOUNT_MINOR
    card = hq.issue(AMOUNT_MINOR)
    return till.lock(card, "X1", **wish), card


def reason_of(operation: str) -> dict[str, str]:
    return {"reason": "no receipt"} if operation == "refund" else {}


def is_clean(hq: Hq, till: Till, line: dict[str, Any]) -> bool:
    """Tell whether a line of a batch leaves no question."""
    answer = hq.post_batch(till.store_id, [line])
    assert answer.status_code == 201, answer.json
    [result] = answer.json["results"]
    assert result["outcome"] in ("applied", "held"), result
    return result["case_id"] is None


def told(is_so: bool) -> str:
    return "yes" if is_so else "no"


def test_every_row_of_the_table_is_played() -> None:
    locks = {f"lock to {operation.replace('_', ' ')}" for operation in OPERATIONS}
    conclusions = {f"conclude {operation}, locked online" for operation in OPERATIONS}
    others = {"balance inquiry", "release, locked online", "void"}
    assert set(ROWS) == locks | conclusions | others
    assert len(re.findall(r"^\| (?!what|-)", TEXT, re.MULTILINE)) == len(ROWS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_lock_is_taken_online_or_not_at_all(
    hq: Hq, till: Till, mode: str, operation: str
) -> None:
    what = f"lock to {operation.replace('_', ' ')}"
    if mode == "online":
        answer, _ = locked(hq, till, operation)
        assert told(answer.status_code == 201) == cell(what, mode), answer.json
        return
    # Nobody was asked for a lock: what comes all the same is a question.
    card = hq.issue(AMOUNT_MINOR)
    line = till.offline_line(
        card, a_name("X"), AMOUNT_MINOR, operation=operation, **reason_of(operation)
    )
    assert told(is_clean(hq, till, line)) == cell(what, mode)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_was_locked_online_is_concluded(hq: Hq, till: Till, mode: str, operation: str) -> None:
    what = f"conclude {operation}, locked online"
    lock, card = locked(hq, till, operation)
    if mode == "online":
        sold = till.conclude(
            "X1", sale_line(lock, AMOUNT_MINOR, operation=operation, **reason_of(operation))
        )
        assert told(sold.status_code == 201) == cell(what, mode), sold.json
        return
    assert lock.json["offline"]["allowed"] is (cell(what, mode) == "yes")
    line = till.offline_line(
        card,
        "X1",
        AMOUNT_MINOR,
        operation=operation,
        lock_id=lock.json["lock_id"],
        grant=lock.json["offline"]["grant"],
        **reason_of(operation),
    )
    assert told(is_clean(hq, till, line)) == cell(what, mode)


def test_a_balance_is_told_by_hq_and_by_nobody_else(hq: Hq, till: Till, mode: str) -> None:
    card = hq.issue(AMOUNT_MINOR)
    wish = {"kind": card.kind, "number": card.number}
    is_told = till.post("/v1/balance-inquiries", wish).status_code == 200
    # Offline there is nobody to ask: no lock, grant or batch line carries a question.
    assert told(is_told and mode == "online") == cell("balance inquiry", mode)


@pytest.mark.parametrize("operation", ["release", "void"])
def test_a_lock_is_given_back_online_and_offline(
    hq: Hq, till: Till, mode: str, operation: str
) -> None:
    what = "void" if operation == "void" else "release, locked online"
    lock, card = locked(hq, till, "redeem")
    if mode == "online" and operation == "void":
        assert till.void(card, "X1").status_code == 201
    elif mode == "online":
        assert till.release(card, "X1", lock.json["lock_id"]).status_code == 200
    else:
        line = till.offline_line(card, "X1", 0, operation=operation)
        del line["amount_minor"], line["currency"]
        assert is_clean(hq, till, {**line, "lock_id": lock.json["lock_id"]})
    is_free = hq.till().lock(card, "X9").status_code == 201
    assert told(is_free) == cell(what, mode)
