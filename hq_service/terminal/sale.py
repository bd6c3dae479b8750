"""A sale at the till: its lines are locked when they are added, and concluded together.

Every step is in the till's store before it is sent, so a repeat has the same business key and the
same content, whatever happened in between: a lost answer, an outage, the end of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hq_service.domain.model import BusinessKey, Kind, Operation, Purpose, Tender
from hq_service.domain.numbers import mask
from hq_service.terminal import offline_rules
from hq_service.terminal.client import Answer
from hq_service.terminal.link import Link
from hq_service.terminal.refusals import NotPossible, Reason, Refused
from hq_service.terminal.setup import Setup
from hq_service.terminal.store import (
    UNFINISHED,
    JournalEntry,
    LineState,
    SaleState,
    StoredLine,
    StoredSale,
    TillStore,
    journal_entry,
)

VOID_REASON = "voided at the till"
LINES_MAX = 100
"""As many lines as HQ concludes at once."""


@dataclass(frozen=True, slots=True)
class Added:
    """A line that is in the sale: its instrument is locked for it.

    ``made_number`` is the number that HQ made for an issue, to be printed: the till keeps it
    nowhere. ``may_conclude_offline`` as things are now.
    """

    line: int
    operation: str
    kind: str
    number_last4: str | None
    currency: str
    amount_minor: int | None
    max_amount_minor: int
    may_conclude_offline: bool
    made_number: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    """A concluded line; the balance is not known offline.

    ``remainder_number`` is what is left of a used credit memo, ``made_number`` what HQ made for an
    issue: both to be printed, and kept nowhere. HQ tells the first again whenever the receipt is
    asked for again, the second only as long as the sale is not concluded.
    """

    line: int
    operation: str
    number_last4: str | None
    amount_minor: int
    currency: str
    balance_after_minor: int | None = None
    remainder_number: str | None = field(default=None, repr=False)
    made_number: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A concluded sale."""

    transaction_id: str
    is_offline: bool
    concluded_at: datetime
    lines: tuple[ReceiptLine, ...]


@dataclass(frozen=True, slots=True)
class Counter:
    """What a sale works with: the till's store, its connection, its copies and its clock."""

    store: TillStore
    link: Link
    setup: Setup
    clock: Callable[[], datetime]


