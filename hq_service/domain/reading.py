"""From what a sender wrote to a line that can be judged, or to one that nobody can read.

Checked by hand, member by member: a schema library costs as much per line as settling it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hq_service.domain.errors import InvalidRequest, TooLarge
from hq_service.domain.grants import GRANT_LENGTH_MAX
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import (
    BusinessKey,
    Kind,
    Line,
    Operation,
    TransactionStatus,
    UnreadableLine,
)
from hq_service.domain.money import AMOUNT_MINOR_MAX, CURRENCY_EXPONENTS
from hq_service.domain.numbers import mask, normalise

IDENTIFIER_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}"
LINE_NUMBER_MAX = 9_999
SEQUENCE_MAX = 2**53 - 1
MASKED_TEXT_LENGTH_MAX = 4_096

NO_CURRENCY = "XXX"
"""ISO 4217 for "no currency involved": what a release line carries."""

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST_AHEAD = timedelta(days=3_653)

_IDENTIFIER = re.compile(IDENTIFIER_PATTERN)
# As grants.sign writes them: what is not even of this form may be a secret of another kind.
_GRANT_FORM = re.compile(r"g[0-9]+\.[A-Za-z0-9]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_OPERATIONS = frozenset({Operation.REDEEM, Operation.RELEASE})
_STATUSES = frozenset(
    {TransactionStatus.CONCLUDED, TransactionStatus.SUSPENDED, TransactionStatus.TRAINING}
)
_KINDS = frozenset(Kind)
_ENVELOPE = frozenset({"store_id", "batch_id", "lines"})
_MEMBERS = frozenset(
    """terminal_id journal_id sequence transaction_id line status operation instrument_id kind
    number amount_minor currency lock_id grant parameter_revision concluded_at""".split()
)


def read_envelope(raw: object, *, lines_max: int) -> tuple[str, str, list[Any]]:
    """Return store, batch and raw lines of a batch.

    Raises:  InvalidRequest with a pointer to each fault; TooLarge above ``lines_max``.
    """
    if not isinstance(raw, dict):
        raise InvalidRequest(errors=[{"pointer": "", "detail": "must be an object"}])
    faults = {name: "is not a member of a batch" for name in raw if name not in _ENVELOPE}
    for name in ("store_id", "batch_id"):
        if not is_identifier(raw.get(name)):
            faults[name] = "must be 1 to 64 letters, digits or . _ : -"
    lines = raw.get("lines")
    if not isinstance(lines, list) or not lines:
        faults["lines"] = "must be an array of at least one line"
    if faults or not isinstance(lines, list):
        raise InvalidRequest(
            errors=[
                {"pointer": pointer_to(name), "detail": fault} for name, fault in faults.items()
            ]
        )
    if len(lines) > lines_max:
        raise TooLarge(f"A batch has at most {lines_max} lines; send several batches.")
    return raw["store_id"], raw["batch_id"], lines


def is_identifier(value: object) -> bool:
    """Tell whether a value is a name that a store, terminal, transaction or batch can have."""
    return isinstance(value, str) and _IDENTIFIER.fullmatch(value) is not None


def pointer_to(*names: object) -> str:
    """Return the JSON pointer (RFC 6901) of a member.

    A name that is too long is cut; a card number in the wrong place is masked.
    """
    shown = (mask(str(name))[:64] for name in names)
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in shown)


class _Unreadable(Exception):
    """Why a line cannot be understood; becomes its reason."""


def read_line(
    raw: object, position: int, store_id: str, keyring: Keyring, now: datetime
) -> Line | UnreadableLine:
    """Read one line of a batch. The card number in it, if any, is gone afterwards.

    Returns: the line, or the reason why it cannot be understood with its text, in which card
             numbers and grants are masked.
    """
    try:
        if not isinstance(raw, dict):
            raise _Unreadable("a line must be an object")
        return _read(raw, position, store_id, keyring, now)
    except _Unreadable as reason:
        text = json.dumps(raw, ensure_ascii=True, separators=(",", ":"))
        masked = mask(_GRANT_FORM.sub("***", text))
        return UnreadableLine(store_id, position, masked[:MASKED_TEXT_LENGTH_MAX], str(reason))


def read_instant(text: object, now: datetime) -> datetime | None:
    """Return an instant that names its zone and lies between 2000 and ten years ahead, in UTC."""
    if not isinstance(text, str) or len(text) < len("2000-01-01T00:00Z") or text[10] != "T":
        return None
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            return None
        instant = instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return instant if EARLIEST <= instant <= now + _LATEST_AHEAD else None


def _read(
    raw: Mapping[str, Any], position: int, store_id: str, keyring: Keyring, now: datetime
) -> Line:
    if not _MEMBERS.issuperset(raw):
        unknown = ", ".join(sorted(mask(name)[:64] for name in set(raw) - _MEMBERS))
        raise _Unreadable(f"unknown member {unknown}")
    operation = _choice(raw, "operation", _OPERATIONS, None)
    concluded_at = read_instant(raw.get("concluded_at"), now)
    if concluded_at is None:
        raise _Unreadable("concluded_at must be an instant with a zone, from 2000 on")
    is_money = operation != Operation.RELEASE
    return Line(
        key=BusinessKey(
            store_id,
            _identifier(raw, "terminal_id"),
            _identifier(raw, "transaction_id"),
            _integer(raw, "line", 1, LINE_NUMBER_MAX),
        ),
        operation=operation,
        instrument_id=_instrument_id(raw, keyring),
        amount_minor=_integer(raw, "amount_minor", 1, AMOUNT_MINOR_MAX) if is_money else 0,
        currency=_currency(raw) if is_money else NO_CURRENCY,
        status=_choice(raw, "status", _STATUSES, TransactionStatus.CONCLUDED),
        lock_id=_uuid(raw, "lock_id") if raw.get("lock_id") is not None else None,
        grant=_grant(raw),
        parameter_revision=_optional_integer(raw, "parameter_revision", 0, 2**31 - 1),
        concluded_at=concluded_at,
        journal_id=_identifier(raw, "journal_id"),
        sequence=_integer(raw, "sequence", 1, SEQUENCE_MAX),
        position=position,
    )


def _identifier(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not is_identifier(value):
        raise _Unreadable(f"{name} must be 1 to 64 letters, digits or . _ : -")
    return value


def _integer(raw: Mapping[str, Any], name: str, minimum: int, maximum: int) -> int:
    value = raw.get(name)
    # type() and not isinstance(): true is an int to Python.
    if type(value) is not int or not minimum <= value <= maximum:
        raise _Unreadable(f"{name} must be an integer from {minimum} to {maximum}")
    return value


def _optional_integer(raw: Mapping[str, Any], name: str, minimum: int, maximum: int) -> int | None:
    return None if raw.get(name) is None else _integer(raw, name, minimum, maximum)


def _choice(raw: Mapping[str, Any], name: str, choices: frozenset[Any], default: str | None) -> str:
    value = raw.get(name, default)
    if not isinstance(value, str) or value not in choices:
        raise _Unreadable(f"{name} must be one of {', '.join(sorted(choices))}")
    return value


def _currency(raw: Mapping[str, Any]) -> str:
    value = raw.get("currency")
    if not isinstance(value, str) or value not in CURRENCY_EXPONENTS:
        raise _Unreadable("currency must be a code of ISO 4217")
    return value


def _uuid(raw: Mapping[str, Any], name: str) -> UUID:
    value = raw.get(name)
    try:
        parsed = UUID(value)
    except (ValueError, TypeError, AttributeError):
        parsed = None
    if parsed is None or not parsed.int or str(parsed) != str(value).lower():
        raise _Unreadable(f"{name} must be a UUID")
    return parsed


def _instrument_id(raw: Mapping[str, Any], keyring: Keyring) -> UUID:
    if raw.get("instrument_id") is not None:
        if raw.get("number") is not None:
            raise _Unreadable("a line names its instrument by instrument_id or number, not both")
        return _uuid(raw, "instrument_id")
    kind = _choice(raw, "kind", _KINDS, None)
    number = raw.get("number")
    normalised = normalise(number) if isinstance(number, str) else None
    if normalised is None:
        raise _Unreadable("number must be 8 to 32 letters or digits")
    return keyring.instrument_id(kind, normalised)


def _grant(raw: Mapping[str, Any]) -> str | None:
    value = raw.get("grant")
    if value is None:
        return None
    # Whatever text it is, it is judged: one that does not verify counts as absent.
    if not isinstance(value, str) or len(value) > GRANT_LENGTH_MAX:
        raise _Unreadable(f"grant must be a text of at most {GRANT_LENGTH_MAX} characters")
    return value if _GRANT_FORM.fullmatch(value) else mask(value)
