"""Offline batches over HTTP, beside a version that commits row by row and the textbook version.

Each till sold what it sold under a lock that it had taken online. One line in ten is on one of 50
hot cards: of those only the first has the lock, and the others leave a case each.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import orjson

from benchmarks import floors, requests
from benchmarks.cards import BALANCE_MINOR, Wish, card_id, lock, place_at, take_cards, take_turns
from benchmarks.company import CURRENCY, KEYRING, STORES
from benchmarks.floors import HOT_CARDS
from benchmarks.load import Job, Load, Unit
from benchmarks.measuring import (
    Figures,
    Part,
    Round,
    Stage,
    Way,
    figures_of,
    measure_floor,
    measure_load,
    note_faults,
    note_shares,
    snapshot,
)
from benchmarks.processes import PeakMemory, wait_for
from benchmarks.requests import AMOUNT_MINOR, JSON, NDJSON
from benchmarks.servers import TEXTBOOK, HttpServer, started
from hq_service.domain.grants import Grant
from hq_service.domain.model import BusinessKey, Kind
from hq_service.domain.numbers import bucket_of

HOT_SHARE = 10
"""One line in so many is on a hot card."""

SETTLED_SECONDS_MAX = 600.0
WARM_UP_BATCHES = 16
WARM_UP_LINES = 20
ROW_BY_ROW = "row by row, one connection"
ROW_BY_ROW_PGBENCH = "row by row (pgbench)"
ONE_POSTER = "JSON, one poster"
TWO_POSTERS = "JSON, two posters"
REPOSTED = "JSON, posted again"
TEXTBOOK_BATCH = "textbook batch"
ONE_NDJSON = "NDJSON, one poster"
LONG_NDJSON = "long NDJSON"

# What a line costs that is settled alone: balance, lock, list of locks, posting; then a commit.
ROW_BY_ROW_FUNCTION = """
CREATE OR REPLACE FUNCTION settle_one(
    p_bucket int, p_card uuid, p_transaction text, p_amount bigint, p_at timestamptz
) RETURNS int LANGUAGE plpgsql AS $$
DECLARE card record;
BEGIN
    SELECT balance_minor, version INTO card FROM instruments
     WHERE bucket = p_bucket AND instrument_id = p_card FOR UPDATE;
    IF NOT FOUND THEN RETURN 2; END IF;
    PERFORM 1 FROM postings WHERE store_id = 'S001' AND terminal_id = 'T01'
        AND transaction_id = p_transaction AND line = 1 AND entry = 'original';
    IF FOUND THEN RETURN 1; END IF;
    UPDATE instruments SET balance_minor = balance_minor - p_amount, version = version + 1,
        lock_id = NULL, lock_store_id = NULL, lock_terminal_id = NULL,
        lock_transaction_id = NULL, lock_line = NULL, lock_purpose = NULL,
        lock_amount_minor = NULL, locked_at = NULL, lock_grant_until = NULL,
        lock_grant_revision = NULL
     WHERE bucket = p_bucket AND instrument_id = p_card;
    DELETE FROM live_locks WHERE bucket = p_bucket AND instrument_id = p_card;
    INSERT INTO postings (bucket, instrument_id, version, store_id, terminal_id, transaction_id,
        line, entry, operation, currency, amount_minor, funded_minor, shortfall_minor,
        change_minor, balance_after_minor, posted_at)
    VALUES (p_bucket, p_card, card.version + 1, 'S001', 'T01', p_transaction, 1, 'original',
        'redeem', 'SEK', p_amount, p_amount, 0, -p_amount, card.balance_minor - p_amount,
        p_at);
    RETURN 0;
END $$
"""


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of one store as they are written in a batch, and the wishes that they had locks for."""

    store_id: str
    written: tuple[bytes, ...]
    wishes: tuple[Wish, ...]

    def body(self, content_type: str) -> bytes:
        """Return a batch with an id of its own."""
        envelope = orjson.dumps({"batch_id": uuid.uuid4().hex, "store_id": self.store_id})
        if content_type == NDJSON:
            return b"\n".join([envelope, *self.written])
        return envelope[:-1] + b',"lines":[' + b",".join(self.written) + b"]}"


