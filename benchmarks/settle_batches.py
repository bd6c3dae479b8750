"""How fast batches settle, against a textbook version that commits row by row.

Both run in this process on one throwaway PostgreSQL with fsync on, in turn, several rounds; the
ratio of the medians is what counts, since machines differ and are noisy. After every round the
sums are checked: a run that settled nothing is void.

Usage: python benchmarks/settle_batches.py [--lines 10000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from flask import Flask

from hq_service.app import create_app, disconnect
from hq_service.domain.actors import Actor, Role
from hq_service.domain.grants import GrantKeys
from hq_service.domain.keyring import Keyring
from hq_service.domain.numbers import bucket_of
from hq_service.embedded_postgres import ThrowawayPostgres
from hq_service.operations import offline_batches
from hq_service.settings import Settings
from hq_service.store import parameters, terminals
from hq_service.store.database import transactional

KEYRING = Keyring(bytes(32), GrantKeys({"k1": bytes(32)}))
ACTOR = Actor(Role.SYNC, "benchmark", "S001")
CHUNK_LINES = 1_000
HOT_CARDS = 50

ROW_BY_ROW = """
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
        change_minor, balance_after_minor, codes, posted_at)
    VALUES (p_bucket, p_card, card.version + 1, 'S001', 'T01', p_transaction, 1, 'original',
        'redeem', 'SEK', p_amount, p_amount, 0, -p_amount, card.balance_minor - p_amount, '{}',
        p_at);
    RETURN 0;
END $$
"""


# Each card is locked, with a grant, for the line that comes first on it.
LOCK_CARDS = """
WITH wanted AS (
    SELECT DISTINCT ON (instrument_id) instrument_id, transaction_id
      FROM unnest(%s::uuid[], %s::text[]) WITH ORDINALITY AS w (instrument_id, transaction_id, n)
     ORDER BY instrument_id, n
), locked AS (
    UPDATE instruments AS i
       SET lock_id = gen_random_uuid(), lock_store_id = 'S001', lock_terminal_id = 'T01',
           lock_transaction_id = wanted.transaction_id, lock_line = 1, lock_purpose = 'redeem',
           lock_amount_minor = i.balance_minor, locked_at = now(),
           lock_grant_until = now() + interval '72 hours', lock_grant_revision = 1
      FROM wanted WHERE i.instrument_id = wanted.instrument_id
    RETURNING i.bucket, i.instrument_id, i.lock_id, i.locked_at, i.lock_amount_minor
)
INSERT INTO live_locks (bucket, instrument_id, lock_id, store_id, terminal_id, locked_at,
                        amount_minor)
