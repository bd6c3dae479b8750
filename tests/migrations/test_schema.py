"""The migrations make what the code expects, and the catalogue keeps the rules that let it grow.

The rules for hot tables are those of docs/architecture.md: with them the same schema runs
distributed by ``bucket``, which no test here can try.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool

from hq_service.domain.numbers import bucket_of
from hq_service.store.readiness import SCHEMA_HEAD
from hq_service.store.tables import HOT_TABLES, Base
from tests.conftest import Server
from tests.support import psycopg_url

ROOT = Path(__file__).resolve().parents[2]
PARALLEL_UPGRADES = 5
# `hq db migrate`, its imports done before: five that start together and not one after the other.
UPGRADE_WHEN_TOLD = """
import sys
from hq_service.cli import main
print("ready", flush=True)
sys.stdin.readline()
main(["db", "migrate"])
"""
CHECK, UNIQUE, FOREIGN = "23514", "23505", "23503"


# --- the migrations -------------------------------------------------------------------------------


def configuration(url: str) -> Config:
    found = Config(toml_file=ROOT / "pyproject.toml")
    found.attributes["database_url"] = url
    return found


@pytest.fixture
def empty(server: Server) -> str:
    """An empty database of its own."""
    return server.create_database(f"hq_empty_{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="module")
def catalogue(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(psycopg_url(database_url), autocommit=True) as connection:
        yield connection


def rows(connection: psycopg.Connection[Any], query: str, *values: Any) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode(), values or None).fetchall()


def tables_of(url: str) -> set[str]:
    with psycopg.connect(psycopg_url(url), autocommit=True) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {row[0] for row in rows}


def test_there_is_one_head_and_readiness_asks_for_it() -> None:
    assert ScriptDirectory.from_config(configuration("")).get_heads() == [SCHEMA_HEAD]


def test_every_migration_has_a_sentence_and_a_way_back() -> None:
    for revision in ScriptDirectory.from_config(configuration("")).walk_revisions():
        assert revision.doc.endswith("."), revision.revision
        assert hasattr(revision.module, "downgrade"), revision.revision


def test_the_migrated_database_is_what_the_code_maps(database_url: str) -> None:
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_nullability_and_collation_are_mapped_as_they_are(
    catalogue: psycopg.Connection[Any],
) -> None:
    # What the comparison above passes over, or may: stated column by column.
    columns = rows(
        catalogue,
        "SELECT table_name, column_name, is_nullable = 'YES', collation_name"
        " FROM information_schema.columns JOIN information_schema.tables"
        " USING (table_schema, table_name)"
        " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
        " AND table_name <> 'alembic_version'",
    )
    found = {(table, name): (nullable, collation) for table, name, nullable, collation in columns}
    mapped = {
        (table.name, column.name): (column.nullable, getattr(column.type, "collation", None))
        for table in Base.metadata.sorted_tables
        for column in table.columns
    }
    assert found == mapped


def test_every_name_that_is_part_of_a_key_compares_byte_by_byte(
    catalogue: psycopg.Connection[Any],
) -> None:
    otherwise = rows(
        catalogue,
        "SELECT DISTINCT c.relname || '.' || a.attname FROM pg_index AS i"
        " JOIN pg_class AS c ON c.oid = i.indrelid"
        " JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)"
        " JOIN pg_collation AS o ON o.oid = a.attcollation"
        " WHERE c.relnamespace = 'public'::regnamespace AND o.collname <> 'C'",
    )
    # A word of the code's own, compared for equality only; and the tool's own table.
    assert set(otherwise) == {("postings.entry",), ("alembic_version.version_num",)}


def test_up_down_and_up_again_leaves_the_same(empty: str, database_url: str) -> None:
    target = tables_of(database_url)
    command.upgrade(configuration(empty), "head")
    assert tables_of(empty) == target
    command.downgrade(configuration(empty), "base")
    assert tables_of(empty) == {"alembic_version"}
    command.upgrade(configuration(empty), "head")
    assert tables_of(empty) == target


def test_checks_that_became_functions_come_back_word_for_word(empty: str) -> None:
    checks = (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated"
        " FROM pg_constraint WHERE contype = 'c' ORDER BY 1, 2"
    )
    command.upgrade(configuration(empty), "0006")
    with psycopg.connect(psycopg_url(empty), autocommit=True) as connection:
        before = rows(connection, checks)
        command.upgrade(configuration(empty), "head")
        command.downgrade(configuration(empty), "0006")
        assert rows(connection, checks) == before
    assert sum(table in ("instruments", "postings") for table, *_ in before) == 23


def test_an_upgrade_looks_at_the_rows_that_are_there(empty: str) -> None:
    command.upgrade(configuration(empty), "0006")
    with psycopg.connect(psycopg_url(empty), autocommit=True) as connection:
        rule = "ck_instruments_balance_not_negative"
        connection.execute(f"ALTER TABLE instruments DROP CONSTRAINT {rule}".encode())
        insert(connection, "instruments", {**GOOD["instruments"], "balance_minor": -1})
        connection.execute(
            f"ALTER TABLE instruments ADD CONSTRAINT {rule}"
            " CHECK (balance_minor >= 0) NOT VALID".encode()
        )
    with pytest.raises(IntegrityError, match=rule):
        command.upgrade(configuration(empty), "head")


def test_upgrading_what_is_up_to_date_changes_nothing(empty: str) -> None:
    command.upgrade(configuration(empty), "head")
    command.upgrade(configuration(empty), "head")
    assert "instruments" in tables_of(empty)


def test_replicas_that_upgrade_at_the_same_moment_all_succeed(empty: str) -> None:
    environment = {
        **os.environ,
        "DATABASE_URL": psycopg_url(empty),
        "HQ_NUMBER_SECRET": "00" * 32,
        "HQ_GRANT_KEYS": f"k1:{'00' * 32}",
    }
    upgrading = [
        subprocess.Popen(
            [sys.executable, "-c", UPGRADE_WHEN_TOLD],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(PARALLEL_UPGRADES)
    ]
    for one in upgrading:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in upgrading:
        assert one.stdin is not None
        one.stdin.write("now\n")
        one.stdin.flush()
    told = [(one.communicate(timeout=60)[0], one.returncode) for one in upgrading]
    assert [code for _, code in told] == [0] * PARALLEL_UPGRADES, told
    with psycopg.connect(psycopg_url(empty), autocommit=True) as connection:
        versions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    assert versions == [(SCHEMA_HEAD,)]


# --- the catalogue: what hot tables may have ------------------------------------------------------

# Keys that do not begin with the bucket, and why.
BUCKET_NOT_FIRST = {
    # The business key alone must find a posting, on whatever instrument it is.
    "uq_postings_business_key",
    "uq_postings_business_key_and_entry",
    "pk_voids",
    # Held lines are found by key or by batch and never by bucket.
    "pk_held_lines",
}
# Tables whose rows are made from an instrument id that HQ has not looked up: they check the bucket
# themselves.
CHECK_THE_BUCKET = {"instruments", "voids", "held_lines"}
# Tables whose rows are written for every sale, by the statement that changes the instrument or
# behind its row lock: neither. The invariants of the tests look at their buckets.
WRITTEN_WITH_THE_INSTRUMENT = {"postings", "live_locks"}
# What a lock or a redemption changes on an instrument. An index on it would end HOT updates.
CHANGED_BY_TRADE = {
    "balance_minor",
    "version",
    "status",
    "remainder_id",
    "lock_id",
    "lock_store_id",
    "lock_terminal_id",
    "lock_transaction_id",
    "lock_line",
    "lock_purpose",
    "lock_amount_minor",
    "locked_at",
    "lock_grant_until",
    "lock_grant_revision",
}
KEYS = """
SELECT i.relname, x.indisunique,
       ARRAY (SELECT a.attname::text FROM unnest(x.indkey) WITH ORDINALITY AS k (n, place)
                JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.n
               ORDER BY k.place),
       pg_get_expr(x.indexprs, x.indrelid), pg_get_expr(x.indpred, x.indrelid)
  FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid
 WHERE x.indrelid = %s::regclass
