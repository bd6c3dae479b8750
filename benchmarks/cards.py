"""The cards of a run: made in bulk, locked and freed in bulk.

Most ids are the MD5 of a counter, so that SQL and Python know them alike without a look-up table.
The others are made from numbers, as HQ makes them, for requests that name a card by its number.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from alembic import command
from alembic.config import Config

from benchmarks.company import CURRENCY, KEYRING, found
from benchmarks.postgres import Database, Server, connect
from hq_service.domain.model import Kind
from hq_service.domain.numbers import bucket_of, instrument_id_of
from hq_service.store.arrays import array

ROOT = Path(__file__).resolve().parent.parent
BALANCE_MINOR = 1_000_000_000
ROWS_AT_ONCE = 250_000
GOLDEN = 0.618_034
"""Steps of this part of a whole come near no earlier one for as long as possible."""
USED_SHARE = 10
"""One card in so many has been used before: in an empty table of postings, plans are other ones."""

# In SQL, as hq_service.domain.numbers.bucket_of; inlined wherever it is called.
BUCKET_FUNCTION = """
CREATE FUNCTION bench_bucket(id uuid) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (get_byte(uuid_send(id), 0) << 2) | (get_byte(uuid_send(id), 1) >> 6)
"""

INSERT_CARDS = f"""
INSERT INTO instruments (bucket, instrument_id, kind, currency, number_last4, status,
                         balance_minor, version, created_at)
SELECT bench_bucket(id), id, 'gift_card', '{CURRENCY}', '0000', 'active',
       {BALANCE_MINOR} - 10 * uses, uses, now()
"""
POST_HISTORY = f"""
INSERT INTO postings (bucket, instrument_id, version, store_id, terminal_id, transaction_id, line,
                      entry, operation, currency, amount_minor, funded_minor, shortfall_minor,
                      change_minor, balance_after_minor, posted_at)
SELECT bench_bucket(id), id, 1, 'S001', 'T01', 'before-' || place, 1,
       'original', 'redeem', '{CURRENCY}', 10, 10, 0, -10, {BALANCE_MINOR} - 10, now()
  FROM (SELECT place, md5('card' || place)::uuid AS id
          FROM generate_series(0, %s::int - 1) AS place) AS made
"""
# Those at the first places have been used once, which their postings say.
CARDS_BY_COUNTER = f"""{INSERT_CARDS}
  FROM (SELECT md5('card' || place)::uuid AS id, (place < %s)::int AS uses
          FROM generate_series(%s::int, %s::int) AS place) AS made
"""
CARDS_BY_ID = f"""{INSERT_CARDS}
  FROM (SELECT id, 0 AS uses FROM unnest(%s::uuid[]) AS id) AS made
"""

# Each card is locked, with a grant, for the line that comes first on it.
LOCK_CARDS = """
WITH wanted AS (
    SELECT DISTINCT ON (instrument_id) *
      FROM unnest(%(buckets)s::int[], %(instrument_ids)s::uuid[], %(lock_ids)s::uuid[],
                  %(store_ids)s::text[], %(terminal_ids)s::text[], %(transaction_ids)s::text[])
           WITH ORDINALITY AS w (bucket, instrument_id, lock_id, store_id, terminal_id,
                                 transaction_id, place)
     ORDER BY instrument_id, place
), locked AS (
    UPDATE instruments AS i
       SET lock_id = wanted.lock_id, lock_store_id = wanted.store_id,
           lock_terminal_id = wanted.terminal_id, lock_transaction_id = wanted.transaction_id,
           lock_line = 1, lock_purpose = 'redeem', lock_amount_minor = i.balance_minor,
           locked_at = now(), lock_grant_until = now() + interval '72 hours',
           lock_grant_revision = 1
      FROM wanted
     WHERE i.bucket = wanted.bucket AND i.instrument_id = wanted.instrument_id
    RETURNING i.bucket, i.instrument_id, i.lock_id, i.lock_store_id, i.lock_terminal_id,
              i.locked_at, i.lock_amount_minor, i.lock_grant_until
)
INSERT INTO live_locks (bucket, instrument_id, lock_id, store_id, terminal_id, locked_at,
                        amount_minor, grant_until)
SELECT * FROM locked
"""

FREE_CARDS = """
WITH freed AS (DELETE FROM live_locks RETURNING bucket, instrument_id)
UPDATE instruments AS i
   SET lock_id = NULL, lock_store_id = NULL, lock_terminal_id = NULL, lock_transaction_id = NULL,
       lock_line = NULL, lock_purpose = NULL, lock_amount_minor = NULL, locked_at = NULL,
       lock_grant_until = NULL, lock_grant_revision = NULL
  FROM freed
 WHERE i.bucket = freed.bucket AND i.instrument_id = freed.instrument_id
