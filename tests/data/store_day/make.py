"""Make the files of one day of one store: instruments, events, batches and what is expected.

The day is simulated: stories (a sale, a sale that HQ answered into the void, a second till with
the same card, ...) start at random moments, look at the cards as they are then, and leave
events and offline records behind; at the end of each round the tills deliver their records.
The random numbers are seeded, so the files come out the same byte for byte.

    python tests/data/store_day/make.py            rewrites the files
    python tests/data/store_day/make.py --check    exits 1 if the files on disk differ
"""

import argparse
import datetime
import heapq
import json
import random
import sys
import uuid
from pathlib import Path

import model

FOLDER = Path(__file__).resolve().parent
SEED = 20261120

OPENS_AT = datetime.datetime(2026, 11, 20, 9, tzinfo=datetime.UTC)
SECOND = 1000
MINUTE = 60 * SECOND
ROUNDS = 12
ROUND_MINUTES = 50
# The last sale starts early enough to be concluded before the last round.
LAST_START_MINUTE = ROUNDS * ROUND_MINUTES - 10

TERMINALS = ("T01", "T02", "T03", "T04", "T05", "T06")
# Tills that do not reach HQ in a round; their records come with the next one.
ABSENT = {5: ("T04",), 6: ("T04",), 9: ("T02",)}
# Tills that lose their local store, at which minute, and whether the id of the new journal
# sorts before the old one: the ids are random, so HQ's order of settling may be either.
NEW_JOURNALS = (("T02", 130, True), ("T05", 330, False))
# Round -> after which round its batch comes once more, as it was.
POSTED_AGAIN = {3: 3, 6: 7, 9: 9, 10: 12}
# Round -> after which round its lines come once more, shuffled, under a new batch_id.
SENT_ANEW = {2: 3, 5: 6, 8: 8, 11: 12}

GIFT_CARDS = 390
CREDIT_MEMOS = 110
CREDIT_MEMO_SHARE = 0.035
CURRENCIES = ("SEK", "SEK", "SEK", "SEK", "EUR", "EUR", "JPY", "KWD")
# Opening balances in whole units of the currency, and how many smallest units are one unit.
OPENING_UNITS = {"SEK": (500, 8000), "EUR": (50, 800), "JPY": (5000, 90000), "KWD": (15, 250)}
MINOR_PER_UNIT = {"SEK": 100, "EUR": 100, "JPY": 1, "KWD": 1000}
# Without the letters and digits that people take for one another.
MEMO_LETTERS = "ABCDEFGHJKMNPQRSTVWXYZ"
MEMO_CHARACTERS = MEMO_LETTERS + "23456789"
# What a lock or a release says of a line.
IDENTITY = ("terminal_id", "transaction_id", "line", "kind", "number")


def new_number(rng, kind):
    """Return a random number: 16 digits for gift cards, 12 characters for credit memos."""
    if kind == "gift_card":
        return "6006" + "".join(rng.choice("0123456789") for _ in range(12))
    return rng.choice(MEMO_LETTERS) + "".join(rng.choice(MEMO_CHARACTERS) for _ in range(11))


def make_instruments(rng):
    """Return the instruments with their opening balances, in the order of their numbers."""
    kind_of_number = {}
    while len(kind_of_number) < GIFT_CARDS + CREDIT_MEMOS:
        kind = "gift_card" if len(kind_of_number) < GIFT_CARDS else "credit_memo"
        kind_of_number[new_number(rng, kind)] = kind
    instruments = []
    for number, kind in sorted(kind_of_number.items()):
        currency = rng.choice(CURRENCIES)
        units = rng.randint(*OPENING_UNITS[currency])
        amount_minor = units * MINOR_PER_UNIT[currency]
        if kind == "credit_memo":
            # Goods came back at odd prices, whereas gift cards are sold for round amounts.
            amount_minor += rng.randrange(MINOR_PER_UNIT[currency])
        instruments.append(
            {"kind": kind, "number": number, "currency": currency, "amount_minor": amount_minor}
        )
    return instruments