"""
FOREIGN_KEYS = """
SELECT f.conname, f.confrelid::regclass::text,
       ARRAY (SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY AS k (n, place)
                JOIN pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = k.n
               ORDER BY k.place)
  FROM pg_constraint AS f WHERE f.contype = 'f' AND f.conrelid = %s::regclass
"""


@pytest.mark.parametrize("table", HOT_TABLES)
def test_a_hot_table_has_a_bucket_in_every_key(
    catalogue: psycopg.Connection[Any], table: str
) -> None:
    [(data_type, is_required)] = rows(
        catalogue,
        "SELECT atttypid::regtype::text, attnotnull FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attname = 'bucket'",
        table,
    )
    assert (data_type, is_required) == ("integer", True)
    keys = [key for key in rows(catalogue, KEYS, table) if key[1]]
    assert keys
    for name, _, columns, *_ in keys:
        assert "bucket" in columns, name
        assert columns[0] == "bucket" or name in BUCKET_NOT_FIRST, name


def test_the_keys_that_begin_otherwise_are_there(catalogue: psycopg.Connection[Any]) -> None:
    names = {name for table in HOT_TABLES for name, *_ in rows(catalogue, KEYS, table)}
    assert names >= BUCKET_NOT_FIRST


@pytest.mark.parametrize("table", HOT_TABLES)
def test_a_hot_table_refers_to_hot_tables_by_bucket_and_to_cold_ones_not_at_all(
    catalogue: psycopg.Connection[Any], table: str
) -> None:
    for name, referred, columns in rows(catalogue, FOREIGN_KEYS, table):
        assert referred in HOT_TABLES, name
        assert columns[0] == "bucket", name
        # To the same card and no other: a transfer between cards crosses machines.
        assert columns[1] == "instrument_id", name


def test_an_unknown_instrument_fits_among_the_held_lines(
    catalogue: psycopg.Connection[Any],
) -> None:
    assert rows(catalogue, FOREIGN_KEYS, "held_lines") == []


@pytest.mark.parametrize("table", HOT_TABLES)
def test_a_hot_table_has_nothing_that_runs_by_itself(
    catalogue: psycopg.Connection[Any], table: str
) -> None:
    triggers = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = %s::regclass"
    assert rows(catalogue, triggers, table) == []
    rules = "SELECT rulename FROM pg_rewrite WHERE ev_class = %s::regclass"
    assert rows(catalogue, rules, table) == []
    exclusion = "SELECT conname FROM pg_constraint WHERE contype = 'x' AND conrelid = %s::regclass"
    assert rows(catalogue, exclusion, table) == []
    policies = "SELECT polname FROM pg_policy WHERE polrelid = %s::regclass"
    assert rows(catalogue, policies, table) == []


@pytest.mark.parametrize("table", HOT_TABLES)
def test_a_hot_table_gets_its_ids_and_times_from_the_application(
    catalogue: psycopg.Connection[Any], table: str
) -> None:
    made_here = (
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
        " AND (atthasdef OR attidentity <> '' OR attgenerated <> '')"
    )
    assert rows(catalogue, made_here, table) == []


def test_there_is_no_sequence_and_no_extension(catalogue: psycopg.Connection[Any]) -> None:
    assert rows(catalogue, "SELECT relname FROM pg_class WHERE relkind = 'S'") == []
    assert rows(catalogue, "SELECT extname FROM pg_extension WHERE extname <> 'plpgsql'") == []


def test_no_index_is_on_what_a_sale_changes_of_an_instrument(
    catalogue: psycopg.Connection[Any],
) -> None:
    columns = "SELECT attname FROM pg_attribute WHERE attrelid = 'instruments'::regclass"
    assert {row[0] for row in rows(catalogue, columns)} >= CHANGED_BY_TRADE
    for name, _, indexed, expression, predicate in rows(catalogue, KEYS, "instruments"):
        assert not CHANGED_BY_TRADE & set(indexed), name
        named = set(re.findall(r"\w+", f"{expression} {predicate}"))
        assert not CHANGED_BY_TRADE & named, name


# The text of each CHECK, or of the function that it calls.
CHECKED = """
SELECT coalesce(p.prosrc, pg_get_constraintdef(c.oid)) FROM pg_constraint AS c
  LEFT JOIN pg_depend AS d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid
                          AND d.refclassid = 'pg_proc'::regclass
  LEFT JOIN pg_proc AS p ON p.oid = d.refobjid
 WHERE c.contype = 'c' AND c.conrelid = %s::regclass
