"""The tables as the object-relational mapper sees them.

The migrations are what creates them, with every CHECK; a test compares the two. Hot tables are
read and written by ``store/sql/*.sql``; they are mapped here for lists only. No relationships, no
lazy loading: a statement that nobody sees is a statement that nobody counts.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, INT8MULTIRANGE, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm import registry as orm_registry

NAMING = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "ix": "ix_%(table_name)s_%(column_0_name)s",
}

HOT_TABLES = (
    "instruments",
    "live_locks",
    "lock_events",
    "postings",
    "voids",
    "held_lines",
)
"""The tables that grow with the trade; distributed by ``bucket`` on Citus."""

Name = Text(collation="C")
Instant = TIMESTAMP(timezone=True)


class Base(DeclarativeBase):
    """The base of every mapped table.

    With a registry of its own: Flask-SQLAlchemy makes a second base from this one's attributes,
    and SQLAlchemy 2.1 refuses one that has both a registry and a type annotation map.
    """

    registry = orm_registry(
        metadata=MetaData(naming_convention=NAMING),
        type_annotation_map={
            str: Text,
            int: Integer,
            bytes: LargeBinary,
            datetime: Instant,
            UUID: Uuid,
            list[str]: ARRAY(Text),
            dict[str, Any]: JSONB,
        },
    )


def name_key() -> Mapped[str]:
    """Return a primary key column that compares byte by byte, whatever the database's locale."""
    return mapped_column(Name, primary_key=True)


class NumberSecret(Base):
    """Which number secret the data is made with; one row."""

    __tablename__ = "number_secret"
    is_the_only_one: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    fingerprint: Mapped[bytes]
    noted_at: Mapped[datetime]


class Store(Base):
    """A store of the retailer; ``applied_revision`` is what its tills are served."""

    __tablename__ = "stores"
    store_id: Mapped[str] = name_key()
    name: Mapped[str]
    created_at: Mapped[datetime]
    retired_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(server_default=text("1"))
    time_zone: Mapped[str] = mapped_column(server_default=text("'UTC'"))
    applied_revision: Mapped[int] = mapped_column(server_default=text("0"))
    applied_at: Mapped[datetime | None]


class OfflineProfile(Base):
    """How registers behave around an outage; served to them with its version."""

    __tablename__ = "offline_profiles"
    offline_profile_id: Mapped[str] = name_key()
    name: Mapped[str]
    version: Mapped[int]
    values: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    retired_at: Mapped[datetime | None]


class Terminal(Base):
    """A register."""

    __tablename__ = "terminals"
    store_id: Mapped[str] = mapped_column(Name, ForeignKey("stores.store_id"), primary_key=True)
    terminal_id: Mapped[str] = name_key()
    name: Mapped[str]
    supports_offline: Mapped[bool]
    created_at: Mapped[datetime]
    retired_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(server_default=text("1"))
    offline_profile_id: Mapped[str | None] = mapped_column(
        Name, ForeignKey("offline_profiles.offline_profile_id")
    )


TERMINAL_KEY = ("terminals.store_id", "terminals.terminal_id")


class TerminalPresence(Base):
    """When a terminal was last heard of, the newest parameters it acknowledged, and what it told
    of itself with its last heartbeat; of each journal the highest tip that it ever told.
    """

    __tablename__ = "terminal_presence"
    __table_args__ = (ForeignKeyConstraint(("store_id", "terminal_id"), TERMINAL_KEY),)
    store_id: Mapped[str] = name_key()
    terminal_id: Mapped[str] = name_key()
    last_seen_at: Mapped[datetime | None]
    acknowledged_revision: Mapped[int | None]
    parameters_fetched_at: Mapped[datetime | None]
    reported_revision: Mapped[int | None]
    revision_reported_at: Mapped[datetime | None]
    reported_at: Mapped[datetime | None]
    report_sent_at: Mapped[datetime | None]
    connection_state: Mapped[str | None]
    connection_state_since: Mapped[datetime | None]
    pending_count: Mapped[int | None]
    pending_amounts_minor: Mapped[dict[str, Any] | None]
    oldest_pending_at: Mapped[datetime | None]
    last_sync_at: Mapped[datetime | None]
    last_sync_status: Mapped[str | None]
    last_sync_message: Mapped[str | None]
    journal_tips: Mapped[dict[str, Any] | None]
    offline_profile_version: Mapped[int | None]


