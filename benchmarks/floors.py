"""What PostgreSQL alone can do on the same tables, driven by pgbench.

Each floor is fixed work on distinct cards, as the load over HTTP is. The least that a redemption
must write is one statement; a denied lock asks what the service asks.
"""

from __future__ import annotations

import re
import resource
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cards import stride_of
from benchmarks.postgres import Database
from hq_service.embedded_postgres.programs import find_binaries, program_environment
from hq_service.store.statements import statement

HOT_CARDS = 50
"""Every tenth line of a batch is on one of so many cards."""

CARD = "md5('card' || :place::text)::uuid"
TRANSACTION = "'floor' || :run::text || '-' || :place::text"
LOCK = f"md5('lock' || {TRANSACTION})::uuid"

# The place of the next card: each session of pgbench has a range of its own.
NEXT_PLACE = """\\set i :i + 1
\\set place (:first + :client_id * :each + :i - 1) * :stride % :counted
"""

SELECT_BY_KEY = NEXT_PLACE + (
    statement("read_instrument")
    .replace("%(bucket)s", f"bench_bucket({CARD})")
    .replace("%(instrument_id)s", CARD)
)

# Guarded by the very lock; the card is freed, the lock struck off the list, the change posted.
REDEEM = f"""{NEXT_PLACE}
WITH card AS (
    UPDATE instruments
       SET balance_minor = balance_minor - 10, version = version + 1,
           lock_id = NULL, lock_store_id = NULL, lock_terminal_id = NULL,
           lock_transaction_id = NULL, lock_line = NULL, lock_purpose = NULL,
           lock_amount_minor = NULL, locked_at = NULL, lock_grant_until = NULL,
           lock_grant_revision = NULL
     WHERE bucket = bench_bucket({CARD}) AND instrument_id = {CARD}
       AND lock_id = {LOCK} AND lock_store_id = 'S001' AND lock_terminal_id = 'T01'
       AND lock_transaction_id = {TRANSACTION} AND lock_line = 1 AND lock_purpose = 'redeem'
       AND status = 'active' AND currency = 'SEK' AND balance_minor >= 10
    RETURNING bucket, instrument_id, version, balance_minor
), freed AS (
    DELETE FROM live_locks AS live USING card
     WHERE live.bucket = card.bucket AND live.instrument_id = card.instrument_id
       AND live.lock_id = {LOCK}
), posted AS (
    INSERT INTO postings (bucket, instrument_id, version, store_id, terminal_id, transaction_id,
        line, entry, operation, currency, amount_minor, funded_minor, shortfall_minor,
        change_minor, balance_after_minor, codes, posted_at, concluded_at, lock_id, locked_at)
    SELECT bucket, instrument_id, version, 'S001', 'T01', {TRANSACTION}, 1, 'original', 'redeem',
           'SEK', 10, 10, 0, -10, balance_minor, '{{}}', now(), now(), {LOCK}, now()
      FROM card
)
SELECT balance_minor FROM card
"""

# As the row-commit floor of a batch: see batches.ROW_BY_ROW.
SETTLE_ONE = f"""\\set i :i + 1
\\set turn case when :i % 10 = 0 then :first + :i / 10 % {HOT_CARDS} else :first + :i - 1 end
\\set place :turn * :stride % :counted
SELECT settle_one(bench_bucket({CARD}), {CARD}, 'floor' || :run::text || '-' || :i::text, 10, now())
"""

# What the service asks before it refuses: plain reads, nothing written, no row lock.
DENIED_LOCK_STATEMENTS = ("read_instrument", "read_lock_facts")
_NAMED = re.compile(r"%\((\w+)\)s")

