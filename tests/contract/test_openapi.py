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
from tests.support import Hq, a_number, sale_line

COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
REFRESH = "docs/openapi.json is not up to date: run `hq openapi > docs/openapi.json`"
# Path -> what its body may be besides JSON.
OTHER_BODIES = {"/v1/offline-batches": {"application/x-ndjson"}}
PUBLIC = {"/healthz", "/readyz", "/problems/{code}"}


@pytest.fixture(scope="module")
def printed() -> str:
    done = CliRunner().invoke(main, ["openapi"])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def description(printed: str) -> dict[str, Any]:
    return json.loads(printed)


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
        errors = {status for status in operation["responses"] if not status.startswith("2")}
        assert "default" in errors, (method, path)
        for status in errors:
            described = resolved(description, operation["responses"][status])
            schema = {"$ref": "#/components/schemas/Problem"}
            assert described["content"] == {CONTENT_TYPE: {"schema": schema}}, (method, path)


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
    fits(description, "Parameters", till.get("/v1/parameters").json)
    for one in (card, memo):
        lock = till.lock(one, one.kind)
        fits(description, "Lock", lock.json)
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
    for result in posted["results"]:
        fits(description, "Case", hq.case(result["case_id"]))
    fits(description, "Case", hq.resolve(posted["results"][0]["case_id"], "absorb").json)
    other = hq.issue(500)
    lock_id = till.lock(other, "stuck").json["lock_id"]
    held = hq.admin.get(f"/v1/admin/locks/{other.instrument_id}").json
    fits(description, "HeldLock", held)
    breaking = {
        "instrument_id": other.instrument_id,
        "lock_id": lock_id,
        "accepted_exposure_minor": held["exposure_minor"],
        "reason": "the till is broken",
    }
    fits(description, "HeldLock", hq.admin.post("/v1/admin/lock-breaks", breaking).json)


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
