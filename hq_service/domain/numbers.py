"""Card numbers: secrets that are turned into an instrument id and then forgotten.

Source: ``docs/decisions/0002-the-instrument-id-is-the-look-up.md``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import datetime
from uuid import UUID, SafeUUID

from hq_service.domain.model import BusinessKey

NUMBER_LENGTH_MIN = 8
NUMBER_LENGTH_MAX = 32
BUCKETS = 1024

_SEPARATORS = str.maketrans("", "", " -")
_NUMBER = re.compile(rf"[0-9A-Za-z]{{{NUMBER_LENGTH_MIN},{NUMBER_LENGTH_MAX}}}")
# Without I, L, O and U, which people misread (Crockford's base 32).
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_FOUR = rf"[{_ALPHABET}]{{4}}"
_GENERATED_LENGTH = 16  # 80 bits: not to be guessed, short enough to be typed

# What may be a card number, however it is spelled: eight digits or more, also far apart or in
# groups of three and more (a date or a time of day is neither), and what looks like HQ's own.
_MAYBE_NUMBERS = (
    # First, or a long group would be hidden alone and the others stay.
    # Nothing is asked of what follows: that would try again from each of its groups.
    re.compile(r"(?<![0-9A-Za-z-])\d{3,}(?:[ -]{1,3}\d{3,})+"),
    re.compile(r"(?<![0-9A-Za-z])\d(?: *\d){7,}"),
    re.compile(r"\d{8,}"),
    re.compile(rf"(?<![0-9A-Za-z])[{_ALPHABET}]{{{_GENERATED_LENGTH}}}(?![0-9A-Za-z])"),
)
# In small letters or in fours it must have a digit, or else four short words would be one.
_MAYBE_FOURS = re.compile(
    # The same between all fours, or else every UUID would begin with one.
    rf"(?<![0-9A-Za-z-])(?=(?:[ -]?[A-Za-z]){{0,15}}[ -]?\d)"
    rf"{_FOUR}([ -]?){_FOUR}\1{_FOUR}\1{_FOUR}(?![0-9A-Za-z-])",
    re.IGNORECASE,
)
# Ids are no secrets, and a line without its instrument's could not be followed up. One in twelve
# has eight digits in a row; one without any letter is taken for a number in groups all the same.
_UUID = re.compile(
    r"(?<![0-9A-Za-z-])(?=[0-9-]*[a-f])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9A-Za-z-])",
    re.IGNORECASE,
)
_set = object.__setattr__  # a UUID has a __setattr__ that refuses
_NUMBER_MEMBER = re.compile(r'("number"\s*:\s*")((?:[^"\\]|\\.)*)')


def normalise(number: str) -> str | None:
    """Return the number as it is hashed: upper case, no spaces or hyphens; None if it is none."""
    candidate = number.translate(_SEPARATORS)
    # Looked at before upper(), which makes an S or two, an I, an F out of letters that no card has.
    return candidate.upper() if _NUMBER.fullmatch(candidate) else None


def without_separators(text: str) -> str:
    """Return a text as a number in it would be hashed: upper case, no spaces or hyphens."""
    return text.translate(_SEPARATORS).upper()


def instrument_id_of(secret: bytes, kind: str, normalised_number: str) -> UUID:
    """Return the id that a number stands for: the id *is* the look-up, no index needed.

    Units: the first 16 bytes of HMAC-SHA256 over kind and number, with the number secret.
    """
    message = f"{kind}\x00{normalised_number}".encode("ascii")
    return UUID(bytes=hmac.digest(secret, message, hashlib.sha256)[:16])


def fingerprint_of(secret: bytes) -> bytes:
    """Return what tells a number secret from another, and gives nothing of it away.

    Shapes: 32 bytes. No number's message is like this one: each begins with its kind and a NUL.
    """
    return hmac.digest(secret, b"fingerprint", hashlib.sha256)


def audit_key_of(secret: bytes) -> bytes:
    """Return the key of the audit's chain: made of the one secret that never changes."""
    return hmac.digest(secret, b"audit", hashlib.sha256)


