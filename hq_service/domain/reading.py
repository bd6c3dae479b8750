"""From what a sender wrote to a line that can be judged, or to one that nobody can read.

Checked by hand, member by member: a schema library costs as much per line as settling it.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hq_service.domain.errors import InvalidRequest, TooLarge
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
from hq_service.domain.numbers import mask, normalise, uuid_of

IDENTIFIER_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}"
EXCHANGE_RATE_PATTERN = r"[0-9]{1,12}(\.[0-9]{1,12})?"
LINE_NUMBER_MAX = 9_999
SEQUENCE_MAX = 2**53 - 1
LINE_BYTES_MAX = 2**20
MASKED_TEXT_LENGTH_MAX = 4_096

NO_CURRENCY = "XXX"
"""ISO 4217 for "no currency involved": what a release line carries."""

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST_AHEAD = timedelta(days=3_653)

_is_name = re.compile(IDENTIFIER_PATTERN).fullmatch
_is_uuid = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}").fullmatch
# As grants.sign writes them: what is not even of this form may be a secret of another kind.
_GRANT_FORM = re.compile(r"g[0-9]+\.[A-Za-z0-9]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# As texts: members of an enumeration take longer to look up.
_OPERATIONS = frozenset(one.value for one in Operation)
_STATUSES = frozenset(one.value for one in TransactionStatus)
_WITHOUT_MONEY = frozenset({Operation.RELEASE, Operation.VOID})
_CONCLUDED = TransactionStatus.CONCLUDED.value
_NUMBER_CHARACTERS = string.ascii_letters + string.digits + " -._"
_KINDS = frozenset(one.value for one in Kind)
_ENVELOPE = frozenset({"store_id", "batch_id", "lines", "dry_run", "control_totals"})
_KEY_MEMBERS = frozenset({"store_id", "terminal_id", "transaction_id", "line"})
_EXCHANGE_RATE = re.compile(EXCHANGE_RATE_PATTERN)
_REASON_LENGTH_MAX = 500
_NAME_LENGTH_MAX = 256
_NAMES_TOLD_MAX = 10
_USUAL_MEMBERS = frozenset(
    """terminal_id journal_id sequence transaction_id line status operation instrument_id
    amount_minor currency lock_id grant parameter_revision concluded_at""".split()
)
_MEMBERS = _USUAL_MEMBERS.union(
    """kind number original reason tender_amount_minor tender_currency exchange_rate""".split()
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
    reason = "the line is not JSON"


class OverlongLine(MalformedLine):
    """The beginning of a line that is too long to be one."""

    __slots__ = ()
    reason = f"the line is longer than {LINE_BYTES_MAX} bytes"


def split_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Give the lines of NDJSON that comes in pieces, blank ones too.

    What is longer than `LINE_BYTES_MAX` is cut to one byte more: not even a single line that never
    ends may fill the memory.
    """
    begun = b""
    for piece in pieces:
        first, *others = piece.split(b"\n")
        if len(begun) <= LINE_BYTES_MAX:
            begun = (begun + first)[: LINE_BYTES_MAX + 1]
        if others:
            yield begun
            *whole, begun = others
            for line in whole:
                yield line[: LINE_BYTES_MAX + 1]
    yield begun


def malformed_line(text: bytes) -> MalformedLine:
    """Return what can be told of a line that is no JSON, or too long."""
    kind = OverlongLine if len(text) > LINE_BYTES_MAX else MalformedLine
    # No text of the database can hold a NUL.
    return kind(text.decode("utf-8", "replace").replace("\x00", "\ufffd"))


def envelope_of(
    raw: object, body_sha256: bytes, lines_max: int, lines_behind: int | None = None
) -> Envelope:
    """Return the envelope of a batch, whose lines are in it or, as NDJSON, behind it.

    Shapes:  ``lines_behind`` is how many lines came behind it; None if they are in it.
    Raises:  InvalidRequest with a pointer to each fault; TooLarge above ``lines_max``.
    """
    if not isinstance(raw, dict):
        raise InvalidRequest(errors=[{"pointer": "", "detail": "must be an object"}])
    if lines_behind is not None and "lines" in raw:  # or else those behind it would be lost
        raise InvalidRequest(
            errors=[{"pointer": "/lines", "detail": "must follow the envelope, one a line"}]
        )
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
    lines_in_it = len(lines) if isinstance(lines, list) else 0
    lines_count = lines_in_it if lines_behind is None else lines_behind
    if not lines_count:
        faults["lines"] = "must be an array of at least one line"
    if faults or isinstance(totals, str):
        raise InvalidRequest(
            errors=[
                {"pointer": pointer_to(name), "detail": fault} for name, fault in faults.items()
            ]
        )
    if lines_count > lines_max:
        raise TooLarge(f"A batch has at most {lines_max} lines; send several batches.")
    is_dry_run = raw.get("dry_run", False)
    return Envelope(raw["store_id"], raw["batch_id"], body_sha256, is_dry_run, totals)


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
    return isinstance(value, str) and _is_name(value) is not None


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
        return UnreadableLine(store_id, position, _masked(raw), raw.reason)
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
        if instant.tzinfo is not UTC:
            instant = instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return instant if EARLIEST <= instant <= now + _LATEST_AHEAD else None


