"""From what a sender wrote to a line that can be judged, or to one that nobody can read.

Checked by hand, member by member: a schema library costs as much per line as settling it.
"""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hq_service.domain.documents import read_json
from hq_service.domain.errors import InvalidRequest, MalformedBody, TooLarge
from hq_service.domain.grants import GRANT_LENGTH_MAX
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import (
    HQ,
    BusinessKey,
    Kind,
    Line,
    Operation,
    Place,
    Tender,
    TransactionStatus,
    UnreadableLine,
)
from hq_service.domain.money import AMOUNT_MINOR_MAX, CURRENCY_EXPONENTS
from hq_service.domain.numbers import mask, normalise

IDENTIFIER_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}"
EXCHANGE_RATE_PATTERN = r"[0-9]{1,12}(\.[0-9]{1,12})?"
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
_OPERATIONS = frozenset(Operation)
_STATUSES = frozenset(TransactionStatus)
_WITHOUT_MONEY = frozenset({Operation.RELEASE, Operation.VOID})
_NUMBER_CHARACTERS = string.ascii_letters + string.digits + " -._"
_KINDS = frozenset(Kind)
_ENVELOPE = frozenset({"store_id", "batch_id", "lines", "dry_run", "control_totals"})
_KEY_MEMBERS = frozenset({"store_id", "terminal_id", "transaction_id", "line"})
_EXCHANGE_RATE = re.compile(EXCHANGE_RATE_PATTERN)
_REASON_LENGTH_MAX = 500
_NAME_LENGTH_MAX = 256
_NAMES_TOLD_MAX = 10
_MEMBERS = frozenset(
    """terminal_id journal_id sequence transaction_id line status operation instrument_id kind
    number amount_minor currency lock_id grant parameter_revision concluded_at original reason
    tender_amount_minor tender_currency exchange_rate""".split()
)


