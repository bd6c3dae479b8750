"""What must be true of the database at any moment, as queries that must return no row.

Fault and race tests ask after every scenario; none of the queries writes or locks anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Rows = list[tuple[Any, ...]]

KEY = "store_id, terminal_id, transaction_id, line"

# What the lines of batches came to, each a row, as it is told to their sender.
SETTLED = """
    SELECT kept.store_id, kept.batch_id, (one ->> 0)::int AS position, one ->> 1 AS terminal_id,
           one ->> 2 AS transaction_id, (one ->> 3)::int AS line,
           (one ->> 4)::uuid AS instrument_id, one ->> 5 AS outcome,
           one ->> 6 AS original_outcome, one -> 7 AS codes, (one ->> 8)::bigint AS funded_minor,
           (one ->> 9)::bigint AS shortfall_minor, (one ->> 11)::uuid AS case_id
      FROM offline_batch_results AS kept
     CROSS JOIN jsonb_array_elements(convert_from(kept.results, 'UTF8')::jsonb) AS told (one)
"""
# And what they were, as they were received.
RECEIVED = """
    SELECT part.store_id, part.batch_id, (one ->> 0)::int AS position, one ->> 4 AS operation,
           one ->> 8 AS status
      FROM offline_batch_parts AS part
     CROSS JOIN jsonb_array_elements(convert_from(part.lines, 'UTF8')::jsonb) AS told (one)
