"""API keys: made, shown once, listed without their secret, rotated and revoked."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from werkzeug.test import TestResponse

from hq_service.cli import main
from hq_service.domain.actors import Role
from tests.conftest import Server
from tests.support import (
    GRANT_KEYS,
    NOTHING_AT_STAKE,
    NUMBER_SECRET,
    Caller,
    Hq,
    Tables,
    Till,
    a_name,
    a_number,
    on_its_own,
    psycopg_url,
    running,
    together,
)

KEYS = "/v1/admin/keys"
WHY = {"reason": "test"}
FORM = re.compile(r"hq_[a-z0-9]{12}_[A-Za-z0-9_-]{43}")
SHOWN = {
    "key_id", "role", "store_id", "terminal_id", "label", "created_at", "expires_at", "revoked_at",
    "replaced_by",
}  # fmt: skip


def created(hq: Hq, role: str, **members: Any) -> dict[str, Any]:
    """Create a key and return the answer."""
    answer = hq.admin.post(KEYS, {"role": role, "label": "test", **WHY, **members})
    assert answer.status_code == 201, answer.json
    told: dict[str, Any] = answer.json
    return told


def rotated(hq: Hq, key_id: str, overlap_seconds: int, **members: Any) -> TestResponse:
    body = {"overlap_seconds": overlap_seconds, **WHY, **members}
    return hq.admin.post(f"{KEYS}/{key_id}/rotation", body)


def revoked(hq: Hq, key_id: str) -> TestResponse:
    return hq.admin.post(f"{KEYS}/{key_id}/revocation", WHY)


def lets_in(hq: Hq, key: str) -> bool:
    """Tell whether a key lets anybody in, whatever it may do there."""
    return Caller(hq.client, key).get("/v1/parameters").status_code != 401


def in_hours(hours: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()


@pytest.fixture
def alone(server: Server, template: str) -> Iterator[Hq]:
    """A service on a database of its own, with one administrator."""
    with running(server.create_database(f"hq_{uuid.uuid4().hex}", template)) as app:
        yield Hq(app)


# --- made and shown -------------------------------------------------------------------------------


def test_a_key_is_shown_when_it_is_made_and_never_again(hq: Hq) -> None:
    till = hq.till()
    answer = hq.admin.post(
        KEYS,
        {
            "role": "terminal",
            "store_id": till.store_id,
            "terminal_id": till.terminal_id,
            "label": "till 1",
            "expires_at": in_hours(1),
            **WHY,
        },
    )
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    key = answer.json["api_key"]
    assert FORM.fullmatch(key)
    assert key.split("_")[1] == answer.json["key_id"]
    shown = hq.admin.get(f"{KEYS}/{answer.json['key_id']}")
    assert set(shown.json) == SHOWN
    assert shown.json == {name: answer.json[name] for name in SHOWN}
    secret = key.split("_", 2)[2]
    listed = hq.admin.get(f"{KEYS}?store_id={till.store_id}")
    assert shown.json in listed.json["keys"]
    assert secret not in shown.text + listed.text
    with Tables.of(hq.app) as tables:
        assert not [row for _, row in tables.rows() if secret in row]
    same = Till(hq.client, key, till.store_id, till.terminal_id)
    assert same.lock(hq.issue(1), "X1").status_code == 201


@pytest.mark.parametrize("role", Role)
def test_a_key_of_every_role_lets_in_who_it_is_for(hq: Hq, role: Role) -> None:
    till = hq.till()
    scope = {
        Role.TERMINAL: {"store_id": till.store_id, "terminal_id": till.terminal_id},
        Role.SYNC: {"store_id": till.store_id},
    }.get(role, {})
    caller = Caller(hq.client, created(hq, role, **scope)["api_key"])
    own = {Role.TERMINAL: "/v1/register", Role.SYNC: "/v1/parameters"}.get(role, KEYS)
    assert caller.get(own).status_code == 200


def scopes(till: Till) -> dict[str, tuple[dict[str, Any], dict[str, str]]]:
    """Return bodies that make no key, and what is wrong with each."""
    both = {"store_id": till.store_id, "terminal_id": till.terminal_id}
    no_store, no_terminal = "is not a store", "is not a register of this store"
    return {
        "terminal without scope": (
            {"role": "terminal"},
            {
                "store_id": "is needed for role terminal",
                "terminal_id": "is needed for role terminal",
            },
        ),
        "sync without store": ({"role": "sync"}, {"store_id": "is needed for role sync"}),
        "sync of a terminal": (
            {"role": "sync", **both},
            {"terminal_id": "is not for role sync"},
        ),
        "admin of a store": (
            {"role": "admin", "store_id": till.store_id},
            {"store_id": "is not for role admin"},
        ),
        "auditor of a terminal": (
            {"role": "auditor", **both},
            {"store_id": "is not for role auditor", "terminal_id": "is not for role auditor"},
        ),
        "unknown store": ({"role": "sync", "store_id": "nowhere"}, {"store_id": no_store}),
        "unknown terminal": (
            {"role": "terminal", **both, "terminal_id": "nobody"},
            {"terminal_id": no_terminal},
        ),
        "another store's terminal": (
            {"role": "terminal", **both, "store_id": "nowhere"},
            {"store_id": no_store},
        ),
        "an end that has passed": (
            {"role": "admin", "expires_at": in_hours(-1)},
            {"expires_at": "has passed"},
        ),
    }


def test_a_key_is_for_what_its_role_says_and_for_what_is_there(hq: Hq, app: Flask) -> None:
    till = hq.till()
    with Tables.of(app) as tables:
        before = tables.rows()
        for name, (body, faults) in scopes(till).items():
            answer = hq.admin.post(KEYS, {"label": "test", **WHY, **body})
            assert (answer.status_code, answer.json["code"]) == (422, "validation_failed"), name
            found = {one["pointer"][1:]: one["detail"] for one in answer.json["errors"]}
            assert found == faults, name
        assert tables.rows() == before


def test_a_retired_register_gets_no_key(hq: Hq) -> None:
    till = hq.till()
    path = f"/v1/admin/stores/{till.store_id}/registers/{till.terminal_id}/retirement"
    assert hq.admin.post(path, {**WHY, "accepted": NOTHING_AT_STAKE}).status_code == 200
    scope = {"store_id": till.store_id, "terminal_id": till.terminal_id}
    answer = hq.admin.post(KEYS, {"role": "terminal", "label": "test", **scope, **WHY})
    assert answer.json["errors"] == [{"pointer": "/terminal_id", "detail": "is a retired register"}]


def test_keys_are_listed_by_page_and_those_that_ended_only_if_asked(hq: Hq) -> None:
    store_id = hq.make_store()
    ids = sorted(created(hq, "sync", store_id=store_id)["key_id"] for _ in range(5))
    assert revoked(hq, ids[2]).status_code == 200
    hq.sql("UPDATE api_keys SET expires_at = now() WHERE key_id = %s", ids[3])
    created(hq, "auditor")

    def pages(more: str) -> list[list[str]]:
        found, after = [], ""
        while after is not None:
            query = f"store_id={store_id}&limit=2{more}" + (f"&after={after}" if after else "")
            page = hq.admin.get(f"{KEYS}?{query}").json
            found.append([key["key_id"] for key in page["keys"]])
            after = page["next_after"]
        return found

    assert pages("") == [ids[0:2], ids[4:5]]
    assert pages("&with_ended=true&role=sync") == [ids[0:2], ids[2:4], ids[4:5]]
    assert pages("&role=admin") == [[]]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/limit"),
        ("after=a%00b", "/after"),
        ("role=cashier", "/role"),
        ("store_id=a%20b", "/store_id"),
        ("with_ended=1", "/with_ended"),
        ("terminal_id=T1", "/terminal_id"),
    ],
)
def test_a_wrong_page_of_keys_is_pointed_at(hq: Hq, query: str, pointer: str) -> None:
    answer = hq.admin.get(f"{KEYS}?{query}")
    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert [one["pointer"] for one in answer.json["errors"]] == [pointer]


# --- rotated --------------------------------------------------------------------------------------


def test_a_rotated_key_works_beside_its_successor_until_the_overlap_ends(hq: Hq) -> None:
    store_id = hq.make_store()
    old = created(hq, "sync", store_id=store_id)
    answer = rotated(hq, old["key_id"], 3600)
    new = answer.json
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    scope = ("role", "store_id", "terminal_id", "label", "expires_at")
    assert {name: new[name] for name in scope} == {name: old[name] for name in scope}
    assert lets_in(hq, old["api_key"])
    assert lets_in(hq, new["api_key"])
    shown = hq.admin.get(f"{KEYS}/{old['key_id']}").json
    assert shown["replaced_by"] == new["key_id"]
    ends_at = datetime.fromisoformat(shown["expires_at"])
    assert ends_at - datetime.fromisoformat(new["created_at"]) == timedelta(hours=1)
    hq.sql("UPDATE api_keys SET expires_at = now() WHERE key_id = %s", old["key_id"])
    assert not lets_in(hq, old["api_key"])
    assert lets_in(hq, new["api_key"])


def test_a_key_rotated_without_overlap_ends_at_once(hq: Hq) -> None:
    old = created(hq, "auditor")
    new = rotated(hq, old["key_id"], 0).json
    assert not lets_in(hq, old["api_key"])
    assert lets_in(hq, new["api_key"])


def test_a_rotation_does_not_make_the_old_key_last_longer(hq: Hq) -> None:
    old = created(hq, "auditor", expires_at=in_hours(1))
    later = in_hours(48)
    new = rotated(hq, old["key_id"], 86_400, expires_at=later).json
    assert datetime.fromisoformat(new["expires_at"]) == datetime.fromisoformat(later)
    shown = hq.admin.get(f"{KEYS}/{old['key_id']}").json
    assert shown["expires_at"] == old["expires_at"]
    kept = created(hq, "auditor", expires_at=in_hours(1))
    assert rotated(hq, kept["key_id"], 0).json["expires_at"] == kept["expires_at"]


def test_a_key_that_ended_or_was_replaced_is_not_rotated(hq: Hq) -> None:
    gone, expired, replaced = (created(hq, "auditor")["key_id"] for _ in range(3))
    revoked(hq, gone)
    hq.sql("UPDATE api_keys SET expires_at = now() WHERE key_id = %s", expired)
    successor = rotated(hq, replaced, 3600).json["key_id"]
    for key_id in (gone, expired, replaced):
        answer = rotated(hq, key_id, 0)
        assert (answer.status_code, answer.json["code"]) == (409, "key_not_live")
        assert set(answer.json["key"]) == SHOWN
    assert rotated(hq, replaced, 0).json["key"]["replaced_by"] == successor
    past = rotated(hq, successor, 0, expires_at=in_hours(-1))
    assert past.json["errors"] == [{"pointer": "/expires_at", "detail": "has passed"}]
    assert rotated(hq, successor, 0).status_code == 201, "its answer was lost, say"
    assert rotated(hq, "nothing", 0).json["code"] == "key_not_found"


def test_a_key_rotated_by_two_at_once_has_one_successor(hq: Hq) -> None:
    key_id = created(hq, "auditor")["key_id"]
    callers = [on_its_own(hq, hq.admin) for _ in range(4)]
    path = f"{KEYS}/{key_id}/rotation"
    answers = together([lambda caller=caller: caller.post(path, ROTATION) for caller in callers])
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


ROTATION = {"overlap_seconds": 60, **WHY}


# --- revoked --------------------------------------------------------------------------------------


def test_a_revoked_key_lets_nobody_in_and_stays_revoked(hq: Hq) -> None:
    key = created(hq, "auditor")
    assert lets_in(hq, key["api_key"])
    first = revoked(hq, key["key_id"])
    assert first.status_code == 200
    assert not lets_in(hq, key["api_key"])
    assert revoked(hq, key["key_id"]).json == first.json, "a repeat changes nothing"
    entries = hq.sql(
        "SELECT action FROM audit_entries WHERE subject = %s ORDER BY number",
        f"key:{key['key_id']}",
    )
    assert entries == [("key_created",), ("key_revoked",)]
    assert revoked(hq, "nothing").json["code"] == "key_not_found"


def test_the_last_administrator_stays(alone: Hq) -> None:
    own = alone.admin.key.split("_")[1]
    refused = revoked(alone, own)
    assert (refused.status_code, refused.json["code"]) == (409, "last_administrator")
    created(alone, "auditor")
    ending = created(alone, "admin")
    alone.sql("UPDATE api_keys SET expires_at = now() WHERE key_id = %s", ending["key_id"])
    assert revoked(alone, own).json["code"] == "last_administrator"
    assert revoked(alone, ending["key_id"]).status_code == 200, "it lets nobody in anyway"
    other = created(alone, "admin")
    assert revoked(alone, own).status_code == 200, "oneself, too, once there is another"
    assert not lets_in(alone, alone.admin.key)
    assert lets_in(alone, other["api_key"])


def test_a_key_in_its_overlap_is_nobodys_successor(alone: Hq) -> None:
    own = alone.admin.key.split("_")[1]
    new = rotated(alone, own, 3600).json
    assert revoked(alone, new["key_id"]).json["code"] == "last_administrator"
    assert revoked(alone, own).status_code == 200
    alone.admin = Caller(alone.client, new["api_key"])
    assert revoked(alone, new["key_id"]).json["code"] == "last_administrator"


def test_of_administrators_who_revoke_each_other_at_once_one_stays(alone: Hq) -> None:
    first = alone.admin.key.split("_")[1]
    second = created(alone, "admin")["key_id"]
    one, other = (on_its_own(alone, alone.admin) for _ in range(2))
    answers = together(
        [
            lambda: one.post(f"{KEYS}/{first}/revocation", WHY),
            lambda: other.post(f"{KEYS}/{second}/revocation", WHY),
        ]
    )
    # Who was signed in before the other's commit is refused by the rule, later by the key.
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] == 200
    assert statuses[1] in (401, 409)
    left = "SELECT count(*) FROM api_keys WHERE role = 'admin' AND revoked_at IS NULL"
    assert alone.sql(left) == [(1,)]


def test_the_last_administrator_is_not_replaced_by_one_that_ends_soon(alone: Hq) -> None:
    own = alone.admin.key.split("_")[1]
    entries = "SELECT count(*) FROM audit_entries"
    before = alone.sql(entries)
    for overlap_seconds in (0, 60, 86_400):
        refused = rotated(alone, own, overlap_seconds, expires_at=in_hours(0.9))
        assert (refused.status_code, refused.json["code"]) == (409, "last_administrator")
    assert alone.sql("SELECT count(*) FROM api_keys") == [(1,)], "nothing is left of it"
    assert alone.sql(entries) == before
    assert alone.admin.get(KEYS).status_code == 200
    created(alone, "admin", expires_at=in_hours(0.5))
    soon = rotated(alone, own, 0, expires_at=in_hours(0.9))
    assert soon.json["code"] == "last_administrator", "the other one ends soon, too"
    new = rotated(alone, own, 0, expires_at=in_hours(1.1))
    assert new.status_code == 201
    alone.admin = Caller(alone.client, new.json["api_key"])
    created(alone, "admin")
    assert rotated(alone, new.json["key_id"], 0, expires_at=in_hours(0.1)).status_code == 201


def test_an_administrator_who_ends_soon_is_replaced_by_one_who_does_not(alone: Hq) -> None:
    own = alone.admin.key.split("_")[1]
    alone.sql("UPDATE api_keys SET expires_at = now() + interval '30 minutes'")
    inherited = rotated(alone, own, 60)
    assert inherited.json["code"] == "last_administrator", "it would end when the old one does"
    assert rotated(alone, own, 60, expires_at=in_hours(48)).status_code == 201


def test_keys_of_others_may_end_as_soon_as_they_like(alone: Hq) -> None:
    auditor = created(alone, "auditor")["key_id"]
    assert rotated(alone, auditor, 0, expires_at=in_hours(0.1)).status_code == 201


# --- what is written about keys -------------------------------------------------------------------


def test_the_audit_says_what_became_of_keys_and_never_their_secrets(hq: Hq) -> None:
    old = created(hq, "auditor", label="accountant", reason="month end")
    new = rotated(hq, old["key_id"], 0).json
    rows = hq.sql(
        "SELECT action, actor, detail FROM audit_entries WHERE subject = %s ORDER BY number",
        f"key:{old['key_id']}",
    )
    assert [row[0] for row in rows] == ["key_created", "key_rotated"]
    assert {row[1] for row in rows} == {f"admin:{hq.admin.key.split('_')[1]}"}
    detail = json.loads(rows[0][2])
    assert (detail["reason"], detail["new"]["label"]) == ("month end", "accountant")
    assert json.loads(rows[1][2])["new"]["key_id"] == new["key_id"]
    for key in (old["api_key"], new["api_key"]):
        assert key.split("_", 2)[2] not in "".join(row[2] for row in rows)


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture
def run(alone: Hq, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command on the database of `alone`."""
    url = alone.app.config["SQLALCHEMY_DATABASE_URI"]
    monkeypatch.setenv("DATABASE_URL", psycopg_url(url))
    monkeypatch.setenv("HQ_NUMBER_SECRET", NUMBER_SECRET.hex())
    monkeypatch.setenv("HQ_GRANT_KEYS", f"k1:{GRANT_KEYS.masters['k1'].hex()}")

    def command(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["keys", *arguments])

    return command