class ParameterRevision(Base):
    """One immutable edit of the Commerce parameters; ``store_id`` null is company-wide.

    ``values`` are all values of its scope after the edit, ``changes`` what the edit set.
    """

    __tablename__ = "parameter_revisions"
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    store_id: Mapped[str | None] = mapped_column(Name, ForeignKey("stores.store_id"))
    values: Mapped[dict[str, Any]]
    changes: Mapped[dict[str, Any]]
    reason: Mapped[str]
    changed_at: Mapped[datetime]
    changed_by: Mapped[str]


class ParameterAcknowledgement(Base):
    """That a terminal was served a revision."""

    __tablename__ = "parameter_acknowledgements"
    __table_args__ = (ForeignKeyConstraint(("store_id", "terminal_id"), TERMINAL_KEY),)
    store_id: Mapped[str] = name_key()
    terminal_id: Mapped[str] = name_key()
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    acknowledged_at: Mapped[datetime]


class ApiKey(Base):
    """An API key; of its secret only the SHA-256 is stored."""

    __tablename__ = "api_keys"
    __table_args__ = (ForeignKeyConstraint(("store_id", "terminal_id"), TERMINAL_KEY),)
    key_id: Mapped[str] = name_key()
    secret_sha256: Mapped[bytes]
    role: Mapped[str]
    store_id: Mapped[str | None] = mapped_column(Name, ForeignKey("stores.store_id"))
    terminal_id: Mapped[str | None] = mapped_column(Name)
    label: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    replaced_by: Mapped[str | None] = mapped_column(Name)


class CacheReset(Base):
    """That tills shall fetch the parameters whatever their copy says; nulls mean all of them."""

    __tablename__ = "cache_resets"
    __table_args__ = (
        ForeignKeyConstraint(("store_id", "terminal_id"), TERMINAL_KEY),
        Index("ix_cache_resets_reset_at", "reset_at"),
    )
    cache_reset_id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[str | None] = mapped_column(Name, ForeignKey("stores.store_id"))
    terminal_id: Mapped[str | None] = mapped_column(Name)
    reset_at: Mapped[datetime]
    reset_by: Mapped[str]
    reason: Mapped[str]


class DistributionSchedule(Base):
    """Which jobs are run for all stores, and how often."""

    __tablename__ = "distribution_schedules"
    __table_args__ = (
        Index(
            "ix_distribution_schedules_due",
            "next_run_at",
            postgresql_where=text("next_run_at IS NOT NULL"),
        ),
    )
    schedule_id: Mapped[str] = name_key()
    name: Mapped[str]
    version: Mapped[int]
    job_ids: Mapped[list[str]]
    is_active: Mapped[bool]
    every_seconds: Mapped[int | None]
    cron: Mapped[str | None]
    next_run_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


class DistributionRun(Base):
    """One run of a distribution schedule."""

    __tablename__ = "distribution_runs"
    run_id: Mapped[UUID] = mapped_column(primary_key=True)
    schedule_id: Mapped[str] = mapped_column(Name, ForeignKey("distribution_schedules.schedule_id"))
    started_at: Mapped[datetime]
    started_by: Mapped[str]