"""


@pytest.mark.parametrize("table", HOT_TABLES)
def test_the_bucket_is_that_of_the_instrument(
    catalogue: psycopg.Connection[Any], table: str
) -> None:
    checks = [text for (text,) in rows(catalogue, CHECKED, table) if "bucket" in text]
    if table in CHECK_THE_BUCKET:
        assert len(checks) == 1
        assert "instrument_id" in checks[0]
    elif table in WRITTEN_WITH_THE_INSTRUMENT:
        assert checks == []
    else:
        referred = [columns for _, _, columns in rows(catalogue, FOREIGN_KEYS, table)]
        assert ["bucket", "instrument_id"] in referred


def test_the_database_computes_the_bucket_as_the_code_does(
    catalogue: psycopg.Connection[Any],
) -> None:
    query = (
        "SELECT is_sound_instrument(%s, %s, 'gift_card', 'SEK', '0001', 'active', 0, 0,"
        " NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
    )
    edges = [1, 2**118 - 1, 2**118, 2**128 - 1, 2**127, 0x0123456789ABCDEF << 64]
    for number in [*edges, *(uuid.uuid4().int for _ in range(200))]:
        one = uuid.UUID(int=number)
        assert rows(catalogue, query, bucket_of(one), one) == [(True,)], one
        with pytest.raises(psycopg.errors.CheckViolation) as caught:
            rows(catalogue, query, bucket_of(one) ^ 1, one)
        assert caught.value.diag.constraint_name == "ck_instruments_bucket", one


def test_pages_of_instruments_leave_room_for_updates_in_place(
    catalogue: psycopg.Connection[Any],
) -> None:
    [(options,)] = rows(
        catalogue, "SELECT reloptions FROM pg_class WHERE oid = 'instruments'::regclass"
    )
    fillfactor = dict(option.split("=") for option in options)["fillfactor"]
    assert 80 <= int(fillfactor) <= 85


# --- every named rule of the schema refuses what breaks it ----------------------------------------

CARD, MEMO, CASE = uuid.UUID(int=7 << 118), uuid.UUID(int=8 << 118), uuid.UUID(int=9 << 118)
LOCK, OTHER_LOCK = uuid.UUID(int=10), uuid.UUID(int=11)
AT = "2026-11-20T12:00:00Z"
KEY = {"store_id": "S001", "terminal_id": "T01", "transaction_id": "X1", "line": 1}
HELD = {
    "lock_id": LOCK,
    "lock_store_id": "S001",
    "lock_terminal_id": "T01",
    "lock_transaction_id": "X1",
    "lock_line": 1,
    "lock_purpose": "redeem",
    "lock_amount_minor": 100,
    "locked_at": AT,
}
GRANTED = {"lock_grant_until": AT, "lock_grant_revision": 1}
RESOLVED = {
    "resolution": "absorb",
    "resolved_at": AT,
    "resolved_by": "admin",
    "resolution_reason": "test",
}
ORIGINAL = {
    "original_store_id": "S001",
    "original_terminal_id": "T01",
    "original_transaction_id": "X0",
    "original_line": 1,
}

# One good row of each table, parents first.
GOOD: dict[str, dict[str, Any]] = {
    "number_secret": {"fingerprint": b"f" * 32, "noted_at": AT},
    "stores": {"store_id": "S001", "name": "store", "created_at": AT},
    "terminals": {
        "store_id": "S001",
        "terminal_id": "T01",
        "name": "register",
        "supports_offline": True,
        "created_at": AT,
    },
    "offline_profiles": {
        "offline_profile_id": "P1",
        "name": "profile",
        "version": 1,
        "values": "{}",
        "created_at": AT,
    },
    "terminal_presence": {"store_id": "S001", "terminal_id": "T01"},
    "cache_resets": {
        "cache_reset_id": CARD,
        "store_id": "S001",
        "terminal_id": "T01",
        "reset_at": AT,
        "reset_by": "a",
        "reason": "r",
    },
    "distribution_schedules": {
        "schedule_id": "D1",
        "name": "schedule",
        "version": 1,
        "job_ids": ["1110"],
        "is_active": True,
        "every_seconds": 60,
        "created_at": AT,
    },
    "distribution_runs": {
        "run_id": CARD,
        "schedule_id": "D1",
        "started_at": AT,
        "started_by": "a",
    },
    "distribution_sessions": {
        "session_id": CARD,
        "run_id": CARD,
        "store_id": "S001",
        "job_id": "1110",
        "direction": "download",
        "status": "available",
        "package": b"{}",
        "checksum_sha256": b"s" * 32,
        "created_at": AT,
    },
    "audit_entries": {
        "number": 1,
        "recorded_at": AT,
        "actor": "a",
        "action": "lock_broken",
        "subject": "s",
        "detail": "{}",
        "previous_hash": bytes(32),
        "hash": b"h" * 32,
    },
    "terminal_journals": {
        "store_id": "S001",
        "terminal_id": "T01",
        "journal_id": "J1",
        "arrived": "{[1,8),[9,12)}",
    },
    "parameter_revisions": {
        "revision": 1,
        "store_id": "S001",
        "values": "{}",
        "changes": "{}",
        "reason": "test",
        "changed_at": AT,
        "changed_by": "admin",
    },
    "parameter_acknowledgements": {
        "store_id": "S001",
        "terminal_id": "T01",
        "revision": 1,
        "acknowledged_at": AT,
    },
    "api_keys": {
        "key_id": "k1",
        "secret_sha256": b"s" * 32,
        "role": "terminal",
        "store_id": "S001",
        "terminal_id": "T01",
        "label": "test",
        "created_at": AT,
    },
    "issue_references": {"reference": "R1", "issued_at": AT, "issued_by": "admin"},
    "offline_batches": {
        "store_id": "S001",
        "batch_id": "B1",
        "body_sha256": b"s" * 32,
        "lines_count": 2,
        "received_at": AT,
        "received_by": "sync",
        "parameters_revision": 1,
    },
    "offline_batch_parts": {"store_id": "S001", "batch_id": "B1", "part": 0, "lines": b"[]"},
    "quarantined_lines": {
        "store_id": "S001",
        "batch_id": "B1",
        "position": 0,
        "codes": ["unreadable"],
        "reason": "test",
        "masked_text": "{}",
        "case_id": CASE,
        "settled_at": AT,
    },
    "cases": {
        **KEY,
        "case_id": CASE,
        "outcome": "held",
        "codes": [],
        "operation": "redeem",
        "instrument_id": CARD,
        "amount_minor": 100,
        "shortfall_minor": 60,
        "recovered_minor": 20,
        "currency": "SEK",
        "opened_at": AT,
    },
    "instruments": {
        "bucket": 7,
        "instrument_id": CARD,
        "balance_minor": 100,
        "version": 1,
        "kind": "gift_card",
        "currency": "SEK",
        "number_last4": "0001",
        "status": "active",
        "created_at": AT,
    },
    "live_locks": {
        "bucket": 7,
        "instrument_id": CARD,
        "lock_id": LOCK,
        "store_id": "S001",
        "terminal_id": "T01",
        "locked_at": AT,
        "amount_minor": 100,
    },
    "lock_events": {
        **KEY,
        "bucket": 7,
        "instrument_id": CARD,
        "lock_id": LOCK,
        "purpose": "redeem",
        "amount_minor": 100,
        "locked_at": AT,
        "ended": "released",
        "ended_at": AT,
        "ended_by": "till",
    },
    "postings": {
        **KEY,
        "bucket": 7,
        "instrument_id": CARD,
        "version": 1,
        "amount_minor": 100,
        "funded_minor": 100,
        "shortfall_minor": 0,
        "change_minor": 100,
        "balance_after_minor": 100,
        "posted_at": AT,
        "entry": "original",
        "operation": "issue",
        "currency": "SEK",
        "codes": None,
        "lock_id": LOCK,
        "locked_at": AT,
    },
    "voids": {
        **KEY,
        "bucket": 7,
        "instrument_id": CARD,
        "reason": "test",
        "voided_at": AT,
        "voided_by": "till",
    },
    "offline_batch_results": {
        "store_id": "S001",
        "batch_id": "B1",
        "settled_before": 0,
        "first_position": 0,
        "last_position": 0,
        "settled_at": AT,
        "counts": "{}",
        "journals": "[]",
        "results": b"[]",
    },
    "held_lines": {
        **KEY,
        "bucket": 7,
        "position": 0,
        "instrument_id": CARD,
        "amount_minor": 100,
        "held_at": AT,
        "batch_id": "B1",
        "operation": "redeem",
        "currency": "SEK",
        "codes": ["unknown_instrument"],
        "case_id": CASE,
    },
}
# What makes a row another one, so that nothing but the rule in question is broken.
OTHER: dict[str, dict[str, Any]] = {
    "stores": {"store_id": "S002"},
    "terminals": {"terminal_id": "T02"},
    "terminal_presence": {"terminal_id": "T02"},
    "offline_profiles": {"offline_profile_id": "P2"},
    "cache_resets": {"cache_reset_id": MEMO},
    "distribution_schedules": {"schedule_id": "D2"},
    "distribution_runs": {"run_id": MEMO},
    "distribution_sessions": {"session_id": MEMO},
    "audit_entries": {"number": 2},
    "terminal_journals": {"journal_id": "J2"},
    "parameter_revisions": {"revision": 2},
    "parameter_acknowledgements": {"revision": 2},
    "api_keys": {"key_id": "k2"},
    "issue_references": {"reference": "R2"},
    "offline_batches": {"batch_id": "B2"},
    "offline_batch_parts": {"part": 1},
    "quarantined_lines": {"position": 1},
    "cases": {"case_id": MEMO},
    "instruments": {"bucket": 8, "instrument_id": MEMO},
    "lock_events": {"lock_id": OTHER_LOCK},
    "postings": {"version": 2, "line": 2, "lock_id": OTHER_LOCK},
    "voids": {"line": 2},
    "offline_batch_results": {"settled_before": 1, "first_position": 1, "last_position": 1},
    "held_lines": {"position": 1},
}
TENDER = {"tender_amount_minor": 10, "tender_currency": "EUR", "exchange_rate": "10.4375"}
MEMO_ROW = {"kind": "credit_memo"}
NOBODY = {"terminal_id": "T99"}
CASE_KEY = ("transaction_id", "line", "operation", "instrument_id", "amount_minor", "currency")
NO_PACKAGE: dict[str, Any] = {"package": None, "checksum_sha256": None}
# What a till tells of itself comes as a whole.
REPORT = {
    "reported_at": AT,
    "report_sent_at": AT,
    "connection_state": "online",
    "connection_state_since": AT,
    "pending_count": 0,
    "pending_amounts_minor": "{}",
    "last_sync_status": "none",
    "journal_tips": "{}",
}
NO_SHORTFALL = {"shortfall_minor": 0, "recovered_minor": 0}
NO_KEY = {**dict.fromkeys(CASE_KEY), **NO_SHORTFALL}

# Constraint -> what it must refuse, each row of which breaks that one rule and no other.
BROKEN: dict[str, list[dict[str, Any]]] = {
    "ck_stores_version_positive": [{"version": 0}],
    "ck_stores_applied_revision_not_negative": [{"applied_revision": -1}],
    "ck_terminals_version_positive": [{"version": 0}],
    "fk_terminals_offline_profile_id_offline_profiles": [{"offline_profile_id": "P9"}],
    "ck_offline_profiles_id_not_empty": [{"offline_profile_id": ""}],
    "ck_offline_profiles_version_positive": [{"version": 0}],
    "ck_offline_profiles_values_object": [{"values": "[]"}],
    "ck_terminal_presence_report_all_or_nothing": [
        *({**REPORT, name: None} for name in REPORT),
        {"reported_at": AT},
    ],
    "ck_terminal_presence_reported_revision_with_instant": [
        {"reported_revision": 1},
        {"revision_reported_at": AT},
    ],
    "ck_terminal_presence_reported_revision_not_negative": [
        {"reported_revision": -1, "revision_reported_at": AT}
    ],
    "ck_terminal_presence_connection_state": [{**REPORT, "connection_state": "away"}],
    "ck_terminal_presence_last_sync_status": [{**REPORT, "last_sync_status": "maybe"}],
    "ck_terminal_presence_pending_count_not_negative": [{**REPORT, "pending_count": -1}],
    "ck_terminal_presence_offline_profile_version_not_negative": [{"offline_profile_version": -1}],
    "fk_cache_resets_store_id_stores": [{"store_id": "S999", "terminal_id": None}],
    "fk_cache_resets_store_id_terminals": [NOBODY],
    "ck_cache_resets_terminal_has_store": [{"store_id": None}],
    "ck_distribution_schedules_id_not_empty": [{"schedule_id": ""}],
    "ck_distribution_schedules_version_positive": [{"version": 0}],
    "ck_distribution_schedules_has_jobs": [{"job_ids": []}],
    "ck_distribution_schedules_one_recurrence": [{"cron": "0 3 * * *"}],
    "ck_distribution_schedules_every_seconds_positive": [{"every_seconds": 0}],
    "fk_distribution_runs_schedule_id_distribution_schedules": [{"schedule_id": "D9"}],
    "fk_distribution_sessions_run_id_distribution_runs": [{"run_id": MEMO}],
    "fk_distribution_sessions_store_id_stores": [{"store_id": "S999"}],
    "ck_distribution_sessions_direction": [{"direction": "sideways", **NO_PACKAGE}],
    "ck_distribution_sessions_status": [{"status": "lost"}],
    "ck_distribution_sessions_download_has_package": [NO_PACKAGE, {"direction": "upload"}],
    "ck_distribution_sessions_checksum_length": [{"checksum_sha256": b"s"}],
    "ck_distribution_sessions_try_count_not_negative": [{"try_count": -1}],
    "ck_distribution_sessions_applied_at_when_applied": [
        {"status": "applied"},
        {"applied_at": AT},
    ],
    "ck_audit_entries_number_positive": [{"number": 0}],
    "ck_audit_entries_hash_lengths": [{"hash": b"h"}, {"previous_hash": b""}],
    "ck_number_secret_is_the_only_one": [{"is_the_only_one": False}],
    "ck_number_secret_fingerprint_length": [{"fingerprint": b"f" * 31}, {"fingerprint": b""}],
    "ck_stores_store_id_not_reserved": [{"store_id": "HQ"}, {"store_id": ""}],
    "ck_terminals_terminal_id_not_empty": [{"terminal_id": ""}],
    "fk_terminals_store_id_stores": [{"store_id": "S999"}],
    "fk_terminal_presence_store_id_terminals": [NOBODY, {"store_id": "S999"}],
    "fk_terminal_journals_store_id_terminals": [NOBODY, {"store_id": "S999"}],
    "ck_parameter_revisions_revision_positive": [{"revision": 0}, {"revision": -1}],
    "ck_parameter_revisions_values_object": [{"values": "[]"}, {"values": "1"}],
    "ck_parameter_revisions_reason_not_empty": [{"reason": ""}],
    "fk_parameter_revisions_store_id_stores": [{"store_id": "S999"}],
    "fk_parameter_acknowledgements_store_id_terminals": [NOBODY],
    "ck_api_keys_secret_is_sha256": [{"secret_sha256": b"s" * 31}, {"secret_sha256": b""}],
    "ck_api_keys_role_scope": [
        {"role": "owner"},
        {"role": "terminal", "terminal_id": None},
        {"role": "sync"},
        {"role": "sync", "store_id": None, "terminal_id": None},
        {"role": "admin"},
        {"role": "admin", "terminal_id": None},
        {"role": "auditor", "terminal_id": None},
    ],
    "fk_api_keys_store_id_stores": [{"role": "sync", "store_id": "S999", "terminal_id": None}],
    "fk_api_keys_store_id_terminals": [NOBODY],
    "ck_offline_batches_body_sha256_length": [{"body_sha256": b"s" * 33}],
    "ck_offline_batches_lines_count_positive": [{"lines_count": 0, "settled_at": AT}],
    "ck_offline_batches_settled_count_range": [
        {"settled_count": -1},
        {"settled_count": 3},
    ],
    "ck_offline_batches_settled_at_when_done": [
        {"settled_count": 2},
        {"settled_count": 1, "settled_at": AT},
    ],
    "fk_offline_batches_store_id_stores": [{"store_id": "S999"}],
    "fk_offline_batch_parts_store_id_offline_batches": [{"batch_id": "B9"}],
    "fk_offline_batch_results_store_id_offline_batches": [{"batch_id": "B9"}],
    "ck_offline_batch_results_settled_before_not_negative": [{"settled_before": -1}],
    "ck_offline_batch_results_positions_in_order": [
        {"first_position": 2},
        {"first_position": -1},
    ],
    "fk_quarantined_lines_store_id_offline_batches": [{"batch_id": "B9"}],
    "ck_cases_outcome": [{"outcome": "duplicate"}, {"outcome": "rejected"}],
    "ck_cases_key_all_or_nothing": [
        *({name: None} for name in CASE_KEY),
        {"terminal_id": None},
        {**dict.fromkeys(CASE_KEY), "line": 1, **NO_SHORTFALL},
    ],
    "ck_cases_shortfall_range": [{"shortfall_minor": 101}],
    "ck_cases_recovered_range": [{"recovered_minor": -1}, {"recovered_minor": 61}],
    "ck_cases_resolution": [
        {**RESOLVED, "resolution": "ignore"},
        {**RESOLVED, "resolution": "released"},
    ],
    "ck_cases_undone_is_absorbed": [
        {"undone_at": AT},
        {**RESOLVED, "resolution": "dismiss", "undone_at": AT},
    ],
    "ck_cases_resolution_all_or_nothing": [{**RESOLVED, name: None} for name in RESOLVED],
    "ck_instruments_bucket": [{"bucket": 7}, {"bucket": 1024}, {"bucket": -8}],
    "ck_instruments_kind": [{"kind": "voucher"}],
    "ck_instruments_currency": [{"currency": "sek"}, {"currency": "SEKK"}, {"currency": ""}],
    "ck_instruments_number_last4_only": [{"number_last4": "60001"}, {"number_last4": ""}],
    "ck_instruments_status": [{"status": "lost"}, {"status": "applied", "balance_minor": 0}],
    "ck_instruments_balance_not_negative": [{"balance_minor": -1}],
    "ck_instruments_worthless_has_no_balance": [
        {"status": "pending"},
        {"status": "closed"},
        {**MEMO_ROW, "status": "applied"},
    ],
    "ck_instruments_version_not_negative": [{"version": -1}],
    "ck_instruments_remainder_of_memo": [{"remainder_id": CARD}],
    "ck_instruments_lock_all_or_nothing": [
        *({**HELD, name: None} for name in HELD),
        {"lock_id": LOCK},
    ],
    "ck_instruments_grant_needs_lock": [
        GRANTED,
        {**HELD, "lock_grant_until": AT},
        {**HELD, "lock_grant_revision": 1},
    ],
    "ck_instruments_lock_purpose": [{**HELD, "lock_purpose": "void"}],
    "ck_instruments_lock_amount_not_negative": [{**HELD, "lock_amount_minor": -1}],
    "fk_lock_events_bucket_instruments": [{"bucket": 8, "instrument_id": MEMO}],
    "ck_lock_events_ended": [{"ended": "consumed"}],
    "ck_lock_events_broken_has_reason": [{"ended": "broken"}],
    "ck_postings_entry": [{"entry": "correction"}],
    "ck_postings_operation": [
        {"operation": "release"},
        {"operation": "void"},
        {"operation": "adjust"},
    ],
    "ck_postings_amount_is_funded_and_shortfall": [{"amount_minor": 99}, {"shortfall_minor": 1}],
    "ck_postings_amounts_not_negative": [
        {"funded_minor": -1, "shortfall_minor": 101, "change_minor": -1},
        {"shortfall_minor": -1, "amount_minor": 99},
    ],
    "ck_postings_change_is_funded": [{"change_minor": 99}, {"change_minor": -101}],
    "ck_postings_balance_after_not_negative": [{"balance_after_minor": -1}],
    "ck_postings_version_positive": [{"version": 0}],
    "ck_postings_lock_id_with_locked_at": [{"lock_id": None}, {"locked_at": None}],
    "ck_postings_original_all_or_nothing": [{**ORIGINAL, name: None} for name in ORIGINAL],
    "ck_postings_tender_all_or_nothing": [{**TENDER, name: None} for name in TENDER],
    "uq_postings_business_key": [{"line": 1}],
    "ck_postings_codes_not_empty": [{"codes": []}],
    "ck_voids_bucket": [{"bucket": 8}],
    "ck_held_lines_bucket": [{"bucket": 8}],
}
REVERSED_ONCE = "uq_postings_business_key_and_entry"
# Tables, and columns with values in the good rows, that came after the first migration.
LATER = {
    "audit_entries",
    "cache_resets",
    "distribution_runs",
    "distribution_schedules",
    "distribution_sessions",
    "held_lines",
    "number_secret",
    "offline_batch_results",
    "offline_profiles",
    "recovered_minor",
    "terminal_journals",
}
SQLSTATES = {"ck": CHECK, "uq": UNIQUE, "pk": UNIQUE, "fk": FOREIGN}
# A CHECK that calls a function stands for the rules that the function names.
RULES = """
SELECT coalesce(f.rule, c.conname), c.conrelid::regclass::text FROM pg_constraint AS c
  JOIN pg_class AS t ON t.oid = c.conrelid
  LEFT JOIN (SELECT d.objid, named.rule[1] AS rule
               FROM pg_depend AS d JOIN pg_proc AS p ON p.oid = d.refobjid
              CROSS JOIN regexp_matches(p.prosrc, '''(ck_[a-z0-9_]+)''', 'g') AS named (rule)
              WHERE d.classid = 'pg_constraint'::regclass
                AND d.refclassid = 'pg_proc'::regclass) AS f ON f.objid = c.oid
 WHERE c.contype IN ('c', 'f', 'p', 'u') AND t.relnamespace = 'public'::regnamespace
   AND t.relname <> 'alembic_version'
 UNION
