"""What is checked after each part: a run that measured something else than it says is void."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.cards import BALANCE_MINOR
from benchmarks.measuring import Stage
from benchmarks.postgres import Database, Unmeasurable, Updates, connect, require_durable

HOT_SHARE_MIN = 0.95

# Of every card that was touched: its balance is what it was filled with and all that was posted,
# and it was changed as often as there are postings.
WRONG_CARDS = f"""
SELECT count(*)
  FROM (SELECT bucket, instrument_id, sum(change_minor) AS change_minor, count(*) AS postings
          FROM postings GROUP BY bucket, instrument_id) AS posted
  JOIN instruments USING (bucket, instrument_id)
 WHERE balance_minor <> {BALANCE_MINOR} + posted.change_minor
    OR version <> posted.postings
"""


@dataclass(frozen=True, slots=True)
class Baseline:
    """How a database was before a part."""

    updates: Updates
    deadlocks: int


NEW_DATABASE = Baseline(Updates(0, 0), 0)


def baselines_of(stage: Stage) -> dict[str, Baseline]:
    """Return how all databases are now, by URL."""
    return {one.url: Baseline(one.updates(), one.deadlocks()) for one in stage.databases}


def check(stage: Stage, part: str, before: Mapping[str, Baseline]) -> dict[str, Any]:
    """Check all databases after a part, whose servers have ended; note what is wrong as a fault.

    Returns: what was found, for the record.
    """
    found = {
        "posted": 0,
        "updates": 0,
        "hot_updates": 0,
        "deadlocks": 0,
        "faults": len(stage.faults),
    }
    for database in stage.databases:
        baseline = before.get(database.url, NEW_DATABASE)
        updates = database.updates()
        found["posted"] += _check_sums(stage, part, database)
        found["updates"] += updates.total - baseline.updates.total
        found["hot_updates"] += updates.hot - baseline.updates.hot
        found["deadlocks"] += database.deadlocks() - baseline.deadlocks
    if found["deadlocks"]:
        stage.faults.append(f"{part}: {found['deadlocks']} deadlocks.")
    if found["updates"] and found["hot_updates"] < HOT_SHARE_MIN * found["updates"]:
        stage.faults.append(
            f"{part}: only {found['hot_updates'] / found['updates']:.1%} of the updates of"
            f" instruments stayed within their page (HOT); {HOT_SHARE_MIN:.0%} must."
        )
    _check_durability(stage, part)
    share = found["hot_updates"] / found["updates"] if found["updates"] else None
    return {**found, "hot_share": share, "faults": len(stage.faults)}


def _check_sums(stage: Stage, part: str, database: Database) -> int:
    """Compare balances with postings, and postings with what was asked for."""
    posted = int(database.value("SELECT count(*) FROM postings"))
    change = int(database.value("SELECT coalesce(sum(change_minor), 0) FROM postings"))
    balance = int(database.value("SELECT sum(balance_minor) FROM instruments"))
    moved = balance - database.initial_balance_minor
    if moved != change:
        stage.faults.append(
            f"{part}: the postings come to {change}, but the balances changed by {moved}."
        )
    wrong = int(database.value(WRONG_CARDS))
    if wrong:
        stage.faults.append(f"{part}: the balance of {wrong} cards is not what was posted.")
    if posted != database.expected_postings:
        stage.faults.append(
            f"{part}: {posted} postings instead of {database.expected_postings}:"
            " something was not done, or done twice."
        )
    return posted


def _check_durability(stage: Stage, part: str) -> None:
    with connect(stage.database.url) as connection:
        rows = connection.execute(
            "SELECT name, setting FROM pg_settings"
            " WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes')"
        ).fetchall()
    try:
        require_durable(dict(rows))
    except Unmeasurable as error:
        stage.faults.append(f"{part}: {error}")
