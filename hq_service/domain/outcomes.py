"""What can become of a line, and the questions it can leave: closed lists."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from hq_service.domain.model import BusinessKey, Content, Operation, UnreadableLine


class Outcome(StrEnum):
    """What became of one line. There is no "rejected"."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    HELD = "held"
    QUARANTINED = "quarantined"


class Code(StrEnum):
    """What else there is to say of an outcome: a closed list."""

    UNREADABLE = "unreadable"
    FOREIGN_TERMINAL = "foreign_terminal"
    VOIDED = "voided"
    BUSINESS_KEY_REUSED = "business_key_reused"
    UNKNOWN_INSTRUMENT = "unknown_instrument"
    UNKNOWN_ORIGINAL = "unknown_original"
    REFUND_EXCEEDS_ORIGINAL = "refund_exceeds_original"
    CURRENCY_MISMATCH = "currency_mismatch"
    LOCK_ALREADY_USED = "lock_already_used"
    OPERATION_NOT_ALLOWED = "operation_not_allowed"
    BALANCE_LIMIT_EXCEEDED = "balance_limit_exceeded"
    UNPOSTABLE = "unpostable"
    OVER_GRANT = "over_grant"
    NOT_AS_LOCKED = "not_as_locked"
    STALE_LOCK = "stale_lock"
    LOCK_BROKEN = "lock_broken"
    LOCK_RECONSTRUCTED = "lock_reconstructed"
    NO_LOCK = "no_lock"
    GRANT_INVALID = "grant_invalid"
    CONTENDED = "contended"
    INSTRUMENT_BLOCKED = "instrument_blocked"
    INSTRUMENT_EXPIRED = "instrument_expired"
    INSTRUMENT_CLOSED = "instrument_closed"
    INSTRUMENT_APPLIED = "instrument_applied"
    OFFLINE_NOT_PERMITTED = "offline_not_permitted"
    TOO_OLD = "too_old"
    CLOCK_SKEW = "clock_skew"
    SEQUENCE_REUSED = "sequence_reused"
    SEQUENCE_GAP = "sequence_gap"
    CONTROL_TOTAL_MISMATCH = "control_total_mismatch"
    APPLIED_BY_HAND = "applied_by_hand"


CASE_CODES = frozenset(
    {
        Code.OVER_GRANT,
        Code.NOT_AS_LOCKED,
        Code.LOCK_BROKEN,
        Code.NO_LOCK,
        Code.CONTENDED,
        Code.OFFLINE_NOT_PERMITTED,
        Code.GRANT_INVALID,
        Code.SEQUENCE_REUSED,
        Code.INSTRUMENT_BLOCKED,
        Code.INSTRUMENT_EXPIRED,
        Code.INSTRUMENT_CLOSED,
        Code.INSTRUMENT_APPLIED,
    }
)
"""The codes that leave a question for an administrator, also when the line is fully funded."""

NOTICE_CODES = frozenset(
    {Code.CLOCK_SKEW, Code.TOO_OLD, Code.SEQUENCE_GAP, Code.CONTROL_TOTAL_MISMATCH}
)
"""The codes that make one case per terminal and batch, however many lines have them."""

NOTICED = "noticed"
"""The outcome of such a case: it is about no line, and so none of a line's outcomes."""

WAITING_CODES = frozenset({Code.UNKNOWN_INSTRUMENT, Code.UNKNOWN_ORIGINAL})
"""The codes of lines that are held until what they wait for arrives; then they are judged again."""


@dataclass(slots=True)
class LineResult:
    """What is answered for one line, and told again when the line is repeated.

    ``undone`` is what a void undid: a void itself has neither amount nor currency.
    ``forfeited_minor`` is what was left of a memo that the line used in part, and was kept back.
    """

    outcome: str
    codes: tuple[str, ...] = ()
    funded_minor: int = 0
    shortfall_minor: int = 0
    balance_after_minor: int | None = None
    case_id: UUID | None = None
    remainder_id: UUID | None = None
    original_outcome: str | None = None
    undone: Content | None = None
    forfeited_minor: int = 0

    def repeated(self) -> LineResult:
        """Return what is answered when the line comes again."""
        return LineResult(
            Outcome.DUPLICATE,
            self.codes,
            self.funded_minor,
            self.shortfall_minor,
            self.balance_after_minor,
            self.case_id,
            self.remainder_id,
            self.outcome,
            None,
            self.forfeited_minor,
        )

    @property
    def needs_case(self) -> bool:
        """Tell whether the line leaves a question for an administrator."""
        return (
            self.outcome in (Outcome.HELD, Outcome.QUARANTINED)
            or self.shortfall_minor > 0
            or not CASE_CODES.isdisjoint(self.codes)
        )


def case_id_of(key: BusinessKey, content: Content) -> UUID:
    """Return the id of the case of a line: the same line makes no second case."""
    return _case_id("case", key, content)


def case_id_of_void(key: BusinessKey, undone: Content) -> UUID:
    """Return the id of the case of a void: a void itself has neither amount nor currency."""
    return _case_id("case", key, undone._replace(operation=Operation.VOID, original=None))


def case_id_of_quarantined(key: BusinessKey, content: Content) -> UUID:
    """Return the id of the case of a line that its sender may not speak for.

    Not the line's own: whoever may speak for it can still send it, and it can fall short then.
    """
    return _case_id("quarantined", key, content)


def _case_id(word: str, key: BusinessKey, content: Content) -> UUID:
    original = list(content.original) if content.original else None
    fields = [*key, content.operation, content.instrument_id.hex, content.amount_minor]
    text = json.dumps([word, *fields, content.currency, original])
    return UUID(bytes=hashlib.sha256(text.encode("utf-8")).digest()[:16])


def case_id_of_unreadable(line: UnreadableLine, batch_id: str) -> UUID:
    """Return the id of the case of a line that could not be read.

    Its place in the journal tells a repeat. Without one, two lines of the same text may be two
    sales cut off at the same letter: each place in each batch has its own case.
    """
    where = list(line.place) if line.place else [batch_id, line.position]
    text = json.dumps(["unreadable", line.store_id, *where, line.masked_text])
    return UUID(bytes=hashlib.sha256(text.encode("utf-8")).digest()[:16])


def case_id_of_notice(store_id: str, occasion: str, terminal_id: str, code: str) -> UUID:
    """Return the id of a case that a terminal has for a whole batch, or for the same gaps."""
    text = json.dumps(["notice", store_id, occasion, terminal_id, code])
    return UUID(bytes=hashlib.sha256(text.encode("utf-8")).digest()[:16])