SELECT i.relname::text, x.indrelid::regclass::text FROM pg_index AS x
  JOIN pg_class AS i ON i.oid = x.indexrelid
 WHERE x.indisunique AND i.relnamespace = 'public'::regnamespace
   AND i.relname <> 'alembic_version_pkc'
"""


@pytest.fixture(scope="module")
def furnished(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction in which every table has its good row; nothing of it is committed."""
    with psycopg.connect(psycopg_url(database_url)) as connection:
        for table, row in GOOD.items():
            insert(connection, table, row)
        yield connection
        connection.rollback()


def insert(connection: psycopg.Connection[Any], table: str, row: dict[str, Any]) -> None:
    connection.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(sql.Placeholder() * len(row)),
        ),
        list(row.values()),
    )


def table_of(connection: psycopg.Connection[Any], rule: str) -> str:
    return dict(rows(connection, RULES))[rule]


def refused(
    connection: psycopg.Connection[Any], table: str, row: dict[str, Any]
) -> tuple[Any, Any]:
    """Return how the database refuses a row: SQLSTATE and the rule that it names."""
    with pytest.raises(psycopg.errors.IntegrityError) as caught, connection.transaction():
        insert(connection, table, row)
    return caught.value.sqlstate, caught.value.diag.constraint_name


