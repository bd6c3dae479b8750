"""JSON is read so strictly that no two readers can understand it differently."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hq_service.domain.documents import DEPTH_MAX, is_all_of, read_json
from hq_service.domain.errors import MalformedBody
from hq_service.domain.money import CURRENCY_EXPONENTS, display
from hq_service.operations import documents

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(values)
def test_what_is_unambiguous_is_read_as_written(value: Any) -> None:
    text = json.dumps(value)
    if "\\u0000" in text or any("\ud800" <= one <= "\udfff" for one in str(value)):
        return
    assert read_json(text.encode()) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":"\\u0000"}',
        b'{"\\u0000":1}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b"1" * 5_000,
        b"[" * 60_000 + b"]" * 60_000,
        b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1),
        b'{"a":1} {"a":1}',
    ],
)
def test_what_two_readers_could_understand_differently_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        read_json(body)


def what_comes_of(read: Callable[[bytes], Any], body: bytes) -> str:
    """Return what a reader makes of a body: each value with its type, members in their order."""
    try:
        return f"read {read(body)!r}"
    except MalformedBody as error:
        return f"refused {error.detail}"


def written(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"


# Few names, so that members come twice; texts with quotes, escapes and what looks like JSON.
names = st.sampled_from(['""', '"a"', '"b"', '"\\u0061"', '"\\""', '"{"', '"\u00f6"'])
texts = st.one_of(
    st.text(max_size=5).map(json.dumps),
    st.text(max_size=5).map(lambda text: json.dumps(text, ensure_ascii=False)),
    names,
)
numbers = st.one_of(
    st.integers(-(10**22), 10**22).map(str),
    st.floats().map(repr),
    st.sampled_from(["1.0", "-0", "-0.0", "1e2", "1E400", "01", "+1", ".5", "NaN", "Infinity"]),
    st.sampled_from([str(one) for edge in (2**53, 2**63, 2**64) for one in (edge - 1, edge)]),
    st.sampled_from(["9" * 19, "9" * 20, "9" * 21, "-" + "9" * 19, "-" + "9" * 20]),
)
scalars = st.one_of(numbers, texts, st.sampled_from(["null", "true", "false", "nul", ""]))
written_values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda inner: "[" + ",".join(inner) + "]"),
        st.lists(st.tuples(names, inner), max_size=4).map(written),
        st.tuples(st.integers(15, 25), inner).map(
            lambda deep: "[" * deep[0] + deep[1] + "]" * deep[0]
        ),
        inner.map(lambda text: f" {text}\n"),
    ),
    max_leaves=12,
)


INTRUDERS = [b"", b'"', b"\\", b",", b"\x00", b"\x1f", b" ", b"\xff", b"\xef\xbb\xbf"]


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """Return a body of which some bytes are others, missing, or more."""
    body = bytearray(draw(written_values).encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(body)))
        body[place : place + draw(st.integers(0, 2))] = draw(
            st.sampled_from(
                [b"", b'"', b"\\", b",", b"\x00", b"\xff", b"\x1f", b"\xef\xbb\xbf", b" "]
            )
        )
    return bytes(body)


@settings(max_examples=1_000)
@given(st.one_of(spoiled(), st.binary(max_size=20)))
@example(b"")
@example(b" ")
@example(b'{"a":1,"a":1}')
@example(b'{"a":"","a":1}')
@example(b'{"a":[{"b":1,"b":"x"}]}')
@example(b'["\\"",1]')
@example(b'{"a":1}{"a":1}')
@example(b'\xef\xbb\xbf{"a":1}')
@example(b'"\xed\xa0\x80"')
@example(b'"\\ud83d"')
@example(b'"a\x00b"')
@example(b"1" * 5_000)
@example(b"[" * 60_000)
@example(b"[" * DEPTH_MAX + b"1" + b"]" * DEPTH_MAX)
@example(b"[[]," + b"[" * (DEPTH_MAX - 1) + b"1" + b"]" * DEPTH_MAX)
def test_the_quick_reader_says_what_the_strict_one_says(body: bytes) -> None:
    assert what_comes_of(documents.read_json, body) == what_comes_of(read_json, body)


@pytest.mark.parametrize(
    ("body", "is_certain"),
    [
        (b'{"a":"b","n":-5,"t":true,"o":null,"k":{"c":"d"},"lines":[{"e":[]},{"e":"f"}]}', True),
        (b"18446744073709551615", True),
        (b'{"a":1,"a":1}', False),
        (b'{"a":{"b":"x","b":"y"}}', False),
        (b'["\\u0061"]', False),
        (b"18446744073709551616", False),
        (b"[1.0]", False),
        (b"[" * DEPTH_MAX + b"1" + b"]" * DEPTH_MAX, False),
    ],
)
def test_a_document_is_certain_if_nothing_in_it_can_be_read_twice(
    body: bytes, is_certain: bool
) -> None:
    assert is_all_of(body, orjson.loads(body)) is is_certain


def test_a_surrogate_pair_is_a_character() -> None:
    assert read_json(b'{"a":"\\ud83d\\ude00"}') == {"a": "\N{GRINNING FACE}"}


def test_nesting_up_to_the_limit_is_read() -> None:
    assert read_json(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX)


@pytest.mark.parametrize(
    ("amount_minor", "currency", "shown"),
    [
        (150, "SEK", "1.50 SEK"),
        (5, "SEK", "0.05 SEK"),
        (-5, "EUR", "-0.05 EUR"),
        (5_000, "JPY", "5000 JPY"),
        (12_345, "KWD", "12.345 KWD"),
    ],
)
def test_amounts_are_shown_with_the_currencys_own_decimals(
    amount_minor: int, currency: str, shown: str
) -> None:
    assert display(amount_minor, currency) == shown


def test_currencies_are_three_letters_with_known_exponents() -> None:
    assert len(CURRENCY_EXPONENTS) > 150
    assert set(CURRENCY_EXPONENTS.values()) == {0, 2, 3}
    assert all(len(one) == 3 and one.isupper() for one in CURRENCY_EXPONENTS)
