"""The Commerce parameters are defined once."""

from __future__ import annotations

from dataclasses import fields

import pytest

from hq_service.domain.parameters import DEFINITIONS, Parameters, faults, in_force


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
