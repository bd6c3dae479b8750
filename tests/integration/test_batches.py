"""Offline batches: every form, journals, totals, dry runs, and lines that wait."""

from __future__ import annotations

import gzip
import json
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from werkzeug.test import TestResponse

from hq_service.app import create_app, disconnect
from hq_service.cli import main
from hq_service.domain.actors import Role
from hq_service.operations import offline_batches
from tests.support import (
    GRANT_KEYS,
    KEYRING,
    NUMBER_SECRET,
    Caller,
    Hq,
    Till,
    a_name,
    a_number,
    psycopg_url,
    test_settings,
)


def posted_raw(
    hq: Hq, store_id: str, body: bytes, content_type: str = "application/json", **headers: str
) -> TestResponse:
    sync = hq.sync(store_id)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return hq.client.post(
        "/v1/offline-batches",
        data=body,
        headers={
            "Authorization": f"Bearer {sync.key}",
            "Content-Type": content_type,
            **named,
        },
    )


def ndjson(till: Till, lines: list[dict[str, Any]], **envelope: Any) -> bytes:
    first = {"store_id": till.store_id, "batch_id": a_name("batch"), **envelope}
    return b"".join(json.dumps(one).encode() + b"\n" for one in [first, *lines])


def test_ndjson_is_taken_and_a_cut_off_line_stops_no_other(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    body = ndjson(till, [till.offline_line(card, f"X{n}", 10) for n in range(3)])
    answer = posted_raw(hq, till.store_id, body[:-20], "application/x-ndjson")
    assert answer.status_code == 201, answer.json
    outcomes = [one["outcome"] for one in answer.json["results"]]
    assert outcomes == ["applied", "applied", "quarantined"]
    assert answer.json["results"][2]["reason"] == "the line is not JSON"
    assert hq.balance(card) == 80


def test_gzip_is_taken_and_a_bomb_is_refused(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    body = ndjson(till, [till.offline_line(card, "X1", 10)])
    packed = gzip.compress(body)
    answer = posted_raw(hq, till.store_id, packed, "application/x-ndjson", Content_Encoding="gzip")
    assert answer.status_code == 201, answer.json
    bomb = gzip.compress(b"[" * (2**26 + 1))
    answer = posted_raw(hq, till.store_id, bomb, Content_Encoding="gzip")
    assert (answer.status_code, answer.json["code"]) == (413, "payload_too_large")
    for broken in (packed[:-9], packed + b"x", b"not gzip"):
        answer = posted_raw(hq, till.store_id, broken, Content_Encoding="gzip")
        assert (answer.status_code, answer.json["code"]) == (400, "malformed_body")


def test_a_large_batch_is_kept_and_settled_behind_the_answer(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100_000)
    lines = [till.offline_line(card, f"X{n}", 1) for n in range(10_001)]
    answer = hq.post_batch(till.store_id, lines)
    assert answer.status_code == 202
    assert "results" not in answer.json
    wait_until_settled(hq, answer.headers["Location"])
    assert hq.balance(card) == 100_000 - 10_001


def test_a_large_batch_that_comes_again_while_it_is_settled_is_not_settled_twice_at_once(
    hq: Hq, database_url: str
) -> None:
    till, card = hq.till(), hq.issue(100)
    body = {"store_id": till.store_id, "batch_id": a_name("batch")}
    body["lines"] = [till.offline_line(card, f"X{n}", 1) for n in range(2)]
    app = create_app(test_settings(database_url, batch_synchronous_lines_max=1))
    sync = Caller(app.test_client(), hq.make_key(Role.SYNC, store_id=till.store_id))
    with psycopg.connect(psycopg_url(database_url)) as beside:
        row = "SELECT 1 FROM instruments WHERE instrument_id = %s FOR UPDATE"
        beside.execute(row, (card.instrument_id,))
        answers = [sync.post("/v1/offline-batches", body) for _ in range(4)]
        settling = [one for one in threading.enumerate() if one.name == f"settle-{till.store_id}"]
    assert [answer.status_code for answer in answers] == [202] * 4
    assert len(settling) == 1
    settling[0].join()
    wait_until_settled(hq, answers[0].headers["Location"])
    assert sync.post("/v1/offline-batches", body).status_code == 200
    with app.app_context():
        disconnect()


def wait_until_settled(hq: Hq, location: str) -> None:
    for _ in range(600):
        state = hq.admin.get(location).json
        if state["settled_at"] is not None:
            return
        time.sleep(0.1)
    raise AssertionError(state)


def test_a_dry_run_tells_everything_and_writes_nothing(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    lines = [till.offline_line(card, "X1", 60), till.offline_line(card, "X2", 60), {"x": 1}]
    body = {"store_id": till.store_id, "batch_id": a_name("batch"), "lines": lines}
    sync = hq.sync(till.store_id)
    before = hq.sql("SELECT count(*) FROM offline_batches")
    rehearsed = sync.post("/v1/offline-batches", {**body, "dry_run": True})
    assert rehearsed.status_code == 200, rehearsed.json
    assert hq.sql("SELECT count(*) FROM offline_batches") == before
    assert hq.balance(card) == 100
    real = sync.post("/v1/offline-batches", body)
    assert (rehearsed.json["dry_run"], real.json["dry_run"]) == (True, False)
    assert all(one["case_id"] is not None for one in real.json["results"])
    assert rehearsed.json["results"] == [{**one, "case_id": None} for one in real.json["results"]]


def test_a_dry_run_names_cases_and_memos_that_are_there_and_no_others(hq: Hq) -> None:
    till, memo = hq.till(), hq.issue(100, kind="credit_memo")
    used, short = till.offline_line(memo, "X1", 60), till.offline_line(hq.issue(10), "X2", 20)
    body = {"store_id": till.store_id, "batch_id": a_name("batch"), "lines": [used, short]}
    sync = hq.sync(till.store_id)

    def named(answer: TestResponse) -> list[tuple[str | None, str | None]]:
        return [(one["remainder_id"], one["case_id"]) for one in answer.json["results"]]

    rehearsal = {**body, "batch_id": a_name("batch"), "dry_run": True}
    assert named(sync.post("/v1/offline-batches", rehearsal)) == [(None, None), (None, None)]
    real = sync.post("/v1/offline-batches", body)
    [(remainder_id, _), (_, case_id)] = named(real)
    assert remainder_id is not None
    assert case_id is not None
    assert named(sync.post("/v1/offline-batches", rehearsal)) == named(real)


def test_a_file_that_is_a_dry_run_is_not_posted(hq: Hq, database_url: str, tmp_path: Path) -> None:
    till, card = hq.till(), hq.issue(100)
    lines = [till.offline_line(card, "X1", 60), {"x": 1}]
    body = {"store_id": till.store_id, "batch_id": a_name("batch"), "lines": lines}
    file = tmp_path / "batch.json"
    file.write_text(json.dumps({**body, "dry_run": True}), encoding="utf-8")
    environment = {
        "DATABASE_URL": database_url,
        "HQ_NUMBER_SECRET": NUMBER_SECRET.hex(),
        "HQ_GRANT_KEYS": f"k1:{GRANT_KEYS.masters['k1'].hex()}",
    }
    done = CliRunner().invoke(main, ["settle-file", str(file)], env=environment)
    assert done.exit_code == 0, done.output
    told = "dry run, nothing is kept: 2 lines: 1 applied, 1 quarantined"
    assert told in done.output
    assert hq.balance(card) == 100
    query = "SELECT count(*) FROM offline_batches WHERE batch_id = %s"
    assert hq.sql(query, body["batch_id"]) == [(0,)]


def test_journals_tell_gaps_and_up_to_where_the_till_may_purge(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    lines = [till.offline_line(card, f"X{n}", 1) for n in range(1, 7)]
    answer = hq.post_batch(till.store_id, [lines[0], lines[1], lines[4]])
    assert answer.json["journals"] == [
        {
            "terminal_id": till.terminal_id,
            "journal_id": till.journal_id,
            "acknowledged_through": 2,
            "gaps": [{"first": 3, "last": 4}],
        }
    ]
    assert open_notices(hq, till.store_id) == [["sequence_gap"]]
    answer = hq.post_batch(till.store_id, [lines[3], lines[2]])
    assert answer.json["journals"][0]["acknowledged_through"] == 5
    assert answer.json["journals"][0]["gaps"] == []
    assert open_notices(hq, till.store_id) == []


def open_notices(hq: Hq, store_id: str) -> list[list[str]]:
    rows = hq.sql(
        "SELECT codes FROM cases WHERE store_id = %s AND outcome = 'noticed'"
        " AND resolved_at IS NULL ORDER BY codes",
        store_id,
    )
    return [row[0] for row in rows]


def test_quarantined_and_held_lines_count_as_arrived(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    unreadable = till.offline_line(card, "X1", 1)
    unreadable["amount_minor"] = "one"
    held = till.offline_line(card, "X2", 1, currency="EUR")
    answer = hq.post_batch(till.store_id, [unreadable, held])
    assert [one["outcome"] for one in answer.json["results"]] == ["quarantined", "held"]
    assert answer.json["journals"][0]["acknowledged_through"] == 2


def test_a_sequence_that_comes_again_with_other_content_is_posted_and_told(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    first = till.offline_line(card, "X1", 10)
    hq.post_batch(till.store_id, [first])
    reused = {**till.offline_line(card, "X2", 20), "sequence": first["sequence"]}
    result = hq.post_batch(till.store_id, [reused]).json["results"][0]
    assert result["outcome"] == "applied"
    assert "sequence_reused" in result["codes"]
    assert hq.balance(card) == 70
    again = hq.post_batch(till.store_id, [first]).json["results"][0]
    assert again["outcome"] == "duplicate"


def test_a_re_imaged_till_that_counts_from_1_again_loses_nothing(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    hq.post_batch(till.store_id, [till.offline_line(card, "X1", 10)])
    till.journal_id, till.sequence = "new-journal", 0
    result = hq.post_batch(till.store_id, [till.offline_line(card, "X2", 20)])
    assert result.json["results"][0]["outcome"] == "applied"
    assert "sequence_reused" not in result.json["results"][0]["codes"]
    assert result.json["journals"][0]["acknowledged_through"] == 1
    assert hq.balance(card) == 70


def test_control_totals_that_agree_are_quiet_and_others_make_one_case(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    right = {"lines_count": 2, "amounts_minor": {"SEK": 30}}
    lines = [till.offline_line(card, "X1", 10), till.offline_line(card, "X2", 20)]
    posted_raw(
        hq,
        till.store_id,
        ndjson(till, lines, control_totals=right),
        "application/x-ndjson",
    )
    assert open_notices(hq, till.store_id) == []
    wrong = {"lines_count": 3, "amounts_minor": {"SEK": 30}}
    lines = [till.offline_line(card, "X3", 10), till.offline_line(card, "X4", 20)]
    posted_raw(
        hq,
        till.store_id,
        ndjson(till, lines, control_totals=wrong),
        "application/x-ndjson",
    )
    assert open_notices(hq, till.store_id) == [["control_total_mismatch"]]
    assert hq.balance(card) == 40


@pytest.mark.parametrize(
    "totals",
    [
        1,
        {},
        {"lines_count": "2", "amounts_minor": {}},
        {"lines_count": 2, "amounts_minor": {"XYZ": 1}},
    ],
)
def test_control_totals_of_another_form_are_refused(hq: Hq, totals: Any) -> None:
    till, card = hq.till(), hq.issue(100)
    lines = [till.offline_line(card, "X1", 10)]
    body = {
        "store_id": till.store_id,
        "batch_id": "b",
        "lines": lines,
        "control_totals": totals,
    }
    answer = hq.sync(till.store_id).post("/v1/offline-batches", body)
    assert answer.status_code == 422
    assert answer.json["errors"][0]["pointer"] == "/control_totals"


def test_a_line_that_waits_for_its_card_is_judged_again_when_it_arrives(hq: Hq) -> None:
    till, number = hq.till(), a_number()
    line = till.offline_line(hq.issue(1), "X1", 40)
    del line["instrument_id"]
    line |= {"kind": "gift_card", "number": number}
    result = hq.post_batch(till.store_id, [line]).json["results"][0]
    assert result["codes"] == ["unknown_instrument"]
    issued = hq.admin.post(
        "/v1/admin/instruments",
        {
            "reference": a_name("issue"),
            "kind": "gift_card",
            "number": number,
            "currency": "SEK",
            "amount_minor": 100,
        },
    )
    assert issued.status_code == 201
    hq.post_batch(till.store_id, [till.offline_line(hq.issue(10), "X2", 1)])
    balance = hq.admin.post("/v1/balance-inquiries", {"kind": "gift_card", "number": number})
    assert balance.json["balance_minor"] == 60
    again = hq.post_batch(till.store_id, [line]).json["results"][0]
    assert (again["outcome"], again["original_outcome"]) == ("duplicate", "applied")


def test_a_refund_that_waits_for_its_original_is_judged_again(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    original = {**till.key_of("X1")}
    refund = till.offline_line(card, "R1", 30, operation="refund", original=original)
    result = hq.post_batch(till.store_id, [refund]).json["results"][0]
    assert result["codes"] == ["unknown_original"]
    assert hq.balance(card) == 100
    hq.post_batch(till.store_id, [till.offline_line(card, "X1", 50)])
    assert hq.balance(card) == 80


def test_too_many_refunds_offline_are_held(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    lines = [till.offline_line(card, "X1", 50)]
    lines += [
        till.offline_line(card, name, 30, operation="refund", original=till.key_of("X1"))
        for name in ("R1", "R2")
    ]
    results = hq.post_batch(till.store_id, lines).json["results"]
    assert results[1]["outcome"] == "applied"
    assert results[2]["codes"] == ["refund_exceeds_original"]
    applied = hq.resolve(results[2]["case_id"], "apply")
    assert applied.json["outcome"] == "applied"
    assert hq.balance(card) == 110


def test_an_old_sale_and_a_wrong_clock_make_one_case_per_terminal_and_batch(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    lines = [
        till.offline_line(card, f"X{n}", 1, concluded_at="2020-01-01T00:00:00Z") for n in range(3)
    ]
    hq.post_batch(till.store_id, lines)
    assert open_notices(hq, till.store_id) == [["too_old"]]


def test_a_granted_issue_creates_its_card_although_hq_forgot_it(hq: Hq) -> None:
    till, number = hq.till(), a_number()
    hq.allow_offline(till)
    lock = till.lock_new("X1", 100, number=number)
    card = hq.card_of(lock, number)
    hq.sql("DELETE FROM live_locks WHERE instrument_id = %s", card.instrument_id)
    hq.sql("DELETE FROM instruments WHERE instrument_id = %s", card.instrument_id)
    grant = lock.json["offline"]["grant"]
    line = till.offline_line(card, "X1", 100, operation="issue", grant=grant)
    result = hq.post_batch(till.store_id, [line]).json["results"][0]
    assert (result["outcome"], result["codes"]) == ("applied", ["lock_reconstructed"])
    assert hq.balance(card) == 100


def test_one_grant_funds_one_line(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    hq.allow_offline(till)
    grant = till.lock(card, "X1", 1).json["offline"]["grant"]
    lines = [
        till.offline_line(card, "X1", 50, 1, grant=grant),
        till.offline_line(card, "X1", 50, 2, grant=grant),
    ]
    results = hq.post_batch(till.store_id, lines).json["results"]
    assert results[0]["codes"] == []
    assert results[1]["codes"] == ["lock_already_used"]
    assert hq.balance(card) == 50


def test_a_partial_memo_redemption_whose_answer_was_lost_tells_the_same_number(hq: Hq) -> None:
    till, memo = hq.till(), hq.issue(100, kind="credit_memo")
    lock = till.lock(memo, "X1")
    first = till.redeem(memo, "X1", 30, lock.json["lock_id"]).json["remainder"]
    again = till.redeem(memo, "X1", 30, lock.json["lock_id"])
    assert again.status_code == 200
    assert again.json["remainder"] == first
    assert str(KEYRING.instrument_id("credit_memo", first["number"])) == first["instrument_id"]


def test_an_offline_partial_memo_redemption_leaves_a_remainder_under_the_old_number(
    hq: Hq,
) -> None:
    till, memo = hq.till(), hq.issue(100, kind="credit_memo")
    till.lock(memo, "X1")
    result = hq.post_batch(till.store_id, [till.offline_line(memo, "X1", 30)]).json["results"][0]
    assert result["remainder_id"] is not None
    assert hq.balance(memo) == 70
    lock = hq.till().lock(memo, "X2")
    assert lock.json["instrument"]["instrument_id"] == result["remainder_id"]


def test_another_stores_batch_and_its_lines_are_not_there(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    location = hq.post_batch(till.store_id, [till.offline_line(card, "X1", 1)]).headers["Location"]
    stranger: Caller = hq.sync(hq.make_store())
    for path in (location, f"{location}/lines"):
        assert stranger.get(path).json["code"] == "batch_not_found"


def test_a_line_that_mixes_up_two_locks_poisons_neither_its_batch_nor_the_next(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(100)
    hq.allow_offline(till)
    grant = till.lock(card, "X1").json["offline"]["grant"]
    hq.post_batch(till.store_id, [till.offline_line(card, "X1", 10, grant=grant)])
    mixed = till.offline_line(card, "X1", 20, line=2, grant=grant, lock_id=card.instrument_id)
    answer = hq.post_batch(till.store_id, [mixed])
    assert answer.status_code == 201
    assert answer.json["results"][0]["codes"] == ["lock_already_used"]
    assert hq.post_batch(till.store_id, [till.offline_line(card, "X2", 5)]).status_code == 201


def test_a_batch_that_cannot_be_settled_keeps_no_other_waiting(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    till, card = hq.till(), hq.issue(100)
    stuck = {
        "store_id": till.store_id,
        "batch_id": a_name("stuck"),
        "lines": [till.offline_line(card, "X1", 10)],
    }
    sync = hq.sync(till.store_id)
    with monkeypatch.context() as patch:
        patch.setattr(offline_batches, "settle", failing)
        assert sync.post("/v1/offline-batches", stuck).status_code == 500
    settle_batch = offline_batches.settle_batch

    def settle_others(store_id: str, batch_id: str, *rest: Any, **more: Any) -> None:
        if batch_id == stuck["batch_id"]:
            raise ArithmeticError
        settle_batch(store_id, batch_id, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(offline_batches, "settle_batch", settle_others)
        assert hq.post_batch(till.store_id, [till.offline_line(card, "X2", 5)]).status_code == 201
    assert hq.balance(card) == 95
    assert sync.post("/v1/offline-batches", stuck).status_code == 200
    assert hq.balance(card) == 85


def failing(*_: Any, **__: Any) -> Any:
    raise ArithmeticError
