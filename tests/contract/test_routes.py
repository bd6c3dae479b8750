"""Who may call what: every route against every kind of key."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from hq_service.api.auth import check
from hq_service.domain.actors import Role
from tests.support import Card, Hq, Tables, Till, a_name, a_number, sale_line

ROLES_PAGE = Path(__file__).resolve().parents[2] / "docs" / "roles.md"
ADMIN, AUDITOR, SYNC, TERMINAL = Role.ADMIN, Role.AUDITOR, Role.SYNC, Role.TERMINAL
BATCH = "/v1/offline-batches/<store_id>/<batch_id>"
TRANSACTION = "/v1/transactions/<store_id>/<terminal_id>/<transaction_id>"
CASE = "/v1/admin/cases/<uuid:case_id>"
STORE = "/v1/admin/stores/<store_id>"
REGISTER = f"{STORE}/registers/<terminal_id>"
PROFILE = "/v1/admin/offline-profiles/<offline_profile_id>"
KEY = "/v1/admin/keys/<key_id>"
SCHEDULES = "/v1/admin/distribution-schedules"
SESSIONS = "/v1/admin/distribution-sessions"

# The blueprints that anybody may call, without a key.
PUBLIC_BLUEPRINTS = {"health", "api-docs"}
PUBLIC = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/problems/<code>"),
    ("GET", "/openapi.json"),
}
# All others, and who may call them. A new route needs a row here: think who it is for.
ALLOWED: dict[tuple[str, str], set[Role]] = {
    ("POST", "/v1/balance-inquiries"): {TERMINAL, ADMIN, AUDITOR},
    ("GET", "/v1/locks"): {TERMINAL},
    ("POST", "/v1/locks"): {TERMINAL},
    ("POST", "/v1/releases"): {TERMINAL},
    ("POST", "/v1/redemptions"): {TERMINAL},
    ("POST", "/v1/transactions"): {TERMINAL},
    ("GET", TRANSACTION): {TERMINAL, SYNC, ADMIN, AUDITOR},
    ("POST", "/v1/voids"): {TERMINAL},
    ("POST", "/v1/offline-batches"): {SYNC, TERMINAL},
    ("GET", BATCH): {SYNC, TERMINAL, ADMIN, AUDITOR},
    ("GET", f"{BATCH}/lines"): {SYNC, TERMINAL, ADMIN, AUDITOR},
    ("GET", "/v1/parameters"): {TERMINAL, SYNC},
    ("GET", "/v1/register"): {TERMINAL},
    ("GET", "/v1/admin/stores"): {ADMIN, AUDITOR},
    ("POST", "/v1/admin/stores"): {ADMIN},
    ("GET", STORE): {ADMIN, AUDITOR},
    ("PATCH", STORE): {ADMIN},
    ("GET", f"{STORE}/retirement"): {ADMIN, AUDITOR},
    ("POST", f"{STORE}/retirement"): {ADMIN},
    ("POST", f"{STORE}/reactivation"): {ADMIN},
    ("GET", f"{STORE}/registers"): {ADMIN, AUDITOR},
    ("POST", f"{STORE}/registers"): {ADMIN},
    ("GET", REGISTER): {ADMIN, AUDITOR},
    ("PATCH", REGISTER): {ADMIN},
    ("GET", f"{REGISTER}/retirement"): {ADMIN, AUDITOR},
    ("POST", f"{REGISTER}/retirement"): {ADMIN},
    ("POST", f"{REGISTER}/reactivation"): {ADMIN},
    ("GET", "/v1/admin/offline-profiles"): {ADMIN, AUDITOR},
    ("POST", "/v1/admin/offline-profiles"): {ADMIN},
    ("GET", PROFILE): {ADMIN, AUDITOR},
    ("PATCH", PROFILE): {ADMIN},
    ("POST", f"{PROFILE}/retirement"): {ADMIN},
    ("GET", "/v1/admin/keys"): {ADMIN, AUDITOR},
    ("POST", "/v1/admin/keys"): {ADMIN},
    ("GET", KEY): {ADMIN, AUDITOR},
    ("POST", f"{KEY}/rotation"): {ADMIN},
    ("POST", f"{KEY}/revocation"): {ADMIN},
    ("GET", "/v1/admin/parameters"): {ADMIN, AUDITOR},
    ("PATCH", "/v1/admin/parameters"): {ADMIN},
    ("GET", "/v1/admin/parameters/definitions"): {ADMIN, AUDITOR},
    ("GET", "/v1/admin/parameters/history"): {ADMIN, AUDITOR},
    ("GET", "/v1/admin/parameters/states"): {ADMIN, AUDITOR},
    ("GET", f"{STORE}/parameters"): {ADMIN, AUDITOR},
    ("PATCH", f"{STORE}/parameters"): {ADMIN},
    ("POST", "/v1/admin/instruments"): {ADMIN},
    ("GET", "/v1/admin/cases"): {ADMIN, AUDITOR},
    ("GET", "/v1/admin/cases/summary"): {ADMIN, AUDITOR},
    ("GET", CASE): {ADMIN, AUDITOR},
    ("POST", f"{CASE}/resolutions"): {ADMIN},
    ("GET", "/v1/admin/locks"): {ADMIN, AUDITOR},
    ("GET", "/v1/admin/locks/<uuid:instrument_id>"): {ADMIN, AUDITOR},
    ("POST", "/v1/admin/lock-breaks"): {ADMIN},
    ("GET", "/v1/admin/audit-entries"): {ADMIN, AUDITOR},
    ("POST", "/v1/heartbeats"): {TERMINAL},
    ("GET", "/v1/admin/connection-status"): {ADMIN, AUDITOR},
    ("GET", f"{STORE}/exposure"): {ADMIN, AUDITOR},
    ("GET", "/v1/admin/completeness"): {ADMIN, AUDITOR},
    ("GET", "/v1/admin/cache-resets"): {ADMIN, AUDITOR},
    ("POST", "/v1/admin/cache-resets"): {ADMIN},
    ("GET", "/v1/distribution-sessions"): {SYNC},
    ("GET", "/v1/distribution-sessions/<uuid:session_id>/package"): {SYNC},
    ("POST", "/v1/distribution-sessions/<uuid:session_id>/acknowledgements"): {SYNC},
    ("GET", SCHEDULES): {ADMIN, AUDITOR},
    ("POST", SCHEDULES): {ADMIN},
    ("GET", f"{SCHEDULES}/<schedule_id>"): {ADMIN, AUDITOR},
    ("PATCH", f"{SCHEDULES}/<schedule_id>"): {ADMIN},
    ("POST", f"{SCHEDULES}/<schedule_id>/runs"): {ADMIN},
    ("GET", SESSIONS): {ADMIN, AUDITOR},
    ("GET", f"{SESSIONS}/<uuid:session_id>"): {ADMIN, AUDITOR},
    ("POST", f"{SESSIONS}/<uuid:session_id>/reruns"): {ADMIN},
    ("POST", f"{SESSIONS}/<uuid:session_id>/cancellations"): {ADMIN},
}
# Those of them that read something by its name.
READ_BY_NAME = [rule for method, rule in ALLOWED if method == "GET" and "<" in rule]
# Those of them that answer even when there is nothing.
ALWAYS_THERE = {
    "/v1/locks",
    "/v1/parameters",
    "/v1/admin/parameters",
    "/v1/admin/parameters/definitions",
    "/v1/admin/parameters/history",
    "/v1/admin/parameters/states",
    "/v1/admin/cases",
    "/v1/admin/cases/summary",
    "/v1/admin/locks",
    "/v1/admin/audit-entries",
    "/v1/register",
    "/v1/admin/stores",
    "/v1/admin/offline-profiles",
    "/v1/admin/keys",
    "/v1/distribution-sessions",
    SCHEDULES,
    SESSIONS,
    "/v1/admin/connection-status",
    "/v1/admin/cache-resets",
}
# Reading that is noted, and in which table: a cache reset waits for the till's fetch.
NOTED = {("GET", "/v1/parameters"): "terminal_presence"}
# What Flask adds to every route.
AUTOMATIC = {"HEAD", "OPTIONS"}

NOBODY = (
    "no key",
    "no scheme",
    "another scheme",
    "an empty key",
    "garbage",
    "not ASCII",
    "an unknown id",
    "another key's secret",
    "a secret cut short",
    "revoked",
    "expired",
)


@dataclass
class World:
    hq: Hq
    till: Till
    stranger: Till
    card: Card
    authorizations: dict[str, str | None]

    def call(self, method: str, path: str, authorization: str | None, **body: Any) -> TestResponse:
        headers = {} if authorization is None else {"Authorization": authorization}
        if method in ("POST", "PATCH"):
            return self.hq.client.open(path, method=method, headers=headers, json=body)
        return self.hq.client.open(path, method=method, headers=headers)

    def as_role(self, role: Role) -> str:
        return self.authorizations[role] or ""


@pytest.fixture(scope="module")
def world(hq: Hq) -> World:
    till = hq.till()
    keys = {
        TERMINAL: till.key,
        SYNC: hq.make_key(SYNC, store_id=till.store_id),
        ADMIN: hq.admin.key,
        AUDITOR: hq.make_key(AUDITOR),
    }
    ended = {name: hq.make_key(ADMIN) for name in ("revoked", "expired")}
    for name, key in ended.items():
        column = {"revoked": "revoked_at", "expired": "expires_at"}[name]
        key_id = key.split("_")[1]
        query = f"UPDATE api_keys SET {column} = now() - interval '1 second' WHERE key_id = %s"
        hq.sql(query, key_id)
    _, key_id, secret = keys[ADMIN].split("_", 2)
    other_secret = keys[AUDITOR].split("_", 2)[2]
    authorizations = {
        "no key": None,
        "no scheme": keys[ADMIN],
        "another scheme": f"Basic {keys[ADMIN]}",
        "an empty key": "Bearer ",
        "garbage": "Bearer garbage",
        "not ASCII": "Bearer h\u00e9\u00ff",
        "an unknown id": f"Bearer hq_{'a' * 12}_{secret}",
        "another key's secret": f"Bearer hq_{key_id}_{other_secret}",
        "a secret cut short": f"Bearer {keys[ADMIN][:-1]}",
        **{name: f"Bearer {key}" for name, key in ended.items()},
        **{role: f"Bearer {key}" for role, key in keys.items()},
    }
    assert till.get("/v1/parameters").status_code == 200  # acknowledged here, not by a test
    return World(hq, till, hq.till(), hq.issue(100_00), authorizations)


@pytest.fixture(scope="module")
def tables(app: Flask) -> Iterator[Tables]:
    with Tables.of(app) as tables:
        yield tables


@pytest.fixture
def nothing_is_written(tables: Tables, request: pytest.FixtureRequest) -> Iterator[None]:
    given = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    noted = NOTED.get((given.get("method"), given.get("rule")))
    before = [row for row in tables.rows() if row[0] != noted]
    yield
    assert [row for row in tables.rows() if row[0] != noted] == before


def path_of(rule: str) -> str:
    """Return a path that the rule matches, of things that do not exist."""
    rule = rule.replace("<code>", "not_found")
    rule = re.sub(r"<uuid:\w+>", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", rule)
    return re.sub(r"<\w+>", "nothing", rule)


def routes(app: Flask) -> set[tuple[str, str]]:
    return {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in rule.methods - AUTOMATIC
    }


def without_id(answer: TestResponse) -> dict[str, Any]:
    """Return a problem document but for what is different each time."""
    return {name: value for name, value in answer.json.items() if name != "request_id"}


def test_every_blueprint_authenticates_but_for_the_public_ones(app: Flask) -> None:
    for name, blueprint in app.blueprints.items():
        authenticates = check in app.before_request_funcs.get(name, [])
        assert authenticates == (name not in PUBLIC_BLUEPRINTS), name
        if authenticates:
            assert app.before_request_funcs[name][0] is check, f"{name}: first of all"
            assert not getattr(blueprint, "is_public", True), name
    outside = [rule.rule for rule in app.url_map.iter_rules() if "." not in rule.endpoint]
    assert outside == [], "a route without a blueprint authenticates nobody"


def test_every_route_is_in_the_tables_above(app: Flask) -> None:
    assert routes(app) == PUBLIC | set(ALLOWED)


def test_every_route_declares_whom_it_allows(app: Flask) -> None:
    for rule in app.url_map.iter_rules():
        for method in rule.methods - AUTOMATIC:
            view = app.view_functions[rule.endpoint]
            if (method, rule.rule) not in PUBLIC:
                assert getattr(view, "allowed_roles", None) == ALLOWED[method, rule.rule]


def test_the_table_of_roles_and_routes_is_what_is_declared() -> None:
    text = ROLES_PAGE.read_text(encoding="utf-8")
    header, *rows = re.findall(
        r"^\|(?: `(\w+) (\S+)`)? \|(.*)\|$", text.partition("## Routes")[2], re.M
    )
    roles = [Role(name) for name in header[2].replace("|", " ").split()]
    told = {
        (method, path): {
            role
            for role, cell in zip(roles, cells.split("|"), strict=True)
            if cell.strip() == "yes"
        }
        for method, path, cells in rows
        if method
    }
    declared = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)): allowed
        for (method, rule), allowed in ALLOWED.items()
    }
    assert told == declared


def test_no_route_has_a_card_number_in_its_path(app: Flask) -> None:
    for rule in app.url_map.iter_rules():
        assert not rule.arguments & {"number", "card_number", "instrument", "key"}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("method", "rule"), ALLOWED)
def test_a_role_gets_in_where_it_is_allowed_and_nowhere_else(
    world: World, nothing_is_written: None, method: str, rule: str, role: Role
) -> None:
    answer = world.call(method, path_of(rule), world.as_role(role))
    if role not in ALLOWED[method, rule]:
        assert (answer.status_code, answer.json["code"]) == (403, "forbidden")
    elif rule in ALWAYS_THERE:
        assert answer.status_code in (200, 422)
    else:
        assert answer.status_code in (404, 422), "let in, and the request itself is at fault"


@pytest.mark.parametrize("name", ["a%00b", "%ff", "a b", "x" * 100])
@pytest.mark.parametrize("rule", READ_BY_NAME)
def test_a_name_that_nothing_can_have_is_not_found(world: World, rule: str, name: str) -> None:
    path = re.sub(r"<[\w:]+>", name, rule)
    for role in ALLOWED["GET", rule]:
        assert world.call("GET", path, world.as_role(role)).status_code == 404


@pytest.mark.parametrize("who", NOBODY)
@pytest.mark.parametrize(("method", "rule"), ALLOWED)
def test_nobody_gets_in_and_all_are_told_the_same(
    world: World, nothing_is_written: None, method: str, rule: str, who: str
) -> None:
    answer = world.call(method, path_of(rule), world.authorizations[who])
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="hq"'
    assert without_id(answer) == without_id(world.call(method, path_of(rule), None))


@pytest.mark.parametrize(("method", "rule"), ALLOWED)
def test_other_methods_of_a_route_do_not_get_round_its_check(
    world: World, method: str, rule: str
) -> None:
    assert world.call("OPTIONS", path_of(rule), None).status_code == 401


def test_no_route_but_a_public_one_knows_head(app: Flask) -> None:
    with_head = {rule.rule for rule in app.url_map.iter_rules() if "HEAD" in rule.methods}
    assert with_head == {rule for _, rule in PUBLIC}


@pytest.mark.parametrize("who", [None, *Role])
@pytest.mark.parametrize("rule", sorted({rule for _, rule in ALLOWED}))
def test_head_is_refused_with_the_methods_that_there_are(
    world: World, nothing_is_written: None, rule: str, who: Role | None
) -> None:
    answer = world.call("HEAD", path_of(rule), world.as_role(who) if who else None)
    assert answer.status_code == 405
    allowed = {method for method, one in ALLOWED if one == rule}
    assert set(answer.headers["Allow"].split(", ")) == allowed | {"OPTIONS"}


@pytest.mark.parametrize(("method", "rule"), sorted(PUBLIC))
def test_head_of_what_is_public_is_a_get_without_its_body(
    world: World, method: str, rule: str
) -> None:
    answer = world.call("HEAD", path_of(rule), None)
    assert answer.status_code == world.call(method, path_of(rule), None).status_code
    assert answer.status_code in (200, 503)
    assert answer.data == b""


@pytest.mark.parametrize("who", [None, "garbage", "revoked", Role.TERMINAL, Role.ADMIN])
@pytest.mark.parametrize(("method", "rule"), sorted(PUBLIC))
def test_what_is_public_asks_nobody_for_a_key(
    world: World, method: str, rule: str, who: str | None
) -> None:
    authorization = world.authorizations[who] if who else None
    assert world.call(method, path_of(rule), authorization).status_code in (200, 503)


def test_no_answer_lets_a_page_of_another_site_read_it(world: World) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        headers = {"Origin": "https://elsewhere.example", "Authorization": world.as_role(ADMIN)}
        answer = world.hq.client.open("/v1/admin/parameters", method=method, headers=headers)
        named = [name for name in answer.headers if name[0].lower().startswith("access-control")]
        assert named == []


def test_a_revoked_key_is_refused_from_the_next_request_on(world: World) -> None:
    key = world.hq.make_key(ADMIN)
    assert world.call("GET", "/v1/admin/parameters", f"Bearer {key}").status_code == 200
    world.hq.sql("UPDATE api_keys SET revoked_at = now() WHERE key_id = %s", key.split("_")[1])
    assert world.call("GET", "/v1/admin/parameters", f"Bearer {key}").status_code == 401


def commands(world: World) -> dict[str, dict[str, Any]]:
    """Return a command of each kind, for a card that is there and locked."""
    lock_id = str(uuid.uuid4())
    named = {"instrument_id": world.card.instrument_id, "lock_id": lock_id}
    wish = {"kind": world.card.kind, "number": world.card.number, "purpose": "redeem"}
    redemption = {**named, "amount_minor": 1, "currency": "SEK"}
    return {
        "/v1/locks": {"line": 1, **wish},
        "/v1/releases": {"line": 1, **named},
        "/v1/redemptions": {"line": 1, **redemption},
        "/v1/transactions": {"lines": [{"line": 1, "operation": "redeem", **redemption}]},
        "/v1/voids": {"line": 1, "instrument_id": world.card.instrument_id, "reason": "test"},
    }


def of_another_card(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return a command of the same kind for a card that is not there."""
    other = {"instrument_id": str(uuid.uuid4())}
    if path == "/v1/locks":
        return {**body, "number": a_number()}
    if path == "/v1/transactions":
        return {"lines": [{**body["lines"][0], **other}]}
    return {**body, **other}