# The same questions asked behind the lock of the row, in one round trip.
_DENIED_LOCK_FUNCTION = """
CREATE OR REPLACE FUNCTION bench_denied_lock(
    p_bucket int, p_instrument_id uuid, p_store_id text, p_terminal_id text,
    p_transaction_id text, p_line int, p_holder_store_id text, p_holder_terminal_id text,
    p_holder_transaction_id text, p_holder_line int
) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE card record; facts record;
BEGIN
    {read_instrument} FOR UPDATE INTO card;
    {read_lock_facts} INTO facts;
    RETURN card.lock_id;
END $$
"""
DENIED_LOCK_FOR_UPDATE = (
    "SELECT bench_denied_lock(:bucket, :instrument_id, :store_id, :terminal_id, :transaction_id,"
    " :line, :holder_store_id, :holder_terminal_id, :holder_transaction_id, :holder_line)\n"
)


def denied_lock() -> str:
    """Return the script of a denied lock as the service does it."""
    return ";\n".join(_NAMED.sub(r":\1", statement(name)) for name in DENIED_LOCK_STATEMENTS)


def denied_lock_for_update_function() -> str:
    """Return the function that `DENIED_LOCK_FOR_UPDATE` calls."""
    bodies = {
        name: _NAMED.sub(r"p_\1", statement(name)).rstrip() for name in DENIED_LOCK_STATEMENTS
    }
    return _DENIED_LOCK_FUNCTION.format(**bodies)


_RATE = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
_DONE = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
_FAILED = re.compile(r"^number of failed transactions: (\d+)", re.MULTILINE)


class FloorFailed(Exception):
    """pgbench did not do what it was told; the message holds its last words."""


@dataclass(frozen=True, slots=True)
class Floor:
    """What pgbench did; ``cpu_seconds`` is its own share."""

    transactions: int
    per_second: float
    cpu_seconds: float


def run_script(
    database: Database, script: str, transactions: int, sessions: int, **variables: object
) -> Floor:
    """Run a script so many times on a number of sessions, each statement prepared once.

    Shapes:  ``variables`` are the script's own; how it comes from turn to turn, and from there to
             a place, is given here.
    Raises:  FloorFailed.
    """
    each = transactions // sessions
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        places = {"stride": stride_of(database.counted), "counted": database.counted}
        given = {"i": 0, "each": each, **places, **variables}
        defined = [word for name, value in given.items() for word in ("-D", f"{name}={value}")]
        return _pgbench(
            database,
            *("--no-vacuum", "--protocol=prepared", "--jobs=1"),
            *(f"--client={sessions}", f"--transactions={each}", f"--file={file.name}", *defined),
        )


def prepare_tpcb(database: Database, scale: int) -> None:
    """Create the tables of pgbench's own TPC-B-like script."""
    _run(database, "--initialize", "--quiet", f"--scale={scale}")


def run_tpcb(database: Database, transactions: int, sessions: int) -> Floor:
    """Run pgbench's own TPC-B-like script, for comparison with other machines.

    Raises:  FloorFailed.
    """
    return _pgbench(
        database,
        *("--no-vacuum", "--protocol=prepared", "--jobs=1", "--builtin=tpcb-like"),
        *(f"--client={sessions}", f"--transactions={transactions // sessions}"),
    )


def _pgbench(database: Database, *arguments: str) -> Floor:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = _run(database, *arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    rate, done, failed = _RATE.search(told), _DONE.search(told), _FAILED.search(told)
    if rate is None or done is None or (failed is not None and int(failed[1])):
        raise FloorFailed(f"pgbench: {told[-500:]}")
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Floor(int(done[1]), float(rate[1]), cpu_seconds)


def _run(database: Database, *arguments: str) -> str:
    done = subprocess.run(
        [_program(), *arguments],
        env={**program_environment(), **database.environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise FloorFailed(f"pgbench: {done.stderr.strip()[-500:]}")
    return done.stdout


def _program() -> Path:
    program = find_binaries() / "pgbench"
    if not program.exists():
        raise FloorFailed(
            f"There is no pgbench beside the other programs in {program.parent}; install"
            " PostgreSQL's contrib programs, or unset HQ_PG_BIN."
        )
    return program


def variables_of_denial(values: Mapping[str, object]) -> dict[str, object]:
    """Return what a denied lock asks for, under the names of the service's statements."""
    names = {name for one in DENIED_LOCK_STATEMENTS for name in _NAMED.findall(statement(one))}
    return {name: values[name] for name in sorted(names)}
