"""The Commerce parameters over HTTP: company-wide, per store, their history, and how far they came.

A database of its own: revisions are numbered for the whole company.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from hq_service.domain.actors import Role
from hq_service.domain.parameters import DEFINITIONS, Parameters
from hq_service.operations import parameters as operations
from tests.support import Caller, Hq, Tables, Till

COMPANY = "/v1/admin/parameters"
GIFT_CARDS = "allow_concluding_gift_card_transactions_offline"
CREDIT_MEMOS = "allow_concluding_credit_memo_transactions_offline"


def path_of(store_id: str | None) -> str:
    return f"/v1/admin/stores/{store_id}/parameters" if store_id else COMPANY


def saved(answer: TestResponse) -> dict[str, Any]:
    assert answer.status_code == 200, answer.json
    told: dict[str, Any] = answer.json
    return told


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def audited(hq: Hq, subject: str) -> list[dict[str, Any]]:
    rows = hq.sql(
        "SELECT actor, action, detail FROM audit_entries WHERE subject = %s ORDER BY number",
        subject,
    )
    return [{"actor": actor, "action": action, **json.loads(text)} for actor, action, text in rows]


# --- one store ------------------------------------------------------------------------------------


def test_what_a_store_sets_itself_wins_there_and_nowhere_else(hq: Hq) -> None:
    store_id, other_id = hq.make_store(), hq.make_store()
    hq.save_parameters(lease_seconds=1_200)
    answer = hq.save_parameters(store_id, lease_seconds=60)
    told = saved(answer)
    assert told["store_id"] == store_id
    assert told["overrides"] == {"lease_seconds": 60}
    assert told["parameters"] == {
        **saved(hq.admin.get(COMPANY))["parameters"],
        "lease_seconds": 60,
    }
    assert saved(hq.admin.get(path_of(store_id))) == told
    assert hq.admin.get(path_of(store_id)).headers["ETag"] == answer.headers["ETag"]
    other = saved(hq.admin.get(path_of(other_id)))
    assert (other["overrides"], other["parameters"]["lease_seconds"]) == ({}, 1_200)


def test_null_takes_an_override_back_and_the_companys_value_holds_again(hq: Hq) -> None:
    store_id = hq.make_store()
    hq.save_parameters(offline_grant_hours=48)
    hq.save_parameters(store_id, offline_grant_hours=12, on_horizon="release")
    told = saved(hq.save_parameters(store_id, offline_grant_hours=None))
    assert told["overrides"] == {"on_horizon": "release"}
    assert told["parameters"]["offline_grant_hours"] == 48
    hq.save_parameters(offline_grant_hours=36)
    assert saved(hq.admin.get(path_of(store_id)))["parameters"]["offline_grant_hours"] == 36


def test_a_stores_value_stays_when_the_companys_becomes_the_same_and_changes_again(hq: Hq) -> None:
    store_id = hq.make_store()
    hq.save_parameters(store_id, clock_skew_seconds_max=100)
    for seconds in (100, 200):
        hq.save_parameters(clock_skew_seconds_max=seconds)
        told = saved(hq.admin.get(path_of(store_id)))
        assert told["parameters"]["clock_skew_seconds_max"] == 100


def test_an_edit_of_the_company_makes_what_a_stores_editor_saw_stale(hq: Hq) -> None:
    store_id = hq.make_store()
    seen = hq.admin.get(path_of(store_id)).headers["ETag"]
    revision = saved(hq.save_parameters(lease_seconds=1_000))["revision"]
    body = {"parameters": {"lease_seconds": 60}, "reason": "test"}
    answer = hq.admin.patch(path_of(store_id), body, If_Match=seen)
    assert (answer.status_code, answer.json["code"]) == (412, "precondition_failed")
    assert answer.json["current_revision"] == revision


def test_an_edit_of_one_store_makes_nobody_else_stale(hq: Hq) -> None:
    store_id, other_id = hq.make_store(), hq.make_store()
    company, other = (hq.admin.get(path_of(one)).headers["ETag"] for one in (None, other_id))
    hq.save_parameters(store_id, lease_seconds=61)
    assert hq.admin.get(COMPANY).headers["ETag"] == company
    assert hq.admin.get(path_of(other_id)).headers["ETag"] == other


@pytest.mark.parametrize("is_store", [False, True])
def test_an_edit_without_if_match_is_refused_and_a_star_stands_for_what_is_there(
    hq: Hq, app: Flask, is_store: bool
) -> None:
    path = path_of(hq.make_store() if is_store else None)
    body = {"parameters": {"lease_seconds": 62}, "reason": "test"}
    with Tables.of(app) as tables:
        before = tables.rows()
        answer = hq.admin.patch(path, body)
        assert tables.rows() == before
    assert (answer.status_code, answer.json["code"]) == (428, "precondition_required")
    assert hq.admin.patch(path, body, If_Match="*").status_code == 200


def test_every_faulty_value_of_a_store_is_pointed_at_and_nothing_is_written(
    hq: Hq, app: Flask
) -> None:
    store_id = hq.make_store()
    faulty = {"lease_seconds": 29, "no_such": None, "on_horizon": "x", "offline_grant_hours": None}
    with Tables.of(app) as tables:
        before = tables.rows()
        answer = hq.save_parameters(store_id, **faulty)
        assert tables.rows() == before
    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert answer.json["errors"] == [
        {"pointer": "/parameters/lease_seconds", "detail": "must be between 30 and 86400"},
        {"pointer": "/parameters/no_such", "detail": "is not a Commerce parameter"},
        {"pointer": "/parameters/on_horizon", "detail": "must be one of sticky, release"},
    ]


def test_a_store_that_is_not_there_has_no_parameters(hq: Hq) -> None:
    body = {"parameters": {"lease_seconds": 60}, "reason": "test"}
    answers = [
        hq.admin.get(path_of("nowhere")),
        hq.admin.patch(path_of("nowhere"), body, If_Match='"0"'),
        hq.admin.patch(path_of("nowhere"), body, If_Match="*"),
        hq.admin.get(f"{COMPANY}/history?store_id=nowhere"),
        hq.admin.get(f"{COMPANY}/states?store_id=nowhere"),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json["code"]) == (404, "store_not_found")


def test_a_retired_store_keeps_what_it_set_and_is_edited_no_more(hq: Hq) -> None:
    till = hq.till()
    hq.save_parameters(till.store_id, lease_seconds=64)
    hq.sql("UPDATE stores SET retired_at = now() WHERE store_id = %s", till.store_id)
    assert saved(hq.admin.get(path_of(till.store_id)))["overrides"] == {"lease_seconds": 64}
    answer = hq.save_parameters(till.store_id, lease_seconds=65)
    assert (answer.status_code, answer.json["code"]) == (409, "retired")
    told = hq.admin.get(f"{COMPANY}/states?store_id={till.store_id}").json
    assert told == {"stores": [], "next_after": None}


def test_a_stores_own_no_wins_over_the_companys_yes_at_its_tills(hq: Hq) -> None:
    till, other = hq.till(), hq.till()
    hq.save_parameters(till.store_id, **{GIFT_CARDS: False, CREDIT_MEMOS: False})
    hq.allow_offline(till, other)
    for kind in ("gift_card", "credit_memo"):
        allowed = [
            one.lock(hq.issue(100, kind=kind), kind).json["offline"]["allowed"]
            for one in (till, other)
        ]
        assert allowed == [False, True]


# --- an edit that changes nothing, the audit ------------------------------------------------------


@pytest.mark.parametrize("is_store", [False, True])
def test_an_edit_that_changes_nothing_saves_nothing_and_keeps_the_revision(
    hq: Hq, app: Flask, is_store: bool
) -> None:
    store_id = hq.make_store() if is_store else None
    before = saved(hq.save_parameters(store_id, lease_seconds=70, offline_grant_hours=70))
    nothing = {"on_horizon": None} if is_store else {"on_horizon": "sticky"}
    with Tables.of(app) as tables:
        rows = tables.rows()
        after = hq.save_parameters(store_id, lease_seconds=70, **nothing)
        assert tables.rows() == rows
    assert saved(after) == before
    assert after.headers["ETag"] == f'"{before["revision"]}"'


def test_what_is_as_it_was_is_not_told_as_a_change(hq: Hq) -> None:
    store_id = hq.make_store()
    hq.save_parameters(store_id, lease_seconds=71, offline_grant_hours=71)
    hq.save_parameters(store_id, lease_seconds=71, offline_grant_hours=72)
    [newest, _] = hq.admin.get(f"{COMPANY}/history?store_id={store_id}").json["revisions"]
    assert newest["changes"] == [{"name": "offline_grant_hours", "old": 71, "new": 72}]


def test_every_edit_is_in_the_audit_with_old_and_new_and_no_refused_one_is(hq: Hq) -> None:
    store_id = hq.make_store()
    first = saved(hq.save_parameters(store_id, reason="trial", lease_seconds=80))["revision"]
    hq.save_parameters(store_id, reason="again", lease_seconds=80)
    hq.save_parameters(store_id, reason="wrong", lease_seconds=0)
    second = saved(hq.save_parameters(store_id, reason="trial over", lease_seconds=None))[
        "revision"
    ]
    entries = audited(hq, f"parameters:{store_id}")
    assert {entry.pop("actor").split(":")[0] for entry in entries} == {"admin"}
    edited = {"action": "parameters_edited"}
    assert entries == [
        {
            **edited,
            "reason": "trial",
            "revision": first,
            "old": {"lease_seconds": None},
            "new": {"lease_seconds": 80},
        },
        {
            **edited,
            "reason": "trial over",
            "revision": second,
            "old": {"lease_seconds": 80},
            "new": {"lease_seconds": None},
        },
    ]
    seconds = saved(hq.admin.get(COMPANY))["parameters"]["lease_seconds"]
    hq.save_parameters(reason="company", lease_seconds=seconds + 1)
    newest = audited(hq, "parameters:company")[-1]
    assert (newest["reason"], newest["old"]) == ("company", {"lease_seconds": seconds})


# --- history --------------------------------------------------------------------------------------


def test_the_history_tells_who_changed_what_when_and_why_newest_first(hq: Hq) -> None:
    store_id = hq.make_store()
    hq.save_parameters(parameter_cache_seconds=86_400)  # whatever it was
    hq.save_parameters(reason="for all", parameter_cache_seconds=600)
    hq.save_parameters(store_id, reason="here only", parameter_cache_seconds=60)
    hq.save_parameters(reason="back", parameter_cache_seconds=86_400)
    hq.save_parameters(store_id, reason="as all", parameter_cache_seconds=None)
    told = saved(hq.admin.get(f"{COMPANY}/history?limit=4&name=parameter_cache_seconds"))
    name = "parameter_cache_seconds"
    assert [(one["store_id"], one["reason"], one["changes"]) for one in told["revisions"]] == [
        (store_id, "as all", [{"name": name, "old": 60, "new": None}]),
        (None, "back", [{"name": name, "old": 600, "new": 86_400}]),
        (store_id, "here only", [{"name": name, "old": None, "new": 60}]),
        (None, "for all", [{"name": name, "old": 86_400, "new": 600}]),
    ]
    revisions = [one["revision"] for one in told["revisions"]]
    assert revisions == sorted(revisions, reverse=True)
    assert told["next_after"] is None, "there are no others"
    assert all(one["changed_by"].startswith("admin:") for one in told["revisions"])
    moments = [instant(one["changed_at"]) for one in told["revisions"]]
    assert moments == sorted(moments, reverse=True)


@pytest.mark.parametrize("name", ["a%00b", "a b", "%C3%A9", "x" * 65])
def test_a_store_that_cannot_be_is_not_found(hq: Hq, name: str) -> None:
    path = f"/v1/admin/stores/{name}/parameters"
    body = {"parameters": {"lease_seconds": 60}, "reason": "test"}
    for answer in (
        hq.admin.get(path),
        hq.admin.patch(path, body, If_Match='"1"'),
        hq.admin.patch(path, body, If_Match="*"),
    ):
        assert (answer.status_code, answer.json["code"]) == (404, "store_not_found")


def test_the_history_of_one_store_is_what_it_sets_itself(hq: Hq) -> None:
    store_id = hq.make_store()
    hq.save_parameters(store_id, lease_seconds=90)
    hq.save_parameters(lease_seconds=901)
    told = saved(hq.admin.get(f"{COMPANY}/history?store_id={store_id}"))
    assert [one["store_id"] for one in told["revisions"]] == [store_id]
    assert told["next_after"] is None


def test_the_history_is_read_page_by_page_without_loss_while_it_grows(hq: Hq) -> None:
    store_id = hq.make_store()
    for seconds in range(100, 107):
        hq.save_parameters(store_id, lease_seconds=seconds)
    found: list[int] = []
    after = ""
    while True:
        page = saved(hq.admin.get(f"{COMPANY}/history?store_id={store_id}&limit=3{after}"))
        found += [one["changes"][0]["new"] for one in page["revisions"]]
        if page["next_after"] is None:
            break
        after = f"&after={page['next_after']}"
        hq.save_parameters(store_id, lease_seconds=500 + len(found))
    assert found == list(range(106, 99, -1))


def test_the_history_of_a_parameter_leaves_out_edits_of_others(hq: Hq) -> None:
    store_id = hq.make_store()
    hq.save_parameters(store_id, lease_seconds=110)
    hq.save_parameters(store_id, offline_grant_hours=10)
    path = f"{COMPANY}/history?store_id={store_id}&name="
    told = saved(hq.admin.get(f"{path}lease_seconds"))["revisions"]
    assert [one["changes"][0]["name"] for one in told] == ["lease_seconds"]
    answer = hq.admin.get(f"{path}lease")
    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/name"]


# --- definitions ----------------------------------------------------------------------------------


def test_the_definitions_are_told_with_type_bounds_choices_and_unit(hq: Hq) -> None:
    answer = hq.admin.get(f"{COMPANY}/definitions")
    told = saved(answer)
    assert (told["language"], answer.headers["Content-Language"]) == ("en", "en")
    assert [one["name"] for one in told["parameters"]] == [one.name for one in DEFINITIONS]
    by_name = {one.pop("name"): one for one in told["parameters"]}
    assert {name: one["default"] for name, one in by_name.items()} == Parameters().values()
    allow = by_name[GIFT_CARDS]
    assert allow.pop("help").endswith("No gift card line can be started offline.")
    assert allow == {
        "type": "yes_no",
        "default": False,
        "minimum": None,
        "maximum": None,
        "choices": [{"value": True, "label": "Yes"}, {"value": False, "label": "No"}],
        "unit": None,
        "unit_label": None,
        "label": "Allow concluding gift card transactions in offline mode",
        "path": {"page": "Commerce parameters", "tab": "Posting", "fast_tab": "Gift card"},
    }
    lease = by_name["lease_seconds"]
    assert (lease["type"], lease["minimum"], lease["maximum"]) == ("integer", 30, 86_400)
    assert (lease["unit"], lease["unit_label"], lease["path"]) == ("seconds", "seconds", None)
    partial = by_name["credit_memo_partial_use"]
    assert partial["type"] == "choice"
    assert [one["value"] for one in partial["choices"]] == ["reissue", "retain", "forfeit"]
    cash_out = by_name["gift_card_cash_out_threshold_minor"]
    assert (cash_out["type"], cash_out["unit"]) == ("amounts_by_currency", "minor")


@pytest.mark.parametrize(
    ("language", "label", "path", "yes"),
    [
        (
            "sv",
            "Tillåt transaktioner för kreditnota i offlineläge",
            ("Commerce-parametrar", "Bokföring", "kreditnota"),
            "Ja",
        ),
        (
            "nl",
            "Uitvoeren van transactie met creditnota in offline modus toestaan",
            ("Commerce-parameters", "Boeking", "Creditnota"),
            "Ja",
        ),
        (
            "zh-CN",
            "允许在脱机模式下完成贷项通知单交易",
            ("Commerce 参数", "过帐", "贷项通知单"),
            "是",
        ),
        (
            "fr",
            "Autoriser la conclusion des transactions par avoir en mode hors connexion",
            ("Paramètres Commerce", "Validation", "Avoir"),
            "Oui",
        ),
    ],
)
def test_the_words_are_those_of_the_documents_in_the_callers_language(
    hq: Hq, language: str, label: str, path: tuple[str, str, str], yes: str
) -> None:
    answer = hq.admin.get(f"{COMPANY}/definitions", Accept_Language=language)
    assert answer.headers["Content-Language"] == language == saved(answer)["language"]
    memo = next(one for one in answer.json["parameters"] if one["name"] == CREDIT_MEMOS)
    assert (memo["label"], memo["choices"][0]["label"]) == (label, yes)
    assert tuple(memo["path"][place] for place in ("page", "tab", "fast_tab")) == path


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("*", "en"),
        ("de", "en"),
        ("de, fr;q=0.2", "fr"),
        ("sv-SE", "sv"),
        ("SV-se", "sv"),
        ("sv_SE", "sv"),
        ("nl-BE,fr;q=0.9", "nl"),
        ("fr-CA", "fr"),
        ("en-GB", "en"),
        ("zh", "zh-CN"),
        ("zh-CN", "zh-CN"),
        ("zh-Hans", "zh-CN"),
        ("zh-Hans-SG", "zh-CN"),
        ("sv;q=0.5, nl;q=0.8", "nl"),
        ("sv, nl", "sv"),
        ("nl;q=0.8, sv;q=0.8", "nl"),
        ("sv;q=0, nl;q=0.1", "nl"),
        ("sv;q=0", "en"),
        ("fr;q=0.3, *;q=0.5", "en"),
        ("en;q=0, *", "sv"),
        ("svenska", "en"),
        ("sv;q=high", "en"),
        (";;;,,,=", "en"),
        ("\u00e5", "en"),
    ],
)
def test_the_language_is_the_best_that_there_is(hq: Hq, header: str, language: str) -> None:
    answer = hq.admin.get(f"{COMPANY}/definitions", Accept_Language=header)
    assert answer.status_code == 200
    assert answer.headers["Content-Language"] == language
    assert answer.headers["Vary"] == "Accept-Language"


# --- what a till fetches --------------------------------------------------------------------------


def test_a_till_is_served_what_its_store_has_applied_and_since_when(hq: Hq) -> None:
    till = hq.till()
    sync = hq.sync(till.store_id)
    hq.set_parameters(lease_seconds=120)
    before = saved(till.get("/v1/parameters"))
    assert instant(before["applied_at"]).utcoffset() == timedelta(0)
    hq.save_parameters(lease_seconds=121)
    hq.save_parameters(till.store_id, offline_grant_hours=9)
    for caller in (till, sync):
        assert saved(caller.get("/v1/parameters")) == before, "saved, not distributed"
    hq.distribute()
    after = saved(till.get("/v1/parameters"))
    assert after["revision"] == before["revision"] + 2
    assert after["parameters"]["lease_seconds"] == 121
    assert after["parameters"]["offline_grant_hours"] == 9
    assert instant(after["applied_at"]) > instant(before["applied_at"])
    assert saved(sync.get("/v1/parameters")) == after


def test_each_fetch_of_a_till_is_noted_also_one_that_brings_nothing_new(hq: Hq) -> None:
    till = hq.till()
    first = till.get("/v1/parameters")
    fetched = [fetched_at(hq, till)]
    again = till.get("/v1/parameters", If_None_Match=first.headers["ETag"])
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert again.headers["Cache-Control"] == first.headers["Cache-Control"]
    fetched.append(fetched_at(hq, till))
    assert till.get("/v1/parameters").status_code == 200
    fetched.append(fetched_at(hq, till))
    assert fetched == sorted(set(fetched)), "each later than the one before"


def test_a_sync_job_fetches_for_no_till(hq: Hq, app: Flask) -> None:
    till = hq.till()
    sync = hq.sync(till.store_id)
    with Tables.of(app) as tables:
        before = tables.rows()
        assert sync.get("/v1/parameters").status_code == 200
        assert tables.rows() == before


def test_a_fetch_counts_as_a_sign_of_life_and_never_moves_one_back(hq: Hq) -> None:
    till = hq.till()
    till.get("/v1/parameters")
    hq.sql(
        "UPDATE terminal_presence SET last_seen_at = now() + interval '1 hour',"
        " acknowledged_revision = 1000000, parameters_fetched_at = now() + interval '1 hour'"
        " WHERE store_id = %s",
        till.store_id,
    )
    query = (
        "SELECT last_seen_at, acknowledged_revision, parameters_fetched_at"
        " FROM terminal_presence WHERE store_id = %s"
    )
    before = hq.sql(query, till.store_id)
    assert till.get("/v1/parameters").status_code == 200
    assert hq.sql(query, till.store_id) == before


def fetched_at(hq: Hq, till: Till) -> datetime:
    query = "SELECT parameters_fetched_at FROM terminal_presence WHERE store_id = %s"
    [(found,)] = hq.sql(query, till.store_id)
    assert isinstance(found, datetime)
    return found


# --- saved, distributed, effective ----------------------------------------------------------------


def test_a_change_is_followed_from_saved_to_distributed_to_effective(hq: Hq) -> None:
    till = hq.till()
    hq.set_parameters(parameter_cache_seconds=3_600)
    till.get("/v1/parameters")
    old = hq.parameter_state(till)
    assert (old["state"], old["latest_effective_at"]) == ("effective", None)

    revision = saved(hq.save_parameters(**{GIFT_CARDS: True, "parameter_cache_seconds": 60}))[
        "revision"
    ]
    told = hq.parameter_state(till)
    assert told["state"] == "saved"
    assert told["saved"]["revision"] == revision
    assert instant(told["saved"]["saved_at"]) > instant(old["saved"]["saved_at"])
    assert told["distributed"] == old["distributed"]
    assert told["effective"] == old["effective"]
    assert told["latest_effective_at"] is None

    hq.distribute()
    told = hq.parameter_state(till)
    assert told["state"] == "distributed"
    assert told["distributed"]["revision"] == revision
    assert told["effective"] == old["effective"]
    applied_at = instant(told["distributed"]["applied_at"])
    # By what the till has now: it does not know yet that 60 seconds are enough.
    assert instant(told["latest_effective_at"]) == applied_at + timedelta(hours=1)

    till.get("/v1/parameters")
    told = hq.parameter_state(till)
    assert (told["state"], told["latest_effective_at"]) == ("effective", None)
    assert told["effective"]["revision"] == revision
    assert instant(told["effective"]["acknowledged_at"]) > applied_at


def test_the_latest_moment_goes_by_the_stores_own_cache_time(hq: Hq) -> None:
    till = hq.till()
    hq.save_parameters(till.store_id, parameter_cache_seconds=120)
    hq.distribute()
    till.get("/v1/parameters")
    hq.save_parameters(till.store_id, parameter_cache_seconds=None)
    hq.distribute()
    told = hq.parameter_state(till)
    waits = instant(told["latest_effective_at"]) - instant(told["distributed"]["applied_at"])
    assert waits == timedelta(seconds=120)


def test_a_till_that_never_fetched_has_nothing_and_waits_for_nothing(hq: Hq) -> None:
    told = hq.parameter_state(hq.till())
    assert (told["effective"], told["latest_effective_at"]) == (None, None)
    assert told["state"] == "distributed", "a new store starts with what is saved"


def test_a_change_of_another_store_is_nothing_to_wait_for(hq: Hq) -> None:
    till, other = hq.till(), hq.make_store()
    till.get("/v1/parameters")
    before = hq.parameter_state(till)
    hq.save_parameters(other, lease_seconds=130)
    assert hq.parameter_state(till) == before


def test_stores_and_registers_in_use_are_listed_page_by_page(hq: Hq) -> None:
    first = hq.till()
    second = hq.till(first.store_id)
    retired = hq.till(first.store_id)
    hq.sql("UPDATE terminals SET retired_at = now() WHERE terminal_id = %s", retired.terminal_id)
    without = hq.make_store()
    listed: list[tuple[str, str | None]] = []
    after = ""
    while True:
        page = saved(hq.admin.get(f"{COMPANY}/states?limit=1{after}"))
        for store in page["stores"]:
            names = [one["terminal_id"] for one in store["terminals"]]
            listed += [(store["store_id"], name) for name in names or [None]]
        if page["next_after"] is None:
            break
        after = f"&after={page['next_after']}"
    assert [one for one in listed if one[0] in (first.store_id, without)] == sorted(
        [
            *((first.store_id, name) for name in sorted([first.terminal_id, second.terminal_id])),
            (without, None),
        ],
        key=lambda one: one[0],
    )
    assert len(listed) == len(set(listed))
    whole = saved(hq.admin.get(f"{COMPANY}/states?store_id={first.store_id}"))
    assert [len(store["terminals"]) for store in whole["stores"]] == [2]


def test_an_auditor_reads_all_of_it(hq: Hq) -> None:
    auditor = Caller(hq.client, hq.make_key(Role.AUDITOR))
    store_id = hq.make_store()
    for path in (path_of(store_id), *(f"{COMPANY}/{one}" for one in ("history", "states"))):
        assert auditor.get(path).status_code == 200


def test_what_is_rolled_back_is_not_remembered(
    hq: Hq, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_id = hq.make_store()
    hq.save_parameters(store_id, lease_seconds=140)
    revision = saved(hq.admin.get(path_of(store_id)))["revision"]

    def too_late(*_: Any) -> None:
        raise RuntimeError

    body = {"parameters": {"lease_seconds": 141}, "reason": "test"}
    with monkeypatch.context() as patch:
        patch.setattr(operations.parameters, "saved_at", too_late)  # the last that is read
        answer = hq.admin.patch(path_of(store_id), body, If_Match=f'"{revision}"')
        assert answer.status_code == 500
    # The number is given again, to somebody else.
    hq.save_parameters(offline_age_hours_max=141)
    told = saved(hq.admin.get(path_of(store_id)))
    assert told["revision"] == revision + 1
    assert told["parameters"]["lease_seconds"] == 140
    assert told["parameters"]["offline_age_hours_max"] == 141
