"""JSON, read so strictly that no two readers can understand it differently.

The usual stack takes a duplicate member (the last one wins: amount 1 becomes 5), NUL and lone
surrogates in texts (the database refuses them later), and fails on deep nesting and huge integers.
"""

from __future__ import annotations

import json
import re
from math import nan
from typing import Any, NoReturn

from hq_service.domain.errors import MalformedBody

DEPTH_MAX = 20
DIGITS_MAX = 19

_PLAIN = frozenset({str, int, bool, type(None)})
_HARMFUL_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})")


def read_json(body: bytes) -> Any:
    """Return the JSON document of a body.

    Raises:  MalformedBody for anything that two readers could understand differently.
    """
    try:
        text = body.decode("utf-8")
        document = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_constant=_constant,
        )
    except UnicodeDecodeError:
        raise MalformedBody("The body is not UTF-8.") from None
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise MalformedBody(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    if text.count("[") + text.count("{") > DEPTH_MAX:
        _check_depth(document)
    if _HARMFUL_ESCAPE.search(text):
        _check_texts(document)
    return document


def is_all_of(body: bytes, document: Any) -> bool:
    """Tell whether what another reader made of a body is for certain what `read_json` returns.

    That reader must refuse whatever is no JSON, and take a whole number for a whole number up to
    64 bits. False says nothing: what has an escape or a fraction is for `read_json` to read.
    """
    # A member that came twice has left its quotes; so has whatever is escaped.
    return b"\\" not in body and body.count(b'"') == 2 * _texts_count(document, DEPTH_MAX - 1)


def _texts_count(document: Any, levels: int) -> float:
    """Return how many texts a document has, names of members too.

    No number at all if it is nested deeper than so many levels, or has a number that may be the
    remains of a longer one.
    """
    kind = type(document)
    if kind is dict:
        values, count = document.values(), len(document)
    elif kind is list:
        values, count = document, 0
    elif kind in _PLAIN:
        return float(kind is str)
    else:
        return nan
    if not levels:
        return nan
    kinds = list(map(type, values))
    if _PLAIN.issuperset(kinds):
        return count + kinds.count(str)
    return count + sum(_texts_count(value, levels - 1) for value in values)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedBody("An object has a member twice.")
    return members


def _integer(text: str) -> int:
    if len(text) > DIGITS_MAX + 1:
        raise MalformedBody(f"A number has more than {DIGITS_MAX} digits.")
    return int(text)


def _constant(_text: str) -> NoReturn:
    raise MalformedBody("NaN and Infinity are not JSON.")


def _check_depth(document: Any) -> None:
    level = [document]
    for _ in range(DEPTH_MAX):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise _too_deep()


def _check_texts(document: Any) -> None:
    todo = [document]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            if "\x00" in one or any("\ud800" <= character <= "\udfff" for character in one):
                raise MalformedBody("A text has a NUL or half of a surrogate pair.")
        elif isinstance(one, dict):
            todo += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            todo += one


def _too_deep() -> MalformedBody:
    return MalformedBody(f"The body is nested more than {DEPTH_MAX} levels deep.")