def _read(
    raw: Mapping[str, Any], position: int, store_id: str, keyring: Keyring, now: datetime
) -> Line:
    is_usual = _USUAL_MEMBERS.issuperset(raw)
    if not is_usual and not _MEMBERS.issuperset(raw):
        names = sorted(set(raw) - _MEMBERS)[:_NAMES_TOLD_MAX]
        unknown = ", ".join(mask(name[:_NAME_LENGTH_MAX])[:64] for name in names)
        raise _Unreadable(f"unknown member {unknown}")
    read = raw.get
    operation = _choice(read("operation"), "operation", _OPERATIONS)
    concluded_at = read_instant(read("concluded_at"), now)
    if concluded_at is None:
        raise _Unreadable("concluded_at must be an instant with a zone, from 2000 on")
    is_money = operation not in _WITHOUT_MONEY
    original = None if is_usual else _original(raw, operation)
    terminal_id = _identifier(read("terminal_id"), "terminal_id")
    transaction_id = _identifier(read("transaction_id"), "transaction_id")
    number = _integer(read("line"), "line", 1, LINE_NUMBER_MAX)
    lock_id, revision = read("lock_id"), read("parameter_revision")
    # By position, as the fields are: by name it takes three times as long.
    return Line(
        BusinessKey(store_id, terminal_id, transaction_id, number),
        operation,
        _instrument_id(raw, keyring),
        _integer(read("amount_minor"), "amount_minor", 1, AMOUNT_MINOR_MAX) if is_money else 0,
        _currency(read("currency"), "currency") if is_money else NO_CURRENCY,
        _choice(read("status", _CONCLUDED), "status", _STATUSES),
        _uuid(lock_id, "lock_id") if lock_id is not None else None,
        original,
        _grant(read("grant")),
        _integer(revision, "parameter_revision", 0, 2**31 - 1) if revision is not None else None,
        concluded_at,
        _identifier(read("journal_id"), "journal_id"),
        _integer(read("sequence"), "sequence", 1, SEQUENCE_MAX),
        position,
        _reason(raw, operation, original),
        None if is_usual else _tender(raw),
    )


def _identifier(value: Any, name: str) -> str:
    if type(value) is not str or not _is_name(value):
        raise _Unreadable(f"{name} must be 1 to 64 letters, digits or . _ : -")
    return value


def _integer(value: Any, name: str, minimum: int, maximum: int) -> int:
    # type() and not isinstance(): true is an int to Python.
    if type(value) is not int or not minimum <= value <= maximum:
        raise _Unreadable(f"{name} must be an integer from {minimum} to {maximum}")
    return value


def _choice(value: Any, name: str, choices: frozenset[str]) -> str:
    if type(value) is not str or value not in choices:
        raise _Unreadable(f"{name} must be one of {', '.join(sorted(choices))}")
    return value


def _currency(value: Any, name: str) -> str:
    if type(value) is not str or value not in CURRENCY_EXPONENTS:
        raise _Unreadable(f"{name} must be a code of ISO 4217")
    return value


def _uuid(value: Any, name: str) -> UUID:
    parsed = uuid_of(value) if type(value) is str and _is_uuid(value) else None
    if parsed is None or not parsed.int:
        raise _Unreadable(f"{name} must be a UUID")
    return parsed


def _instrument_id(raw: Mapping[str, Any], keyring: Keyring) -> UUID:
    instrument_id, number = raw.get("instrument_id"), raw.get("number")
    if instrument_id is not None:
        if number is not None:
            raise _Unreadable("a line names its instrument by instrument_id or number, not both")
        return _uuid(instrument_id, "instrument_id")
    kind = _choice(raw.get("kind"), "kind", _KINDS)
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
        _identifier(value["store_id"], "store_id"),
        _identifier(value["terminal_id"], "terminal_id"),
        _identifier(value["transaction_id"], "transaction_id"),
        _integer(value["line"], "line", 1, LINE_NUMBER_MAX),
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
    amount_minor = _integer(told[0], "tender_amount_minor", 1, AMOUNT_MINOR_MAX)
    currency, rate = _currency(told[1], "tender_currency"), told[2]
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
            _identifier(raw.get("terminal_id"), "terminal_id"),
            _identifier(raw.get("journal_id"), "journal_id"),
            _integer(raw.get("sequence"), "sequence", 1, SEQUENCE_MAX),
        )
    except _Unreadable:
        return None


def _grant(value: Any) -> str | None:
    if value is None:
        return None
    # Whatever text it is, it is judged: one that does not verify counts as absent.
    if not isinstance(value, str) or len(value) > GRANT_LENGTH_MAX:
        raise _Unreadable(f"grant must be a text of at most {GRANT_LENGTH_MAX} characters")
    return value if _GRANT_FORM.fullmatch(value) else mask(value)
