"""Fields and schemas that several endpoints share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from marshmallow import INCLUDE, RAISE, Schema, ValidationError, fields, validate, validates_schema

from hq_service.domain.model import HQ, Kind
from hq_service.domain.money import AMOUNT_MINOR_MAX, CURRENCY_EXPONENTS
from hq_service.domain.numbers import mask
from hq_service.domain.reading import IDENTIFIER_PATTERN, LINE_NUMBER_MAX, read_instant
from hq_service.operations.clock import now

NAME_LENGTH_MAX = 100
PAGE_NAMES_MAX = 200
REASON_LENGTH_MAX = 500

_PLAIN_NAME = re.compile(r"[a-z][a-z_]{0,63}")
_INTEGER = re.compile(r"-?[0-9]{1,19}")
# What turns the direction of the text around it, on every screen that shows it.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class StrictSchema(Schema):
    """A schema that refuses members it does not know."""

    class Meta:
        """Unknown members are faults, not decoration."""

        unknown = RAISE


class StrictInteger(fields.Integer):
    """An integer, written as one: no text, no 1.0, no true."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **keywords: Any) -> Any:
        if type(value) is not int:
            raise ValidationError("Must be an integer.")
        return super()._deserialize(value, attr, data, **keywords)


class QueryInteger(fields.Integer):
    """An integer of a query, in plain digits: no 1_000, no blanks, no digits of other scripts."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **keywords: Any) -> Any:
        if not isinstance(value, str) or not _INTEGER.fullmatch(value):
            raise ValidationError("Must be an integer.")
        return super()._deserialize(value, attr, data, **keywords)


class StrictBoolean(fields.Boolean):
    """Yes or no, written as true or false: no text, no 1."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **keywords: Any) -> Any:
        if not isinstance(value, bool):
            raise ValidationError("Must be true or false.")
        return super()._deserialize(value, attr, data, **keywords)


class StrictInstant(fields.AwareDateTime):
    """An instant with its zone, between 2000 and ten years ahead; as UTC inside."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> datetime:
        instant = read_instant(value, now())
        if instant is None:
            raise ValidationError("Must be an instant with its zone: 2026-01-31T12:00:00Z.")
        return instant


class StrictText(fields.String):
    """A text without control characters, which no screen and no log should have to show."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **keywords: Any) -> Any:
        text = super()._deserialize(value, attr, data, **keywords)
        if any(one in _TURNING or unicodedata.category(one) == "Cc" for one in text):
            raise ValidationError("Must not have control characters.")
        return text


class MaskedText(StrictText):
    """What somebody, or a program, says. It is kept: a card number in it is masked first."""

    def __init__(
        self, length_max: int, *more: Callable[[str], Any] | validate.Validator, **keywords: Any
    ) -> None:
        super().__init__(validate=[validate.Length(max=length_max), *more], **keywords)
        self._length_max = length_max

    def _deserialize(self, value: Any, attr: str | None, data: Any, **keywords: Any) -> Any:
        text = super()._deserialize(value, attr, data, **keywords)
        # One that is too long is refused anyway: not worth reading it.
        return mask(text) if len(text) <= self._length_max else text


class StrictUuid(fields.UUID):
    """A UUID in its usual form, in small letters or capitals; never nil."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **keywords: Any) -> Any:
        if not isinstance(value, str) or len(value) != 36:
            raise ValidationError("Must be a UUID.")
        parsed: UUID | None = super()._deserialize(value, attr, data, **keywords)
        if parsed is None or not parsed.int or str(parsed) != value.lower():
            raise ValidationError("Must be a UUID.")
        return parsed


class NamePageSchema(StrictSchema):
    """One page of things in the order of their ids."""

    after = StrictText(load_default="", validate=validate.Regexp(rf"^{IDENTIFIER_PATTERN}$"))
    limit = QueryInteger(load_default=PAGE_NAMES_MAX, validate=validate.Range(1, PAGE_NAMES_MAX))


def plain_names(fault: str) -> Callable[[Mapping[str, Any]], None]:
    """Return a check of names that the domain knows: it refuses what cannot be one, with a fault
    for each.
    """

    def check(values: Mapping[str, Any]) -> None:
        wrong = [name for name in values if not _PLAIN_NAME.fullmatch(name)]
        if wrong:
            raise ValidationError({name: [fault] for name in wrong})

    return check


def not_blank(value: str) -> None:
    """Refuse a text of blanks only: it says nothing."""
    if not value.strip():
        raise ValidationError("Must not be blank.")


def not_a_card_number(value: str) -> None:
    """Refuse what may be a card number, or has one in it: ids and names are kept and shown."""
    # One that is too long is refused anyway: not worth reading it.
    if len(value) <= NAME_LENGTH_MAX and mask(value) != value:
        raise ValidationError("looks like a card number")


def identifier(**keywords: Any) -> StrictText:
    """Return a field for a name that a client chose: of a store, terminal, transaction, batch."""
    return StrictText(
        required=True, validate=validate.Regexp(rf"^{IDENTIFIER_PATTERN}$"), **keywords
    )


def new_identifier(*more: Callable[[str], None]) -> StrictText:
    """Return a field for an id that an administrator chooses: it stands for the thing for ever,
    also in the audit, where no card number may be.
    """
    is_identifier = validate.Regexp(rf"^{IDENTIFIER_PATTERN}$")
    return StrictText(required=True, validate=[is_identifier, not_a_card_number, *more])


def own_store_id() -> StrictText:
    """Return a field for the store of a terminal: never the name that HQ books under."""
    return StrictText(
        required=True,
        validate=[validate.Regexp(rf"^{IDENTIFIER_PATTERN}$"), not_headquarters],
    )


def reason(*, required: bool = True) -> MaskedText:
    """Return a field for why somebody did something: never empty, nor blank."""
    return MaskedText(REASON_LENGTH_MAX, not_blank, required=required, metadata={"minLength": 1})


def display_name(*, required: bool = True) -> StrictText:
    """Return a field for what people call a thing: never empty, nor blank, nor a card number."""
    return StrictText(
        required=required,
        validate=[validate.Length(max=NAME_LENGTH_MAX), not_blank, not_a_card_number],
        metadata={"minLength": 1},
    )


def amount_minor(*, required: bool = True) -> StrictInteger:
    """Return a field for an amount in the currency's smallest unit."""
    return StrictInteger(
        required=required,
        validate=validate.Range(1, AMOUNT_MINOR_MAX),
        metadata={"format": "int64", "description": "In the currency's smallest unit."},
    )