@pytest.mark.parametrize(
    "path", ["/v1/locks", "/v1/releases", "/v1/redemptions", "/v1/transactions", "/v1/voids"]
)
def test_a_terminal_speaks_for_itself_only_and_learns_nothing_of_others(
    world: World, app: Flask, path: str
) -> None:
    sister, stranger = world.hq.till(world.till.store_id), world.stranger
    body = commands(world)[path]
    unknown = of_another_card(path, body)
    refusals = []
    with Tables.of(app) as tables:
        before = tables.rows()
        for store_id, terminal_id in (
            (sister.store_id, sister.terminal_id),
            (stranger.store_id, stranger.terminal_id),
            (world.till.store_id, "no-such-terminal"),
            ("no-such-store", world.till.terminal_id),
            (stranger.store_id, world.till.terminal_id),
        ):
            for one in (body, unknown):
                key = {"store_id": store_id, "terminal_id": terminal_id, "transaction_id": "X"}
                answer = world.till.post(path, {**key, **one})
                assert (answer.status_code, answer.json["code"]) == (403, "foreign_terminal")
                refusals.append(without_id(answer))
        assert tables.rows() == before
    assert all(refusal == refusals[0] for refusal in refusals)


@pytest.mark.parametrize("role", [Role.SYNC, Role.TERMINAL])
def test_a_batch_is_taken_from_its_own_store_only(
    world: World, nothing_is_written: None, role: Role
) -> None:
    refusals = [
        world.call(
            "POST",
            "/v1/offline-batches",
            world.as_role(role),
            store_id=store_id,
            batch_id=a_name("batch"),
            lines=[world.till.offline_line(world.card, a_name("X"), 1)],
        )
        for store_id in (world.stranger.store_id, "no-such-store", "HQ")
    ]
    for refusal in refusals:
        assert (refusal.status_code, refusal.json["code"]) == (403, "foreign_store")
        assert without_id(refusal) == without_id(refusals[0])


