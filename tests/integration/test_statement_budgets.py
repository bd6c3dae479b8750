"""How many statements an operation sends: a budget that no machine changes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from werkzeug.test import TestResponse

from hq_service.operations import breaks
from hq_service.store import parameters, prepared
from hq_service.store.database import db
from tests.support import Hq, Till, a_name, sale_line


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collect every statement that any connection of this process sends."""
    sent: list[str] = []
    execute: Callable[..., Any] = psycopg.Cursor.execute
    executemany: Callable[..., Any] = psycopg.Cursor.executemany

    def counted_many(self: Any, query: Any, rows: Any, **keywords: Any) -> Any:
        rows = list(rows)
        sent.extend([str(query)] * len(rows))
        return executemany(self, query, rows, **keywords)

    def counted(self: Any, query: Any, *arguments: Any, **keywords: Any) -> Any:
        sent.append(str(query))
        return execute(self, query, *arguments, **keywords)

    row_of = prepared._row

    def counted_row(own: Any, name: str, values: Any) -> Any:
        sent.append(name)
        return row_of(own, name, values)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", counted)
        patch.setattr(psycopg.Cursor, "executemany", counted_many)
        patch.setattr(prepared, "_row", counted_row)
        yield sent


def budget_of(
    monkeypatch: pytest.MonkeyPatch, request: Callable[[], TestResponse], status: int
) -> int:
    """Return how many statements a request sends, once what can be kept is kept."""
    with counting(monkeypatch) as sent:
        answer = request()
    assert answer.status_code == status, answer.json
    return len(sent)


