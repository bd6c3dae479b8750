"""Short ways to sell, void and look, for tests whose story is longer than one sale."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from werkzeug.test import TestResponse

from tests.support import KEYRING, Card, Hq, Till, a_name, a_number, sale_line

Result = dict[str, Any]


def redeemed(
    till: Till, card: Card, transaction_id: str, amount_minor: int, line: int = 1
) -> TestResponse:
    """Lock and redeem online; of a used memo what its number leads to."""
    lock = till.lock(card, transaction_id, line)
    assert lock.status_code == 201, lock.json
    at = replace(card, instrument_id=lock.json["instrument"]["instrument_id"])
    done = till.redeem(at, transaction_id, amount_minor, lock.json["lock_id"], line)
    assert done.status_code == 201, done.json
    return done


def sold_instrument(
    hq: Hq, till: Till, transaction_id: str, amount_minor: int, kind: str = "gift_card"
) -> Card:
    """Issue an instrument by a sale."""
    lock = till.lock_new(transaction_id, amount_minor, kind=kind)
    done = till.conclude(transaction_id, sale_line(lock, amount_minor, operation="issue"))
    assert done.status_code == 201, done.json
    return hq.card_of(lock)


def loaded(till: Till, card: Card, transaction_id: str, amount_minor: int) -> None:
    """Lock and load online."""
    lock = till.lock(card, transaction_id, purpose="load", amount_minor=amount_minor)
    done = till.conclude(transaction_id, sale_line(lock, amount_minor, operation="load"))
    assert done.status_code == 201, done.json


def refund(
    till: Till, card: Card, transaction_id: str, amount_minor: int, original: dict[str, Any]
) -> TestResponse:
    """Lock and give back to a card what another line took; the answer may be a refusal."""
    lock = till.lock(card, transaction_id, purpose="refund", amount_minor=amount_minor)
    line = sale_line(lock, amount_minor, operation="refund", original=original)
    return till.conclude(transaction_id, line)


def posted(hq: Hq, till: Till, *lines: dict[str, Any]) -> list[Result]:
    """Post a batch of a till's store and return what its lines came to."""
    answer = hq.post_batch(till.store_id, list(lines))
    assert answer.status_code == 201, answer.json
    assert answer.json["settled_count"] == len(lines)
    results: list[Result] = answer.json["results"]
    return results


def settled(hq: Hq, till: Till, line: dict[str, Any]) -> Result:
    """Post a batch of one line and return what it came to."""
    return posted(hq, till, line)[0]


def void_line(till: Till, card: Card, transaction_id: str, **more: Any) -> dict[str, Any]:
    """Return the line of a batch that voids a key."""
    return without_money(till.offline_line(card, transaction_id, 1, operation="void", **more))


def release_line(till: Till, card: Card, transaction_id: str, **more: Any) -> dict[str, Any]:
    """Return the line of a batch that gives a lock back."""
    return without_money(till.offline_line(card, transaction_id, 1, operation="release", **more))


def without_money(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("amount_minor", "currency")}


def account(hq: Hq, store_id: str, name: str) -> int:
    """Return the debits less the credits of an account of a store."""
    rows = hq.sql(
        "SELECT coalesce(sum(debit_minor - credit_minor), 0)::bigint FROM ledger_entries"
        " WHERE account = %s AND store_id = %s",
        name,
        store_id,
    )
    minor: int = rows[0][0]
    return minor


def state_of(hq: Hq, card: Card) -> tuple[str, int]:
    """Return the status and the balance of the very instrument, wherever its number leads."""
    rows = hq.sql(
        "SELECT status, balance_minor FROM instruments WHERE instrument_id = %s",
        card.instrument_id,
    )
    status, balance_minor = rows[0]
    return status, balance_minor


def remainder_of(hq: Hq, card: Card) -> str | None:
    """Return the id of the memo that the rest of a used one went to."""
    rows = hq.sql(
        "SELECT remainder_id::text FROM instruments WHERE instrument_id = %s", card.instrument_id
    )
    found: str | None = rows[0][0]
    return found


def set_status(hq: Hq, card: Card, status: str) -> None:
    """Give an instrument a status that no till gives it."""
    hq.sql(
        "UPDATE instruments SET status = %s WHERE instrument_id = %s", status, card.instrument_id
    )


def entries_of(hq: Hq, till: Till, transaction_id: str) -> list[tuple[str, int]]:
    """Return the postings of a till's transaction: which, and what was moved."""
    rows = hq.sql(
        "SELECT entry, change_minor FROM postings"
        " WHERE store_id = %s AND terminal_id = %s AND transaction_id = %s"
        " ORDER BY posted_at, version",
        till.store_id,
        till.terminal_id,
        transaction_id,
    )
    return [(entry, change_minor) for entry, change_minor in rows]


def is_free(hq: Hq, card: Card) -> bool:
    """Tell whether the next terminal gets a lock; it is given back at once."""
    till, transaction_id = hq.till(), a_name("F")
    answer = till.lock(card, transaction_id)
    if answer.status_code != 201:
        assert answer.status_code == 423, answer.json
        return False
    assert till.release(card, transaction_id, answer.json["lock_id"]).status_code == 200
    return True


def break_lock(hq: Hq, card: Card, reason: str = "till is in the river") -> None:
    """Let an administrator break the lock of an instrument, accepting what is shown."""
    shown = hq.admin.get(f"/v1/admin/locks/{card.instrument_id}").json
    wish = {
        "instrument_id": card.instrument_id,
        "lock_id": shown["lock_id"],
        "accepted_exposure_minor": shown["exposure_minor"],
        "reason": reason,
    }
    assert hq.admin.post("/v1/admin/lock-breaks", wish).status_code == 201


def connection_of(hq: Hq, till: Till) -> dict[str, Any]:
    """Return the connection status of a till."""
    answer = hq.admin.get(f"/v1/admin/connection-status?store_id={till.store_id}")
    assert answer.status_code == 200, answer.json
    [found] = [one for one in answer.json["registers"] if one["terminal_id"] == till.terminal_id]
    return dict(found)


def audited(hq: Hq, subject: str) -> list[tuple[str, dict[str, Any]]]:
    """Return action and detail of every audit entry of a subject, the oldest first."""
    query = "SELECT action, detail FROM audit_entries WHERE subject = %s ORDER BY number"
    return [(action, json.loads(detail)) for action, detail in hq.sql(query, subject)]


def unissued_card() -> Card:
    """Return a gift card that HQ does not know yet."""
    number = a_number()
    return Card("gift_card", number, str(KEYRING.instrument_id("gift_card", number)), "SEK")


def issue_by_hq(hq: Hq, card: Card, amount_minor: int) -> None:
    """Let HQ issue a card of a given number."""
    wish = {"reference": a_name("issue"), "kind": card.kind, "number": card.number}
    answer = hq.admin.post(
        "/v1/admin/instruments", {**wish, "currency": card.currency, "amount_minor": amount_minor}
    )
    assert answer.status_code == 201, answer.json


@contextmanager
def partial_use(hq: Hq, way: str) -> Iterator[None]:
    """Say for a while what becomes of the rest of a memo that is used in part."""
    hq.set_parameters(credit_memo_partial_use=way)
    try:
        yield
    finally:
        hq.set_parameters(credit_memo_partial_use="reissue")