def test_a_new_installation_gets_its_first_administrator(alone: Hq, run: Any) -> None:
    alone.sql("DELETE FROM api_keys")
    done = run("create", "--role", "admin", "--label", "first")
    assert done.exit_code == 0, done.output
    assert FORM.fullmatch(done.stdout.removesuffix("\n")), "the key, and nothing else"
    alone.admin = Caller(alone.client, done.stdout.strip())

    # From here on everything is HTTP: docs/registers.md says the same in words.
    store = {"store_id": "S1", "name": "First", "time_zone": "Europe/Stockholm", **WHY}
    assert alone.admin.post("/v1/admin/stores", store).status_code == 201
    register = {"terminal_id": "T1", "name": "Register 1", "supports_offline": True, **WHY}
    assert alone.admin.post("/v1/admin/stores/S1/registers", register).status_code == 201
    key = created(alone, "terminal", store_id="S1", terminal_id="T1")["api_key"]
    till = Till(alone.client, key, "S1", "T1")
    assert till.get("/v1/register").json["register"]["name"] == "Register 1"
    assert till.get("/v1/parameters").status_code == 200
    assert till.lock(alone.issue(100), "X1").status_code == 201
    [(actor, action)] = alone.sql("SELECT actor, action FROM audit_entries WHERE number = 1")
    assert (actor, action) == ("admin:command-line", "key_created")


