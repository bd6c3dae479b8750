"""From a card number to its instrument."""

from __future__ import annotations

from hq_service.domain.errors import InvalidRequest
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import Instrument, InstrumentStatus
from hq_service.domain.numbers import normalise
from hq_service.store import instruments
from hq_service.store.database import Connection

REMAINDERS_MAX = 100
"""How many times a credit memo can have been split before its number is followed no further."""


def normalised(number: str) -> str:
    """Return the number as it is hashed.

    Raises:  InvalidRequest, without the number in it.
    """
    candidate = normalise(number)
    if candidate is None:
        fault = {"pointer": "/number", "detail": "must be 8 to 32 letters or digits"}
        raise InvalidRequest(errors=[fault])
    return candidate


def find(connection: Connection, kind: str, number: str, keyring: Keyring) -> Instrument | None:
    """Return the instrument of a number; a used credit memo leads on to its remainder."""
    instrument = instruments.read(connection, keyring.instrument_id(kind, normalised(number)))
    for _ in range(REMAINDERS_MAX):
        is_used = instrument is not None and instrument.status == InstrumentStatus.APPLIED
        if instrument is None or not is_used or instrument.remainder_id is None:
            break
        instrument = instruments.read(connection, instrument.remainder_id)
    return instrument
