"""The audit: what administrators do is in it, nobody edits it unseen, and it can be read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from hq_service.cli import main
from hq_service.domain.actors import Role
from hq_service.domain.audit import Action, Walk, link
from hq_service.store import audit as store
from hq_service.store import tables
from hq_service.store.database import db, transactional
from tests.conftest import Server
from tests.integration.test_statement_budgets import counting
from tests.support import (
    GRANT_KEYS,
    KEYRING,
    NUMBER_SECRET,
    Caller,
    Card,
    Hq,
    a_name,
    a_number,
    psycopg_url,
    running,
)

ENTRIES = "/v1/admin/audit-entries"


@pytest.fixture
def hq(server: Server, template: str) -> Iterator[Hq]:
    """A database of its own for each test: it begins with an empty audit, and may be tampered."""
    url = server.create_database(f"hq_audit_{uuid.uuid4().hex[:8]}", template)
    with running(url) as app:
        yield Hq(app)


def entries(hq: Hq, query: str = "") -> list[dict[str, Any]]:
    answer = hq.admin.get(f"{ENTRIES}?{query}")
    assert answer.status_code == 200, answer.json
    found: list[dict[str, Any]] = answer.json["entries"]
    return found


def issue_some(hq: Hq, count: int) -> list[Card]:
    return [hq.issue(100) for _ in range(count)]


@contextmanager
def unguarded(hq: Hq) -> Iterator[None]:
    """Do what only the owner of the table can: switch the trigger off."""
    hq.sql("ALTER TABLE audit_entries DISABLE TRIGGER audit_entries_are_appended")
    yield
    hq.sql("ALTER TABLE audit_entries ENABLE TRIGGER audit_entries_are_appended")


def run(hq: Hq, *arguments: str, secret: bytes = NUMBER_SECRET) -> Result:
    environment = {
        "DATABASE_URL": psycopg_url(hq.app.config["SQLALCHEMY_DATABASE_URI"]),
        "HQ_NUMBER_SECRET": secret.hex(),
        "HQ_GRANT_KEYS": ",".join(f"{n}:{key.hex()}" for n, key in GRANT_KEYS.masters.items()),
    }
    return CliRunner().invoke(main, ["audit", *arguments], env=environment)


def noted(hq: Hq) -> str:
    """Return what an auditor writes down after a verification: NUMBER:HASH of the newest entry."""
    done = run(hq, "verify")
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()[-1].removeprefix("newest: ")


# --- what is in it --------------------------------------------------------------------------------


def test_an_issued_instrument_is_in_the_audit_without_its_number(hq: Hq) -> None:
    number, reference = a_number(), a_name("issue")
    wish = {"reference": reference, "kind": "gift_card", "number": number, "currency": "SEK"}
    issued = hq.admin.post("/v1/admin/instruments", {**wish, "amount_minor": 500})
    [entry] = entries(hq)
    assert entry["number"] == 1
    assert entry["action"] == "instrument_issued"
    assert entry["subject"] == f"instrument:{issued.json['instrument']['instrument_id']}"
    assert entry["actor"] == f"admin:{hq.admin.key.split('_')[1]}"
    assert entry["detail"] == {
        "reference": reference,
        "kind": "gift_card",
        "currency": "SEK",
        "amount_minor": 500,
        "number_last4": number[-4:],
        "is_number_made_by_hq": False,
    }
    assert number not in hq.admin.get(ENTRIES).text


def test_an_issue_that_is_repeated_or_refused_leaves_no_entry(hq: Hq) -> None:
    wish = {"reference": a_name("issue"), "kind": "credit_memo", "currency": "SEK"}
    issue = {**wish, "amount_minor": 500}
    answers = [
        hq.admin.post("/v1/admin/instruments", issue),
        hq.admin.post("/v1/admin/instruments", issue),
        hq.admin.post("/v1/admin/instruments", {**issue, "amount_minor": 501}),
    ]
    assert [answer.status_code for answer in answers] == [201, 200, 422]
    card = hq.issue(1)
    taken = {**issue, "reference": a_name("taken"), "kind": "gift_card", "number": card.number}
    assert hq.admin.post("/v1/admin/instruments", taken).status_code == 409
    assert [one["detail"]["amount_minor"] for one in entries(hq)] == [500, 1]


def test_a_reference_that_has_the_card_number_in_it_is_refused(hq: Hq) -> None:
    number = a_number()
    wish = {"kind": "gift_card", "number": number, "currency": "SEK", "amount_minor": 1}
    grouped = "-".join(number[place : place + 4] for place in range(0, 16, 4))
    for reference in (number, f"issue-{number}", f"{grouped}.2"):
        answer = hq.admin.post("/v1/admin/instruments", {**wish, "reference": reference})
        assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
        assert [one["pointer"] for one in answer.json["errors"]] == ["/reference"]
        assert number not in answer.text
    assert entries(hq) == []


def a_broken_lock(hq: Hq) -> tuple[dict[str, Any], Card]:
    till, card = hq.till(), hq.issue(100)
    hq.allow_offline(till)
    till.lock(card, "X1")
    shown = hq.admin.get(f"/v1/admin/locks/{card.instrument_id}").json
    wish = {"instrument_id": card.instrument_id, "lock_id": shown["lock_id"]}
    accepted = {**wish, "accepted_exposure_minor": 100, "reason": "till is in the river"}
    refused = hq.admin.post("/v1/admin/lock-breaks", {**accepted, "accepted_exposure_minor": 99})
    assert refused.status_code == 409
    assert hq.admin.post("/v1/admin/lock-breaks", accepted).status_code == 201
    assert hq.admin.post("/v1/admin/lock-breaks", accepted).status_code == 404
    return shown, card


def test_a_broken_lock_is_in_the_audit_once_with_what_it_could_cost(hq: Hq) -> None:
    shown, card = a_broken_lock(hq)
    [entry] = entries(hq, "action=lock_broken")
    assert entry["subject"] == f"lock:{shown['lock_id']}"
    assert entry["detail"] == {
        "reason": "till is in the river",
        "exposure_minor": 100,
        "instrument_id": card.instrument_id,
        "number_last4": card.number[-4:],
        "currency": "SEK",
        "state": "active",
        **{
            name: shown[name]
            for name in ("store_id", "terminal_id", "transaction_id", "line", "purpose")
        },
        **{
            name: shown[name].replace("Z", "+00:00")
            for name in ("locked_at", "grant_until", "holder_last_seen_at")
        },
    }


def test_a_resolved_case_is_in_the_audit_with_what_it_posted(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(10)
    posted = hq.post_batch(till.store_id, [till.offline_line(card, "X1", 50)])
    case_id = posted.json["results"][0]["case_id"]
    assert hq.resolve(case_id, "recover").status_code == 409
    assert hq.resolve(case_id, "dismiss").status_code == 409
    assert hq.resolve(str(uuid.uuid4()), "absorb").status_code == 404
    assert entries(hq, "action=case_resolved") == []
    assert hq.resolve(case_id, "confirm_duplicate").status_code == 200
    assert hq.resolve(case_id, "confirm_duplicate").status_code == 409
    [entry] = entries(hq, f"subject=case:{case_id}")
    detail = entry["detail"]
    assert (detail["resolution"], detail["reason"]) == ("confirm_duplicate", "looked into it")
    assert (detail["store_id"], detail["transaction_id"]) == (till.store_id, "X1")
    assert detail["is_resolved"] is True
    [one] = detail["posted"]
    assert (one["entry"], one["change_minor"], one["balance_after_minor"]) == ("reversal", 10, 10)


def test_what_is_recovered_in_part_is_in_the_audit_each_time(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(10)
    posted = hq.post_batch(till.store_id, [till.offline_line(card, "X1", 50)])
    case_id = posted.json["results"][0]["case_id"]
    for amount_minor in (15, 100):
        lock = till.lock(card, f"L{amount_minor}", purpose="load", amount_minor=amount_minor)
        line = {"line": 1, "operation": "load", "amount_minor": amount_minor, "currency": "SEK"}
        named = {"instrument_id": card.instrument_id, "lock_id": lock.json["lock_id"]}
        till.conclude(f"L{amount_minor}", {**line, **named})
        assert hq.resolve(case_id, "recover").status_code == 200
    told = [one["detail"] for one in entries(hq, "action=case_resolved")]
    assert [(one["recovered_minor"], one["is_resolved"]) for one in told] == [
        (15, False),
        (40, True),
    ]


def test_a_case_that_hq_closes_itself_is_not_in_the_audit(hq: Hq) -> None:
    till, card = hq.till(), hq.issue(10)
    posted = hq.post_batch(till.store_id, [till.offline_line(card, "X1", 50)])
    assert till.void(card, "X1").status_code == 201
    assert hq.case(posted.json["results"][0]["case_id"])["resolution"] == "voided"
    assert entries(hq, "action=case_resolved") == []


# --- reading it -----------------------------------------------------------------------------------


def test_entries_are_read_page_by_page_in_both_orders(hq: Hq) -> None:
    issue_some(hq, 5)
    for order, expected in (("oldest", [1, 2, 3, 4, 5]), ("newest", [5, 4, 3, 2, 1])):
        told, after = [], ""
        for _ in range(3):
            page = hq.admin.get(f"{ENTRIES}?order={order}&limit=2{after}").json
            told += [entry["number"] for entry in page["entries"]]
            after = f"&after={page['next_after']}"
        assert told == expected
        assert page["next_after"] is None


def test_entries_are_found_by_subject_action_actor_and_time(hq: Hq) -> None:
    shown, _ = a_broken_lock(hq)
    other = Caller(hq.client, hq.make_key(Role.ADMIN))
    wish = {"reference": a_name("issue"), "kind": "gift_card", "currency": "SEK"}
    assert other.post("/v1/admin/instruments", {**wish, "amount_minor": 7}).status_code == 201
    everything = entries(hq)
    assert [one["action"] for one in entries(hq, "action=lock_broken")] == ["lock_broken"]
    assert [one["subject"] for one in entries(hq, f"subject=lock:{shown['lock_id']}")] == [
        f"lock:{shown['lock_id']}"
    ]
    by_other = entries(hq, f"actor=admin:{other.key.split('_')[1]}")
    assert [one["detail"]["amount_minor"] for one in by_other] == [7]
    since = entries(hq, f"recorded_from={everything[-1]['recorded_at'].replace('+', '%2B')}")
    assert since == everything[-1:]
    assert entries(hq, "subject=case:none") == []


def test_an_auditor_reads_the_audit(hq: Hq) -> None:
    issue_some(hq, 1)
    auditor = Caller(hq.client, hq.make_key(Role.AUDITOR))
    assert [one["number"] for one in auditor.get(ENTRIES).json["entries"]] == [1]


# --- nobody edits it ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET actor = 'nobody'",
        "UPDATE audit_entries SET actor = actor WHERE number = 99",
        "DELETE FROM audit_entries WHERE number = 1",
        "TRUNCATE audit_entries",
    ],
)
def test_the_database_refuses_to_edit_the_audit(hq: Hq, statement: str) -> None:
    issue_some(hq, 2)
    with pytest.raises(psycopg.errors.RaiseException, match="never edited or deleted"):
        hq.sql(statement)
    assert len(entries(hq)) == 2


# What is done -> how many entries still hold, and the first that does not.
TAMPERINGS = {
    "UPDATE audit_entries SET actor = 'nobody' WHERE number = 2": (1, 2),
    "UPDATE audit_entries SET recorded_at = recorded_at - interval '1 us' WHERE number = 2": (1, 2),
    "UPDATE audit_entries SET detail = replace(detail, '100', '1') WHERE number = 2": (1, 2),
    "UPDATE audit_entries SET detail = 'nonsense' WHERE number = 4": (3, 4),
    "DELETE FROM audit_entries WHERE number = 2": (1, 3),
    "DELETE FROM audit_entries WHERE number = 1": (0, 2),
    # A deleted row whose place is closed.
    "DELETE FROM audit_entries WHERE number = 2;"
    " UPDATE audit_entries SET number = number - 1 WHERE number > 2": (1, 2),
    # Two rows that change places.
    "UPDATE audit_entries SET number = 99 WHERE number = 2;"
    " UPDATE audit_entries SET number = 2 WHERE number = 3;"
    " UPDATE audit_entries SET number = 3 WHERE number = 99": (1, 2),
}


@pytest.mark.parametrize("statements", TAMPERINGS)
def test_verifying_finds_what_was_done_past_the_trigger(hq: Hq, statements: str) -> None:
    holding, broken_number = TAMPERINGS[statements]
    issue_some(hq, 4)
    assert run(hq, "verify").exit_code == 0
    with unguarded(hq):
        for statement in statements.split(";"):
            hq.sql(statement)
    done = run(hq, "verify")
    assert done.exit_code == 1
    assert done.stdout == f"{holding} entries hold.\n"
    assert done.stderr.startswith(f"entry {broken_number} does not: ")
    # It can still be looked at.
    assert hq.admin.get(ENTRIES).status_code == 200


def test_a_chain_that_was_cut_off_at_its_end_is_found_by_what_was_noted(hq: Hq) -> None:
    issue_some(hq, 4)
    newest = noted(hq)
    with unguarded(hq):
        hq.sql("DELETE FROM audit_entries WHERE number > 2")
    assert run(hq, "verify").exit_code == 0, "nothing in the database tells it"
    done = run(hq, "verify", "--expect", newest)
    assert done.exit_code == 1
    assert done.stderr == "entry 3 does not: the chain ends before it, but entry 4 was noted\n"
    with unguarded(hq):
        hq.sql("DELETE FROM audit_entries")
    assert run(hq, "verify", "--expect", newest).exit_code == 1


def test_a_chain_that_grew_still_has_what_was_noted(hq: Hq) -> None:
    assert run(hq, "verify").stdout == "0 entries hold.\n"
    issue_some(hq, 2)
    first = noted(hq)
    issue_some(hq, 2)
    second = noted(hq)
    assert second.startswith("4:")
    done = run(hq, "verify", "--expect", first, "--expect", second)
    assert (done.exit_code, done.stderr) == (0, "")


def rewritten(hq: Hq, key: bytes) -> None:
    """Make the whole chain anew under a key, saying that nobody did anything."""
    with unguarded(hq), hq.app.app_context():
        chain = store.page(after=None, limit=100)
        hq.sql("DELETE FROM audit_entries")
        made = None
        for entry in chain:
            made = link(
                made,
                recorded_at=entry.recorded_at,
                actor="nobody",
                action=Action(entry.action),
                subject=entry.subject,
                detail={},
                key=key,
            )
            hq.sql(
                "INSERT INTO audit_entries VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                *(getattr(made, name) for name in type(made).__slots__),
            )


def test_a_chain_that_was_made_anew_under_another_key_is_found(hq: Hq) -> None:
    issue_some(hq, 3)
    rewritten(hq, b"x" * 32)
    done = run(hq, "verify")
    assert (done.exit_code, done.stdout) == (1, "0 entries hold.\n")
    assert "another number secret" in done.stderr


def test_a_chain_that_was_made_anew_with_the_key_is_found_by_what_was_noted(hq: Hq) -> None:
    issue_some(hq, 3)
    newest = noted(hq)
    rewritten(hq, KEYRING.audit_key())
    assert run(hq, "verify").exit_code == 0
    done = run(hq, "verify", "--expect", newest)
    assert done.exit_code == 1
    assert "entry 3 does not: it is not the entry that was noted" in done.stderr


def test_verifying_under_another_number_secret_says_so(hq: Hq) -> None:
    issue_some(hq, 1)
    done = run(hq, "verify", secret=bytes(32))
    assert done.exit_code == 1
    assert "another number secret" in done.stderr


@pytest.mark.parametrize(
    "expected",
    [
        "",
        "1",
        f"0:{'a' * 64}",
        f"1:{'a' * 63}",
        f"1:{'A' * 64}",
        f"-1:{'a' * 64}",
        f" 1:{'a' * 64}",
    ],
)
def test_what_cannot_have_been_noted_is_refused(hq: Hq, expected: str) -> None:
    done = run(hq, "verify", "--expect", expected)
    assert done.exit_code == 2
    assert "NUMBER:HASH" in done.stderr


def test_one_number_with_two_hashes_is_refused(hq: Hq) -> None:
    arguments = [f"--expect={1}:{letter * 64}" for letter in "ab"]
    assert run(hq, "verify", *arguments).exit_code == 2


def test_a_chain_of_several_parts_is_walked_to_its_end(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hq_service.operations.audit.PART_ENTRIES", 2)
    issue_some(hq, 5)
    assert run(hq, "verify").stdout.startswith("5 entries hold.\nnewest: 5:")
    with unguarded(hq):
        hq.sql("DELETE FROM audit_entries WHERE number IN (3, 4)")
    done = run(hq, "verify")
    assert done.stderr == "entry 5 does not: entries 3 to 4, before it, are missing\n"


def test_an_export_has_everything_that_the_hashes_are_made_of(hq: Hq) -> None:
    a_broken_lock(hq)
    lines = [json.loads(line) for line in run(hq, "export").stdout.splitlines()]
    assert [line["number"] for line in lines] == list(range(1, len(lines) + 1))
    walk = Walk(KEYRING.audit_key())
    with hq.app.app_context():
        stored = store.page(after=None, limit=100)
    for line, entry in zip(lines, stored, strict=True):
        assert walk.step(entry) is None
        assert line["detail"] == entry.detail
        assert line["recorded_at"] == entry.recorded_at.isoformat()
        assert (line["actor"], line["action"]) == (entry.actor, entry.action)
        assert (line["subject"], line["hash"]) == (entry.subject, entry.hash.hex())
        assert line["previous_hash"] == entry.previous_hash.hex()
    rest = run(hq, "export", "--after", "1").stdout.splitlines()
    assert [json.loads(line) for line in rest] == lines[1:]


def test_an_operation_that_fails_with_its_entry_written_leaves_none(hq: Hq) -> None:
    # The database itself refuses the transaction when it commits.
    hq.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no'; END $$"
    )
    hq.sql(
        "CREATE CONSTRAINT TRIGGER refuses AFTER INSERT ON audit_entries"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    wish = {"reference": a_name("issue"), "kind": "gift_card", "currency": "SEK"}
    issue = {**wish, "amount_minor": 1}
    assert hq.admin.post("/v1/admin/instruments", issue).status_code == 500
    assert entries(hq) == []
    assert hq.sql("SELECT 1 FROM instruments") == []
    hq.sql("DROP TRIGGER refuses ON audit_entries")
    assert hq.admin.post("/v1/admin/instruments", issue).status_code == 201
    assert [entry["number"] for entry in entries(hq)] == [1]


def test_what_is_still_to_be_written_takes_its_locks_before_the_audits(
    hq: Hq, monkeypatch: pytest.MonkeyPatch
) -> None:
    @transactional
    def add_a_store(connection: Any) -> None:
        at = datetime.now(UTC)
        db.session.add(tables.Store(store_id="late", name="not flushed", created_at=at))
        store.append(
            connection,
            KEYRING.audit_key(),
            recorded_at=at,
            actor="admin:test",
            action=Action.STORE_CREATED,
            subject="store:late",
            detail={},
        )

    with counting(monkeypatch) as sent, hq.app.app_context():
        add_a_store()
    words = [" ".join(statement.split()[:3]) for statement in sent]
    assert words.index("INSERT INTO stores") < words.index("LOCK TABLE audit_entries")