def test_keys_are_listed_and_revoked_on_the_command_line(alone: Hq, run: Any) -> None:
    till = alone.till()
    scope = ["--store", till.store_id, "--terminal", till.terminal_id]
    made = run("create", "--role", "terminal", *scope, "--label", "till 1", "--days", "30")
    key_id = made.stdout.split("_")[1]
    [line] = [one for one in run("list").stdout.splitlines() if one.startswith(key_id)]
    assert line.split()[1:4] == ["terminal", till.store_id, till.terminal_id]
    assert line.endswith("till 1")
    secret = made.stdout.strip().split("_", 2)[2]
    assert secret not in run("list", "--all").output
    assert run("revoke", key_id, "--reason", "lost").exit_code == 0
    assert not lets_in(alone, made.stdout.strip())
    assert key_id not in run("list").stdout
    assert key_id in run("list", "--all").stdout


def test_what_is_wrong_with_a_key_is_said_on_the_command_line(alone: Hq, run: Any) -> None:
    wrong = run("create", "--role", "sync", "--label", "test", "--store", "nowhere")
    assert wrong.exit_code == 1
    assert (wrong.stdout, "/store_id: is not a store" in wrong.stderr) == ("", True)
    last = run("revoke", alone.admin.key.split("_")[1])
    assert (last.exit_code, "last_administrator" in last.stderr) == (1, True)
    assert "key_not_found" in run("revoke", a_name("nothing")).stderr
    assert run("create", "--role", "cashier", "--label", a_number()).exit_code == 2