class DistributionSession(Base):
    """One store's part of a run, for one job, with the package as it is sent."""

    __tablename__ = "distribution_sessions"
    __table_args__ = (
        Index(
            "ix_distribution_sessions_open",
            "store_id",
            "created_at",
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index("ix_distribution_sessions_run_id", "run_id"),
        Index(
            "ix_distribution_sessions_applied",
            "store_id",
            "applied_at",
            postgresql_where=text("applied_at IS NOT NULL"),
        ),
    )
    session_id: Mapped[UUID] = mapped_column(primary_key=True)
    run_id: Mapped[UUID] = mapped_column(ForeignKey("distribution_runs.run_id"))
    store_id: Mapped[str] = mapped_column(Name, ForeignKey("stores.store_id"))
    job_id: Mapped[str]
    direction: Mapped[str]
    status: Mapped[str]
    parameters_revision: Mapped[int | None]
    package: Mapped[bytes | None]
    checksum_sha256: Mapped[bytes | None]
    try_count: Mapped[int] = mapped_column(server_default=text("0"))
    message: Mapped[str | None]
    rerun_for: Mapped[UUID | None]
    replaced_by: Mapped[UUID | None]
    created_at: Mapped[datetime]
    requested_at: Mapped[datetime | None]
    downloaded_at: Mapped[datetime | None]
    applied_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class AuditEntry(Base):
    """One link of the audit's chain; ``detail`` is JSON as it was hashed."""

    __tablename__ = "audit_entries"
    __table_args__ = (Index("ix_audit_entries_subject", "subject", "number"),)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    recorded_at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str] = mapped_column(Name)
    detail: Mapped[str]
    previous_hash: Mapped[bytes]
    hash: Mapped[bytes]


class IssueReference(Base):
    """That an administrator issued something under a reference."""

    __tablename__ = "issue_references"
    reference: Mapped[str] = name_key()
    issued_at: Mapped[datetime]
    issued_by: Mapped[str]


class OfflineBatch(Base):
    """The header of an offline batch and how far it is settled."""

    __tablename__ = "offline_batches"
    __table_args__ = (
        Index(
            "ix_offline_batches_unsettled",
            "store_id",
            "received_at",
            postgresql_where=text("settled_at IS NULL"),
        ),
    )
    store_id: Mapped[str] = mapped_column(Name, ForeignKey("stores.store_id"), primary_key=True)
    batch_id: Mapped[str] = name_key()
    body_sha256: Mapped[bytes]
    lines_count: Mapped[int]
    settled_count: Mapped[int] = mapped_column(server_default=text("0"))
    received_at: Mapped[datetime]
    received_by: Mapped[str]
    parameters_revision: Mapped[int]
    sender_terminal_id: Mapped[str | None] = mapped_column(Name)
    settled_at: Mapped[datetime | None]
    control_totals: Mapped[dict[str, Any] | None]


BATCH_KEY = ("offline_batches.store_id", "offline_batches.batch_id")


class OfflineBatchPart(Base):
    """Lines of a batch as received, numbers replaced by ids or masked."""

    __tablename__ = "offline_batch_parts"
    __table_args__ = (ForeignKeyConstraint(("store_id", "batch_id"), BATCH_KEY),)
    store_id: Mapped[str] = name_key()
    batch_id: Mapped[str] = name_key()
    part: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    lines: Mapped[bytes]


class OfflineBatchResult(Base):
    """What the lines of one chunk of a batch came to, as they were settled: together."""

    __tablename__ = "offline_batch_results"
    __table_args__ = (ForeignKeyConstraint(("store_id", "batch_id"), BATCH_KEY),)
    store_id: Mapped[str] = name_key()
    batch_id: Mapped[str] = name_key()
    settled_before: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    first_position: Mapped[int]
    last_position: Mapped[int]
    settled_at: Mapped[datetime]
    counts: Mapped[dict[str, Any]]
    journals: Mapped[Any] = mapped_column(JSONB)
    results: Mapped[bytes]


class QuarantinedLine(Base):
    """A line that could not be understood, or that its sender may not speak for."""

    __tablename__ = "quarantined_lines"
    __table_args__ = (ForeignKeyConstraint(("store_id", "batch_id"), BATCH_KEY),)
    store_id: Mapped[str] = name_key()
    batch_id: Mapped[str] = name_key()
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    codes: Mapped[list[str]]
    reason: Mapped[str]
    masked_text: Mapped[str]
    case_id: Mapped[UUID]
    settled_at: Mapped[datetime]
    terminal_id: Mapped[str | None] = mapped_column(Name)
    transaction_id: Mapped[str | None] = mapped_column(Name)
    line: Mapped[int | None]
    journal_id: Mapped[str | None] = mapped_column(Name)
    sequence: Mapped[int | None] = mapped_column(BigInteger)