class Store:
    """The store during the day: an agenda of what happens next, the tills, and the model.

    Everything that happens is played to the model at once, so that a story can see which
    cards are free and what they are worth.
    """

    def __init__(self, rng, instruments):
        self.rng = rng
        self.day = model.open_day(instruments)
        self.agenda = []
        self.planned = 0
        self.now = 0
        self.events = []
        self.batches = {}
        self.file_of_round = {}
        self.transaction_ids = set()
        # Cards of stories that need them undisturbed, and cards spent behind HQ's back: an
        # ordinary online sale with one of these could be declined.
        self.set_aside = set()
        self.waiting = {terminal_id: [] for terminal_id in TERMINALS}
        self.delivered = []
        self.journal_ids = {}
        self.sequences = {}
        for terminal_id in TERMINALS:
            self.start_journal(terminal_id)

    # The agenda

    def plan(self, at, action, *arguments):
        """Let an action happen at a moment, in milliseconds since the store opened."""
        self.planned += 1  # keeps the order of planning for what happens at the same moment
        heapq.heappush(self.agenda, (at, self.planned, action, arguments))

    def run(self):
        """Let everything happen, the earliest first."""
        while self.agenda:
            self.now, _, action, arguments = heapq.heappop(self.agenda)
            action(*arguments)

    def soon(self, action, *arguments):
        """Plan an action for when the customer pays: within two minutes."""
        self.plan(self.now + self.rng.randint(20, 110) * SECOND, action, *arguments)

    def happen(self, event):
        """Write an event down and play it to the model. Returns: results of a batch's lines."""
        self.events.append(event)
        return model.play_event(self.day, event, self.batches)

    # Choosing cards

    def balance(self, number):
        """Return the balance at HQ now."""
        return model.balance_of(self.day["instruments"][number])

    def choose(self, condition):
        """Return a random number whose instrument meets a condition."""
        instruments = self.day["instruments"].items()
        return self.rng.choice([number for number, one in instruments if condition(number, one)])

    def is_free(self, number, instrument):
        """Tell whether a sale can lock this instrument now."""
        return (
            number not in self.set_aside
            and model.live_lock_of(instrument) is None
            and model.balance_of(instrument) > 0
        )

    def free(self, kind=None, currency=None):
        """Return a random free number, of one kind or in one currency if asked.

        Credit memos are rare if no kind is asked for: each is used once, and few are left over.
        """
        rare = "credit_memo" if self.rng.random() < CREDIT_MEMO_SHARE else "gift_card"
        return self.choose(
            lambda number, instrument: (
                instrument["kind"] == (kind or rare)
                and currency in (None, instrument["currency"])
                and self.is_free(number, instrument)
            )
        )

    def price(self, number):
        """Return an amount to redeem: all of a credit memo, most often a part of a gift card."""
        balance = self.balance(number)
        part = balance * self.rng.randint(3, 20) // 100
        uses_all = self.day["instruments"][number]["kind"] == "credit_memo"
        return balance if uses_all or part == 0 or self.rng.random() < 0.02 else part

    # The tills

    def start_journal(self, terminal_id):
        """Give a till an empty journal."""
        journal_id = uuid.UUID(int=self.rng.getrandbits(128), version=4)
        self.journal_ids[terminal_id] = str(journal_id)
        self.sequences[terminal_id] = 0

    def new_sale(self, other_than=None):
        """Return a new transaction: on a random till, or on any but a given one."""
        return self.new_sale_on(self.rng.choice([name for name in TERMINALS if name != other_than]))

    def new_sale_on(self, terminal_id):
        """Return a new transaction on a till."""
        milliseconds = int(OPENS_AT.timestamp()) * 1000 + self.now + self.rng.randrange(SECOND)
        while (transaction_id := f"S001-{terminal_id}-{milliseconds}") in self.transaction_ids:
            milliseconds += 1
        self.transaction_ids.add(transaction_id)
        return {"terminal_id": terminal_id, "transaction_id": transaction_id}

    def line(self, sale, number, amount_minor, line=1):
        """Return a line of a sale on an instrument."""
        instrument = self.day["instruments"][number]
        return {
            **sale,
            "line": line,
            "kind": instrument["kind"],
            "number": number,
            "amount_minor": amount_minor,
            "currency": instrument["currency"],
        }

    def lock(self, line, expect="granted"):
        """Ask HQ for the lock of a line."""
        identity = {name: line[name] for name in IDENTITY}
        self.happen({"type": "lock", **identity, "purpose": "redeem", "expect": expect})

    def release(self, line):
        """Give the lock of a line back."""
        self.happen({"type": "release", **{name: line[name] for name in IDENTITY}})

    def redeem(self, line):
        """Redeem a line online, for no more than is left."""
        line["amount_minor"] = min(line["amount_minor"], self.balance(line["number"]))
        self.happen({"type": "redeem", **line})

    def conclude_offline(self, *lines):
        """Keep lines in the journal of their till, for the next round."""
        for line in lines:
            terminal_id = line["terminal_id"]
            self.sequences[terminal_id] += 1
            concluded_at = OPENS_AT + datetime.timedelta(milliseconds=self.now)
            self.waiting[terminal_id].append(
                {
                    "terminal_id": terminal_id,
                    "journal_id": self.journal_ids[terminal_id],
                    "sequence": self.sequences[terminal_id],
                    "transaction_id": line["transaction_id"],
                    "line": line["line"],
                    "status": "concluded",
                    "operation": "redeem",
                    "kind": line["kind"],
                    "number": line["number"],
                    "amount_minor": line["amount_minor"],
                    "currency": line["currency"],
                    "concluded_at": concluded_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                }
            )

    # Delivering

    def deliver(self, round_number):
        """Send what the tills have kept, and whatever comes again after this round."""
        lines = []
        for terminal_id in TERMINALS:
            if terminal_id not in ABSENT.get(round_number, ()):
                # All of a till's journal, so that no sequence is ever missing.
                lines += self.waiting[terminal_id]
                self.waiting[terminal_id] = []
        again = self.rng.sample(lines, len(lines) // 40)
        if self.delivered:
            again += self.rng.sample(self.delivered, 6)
        self.delivered += lines
        lines = sorted(lines, key=lambda line: line["concluded_at"]) + again
        if round_number % 2 == 0:
            self.rng.shuffle(lines)
        self.file_of_round[round_number] = self.new_batch(lines)
        self.post(self.file_of_round[round_number])

        for first_round, after_round in SENT_ANEW.items():
            if after_round == round_number:
                lines = list(self.batches[self.file_of_round[first_round]]["lines"])
                self.rng.shuffle(lines)
                self.post(self.new_batch(lines))
        for first_round, after_round in POSTED_AGAIN.items():
            if after_round == round_number:
                self.post(self.file_of_round[first_round])

    def new_batch(self, lines):
        """Return the file name of a new batch of these lines."""
        ordinal = f"{len(self.batches) + 1:02d}"
        file = f"batches/{ordinal}.json"
        self.batches[file] = {
            "batch_id": f"S001-2026-11-20-{ordinal}",
            "store_id": model.STORE_ID,
            "lines": lines,
        }
        return file

    def post(self, file):
        """Post a batch and write down what the model says to it."""
        event = {"type": "batch", "file": file}
        event["expect_outcomes"] = model.count_outcomes(self.happen(event))


# The stories


def sale_offline(store):
    """The connection drops after the lock; the sale is concluded offline."""
    number = store.free()
    line = store.line(store.new_sale(), number, store.price(number))
    store.lock(line)
    store.soon(store.conclude_offline, line)


def lines_of_two_cards(store):
    """Return two locked lines of one sale, on two instruments in one currency."""
    sale = store.new_sale()
    first = store.free()
    line_1 = store.line(sale, first, store.price(first), line=1)
    store.lock(line_1)
    second = store.free(currency=line_1["currency"])
    line_2 = store.line(sale, second, store.price(second), line=2)
    store.lock(line_2)
    return line_1, line_2


def sale_offline_with_two_cards(store):
    """One sale is paid with two instruments and concluded offline."""
    store.soon(store.conclude_offline, *lines_of_two_cards(store))


def sale_cut_in_the_middle(store):
    """The connection drops between two redeems; the till concludes the whole sale offline."""

    def pay():
        store.redeem(line_1)
        store.conclude_offline(line_1, line_2)

    line_1, line_2 = lines_of_two_cards(store)
    store.soon(pay)


def sale_online(store):
    """A sale without any trouble."""
    number = store.free()
    line = store.line(store.new_sale(), number, store.price(number))
    store.lock(line)
    store.soon(store.redeem, line)


def sale_with_lost_answer(store):
    """HQ redeems but its answer is lost; the till concludes the sale offline as well."""

    def pay():
        store.redeem(line)
        store.conclude_offline(line)

    number = store.free()
    line = store.line(store.new_sale(), number, store.price(number))
    store.lock(line)
    store.soon(pay)


def sale_with_lost_answer_and_new_amount(store):
    """As with a lost answer, but the amount was changed before the sale was concluded."""

    def pay():
        store.redeem(line)
        store.conclude_offline({**line, "amount_minor": line["amount_minor"] + 1})

    number = store.free("gift_card")
    line = store.line(store.new_sale(), number, store.price(number))
    store.lock(line)
    store.soon(pay)


def change_of_mind(store):
    """The customer takes the card back before paying."""
    number = store.free()
    line = store.line(store.new_sale(), number, store.price(number))
    store.lock(line)
    store.soon(store.release, line)


def change_of_mind_twice(store):
    """The card is taken off the sale and added again, as a new line of the same sale."""

    def add_again():
        store.release(line)
        store.lock(line_again)
        store.soon(store.conclude_offline, line_again)

    number = store.free()
    line = store.line(store.new_sale(), number, store.price(number))
    line_again = {**line, "line": 2}
    store.lock(line)
    store.soon(add_again)


def abandoned_sale(store):
    """A sale is locked for and never heard of again."""
    number = store.free()
    store.lock(store.line(store.new_sale(), number, store.price(number)))


def second_till_is_refused(store):
    """A second till asks for the lock of a card that another transaction holds."""
    number = store.choose(
        lambda number, instrument: model.live_lock_of(instrument) and store.balance(number) > 0
    )
    holder = model.live_lock_of(store.day["instruments"][number])
    sale = store.new_sale(other_than=holder["terminal_id"])
    store.lock(store.line(sale, number, store.price(number)), expect="held_by_other")


def sale_above_the_lock(store):
    """The till redeems more than the card was worth when it was locked."""
    number = store.free("gift_card")
    balance = store.balance(number)
    too_much = balance + 1 + balance * store.rng.randint(0, 30) // 100
    line = store.line(store.new_sale(), number, too_much)
    store.lock(line)
    store.soon(store.conclude_offline, line)


def sale_after_release(store):
    """The lock is released online and yet the sale is concluded offline."""

    def release_and_conclude():
        store.release(line)
        store.soon(store.conclude_offline, line)

    number = store.free("gift_card")
    line = store.line(store.new_sale(), number, store.price(number))
    store.lock(line)
    store.soon(release_and_conclude)


def sale_after_release_and_spending(store):
    """As after a release, and another till has spent most of the card meanwhile."""

    def spend_and_conclude():
        store.release(line)
        other_line = store.line(store.new_sale(line["terminal_id"]), number, most)
        store.lock(other_line)
        store.redeem(other_line)
        store.soon(store.conclude_offline, line)

    number = store.free("gift_card")
    store.set_aside.add(number)
    most = max(1, store.balance(number) * 6 // 10)
    line = store.line(store.new_sale(), number, store.balance(number))
    store.lock(line)
    store.soon(spend_and_conclude)


def sale_after_release_and_new_lock(store):
    """As after a release, and another till holds the card when the record comes in."""

    def hand_over_and_conclude():
        store.release(line)
        store.lock(other_line)
        store.soon(store.conclude_offline, line)
        # Suspended and recalled: by then the record above has been delivered.
        store.plan(store.now + ROUND_MINUTES * MINUTE, store.conclude_offline, other_line)

    number = store.free("gift_card")
    line = store.line(store.new_sale(), number, store.price(number))
    other_line = store.line(store.new_sale(line["terminal_id"]), number, store.price(number))
    store.lock(line)
    store.soon(hand_over_and_conclude)


def sale_without_lock(store):
    """A till takes a card that it never locked."""
    number = store.free("gift_card")
    store.set_aside.add(number)
    store.conclude_offline(store.line(store.new_sale(), number, store.price(number)))


def memo_without_lock(store):
    """A till takes a credit memo that it never locked."""
    number = store.free("credit_memo")
    store.set_aside.add(number)
    store.conclude_offline(store.line(store.new_sale(), number, store.balance(number)))


def two_tills_without_lock(store):
    """Two tills take one card, neither with a lock, for more than it is worth together."""
    number = store.free("gift_card")
    store.set_aside.add(number)
    most = max(1, store.balance(number) * 7 // 10)
    sale = store.new_sale()
    store.conclude_offline(store.line(sale, number, most))
    store.conclude_offline(store.line(store.new_sale(sale["terminal_id"]), number, most))


def second_till_without_lock(store):
    """One till holds a card and spends all of it; another takes half of it without a lock."""
    number = store.free("gift_card")
    store.set_aside.add(number)
    line = store.line(store.new_sale(), number, store.balance(number))
    store.lock(line)
    half = max(1, store.balance(number) // 2)
    other_line = store.line(store.new_sale(line["terminal_id"]), number, half)
    store.soon(store.conclude_offline, line)
    store.soon(store.conclude_offline, other_line)


def memo_used_twice(store):
    """A till takes a credit memo that HQ knows to be used."""
    number = store.choose(
        lambda number, instrument: (
            model.is_spent_memo(instrument) and len(instrument["postings"]) == 1
        )
    )
    opening_minor = store.day["instruments"][number]["opening_minor"]
    store.conclude_offline(store.line(store.new_sale(), number, opening_minor))


def unknown_number(store):
    """A till takes a number that HQ has never heard of."""
    kind = store.rng.choice(("gift_card", "gift_card", "gift_card", "credit_memo"))
    number = new_number(store.rng, kind)
    while number in store.day["instruments"]:
        number = new_number(store.rng, kind)
    known_number = store.free(kind)
    line = store.line(store.new_sale(), known_number, store.price(known_number))
    store.conclude_offline({**line, "number": number})


def other_currency(store, line):
    """Return some currency that is not the line's."""
    return store.rng.choice([name for name in MINOR_PER_UNIT if name != line["currency"]])


def wrong_currency(store):
    """The till writes down another currency than the card's."""
    number = store.free()
    line = store.line(store.new_sale(), number, store.price(number))
    store.lock(line)
    store.soon(store.conclude_offline, {**line, "currency": other_currency(store, line)})


def wrong_currency_put_right(store):
    """The till has the currency wrong, then sends the line once more with the right one."""
    number = store.free()
    line = store.line(store.new_sale(), number, store.price(number))
    store.lock(line)
    wrong = {**line, "currency": other_currency(store, line)}
    store.soon(store.conclude_offline, wrong, line)


def key_with_other_amount(store):
    """The till reuses the number of a transaction, or writes over one, with another amount."""
    number = store.free("gift_card")
    line = store.line(store.new_sale(), number, store.price(number))
    store.lock(line)
    more = line["amount_minor"] * store.rng.randint(105, 190) // 100 + 1
    store.soon(store.conclude_offline, line, {**line, "amount_minor": more})


def key_with_other_card(store):
    """The till reuses the number of a transaction for another card."""
    number = store.free("gift_card")
    line = store.line(store.new_sale(), number, store.price(number))
    store.lock(line)
    other_number = store.free("gift_card", currency=line["currency"])
    store.soon(store.conclude_offline, line, {**line, "number": other_number})


def key_with_other_currency(store):
    """The till reuses the number of a transaction with another currency."""
    number = store.free("gift_card")
    line = store.line(store.new_sale(), number, store.price(number))
    store.lock(line)
    other_line = {**line, "currency": other_currency(store, line)}
    store.soon(store.conclude_offline, line, other_line)


def local_store_lost(store, terminal_id, sorts_before):
    """A till takes one card without a lock before and after it gets a new journal.

    Together the two sales are more than the card is worth, and the journals are delivered in
    one batch: which of them falls short shows in which order HQ settles them.
    """
    number = store.free("gift_card")
    store.set_aside.add(number)
    most = max(1, store.balance(number) * 7 // 10)
    store.conclude_offline(store.line(store.new_sale_on(terminal_id), number, most))
    old_journal_id = store.journal_ids[terminal_id]
    store.start_journal(terminal_id)
    while (store.journal_ids[terminal_id] < old_journal_id) != sorts_before:
        store.start_journal(terminal_id)
    store.conclude_offline(store.line(store.new_sale_on(terminal_id), number, most))


# Story, how often, and the minute from which on it can start.
STORIES = (
    (sale_offline, 1880, 0),
    (sale_offline_with_two_cards, 180, 0),
    (sale_cut_in_the_middle, 20, 0),
    (sale_online, 140, 0),
    (sale_with_lost_answer, 80, 0),
    (sale_with_lost_answer_and_new_amount, 6, 0),
    (change_of_mind, 40, 0),
    (change_of_mind_twice, 10, 0),
    (abandoned_sale, 8, 0),
    (second_till_is_refused, 40, 15),
    (sale_above_the_lock, 24, 0),
    (sale_after_release, 24, 0),
    (sale_after_release_and_spending, 8, 0),
    (sale_after_release_and_new_lock, 8, 0),
    (sale_without_lock, 16, 0),
    (memo_without_lock, 3, 0),
    (two_tills_without_lock, 6, 0),
    (second_till_without_lock, 10, 0),
    (memo_used_twice, 5, 200),
    (unknown_number, 16, 0),
    (wrong_currency, 14, 0),
    (wrong_currency_put_right, 4, 0),
    (key_with_other_amount, 16, 0),
    (key_with_other_card, 4, 0),
    (key_with_other_currency, 2, 0),
)


def simulate(rng, instruments):
    """Let the whole day happen. Returns: the store after its last round."""
    store = Store(rng, instruments)
    for story, count, from_minute in STORIES:
        for _ in range(count):
            at = rng.randrange(from_minute * MINUTE, LAST_START_MINUTE * MINUTE)
            store.plan(at, story, store)
    for terminal_id, minute, sorts_before in NEW_JOURNALS:
        store.plan(minute * MINUTE, local_store_lost, store, terminal_id, sorts_before)
    for round_number in range(1, ROUNDS + 1):
        store.plan(round_number * ROUND_MINUTES * MINUTE, store.deliver, round_number)
    store.run()
    return store


# The files


def one_per_line(records, indent=""):
    """Return the JSON text of a list or an object with one member a line."""
    if isinstance(records, dict):
        members = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in records.items()]
        opening, closing = "{", "}"
    else:
        members = [json.dumps(record) for record in records]
        opening, closing = "[", "]"
    return f"{opening}\n{indent}" + f",\n{indent}".join(members) + f"\n{closing}"


def text_of_batch(batch):
    """Return the body of a batch with one line of the journal a line."""
    return (
        f'{{"batch_id": {json.dumps(batch["batch_id"])},\n'
        f'"store_id": {json.dumps(batch["store_id"])},\n'
        f'"lines": {one_per_line(batch["lines"])}}}\n'
    )


def text_of_expectations(expected):
    """Return the expectations with one instrument, currency or result a line."""
    batches = [
        f'{json.dumps(file)}: {{"batch_id": {json.dumps(batch["batch_id"])},\n'
        f'"outcomes": {json.dumps(batch["outcomes"])},\n'
        f'"lines": {one_per_line(batch["lines"])}}}'
        for file, batch in expected["batches"].items()
    ]
    return (
        f'{{"instruments": {one_per_line(expected["instruments"])},\n'
        f'"totals": {one_per_line(expected["totals"])},\n'
        f'"cases": {one_per_line(expected["cases"])},\n'
        '"batches": {\n' + ",\n".join(batches) + "\n}}\n"
    )


def make_files():
    """Return the text of every file by its name in the folder.

    The expectations are computed from the texts and not from the simulation: whoever reads
    the files again must come to them.
    """
    rng = random.Random(SEED)
    instruments = make_instruments(rng)
    store = simulate(rng, instruments)
    files = {
        "instruments.json": one_per_line(instruments) + "\n",
        "events.jsonl": "".join(json.dumps(event) + "\n" for event in store.events),
    }
    for file, batch in store.batches.items():
        files[file] = text_of_batch(batch)
    expected = model.play(
        json.loads(files["instruments.json"]),
        [json.loads(line) for line in files["events.jsonl"].splitlines()],
        {file: json.loads(files[file]) for file in store.batches},
    )
    files["expected.json"] = text_of_expectations(expected)
    return files


def files_on_disk():
    """Return the content of every data file in the folder by its name."""
    paths = [*FOLDER.glob("*.json"), *FOLDER.glob("*.jsonl"), *FOLDER.glob("batches/*")]
    return {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in paths}


def main():
    """Write the files, or check them. Returns: the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if different")
    arguments = parser.parse_args()
    wanted = {name: text.encode() for name, text in make_files().items()}
    present = files_on_disk()
    different = sorted(name for name in wanted | present if wanted.get(name) != present.get(name))
    if arguments.check:
        for name in different:
            print(f"{name} is not what make.py makes", file=sys.stderr)
        return 1 if different else 0
    (FOLDER / "batches").mkdir(exist_ok=True)
    for name in different:
        if name in wanted:
            (FOLDER / name).write_bytes(wanted[name])
        else:
            (FOLDER / name).unlink()
    print(f"{len(wanted)} files, {sum(map(len, wanted.values()))} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
