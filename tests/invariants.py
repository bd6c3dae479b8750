"""What must be true of the database at any moment, as queries that must return no row.

Fault and race tests ask after every scenario; none of the queries writes or locks anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Rows = list[tuple[Any, ...]]

KEY = "store_id, terminal_id, transaction_id, line"

INVARIANTS: Mapping[str, str] = {
    "a balance is the sum of its postings": """
        SELECT instrument.instrument_id, instrument.balance_minor, sum(posting.change_minor)
          FROM instruments AS instrument
          LEFT JOIN postings AS posting USING (bucket, instrument_id)
         GROUP BY instrument.bucket, instrument.instrument_id
        HAVING instrument.balance_minor <> coalesce(sum(posting.change_minor), 0)
    """,
    "versions count the postings without a gap": """
        SELECT instrument.instrument_id, instrument.version, count(posting.version)
          FROM instruments AS instrument
          LEFT JOIN postings AS posting USING (bucket, instrument_id)
         GROUP BY instrument.bucket, instrument.instrument_id
        HAVING instrument.version <> count(posting.version)
            OR instrument.version <> coalesce(max(posting.version), 0)
    """,
    "each posting carries the balance after it": """
        SELECT instrument_id, version, balance_after_minor, expected_minor
          FROM (SELECT instrument_id, version, balance_after_minor,
                       sum(change_minor) OVER (PARTITION BY bucket, instrument_id
                                               ORDER BY version) AS expected_minor
                  FROM postings) AS chain
         WHERE balance_after_minor <> expected_minor
    """,
    "a business key has one original, whatever its bucket": f"""
        SELECT {KEY}, count(*)
          FROM postings
         WHERE entry = 'original'
         GROUP BY {KEY}
        HAVING count(*) > 1
    """,
    "a lock funds one line": """
        SELECT lock_id, count(*)
          FROM postings
         WHERE entry = 'original' AND lock_id IS NOT NULL
         GROUP BY lock_id
        HAVING count(*) > 1
    """,
    "the list of live locks is what the instruments carry": """
        SELECT instrument.instrument_id, instrument.lock_id, live.lock_id
          FROM (SELECT * FROM instruments WHERE lock_id IS NOT NULL) AS instrument
          FULL JOIN live_locks AS live
            ON live.bucket = instrument.bucket AND live.instrument_id = instrument.instrument_id
         WHERE (instrument.lock_id, instrument.lock_store_id, instrument.lock_terminal_id,
                instrument.locked_at, instrument.lock_amount_minor, instrument.lock_grant_until)
            IS DISTINCT FROM
               (live.lock_id, live.store_id, live.terminal_id,
                live.locked_at, live.amount_minor, live.grant_until)
    """,
    "a live lock is neither spent nor ended": """
        SELECT live.instrument_id, live.lock_id
          FROM live_locks AS live
         WHERE EXISTS (SELECT 1 FROM postings WHERE postings.lock_id = live.lock_id)
            OR EXISTS (SELECT 1 FROM lock_events WHERE lock_events.lock_id = live.lock_id)
    """,
    "a shortfall has exactly one case": """
        SELECT posting.instrument_id, posting.version, posting.shortfall_minor, count(one.case_id)
          FROM postings AS posting
          LEFT JOIN cases AS one
            ON one.store_id = posting.store_id
           AND one.terminal_id = posting.terminal_id
           AND one.transaction_id = posting.transaction_id
           AND one.line = posting.line
           AND one.operation = posting.operation
           AND one.instrument_id = posting.instrument_id
           AND one.amount_minor = posting.amount_minor
           AND one.currency = posting.currency
           AND one.shortfall_minor = posting.shortfall_minor
         WHERE posting.shortfall_minor > 0
         GROUP BY posting.bucket, posting.instrument_id, posting.version
        HAVING count(one.case_id) <> 1
    """,
    "a held or quarantined line has its case": """
        SELECT store_id, batch_id, position, case_id
          FROM (SELECT store_id, batch_id, position, case_id
                  FROM offline_lines
                 WHERE outcome = 'held'
                 UNION ALL
                SELECT store_id, batch_id, position, case_id
                  FROM quarantined_lines) AS doubtful
         WHERE NOT EXISTS (SELECT 1 FROM cases WHERE cases.case_id = doubtful.case_id)
    """,
    "an applied redemption has its posting": """
        SELECT settled.store_id, settled.batch_id, settled.position
          FROM offline_lines AS settled
         WHERE settled.outcome = 'applied'
           AND settled.operation = 'redeem'
           AND settled.status = 'concluded'
           AND NOT 'voided' = ANY (settled.codes)
           AND NOT EXISTS (SELECT 1
                             FROM postings AS posting
                            WHERE posting.store_id = settled.store_id
                              AND posting.terminal_id = settled.terminal_id
                              AND posting.transaction_id = settled.transaction_id
                              AND posting.line = settled.line
                              AND posting.entry = 'original'
                              AND posting.instrument_id = settled.instrument_id
                              AND posting.funded_minor = settled.funded_minor
                              AND posting.shortfall_minor = settled.shortfall_minor)
    """,
    "a business key is applied in one line of one batch": f"""
        SELECT {KEY}, count(*)
          FROM offline_lines
         WHERE outcome = 'applied' AND operation = 'redeem' AND status = 'concluded'
           AND NOT 'voided' = ANY (codes)
         GROUP BY {KEY}
        HAVING count(*) > 1
    """,
    "what leaves a used memo arrives on its remainder": """
        SELECT gone.instrument_id, gone.funded_minor, arrived.instrument_id, arrived.funded_minor
          FROM (SELECT * FROM postings
                 WHERE entry = 'remainder_out' AND related_instrument_id IS NOT NULL) AS gone
          FULL JOIN (SELECT * FROM postings WHERE entry = 'remainder_in') AS arrived
            ON arrived.instrument_id = gone.related_instrument_id
           AND arrived.related_instrument_id = gone.instrument_id
           AND (arrived.store_id, arrived.terminal_id, arrived.transaction_id, arrived.line)
             = (gone.store_id, gone.terminal_id, gone.transaction_id, gone.line)
          LEFT JOIN instruments AS memo
            ON memo.bucket = gone.bucket AND memo.instrument_id = gone.instrument_id
         WHERE gone.funded_minor IS DISTINCT FROM arrived.funded_minor
            OR gone.change_minor IS DISTINCT FROM -arrived.change_minor
            OR gone.currency IS DISTINCT FROM arrived.currency
            OR memo.remainder_id IS DISTINCT FROM arrived.instrument_id
    """,
    "a batch counts the lines that are stored": """
        SELECT batch.store_id, batch.batch_id, batch.settled_count, count(settled.position)
          FROM offline_batches AS batch
          LEFT JOIN (SELECT store_id, batch_id, position FROM offline_lines
                      UNION ALL
                     SELECT store_id, batch_id, position FROM quarantined_lines) AS settled
            USING (store_id, batch_id)
         GROUP BY batch.store_id, batch.batch_id
        HAVING batch.settled_count <> count(settled.position)
            OR batch.settled_count <> count(DISTINCT settled.position)
            OR max(settled.position) >= batch.lines_count
    """,
}


def violations(read: Callable[[str], Rows]) -> dict[str, Rows]:
    """Return which invariants do not hold, with the offending rows.

    Shapes:  ``read`` runs a query and returns its rows, as ``Hq.sql`` does.
    """
    found = {name: read(query) for name, query in INVARIANTS.items()}
    return {name: rows[:10] for name, rows in found.items() if rows}


def assert_invariants(read: Callable[[str], Rows]) -> None:
    """Fail with the offending rows unless every invariant holds."""
    found = violations(read)
    assert not found, found
