"""JSON is read so strictly that no two readers can understand it differently."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hq_service.domain.documents import DEPTH_MAX, read_json
from hq_service.domain.errors import MalformedBody
from hq_service.domain.money import CURRENCY_EXPONENTS, display

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