def test_every_rule_of_the_schema_is_tried_below(furnished: psycopg.Connection[Any]) -> None:
    rules = {name for name, _ in rows(furnished, RULES)}
    keys = {f"pk_{table}" for table in GOOD}
    assert rules == set(BROKEN) | keys | {REVERSED_ONCE}
    assert {table for _, table in rows(furnished, RULES)} == set(GOOD)


@pytest.mark.parametrize("table", OTHER)
def test_another_good_row_is_taken(furnished: psycopg.Connection[Any], table: str) -> None:
    # Guards the tests below: what they break is the only thing wrong with their rows.
    with furnished.transaction(force_rollback=True):
        if table == "terminal_presence":
            insert(furnished, "terminals", {**GOOD["terminals"], **OTHER["terminals"]})
        insert(furnished, table, {**GOOD[table], **OTHER[table]})


@pytest.mark.parametrize("table", GOOD)
def test_the_same_key_twice_is_refused(furnished: psycopg.Connection[Any], table: str) -> None:
    row = GOOD[table]
    if table == "postings":  # another business key and lock, the same place in the history
        row = {**row, "line": 2, "lock_id": OTHER_LOCK}
    assert refused(furnished, table, row) == (UNIQUE, f"pk_{table}")


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        pytest.param(rule, change, id=f"{rule}-{place}")
        for rule, changes in BROKEN.items()
        for place, change in enumerate(changes)
    ],
)
def test_what_breaks_a_rule_is_refused_by_it(
    furnished: psycopg.Connection[Any], rule: str, change: dict[str, Any]
) -> None:
    table = table_of(furnished, rule)
    row = {**GOOD[table], **OTHER.get(table, {}), **change}
    assert refused(furnished, table, row) == (SQLSTATES[rule[:2]], rule)