def bucket_of(instrument_id: UUID) -> int:
    """Return the bucket, 0..1023: the top ten bits of the id."""
    return instrument_id.int >> 118


def number_made_for(
    secret: bytes, kind: str, key: BusinessKey, *, is_remainder: bool = False
) -> str:
    """Return the number that HQ makes for a business key: the same key, the same number.

    So a repeat can tell the number again although it is stored nowhere. What is left of a memo has
    a number of its own, also if the key had one made for an issue. Every number has a digit.
    """
    word = "remainder" if is_remainder else "made"
    fields = (word, kind, key.store_id, key.terminal_id, key.transaction_id, str(key.line))
    # Length-prefixed, so that no two keys can be written as the same bytes.
    message = b"".join(
        len(part).to_bytes(2) + part for part in (field.encode("utf-8") for field in fields)
    )
    while True:
        bits = int.from_bytes(hmac.digest(secret, message, hashlib.sha256)[:10])
        number = "".join(_ALPHABET[(bits >> shift) & 31] for shift in range(75, -1, -5))
        if any(one in "0123456789" for one in number):
            return number
        # One in 400: in fours it would be four words, and not masked. No other key has this
        # message either: it would end where this one has a byte more.
        message += b"\x00"


def last4(normalised_number: str) -> str:
    """Return what may be stored and shown of a number."""
    return normalised_number[-4:]


def mask(text: str) -> str:
    """Hide whatever may be a card number, but for its last four characters; UUIDs stay.

    Used on lines that could not be read, on names in the wrong place and on reasons.
    """

    def hide(found: str) -> str:
        return f"***{found[-4:]}" if len(found) > 4 else "***"

    text = _NUMBER_MEMBER.sub(lambda match: match[1] + hide(match[2]), text)
    masked, seen_up_to = [], 0
    for found in _UUID.finditer(text):
        masked += [_without_numbers(text[seen_up_to : found.start()]), found[0]]
        seen_up_to = found.end()
    return "".join([*masked, _without_numbers(text[seen_up_to:])])


def _without_numbers(text: str) -> str:
    text = _hide_fours(text)  # first: the others would take a part of one
    for pattern in _MAYBE_NUMBERS:
        text = pattern.sub(_hide_number, text)
    return text


def _hide_fours(text: str) -> str:
    """Hide numbers in groups of four, also behind or before a word of four letters.

    Every possible beginning is tried: "card" could be the first group, and the last would stay.
    """
    spans: list[tuple[int, int]] = []
    found = _MAYBE_FOURS.search(text)
    while found is not None:
        start, end = found.span()
        if spans and start <= spans[-1][1]:
            start, _ = spans.pop()
        spans.append((start, end))
        found = _MAYBE_FOURS.search(text, found.start() + 1)
    for start, end in reversed(spans):
        text = f"{text[:start]}***{text[start:end].translate(_SEPARATORS)[-4:]}{text[end:]}"
    return text


def _hide_number(found: re.Match[str]) -> str:
    characters = found[0].translate(_SEPARATORS)
    return found[0] if len(characters) < NUMBER_LENGTH_MIN else f"***{characters[-4:]}"


def uuid_of(text: str) -> UUID:
    """Return the UUID that a text is: 32 hexadecimal digits in groups, which nobody checks here.

    As ``UUID(text)`` does in more than twice the time: each line of a batch has two or three.
    """
    made = object.__new__(UUID)
    _set(made, "int", int(text.replace("-", ""), 16))
    _set(made, "is_safe", SafeUUID.unknown)
    return made


def uuid7(now: datetime, random_bytes: bytes) -> UUID:
    """Return a UUIDv7 (RFC 9562): time-ordered, so that indexes grow at their right edge.

    Shapes: ``random_bytes`` are ten bytes from the operating system.
    """
    milliseconds = int(now.timestamp() * 1000)
    value = (milliseconds << 80) | int.from_bytes(random_bytes)
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return UUID(int=value)
