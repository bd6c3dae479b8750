"""The fields of offline profiles: what they may be, and what stands in for them."""

from __future__ import annotations

import pytest

from hq_service.domain import offline_profiles
from hq_service.domain.offline_profiles import DEFINITIONS


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda one: one.name)
def test_a_default_is_a_value_that_is_allowed(definition: offline_profiles.Definition) -> None:
    assert definition.fault(definition.default) is None
    assert definition.help


def test_what_is_not_given_is_the_default_and_what_is_not_known_is_passed_over() -> None:
    made = offline_profiles.complete({"retry_count_to_offline": 3, "of_a_later_version": 1})
    assert made == {**offline_profiles.complete({}), "retry_count_to_offline": 3}
    assert set(made) == {one.name for one in DEFINITIONS}


def test_every_fault_is_told() -> None:
    found = offline_profiles.faults(
        {"retry_count_to_offline": 11, "no_such_field": 1, "prompt_on_seamless_offline": True}
    )
    assert found == {
        "retry_count_to_offline": "must be between 0 and 10",
        "no_such_field": "is not a field of offline profiles",
    }