SELECT bucket, instrument_id, lock_id, 'S001', 'T01', locked_at, lock_amount_minor FROM locked
"""


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--instruments", type=int, default=100_000)
    options = parser.parse_args()
    with ThrowawayPostgres(fsync=True) as postgres:
        app = prepare(postgres.url, options.instruments)
        with app.app_context():
            rounds = [run_round(postgres.url, options) for _ in range(options.rounds)]
            disconnect()
    print_table(options.lines, rounds)


def prepare(url: str, instruments: int) -> Flask:
    """Migrate, create a store and fill the table of instruments."""
    configuration = Config(toml_file=Path(__file__).parent.parent / "pyproject.toml")
    configuration.attributes["database_url"] = url
    command.upgrade(configuration, "head")
    with connect(url) as connection:
        connection.execute(ROW_BY_ROW)
        connection.execute(
            "INSERT INTO instruments (bucket, instrument_id, kind, currency, number_last4, status,"
            " balance_minor, version, created_at)"
            " SELECT (get_byte(uuid_send(id), 0) << 2) | (get_byte(uuid_send(id), 1) >> 6), id,"
            " 'gift_card', 'SEK', '0000', 'active', 1000000000, 0, now()"
            " FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, %s)) AS made",
            (instruments,),
        )
        connection.execute("VACUUM ANALYZE instruments")
    app = create_app(Settings(url, KEYRING.number_secret, KEYRING.grant_keys))
    with app.app_context():
        make_store()
    return app


@transactional
def make_store(_connection: Any) -> None:
    """Create the store and its register."""
    now = datetime.now(UTC)
    terminals.add_store("S001", "store", now)
    terminals.add("S001", "T01", "register", supports_offline=True, now=now)
    allowed = {"allow_concluding_gift_card_transactions_offline": True}
    parameters.add(
        1, None, allowed, allowed, reason="benchmark", changed_at=now, changed_by="benchmark"
    )


def run_round(url: str, options: argparse.Namespace) -> dict[str, float]:
    """Measure each way once, in lines per second, and check what was measured."""
    with connect(url) as connection:
        cards = pick_cards(connection, options.lines)
        before = posted(connection)
        row_lines = max(1, options.lines // 5)
        figures = {"row by row": row_by_row(connection, cards[:row_lines])}
        run = uuid.uuid4().hex[:8]
        transactions = [f"{run}-{place}" for place in range(len(cards))]
        connection.execute(LOCK_CARDS, (cards, transactions))
        figures["batch"] = settle(a_batch(run, "first", cards), options.lines)
        figures["batch, all duplicates"] = settle(a_batch(run, "second", cards), options.lines)
        moved = posted(connection) - before
        assert moved == row_lines + options.lines, f"{moved} postings: the run is void"
    return figures


def connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Return a connection beside the service's own."""
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def pick_cards(connection: psycopg.Connection[tuple[Any, ...]], lines: int) -> list[uuid.UUID]:
    """Return one card per line: one line in ten on a few hot cards, the others at random."""
    rows = connection.execute(
        "SELECT instrument_id FROM instruments ORDER BY random() LIMIT %s", (lines,)
    ).fetchall()
    cards = [row[0] for row in rows] * (1 + lines // len(rows))
    return [cards[place % HOT_CARDS] if place % 10 == 0 else cards[place] for place in range(lines)]


def posted(connection: psycopg.Connection[tuple[Any, ...]]) -> int:
    """Return how many postings there are."""
    row = connection.execute("SELECT count(*) FROM postings").fetchone()
    assert row is not None
    return int(row[0])


def row_by_row(connection: psycopg.Connection[tuple[Any, ...]], cards: list[uuid.UUID]) -> float:
    """Settle each line by a prepared function call with a commit of its own."""
    run = uuid.uuid4().hex
    started = time.perf_counter()
    for place, card in enumerate(cards):
        connection.execute(
            "SELECT settle_one(%s, %s, %s, %s, %s)",
            (bucket_of(card), card, f"{run}-{place}", 10, datetime.now(UTC)),
            prepare=True,
        )
    return len(cards) / (time.perf_counter() - started)


def a_batch(run: str, name: str, cards: list[uuid.UUID]) -> bytes:
    """Return the body of a batch with one line per card; the same run, the same lines."""
    now = datetime.now(UTC).isoformat()
    lines = [
        {
            "terminal_id": "T01",
            "journal_id": "journal",
            "sequence": place + 1,
            "transaction_id": f"{run}-{place}",
            "line": 1,
            "operation": "redeem",
            "instrument_id": str(card),
            "amount_minor": 10,
            "currency": "SEK",
            "concluded_at": now,
        }
        for place, card in enumerate(cards)
    ]
    return json.dumps({"batch_id": f"{run}-{name}", "store_id": "S001", "lines": lines}).encode()


def settle(body: bytes, lines: int) -> float:
    """Post a batch as the service does behind its HTTP layer."""
    started = time.perf_counter()
    offline_batches.post(
        body,
        ACTOR,
        KEYRING,
        datetime.now(UTC),
        lines_max=100_000,
        chunk_lines=CHUNK_LINES,
    )
    return lines / (time.perf_counter() - started)


def print_table(lines: int, rounds: list[dict[str, float]]) -> None:
    """Print medians and ratios."""
    floor = statistics.median(one["row by row"] for one in rounds)
    print(f"{lines} lines, {len(rounds)} rounds, chunks of {CHUNK_LINES}, fsync on\n")
    print(f"{'way':<24}{'lines/s':>10}{'ratio':>8}{'lowest':>10}{'highest':>10}")
    for way in rounds[0]:
        figures = [one[way] for one in rounds]
        median = statistics.median(figures)
        print(
            f"{way:<24}{median:>10.0f}{median / floor:>8.2f}"
            f"{min(figures):>10.0f}{max(figures):>10.0f}"
        )


if __name__ == "__main__":
    main()