def test_a_terminal_posts_no_lines_of_its_sister(world: World) -> None:
    sister = world.hq.till(world.till.store_id)
    balance_minor = world.hq.balance(world.card)
    answer = world.till.post(
        "/v1/offline-batches",
        {
            "store_id": world.till.store_id,
            "batch_id": a_name("batch"),
            "lines": [sister.offline_line(world.card, a_name("X"), 1)],
        },
    )
    assert [line["outcome"] for line in answer.json["results"]] == ["quarantined"]
    assert answer.json["results"][0]["codes"] == ["foreign_terminal"]
    assert world.hq.balance(world.card) == balance_minor


@pytest.mark.parametrize("role", [Role.SYNC, Role.TERMINAL])
@pytest.mark.parametrize("suffix", ["", "/lines"])
def test_another_stores_batch_looks_like_one_that_is_not_there(
    world: World, role: Role, suffix: str
) -> None:
    stranger = world.stranger
    posted = world.hq.post_batch(
        stranger.store_id, [stranger.offline_line(world.card, a_name("X"), 1)]
    )
    there = f"/v1/offline-batches/{stranger.store_id}/{posted.json['batch_id']}{suffix}"
    not_there = f"/v1/offline-batches/{stranger.store_id}/nothing{suffix}"
    nowhere = f"/v1/offline-batches/nowhere/nothing{suffix}"
    answers = [world.call("GET", path, world.as_role(role)) for path in (there, not_there, nowhere)]
    for answer in answers:
        assert (answer.status_code, answer.json["code"]) == (404, "batch_not_found")
        assert without_id(answer) == without_id(answers[0])
    assert world.call("GET", there, world.as_role(AUDITOR)).status_code == 200


