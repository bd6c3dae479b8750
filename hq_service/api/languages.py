"""Which language an answer is in: the caller's, if the glossary has it."""

from __future__ import annotations

import re

from flask import request

from hq_service.domain.glossary import ENGLISH, LANGUAGES

_BY_TAG = {one.lower(): one for one in LANGUAGES} | {"zh": "zh-CN"}


def language_of_request() -> str:
    """Return the best of `LANGUAGES` for the request's Accept-Language; English if none is.

    A tag stands for the language that its beginning names (RFC 4647, 3.4): ``fr-CA`` for ``fr``,
    ``zh-Hans-SG`` for ``zh``, which is written here as in ``zh-CN``.
    """
    accepted = [(tag, quality) for tag, quality in request.accept_languages if tag]
    refused = {_supported(tag) for tag, quality in accepted if not quality}
    # What is equally good stays in the header's order.
    for tag, quality in sorted(accepted, key=lambda one: -one[1]):
        if not quality:
            continue
        if tag == "*":
            return next((one for one in LANGUAGES if one not in refused), ENGLISH)
        found = _supported(tag)
        if found is not None and found not in refused:
            return found
    return ENGLISH


def headers_of(language: str) -> dict[str, str]:
    """Return the headers of an answer whose words are in a language."""
    return {"Content-Language": language, "Vary": "Accept-Language"}


def _supported(tag: str) -> str | None:
    parts = re.split(r"[-_]", tag.lower())
    for length in range(len(parts), 0, -1):
        found = _BY_TAG.get("-".join(parts[:length]))
        if found is not None:
            return found
    return None