@pytest.mark.parametrize(
    ("table", "change", "rule"),
    [
        ("instruments", {"status": "lost", "number_last4": "60001"}, "number_last4_only"),
        ("postings", {"version": 0, "operation": "release"}, "operation"),
    ],
)
def test_a_function_refuses_as_a_check_does_and_tells_no_values(
    furnished: psycopg.Connection[Any], table: str, change: dict[str, Any], rule: str
) -> None:
    row = {**GOOD[table], **OTHER[table], **change}
    with pytest.raises(psycopg.errors.CheckViolation) as caught, furnished.transaction():
        insert(furnished, table, row)
    told = caught.value.diag
    # Of several the first by name, as PostgreSQL does.
    name = f"ck_{table}_{rule}"
    assert (told.table_name, told.constraint_name) == (table, name)
    message = f'new row for relation "{table}" violates check constraint "{name}"'
    assert (told.message_primary, told.message_detail, told.message_hint) == (message, None, None)
    assert str(row["instrument_id"]) not in str(caught.value)
    assert not set(map(str, change.values())) & set(re.findall(r"\w+", str(caught.value)))


def test_a_memo_may_have_what_a_card_may_not(furnished: psycopg.Connection[Any]) -> None:
    applied = {**MEMO_ROW, "status": "applied", "balance_minor": 0, "remainder_id": CARD}
    with furnished.transaction(force_rollback=True):
        row = {**GOOD["instruments"], **OTHER["instruments"], **applied, **HELD, **GRANTED}
        insert(furnished, "instruments", row)