def kind() -> StrictText:
    """Return a field for the kind of an instrument."""
    return StrictText(required=True, validate=validate.OneOf([one.value for one in Kind]))


def number(*, required: bool = True) -> StrictText:
    """Return a field for a card number: a secret, in bodies only."""
    return StrictText(
        required=required,
        load_only=True,
        validate=validate.Length(1, 64),
        metadata={"description": "8 to 32 letters or digits; spaces and hyphens are ignored."},
    )


def currency(*, required: bool = True) -> StrictText:
    """Return a field for a currency code of ISO 4217."""

    def is_known(value: str) -> None:
        if value not in CURRENCY_EXPONENTS:
            raise ValidationError("Must be a currency code of ISO 4217.")

    return StrictText(
        required=required, validate=is_known, metadata={"pattern": "^[A-Z]{3}$", "example": "SEK"}
    )


def not_headquarters(value: str) -> None:
    """Refuse the name that HQ books under."""
    if value == HQ:
        raise ValidationError("Is reserved.")


def not_like_headquarters(value: str) -> None:
    """Refuse the name that HQ books under, in capitals or not, for a store that is created."""
    not_headquarters(value.upper())


class BusinessKeySchema(StrictSchema):
    """The identity of a line, online and offline alike, for ever."""

    store_id = own_store_id()
    terminal_id = identifier()
    transaction_id = identifier()
    line = StrictInteger(required=True, validate=validate.Range(1, LINE_NUMBER_MAX))


class TransactionKeySchema(Schema):
    """The POS transaction that an answer is about."""

    store_id = fields.String(required=True)
    terminal_id = fields.String(required=True)
    transaction_id = fields.String(required=True)


class LineKeySchema(TransactionKeySchema):
    """The business key of a line."""

    line = fields.Integer(required=True)


class ChangeReasonSchema(StrictSchema):
    """Why somebody does something."""

    reason = reason()


class EditSchema(ChangeReasonSchema):
    """A change of some members, with the reason for it."""

    @validates_schema
    def changes_something(self, wish: Mapping[str, Any], **_: Any) -> None:
        """Refuse an edit that edits nothing."""
        if set(wish) <= {"reason"}:
            raise ValidationError("Name at least one member to change.")


class InstrumentSchema(Schema):
    """An instrument, as a terminal may see it."""

    instrument_id = fields.UUID(required=True)
    kind = fields.String(required=True)
    number_last4 = fields.String(required=True)
    currency = fields.String(required=True)
    balance_minor = fields.Integer(required=True)
    status = fields.String(required=True)


class FaultSchema(Schema):
    """One fault, and where it is."""

    pointer = fields.String(required=True, metadata={"description": "A JSON pointer (RFC 6901)."})
    detail = fields.String(required=True)
    code = fields.String(metadata={"description": "Why a line of a sale is refused, for programs."})


class ProblemSchema(Schema):
    """A problem document (RFC 9457). ``code`` is stable; the texts are for people.

    Some codes have members of their own: the holder of a lock, what was checked.
    """

    class Meta:
        """A caller passes over members that it does not know."""

        unknown = INCLUDE

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    code = fields.String(required=True)
    request_id = fields.String(required=True)
    retryable = fields.Boolean(required=True)
    dynamics_code = fields.String()
    errors = fields.List(fields.Nested(FaultSchema))