def test_the_wrong_role_learns_nothing_of_what_is_there(
    world: World, nothing_is_written: None
) -> None:
    known = {"kind": world.card.kind, "number": world.card.number}
    unknown = {"kind": world.card.kind, "number": a_number()}
    answers = [
        world.call("POST", path, world.as_role(SYNC), **body)
        for body in (known, unknown, {})
        for path in ("/v1/balance-inquiries", "/v1/locks", "/v1/admin/instruments")
    ]
    for answer in answers:
        assert answer.status_code == 403
        assert without_id(answer) == without_id(answers[0])


def test_a_wrong_number_and_a_wrong_kind_are_answered_alike(
    world: World, nothing_is_written: None
) -> None:
    other_kind = {"kind": "credit_memo", "number": world.card.number}
    unknown = {"kind": world.card.kind, "number": a_number()}
    answers = [
        world.call("POST", "/v1/balance-inquiries", world.as_role(role), **body)
        for role in (TERMINAL, ADMIN, AUDITOR)
        for body in (other_kind, unknown)
    ]
    for answer in answers:
        assert (answer.status_code, answer.json["code"]) == (404, "instrument_not_found")
        assert without_id(answer) == without_id(answers[0])


def sold(till: Till, card: Card) -> str:
    """Sell something for a card, and return the transaction."""
    transaction_id = a_name("X")
    lock = till.lock(card, transaction_id)
    assert till.redeem(card, transaction_id, 1, lock.json["lock_id"]).status_code == 201
    return transaction_id


