"""The OpenAPI description: committed, complete, and true."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from jsonschema import Draft202012Validator
from werkzeug.test import TestResponse

from hq_service.api.problems import CONTENT_TYPE
from hq_service.cli import main
from tests.contract.test_routes import ALLOWED
from tests.support import NOTHING_AT_STAKE, Hq, a_name, a_number, hearing, sale_line

COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
REFRESH = "docs/openapi.json is not up to date: run `hq openapi > docs/openapi.json`"
# Path -> what its body may be besides JSON.
OTHER_BODIES = {"/v1/offline-batches": {"application/x-ndjson"}}
# The headers that a program acts on.
ACTED_ON = {"ETag", "Location", "Idempotency-Replayed", "Retry-After"}
PUBLIC = {"/healthz", "/readyz", "/problems/{code}"}


@pytest.fixture(scope="module")
def printed() -> str:
    done = CliRunner().invoke(main, ["openapi"])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def description(printed: str) -> dict[str, Any]:
    return json.loads(printed)


@pytest.fixture(autouse=True)
def headers_are_described(
    app: Flask, description: dict[str, Any], request: pytest.FixtureRequest
) -> Iterator[None]:
    """Look at every answer of a test: the headers that a program acts on are in the description."""
    if "hq" not in request.fixturenames:
        yield
        return
    undescribed: list[tuple[str, int, str]] = []

    with hearing(app) as heard:
        yield
    for one in heard:
        if one.route is None or one.route == "/openapi.json":
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", one.route)
        operation = description["paths"][path].get(one.method.lower())
        if operation is None:
            continue
        answers = operation["responses"]
        described = resolved(description, answers.get(str(one.status)) or answers["default"])
        told = {name for name, _ in one.headers} & ACTED_ON - set(described.get("headers", {}))
        undescribed.extend((operation["operationId"], one.status, name) for name in told)
    assert undescribed == []


def operations(description: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, described in description["paths"].items():
        for method, operation in described.items():
            if method != "parameters":
                yield path, method, operation


def resolved(description: dict[str, Any], thing: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference, if it is one."""
    while "$ref" in thing:
        found: Any = description
        for name in thing["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        thing = found
    return thing


def objects_in(description: dict[str, Any], schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the objects with members of their own that a schema is made of, however deep."""
    schema = resolved(description, schema)
    if "properties" in schema:
        yield schema
    inner = [*schema.get("properties", {}).values(), *schema.get("allOf", [])]
    for one in [*inner, schema["items"]] if "items" in schema else inner:
        yield from objects_in(description, one)


def fits(description: dict[str, Any], name: str, document: Any) -> None:
    """Check a document against a schema of the description."""
    components = {"components": description["components"]}
    schema = {"$ref": f"#/components/schemas/{name}", **components}
    Draft202012Validator(schema).validate(document)


def test_the_committed_description_is_what_the_command_prints(printed: str) -> None:
    assert COMMITTED.read_text(encoding="utf-8") == printed, REFRESH


def test_the_service_tells_the_same_description(hq: Hq, description: dict[str, Any]) -> None:
    assert hq.client.get("/openapi.json").json == description


def test_it_is_openapi_3_1_and_its_schemas_are_json_schema(description: dict[str, Any]) -> None:
    assert description["openapi"].startswith("3.1.")
    for schema in description["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_patterns_mean_the_same_to_every_reader(printed: str) -> None:
    # JSON Schema takes the expressions of ECMA 262: there \Z is the letter, and no name would fit.
    patterns = {json.loads(one) for one in re.findall(r'"pattern": ("[^\n]+")', printed)}
    assert patterns
    for pattern in patterns:
        assert pattern[0] + pattern[-1] == "^$", pattern
        assert not re.search(r"\\[AZzGbB]|\(\?", pattern), pattern


def test_every_reference_leads_somewhere(description: dict[str, Any], printed: str) -> None:
    references = set(re.findall(r'"\$ref": "([^"]+)"', printed))
    assert references
    for reference in references:
        resolved(description, {"$ref": reference})


def test_every_route_is_described_and_nothing_else(app: Flask, description: dict[str, Any]) -> None:
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.rule != "/openapi.json"
    }
    assert {(path, method) for path, method, _ in operations(description)} == routes


def test_every_operation_says_what_it_does_and_what_it_answers(
    description: dict[str, Any],
) -> None:
    for path, method, operation in operations(description):
        assert operation["summary"], (method, path)
        answers = {status for status in operation["responses"] if status.startswith("2")}
        assert answers, (method, path)
        for status in answers:
            content = operation["responses"][status]["content"]
            assert list(content) == ["application/json"], (method, path)


def test_every_error_is_described_as_a_problem_document(description: dict[str, Any]) -> None:
    for path, method, operation in operations(description):
        errors = {status for status in operation["responses"] if status[0] not in "23"}
        assert "default" in errors, (method, path)
        for status in errors:
            described = resolved(description, operation["responses"][status])
            schema = {"$ref": "#/components/schemas/Problem"}
            assert described["content"] == {CONTENT_TYPE: {"schema": schema}}, (method, path)


def test_every_operation_has_a_name_of_its_own(description: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(description)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z_]+", name) for name in names)


def test_every_operation_tells_the_roles_that_it_lets_in(description: dict[str, Any]) -> None:
    told = {
        (method.upper(), path): set(operation["x-roles"])
        for path, method, operation in operations(description)
        if path not in PUBLIC
    }
    # tests/contract/test_routes.py calls each of them with a key of every role.
    assert told == {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)): set(roles)
        for (method, rule), roles in ALLOWED.items()
    }
    assert all("x-roles" not in one for path, _, one in operations(description) if path in PUBLIC)


def test_every_edit_says_that_it_needs_if_match(description: dict[str, Any]) -> None:
    # tests/contract/test_bad_input.py shows that each is refused without it.
    for path, method, operation in operations(description):
        named = {
            (one["name"], one["required"])
            for one in operation.get("parameters", [])
            if one["in"] == "header"
        }
        assert (("If-Match", True) in named) == (method == "patch"), (method, path)
        has_copies = "304" in operation["responses"]
        assert (("If-None-Match", False) in named) == has_copies, (method, path)
        if has_copies:
            assert "content" not in operation["responses"]["304"]


def test_an_error_may_say_when_to_try_again(description: dict[str, Any]) -> None:
    assert list(description["components"]["responses"]["DEFAULT_ERROR"]["headers"]) == [
        "Retry-After"
    ]


def test_copies_and_large_batches_are_answered_as_described(hq: Hq) -> None:
    # The fixture below looks at the headers.
    till, card = hq.till(), hq.issue(500)
    for path in ("/v1/parameters", "/v1/register"):
        tag = till.get(path).headers["ETag"]
        assert till.get(path, If_None_Match=tag).status_code == 304
    body = {"store_id": till.store_id, "batch_id": a_name("batch")}
    body["lines"] = [till.offline_line(card, f"X{number}", 1) for number in range(2)]
    sync = hq.sync(till.store_id)
    for status in (201, 200):
        assert sync.post("/v1/offline-batches", body).status_code == status
    for _ in range(2):
        sale = till.lock(card, "sale")
    for _ in range(2):
        till.redeem(card, "sale", 1, sale.json["lock_id"])
    other = till.lock(card, "other").json["lock_id"]
    for _ in range(2):
        till.release(card, "other", other)
    for _ in range(2):
        till.void(card, "sale")


def test_a_key_is_needed_for_everything_but_what_is_public(description: dict[str, Any]) -> None:
    assert description["security"] == [{"apiKey": []}]
    assert description["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    open_to_all = {
        path for path, _, operation in operations(description) if operation.get("security") == []
    }
    assert open_to_all == PUBLIC
    others = [one for path, _, one in operations(description) if path not in PUBLIC]
    assert all("security" not in operation for operation in others)


def test_bodies_are_json_and_closed_to_unknown_members(description: dict[str, Any]) -> None:
    # tests/contract/test_bad_input.py shows that the service refuses them in each.
    for path, method, operation in operations(description):
        assert ("requestBody" in operation) == (method in ("post", "patch")), (method, path)
        if "requestBody" in operation:
            assert operation["requestBody"]["required"] is True
            content = operation["requestBody"]["content"]
            assert set(content) == {"application/json"} | OTHER_BODIES.get(path, set())
            schema = content["application/json"]["schema"]
            for one in objects_in(description, schema):
                assert one["additionalProperties"] is False, (method, path)


def test_no_card_number_is_described_as_part_of_an_address(description: dict[str, Any]) -> None:
    for path, described in description["paths"].items():
        parameters = described.get("parameters", []) + [
            one
            for method, of in described.items()
            if method != "parameters"
            for one in of.get("parameters", [])
        ]
        assert "number" not in {resolved(description, one)["name"] for one in parameters}, path


def test_a_locked_and_redeemed_card_is_answered_as_described(
    hq: Hq, description: dict[str, Any]
) -> None:
    hq.set_parameters(allow_concluding_gift_card_transactions_offline=True)
    till, card, memo = hq.till(), hq.issue(500), hq.issue(500, kind="credit_memo")
    fits(description, "TillParameters", till.get("/v1/parameters").json)
    for one in (card, memo):
        lock = till.lock(one, one.kind)
        fits(description, "Lock", lock.json)
        fits(description, "OwnLocks", till.get("/v1/locks").json)
        redeemed = till.redeem(one, one.kind, 100, lock.json["lock_id"])
        fits(description, "Redemption", redeemed.json)
    inquiry = {"kind": card.kind, "number": card.number}
    fits(description, "Balance", till.post("/v1/balance-inquiries", inquiry).json)
    lock_id = till.lock(card, "released").json["lock_id"]
    fits(description, "Release", till.release(card, "released", lock_id).json)
    posted = hq.post_batch(till.store_id, [till.offline_line(card, "offline", 1), {}])
    fits(description, "OfflineBatch", posted.json)
    state = f"/v1/offline-batches/{till.store_id}/{posted.json['batch_id']}"
    fits(description, "OfflineBatchState", hq.admin.get(state).json)
    fits(description, "LineResults", hq.admin.get(f"{state}/lines").json)


def test_a_sale_and_what_becomes_of_it_is_answered_as_described(
    hq: Hq, description: dict[str, Any]
) -> None:
    till, memo = hq.till(), hq.issue(500, kind="credit_memo")
    issue = till.lock_new("sale", 300, line=2)
    fits(description, "Lock", issue.json)
    fits(description, "OwnLocks", till.get("/v1/locks?limit=1").json)
    lines = [
        sale_line(till.lock(memo, "sale"), 100),
        sale_line(issue, 300, line=2, operation="issue"),
    ]
    done = till.conclude("sale", *lines)
    assert done.status_code == 201, done.json
    fits(description, "ConcludedSale", done.json)
    path = f"/v1/transactions/{till.store_id}/{till.terminal_id}/sale"
    fits(description, "KnownTransaction", till.get(path).json)
    fits(description, "Void", till.void(memo, "sale").json)
    fits(description, "KnownTransaction", till.get(path).json)


def test_cases_and_locks_are_answered_as_described(hq: Hq, description: dict[str, Any]) -> None:
    till, card = hq.till(), hq.issue(500)
    hq.allow_offline(till)
    line = till.offline_line(card, "offline", 600)
    body = {"store_id": till.store_id, "batch_id": "rehearsed", "lines": [line, {}]}
    sync = hq.sync(till.store_id)
    fits(
        description, "OfflineBatch", sync.post("/v1/offline-batches", body | {"dry_run": True}).json
    )
    posted = sync.post("/v1/offline-batches", body).json
    cases = hq.admin.get(f"/v1/admin/cases?store_id={till.store_id}&limit=1")
    fits(description, "Cases", cases.json)
    fits(description, "CaseSummary", hq.admin.get("/v1/admin/cases/summary").json)
    for result in posted["results"]:
        fits(description, "CaseStory", hq.case(result["case_id"]))
    fits(description, "Case", hq.resolve(posted["results"][0]["case_id"], "absorb").json)
    other = hq.issue(500)
    lock_id = till.lock(other, "stuck").json["lock_id"]
    held = hq.admin.get(f"/v1/admin/locks/{other.instrument_id}").json
    fits(description, "HeldLock", held)
    fits(description, "HeldLocks", hq.admin.get("/v1/admin/locks?limit=1").json)
    breaking = {
        "instrument_id": other.instrument_id,
        "lock_id": lock_id,
        "accepted_exposure_minor": held["exposure_minor"],
        "reason": "the till is broken",
    }
    fits(description, "BrokenLock", hq.admin.post("/v1/admin/lock-breaks", breaking).json)
    fits(description, "AuditEntries", hq.admin.get("/v1/admin/audit-entries?order=newest").json)


def test_distribution_is_answered_as_described(hq: Hq, description: dict[str, Any]) -> None:
    till = hq.till()
    sync, schedules = hq.sync(till.store_id), "/v1/admin/distribution-schedules"
    schedule_id = hq.make_schedule("1110", "1070", "1090", "P-0001", every_seconds=3600)
    fits(description, "Schedules", hq.admin.get(schedules).json)
    fits(description, "Schedule", hq.admin.get(f"{schedules}/{schedule_id}").json)
    fits(description, "Run", hq.run_now(schedule_id).json)
    todo = sync.get("/v1/distribution-sessions")
    fits(description, "Sessions", todo.json)
    *downloads, upload = todo.json["sessions"]
    for session in downloads:
        fits(description, "Package", sync.fetch(session["session_id"]).json)
        fits(description, "Session", sync.apply(session["session_id"]).json)
    fits(description, "Problem", sync.tell(upload["session_id"], "downloaded").json)
    fits(description, "Problem", sync.fetch(downloads[0]["session_id"]).json)
    sessions = "/v1/admin/distribution-sessions"
    fits(description, "Sessions", hq.admin.get(f"{sessions}?limit=2").json)
    path = f"{sessions}/{upload['session_id']}"
    fits(description, "Session", hq.admin.get(path).json)
    for change in ("cancellations", "reruns"):
        fits(description, "Session", hq.admin.post(f"{path}/{change}", {"reason": "test"}).json)


def test_the_parameters_are_answered_as_described(hq: Hq, description: dict[str, Any]) -> None:
    till = hq.till()
    till.get("/v1/parameters")
    hq.till(till.store_id)
    company, of_store = "/v1/admin/parameters", f"/v1/admin/stores/{till.store_id}/parameters"
    fits(description, "Parameters", hq.admin.get(company).json)
    fits(description, "StoreParameters", hq.admin.get(of_store).json)
    hq.set_parameters(gift_card_cash_out_threshold_minor={"SEK": 100})
    body = {"parameters": {"lease_seconds": 60}, "reason": "test"}
    fits(description, "StoreParameters", hq.admin.patch(of_store, body, If_Match="*").json)
    fits(description, "ParameterHistory", hq.admin.get(f"{company}/history?limit=1").json)
    fits(description, "ParameterHistory", hq.admin.get(f"{company}/history").json)
    fits(description, "ParameterStates", hq.admin.get(f"{company}/states").json)
    fits(description, "ParameterDefinitions", hq.admin.get(f"{company}/definitions").json)


def test_what_administrators_set_up_is_answered_as_described(
    hq: Hq, description: dict[str, Any]
) -> None:
    till, admin = hq.till(), hq.admin
    store, why = f"/v1/admin/stores/{till.store_id}", {"reason": "test"}
    register = f"{store}/registers/{till.terminal_id}"
    profile = {"offline_profile_id": "described", "name": "test", **why}
    fits(description, "OfflineProfile", admin.post("/v1/admin/offline-profiles", profile).json)
    given = {"offline_profile_id": "described", **why}
    fits(description, "Register", admin.patch(register, given, If_Match="*").json)
    fits(description, "RegisterSetup", till.get("/v1/register").json)
    fits(description, "RegisterSetup", hq.till().get("/v1/register").json)
    fits(description, "OfflineProfiles", admin.get("/v1/admin/offline-profiles").json)
    fits(description, "Registers", admin.get(f"{store}/registers?limit=1").json)
    fits(description, "RegisterRetirement", admin.get(f"{register}/retirement").json)
    fits(description, "StoreRetirement", admin.get(f"{store}/retirement").json)
    retired = admin.post(f"{store}/retirement", {**why, "accepted": NOTHING_AT_STAKE})
    fits(description, "Store", retired.json)
    fits(description, "Stores", admin.get("/v1/admin/stores?limit=1&with_retired=true").json)
    key = admin.post("/v1/admin/keys", {"role": "auditor", "label": "test", **why}).json
    fits(description, "MadeApiKey", key)
    path = f"/v1/admin/keys/{key['key_id']}"
    rotated = admin.post(f"{path}/rotation", {"overlap_seconds": 60, **why})
    fits(description, "MadeApiKey", rotated.json)
    fits(description, "ApiKey", admin.post(f"{path}/revocation", why).json)
    fits(description, "ApiKeys", admin.get("/v1/admin/keys?limit=1&with_ended=true").json)


def test_what_is_watched_is_answered_as_described(hq: Hq, description: dict[str, Any]) -> None:
    till = hq.till()
    hq.allow_offline(till)
    hq.till(till.store_id)
    till.lock(hq.issue(500), "G1")
    card = hq.issue(100)
    lines = [till.offline_line(card, f"X{number}", 1) for number in range(2)]
    hq.post_batch(till.store_id, lines[1:])
    told = till.heartbeat(journal_tips={till.journal_id: 2, "J": 1})
    assert told.status_code == 200, told.json
    fits(description, "HeartbeatAnswer", told.json)
    status = "/v1/admin/connection-status"
    for query in (f"?store_id={till.store_id}", f"?store_id={till.store_id}&limit=1"):
        fits(description, "ConnectionStatus", hq.admin.get(status + query).json)
    exposure = hq.admin.get(f"/v1/admin/stores/{till.store_id}/exposure")
    assert exposure.json["registers"]
    fits(description, "StoreExposure", exposure.json)
    hq.sql("UPDATE terminals SET created_at = '2020-01-01Z' WHERE store_id = %s", till.store_id)
    query = f"?business_date=2025-01-31&store_id={till.store_id}"
    completeness = hq.admin.get(f"/v1/admin/completeness{query}")
    assert len(completeness.json["registers"]) == 2
    fits(description, "Completeness", completeness.json)
    body = {"store_id": till.store_id, "terminal_id": till.terminal_id, "reason": "test"}
    fits(description, "CacheReset", hq.admin.post("/v1/admin/cache-resets", body).json)
    fits(description, "CacheResets", hq.admin.get("/v1/admin/cache-resets?limit=1").json)


def refusals(hq: Hq) -> Iterator[TestResponse]:
    """Give a refusal of each kind that has members of its own."""
    till, card = hq.till(), hq.issue(500)
    till.lock(card, "X1")
    yield hq.till().lock(card, "X2")  # holder, retry_after_seconds
    yield till.post("/v1/balance-inquiries", {"number": 7})  # errors
    yield till.post("/v1/balance-inquiries", {"kind": "gift_card", "number": a_number()})
    yield till.redeem(card, "X1", 501, till.lock(card, "X1").json["lock_id"])  # dynamics_code
    body = {"parameters": {"lease_seconds": 60}, "reason": "test"}
    yield hq.admin.patch("/v1/admin/parameters", body, If_Match='"999"')  # current_revision
    sale = [{**sale_line(till.lock(card, "X1"), 501), "line": line} for line in (1, 2)]
    sale[1]["instrument_id"] = str(uuid.uuid4())
    yield till.conclude("X1", *sale)  # errors with codes
    breaking = {"instrument_id": card.instrument_id, "lock_id": sale[0]["lock_id"]}
    accepted = {**breaking, "accepted_exposure_minor": 1, "reason": "test"}
    yield hq.admin.post("/v1/admin/lock-breaks", accepted)  # exposure_minor
    posted = hq.post_batch(till.store_id, [{}])
    yield hq.resolve(posted.json["results"][0]["case_id"], "apply")  # possible_resolutions
    yield hq.client.put("/v1/locks")
    yield hq.client.get("/v1/parameters")


def test_every_refusal_is_answered_as_described(hq: Hq, description: dict[str, Any]) -> None:
    statuses = []
    for refusal in refusals(hq):
        statuses.append(refusal.status_code)
        assert refusal.content_type == CONTENT_TYPE
        fits(description, "Problem", refusal.json)
    assert statuses == [423, 422, 404, 409, 412, 409, 409, 409, 405, 401]
