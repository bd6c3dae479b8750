"""What PostgreSQL alone can do on the same tables, driven by pgbench.

Each floor is fixed work on distinct cards, as the load over HTTP is. A redemption and a denied lock
are the service's own statements.
"""

from __future__ import annotations

import re
import resource
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cards import stride_of
from benchmarks.company import Till
from benchmarks.postgres import Database
from hq_service.embedded_postgres.programs import find_binaries, program_environment
from hq_service.operations import keys
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


def with_values(name: str, *values: str) -> str:
    """Return a statement of the service with expressions in the place of ``$1``, ``$2``, ..."""
    return re.sub(r"\$(\d+)", lambda match: values[int(match[1]) - 1], statement(name))


# The caller is who signs in with this key; the secret is known by its SHA-256.
CALLER = (":key_id::text", "decode(:secret_sha256, 'hex')", ":store_id::text", ":terminal_id::text")

# The service's own statement, for a card that is locked for its line.
REDEEM = NEXT_PLACE + with_values(
    "redeem_at_once",
    *CALLER,
    f"({TRANSACTION})",
    "1",
    f"bench_bucket({CARD})",
    CARD,
    LOCK,
    "10::bigint",
    "'SEK'",
    "now()",
)

# As the row-commit floor of a batch: see batches.ROW_BY_ROW.
SETTLE_ONE = f"""\\set i :i + 1
\\set turn case when :i % 10 = 0 then :first + :i / 10 % {HOT_CARDS} else :first + :i - 1 end
\\set place :turn * :stride % :counted
SELECT settle_one(bench_bucket({CARD}), {CARD}, 'floor' || :run::text || '-' || :i::text, 10, now())
"""

# The service's own statement, for a card that is locked by another till.
_DENIED = (
    *CALLER,
    ":transaction_id::text",
    "1",
    ":bucket::int",
    ":instrument_id::uuid",
    "'gift_card'",
    "gen_random_uuid()",
    "now()",
    "NULL",
    "NULL",
    "true",
    "1",
    "1",
)
DENIED_LOCK = with_values("lock_at_once", *_DENIED)
DENIED_LOCK_FOR_UPDATE = f"SELECT bench_lock_for_update({', '.join(_DENIED)})\n"
# The same behind the lock of the row, in one round trip.
LOCK_FOR_UPDATE_FUNCTION = """
CREATE OR REPLACE FUNCTION bench_lock_for_update(
    p_key_id text, p_secret bytea, p_store_id text, p_terminal_id text, p_transaction_id text,
    p_line int, p_bucket int, p_instrument_id uuid, p_kind text, p_lock_id uuid, p_at timestamptz,
    p_until timestamptz, p_revision int, p_support boolean, p_acknowledged int,
    p_parameters int
) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE told record;
BEGIN
    PERFORM 1 FROM instruments
      WHERE bucket = p_bucket AND instrument_id = p_instrument_id
        FOR UPDATE;
    SELECT * INTO told FROM lock_at_once(
        p_key_id, p_secret, p_store_id, p_terminal_id, p_transaction_id, p_line, p_bucket,
        p_instrument_id, p_kind, p_lock_id, p_at, p_until, p_revision, p_support, p_acknowledged,
        p_parameters
    );
    RETURN told.lock_id;
END $$
"""


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


def caller_of(till: Till) -> dict[str, object]:
    """Return the variables of a till that signs in."""
    presented = keys.presented(till.key)
    assert presented is not None  # it was made as a key
    return {
        "key_id": presented.key_id,
        "secret_sha256": presented.secret_sha256.hex(),
        "store_id": till.store_id,
        "terminal_id": till.terminal_id,
    }