def budgets_of_a_sale(hq: Hq, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Return how many statements a lock, a redemption, a denied lock and a balance send."""
    till, card = hq.till(), hq.issue(1_000)
    refused = hq.till(till.store_id)
    for one in (till, refused):  # parameters and what is known of the registers are kept
        one.redeem(card, "warm", 1, one.lock(card, "warm").json["lock_id"])
    answers: dict[str, TestResponse] = {}

    def lock() -> TestResponse:
        answers["lock"] = till.lock(card, "X1")
        return answers["lock"]

    counts = {
        "lock": budget_of(monkeypatch, lock, 201),
        "denied": budget_of(monkeypatch, lambda: refused.lock(card, "X2"), 423),
    }
    lock_id = answers["lock"].json["lock_id"]
    counts["redeem"] = budget_of(monkeypatch, lambda: till.redeem(card, "X1", 10, lock_id), 201)
    asked = {"kind": card.kind, "number": card.number}
    counts["balance"] = budget_of(
        monkeypatch, lambda: till.post("/v1/balance-inquiries", asked), 200
    )
    return counts


def test_what_tills_ask_all_day_is_one_statement(hq: Hq, monkeypatch: pytest.MonkeyPatch) -> None:
    assert budgets_of_a_sale(hq, monkeypatch) == {
        "lock": AT_ONCE,
        "denied": AT_ONCE,
        "redeem": AT_ONCE,
        "balance": AT_ONCE,
    }


def test_a_lock_a_redemption_and_a_balance_have_a_budget_when_carried_out_in_full(
    hq: Hq, in_full: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert budgets_of_a_sale(hq, monkeypatch) == {
        "lock": SIGN_IN + LOCK_STATEMENTS,
        "denied": SIGN_IN + DENIED_STATEMENTS,
        "redeem": SIGN_IN + REDEEM_STATEMENTS,
        "balance": SIGN_IN + BALANCE_STATEMENTS,
    }


AT_ONCE = 1
SIGN_IN = 1
LOCK_STATEMENTS = 4  # read instrument, read facts, set lock, list it
DENIED_STATEMENTS = 2  # read instrument, read facts: nothing is written
# Rows, voids, postings, held lines; what is in force; lost locks are not asked for;
# posting, instrument, lock list; presence read.
REDEEM_STATEMENTS = 9
BALANCE_STATEMENTS = 1


REVISIONS = 40
COLD = 1  # all revisions that say something for a store, in one statement


def work_of(
    hq: Hq, monkeypatch: pytest.MonkeyPatch, till: Till
) -> tuple[int, int, int, dict[str, int]]:
    """Return how many statements a lock, a redemption and a batch send, and what is kept."""
    card, sale, sold = hq.issue(100), a_name("X"), hq.issue(100)
    sync = hq.sync(till.store_id)
    locked: list[TestResponse] = []

    def lock() -> TestResponse:
        locked.append(till.lock(card, sale))
        return locked[-1]

    body = {"store_id": till.store_id, "batch_id": a_name("batch")}
    body["lines"] = [till.offline_line(sold, a_name("X"), 1)]
    of_lock = budget_of(monkeypatch, lock, 201)
    lock_id = locked[0].json["lock_id"]
    of_redeem = budget_of(monkeypatch, lambda: till.redeem(card, sale, 1, lock_id), 201)
    of_batch = budget_of(monkeypatch, lambda: sync.post("/v1/offline-batches", body), 201)
    with hq.app.app_context():
        kept = parameters._kept[db.engine]
    sizes = {"company": len(kept.company.revisions), "stores": len(kept.stores)}
    return of_lock, of_redeem, of_batch, sizes


def forget(hq: Hq) -> None:
    """Make the process as one that has just been started."""
    with hq.app.app_context():
        parameters._kept.pop(db.engine, None)


@pytest.fixture
def many_revisions(hq: Hq) -> None:
    for place in range(REVISIONS):
        hq.save_parameters(lease_seconds=1_000 + place)


def test_many_revisions_are_read_in_one_statement_when_nothing_is_kept(
    hq: Hq, monkeypatch: pytest.MonkeyPatch, many_revisions: None
) -> None:
    till = hq.till()
    for place in range(3):
        hq.save_parameters(till.store_id, lease_seconds=2_000 + place)
    *warm, _ = work_of(hq, monkeypatch, till)
    *warm, _ = work_of(hq, monkeypatch, till)
    batches = []
    for _ in range(2):  # of a process that was just started, and of one that was not
        body = {"store_id": till.store_id, "batch_id": a_name("batch")}
        body["lines"] = [till.offline_line(hq.issue(100), a_name("X"), 1)]
        sync = hq.sync(till.store_id)
        if not batches:
            forget(hq)
        send = lambda body=body, sync=sync: sync.post("/v1/offline-batches", body)  # noqa: E731
        batches.append(budget_of(monkeypatch, send, 201))
    assert batches == [warm[2] + COLD, warm[2]]
    forget(hq)
    *cold, sizes = work_of(hq, monkeypatch, till)
    assert cold == [warm[0] + COLD, *warm[1:]]
    assert sizes["company"] >= REVISIONS


def test_more_stores_than_are_kept_cost_one_statement_each_time_and_no_more(
    hq: Hq, monkeypatch: pytest.MonkeyPatch, many_revisions: None
) -> None:
    monkeypatch.setattr(parameters, "STORES_KEPT_MAX", 2)
    tills = [hq.till() for _ in range(4)]
    for till in tills:
        work_of(hq, monkeypatch, till)  # the first lock of a till notes its presence
    *warm, _ = work_of(hq, monkeypatch, tills[-1])
    for till in tills * 2:
        *first, sizes = work_of(hq, monkeypatch, till)
        assert sizes["stores"] <= 2, "stores do not multiply revisions"
        assert sum(first) <= sum(warm) + COLD
        *again, _ = work_of(hq, monkeypatch, till)
        assert again == warm, "what was used last is kept"


def test_what_is_kept_of_one_store_and_of_the_company_is_never_mixed_up(hq: Hq) -> None:
    stores = [hq.make_store() for _ in range(3)]
    saved: dict[str, dict[int, tuple[int, int]]] = {store_id: {} for store_id in stores}
    company: int | None = None
    own: dict[str, int] = {}
    for place in range(12):
        where = (None, *stores)[place % 4]
        hq.save_parameters(where, lease_seconds=3_000 + place)
        if where is None:
            company = 3_000 + place
        else:
            own[where] = 3_000 + place
        assert company is not None
        for store_id in stores:
            told = hq.admin.get(f"/v1/admin/stores/{store_id}/parameters").json
            lease_seconds = told["parameters"]["lease_seconds"]
            assert lease_seconds == own.get(store_id, company)
            saved[store_id][told["revision"]] = (told["revision"], lease_seconds)
    for _ in range(2):  # as it was kept bit by bit, and as it is read at once
        with hq.app.app_context():
            for store_id in stores:
                found = parameters.all_of_store(store_id)
                seen = {
                    one: (found[one].revision, found[one].lease_seconds) for one in saved[store_id]
                }
                assert seen == saved[store_id]
            db.session.rollback()
        forget(hq)


def test_a_fetch_of_the_parameters_has_a_budget(hq: Hq, monkeypatch: pytest.MonkeyPatch) -> None:
    till = hq.till()
    sync = hq.sync(till.store_id)
    sync.get("/v1/parameters")  # the revision is kept
    seen = []

    def fetch(**headers: str) -> TestResponse:
        seen.append(till.get("/v1/parameters", **headers))
        return seen[-1]

    assert budget_of(monkeypatch, fetch, 200) == FETCH_STATEMENTS + ACKNOWLEDGEMENT
    assert budget_of(monkeypatch, fetch, 200) == FETCH_STATEMENTS
    etag = seen[-1].headers["ETag"]
    assert budget_of(monkeypatch, lambda: fetch(If_None_Match=etag), 304) == FETCH_STATEMENTS
    of_sync = budget_of(monkeypatch, lambda: sync.get("/v1/parameters"), 200)
    assert of_sync == FETCH_STATEMENTS - 1  # nobody's presence


FETCH_STATEMENTS = SIGN_IN + 2  # what the store has applied; when the till fetched
ACKNOWLEDGEMENT = 1


@pytest.mark.parametrize("registers", [1, 5])
def test_the_states_of_all_registers_are_one_statement(
    hq: Hq, monkeypatch: pytest.MonkeyPatch, registers: int
) -> None:
    store_id = hq.make_store()
    for _ in range(registers):
        assert hq.till(store_id).get("/v1/parameters").status_code == 200
    path = "/v1/admin/parameters/states"
    assert budget_of(monkeypatch, lambda: hq.admin.get(path), 200) == SIGN_IN + 1


@pytest.mark.parametrize("lines", [1, 100, 500])
def test_a_chunk_sends_the_same_number_of_statements_whatever_its_size(
    hq: Hq, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    assert chunk_statements(hq, monkeypatch, lines) == chunk_statements(hq, monkeypatch, 1)


def chunk_statements(hq: Hq, monkeypatch: pytest.MonkeyPatch, lines: int) -> int:
    till, card = hq.till(), hq.issue(10_000)
    batch = [till.offline_line(card, f"X{place}", 1) for place in range(lines)]
    sync = hq.sync(till.store_id)
    body = {"store_id": till.store_id, "batch_id": a_name("batch"), "lines": batch}
    with counting(monkeypatch) as sent:
        assert sync.post("/v1/offline-batches", body).status_code == 201
    return len(sent)


def test_each_further_chunk_has_a_budget(hq: Hq, monkeypatch: pytest.MonkeyPatch) -> None:
    one_by_one = dataclasses.replace(hq.app.config["SETTINGS"], settle_chunk_lines=1)
    monkeypatch.setitem(hq.app.config, "SETTINGS", one_by_one)

    def sent(lines: int) -> int:
        till = hq.till()
        cards = [hq.issue(10) for _ in range(lines)]
        batch = [till.offline_line(card, a_name("X"), 10) for card in cards]
        for line, card in zip(batch, cards, strict=True):
            assert till.lock(card, line["transaction_id"], line["line"]).status_code == 201
        return budget_of(monkeypatch, lambda: hq.post_batch(till.store_id, batch), 201)

    sent(1)  # what can be kept is kept
    assert sent(5) - sent(2) == 3 * CHUNK_STATEMENTS


# Header; how to plan; journals made and locked; cards locked; voids, postings, held lines; results,
# cases, postings, cards, lock list, journals, header. Registers and parameters once per batch.
CHUNK_STATEMENTS = 15
# Header; how to plan; journals made and locked; what was posted; results, header.
REPEATED_CHUNK_STATEMENTS = 7
# Received: header, part. Told: header, outcomes, journals, results. Of the batch as a whole: what
# else is unsettled, registers, newest revision; gaps, and notices of them that are to be closed.
BATCH_STATEMENTS = 11
WAITING_LINES = 1


def test_a_batch_of_repeated_lines_locks_no_instrument_and_looks_for_nothing_else(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    till = hq.till()
    sync = hq.sync(till.store_id)
    batch = [till.offline_line(hq.issue(10), a_name("X"), 10) for _ in range(3)]

    def sent() -> int:
        body = {"store_id": till.store_id, "batch_id": a_name("batch"), "lines": batch}
        return budget_of(monkeypatch, lambda: sync.post("/v1/offline-batches", body), 201)

    sent()  # what can be kept is kept
    assert sent() == SIGN_IN + BATCH_STATEMENTS + REPEATED_CHUNK_STATEMENTS
    cards = [hq.issue(10) for _ in range(3)]
    batch = [till.offline_line(card, a_name("X"), 10) for card in cards]
    for line, card in zip(batch, cards, strict=True):
        assert till.lock(card, line["transaction_id"], line["line"]).status_code == 201
    assert sent() == SIGN_IN + BATCH_STATEMENTS + CHUNK_STATEMENTS + WAITING_LINES


def test_what_a_session_has_prepared_outlives_what_it_reads(hq: Hq) -> None:
    till = hq.till()
    with hq.app.app_context():
        for _ in range(6):  # the driver prepares what it has sent five times
            hq.post_batch(till.store_id, [till.offline_line(hq.issue(1), a_name("X"), 1)])
        prepared = db.session.connection().exec_driver_sql(
            "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%INTO postings%%'"
        )
        assert prepared.scalar() == 1
        db.session.rollback()


def test_what_is_in_memory_or_settled_is_not_read_back(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    till, card = hq.till(), hq.issue(10)
    body = {"store_id": till.store_id, "batch_id": a_name("batch")}
    body["lines"] = [till.offline_line(card, f"X{place}", 1) for place in range(3)]
    sync = hq.sync(till.store_id)
    for status in (201, 200):
        with counting(monkeypatch) as sent:
            assert sync.post("/v1/offline-batches", body).status_code == status
            about_parts = [one for one in sent if "offline_batch_parts" in one]
            assert len(about_parts) == (1 if status == 201 else 0)
            assert all("INSERT INTO" in one for one in about_parts)


def test_a_sale_of_ten_lines_sends_as_many_statements_as_one_of_one(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sale_statements(hq, monkeypatch, 10) == sale_statements(hq, monkeypatch, 1)


def sale_statements(hq: Hq, monkeypatch: pytest.MonkeyPatch, lines: int) -> int:
    till: Till = hq.till()
    till.lock(hq.issue(1), "warm")
    sale = a_name("X")
    locked = [till.lock(hq.issue(10), sale, line) for line in range(1, lines + 1)]
    wish = [sale_line(lock, 10, line) for line, lock in enumerate(locked, start=1)]
    return budget_of(monkeypatch, lambda: till.conclude(sale, *wish), 201)


@pytest.mark.parametrize("count", [1, 25])
def test_a_till_reads_its_own_locks_in_as_many_statements_however_many_there_are(
    hq: Hq, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    till = hq.till()
    assert till.get("/v1/locks").status_code == 200  # parameters are kept
    nothing = budget_of(monkeypatch, lambda: till.get("/v1/locks"), 200)
    assert nothing == OWN_LOCKS_STATEMENTS
    for place in range(count):
        assert till.lock(hq.issue(1), "sale", place + 1).status_code == 201
    told = budget_of(monkeypatch, lambda: till.get("/v1/locks"), 200)
    assert told == OWN_LOCKS_STATEMENTS + CONFIRMATION


OWN_LOCKS_STATEMENTS = SIGN_IN + 2  # what is in force; a page, joined with instruments and presence
CONFIRMATION = 1  # that the standby has what is told


@pytest.mark.parametrize("count", [1, 25])
def test_a_page_of_locks_has_a_budget_whatever_its_length(
    hq: Hq, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    tills = [hq.till() for _ in range(3)]
    for place in range(count):
        assert tills[place % 3].lock(hq.issue(1), f"L{place}").status_code == 201
    for path in ("/v1/admin/locks?limit=200", "/v1/admin/locks?state=active"):
        assert hq.admin.get(path).status_code == 200  # parameters are kept
        sent = budget_of(monkeypatch, lambda path=path: hq.admin.get(path), 200)
        assert sent == LOCK_LIST_STATEMENTS


# Newest revisions; one page part, joined with instruments and presence.
LOCK_LIST_STATEMENTS = SIGN_IN + 2


def test_each_further_part_of_a_page_of_locks_is_one_statement(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    till = hq.till()
    for place in range(5):
        assert till.lock(hq.issue(1), f"L{place}").status_code == 201
    path = f"/v1/admin/locks?store_id={till.store_id}&state=lapsed"
    assert hq.admin.get(path).status_code == 200
    monkeypatch.setattr(breaks, "PART_LOCKS", 2)
    sent = budget_of(monkeypatch, lambda: hq.admin.get(path), 200)
    assert sent == LOCK_LIST_STATEMENTS + 2


def test_pages_of_cases_and_of_the_audit_are_one_statement(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    till, card = hq.till(), hq.issue(1_000)
    hq.post_batch(till.store_id, [till.offline_line(card, f"X{place}", 1) for place in range(9)])
    for path, statements in (
        ("/v1/admin/cases", 1),
        (f"/v1/admin/cases?store_id={till.store_id}&code=no_lock&state=all", 1),
        ("/v1/admin/cases/summary", 2),
        ("/v1/admin/audit-entries?order=newest", 1),
    ):
        sent = budget_of(monkeypatch, lambda path=path: hq.admin.get(path), 200)
        assert sent == SIGN_IN + statements, path


@pytest.mark.parametrize("others", [0, 40])
def test_a_story_has_a_budget_however_much_happened(
    hq: Hq, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    till, card = hq.till(), hq.issue(1_000)
    for place in range(others // 2):
        lock = till.lock(card, f"R{place}")
        till.release(card, f"R{place}", lock.json["lock_id"])
    lines = [till.offline_line(card, f"X{place}", 1) for place in range(others)]
    last = till.offline_line(card, "last", 2_000)
    result = hq.post_batch(till.store_id, [*lines, last]).json["results"][-1]
    path = f"/v1/admin/cases/{result['case_id']}"
    assert hq.admin.get(path).status_code == 200
    assert budget_of(monkeypatch, lambda: hq.admin.get(path), 200) == STORY_STATEMENTS


# Case; line and result; instrument; three kinds of postings; ended locks; batch; voids; other
# cases; two for the rules of now. To recover: instrument, count of postings. To reverse: rows,
# voids, postings, held lines, two of locks, what was recovered.
STORY_STATEMENTS = SIGN_IN + 23


@pytest.mark.parametrize("locks", [0, 1, 8])
def test_a_heartbeat_is_one_write_whatever_the_number_of_its_locks(
    hq: Hq, monkeypatch: pytest.MonkeyPatch, locks: int
) -> None:
    till = hq.till()
    for number in range(locks):
        assert till.lock(hq.issue(1), f"X{number}").status_code == 201
    revision = till.heartbeat().json["parameters"]["revision"]  # what is in force is kept
    tips = {f"J{number}": number for number in range(20)}
    with counting(monkeypatch) as sent:
        assert till.heartbeat(journal_tips=tips).status_code == 200
    assert len(sent) == HEARTBEAT_STATEMENTS
    assert len([one for one in sent if re.search(r"\b(INSERT|UPDATE|DELETE)\b.*\n", one)]) == 1
    acknowledging = budget_of(monkeypatch, lambda: till.heartbeat(parameter_revision=revision), 200)
    assert acknowledging == HEARTBEAT_STATEMENTS + ACKNOWLEDGEMENT
    again = budget_of(monkeypatch, lambda: till.heartbeat(parameter_revision=revision), 200)
    assert again == HEARTBEAT_STATEMENTS


HEARTBEAT_STATEMENTS = SIGN_IN + 3  # what the answer depends on; the presence; the journals


@pytest.mark.parametrize("registers", [1, 12])
def test_what_is_watched_is_read_in_the_same_number_of_statements_however_many_registers(
    hq: Hq, monkeypatch: pytest.MonkeyPatch, registers: int
) -> None:
    store_id = hq.make_store()
    tills = [hq.till(store_id) for _ in range(registers)]
    hq.allow_offline(*tills)
    for till in tills:
        till.heartbeat()
        till.lock(hq.issue(1), "X1")
        hq.post_batch(store_id, [till.offline_line(hq.issue(1), "X2", 1)])
    of_store = f"store_id={store_id}"
    paths = {
        f"/v1/admin/connection-status?{of_store}": STATUS_STATEMENTS,
        f"/v1/admin/connection-status?{of_store}&state=online": STATUS_STATEMENTS,
        f"/v1/admin/stores/{store_id}/exposure": STATUS_STATEMENTS,
        f"/v1/admin/completeness?business_date=2025-01-31&{of_store}": COMPLETENESS_STATEMENTS,
        "/v1/admin/cache-resets": SIGN_IN + 1,
    }
    for path, statements in paths.items():
        assert budget_of(monkeypatch, lambda path=path: hq.admin.get(path), 200) == statements, path


STATUS_STATEMENTS = SIGN_IN + 5  # the store; registers; what is in force; locks; journals
COMPLETENESS_STATEMENTS = SIGN_IN + 2  # the store; everything of a part of the registers


@pytest.mark.parametrize("stores", [1, 50])
def test_a_run_has_a_budget_however_many_stores_and_jobs(
    hq: Hq, monkeypatch: pytest.MonkeyPatch, stores: int
) -> None:
    jobs = ["1110", "P-0001", "1070", "1090"]
    schedule_id = hq.make_schedule(*jobs)
    store_ids = [hq.make_store() for _ in range(stores)]
    for store_id in store_ids[: stores // 2 + 1]:
        hq.save_parameters(store_id, lease_seconds=700)
    path = f"/v1/admin/distribution-schedules/{schedule_id}/runs"
    body = {"reason": "test", "store_ids": store_ids}

    def run() -> TestResponse:
        answers.append(hq.admin.post(path, body))
        return answers[-1]

    answers: list[TestResponse] = []
    forget(hq)
    assert budget_of(monkeypatch, run, 201) == RUN_STATEMENTS + COLD
    assert answers[-1].json["counts"] == {"available": 4 * stores}
    assert budget_of(monkeypatch, run, 201) == RUN_STATEMENTS - ADDING
    hq.save_parameters(lease_seconds=800 + stores)
    assert budget_of(monkeypatch, run, 201) == RUN_STATEMENTS + REPLACING + COLD
    told = answers[-1].json
    assert (told["counts"], told["kept_count"]) == ({"available": 2 * stores}, 2 * stores)


# Schedule; stores asked for, and locked; run; open sessions; registers, profiles; newest revisions;
# what was applied last; sessions; the audit, three.
RUN_STATEMENTS = SIGN_IN + 13
ADDING = 2  # what was applied last; sessions
REPLACING = 1
