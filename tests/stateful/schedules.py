"""The two machines that play schedules, rule by rule."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from werkzeug.test import TestResponse

from tests.stateful.endings import Ending
from tests.stateful.stage import Stage, stopped_after
from tests.stateful.truth import START, Fate, JournalLine, Sale, Standing, StoreTill
from tests.support import KEYRING, Caller, Card

T = TypeVar("T")

TILLS_COUNT = 3
NEW_CARDS_MAX = 2
BALANCES = {"gift_card": (100, 60, 40, 25), "credit_memo": (100, 80, 50)}
JUMPS_SECONDS = (20, 600, 1_200, 10_800, 300_000)

LOCK_REFUSALS = frozenset(
    """instrument_locked instrument_already_in_transaction instrument_not_active
    instrument_already_active instrument_applied operation_not_allowed already_concluded""".split()
)
CONCLUSION_REFUSALS = frozenset(
    """lock_lost insufficient_balance held business_key_reused unknown_original
    refund_exceeds_original instrument_applied""".split()
)
RESOLUTION_REFUSALS = frozenset({"resolution_not_possible", "instrument_locked"})

TILLS = st.integers(0, TILLS_COUNT - 1)
PICKS = st.integers(0, 50)
SHARES = st.sampled_from([100, 50, 30, 1])
FATES = st.sampled_from([*[Fate.DELIVERED] * 3, Fate.ANSWER_LOST, Fate.REQUEST_LOST])
PURPOSES = (*["redeem"] * 6, "load", "load", "issue", "issue", "refund", "refund")
VOIDS = ("online", "void line", "voided sale")
PARTS = ("all", "all", "some", "the newest")
ODDITIES = ("another currency", "unknown card", "same lock twice", "training", "sequence again")
PARTIAL_USES = ("reissue", "retain", "forfeit")

# How often what is tried; what is not possible at the moment becomes a lock.
HONEST = {
    "lock": 6,
    "ask_again": 2,
    "release": 1,
    "conclude_online": 5,
    "conclude_several": 3,
    "conclude_offline": 5,
    "void": 2,
    "post_batch": 5,
    "post_again": 1,
    "time_passes": 3,
    "change_the_parameters": 2,
}
CARELESS = {
    **HONEST,
    "conclude_offline_anyway": 4,
    "write_an_odd_line": 1,
    "break_a_lock": 2,
    "resolve_a_case": 5,
    "change_more_parameters": 1,
}


def weighted(weights: Mapping[str, int]) -> st.SearchStrategy[str]:
    return st.sampled_from([what for what, weight in weights.items() for _ in range(weight)])


@dataclass(frozen=True)
class Chance:
    """What is drawn for one step; each kind of step takes what it needs."""

    till: int
    pick: int
    share: int
    fate: Fate
    is_so: bool
    order: int

    def of(self, choices: Sequence[T]) -> T:
        return choices[self.pick % len(choices)]

    def other_of(self, choices: Sequence[T]) -> T:
        return choices[self.order % len(choices)]


CHANCES = st.builds(
    Chance,
    till=TILLS,
    pick=PICKS,
    share=SHARES,
    fate=FATES,
    is_so=st.booleans(),
    order=st.integers(0, 11),
)


@dataclass
class Posted:
    """A batch that was sent, whether or not it was answered."""

    batch_id: str
    lines: list[JournalLine]
    results: list[dict[str, Any]] | None = None


class Schedule(RuleBasedStateMachine):
    """What honest tills do: they conclude offline what was granted, and nothing else."""

    stage: ClassVar[Stage]
    is_honest = True

    def __init__(self) -> None:
        super().__init__()
        self.is_open = False
        self.is_whole = True
        self.stage.started += 1
        self.stage.played = self
        self.stage.clock.instant = START
        self.batches: list[Posted] = []
        self.under_own_keys: set[str] = set()
        self.opening: dict[str, Any] = {}
        self.steps: list[tuple[str, Chance]] = []
        self.story: list[str] = []

    @rule(what=weighted(HONEST), chance=CHANCES)
    def step(self, what: str, chance: Chance) -> None:
        """Let something happen; where that is not possible now, somebody locks a card."""
        self.steps.append((what, chance))
        happened = getattr(self, what)(chance)
        if happened is False:
            self.lock(chance)

    # The store.

    @initialize()
    def open_the_store(self) -> None:
        # The third till gets no grants before it fetches the parameters: its locks lapse.
        self.open_with({0, 1}, is_allowed=True)

    def open_with(self, aware: set[int], is_allowed: bool) -> None:
        self.opening = {"aware": aware, "is_allowed": is_allowed}
        self.allow(is_allowed, on_horizon="sticky", credit_memo_partial_use="reissue")
        self.tills: list[StoreTill]
        self.sync: Caller
        self.cards: list[Card]
        self.tills, self.sync, self.cards = self.stage.open_store(TILLS_COUNT, BALANCES)
        self.store_id = self.tills[0].caller.store_id
        for place in sorted(aware):
            self.fetch_parameters(self.tills[place])
        self.is_open = True

    def allow(self, is_allowed: bool, **more: Any) -> None:
        self.stage.set_parameters(
            allow_concluding_gift_card_transactions_offline=is_allowed,
            allow_concluding_credit_memo_transactions_offline=is_allowed,
            **more,
        )

    def fetch_parameters(self, till: StoreTill) -> None:
        assert till.caller.get("/v1/parameters").status_code == 200
        self.say(f"{till.name} fetches the parameters")

    @property
    def connection(self) -> psycopg.Connection[Any]:
        return self.stage.connection

    @property
    def sales(self) -> list[Sale]:
        return [sale for till in self.tills for sale in till.sales]

    def those(self, *standings: Standing) -> list[Sale]:
        return [sale for sale in self.sales if sale.standing in standings and not sale.is_voided]

    def say(self, sentence: str) -> None:
        self.story.append(f"{self.stage.clock.instant:%d %H:%M:%S}  {sentence}")

    def count(self, what: str, is_so: object = True) -> None:
        if is_so:
            self.stage.seen[what] += 1

    def send(self, fate: Fate, what: str, call: Callable[[], TestResponse]) -> TestResponse | None:
        """Send a message to HQ; return the answer unless one of the two is lost."""
        self.is_whole = False
        self.stage.clock.go_on()
        if fate is Fate.REQUEST_LOST:
            self.say(f"{what}: {fate}")
            return None
        answer = call()
        code = answer.json.get("code", "") if answer.json else ""
        self.say(f"{what}: {answer.status_code} {code} {fate}")
        assert answer.status_code < 500 or code == "unavailable", answer.json
        return answer if fate is Fate.DELIVERED else None

    @invariant()
    def was_a_whole_step(self) -> None:
        self.is_whole = True

    # Locks.

    def lock(self, chance: Chance) -> None:
        purpose, amount_minor = chance.other_of(PURPOSES), chance.share
        sold = self.those(Standing.SOLD, Standing.SOLD_OFFLINE)
        sold = [sale for sale in sold if sale.is_debit and sale.card.currency == "SEK"]
        if purpose == "refund" and not sold:
            purpose = "redeem"
        cards = self.cards
        if purpose == "issue":
            cards = [Card(kind, "", "", "SEK") for kind in BALANCES]
        elif purpose != "redeem":
            cards = [card for card in self.cards if card.kind == "gift_card"]
        original = chance.of(sold) if purpose == "refund" else None
        if original is not None:
            amount_minor = max(1, original.amount_minor * chance.share // 100)
        sale = self.tills[chance.till].open_sale(
            chance.of(cards), purpose, amount_minor, joins=chance.is_so
        )
        sale.wants_new_number = purpose == "issue"
        sale.original = original
        self.ask(sale, chance.fate)

    def ask_again(self, chance: Chance) -> bool:
        asked = self.those(Standing.ASKED)
        if asked:
            self.ask(chance.of(asked), chance.fate)
        return bool(asked)

    def ask(self, sale: Sale, fate: Fate) -> None:
        before = self.holder_of(sale)
        what = f"{sale} locks {sale.card.kind} {sale.card.number} to {sale.operation}"
        call = sale.till.caller.post
        answer = self.send(fate, what, lambda: call("/v1/locks", sale.lock_request()))
        if answer is None:
            return
        if answer.status_code in (200, 201):
            sale.take_lock(answer.json)
            is_new = answer.status_code == 201
            self.count("a lapsed lock is taken over", is_new and before is not None)
            return
        assert answer.json["code"] in LOCK_REFUSALS, answer.json
        self.count("a suspect lock refuses", answer.json.get("holder", {}).get("presumed_offline"))
        sale.standing = Standing.GIVEN_UP

    def holder_of(self, sale: Sale) -> Any:
        if not sale.card.instrument_id:
            return None
        query = "SELECT lock_id FROM instruments WHERE instrument_id = %s AND lock_id IS NOT NULL"
        return self.connection.execute(query, [sale.card.instrument_id]).fetchone()

    def release(self, chance: Chance) -> bool:
        locked = self.those(Standing.LOCKED)
        if locked:
            self.give_up(chance.of(locked), chance.fate, in_journal=chance.is_so)
        return bool(locked)

    def give_up(self, sale: Sale, fate: Fate, *, in_journal: bool) -> None:
        sale.standing = Standing.GIVEN_UP
        if in_journal:
            sale.release_line(self.stage.clock.instant)
            self.say(f"{sale} is released in the journal")
            return
        body = {**sale.key, "instrument_id": sale.instrument_id, "lock_id": sale.lock_id}
        call = sale.till.caller.post
        answer = self.send(fate, f"{sale} is released", lambda: call("/v1/releases", body))
        sale.is_release_owed = answer is None
        assert answer is None or answer.status_code == 200 or answer.json["code"] == "lock_lost"

    # Conclusions.

    def conclude_online(self, chance: Chance) -> bool:
        ready = self.those(Standing.LOCKED, Standing.DOUBTFUL, Standing.SOLD)
        if ready:
            sale = chance.of(ready)
            self.settle_amount(sale, chance.share)
            self.conclude(sale, chance.fate)
        return bool(ready)

    def settle_amount(self, sale: Sale, share: int) -> None:
        """Decide what a debit comes to, the first time that it is concluded."""
        if sale.standing is Standing.LOCKED and sale.is_debit and not sale.sent:
            sale.amount_minor = max(1, sale.max_amount_minor * share // 100)

    def conclude(self, sale: Sale, fate: Fate) -> None:
        if sale.operation == "redeem":
            path, body = "/v1/redemptions", {**sale.key, **sale.online_line()}
            del body["operation"]
        else:
            path, body = "/v1/transactions", {**sale.key, "lines": [sale.online_line()]}
            del body["line"]
        answer = self.send_conclusion([sale], path, body, fate)
        if answer is None:
            return
        if answer.status_code in (200, 201):
            self.sell(sale, answer.json["lines"][0] if "lines" in answer.json else answer.json)
            return
        assert answer.json["code"] in CONCLUSION_REFUSALS, answer.json
        assert not sale.is_concluded_at_hq, answer.json
        is_covered = sale.grant is not None and sale.amount_minor <= sale.max_amount_minor
        is_refund = sale.operation == "refund"
        assert not self.is_honest or not is_covered or is_refund, answer.json
        sale.standing = Standing.REFUSED

    def conclude_several(self, chance: Chance) -> bool:
        """Conclude every line of a transaction at once, all or none."""
        ready = self.several_lines()
        if not ready:
            return False
        lines = chance.of(ready)
        for sale in lines:
            self.settle_amount(sale, chance.share)
        body = {**lines[0].key, "lines": [sale.online_line() for sale in lines]}
        del body["line"]
        answer = self.send_conclusion(lines, "/v1/transactions", body, chance.fate)
        if answer is None:
            return True
        if answer.status_code not in (200, 201):
            assert answer.json["code"] in CONCLUSION_REFUSALS, answer.json
            return True
        self.count("a sale with several lines")
        for place, sale in enumerate(lines):
            self.sell(sale, answer.json["lines"][place])
        return True

    def several_lines(self) -> list[list[Sale]]:
        """Return the transactions with several lines to conclude, each on a card of its own."""
        transactions: dict[tuple[str, str], dict[str, Sale]] = {}
        for sale in self.those(Standing.LOCKED, Standing.DOUBTFUL, Standing.SOLD):
            transactions.setdefault(sale.place[:2], {})[sale.instrument_id] = sale
        return [list(lines.values()) for lines in transactions.values() if len(lines) > 1]

    def send_conclusion(
        self, sales: list[Sale], path: str, body: dict[str, Any], fate: Fate
    ) -> TestResponse | None:
        caller = sales[0].till.caller
        for sale in sales:
            if fate is not Fate.REQUEST_LOST:
                sale.sent.append(sale.content)

        def call() -> TestResponse:
            answer = caller.post(path, body)
            self.count("a conclusion is told again", answer.status_code == 200)
            for sale in sales:
                sale.is_concluded_at_hq |= answer.status_code in (200, 201)
            return answer

        lines = " and ".join(f"{sale} {sale.operation} {sale.amount_minor}" for sale in sales)
        answer = self.send(fate, f"concluding {lines}", call)
        for sale in sales:
            if answer is None and sale.standing is Standing.LOCKED:
                sale.standing = Standing.DOUBTFUL
        return answer

    def sell(self, sale: Sale, told: dict[str, Any]) -> None:
        sale.standing = Standing.SOLD
        told = {name: told[name] for name in ("balance_after_minor", "remainder")}
        assert sale.told in (None, told)
        sale.told = told
        self.count("a remainder memo", told["remainder"] is not None)
        self.count("a linked refund", sale.original is not None)
        is_known = any(card.instrument_id == sale.instrument_id for card in self.cards)
        if sale.operation == "issue" and not is_known:
            self.count("a card is issued")
            if len(self.cards) < sum(map(len, BALANCES.values())) + NEW_CARDS_MAX:
                self.cards.append(sale.card)

    def conclude_offline(self, chance: Chance) -> bool:
        granted = self.granted()
        if granted:
            sale = chance.of(granted)
            self.settle_amount(sale, chance.share)
            if not sale.is_debit or sale.amount_minor <= sale.max_amount_minor:
                self.sell_offline(sale)
        return bool(granted)

    def granted(self) -> list[Sale]:
        open_sales = self.those(Standing.LOCKED, Standing.DOUBTFUL)
        return [sale for sale in open_sales if sale.grant is not None]

    def sell_offline(self, sale: Sale) -> JournalLine:
        sale.standing = Standing.SOLD_OFFLINE
        line = sale.offline_line(self.stage.clock.instant)
        self.say(f"{sale} concludes {sale.operation} of {sale.amount_minor} offline")
        return line

    # Voids.

    def void(self, chance: Chance) -> bool:
        voidable = self.voidable()
        if voidable:
            self.take_back(chance.of(voidable), chance.other_of(VOIDS), chance.fate)
        return bool(voidable)

    def voidable(self) -> list[Sale]:
        """Return what may be voided; honest tills never take back what may be spent by now."""
        found = [
            sale
            for sale in self.sales
            if sale.standing is not Standing.GIVEN_UP
            and sale.instrument_id
            and not sale.is_absorbed
            and (not sale.is_voided or sale.is_void_owed)
        ]
        safe = (Standing.ASKED, Standing.LOCKED, Standing.REFUSED)
        if self.is_honest:
            found = [sale for sale in found if sale.is_debit or sale.standing in safe]
        return found

    def take_back(self, sale: Sale, how: str, fate: Fate) -> None:
        sale.is_voided = True
        if how == "online":
            body = {**sale.key, "instrument_id": sale.instrument_id, "reason": "changed their mind"}
            call = sale.till.caller.post
            answer = self.send(fate, f"{sale} is voided", lambda: call("/v1/voids", body))
            assert answer is None or answer.status_code in (200, 201), answer.json
            sale.is_void_owed = answer is None
            return
        if how == "voided sale":
            sale.offline_line(self.stage.clock.instant)["status"] = "voided"
        else:
            sale.void_line(self.stage.clock.instant)
        sale.is_void_owed = False
        self.say(f"{sale} is voided in the journal, as a {how}")

    # Batches.

    def post_batch(self, chance: Chance) -> bool:
        """Post what some or all tills have pending: all, a part, in order or shuffled."""
        tills = [self.tills[chance.till]] if chance.is_so else self.tills
        lines = [line for till in tills for line in till.pending]
        part, order = chance.of(PARTS), random.Random(chance.order)
        if part == "some":
            lines = [line for line in lines if order.random() < 0.6]
        elif part == "the newest":
            lines = lines[-2:]
        if chance.order % 3:
            order.shuffle(lines)
        if lines:
            stops_after = chance.order - 8 if chance.order >= 8 else None
            self.post(lines, chance.fate, stops_after=stops_after)
        return bool(lines)

    def post_again(self, chance: Chance) -> bool:
        if self.batches:
            again = chance.of(self.batches)
            self.post(again.lines, chance.fate, again=again if chance.is_so else None)
        return bool(self.batches)

    def post(
        self,
        lines: list[JournalLine],
        fate: Fate,
        *,
        again: Posted | None = None,
        stops_after: int | None = None,
    ) -> None:
        batch = again or Posted(f"B{len(self.batches) + 1}", lines)
        if again is None:
            self.batches.append(batch)
        body = {"store_id": self.store_id, "batch_id": batch.batch_id, "lines": lines}
        what = f"batch {batch.batch_id} [{', '.join(self.told_of(line) for line in lines)}]"
        if stops_after is not None:
            what += f", HQ stops after {stops_after} chunks"
        with stopped_after(stops_after):
            answer = self.send(fate, what, lambda: self.sync.post("/v1/offline-batches", body))
        if fate is not Fate.REQUEST_LOST:
            for line in lines:
                self.till_of(line).arrived.add(line["sequence"])
        if answer is not None and answer.status_code == 503:
            self.count("HQ stops between two chunks")
        elif answer is not None:
            self.read_results(batch, answer.json)

    def told_of(self, line: JournalLine) -> str:
        status = f" {line['status']}" if "status" in line else ""
        sale = f"{line['transaction_id']}/{line['line']}"
        name = self.till_of(line).name
        return f"{name} #{line['sequence']} {line['operation']}{status} {sale}"

    def till_of(self, named: dict[str, Any]) -> StoreTill:
        terminal_id = named["terminal_id"]
        return next(till for till in self.tills if till.caller.terminal_id == terminal_id)

    def read_results(self, batch: Posted, answer: dict[str, Any]) -> None:
        results = answer["results"]
        assert len(results) == len(batch.lines)
        assert batch.results in (None, results)
        batch.results = results
        for journal in answer["journals"]:
            till = self.till_of(journal)
            assert journal["acknowledged_through"] == till.contiguous()
            till.acknowledged_through = journal["acknowledged_through"]
        for line, result in zip(batch.lines, results, strict=True):
            self.read_result(line, result)

    def read_result(self, line: JournalLine, result: dict[str, Any]) -> None:
        outcome, codes = result["outcome"], result["codes"]
        assert outcome in ("applied", "duplicate", "held"), (line, result)
        is_sale = line["operation"] not in ("void", "release") and "status" not in line
        is_applied = outcome == "applied" and is_sale
        self.count("a shortfall", outcome == "applied" and result["shortfall_minor"] > 0)
        self.count("a held line", outcome == "held")
        self.count("the late batch of a broken lock", is_applied and "lock_broken" in codes)
        self.count("a void arrives before its line", is_applied and codes == ["voided"])
        self.count("a remainder memo", is_applied and result["remainder_id"] is not None)
        for code in codes:
            self.count(f"code {code}")
        self.count("a linked refund", is_applied and "original" in line)
        sale = self.sale_of(line)
        if outcome == "duplicate" and is_sale and sale is not None:
            self.count("a batch repeats what was concluded online", sale.is_concluded_at_hq)

    def sale_of(self, named: dict[str, Any]) -> Sale | None:
        place = (named["terminal_id"], named["transaction_id"], named["line"])
        return next((sale for sale in self.sales if sale.place == place), None)

    # Time and parameters.

    def time_passes(self, chance: Chance) -> None:
        self.stage.clock.go_on(chance.other_of(JUMPS_SECONDS))
        self.say("time has passed")

    def change_the_parameters(self, chance: Chance) -> None:
        """An administrator says Yes or No, or a till fetches what was said."""
        if chance.order % 2:
            self.allow(chance.is_so)
            self.say(f"concluding offline is {'allowed' if chance.is_so else 'not allowed'} now")
        self.fetch_parameters(self.tills[chance.till])

    # The end.

    def teardown(self) -> None:
        if self.is_open and self.is_whole:
            self.come_back()
            Ending(self).check()
            self.stage.ended += 1

    def come_back(self) -> None:
        """All tills come back, finish what they have begun, and post everything, twice."""
        self.say("all tills come back")
        for sale in self.sales:
            self.finish(sale)
        everything = [line for till in self.tills for line in till.journal]
        if not everything:
            return
        random.Random(len(everything)).shuffle(everything)
        half = len(everything) // 2
        for lines in (everything[:half], everything[half:], everything):
            if lines:
                self.post(lines, Fate.DELIVERED)
        for till in self.tills:
            assert till.acknowledged_through == till.caller.sequence

    def finish(self, sale: Sale) -> None:
        if sale.is_voided:
            if sale.is_void_owed:
                self.take_back(sale, "void line", Fate.DELIVERED)
            return
        if sale.is_release_owed:
            sale.release_line(self.stage.clock.instant)
        elif sale.standing is Standing.DOUBTFUL:
            self.conclude(sale, Fate.DELIVERED)
        elif sale.standing is Standing.ASKED:
            self.ask(sale, Fate.DELIVERED)
        if sale.standing in (Standing.LOCKED, Standing.REFUSED) and sale.lock_id:
            self.give_up(sale, Fate.DELIVERED, in_journal=False)


class CarelessSchedule(Schedule):
    """Everybody makes mistakes: sales without a lock, broken locks, changed amounts, odd lines."""

    is_honest = False

    @initialize(aware=st.sets(TILLS), is_allowed=st.booleans())
    def open_the_store(self, aware: set[int], is_allowed: bool) -> None:
        self.open_with(aware, is_allowed)

    @rule(what=weighted(CARELESS), chance=CHANCES)
    def step(self, what: str, chance: Chance) -> None:
        super().step(what, chance)

    def conclude_offline_anyway(self, chance: Chance) -> bool:
        """Conclude without a grant, above it, after a refusal, or with another amount."""
        careless = self.careless()
        if careless:
            sale = chance.of(careless)
            if chance.is_so or not sale.sent:
                sale.amount_minor = chance.share
            self.sell_offline(sale)
        return bool(careless)

    def careless(self) -> list[Sale]:
        open_sales = self.those(
            Standing.ASKED, Standing.LOCKED, Standing.DOUBTFUL, Standing.REFUSED
        )
        return [sale for sale in open_sales if sale.instrument_id]

    def write_an_odd_line(self, chance: Chance) -> None:
        own, what = self.tills[chance.till], chance.other_of(ODDITIES)
        wanted = chance.of(self.cards)
        if what == "another currency":
            wanted = Card(wanted.kind, wanted.number, wanted.instrument_id, "EUR")
        elif what == "unknown card":
            never = KEYRING.instrument_id("gift_card", f"7007{chance.pick:012d}")
            wanted = Card("gift_card", "", str(never), "SEK")
        granted = [sale for sale in own.sales if sale.grant is not None]
        twice = granted[-1] if what == "same lock twice" and granted else None
        sale = own.open_sale(twice.card if twice else wanted, "redeem", chance.share, joins=False)
        if twice:
            sale.instrument_id, sale.grant = twice.instrument_id, twice.grant
            sale.lock_id = twice.lock_id
        line = self.sell_offline(sale)
        self.say(f"{sale}: {what}")
        if what == "training":
            line["status"] = what
            sale.standing = Standing.GIVEN_UP
        if what == "sequence again" and line["sequence"] > 1:
            line["sequence"] -= 1
            own.caller.sequence -= 1

    def break_a_lock(self, chance: Chance) -> bool:
        held = self.those(Standing.LOCKED, Standing.SOLD_OFFLINE)
        if not held:
            return False
        instrument_id = chance.of(held).instrument_id
        admin = self.stage.hq.admin
        shown = admin.get(f"/v1/admin/locks/{instrument_id}")
        if shown.status_code == 404:
            return False
        wish = {
            "instrument_id": instrument_id,
            "lock_id": shown.json["lock_id"],
            "accepted_exposure_minor": shown.json["exposure_minor"],
            "reason": "the customer waits",
        }
        holder = f"{shown.json['terminal_id']} {shown.json['transaction_id']}"
        call = admin.post
        answer = self.send(
            Fate.DELIVERED,
            f"the lock of {holder} is broken",
            lambda: call("/v1/admin/lock-breaks", wish),
        )
        assert answer is not None
        assert answer.status_code == 201, answer.json
        return True

    def resolve_a_case(self, chance: Chance) -> bool:
        admin = self.stage.hq.admin
        found = admin.get(f"/v1/admin/cases?store_id={self.store_id}").json["cases"]
        if not found:
            return False
        # Case ids are hashes of ids that differ from run to run: in an order of our own.
        found.sort(key=lambda case: (str(case["transaction_id"]), str(case)))
        case = chance.of(found)
        possible = case["possible_resolutions"]
        if case["case_id"] in self.under_own_keys:
            possible = [one for one in possible if one != "confirm_duplicate"]
        likely = [one for one in possible if one in ("apply", "recover")]
        resolution = chance.other_of(possible + likely)
        path = f"/v1/admin/cases/{case['case_id']}/resolutions"
        wish = {"resolution": resolution, "reason": "looked into it"}
        named = f"{case['terminal_id']} {case['transaction_id']}/{case['line']}"
        what = f"the {case['outcome']} case {case['codes']} of {named} is resolved: {resolution}"
        answer = self.send(Fate.DELIVERED, what, lambda: admin.post(path, wish))
        assert answer is not None
        if answer.status_code != 200:
            assert answer.json["code"] in RESOLUTION_REFUSALS, answer.json
            return True
        self.count("a case is resolved", answer.json["resolution"] is not None)
        self.count(f"resolved by {resolution}")
        sale = self.sale_of(case) if case["transaction_id"] else None
        if sale and resolution == "confirm_duplicate" and case["outcome"] == "applied":
            sale.is_reversed_by_hq = True
        if sale and resolution == "absorb":
            sale.is_absorbed = True
        if sale and resolution == "apply" and "business_key_reused" in case["codes"]:
            self.under_own_keys.add(case["case_id"])
        return True

    def change_more_parameters(self, chance: Chance) -> None:
        on_horizon = "release" if chance.is_so else "sticky"
        partial_use = chance.other_of(PARTIAL_USES)
        self.stage.set_parameters(on_horizon=on_horizon, credit_memo_partial_use=partial_use)
        self.say(f"on_horizon is {on_horizon}, partial use of memos is {partial_use} now")
