"""Reset cache: the next heartbeat of every till concerned tells it to fetch, until it has."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from hq_service.domain.actors import Role
from tests.support import Caller, Hq, Tables, Till

RESETS = "/v1/admin/cache-resets"


@pytest.fixture
def tills(hq: Hq) -> tuple[Till, Till, Till]:
    """Two tills of a store and one of another, with a copy of the parameters each."""
    one = hq.till()
    found = (one, hq.till(one.store_id), hq.till())
    for till in found:
        assert till.get("/v1/parameters").status_code == 200
    return found


def reset(hq: Hq, **scope: str) -> dict[str, Any]:
    answer = hq.admin.post(RESETS, {**scope, "reason": "the parameter must be No today"})
    assert answer.status_code == 201, answer.json
    return dict(answer.json)


def told_to_fetch(*tills: Till) -> list[bool]:
    return [till.heartbeat().json["parameters"]["reset_cache"] for till in tills]


def listed(hq: Hq, cache_reset_id: str) -> dict[str, Any]:
    [found] = [
        one
        for one in hq.admin.get(RESETS).json["cache_resets"]
        if one["cache_reset_id"] == cache_reset_id
    ]
    return dict(found)


def counts(of: dict[str, Any]) -> tuple[int, int]:
    return of["registers_concerned_count"], of["registers_fetched_count"]


def test_all_tills_are_told_until_they_have_fetched(hq: Hq, tills: tuple[Till, Till, Till]) -> None:
    assert told_to_fetch(*tills) == [False, False, False]
    made = reset(hq)
    assert (made["store_id"], made["terminal_id"]) == (None, None)
    assert told_to_fetch(*tills) == [True, True, True]
    assert told_to_fetch(*tills) == [True, True, True], "until they have fetched"
    assert tills[0].get("/v1/parameters").status_code == 200
    assert told_to_fetch(*tills) == [False, True, True]


def test_a_till_whose_copy_is_the_newest_has_fetched_as_well(
    hq: Hq, tills: tuple[Till, Till, Till]
) -> None:
    etag = tills[0].get("/v1/parameters").headers["ETag"]
    reset(hq)
    assert tills[0].get("/v1/parameters", If_None_Match=etag).status_code == 304
    assert told_to_fetch(tills[0]) == [False]


def test_the_tills_of_one_store_are_told_and_no_others(
    hq: Hq, tills: tuple[Till, Till, Till]
) -> None:
    made = reset(hq, store_id=tills[0].store_id)
    assert counts(made) == (2, 0)
    assert told_to_fetch(*tills) == [True, True, False]


def test_one_till_is_told_and_no_other(hq: Hq, tills: tuple[Till, Till, Till]) -> None:
    made = reset(hq, store_id=tills[0].store_id, terminal_id=tills[0].terminal_id)
    assert counts(made) == (1, 0)
    assert told_to_fetch(*tills) == [True, False, False]


def test_a_second_reset_needs_another_fetch(hq: Hq, tills: tuple[Till, Till, Till]) -> None:
    reset(hq)
    tills[0].get("/v1/parameters")
    assert told_to_fetch(tills[0]) == [False]
    reset(hq, store_id=tills[0].store_id)
    assert told_to_fetch(tills[0]) == [True]


def test_a_register_that_came_after_the_reset_is_not_concerned(hq: Hq) -> None:
    store_id = hq.make_store()
    before = hq.till(store_id)
    made = reset(hq, store_id=store_id)
    after = hq.till(store_id)
    assert told_to_fetch(before, after) == [True, False], "the first one never fetched"
    assert counts(listed(hq, made["cache_reset_id"])) == (1, 0)


def test_a_reset_makes_a_distributed_change_effective_at_once(
    hq: Hq, tills: tuple[Till, Till, Till]
) -> None:
    till = tills[0]
    hq.set_parameters(offline_grant_hours=48)
    assert told_to_fetch(till) == [False], "the copy is good for a day"
    reset(hq)
    answer = till.heartbeat().json["parameters"]
    assert answer["reset_cache"] is True
    fetched = till.get("/v1/parameters").json
    assert (fetched["revision"], fetched["parameters"]["offline_grant_hours"]) == (
        answer["revision"],
        48,
    )
    hq.set_parameters(offline_grant_hours=72)


def test_a_till_whose_fetch_was_lost_on_the_way_is_told_again(
    hq: Hq, tills: tuple[Till, Till, Till]
) -> None:
    till = tills[0]
    old = till.get("/v1/parameters").json["revision"]
    hq.set_parameters(offline_grant_hours=49)
    made = reset(hq, store_id=till.store_id)
    new = till.get("/v1/parameters").json["revision"]  # and the answer is lost
    assert counts(listed(hq, made["cache_reset_id"])) == (2, 1)
    for _ in range(2):
        answer = till.heartbeat(parameter_revision=old).json["parameters"]
        assert answer == {"revision": new, "reset_cache": True}
    assert counts(listed(hq, made["cache_reset_id"])) == (2, 0)
    till.get("/v1/parameters")
    assert till.heartbeat(parameter_revision=new).json["parameters"]["reset_cache"] is False
    assert counts(listed(hq, made["cache_reset_id"])) == (2, 1)
    hq.set_parameters(offline_grant_hours=72)
    assert till.heartbeat(parameter_revision=new).json["parameters"]["reset_cache"] is False


def test_the_list_tells_how_many_have_fetched_since(hq: Hq, tills: tuple[Till, Till, Till]) -> None:
    first = reset(hq, store_id=tills[0].store_id)
    tills[0].get("/v1/parameters")
    second = reset(hq, store_id=tills[0].store_id)
    assert counts(listed(hq, first["cache_reset_id"])) == (2, 1)
    assert counts(listed(hq, second["cache_reset_id"])) == (2, 0)
    tills[0].get("/v1/parameters")
    tills[1].get("/v1/parameters")
    assert counts(listed(hq, first["cache_reset_id"])) == (2, 2)
    assert counts(listed(hq, second["cache_reset_id"])) == (2, 2)
    hq.sql(
        "UPDATE terminals SET retired_at = now() WHERE store_id = %s AND terminal_id = %s",
        tills[1].store_id,
        tills[1].terminal_id,
    )
    assert counts(listed(hq, second["cache_reset_id"])) == (1, 1), "those in use"


def test_the_list_is_newest_first_and_pages_follow_one_another(hq: Hq) -> None:
    store_id, elsewhere = hq.make_store(), hq.make_store()
    made = [reset(hq, store_id=store_id)["cache_reset_id"] for _ in range(3)]
    made.append(reset(hq)["cache_reset_id"])
    reset(hq, store_id=elsewhere)
    told, after = [], ""
    while after is not None:
        page = hq.admin.get(f"{RESETS}?store_id={store_id}&limit=2{after}").json
        told += [one["cache_reset_id"] for one in page["cache_resets"]]
        after = page["next_after"] and f"&after={page['next_after']}"
    assert told[:4] == made[::-1], "also those of all stores, and none of another"
    assert hq.admin.get(f"{RESETS}?store_id=nothing").json["code"] == "store_not_found"


def test_a_reset_is_in_the_audit(hq: Hq, tills: tuple[Till, Till, Till]) -> None:
    till = tills[0]
    scopes = {
        "parameters:company": {},
        f"parameters:{till.store_id}": {"store_id": till.store_id},
        f"register:{till.store_id}/{till.terminal_id}": {
            "store_id": till.store_id,
            "terminal_id": till.terminal_id,
        },
    }
    for subject, scope in scopes.items():
        made = reset(hq, **scope)
        [(action, actor, detail)] = hq.sql(
            "SELECT action, actor, detail FROM audit_entries WHERE subject = %s"
            " ORDER BY number DESC LIMIT 1",
            subject,
        )
        assert (action, actor) == ("cache_reset", made["reset_by"])
        assert json.loads(detail) == {
            "reason": "the parameter must be No today",
            "cache_reset_id": made["cache_reset_id"],
            "concerned_count": made["registers_concerned_count"],
        }


def refused(answer: TestResponse) -> list[tuple[str, str]]:
    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed"), answer.json
    return [(fault["pointer"], fault["detail"]) for fault in answer.json["errors"]]


def test_a_store_or_register_that_there_is_not_is_pointed_at_and_nothing_is_written(
    hq: Hq, app: Flask
) -> None:
    till, gone = hq.till(), hq.till()
    hq.sql("UPDATE terminals SET retired_at = now() WHERE store_id = %s", gone.store_id)
    closed = hq.make_store()
    hq.sql("UPDATE stores SET retired_at = now() WHERE store_id = %s", closed)
    cases: list[tuple[dict[str, str], tuple[str, str]]] = [
        ({"store_id": "nothing"}, ("/store_id", "is not a store")),
        ({"store_id": closed}, ("/store_id", "is a retired store")),
        ({"terminal_id": till.terminal_id}, ("/store_id", "is needed with a register")),
        (
            {"store_id": till.store_id, "terminal_id": gone.terminal_id},
            ("/terminal_id", "is not a register of this store"),
        ),
        (
            {"store_id": gone.store_id, "terminal_id": gone.terminal_id},
            ("/terminal_id", "is a retired register"),
        ),
    ]
    with Tables.of(app) as tables:
        before = tables.rows()
        for scope, fault in cases:
            assert refused(hq.admin.post(RESETS, {**scope, "reason": "test"})) == [fault]
        assert tables.rows() == before


def test_an_auditor_reads_the_resets_and_makes_none(hq: Hq) -> None:
    auditor = Caller(hq.client, hq.make_key(Role.AUDITOR))
    assert auditor.get(RESETS).status_code == 200
    assert auditor.post(RESETS, {"reason": "test"}).status_code == 403
