"""The audit's chain: whatever is done to it shows, unless it is done with the key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from hq_service.domain.audit import Action, AuditEntry, Walk, link

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
AT = datetime(2026, 11, 20, 12, 0, 0, 123456, UTC)


def a_chain(length: int, key: bytes = KEY) -> list[AuditEntry]:
    chain: list[AuditEntry] = []
    for place in range(length):
        chain.append(
            link(
                chain[-1] if chain else None,
                recorded_at=AT + timedelta(seconds=place),
                actor="admin:key",
                action=Action.CASE_RESOLVED,
                subject=f"case:{place}",
                detail={"reason": f"därför {place}", "amount_minor": place},
                key=key,
            )
        )
    return chain


def fault_of(chain: Sequence[AuditEntry], key: bytes = KEY) -> tuple[int, str] | None:
    """Return the number of the first entry that does not hold, and why."""
    walk = Walk(key)
    for entry in chain:
        fault = walk.step(entry)
        if fault is not None:
            return entry.number, fault
    return None


def test_an_untouched_chain_holds() -> None:
    walk = Walk(KEY)
    chain = a_chain(5)
    assert [walk.step(entry) for entry in chain] == [None] * 5
    assert walk.end() is None
    assert (walk.holding, walk.newest_hash) == (5, chain[-1].hash)


def test_no_chain_at_all_holds() -> None:
    walk = Walk(KEY)
    assert (walk.end(), walk.holding) == (None, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recorded_at", AT),
        ("actor", "admin:another"),
        ("action", "lock_broken"),
        ("subject", "case:another"),
        ("detail", "{}"),
        ("hash", bytes(32)),
    ],
)
def test_a_changed_field_is_found_at_its_entry(name: str, value: object) -> None:
    chain = a_chain(4)
    chain[2] = replace(chain[2], **{name: value})  # type: ignore[arg-type]
    found = fault_of(chain)
    assert found is not None
    assert found[0] == 3
    assert "not what was recorded" in found[1]


def test_instants_in_a_detail_are_written_as_the_api_writes_them_in_utc() -> None:
    east = AT.astimezone(timezone(timedelta(hours=2)))
    made = link(
        None,
        recorded_at=AT,
        actor="admin:key",
        action=Action.KEY_ROTATED,
        subject="key:one",
        detail={"new": {"created_at": AT}, "old_expires_at": east, "ends": [AT]},
        key=KEY,
    )
    written = "2026-11-20T12:00:00.123456+00:00"
    assert made.told == {
        "new": {"created_at": written},
        "old_expires_at": written,
        "ends": [written],
    }


def test_an_entry_that_was_made_anew_with_the_key_does_not_fit_those_behind_it() -> None:
    chain = a_chain(4)
    chain[2] = link(
        chain[1],
        recorded_at=AT,
        actor="somebody else",
        action=Action.CASE_RESOLVED,
        subject="case:2",
        detail={},
        key=KEY,
    )
    assert fault_of(chain) == (4, "it does not continue the entry before it")


def test_a_missing_entry_is_told_by_its_number() -> None:
    chain = a_chain(5)
    assert fault_of(chain[:1] + chain[3:]) == (4, "entries 2 to 3, before it, are missing")
    assert fault_of(chain[1:]) == (2, "entries 1 to 1, before it, are missing")


def test_two_entries_that_changed_places_are_found() -> None:
    chain = a_chain(4)
    second, third = chain[1], chain[2]
    chain[1] = replace(third, number=second.number)
    chain[2] = replace(second, number=third.number)
    found = fault_of(chain)
    assert found is not None
    assert found[0] == 2


def test_an_entry_of_a_number_that_cannot_be_is_found() -> None:
    stray = replace(a_chain(1)[0], number=0)
    assert fault_of([stray, *a_chain(1)]) == (0, "there can be no entry of this number")


def test_a_chain_of_another_key_does_not_hold_from_its_first_entry_on() -> None:
    found = fault_of(a_chain(3, OTHER_KEY))
    assert found is not None
    assert found[0] == 1
    assert "another number secret" in found[1]


def cut(chain: list[AuditEntry]) -> list[AuditEntry]:
    return chain[:3]


def remade(chain: list[AuditEntry]) -> list[AuditEntry]:
    """Return a chain of the same length, made with the key, that says something else."""
    return other_chain(len(chain))


def other_chain(length: int) -> list[AuditEntry]:
    chain: list[AuditEntry] = []
    for _ in range(length):
        chain.append(
            link(
                chain[-1] if chain else None,
                recorded_at=AT,
                actor="nobody",
                action=Action.CASE_RESOLVED,
                subject="case:none",
                detail={},
                key=KEY,
            )
        )
    return chain


@pytest.mark.parametrize(
    ("forge", "told"),
    [
        (cut, "the chain ends before it, but entry 5 was noted"),
        (remade, "it is not the entry that was noted under this number"),
    ],
)
def test_only_a_hash_that_was_noted_elsewhere_tells_a_chain_cut_off_or_made_anew_with_the_key(
    forge: Callable[[list[AuditEntry]], list[AuditEntry]], told: str
) -> None:
    chain = a_chain(5)
    forged = forge(chain)
    assert fault_of(forged) is None
    walk = Walk(KEY, {5: chain[4].hash})
    faults = [walk.step(entry) for entry in forged] + [walk.end()]
    assert told in faults
    honest = Walk(KEY, {3: chain[2].hash, 5: chain[4].hash})
    assert [honest.step(entry) for entry in chain] == [None] * 5
    assert honest.end() is None


def test_the_zone_in_which_an_entry_is_read_changes_nothing() -> None:
    there = timezone(timedelta(hours=8))
    chain = [
        replace(entry, recorded_at=entry.recorded_at.astimezone(there)) for entry in a_chain(3)
    ]
    assert fault_of(chain) is None


def test_a_detail_that_is_no_object_is_told_as_none() -> None:
    entry = a_chain(1)[0]
    assert entry.told == {"amount_minor": 0, "reason": "därför 0"}
    assert replace(entry, detail="{cut").told is None
    assert replace(entry, detail="[1]").told is None


def test_what_prints_a_walk_does_not_print_its_key() -> None:
    assert "kkkk" not in repr(Walk(KEY))
