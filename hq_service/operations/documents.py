"""JSON, read strictly, and quickly where a quick reader cannot have understood it differently."""

from __future__ import annotations

from typing import Any

import orjson

from hq_service.domain import documents


def read_json(body: bytes) -> Any:
    """Return the JSON document of a body, as `hq_service.domain.documents.read_json` does.

    Raises:  MalformedBody for anything that two readers could understand differently.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return documents.read_json(body)  # says what is wrong
    return document if documents.is_all_of(body, document) else documents.read_json(body)
