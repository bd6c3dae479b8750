"""What one setting of the business may be: its type, its bounds, its unit, what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from hq_service.domain.money import AMOUNT_MINOR_MAX, CURRENCY_EXPONENTS


class ValueType(StrEnum):
    """How a setting is asked for and shown."""

    YES_NO = "yes_no"
    INTEGER = "integer"
    CHOICE = "choice"
    AMOUNTS = "amounts_by_currency"


class Unit(StrEnum):
    """What a number is a number of."""

    SECONDS = "seconds"
    MINUTES = "minutes"
    HOURS = "hours"
    MINOR = "minor"


@dataclass(frozen=True, slots=True)
class Definition:
    """One setting: what it may be and what it is for."""

    name: str
    default: bool | int | str | Mapping[str, int]
    help: str
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    unit: Unit | None = None

    @property
    def value_type(self) -> ValueType:
        """Return what kind of value it takes."""
        if isinstance(self.default, bool):
            return ValueType.YES_NO
        if isinstance(self.default, int):
            return ValueType.INTEGER
        return ValueType.AMOUNTS if isinstance(self.default, Mapping) else ValueType.CHOICE

    def fault(self, value: object) -> str | None:
        """Return why a value is not allowed, as a sentence that says what is; None if it is."""
        if isinstance(self.default, bool):
            return None if isinstance(value, bool) else "must be true (Yes) or false (No)"
        if isinstance(self.default, int):
            if isinstance(value, bool) or not isinstance(value, int):
                return "must be an integer"
            if not (self.minimum or 0) <= value <= (self.maximum or 0):
                return f"must be between {self.minimum} and {self.maximum}"
            return None
        if isinstance(self.default, Mapping):
            return _fault_of_amounts(value)
        is_choice = isinstance(value, str) and value in self.choices
        return None if is_choice else f"must be one of {', '.join(self.choices)}"


def _fault_of_amounts(value: object) -> str | None:
    if not isinstance(value, dict) or not all(
        currency in CURRENCY_EXPONENTS and type(amount) is int and 0 <= amount <= AMOUNT_MINOR_MAX
        for currency, amount in value.items()
    ):
        return "must be an object of ISO 4217 codes and amounts in their smallest unit"
    return None