def test_a_terminal_voids_its_own_lines_only(world: World) -> None:
    sister = world.hq.till(world.till.store_id)
    transaction_id = sold(sister, world.card)
    body = {"line": 1, "instrument_id": world.card.instrument_id, "reason": "not mine"}
    key = {**sister.key_of(transaction_id), **body}
    balance_minor = world.hq.balance(world.card)
    for voider in (world.till, world.stranger):
        answer = voider.post("/v1/voids", key)
        assert (answer.status_code, answer.json["code"]) == (403, "foreign_terminal")
    # Nor by naming its own key: that one was never used, and stands for nothing.
    own = {**world.till.key_of(transaction_id), **body}
    assert world.till.post("/v1/voids", own).json["funded_minor"] == 0
    assert world.hq.balance(world.card) == balance_minor
    assert sister.post("/v1/voids", key).json["funded_minor"] == 1
    assert world.hq.balance(world.card) == balance_minor + 1


def test_a_sale_under_a_sisters_lock_is_not_concluded(world: World) -> None:
    sister, transaction_id = world.hq.till(world.till.store_id), a_name("X")
    card = world.hq.issue(100)
    lock = sister.lock(card, transaction_id)
    answer = world.till.conclude(transaction_id, sale_line(lock, 1))
    assert (answer.status_code, answer.json["code"]) == (409, "lock_lost")
    assert world.hq.balance(card) == 100
    assert sister.conclude(transaction_id, sale_line(lock, 1)).status_code == 201


