"""The secrets that HQ computes with: what numbers stand for, and what grants are signed with."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from hq_service.domain import grants, numbers
from hq_service.domain.grants import Grant, GrantKeys
from hq_service.domain.model import BusinessKey, Kind


@dataclass(frozen=True, slots=True)
class Keyring:
    """The number secret, fixed for the life of the data, and the grant keys, which rotate."""

    number_secret: bytes = field(repr=False)
    grant_keys: GrantKeys = field(repr=False)

    def instrument_id(self, kind: str, normalised_number: str) -> UUID:
        """Return the id that a number stands for."""
        return numbers.instrument_id_of(self.number_secret, kind, normalised_number)

    def number_secret_fingerprint(self) -> bytes:
        """Return what a database remembers of the number secret that its data was made with."""
        return numbers.fingerprint_of(self.number_secret)

    def audit_key(self) -> bytes:
        """Return what the audit's chain is hashed with."""
        return numbers.audit_key_of(self.number_secret)

    def number_made_for(self, kind: str, key: BusinessKey) -> str:
        """Return the number that HQ makes for a business key; the same each time."""
        return numbers.number_made_for(self.number_secret, kind, key)

    def remainder_number_for(self, key: BusinessKey) -> str:
        """Return the number of the memo that a business key left behind; the same each time."""
        return numbers.number_made_for(self.number_secret, Kind.CREDIT_MEMO, key, is_remainder=True)

    def sign(self, grant: Grant) -> str:
        """Return a grant as the text that goes to the till."""
        return grants.sign(grant, self.grant_keys)

    def grant(self, text: str, key: BusinessKey) -> Grant | None:
        """Return the grant if HQ signed it for the terminal of the key, else None."""
        return grants.verify(text, key.store_id, key.terminal_id, self.grant_keys)