def test_the_list_says_what_its_columns_are_also_where_there_is_no_key(alone: Hq, run: Any) -> None:
    run("create", "--role", "admin", "--label", "first administrator")
    header, *rows = run("list").stdout.splitlines()
    assert header.split() == "key_id role store terminal expires revoked label".split()
    assert all(row.index("admin") == header.index("role") for row in rows)
    assert any(row.find("first administrator") == header.index("label") for row in rows)
    alone.sql("DELETE FROM api_keys")
    assert run("list").stdout.splitlines() == [header]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "Must not be blank."),
        (" \u2003", "Must not be blank."),
        ("a\nb", "Must not have control characters."),
        ("x" * 501, "Longer than maximum length"),
        ("not UTF-8: \udce9", "Must be UTF-8."),
    ],
)
def test_a_reason_or_label_is_refused_on_the_command_line_as_over_http(
    alone: Hq, run: Any, text: str, fault: str
) -> None:
    key_id = created(alone, "auditor")["key_id"]
    made = ("create", "--role", "auditor", "--label")
    before = alone.sql("SELECT * FROM api_keys, audit_entries")
    for arguments in (
        ("revoke", key_id, "--reason", text),
        (*made, "test", "--reason", text),
        (*made, text),
    ):
        refused = run(*arguments)
        assert (refused.exit_code, refused.stdout, fault in refused.stderr) == (2, "", True)
    assert alone.sql("SELECT * FROM api_keys, audit_entries") == before


def test_a_card_number_in_a_reason_of_the_command_line_is_masked(alone: Hq, run: Any) -> None:
    number = a_number()
    assert run("create", "--role", "auditor", "--label", number).exit_code == 2
    made = run("create", "--role", "auditor", "--label", "test", "--reason", f"for {number}")
    assert made.exit_code == 0
    [(detail,)] = alone.sql("SELECT detail FROM audit_entries ORDER BY number DESC LIMIT 1")
    assert (number in detail, f"***{number[-4:]}" in detail) == (False, True)


def test_no_key_is_made_with_another_number_secret(alone: Hq, run: Any) -> None:
    """The audit's chain is hashed with it: the entry would look like one that was forged."""
    alone.sql("INSERT INTO number_secret (fingerprint, noted_at) VALUES (sha256('x'), now())")
    refused = run("create", "--role", "admin", "--label", "first")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "HQ_NUMBER_SECRET" in refused.stderr
    assert alone.sql("SELECT count(*) FROM audit_entries") == [(0,)]