@pytest.mark.parametrize("role", [Role.TERMINAL, Role.SYNC])
def test_another_tills_transaction_looks_like_one_that_is_not_there(
    world: World, role: Role
) -> None:
    sister = world.hq.till(world.till.store_id)
    tills = [world.stranger, sister] if role is TERMINAL else [world.stranger]
    theirs = [(till, sold(till, world.card)) for till in tills]
    paths = [f"{till.store_id}/{till.terminal_id}/{sale}" for till, sale in theirs]
    paths += [f"{till.store_id}/{till.terminal_id}/nothing" for till in tills]
    paths += [f"{world.till.store_id}/{world.till.terminal_id}/nothing", "nowhere/nobody/nothing"]
    answers = [world.call("GET", f"/v1/transactions/{path}", world.as_role(role)) for path in paths]
    for answer in answers:
        assert (answer.status_code, answer.json["code"]) == (404, "transaction_not_found")
        assert without_id(answer) == without_id(answers[0])
    for reader in (ADMIN, AUDITOR):
        read = world.call("GET", f"/v1/transactions/{paths[0]}", world.as_role(reader))
        assert [line["outcome"] for line in read.json["lines"]] == ["applied"]


def test_a_store_reads_the_transactions_of_its_own_tills(world: World) -> None:
    path = f"{world.till.store_id}/{world.till.terminal_id}/{sold(world.till, world.card)}"
    for role in Role:
        read = world.call("GET", f"/v1/transactions/{path}", world.as_role(role))
        assert (read.status_code, len(read.json["lines"])) == (200, 1)