class Sale:
    """One transaction. Not for several threads at once.

    sale.redeem("gift_card", number, 150_00); sale.conclude()
    """

    def __init__(self, stored: StoredSale, counter: Counter) -> None:
        self._sale = stored
        self._counter = counter
        self._made_numbers: dict[int, str] = {}

    @property
    def transaction_id(self) -> str:
        """Return the name that HQ knows the sale by."""
        return self._sale.transaction_id

    @property
    def state(self) -> SaleState:
        """Return how far the till has come with it."""
        return self._sale.state

    @property
    def lines(self) -> Sequence[Added]:
        """Return the lines that are in the sale."""
        return [self._shown(line) for line in self._active()]

    # --- adding lines ---------------------------------------------------------------------------

    def redeem(self, kind: str, number: str, amount_minor: int | None = None) -> Added:
        """Pay with a gift card or a credit memo: lock it, the amount may follow."""
        return self._add(Purpose.REDEEM, kind, number, amount_minor=amount_minor)

    def cash_out(self, number: str) -> Added:
        """Pay out the whole balance of a gift card."""
        line = self._add(Purpose.CASH_OUT, Kind.GIFT_CARD, number)
        return self.set_amount(line.line, line.max_amount_minor)

    def load(self, number: str, amount_minor: int) -> Added:
        """Put money on a gift card."""
        asked = {"amount_minor": amount_minor}
        return self._add(Purpose.LOAD, Kind.GIFT_CARD, number, asked, amount_minor=amount_minor)

    def refund(
        self,
        number: str,
        amount_minor: int,
        *,
        original: BusinessKey | None = None,
        reason: str | None = None,
    ) -> Added:
        """Give money back to a gift card: of the line that took it, or with a reason."""
        if original is None and not reason:
            raise NotPossible(
                "refund_without_reason", "A refund names the line that it gives back, or a reason."
            )
        asked = {"amount_minor": amount_minor}
        return self._add(
            Purpose.REFUND,
            Kind.GIFT_CARD,
            number,
            asked,
            amount_minor=amount_minor,
            original=original,
            reason=mask(reason) if reason else None,
        )

    def issue(
        self, kind: str, amount_minor: int, currency: str, number: str | None = None
    ) -> Added:
        """Issue a new gift card or credit memo; without a number HQ makes one."""
        asked = {"amount_minor": amount_minor, "currency": currency}
        return self._add(Purpose.ISSUE, kind, number, asked, amount_minor=amount_minor)

    def _add(
        self,
        purpose: Purpose,
        kind: str,
        number: str | None,
        asked: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Added:
        self._require(SaleState.OPEN)
        if not self._counter.link.is_online:
            raise offline_rules.nothing_starts_offline(kind)
        if len(self._active()) >= LINES_MAX:
            raise NotPossible("too_many_lines", f"A sale has at most {LINES_MAX} such lines.")
        line = StoredLine(
            self.transaction_id,
            1 + max((one.line for one in self._sale.lines), default=0),
            Operation(purpose),
            Kind(kind),
            self._counter.clock(),
            **more,
        )
        self._sale.lines.append(line)
        self._counter.store.save_line(line)
        wish = {**self._key(line), "kind": line.kind, "purpose": purpose, **(asked or {})}
        if number is not None:
            wish["number"] = number
        came = self._counter.link.ask("POST", "/v1/locks", wish, transaction_id=self.transaction_id)
        if came.answer is None or came.answer.is_problem:
            self._give_up(line, is_void_owed=came.is_doubtful)
            if came.answer is None:
                raise offline_rules.lock_unanswered(kind)
            raise Refused(came.answer)
        self._take_lock(line, came.answer.body, is_doubtful=came.is_doubtful)
        self._counter.store.save_line(line)
        if line.operation == Operation.REDEEM and line.amount_minor is not None:
            self._keep_within_the_lock(line)
        return self._shown(line)

    def _keep_within_the_lock(self, line: StoredLine) -> None:
        """Take back an amount that was named before the till knew what is on the card."""
        amount_minor = line.amount_minor
        assert amount_minor is not None
        try:
            self._check_amount(line, amount_minor)
        except NotPossible:
            line.amount_minor = None
            self._counter.store.save_line(line)
            raise

    def _take_lock(self, line: StoredLine, told: Mapping[str, Any], *, is_doubtful: bool) -> None:
        instrument, offline = told["instrument"], told["offline"]
        line.state = LineState.LOCKED
        line.is_doubtful = is_doubtful
        line.lock_id = told["lock_id"]
        line.instrument_id = instrument["instrument_id"]
        line.number_last4 = instrument["number_last4"]
        line.currency = instrument["currency"]
        line.max_amount_minor = told["max_amount_minor"]
        line.grant_text = offline["grant"]
        line.grant_until = datetime.fromisoformat(offline["until"]) if offline["until"] else None
        if told["number"]:
            self._made_numbers[line.line] = told["number"]

    def _give_up(self, line: StoredLine, *, is_void_owed: bool) -> None:
        line.state = LineState.GIVEN_UP
        line.is_void_owed = is_void_owed
        self._counter.store.save_line(line)

    # --- changing lines -------------------------------------------------------------------------

    def set_amount(
        self, line_number: int, amount_minor: int, tender: Tender | None = None
    ) -> Added:
        """Say how much of an instrument is meant, no more than it is locked for."""
        line = self._line(line_number)
        self._require(SaleState.OPEN)
        if line.is_sent and line.amount_minor != amount_minor:
            raise NotPossible(
                "already_sent",
                f"Line {line_number} was sent to HQ, which may have concluded it: remove the line"
                " and add it again.",
            )
        self._check_amount(line, amount_minor)
        line.amount_minor, line.tender = amount_minor, tender
        self._counter.store.save_line(line)
        return self._shown(line)

    def remove(self, line_number: int) -> None:
        """Take a line out of the sale; its instrument is unlocked.

        Raises:  Refused when HQ says no, and then the line is still in the sale.
        """
        line = self._line(line_number)
        self._require(SaleState.OPEN, SaleState.CONCLUDING)
        self._undo(line)

    def _check_amount(self, line: StoredLine, amount_minor: int) -> None:
        if type(amount_minor) is not int or amount_minor < 1:
            raise NotPossible("no_amount", "An amount is a whole number of smallest units above 0.")
        assert line.max_amount_minor is not None  # it is locked
        if amount_minor > line.max_amount_minor:
            raise offline_rules.above_what_is_locked(line, amount_minor)

    # --- concluding -----------------------------------------------------------------------------

    def conclude(self) -> Receipt:
        """Conclude the sale: with HQ, or without it what was locked with the right to do so.

        When the connection is lost meanwhile, the till goes offline after a warning and concludes
        there what it may. Of a sale that is concluded already it is the receipt again, with what
        HQ tells by now.

        Raises:  NotPossible with the reason for each line that stands in the way; Refused with the
                 code of each refused line. The sale is open then: remove those lines, or void it.
        """
        if self.state in (SaleState.CONCLUDED, SaleState.CONCLUDED_OFFLINE):
            return self._receipt(self._ask_again())
        self._require(SaleState.OPEN, SaleState.CONCLUDING)
        self._finish_what_was_interrupted()
        lines = self._active()
        without = {
            line.line: Reason("no_amount", "It has no amount yet.")
            for line in lines
            if line.amount_minor is None
        }
        if without:
            raise NotPossible("no_amount", "Not every line has an amount.", without)
        if not lines:
            return self._concluded(SaleState.CONCLUDED, None)
        if self._counter.link.is_online:
            answer = self._conclude_online(lines)
            if answer is not None:
                return self._concluded(SaleState.CONCLUDED, answer)
        return self._conclude_offline(lines)

    def _finish_what_was_interrupted(self) -> None:
        """Finish lines in the middle of which the warning callback raised, say."""
        for line in self._with(LineState.ASKED):
            self._give_up(line, is_void_owed=True)
        for line in self._with(LineState.REMOVING):
            self._undo(line)

    def _conclude_online(self, lines: Sequence[StoredLine]) -> Answer | None:
        """Send the sale; None when the till is offline now.

        Raises:  Refused.
        """
        sent_before = [line.line for line in lines if line.is_sent]
        self._sale.state = SaleState.CONCLUDING
        for line in lines:
            line.is_sent = True
        self._counter.store.save_sale(self._sale)
        came = self._counter.link.ask(
            "POST", "/v1/transactions", self._body(lines), transaction_id=self.transaction_id
        )
        if came.answer is None or not came.answer.is_problem:
            return came.answer
        self._sale.state = SaleState.OPEN
        for line in lines:
            line.is_sent = came.is_doubtful or line.line in sent_before
        self._counter.store.save_sale(self._sale)
        raise Refused(came.answer, {place: line.line for place, line in enumerate(lines)})

    def _conclude_offline(self, lines: Sequence[StoredLine]) -> Receipt:
        now = self._counter.clock()
        reasons = {
            line.line: reason
            for line in lines
            if (reason := offline_rules.why_not_offline(line, self._counter.setup, now)) is not None
        }
        if reasons:
            self._sale.state = SaleState.OPEN
            self._counter.store.save_sale(self._sale)
            raise NotPossible(
                "cannot_conclude_offline", "The transaction cannot be concluded offline.", reasons
            )
        with self._counter.store.writing():
            self._counter.store.write(self._entry(line, now) for line in lines)
            return self._concluded(SaleState.CONCLUDED_OFFLINE, None)

    def _entry(self, line: StoredLine, now: datetime) -> JournalEntry:
        members: dict[str, Any] = {"lock_id": line.lock_id, "grant": line.grant_text}
        if self._counter.setup.revision is not None:
            members["parameter_revision"] = self._counter.setup.revision
        members |= _ground(line)
        if line.tender is not None:
            members["tender_amount_minor"] = line.tender.amount_minor
            members["tender_currency"] = line.tender.currency
            members["exchange_rate"] = line.tender.exchange_rate
        return journal_entry(line, Operation(line.operation), now, members)

    def _concluded(self, state: SaleState, answer: Answer | None) -> Receipt:
        self._sale.state = state
        self._sale.ended_at = self._counter.clock()
        told = _by_line(answer)
        for line in self._active():
            line.state = LineState.CONCLUDED
            line.balance_after_minor = told.get(line.line, {}).get("balance_after_minor")
        self._counter.store.save_sale(self._sale)
        return self._receipt(answer)

    def _ask_again(self) -> Answer | None:
        """Ask for the first answer again, which alone tells the number of a remainder."""
        lines = self._with(LineState.CONCLUDED)
        if not lines or (self.state is SaleState.CONCLUDED_OFFLINE and not self._is_settled(lines)):
            return None
        answer = self._counter.link.ask("POST", "/v1/transactions", self._body(lines)).answer
        return answer if answer is not None and not answer.is_problem else None

    def _is_settled(self, lines: Sequence[StoredLine]) -> bool:
        """Tell whether HQ has every line, so that asking for its answer can have no effect."""
        path = "/v1/transactions/{store_id}/{terminal_id}/{transaction_id}".format(**self._name())
        answer = self._counter.link.ask("GET", path).answer
        known = (answer.at("lines") if answer is not None else None) or ()
        applied = {one["line"] for one in known if one["outcome"] == "applied"}
        return applied >= {line.line for line in lines}

    def _receipt(self, answer: Answer | None) -> Receipt:
        assert self._sale.ended_at is not None
        told = _by_line(answer)
        return Receipt(
            self.transaction_id,
            self.state is SaleState.CONCLUDED_OFFLINE,
            self._sale.ended_at,
            tuple(
                self._receipt_line(line, told.get(line.line, {}))
                for line in self._with(LineState.CONCLUDED)
            ),
        )

    def _receipt_line(self, line: StoredLine, told: Mapping[str, Any]) -> ReceiptLine:
        return ReceiptLine(
            line.line,
            line.operation,
            line.number_last4,
            line.amount_minor or 0,
            line.currency or "",
            told.get("balance_after_minor", line.balance_after_minor),
            (told.get("remainder") or {}).get("number"),
            self._made_numbers.get(line.line),
        )

    # --- voiding --------------------------------------------------------------------------------

    def void(self) -> None:
        """Void the sale: open ones give their locks back, of concluded ones everything is undone.

        Raises:  Refused when HQ cannot undo a line; the sale is as it was then, but for the lines
                 that are undone already.
        """
        if self.state is SaleState.VOIDED:
            return
        before = self.state
        self._sale.state = SaleState.VOIDING
        self._counter.store.save_sale(self._sale)
        try:
            for line in self._sale.lines:
                if line.state in (LineState.LOCKED, LineState.REMOVING, LineState.CONCLUDED):
                    self._undo(line)
                elif line.state is LineState.ASKED:
                    self._give_up(line, is_void_owed=True)
        except Refused:
            self._sale.state = before
            self._counter.store.save_sale(self._sale)
            raise
        self._sale.state = SaleState.VOIDED
        self._sale.ended_at = self._counter.clock()
        self._counter.store.save_sale(self._sale)

    def _undo(self, line: StoredLine) -> None:
        """Release a line that HQ knows a lock of and no more; void one of which it may know more.

        A void holds in any order: what arrives later under the same key has no effect.
        """
        before = line.state
        is_void = line.is_doubtful or line.is_sent or line.state is LineState.CONCLUDED
        undone = LineState.VOIDED if line.state is LineState.CONCLUDED else LineState.REMOVED
        if line.state is not LineState.CONCLUDED:
            line.state = LineState.REMOVING
            self._counter.store.save_line(line)
        named = {"instrument_id": line.instrument_id}
        more = {"reason": VOID_REASON} if is_void else {"lock_id": line.lock_id}
        path = "/v1/voids" if is_void else "/v1/releases"
        came = self._counter.link.ask(
            "POST", path, {**self._key(line), **named, **more}, transaction_id=self.transaction_id
        )
        if came.answer is not None and came.answer.is_problem and not _is_gone(came.answer):
            line.state = before
            self._counter.store.save_line(line)
            raise Refused(came.answer)
        with self._counter.store.writing():
            if came.answer is None:
                operation = Operation.VOID if is_void else Operation.RELEASE
                now = self._counter.clock()
                self._counter.store.write([journal_entry(line, operation, now, more)])
            line.state = undone
            self._counter.store.save_line(line)

    # --- after a restart ------------------------------------------------------------------------

    def resume(self) -> None:
        """Go on after the process ended, by the locks that HQ says the till holds.

        A line of which no lock is known is given up: its number was nowhere but in the process.
        """
        came = self._counter.link.ask(
            "GET",
            f"/v1/locks?transaction_id={self.transaction_id}",
            transaction_id=self.transaction_id,
        )
        if came.answer is not None and came.answer.is_problem:
            raise Refused(came.answer)
        held = {one["line"]: one for one in (came.answer.at("locks") if came.answer else ())}
        for line in self._sale.lines:
            told = held.get(line.line)
            if line.state is LineState.ASKED and told is None:
                self._give_up(line, is_void_owed=True)
            elif line.state is LineState.ASKED and told is not None:
                self._take_lock(line, told, is_doubtful=True)
                self._counter.store.save_line(line)
            elif told is not None and told["number"]:
                self._made_numbers[line.line] = told["number"]
        for line in self._with(LineState.REMOVING):
            self._undo(line)
        if self.state is SaleState.VOIDING:
            self.void()

    # --- what it is made of ---------------------------------------------------------------------

    def _require(self, *states: SaleState) -> None:
        if self.state not in states:
            words = self.state.replace("_", " ")
            remedy = "conclude or void it" if self.state in UNFINISHED else "begin another one"
            raise NotPossible("not_open", f"The transaction is {words}: {remedy}.")

    def _active(self) -> list[StoredLine]:
        return self._with(LineState.LOCKED)

    def _with(self, state: LineState) -> list[StoredLine]:
        return [line for line in self._sale.lines if line.state is state]

    def _line(self, line_number: int) -> StoredLine:
        for line in self._active():
            if line.line == line_number:
                return line
        raise NotPossible("no_such_line", f"There is no line {line_number} in the transaction.")

    def _key(self, line: StoredLine) -> dict[str, Any]:
        return {**self._name(), "line": line.line}

    def _name(self) -> dict[str, str]:
        store = self._counter.store
        return {
            "store_id": store.store_id,
            "terminal_id": store.terminal_id,
            "transaction_id": self.transaction_id,
        }

    def _body(self, lines: Sequence[StoredLine]) -> dict[str, Any]:
        return {**self._name(), "lines": [_sale_line(line) for line in lines]}

    def _shown(self, line: StoredLine) -> Added:
        reason = offline_rules.why_not_offline(line, self._counter.setup, self._counter.clock())
        return Added(
            line.line,
            line.operation,
            line.kind,
            line.number_last4,
            line.currency or "",
            line.amount_minor,
            line.max_amount_minor or 0,
            reason is None,
            self._made_numbers.get(line.line),
        )


def _sale_line(line: StoredLine) -> dict[str, Any]:
    tender = {"tender": line.tender._asdict()} if line.tender is not None else {}
    return {
        "line": line.line,
        "operation": line.operation,
        "instrument_id": line.instrument_id,
        "lock_id": line.lock_id,
        "amount_minor": line.amount_minor,
        "currency": line.currency,
        **_ground(line),
        **tender,
    }


def _ground(line: StoredLine) -> dict[str, Any]:
    """Return what a refund is for."""
    original = {"original": line.original._asdict()} if line.original is not None else {}
    reason = {"reason": line.reason} if line.reason is not None else {}
    return original | reason


def _by_line(answer: Answer | None) -> dict[int, Mapping[str, Any]]:
    return {one["line"]: one for one in (answer.at("lines") if answer is not None else None) or ()}


def _is_gone(answer: Answer) -> bool:
    """Tell whether a release is refused because there is nothing to release any more."""
    return bool(answer.at("code") == "lock_lost")