def test_a_line_is_reversed_once(furnished: psycopg.Connection[Any]) -> None:
    reversal = {**GOOD["postings"], "version": 2, "entry": "reversal"}
    with furnished.transaction(force_rollback=True):
        insert(furnished, "postings", reversal)
        again = {**reversal, "version": 3}
        assert refused(furnished, "postings", again) == (UNIQUE, REVERSED_ONCE)


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("cases", {**NO_KEY, "outcome": "noticed", "detail": "J1 8-8"}),
        ("cases", {**NO_KEY, "outcome": "noticed", "terminal_id": None}),
        ("cases", {**NO_KEY, "outcome": "quarantined", "terminal_id": None, "position": 0}),
        ("cases", {"recovered_minor": 60, **RESOLVED, "resolution": "recover"}),
        ("cases", {**RESOLVED, "resolution": "absorb", "undone_at": AT}),
        ("cases", {**RESOLVED, "resolution": "voided"}),
        ("cases", {**RESOLVED, "resolution": "arrived"}),
        ("postings", TENDER),
        ("postings", {"operation": "recover", "entry": "resolution", **ORIGINAL}),
        ("held_lines", {"operation": "refund", **ORIGINAL}),
        ("offline_batches", {"control_totals": '{"sent": {}, "counted": {}}'}),
        ("quarantined_lines", {**KEY, "journal_id": "J1", "sequence": 7}),
        ("terminal_journals", {"arrived": "{}"}),
    ],
)
def test_what_settlement_in_full_needs_is_taken(
    furnished: psycopg.Connection[Any], table: str, change: dict[str, Any]
) -> None:
    with furnished.transaction(force_rollback=True):
        insert(furnished, table, {**GOOD[table], **OTHER[table], **change})