@pytest.mark.parametrize("role", [Role.SYNC, Role.TERMINAL])
def test_a_dry_run_is_of_its_own_store_only(
    world: World, nothing_is_written: None, role: Role
) -> None:
    till = world.stranger
    lines = [till.offline_line(world.card, a_name("X"), 1)]
    for store_id in (till.store_id, "no-such-store", "HQ"):
        batch = {"store_id": store_id, "batch_id": "rehearsed", "dry_run": True, "lines": lines}
        answer = world.call("POST", "/v1/offline-batches", world.as_role(role), **batch)
        assert (answer.status_code, answer.json["code"]) == (403, "foreign_store")


def test_a_dry_run_tells_a_terminal_nothing_of_lines_of_others(
    world: World, nothing_is_written: None
) -> None:
    line = world.stranger.offline_line(world.card, a_name("X"), 1)
    batch = {"store_id": world.till.store_id, "batch_id": "rehearsed", "dry_run": True}
    answer = world.till.post("/v1/offline-batches", {**batch, "lines": [line]})
    [told] = answer.json["results"]
    assert (told["outcome"], told["codes"]) == ("quarantined", ["foreign_terminal"])
    assert told["balance_after_minor"] is told["instrument_id"] is None


@pytest.mark.parametrize("role", [Role.SYNC, Role.TERMINAL, Role.AUDITOR])
def test_the_wrong_role_learns_nothing_of_cases_and_locks(world: World, role: Role) -> None:
    card, till = world.hq.issue(100), world.till
    lock_id = till.lock(card, a_name("X")).json["lock_id"]
    posted = world.hq.post_batch(till.store_id, [till.offline_line(card, a_name("X"), 1)])
    there = [posted.json["results"][0]["case_id"], card.instrument_id]
    answers = []
    for case_id, instrument_id in (there, [str(uuid.uuid4())] * 2):
        breaking = {"instrument_id": instrument_id, "lock_id": lock_id, "reason": "test"}
        wishes: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", f"/v1/admin/cases/{case_id}/resolutions", {"resolution": "dismiss"}),
            ("POST", "/v1/admin/lock-breaks", {**breaking, "accepted_exposure_minor": 0}),
        ]
        if role is not AUDITOR:
            wishes += [
                ("GET", f"/v1/admin/cases/{case_id}", {}),
                ("GET", f"/v1/admin/locks/{instrument_id}", {}),
                ("GET", "/v1/admin/cases?store_id=nowhere", {}),
                ("GET", f"/v1/admin/cases?instrument_id={instrument_id}", {}),
                ("GET", "/v1/admin/cases/summary", {}),
                ("GET", f"/v1/admin/locks?store_id={till.store_id}", {}),
                ("GET", f"/v1/admin/audit-entries?subject=case:{case_id}", {}),
            ]
        answers += [
            world.call(method, path, world.as_role(role), **body) for method, path, body in wishes
        ]
    for answer in answers:
        assert (answer.status_code, answer.json["code"]) == (403, "forbidden")
        assert without_id(answer) == without_id(answers[0])
