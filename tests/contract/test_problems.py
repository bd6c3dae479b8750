"""Every error has a code, every code a row, a remedy and a place where it is explained."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from flask import Flask

from hq_service.api import bodies
from hq_service.api.problems import CONTENT_TYPE, PROBLEMS, REMEDIES, Problem
from hq_service.domain import errors
from hq_service.domain.errors import HqError
from hq_service.domain.judgement import OnlineRefusal
from hq_service.domain.locking import LockRefusal
from tests.support import Hq

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "problems.md").read_text(encoding="utf-8")
DYNAMICS = "Microsoft_Dynamics_Commerce_Runtime_"
ROW = re.compile(r"^\| `(\w+)` \| (\d+) \| (.+?) \| (.+?) \| (yes|no) \| (.+?) \|$", re.MULTILINE)


def error_classes() -> dict[str, type[HqError]]:
    return {
        name: one
        for module in (errors, bodies)
        for name, one in inspect.getmembers(module, inspect.isclass)
        if issubclass(one, HqError)
    }


def codes_in_source() -> set[str]:
    """Return the codes that raisers name as literals: ``code="..."``, and those of HTTP errors."""
    found: set[str] = set()
    for path in (ROOT / "hq_service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.keyword)
                and node.arg == "code"
                and isinstance(node.value, ast.Constant)
            ):
                found.add(node.value.value)
    return found


@pytest.mark.parametrize("name", error_classes())
def test_every_error_class_has_a_row(name: str) -> None:
    assert error_classes()[name].code in PROBLEMS


@pytest.mark.parametrize("refusal", [*LockRefusal, *OnlineRefusal])
def test_every_refusal_has_a_row(refusal: str) -> None:
    # An online refusal is a client's fault: never a server error, never "try again" by itself.
    assert 400 <= PROBLEMS[str(refusal)].status < 500


def test_every_code_that_somebody_raises_has_a_row_and_every_row_somebody() -> None:
    raised = codes_in_source() | {one.code for one in error_classes().values()}
    raised |= {*LockRefusal, *OnlineRefusal}
    of_http = {"not_found", "method_not_allowed"}
    assert raised | of_http == set(PROBLEMS)


def test_every_code_has_a_remedy() -> None:
    assert set(REMEDIES) == set(PROBLEMS)


def test_the_document_has_exactly_the_codes_each_once() -> None:
    codes = [row[0] for row in ROW.findall(DOCUMENT)]
    assert codes == list(PROBLEMS)
    # No row that the expression above does not understand.
    assert len(codes) == len(re.findall(r"^\| `", DOCUMENT, re.MULTILINE))


@pytest.mark.parametrize("row", ROW.findall(DOCUMENT), ids=lambda row: row[0])
def test_the_document_says_what_the_service_says(row: tuple[str, ...]) -> None:
    code, status, means, remedy, retryable, dynamics = row
    kind = PROBLEMS[code]
    assert (int(status), remedy, retryable == "yes") == (
        kind.status,
        REMEDIES[code],
        kind.retryable,
    )
    assert means.endswith(".")
    if kind.dynamics_code is None:
        assert dynamics == "\N{EN DASH}"
    else:
        assert DYNAMICS + dynamics.strip("`") == kind.dynamics_code


def test_what_cannot_be_mended_by_waiting_is_not_called_retryable() -> None:
    for code, kind in PROBLEMS.items():
        assert kind.retryable == (kind.status >= 500 or kind.status == 423), code


@pytest.mark.parametrize("code", PROBLEMS)
def test_the_type_of_a_problem_leads_to_its_explanation(hq: Hq, code: str) -> None:
    answer = hq.client.get(f"/problems/{code}")
    kind = PROBLEMS[code]
    assert answer.status_code == 200
    assert answer.json == {
        "code": code,
        "status": kind.status,
        "title": kind.title,
        "remedy": REMEDIES[code],
        "retryable": kind.retryable,
    }


def test_a_code_that_is_none_is_explained_nowhere(hq: Hq) -> None:
    answer = hq.client.get("/problems/no_such_code")
    assert (answer.status_code, answer.json["code"]) == (404, "not_found")


@pytest.mark.parametrize(("code", "kind"), PROBLEMS.items())
def test_every_code_becomes_a_whole_problem_document(app: Flask, code: str, kind: Problem) -> None:
    with app.test_request_context():
        answer = app.make_response(app.handle_user_exception(HqError(code=code)))
    assert (answer.status_code, answer.content_type) == (kind.status, CONTENT_TYPE)
    document = answer.get_json()
    assert document["type"] == f"/problems/{code}"
    assert document["code"] == code
    assert document["title"] == kind.title
    assert document["status"] == kind.status
    assert document["detail"] == REMEDIES[code]
    assert document["retryable"] == kind.retryable
    assert document.get("dynamics_code") == kind.dynamics_code