"""

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
    "each posting and each live lock has its instrument, in its bucket": """
        SELECT 'posting', posting.bucket, posting.instrument_id
          FROM postings AS posting
          LEFT JOIN instruments AS instrument USING (bucket, instrument_id)
         WHERE instrument.instrument_id IS NULL
         UNION ALL
        SELECT 'live lock', live.bucket, live.instrument_id
          FROM live_locks AS live
          LEFT JOIN instruments AS instrument USING (bucket, instrument_id)
         WHERE instrument.instrument_id IS NULL
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
    "debits are credits": """
        SELECT store_id, currency, sum(debit_minor), sum(credit_minor)
          FROM ledger_entries
         GROUP BY store_id, currency
        HAVING sum(debit_minor) <> sum(credit_minor)
    """,
    "the account of shortfalls is what the open cases are about": """
        SELECT store_id, currency, booked.minor, doubted.minor
          FROM (SELECT store_id, currency, sum(debit_minor - credit_minor) AS minor
                  FROM ledger_entries
                 WHERE account = 'offline_shortfall'
                 GROUP BY store_id, currency) AS booked
          FULL JOIN (SELECT store_id, currency, sum(shortfall_minor - recovered_minor) AS minor
                       FROM cases
                      WHERE resolved_at IS NULL AND shortfall_minor > 0
                      GROUP BY store_id, currency) AS doubted
         USING (store_id, currency)
         WHERE coalesce(booked.minor, 0) <> coalesce(doubted.minor, 0)
    """,
    # The reversal of a credit falls short under the name of its void; that of a debit cancels a
    # shortfall and has none. What an administrator posted under HQ's own key is named after its
    # case. A case that was decided may say another amount: then somebody else has covered it.
    "a shortfall has exactly one case": """
        SELECT posting.instrument_id, posting.version, posting.shortfall_minor, count(one.case_id)
          FROM (SELECT *,
                       CASE entry WHEN 'reversal' THEN 'void' ELSE operation END AS told_operation
                  FROM postings
                 WHERE shortfall_minor > 0
                   AND NOT (entry = 'reversal' AND operation IN ('redeem', 'cash_out'))) AS posting
          LEFT JOIN cases AS one
            ON one.outcome = 'applied'
           AND one.operation = posting.told_operation
           AND one.instrument_id = posting.instrument_id
           AND one.amount_minor = posting.amount_minor
           AND one.currency = posting.currency
           AND (one.shortfall_minor = posting.shortfall_minor OR one.resolved_at IS NOT NULL)
           AND CASE posting.entry
               WHEN 'resolution' THEN replace(one.case_id::text, '-', '') = posting.transaction_id
               ELSE (one.store_id, one.terminal_id, one.transaction_id, one.line)
                  = (posting.store_id, posting.terminal_id, posting.transaction_id, posting.line)
               END
         GROUP BY posting.bucket, posting.instrument_id, posting.version, posting.shortfall_minor
        HAVING count(one.case_id) <> 1
    """,
    "a held or quarantined line has its case": f"""
        SELECT store_id, batch_id, position, case_id
          FROM (SELECT store_id, batch_id, position, case_id
                  FROM ({SETTLED}) AS settled
                 WHERE outcome IN ('held', 'quarantined')
                 UNION ALL
                SELECT store_id, batch_id, position, case_id
                  FROM held_lines
                 UNION ALL
                SELECT store_id, batch_id, position, case_id
                  FROM quarantined_lines) AS doubtful
         WHERE NOT EXISTS (SELECT 1 FROM cases WHERE cases.case_id = doubtful.case_id)
    """,
    "what is told to be held or quarantined has a row of its own": f"""
        SELECT told.store_id, told.batch_id, told.position, told.outcome, own.outcome
          FROM (SELECT * FROM ({SETTLED}) AS settled
                 WHERE outcome IN ('held', 'quarantined')) AS told
          FULL JOIN (SELECT store_id, batch_id, position, case_id, 'held' AS outcome
                       FROM held_lines
                      UNION ALL
                     SELECT store_id, batch_id, position, case_id, 'quarantined'
                       FROM quarantined_lines) AS own
            ON (own.store_id, own.batch_id, own.position, own.case_id, own.outcome)
             = (told.store_id, told.batch_id, told.position, told.case_id, told.outcome)
         WHERE told.position IS NULL OR own.position IS NULL
    """,
    "an applied redemption has its posting": f"""
        SELECT settled.store_id, settled.batch_id, settled.position
          FROM ({SETTLED}) AS settled
          JOIN ({RECEIVED}) AS received USING (store_id, batch_id, position)
         WHERE settled.outcome = 'applied'
           AND received.operation = 'redeem'
           AND received.status = 'concluded'
           AND NOT settled.codes ? 'voided'
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
          FROM ({SETTLED}) AS settled
          JOIN ({RECEIVED}) AS received USING (store_id, batch_id, position)
         WHERE outcome = 'applied' AND operation = 'redeem' AND status = 'concluded'
           AND NOT codes ? 'voided'
         GROUP BY {KEY}
        HAVING count(*) > 1
    """,
    "what leaves a used memo arrives on its remainder": """
        SELECT gone.instrument_id, gone.funded_minor, arrived.instrument_id, arrived.funded_minor
          FROM (SELECT * FROM postings
                 WHERE entry = 'remainder_out' AND related_instrument_id IS NOT NULL) AS gone
          FULL JOIN (SELECT * FROM postings
                      WHERE entry = 'remainder_in'
                        AND related_instrument_id IS NOT NULL) AS arrived
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
    "a voided line was reversed": """
        SELECT posting.store_id, posting.terminal_id, posting.transaction_id, posting.line
          FROM voids
          JOIN postings AS posting USING (store_id, terminal_id, transaction_id, line)
         WHERE posting.entry = 'original'
           AND NOT EXISTS (SELECT 1
                             FROM postings AS reversal
                            WHERE reversal.entry = 'reversal'
                              AND (reversal.store_id, reversal.terminal_id,
                                   reversal.transaction_id, reversal.line)
                                = (posting.store_id, posting.terminal_id,
                                   posting.transaction_id, posting.line))
           AND NOT EXISTS (SELECT 1
                             FROM voids AS original
                            WHERE (original.store_id, original.terminal_id,
                                   original.transaction_id, original.line)
                                = (posting.original_store_id, posting.original_terminal_id,
                                   posting.original_transaction_id, posting.original_line))
    """,
    # What was recovered for a line that an administrator applied under the same key is not the
    # voided line's: it has a case of its own, about other content. What an administrator refunded
    # after the void, they gave all the same.
    "a voided line and its refunds give back what it took": """
        SELECT taken.store_id, taken.terminal_id, taken.transaction_id, taken.line,
               taken.funded_minor, back.change_minor, given.recovered_minor, given.refunded_minor
          FROM postings AS back
          JOIN postings AS taken
            ON taken.entry = 'original'
           AND taken.operation IN ('redeem', 'cash_out')
           AND (taken.store_id, taken.terminal_id, taken.transaction_id, taken.line)
             = (back.store_id, back.terminal_id, back.transaction_id, back.line)
         CROSS JOIN LATERAL (
               SELECT coalesce(sum(other.amount_minor)
                               FILTER (WHERE covered.case_id IS NOT NULL), 0)
                           AS recovered_minor,
                      coalesce(sum(other.amount_minor)
                               FILTER (WHERE other.entry = 'original'
                                         AND undone.version IS NULL), 0) AS refunded_minor
                 FROM postings AS other
                 LEFT JOIN cases AS covered
                   ON other.operation = 'recover'
                  AND replace(covered.case_id::text, '-', '') = other.transaction_id
                  AND (covered.operation, covered.instrument_id, covered.amount_minor)
                    = (taken.operation, taken.instrument_id, taken.amount_minor)
                 LEFT JOIN postings AS undone
                   ON undone.entry = 'reversal'
                  AND (undone.store_id, undone.terminal_id, undone.transaction_id, undone.line)
                    = (other.store_id, other.terminal_id, other.transaction_id, other.line)
                WHERE other.entry <> 'reversal'
                  AND NOT ('applied_by_hand' = ANY (other.codes)
                           AND other.posted_at > back.posted_at)
                  AND (other.original_store_id, other.original_terminal_id,
                       other.original_transaction_id, other.original_line)
                    = (taken.store_id, taken.terminal_id, taken.transaction_id, taken.line)
               ) AS given
         WHERE back.entry = 'reversal'
           AND back.change_minor
               <> taken.funded_minor + given.recovered_minor - given.refunded_minor
    """,
    "what was forfeited comes back once and in full": """
        SELECT back.instrument_id, back.version, back.change_minor, gone.change_minor
          FROM (SELECT * FROM postings
                 WHERE entry = 'remainder_in' AND related_instrument_id IS NULL) AS back
          LEFT JOIN postings AS gone
            ON gone.entry = 'remainder_out'
           AND gone.instrument_id = back.instrument_id
           AND gone.related_instrument_id IS NULL
           AND (gone.store_id, gone.terminal_id, gone.transaction_id, gone.line)
             = (back.store_id, back.terminal_id, back.transaction_id, back.line)
         WHERE back.change_minor IS DISTINCT FROM -gone.change_minor
    """,
    "a used memo leads to each memo that its rest went to": """
        SELECT memo.instrument_id, memo.remainder_id, gone.related_instrument_id
          FROM (SELECT bucket, instrument_id, remainder_id
                  FROM instruments
                 WHERE remainder_id IS NOT NULL) AS memo
          FULL JOIN (SELECT bucket, instrument_id, related_instrument_id
                       FROM postings
                      WHERE entry = 'remainder_out' AND related_instrument_id IS NOT NULL) AS gone
            ON gone.bucket = memo.bucket
           AND gone.instrument_id = memo.instrument_id
           AND gone.related_instrument_id = memo.remainder_id
         WHERE memo.instrument_id IS NULL OR gone.instrument_id IS NULL
    """,
    "the rest of a memo is the rest of that one alone": """
        SELECT remainder_id, count(*)
          FROM instruments
         WHERE remainder_id IS NOT NULL
         GROUP BY remainder_id
        HAVING count(*) > 1
    """,
    # A number leads on only from memos that are used, and a used one is worth nothing: whatever
    # was on the first memo is where its number leads, or was spent on the way there.
    "the number of a used memo leads on to money that is there": """
        WITH RECURSIVE chain (first_id, at_id, depth) AS (
            SELECT instrument_id, remainder_id, 1
              FROM instruments
             WHERE remainder_id IS NOT NULL
             UNION ALL
            SELECT chain.first_id, memo.remainder_id, chain.depth + 1
              FROM chain
              JOIN instruments AS memo ON memo.instrument_id = chain.at_id
             WHERE memo.remainder_id IS NOT NULL AND chain.depth < 200
        )
        SELECT chain.first_id, chain.at_id, chain.depth, rest.status, rest.version
          FROM chain
          JOIN instruments AS memo ON memo.instrument_id = chain.first_id
          LEFT JOIN instruments AS rest ON rest.instrument_id = chain.at_id
         WHERE rest.instrument_id IS NULL
            OR rest.kind <> 'credit_memo'
            OR rest.currency <> memo.currency
            OR rest.version = 0
            OR rest.status = 'pending'
            OR memo.status = 'pending'
            OR chain.at_id = chain.first_id
            OR chain.depth >= 200
    """,
    "a batch counts the lines that are stored": f"""
        SELECT batch.store_id, batch.batch_id, batch.settled_count, count(settled.position)
          FROM offline_batches AS batch
          LEFT JOIN ({SETTLED}) AS settled USING (store_id, batch_id)
         GROUP BY batch.store_id, batch.batch_id
        HAVING batch.settled_count <> count(settled.position)
            OR batch.settled_count <> count(DISTINCT settled.position)
            OR max(settled.position) >= batch.lines_count
    """,
    "a chunk says what is in it": """
        SELECT kept.store_id, kept.batch_id, kept.settled_before, kept.counts
          FROM offline_batch_results AS kept
         CROSS JOIN LATERAL (
               SELECT count(*) AS lines_count, min((one ->> 0)::int) AS first_position,
                      max((one ->> 0)::int) AS last_position,
                      sum((one ->> 5 = 'applied')::int) AS applied,
                      sum((one ->> 5 = 'duplicate')::int) AS duplicate,
                      sum((one ->> 5 = 'held')::int) AS held,
                      sum((one ->> 5 = 'quarantined')::int) AS quarantined
                 FROM jsonb_array_elements(convert_from(kept.results, 'UTF8')::jsonb) AS t (one)
               ) AS found
          LEFT JOIN offline_batch_results AS behind
            ON behind.store_id = kept.store_id
           AND behind.batch_id = kept.batch_id
           AND behind.settled_before = kept.settled_before + found.lines_count
          JOIN offline_batches AS batch
            ON batch.store_id = kept.store_id AND batch.batch_id = kept.batch_id
         WHERE (found.first_position, found.last_position)
               <> (kept.first_position, kept.last_position)
            OR found.applied <> coalesce((kept.counts ->> 'applied')::int, 0)
            OR found.duplicate <> coalesce((kept.counts ->> 'duplicate')::int, 0)
            OR found.held <> coalesce((kept.counts ->> 'held')::int, 0)
            OR found.quarantined <> coalesce((kept.counts ->> 'quarantined')::int, 0)
            OR (behind.batch_id IS NULL
                AND kept.settled_before + found.lines_count <> batch.settled_count)
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
