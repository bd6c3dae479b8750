"""The Commerce parameters are defined once."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest

from hq_service.domain.definitions import Unit
from hq_service.domain.parameters import (
    DEFINITIONS,
    ChangedValue,
    ChangeState,
    Parameters,
    changed,
    changes_of,
    faults,
    in_force,
    latest_effective_at,
    state_of,
    story_of,
)

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_definitions_and_values_name_the_same_parameters_with_the_same_defaults() -> None:
    values = Parameters().values()
    assert {one.name: one.default for one in DEFINITIONS} == values
    assert [one.name for one in fields(Parameters)] == ["revision", *values]


def test_both_offline_parameters_are_no_until_somebody_says_yes() -> None:
    assert not Parameters().allows_concluding_offline("gift_card")
    assert not Parameters().allows_concluding_offline("credit_memo")


def test_a_stores_override_wins_over_the_company_and_unknown_names_are_passed_over() -> None:
    found = in_force(7, {"lease_seconds": 60, "of_the_future": 1}, {"lease_seconds": 90})
    assert (found.revision, found.lease_seconds) == (7, 90)


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("allow_concluding_gift_card_transactions_offline", 1, "must be true (Yes) or false (No)"),
        ("lease_seconds", True, "must be an integer"),
        ("lease_seconds", 29, "must be between 30 and 86400"),
        ("lease_seconds", 86_401, "must be between 30 and 86400"),
        ("lease_seconds", "900", "must be an integer"),
        ("on_horizon", "forget", "must be one of sticky, release"),
        ("on_horizon", ["sticky"], "must be one of sticky, release"),
        ("no_such", 1, "is not a Commerce parameter"),
    ],
)
def test_a_faulty_value_is_told_with_what_is_allowed(name: str, value: object, fault: str) -> None:
    assert faults({name: value}) == {name: fault}


def test_every_default_is_allowed() -> None:
    assert faults(Parameters().values()) == {}


def test_null_takes_an_override_back_and_is_no_value_for_the_company() -> None:
    assert faults({"lease_seconds": None}, is_override=True) == {}
    assert faults({"lease_seconds": None}) == {"lease_seconds": "must be an integer"}
    assert faults({"no_such": None, "on_horizon": 1}, is_override=True) == {
        "no_such": "is not a Commerce parameter",
        "on_horizon": "must be one of sticky, release",
    }


def test_what_is_as_it_was_is_no_change() -> None:
    before = {"lease_seconds": 60, "gift_card_cash_out_threshold_minor": {"SEK": 1}}
    assert changes_of(before, dict(before)) == {}
    assert changes_of({}, {"lease_seconds": None}) == {}, "nothing is taken back"
    assert changes_of(before, {"lease_seconds": None, "on_horizon": "sticky"}) == {
        "lease_seconds": None,
        "on_horizon": "sticky",
    }
    assert changed(before, {"lease_seconds": None, "on_horizon": "release"}) == {
        "gift_card_cash_out_threshold_minor": {"SEK": 1},
        "on_horizon": "release",
    }


def test_what_the_company_had_not_set_was_the_default_and_a_stores_was_the_companys() -> None:
    changes = {"lease_seconds": 60, "offline_grant_hours": 48}
    before = {"offline_grant_hours": 24}
    assert story_of(before, changes, is_override=False) == (
        ChangedValue("lease_seconds", 900, 60),
        ChangedValue("offline_grant_hours", 24, 48),
    )
    assert story_of(before, {**changes, "on_horizon": None}, is_override=True) == (
        ChangedValue("lease_seconds", None, 60),
        ChangedValue("offline_grant_hours", 24, 48),
        ChangedValue("on_horizon", None, None),
    )


@pytest.mark.parametrize(
    ("saved", "distributed", "acknowledged", "state"),
    [
        (7, 5, 5, ChangeState.SAVED),
        (7, 5, None, ChangeState.SAVED),
        (7, 7, 5, ChangeState.DISTRIBUTED),
        (7, 7, None, ChangeState.DISTRIBUTED),
        (7, 7, 7, ChangeState.EFFECTIVE),
        (0, 0, None, ChangeState.DISTRIBUTED),
        (0, 0, 0, ChangeState.EFFECTIVE),
        # HQ was restored from an older backup: the till has it all the same.
        (7, 5, 7, ChangeState.EFFECTIVE),
    ],
)
def test_a_change_is_saved_then_distributed_then_effective(
    saved: int, distributed: int, acknowledged: int | None, state: ChangeState
) -> None:
    assert state_of(saved, distributed, acknowledged) is state


def test_a_change_is_effective_when_the_copy_that_a_till_has_is_too_old_at_the_latest() -> None:
    # The copy's own cache time counts: the till does not know yet what the new one says.
    cached = Parameters(revision=5, parameter_cache_seconds=3_600)
    assert latest_effective_at(7, NOON, cached) == NOON + timedelta(hours=1)
    always_fetched = Parameters(revision=5, parameter_cache_seconds=0)
    assert latest_effective_at(7, NOON, always_fetched) == NOON


@pytest.mark.parametrize(
    ("applied_at", "cached"),
    [
        (None, Parameters(revision=5)),  # not known since when
        (NOON, None),  # no copy: effective with the first fetch
        (NOON, Parameters(revision=7)),  # effective
        (NOON, Parameters(revision=8)),
    ],
)
def test_where_nothing_is_waited_for_there_is_no_latest_moment(
    applied_at: datetime | None, cached: Parameters | None
) -> None:
    assert latest_effective_at(7, applied_at, cached) is None


def test_a_unit_is_the_end_of_a_parameters_name() -> None:
    for one in DEFINITIONS:
        unit = one.name.removesuffix("_max").rsplit("_", 1)[1]
        assert (one.unit or "") == (unit if unit in set(Unit) else ""), one.name