@dataclass(frozen=True, slots=True)
class ControlTotals:
    """What the sender counted: lines, and the amounts of all of them by currency."""

    lines_count: int
    amounts_minor: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who sends which batch, and what for; ``body_sha256`` is of the decompressed bytes."""

    store_id: str
    batch_id: str
    body_sha256: bytes
    dry_run: bool = False
    control_totals: ControlTotals | None = None


class MalformedLine(str):
    """The text of a line that is no JSON."""

    __slots__ = ()


def read_batch(body: bytes, *, is_ndjson: bool, lines_max: int) -> tuple[Envelope, list[object]]:
    """Return the envelope and the raw lines of a batch, JSON or NDJSON.

    In NDJSON the first line is the envelope; a line that is no JSON (the last one, cut off) is a
    `MalformedLine` and stops no other.

    Raises:  MalformedBody; InvalidRequest with a pointer to each fault; TooLarge above
             ``lines_max``.
    """
    digest = hashlib.sha256(body).digest()
    if is_ndjson:
        first, *others = body.split(b"\n")
        raw, lines = read_json(first), [_ndjson_line(one) for one in others if one.strip()]
        if isinstance(raw, dict):
            if "lines" in raw:  # or else those behind the envelope would be lost
                raise InvalidRequest(
                    errors=[{"pointer": "/lines", "detail": "must follow the envelope, one a line"}]
                )
            raw["lines"] = lines
    else:
        raw = read_json(body)
    return _envelope(raw, digest, lines_max)


def _ndjson_line(text: bytes) -> object:
    try:
        return read_json(text)
    except MalformedBody:
        # No text of the database can hold a NUL.
        return MalformedLine(text.decode("utf-8", "replace").replace("\x00", "\ufffd"))


def _envelope(raw: object, digest: bytes, lines_max: int) -> tuple[Envelope, list[object]]:
    if not isinstance(raw, dict):
        raise InvalidRequest(errors=[{"pointer": "", "detail": "must be an object"}])
    faults = {name: "is not a member of a batch" for name in raw if name not in _ENVELOPE}
    for name in ("store_id", "batch_id"):
        if not is_identifier(raw.get(name)):
            faults[name] = "must be 1 to 64 letters, digits or . _ : -"
    if not isinstance(raw.get("dry_run", False), bool):
        faults["dry_run"] = "must be true or false"
    totals = _control_totals(raw.get("control_totals"))
    if isinstance(totals, str):
        faults["control_totals"] = totals
    lines = raw.get("lines")
    if not isinstance(lines, list) or not lines:
        faults["lines"] = "must be an array of at least one line"
    if faults or not isinstance(lines, list) or isinstance(totals, str):
        raise InvalidRequest(
            errors=[
                {"pointer": pointer_to(name), "detail": fault} for name, fault in faults.items()
            ]
        )
    if len(lines) > lines_max:
        raise TooLarge(f"A batch has at most {lines_max} lines; send several batches.")
    envelope = Envelope(raw["store_id"], raw["batch_id"], digest, raw.get("dry_run", False), totals)
    return envelope, lines


def _control_totals(raw: object) -> ControlTotals | str | None:
    """Return what the sender counted, or what is wrong with how it says so."""
    if raw is None:
        return None
    amounts = raw.get("amounts_minor") if isinstance(raw, dict) else None
    if (
        not isinstance(raw, dict)
        or set(raw) != {"lines_count", "amounts_minor"}
        or type(raw["lines_count"]) is not int
        or not isinstance(amounts, dict)
        or not all(
            currency in CURRENCY_EXPONENTS and type(amount) is int
            for currency, amount in amounts.items()
        )
    ):
        return "must have lines_count, and amounts_minor by currency"
    # Nothing of a currency is as good as not naming it.
    return ControlTotals(
        raw["lines_count"], {name: amount for name, amount in amounts.items() if amount}
    )


def totals_of(lines: Sequence[Line | UnreadableLine]) -> ControlTotals:
    """Return what HQ counts: all lines, and the amounts of those that it can read."""
    amounts: Counter[str] = Counter()
    for line in lines:
        if isinstance(line, Line) and line.currency != NO_CURRENCY:
            amounts[line.currency] += line.amount_minor
    return ControlTotals(len(lines), dict(amounts))


def is_identifier(value: object) -> bool:
    """Tell whether a value is a name that a store, terminal, transaction or batch can have."""
    return isinstance(value, str) and _IDENTIFIER.fullmatch(value) is not None


def pointer_to(*names: object) -> str:
    """Return the JSON pointer (RFC 6901) of a member.

    A name that is too long is cut; a card number in the wrong place is masked.
    """
    shown = (mask(str(name)[:_NAME_LENGTH_MAX])[:64] for name in names)
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
    if isinstance(raw, MalformedLine):
        return UnreadableLine(store_id, position, _masked(raw), "the line is not JSON")
    try:
        if not isinstance(raw, dict):
            raise _Unreadable("a line must be an object")
        return _read(raw, position, store_id, keyring, now)
    except _Unreadable as reason:
        text = json.dumps(raw, ensure_ascii=True, separators=(",", ":"))
        return UnreadableLine(store_id, position, _masked(text), str(reason), _place(raw))


def _masked(text: str) -> str:
    """Return what may be kept of a text, cut first: the masking of a megabyte takes its time.

    What the cut goes through is dropped, or half a card number would be no number any more.
    """
    if len(text) > MASKED_TEXT_LENGTH_MAX:
        text = text[:MASKED_TEXT_LENGTH_MAX].rstrip(_NUMBER_CHARACTERS)
    return mask(_GRANT_FORM.sub("***", text))


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
        names = sorted(set(raw) - _MEMBERS)[:_NAMES_TOLD_MAX]
        unknown = ", ".join(mask(name[:_NAME_LENGTH_MAX])[:64] for name in names)
        raise _Unreadable(f"unknown member {unknown}")
    operation = _choice(raw, "operation", _OPERATIONS, None)
    concluded_at = read_instant(raw.get("concluded_at"), now)
    if concluded_at is None:
        raise _Unreadable("concluded_at must be an instant with a zone, from 2000 on")
    is_money = operation not in _WITHOUT_MONEY
    original = _original(raw, operation)
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
        original=original,
        reason=_reason(raw, operation, original),
        tender=_tender(raw),
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


def _original(raw: Mapping[str, Any], operation: str) -> BusinessKey | None:
    value = raw.get("original")
    if value is None:
        return None
    if operation != Operation.REFUND:
        raise _Unreadable("only a refund has an original")
    if not isinstance(value, dict) or set(value) != _KEY_MEMBERS:
        raise _Unreadable("original must have store_id, terminal_id, transaction_id and line")
    key = BusinessKey(
        _identifier(value, "store_id"),
        _identifier(value, "terminal_id"),
        _identifier(value, "transaction_id"),
        _integer(value, "line", 1, LINE_NUMBER_MAX),
    )
    if key.store_id == HQ:
        raise _Unreadable(f"original.store_id must be a store's; {HQ} is headquarters' own")
    return key


def _reason(raw: Mapping[str, Any], operation: str, original: BusinessKey | None) -> str | None:
    value = raw.get("reason")
    if value is None:
        if operation == Operation.REFUND and original is None:
            raise _Unreadable("a refund names its original, or a reason for having none")
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= _REASON_LENGTH_MAX:
        raise _Unreadable(f"reason must be a text of at most {_REASON_LENGTH_MAX} characters")
    if not value.isprintable():
        raise _Unreadable("reason must not have control characters")
    return mask(value)


def _tender(raw: Mapping[str, Any]) -> Tender | None:
    told = [raw.get(name) for name in ("tender_amount_minor", "tender_currency", "exchange_rate")]
    if told == [None, None, None]:
        return None
    amount_minor = _integer(raw, "tender_amount_minor", 1, AMOUNT_MINOR_MAX)
    currency, rate = told[1], told[2]
    if not isinstance(currency, str) or currency not in CURRENCY_EXPONENTS:
        raise _Unreadable("tender_currency must be a code of ISO 4217")
    if not isinstance(rate, str) or not is_exchange_rate(rate):
        raise _Unreadable("exchange_rate must be a decimal text, for example 10.4375")
    return Tender(amount_minor, currency, rate)


def is_exchange_rate(text: str) -> bool:
    """Tell whether a text is a rate of exchange: a decimal above zero."""
    return _EXCHANGE_RATE.fullmatch(text) is not None and text.strip("0.") != ""


def _place(raw: object) -> Place | None:
    """Return where an unreadable line stands in its journal, if at least that can be read."""
    if not isinstance(raw, dict):
        return None
    try:
        return Place(
            _identifier(raw, "terminal_id"),
            _identifier(raw, "journal_id"),
            _integer(raw, "sequence", 1, SEQUENCE_MAX),
        )
    except _Unreadable:
        return None


def _grant(raw: Mapping[str, Any]) -> str | None:
    value = raw.get("grant")
    if value is None:
        return None
    # Whatever text it is, it is judged: one that does not verify counts as absent.
    if not isinstance(value, str) or len(value) > GRANT_LENGTH_MAX:
        raise _Unreadable(f"grant must be a text of at most {GRANT_LENGTH_MAX} characters")
    return value if _GRANT_FORM.fullmatch(value) else mask(value)