def test_a_database_with_money_in_it_is_upgraded_and_loses_nothing(empty: str) -> None:
    # What the first version wrote must fit the second: nobody starts from an empty database.
    command.upgrade(configuration(empty), "0001")
    before = {
        table: {name: value for name, value in row.items() if name not in LATER}
        for table, row in GOOD.items()
        if table not in LATER
    }
    before["postings"]["codes"] = []
    with psycopg.connect(psycopg_url(empty), autocommit=True) as connection:
        for table, row in before.items():
            insert(connection, table, row)
        command.upgrade(configuration(empty), "head")
        for table in before:
            assert rows(connection, f"SELECT count(*) FROM {table}") == [(1,)], table
        assert rows(connection, "SELECT recovered_minor, detail FROM cases") == [(0, None)]
        booked = "SELECT account, debit_minor, credit_minor FROM ledger_entries ORDER BY account"
        assert rows(connection, booked) == [("liability", 0, 100), ("store_clearing", 100, 0)]
        command.downgrade(configuration(empty), "0001")
        for table in before:
            assert rows(connection, f"SELECT count(*) FROM {table}") == [(1,)], table


OFFLINE_LINE = """
INSERT INTO offline_lines (
    bucket, position, instrument_id, amount_minor, funded_minor, shortfall_minor,
    balance_after_minor, concluded_at, settled_at, sequence, line, store_id, batch_id, terminal_id,
    transaction_id, journal_id, status, operation, currency, outcome, original_outcome, codes,
    lock_id, case_id, remainder_id, original_store_id, original_terminal_id,
    original_transaction_id, original_line, reason, tender_amount_minor, tender_currency,
    exchange_rate
) VALUES (
    7, %(position)s, %(card)s, %(amount)s, %(funded)s, 0,
    %(balance)s, %(at)s, %(at)s, %(position)s, 1, 'S001', 'B1', 'T01',
    %(sale)s, 'J1', 'concluded', %(operation)s, 'SEK', %(outcome)s, %(original_outcome)s,
    %(codes)s, %(lock_id)s, %(case_id)s, NULL, %(original)s, %(original)s,
    %(original)s, %(original_line)s, %(reason)s, %(tender)s, %(tender_currency)s,
    %(exchange_rate)s
)
"""
PLAIN = {
    "card": CARD,
    "amount": 100,
    "funded": 100,
    "balance": 400,
    "at": AT,
    "operation": "redeem",
    "outcome": "applied",
    "original_outcome": None,
    "codes": [],
    "lock_id": LOCK,
    "case_id": None,
    "original": None,
    "original_line": None,
    "reason": None,
    "tender": None,
    "tender_currency": None,
    "exchange_rate": None,
}
SETTLED_BEFORE = (
    {**PLAIN, "position": 0, "sale": "X0", "tender": 10, "tender_currency": "EUR"}
    | {"exchange_rate": "10.4375", "codes": ["stale_lock", "too_old"]},
    {**PLAIN, "position": 1, "sale": "X1", "outcome": "duplicate", "original_outcome": "applied"},
    {**PLAIN, "position": 3, "sale": "X3", "outcome": "held", "codes": ["unknown_original"]}
    | {"funded": 0, "balance": None, "lock_id": None, "case_id": CASE, "operation": "refund"}
    | {"original": "X9", "original_line": 2, "reason": 'torn "receipt"\nåäö \\'},
)


def received(line: dict[str, Any]) -> list[Any]:
    """Return a line as it is in the parts of its batch."""
    original = [line["original"]] * 3 + [line["original_line"]] if line["original"] else None
    tender = [line["tender"], line["tender_currency"], line["exchange_rate"]]
    return [
        *(line["position"], "T01", line["sale"], 1, line["operation"], str(line["card"])),
        *(line["amount"], "SEK", "concluded", line["lock_id"] and str(line["lock_id"]), original),
        *("g1.k1.x.y", 1, line["at"], "J1", line["position"], line["reason"]),
        tender if line["tender"] else None,
    ]


def test_what_lines_came_to_is_moved_there_and_back(empty: str) -> None:
    command.upgrade(configuration(empty), "0005")
    parts = [received(SETTLED_BEFORE[0]), received(SETTLED_BEFORE[1]), [2, "?", "torn", None]]
    parts.append(received(SETTLED_BEFORE[2]))
    batch = {**GOOD["offline_batches"], "lines_count": 5, "settled_count": 4}
    everything = "SELECT * FROM offline_lines ORDER BY position"
    with psycopg.connect(psycopg_url(empty), autocommit=True) as connection:
        insert(connection, "stores", GOOD["stores"])
        insert(connection, "offline_batches", batch)
        part = {**GOOD["offline_batch_parts"], "lines": json.dumps(parts).encode()}
        insert(connection, "offline_batch_parts", part)
        insert(connection, "quarantined_lines", {**GOOD["quarantined_lines"], "position": 2})
        for line in SETTLED_BEFORE:
            connection.execute(OFFLINE_LINE, line)
        before = rows(connection, everything)
        command.upgrade(configuration(empty), "head")
        kept = "SELECT settled_before, counts, journals FROM offline_batch_results"
        assert rows(connection, kept) == [
            (0, {"applied": 1, "duplicate": 1, "held": 1, "quarantined": 1}, [["T01", "J1"]])
        ]
        [(results,)] = rows(connection, "SELECT results FROM offline_batch_results")
        told = json.loads(results)
        assert told[0] == [
            *(0, "T01", "X0", 1, str(CARD), "applied", None, ["stale_lock", "too_old"]),
            *(100, 0, 400, None, None, None),
        ]
        assert told[2][:8] == [2, None, None, None, None, "quarantined", None, ["unreadable"]]
        assert told[2][11:] == [str(CASE), None, "test"]
        held = "SELECT position, case_id, codes, original_line, held_at FROM held_lines"
        at = datetime.fromisoformat(AT)
        assert rows(connection, held) == [(3, CASE, ["unknown_original"], 2, at)]
        command.downgrade(configuration(empty), "0005")
        assert rows(connection, everything) == before


def test_there_is_one_view_and_it_stores_nothing(catalogue: psycopg.Connection[Any]) -> None:
    views = "SELECT relname, relkind::text FROM pg_class WHERE relkind IN ('v', 'm')"
    public = f"{views} AND relnamespace = 'public'::regnamespace"
    assert rows(catalogue, public) == [("ledger_entries", "v")]