class Case(Base):
    """An open question that settlement left for an administrator."""

    __tablename__ = "cases"
    __table_args__ = (
        Index(
            "ix_cases_open",
            "store_id",
            "opened_at",
            postgresql_where=text("resolved_at IS NULL"),
        ),
        Index(
            "ix_cases_waiting",
            "instrument_id",
            postgresql_where=text("resolved_at IS NULL AND outcome = 'held'"),
        ),
        Index("ix_cases_opened_at", "opened_at", "case_id"),
        Index("ix_cases_instrument_id", "instrument_id", "opened_at"),
        Index("ix_cases_business_key", "store_id", "terminal_id", "transaction_id", "line"),
    )
    case_id: Mapped[UUID] = mapped_column(primary_key=True)
    outcome: Mapped[str]
    codes: Mapped[list[str]]
    store_id: Mapped[str] = mapped_column(Name)
    terminal_id: Mapped[str | None] = mapped_column(Name)
    transaction_id: Mapped[str | None] = mapped_column(Name)
    line: Mapped[int | None]
    operation: Mapped[str | None]
    instrument_id: Mapped[UUID | None]
    amount_minor: Mapped[int | None] = mapped_column(BigInteger)
    shortfall_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str | None]
    batch_id: Mapped[str | None] = mapped_column(Name)
    position: Mapped[int | None]
    opened_at: Mapped[datetime]
    resolution: Mapped[str | None]
    resolved_at: Mapped[datetime | None]
    resolved_by: Mapped[str | None]
    resolution_reason: Mapped[str | None]
    recovered_minor: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    detail: Mapped[str | None]
    undone_at: Mapped[datetime | None]


class TerminalJournal(Base):
    """Which numbers of a till's journal have arrived."""

    __tablename__ = "terminal_journals"
    __table_args__ = (ForeignKeyConstraint(("store_id", "terminal_id"), TERMINAL_KEY),)
    store_id: Mapped[str] = name_key()
    terminal_id: Mapped[str] = name_key()
    journal_id: Mapped[str] = name_key()
    arrived: Mapped[Any] = mapped_column(INT8MULTIRANGE)


class OfInstrument:
    """The key of what is kept with an instrument, in its bucket."""

    bucket: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    instrument_id: Mapped[UUID] = mapped_column(primary_key=True)


class OfLine:
    """What a line may tell of the line that it refunds."""

    original_store_id: Mapped[str | None] = mapped_column(Name)
    original_terminal_id: Mapped[str | None] = mapped_column(Name)
    original_transaction_id: Mapped[str | None] = mapped_column(Name)
    original_line: Mapped[int | None]


class Instrument(OfInstrument, Base):
    """A gift card or credit memo, its live lock in its own columns."""

    __tablename__ = "instruments"
    balance_minor: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str]
    currency: Mapped[str]
    number_last4: Mapped[str]
    status: Mapped[str]
    created_at: Mapped[datetime]
    remainder_id: Mapped[UUID | None]
    lock_id: Mapped[UUID | None]
    lock_store_id: Mapped[str | None] = mapped_column(Name)
    lock_terminal_id: Mapped[str | None] = mapped_column(Name)
    lock_transaction_id: Mapped[str | None] = mapped_column(Name)
    lock_line: Mapped[int | None]
    lock_purpose: Mapped[str | None]
    lock_amount_minor: Mapped[int | None] = mapped_column(BigInteger)
    locked_at: Mapped[datetime | None]
    lock_grant_until: Mapped[datetime | None]
    lock_grant_revision: Mapped[int | None]


INSTRUMENT_KEY = ("instruments.bucket", "instruments.instrument_id")


