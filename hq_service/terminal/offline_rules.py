"""What a till may do without HQ, and why not otherwise, in the words of the documents.

The lock is the authorisation: nothing is started offline, and only what was locked online with a
grant is concluded offline, up to the amount that was locked.
Source: documents "Seamless offline switch"; docs/settlement.md.
"""

from __future__ import annotations

from datetime import datetime

from hq_service.domain.glossary import ENGLISH, Term, text
from hq_service.domain.model import Kind
from hq_service.domain.money import display
from hq_service.domain.parameter_texts import label
from hq_service.terminal.refusals import NotPossible, Reason
from hq_service.terminal.setup import Setup, parameter_of
from hq_service.terminal.store import LineState, StoredLine

_KIND_TERMS = {Kind.GIFT_CARD: Term.GIFT_CARD, Kind.CREDIT_MEMO: Term.CREDIT_MEMO}


def nothing_starts_offline(kind: str) -> NotPossible:
    """Return why an instrument cannot be added to a sale while the till is offline."""
    name, offline = _name(kind), text(Term.OFFLINE_MODE, ENGLISH)
    return NotPossible(
        "nothing_starts_offline",
        f"The till is in {offline}: no {name} can be added to a transaction, only concluded if it"
        f" was locked before. Take another tender, or choose {text(Term.CONNECT, ENGLISH)}.",
    )


def lock_unanswered(kind: str) -> NotPossible:
    """Return why an instrument is not in the sale although HQ may have locked it."""
    offline = text(Term.OFFLINE_MODE, ENGLISH)
    return NotPossible(
        "lock_unanswered",
        f"{text(Term.COMMERCE_HEADQUARTERS, ENGLISH)} did not tell whether the {_name(kind)} is"
        f" locked, and the till is in {offline} now: the {_name(kind)} is not in the transaction."
        " Take another tender.",
    )


def above_what_is_locked(line: StoredLine, amount_minor: int) -> NotPossible:
    """Return why an amount cannot be: more than what the lock and its grant are for."""
    assert line.max_amount_minor is not None  # it was locked
    assert line.currency is not None
    asked, locked = (display(one, line.currency) for one in (amount_minor, line.max_amount_minor))
    return NotPossible(
        "above_grant",
        f"{asked} is more than {locked}, which is what the {_name(line.kind)} is locked for. Take"
        " another tender for the rest.",
    )


def why_not_offline(line: StoredLine, setup: Setup, now: datetime) -> Reason | None:
    """Return why a line cannot be concluded offline; None if it can."""
    name, offline = _name(line.kind), text(Term.OFFLINE_MODE, ENGLISH)
    if line.state is not LineState.LOCKED:
        return Reason("lock_unanswered", f"HQ never told that the {name} is locked. Remove it.")
    if not setup.supports_offline:
        return Reason(
            "register_without_offline_support",
            f'"{text(Term.SUPPORT_OFFLINE, ENGLISH)}" is {text(Term.NO, ENGLISH)} for this'
            " register. Remove the line, and take another tender.",
        )
    if not setup.allows_offline(line.kind):
        return Reason(
            "parameter_is_no",
            f'"{label(parameter_of(line.kind), ENGLISH)}" is {text(Term.NO, ENGLISH)} in the'
            f" {text(Term.COMMERCE_PARAMETERS, ENGLISH)}. Remove the line, and take another"
            " tender.",
        )
    if line.grant_text is None:
        return Reason(
            "no_grant",
            f"HQ locked the {name} without the right to conclude in {offline}. Remove the line,"
            " and take another tender.",
        )
    if line.grant_until is not None and now > line.grant_until:
        return Reason(
            "grant_ran_out",
            f"The right to conclude in {offline} ran out at"
            f" {line.grant_until.isoformat(timespec='minutes')}. Remove the line, and take another"
            " tender.",
        )
    return None


def _name(kind: str) -> str:
    return text(_KIND_TERMS[Kind(kind)], ENGLISH).lower()