@dataclass
class Poster:
    """Posts batches to the service; remembers the last lines of each kind, to post them again."""

    stage: Stage
    service: HttpServer
    last: dict[tuple[str, int], Sequence[Lines]] = field(default_factory=dict)

    def fresh(
        self,
        what: str,
        lines: int,
        batches: int,
        content_type: str,
        stores: Sequence[str] = STORES[:1],
        *,
        with_grants: bool = False,
    ) -> Figures:
        """Post new lines: so many batches one after the other, from each store at once."""
        database = self.stage.database
        cards = [hot_and_other(self.stage, lines) for _ in range(batches)]
        made: list[list[Lines]] = []
        for store_id in stores:
            if made:  # other cards, but the same hot ones: the posters meet on them
                cards = [hot_and_other(self.stage, lines, hot_of(one)) for one in cards]
            made.append([self._lines(store_id, one, with_grants=with_grants) for one in cards])
        lock(database, [wish for of_store in made for one in of_store for wish in one.wishes])
        database.analyse()
        database.expected_postings += lines * batches * len(stores)
        self.last[content_type, lines] = made[0]
        return self._post(what, made, content_type)

    def again(self, what: str, lines: int, content_type: str) -> Figures:
        """Post the last lines again, under other batch ids: all of them are duplicates."""
        return self._post(what, [self.last[content_type, lines]], content_type)

    def _lines(self, store_id: str, cards: Sequence[UUID], *, with_grants: bool) -> Lines:
        return make_lines(self.stage, store_id, cards, with_grants=with_grants)

    def _post(self, what: str, made: Sequence[Sequence[Lines]], content_type: str) -> Figures:
        company = self.stage.database.company
        jobs = [
            Job(self.service.port, units_of(batches, company.sync_keys, content_type), 1)
            for batches in made
        ]
        lines = len(made[0][0].written)
        figures, _ = measure_load(
            self.stage,
            what,
            self.stage.database,
            self.service,
            jobs,
            operations_per_unit=lines,
        )
        return figures

    def warm_up(self) -> None:
        """Let each worker settle a few small batches."""
        batches = [
            make_lines(self.stage, store_id, hot_and_other(self.stage, WARM_UP_LINES))
            for store_id in STORES
            for _ in range(WARM_UP_BATCHES // len(STORES))
        ]
        database = self.stage.database
        lock(database, [wish for one in batches for wish in one.wishes])
        database.analyse()
        database.expected_postings += WARM_UP_LINES * len(batches)
        units = units_of(batches, database.company.sync_keys, NDJSON)
        job = Job(self.service.port, units, self.stage.sessions)
        with Load([job]) as load:
            load.warm_up()
            load.go()
            note_faults(self.stage, "warm-up of batches", [job], load.results())


@contextmanager
def ways(stage: Stage) -> Iterator[Mapping[str, Way]]:
    """Start the textbook version and the service, and let both settle something."""
    database, sizes = stage.database, stage.sizes
    database.connection.execute(ROW_BY_ROW_FUNCTION.encode())
    servers = (HttpServer(database.url, TEXTBOOK), HttpServer(database.url))
    with started(*servers) as (textbook, service):
        poster = Poster(stage, service)
        poster.warm_up()
        lines = sizes.batch_lines
        yield {
            ROW_BY_ROW: lambda: row_by_row(stage),
            ROW_BY_ROW_PGBENCH: lambda: row_by_row_pgbench(stage),
            ONE_POSTER: partial(poster.fresh, ONE_POSTER, lines, 1, JSON),
            REPOSTED: partial(poster.again, REPOSTED, lines, JSON),
            TWO_POSTERS: partial(poster.fresh, TWO_POSTERS, lines, 1, JSON, STORES),
            ONE_NDJSON: partial(poster.fresh, ONE_NDJSON, lines, 1, NDJSON),
            "NDJSON, posted again": partial(poster.again, "NDJSON, posted again", lines, NDJSON),
            TEXTBOOK_BATCH: lambda: post_to_textbook(stage, textbook),
            **_smaller(poster),
            LONG_NDJSON: lambda: settle_long(stage, LONG_NDJSON, NDJSON),
            **(_beside_the_ratios(poster) if sizes.has_full_batches else {}),
        }


def _beside_the_ratios(poster: Poster) -> dict[str, Way]:
    """Return the ways that only a full run has: figures that no ratio is made of."""
    stage, lines = poster.stage, poster.stage.sizes.batch_lines
    return {
        "JSON with grants": partial(
            poster.fresh, "JSON with grants", lines, 1, JSON, with_grants=True
        ),
        "long JSON": lambda: settle_long(stage, "long JSON", JSON),
    }


def _smaller(poster: Poster) -> dict[str, Way]:
    """Return the ways to post smaller batches, one after the other."""
    found: dict[str, Way] = {}
    for lines, batches in poster.stage.sizes.batches:
        for name, content_type in (("JSON", JSON), ("NDJSON", NDJSON)):
            what = f"{name}, {lines:,} at a time" if lines > 1 else f"{name}, 1 line at a time"
            found[what] = partial(poster.fresh, what, lines, batches, content_type)
            again = f"{what}, again"
            found[again] = partial(poster.again, again, lines, content_type)
    return found


def hot_and_other(stage: Stage, lines: int, hot: Sequence[UUID] = ()) -> list[UUID]:
    """Return the card of each line: one in ten on a few hot cards, each other on its own."""
    hot = hot or take_cards(stage.database, min(HOT_CARDS, max(1, lines // HOT_SHARE)))
    others = iter(take_cards(stage.database, lines))
    return [
        hot[place // HOT_SHARE % len(hot)] if place % HOT_SHARE == 0 and lines > 1 else next(others)
        for place in range(lines)
    ]


def hot_of(cards: Sequence[UUID]) -> list[UUID]:
    """Return the hot ones of the cards of a batch."""
    return list(dict.fromkeys(cards[::HOT_SHARE]))


def make_lines(
    stage: Stage, store_id: str, cards: Sequence[UUID], *, with_grants: bool = False
) -> Lines:
    """Return one line per card, each a transaction of its own; the store's tills in turn."""
    run, now = stage.next_run(), datetime.now(UTC)
    tills = [till for till in stage.database.company.tills if till.store_id == store_id]
    wishes, written = [], []
    for place, instrument_id in enumerate(cards):
        terminal_id = tills[place % len(tills)].terminal_id
        wish = Wish(instrument_id, store_id, terminal_id, f"{run}-{place}")
        wishes.append(wish)
        line = {
            "terminal_id": terminal_id,
            "journal_id": run,
            "sequence": place // len(tills) + 1,
            "transaction_id": wish.transaction_id,
            "line": 1,
            "operation": "redeem",
            "instrument_id": str(instrument_id),
            "amount_minor": AMOUNT_MINOR,
            "currency": CURRENCY,
            "concluded_at": now.isoformat(),
        }
        if with_grants:
            line |= {"lock_id": str(wish.lock_id), "grant": grant_of(wish, now)}
        written.append(orjson.dumps(line))
    return Lines(store_id, tuple(written), tuple(wishes))


def grant_of(wish: Wish, now: datetime) -> str:
    """Return the grant that came with the lock, as the till would send it."""
    return KEYRING.sign(
        Grant(
            lock_id=wish.lock_id,
            key=BusinessKey(wish.store_id, wish.terminal_id, wish.transaction_id, 1),
            purpose="redeem",
            instrument_id=wish.instrument_id,
            kind=Kind.GIFT_CARD,
            currency=CURRENCY,
            number_last4="0000",
            amount_minor=BALANCE_MINOR,
            revision=1,
            issued_at=now,
            until=now + timedelta(hours=72),
        )
    )


def units_of(
    batches: Sequence[Lines], sync_keys: Mapping[str, str], content_type: str
) -> list[Unit]:
    """Return the requests that post batches, each signed in by its store's sync job."""
    return [
        (
            requests.post(
                "/v1/offline-batches",
                sync_keys[batch.store_id],
                batch.body(content_type),
                content_type,
            ),
        )
        for batch in batches
    ]


def row_by_row(stage: Stage) -> Figures:
    """Settle each line by a prepared function call with a commit of its own."""
    database, count = stage.database, stage.sizes.row_commit_lines
    cards, run = hot_and_other(stage, count), stage.next_run()
    lock(database, [Wish(card, "S001", "T01", f"{run}-{n}") for n, card in enumerate(cards)])
    database.analyse()
    database.expected_postings += count
    before, cpu_before = snapshot(stage, database, None), time.process_time()
    begun_at = time.monotonic()
    for place, card in enumerate(cards):
        database.connection.execute(
            "SELECT settle_one(%s, %s, %s, %s, %s)",
            (bucket_of(card), card, f"{run}-{place}", AMOUNT_MINOR, datetime.now(UTC)),
            prepare=True,
        )
    seconds, own = time.monotonic() - begun_at, time.process_time() - cpu_before
    figures = figures_of(
        before, snapshot(stage, database, None), count, seconds, own, is_own_load=True
    )
    note_shares(stage, ROW_BY_ROW, figures, is_own_load=True)
    return figures


def row_by_row_pgbench(stage: Stage) -> Figures:
    """Do the same with pgbench on one session, whose own share is smaller."""
    database, count = stage.database, stage.sizes.row_commit_lines
    run, first = stage.next_run(), take_turns(database, max(count, HOT_CARDS) + 1).start
    # The places that the script comes to.
    places = [
        place_at(
            first + (line // HOT_SHARE % HOT_CARDS if line % HOT_SHARE == 0 else line - 1),
            database.counted,
        )
        for line in range(1, count + 1)
    ]
    lock(
        database,
        [Wish(card_id(place), "S001", "T01", f"{run}-{n}") for n, place in enumerate(places)],
    )
    database.analyse()
    database.expected_postings += count
    return measure_floor(
        stage,
        ROW_BY_ROW_PGBENCH,
        database,
        lambda: floors.run_script(database, floors.SETTLE_ONE, count, 1, first=first, run=run),
    )


def post_to_textbook(stage: Stage, textbook: HttpServer) -> Figures:
    """Post a smaller batch to the textbook version: at its pace 10,000 lines take too long."""
    database, count = stage.database, stage.sizes.textbook_lines
    lines = make_lines(stage, STORES[0], hot_and_other(stage, count))
    lock(database, lines.wishes)
    database.analyse()
    database.expected_postings += count
    key = database.company.sync_keys[STORES[0]]
    job = Job(textbook.port, [(requests.post("/batches", key, lines.body(JSON)),)], 1)
    figures, _ = measure_load(
        stage, TEXTBOOK_BATCH, database, textbook, [job], operations_per_unit=count
    )
    return figures


def settle_long(stage: Stage, what: str, content_type: str) -> Figures:
    """Post a batch that is settled behind its answer, to a service that has seen small ones only.

    Measured until it is settled, and how much the memory of a worker grew.
    """
    database, count = stage.database, stage.sizes.long_batch_lines
    with started(HttpServer(database.url)) as (service,):
        Poster(stage, service).warm_up()
        lines = make_lines(stage, STORES[0], hot_and_other(stage, count))
        lock(database, lines.wishes)
        database.analyse()
        database.expected_postings += count
        units = units_of([lines], database.company.sync_keys, content_type)
        is_behind = count > stage.settings.batch_synchronous_lines_max
        job = Job(service.port, units, 1, expected=frozenset({202 if is_behind else 201}))
        with Load([job]) as load, PeakMemory(service.worker_pids()) as memory:
            load.warm_up()
            before = snapshot(stage, database, service)
            load.go()
            done = load.results()
            note_faults(stage, what, [job], done)
            if done[0].statuses.get(202):
                wait_for(lambda: is_settled(stage), "end of a long batch", SETTLED_SECONDS_MAX)
            seconds = time.monotonic() - done[0].begun_at
            after = snapshot(stage, database, service)
    figures = figures_of(before, after, count, seconds, done[0].cpu_seconds)
    figures["growth_mb"] = memory.growth_bytes / 2**20
    figures["answered_after_seconds"] = done[0].seconds
    note_shares(stage, what, figures)
    return figures


def is_settled(stage: Stage) -> bool:
    """Tell whether all batches are settled; asked in SQL, which disturbs less than over HTTP."""
    waiting = stage.database.value("SELECT count(*) FROM offline_batches WHERE settled_at IS NULL")
    return not waiting


def _over_row_by_row(way: str, one: Round) -> float:
    return one[way]["per_second"] / one[ROW_BY_ROW]["per_second"]


PART = Part(
    "batches",
    "offline batches, per line",
    ways,
    {
        "batch_10k_over_row_commit": partial(_over_row_by_row, ONE_POSTER),
        "batch_10k_two_posters_over_row_commit": partial(_over_row_by_row, TWO_POSTERS),
        "batch_10k_over_textbook": lambda one: (
            one[ONE_POSTER]["per_second"] / one[TEXTBOOK_BATCH]["per_second"]
        ),
        "batch_duplicates_over_fresh": lambda one: (
            one[REPOSTED]["per_second"] / one[ONE_POSTER]["per_second"]
        ),
        "ndjson_100k_growth_mb": lambda one: one[LONG_NDJSON]["growth_mb"],
        "ndjson_100k_over_10k": lambda one: (
            one[ONE_NDJSON]["per_second"] / one[LONG_NDJSON]["per_second"]
        ),
    },
)