"""


@dataclass(frozen=True, slots=True)
class Wish:
    """A line that a till locks a card for: line 1 of its transaction."""

    instrument_id: UUID
    store_id: str
    terminal_id: str
    transaction_id: str

    @property
    def lock_id(self) -> UUID:
        """The id of the lock, which SQL can make from the transaction too."""
        return _md5(f"lock{self.transaction_id}")


def card_id(place: int) -> UUID:
    """Return the id of the card at a place of the counter."""
    return _md5(f"card{place}")


def number_at(place: int) -> str:
    """Return the made-up number of one of the cards that are known by number."""
    return f"6006{place:012d}"


def numbered_id(place: int) -> UUID:
    """Return the id that HQ makes from that number."""
    return instrument_id_of(KEYRING.number_secret, Kind.GIFT_CARD, number_at(place))


def fill(server: Server, instruments: int, numbered: int, tell: Callable[[str], None]) -> Database:
    """Create a database with the tables, a company and so many cards, and return it.

    ``numbered`` of the cards are known by number.
    """
    url = server.create_database()
    _migrate(url)
    database = Database(url, connect(url), found(url), instruments - numbered, numbered)
    database.connection.execute(BUCKET_FUNCTION)
    used = database.counted // USED_SHARE
    for first in range(0, database.counted, ROWS_AT_ONCE):
        last = min(first + ROWS_AT_ONCE, database.counted)
        database.connection.execute(CARDS_BY_COUNTER.encode(), (used, first, last - 1))
        tell(f"{last:,} of {instruments:,} cards")
    ids = [numbered_id(place) for place in range(numbered)]
    database.connection.execute(CARDS_BY_ID.encode(), (array(ids),))
    database.connection.execute(POST_HISTORY.encode(), (used,))
    database.expected_postings = used
    database.connection.execute("VACUUM ANALYZE instruments, postings")
    database.initial_balance_minor = instruments * BALANCE_MINOR
    return database


def take_cards(database: Database, count: int) -> list[UUID]:
    """Return the ids of cards that were not taken for long, each once."""
    return [card_id(place_at(turn, database.counted)) for turn in take_turns(database, count)]


def take_turns(database: Database, count: int) -> range:
    """Return the turns of cards that were not taken for long; `place_at` says where they are."""
    if count > database.counted:
        raise ValueError(f"{count} different cards of {database.counted} are asked for")
    first = database.next_turn if database.next_turn + count <= database.counted else 0
    database.next_turn = first + count
    return range(first, first + count)


def take_numbered(database: Database, count: int) -> list[int]:
    """Return the places of cards that are known by number, each once."""
    if count > database.numbered:
        raise ValueError(f"{count} different numbers of {database.numbered} are asked for")
    first = database.next_number if database.next_number + count <= database.numbered else 0
    database.next_number = first + count
    return [place_at(turn, database.numbered) for turn in range(first, first + count)]


def place_at(turn: int, count: int) -> int:
    """Return the place that has this turn: far from the one before, in the table too.

    Cards whose turns follow each other would lie on one page, as no real ones do.
    """
    return turn * stride_of(count) % count


@functools.cache
def stride_of(count: int) -> int:
    """Return how far it is from one turn to the next, so that each place comes once."""
    stride = max(1, int(count * GOLDEN))
    while math.gcd(stride, count) != 1:
        stride += 1
    return stride


def lock(database: Database, wishes: Sequence[Wish]) -> None:
    """Lock the card of each wish for it, as set-up; the first on a card has it."""
    parameters = {
        "buckets": array(bucket_of(wish.instrument_id) for wish in wishes),
        "instrument_ids": array(wish.instrument_id for wish in wishes),
        "lock_ids": array(wish.lock_id for wish in wishes),
        "store_ids": array(wish.store_id for wish in wishes),
        "terminal_ids": array(wish.terminal_id for wish in wishes),
        "transaction_ids": array(wish.transaction_id for wish in wishes),
    }
    database.write(LOCK_CARDS, parameters)


def free(database: Database) -> None:
    """Free all locked cards, as set-up."""
    database.write(FREE_CARDS)


def wishes_of(database: Database, cards: Sequence[UUID], run: str) -> Iterator[Wish]:
    """Return one wish per card, the tills in turn."""
    tills = database.company.tills
    for place, instrument_id in enumerate(cards):
        till = tills[place % len(tills)]
        yield Wish(instrument_id, till.store_id, till.terminal_id, f"{run}-{place}")


def _md5(text: str) -> UUID:
    """Return what ``md5(text)::uuid`` is in SQL; no secret depends on it."""
    return UUID(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest())


def _migrate(url: str) -> None:
    configuration = Config(toml_file=ROOT / "pyproject.toml")
    configuration.attributes["database_url"] = url
    command.upgrade(configuration, "head")