class LiveLock(OfInstrument, Base):
    """A live lock, for lists and exposure; never consulted for a decision, but for whether there is
    an instrument to be looked at when a line is repeated.
    """

    __tablename__ = "live_locks"
    lock_id: Mapped[UUID]
    store_id: Mapped[str] = mapped_column(Name)
    terminal_id: Mapped[str] = mapped_column(Name)
    locked_at: Mapped[datetime]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    grant_until: Mapped[datetime | None]


class LockEvent(OfInstrument, Base):
    """How a lock ended otherwise than by a posting."""

    __tablename__ = "lock_events"
    __table_args__ = (ForeignKeyConstraint(("bucket", "instrument_id"), INSTRUMENT_KEY),)
    lock_id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[str] = mapped_column(Name)
    terminal_id: Mapped[str] = mapped_column(Name)
    transaction_id: Mapped[str] = mapped_column(Name)
    line: Mapped[int]
    purpose: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    locked_at: Mapped[datetime]
    grant_until: Mapped[datetime | None]
    grant_revision: Mapped[int | None]
    ended: Mapped[str]
    ended_at: Mapped[datetime]
    ended_by: Mapped[str]
    reason: Mapped[str | None]


class Posting(OfInstrument, OfLine, Base):
    """One immutable balance change; also the record that makes a repeat a repeat."""

    __tablename__ = "postings"
    __table_args__ = (
        Index(
            "uq_postings_business_key",
            "store_id",
            "terminal_id",
            "transaction_id",
            "line",
            "bucket",
            unique=True,
            postgresql_where=text("entry = 'original'"),
        ),
        Index(
            "uq_postings_business_key_and_entry",
            "store_id",
            "terminal_id",
            "transaction_id",
            "line",
            "entry",
            "bucket",
            unique=True,
            postgresql_where=text("entry <> 'original'"),
        ),
        Index(
            "ix_postings_original",
            "original_store_id",
            "original_terminal_id",
            "original_transaction_id",
            "original_line",
            postgresql_where=text("original_store_id IS NOT NULL"),
        ),
    )
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    funded_minor: Mapped[int] = mapped_column(BigInteger)
    shortfall_minor: Mapped[int] = mapped_column(BigInteger)
    change_minor: Mapped[int] = mapped_column(BigInteger)
    balance_after_minor: Mapped[int] = mapped_column(BigInteger)
    posted_at: Mapped[datetime]
    concluded_at: Mapped[datetime | None]
    line: Mapped[int]
    store_id: Mapped[str] = mapped_column(Name)
    terminal_id: Mapped[str] = mapped_column(Name)
    transaction_id: Mapped[str] = mapped_column(Name)
    entry: Mapped[str]
    operation: Mapped[str]
    currency: Mapped[str]
    codes: Mapped[list[str] | None]
    lock_id: Mapped[UUID | None]
    locked_at: Mapped[datetime | None]
    related_instrument_id: Mapped[UUID | None]
    tender_amount_minor: Mapped[int | None] = mapped_column(BigInteger)
    tender_currency: Mapped[str | None]
    exchange_rate: Mapped[str | None]


class Void(Base):
    """A business key that shall have no effect."""

    __tablename__ = "voids"
    store_id: Mapped[str] = name_key()
    terminal_id: Mapped[str] = name_key()
    transaction_id: Mapped[str] = name_key()
    line: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    bucket: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    instrument_id: Mapped[UUID]
    reason: Mapped[str]
    voided_at: Mapped[datetime]
    voided_by: Mapped[str]


class HeldLine(OfLine, Base):
    """A held line of a batch: it makes its business key known."""

    __tablename__ = "held_lines"
    __table_args__ = (
        Index("ix_held_lines_business_key", "store_id", "terminal_id", "transaction_id", "line"),
    )
    store_id: Mapped[str] = name_key()
    batch_id: Mapped[str] = name_key()
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    bucket: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    instrument_id: Mapped[UUID]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    held_at: Mapped[datetime]
    line: Mapped[int]
    terminal_id: Mapped[str] = mapped_column(Name)
    transaction_id: Mapped[str] = mapped_column(Name)
    operation: Mapped[str]
    currency: Mapped[str]
    codes: Mapped[list[str]]
    case_id: Mapped[UUID]
