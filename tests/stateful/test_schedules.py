"""Random schedules of three tills, an administrator and a clock, against the truth of the tills.

Two machines (`schedules.py`) lock, redeem, conclude offline, void, release and post batches in any
order, with lost messages, repeats, shuffled arrays, jumps of the clock and stops of HQ between two
chunks. In one of them everybody makes mistakes. In the other only what was granted is concluded
offline and nobody breaks a lock: there the total shortfall must be 0. In the end all tills come
back, and what the database says is compared with what they know (`truth.py`, `endings.py`).

The schedules are the same in every run. More of them: HQ_STATEFUL_SECONDS=600 goes on for ten
minutes, each round with a seed of its own, which is printed; HQ_STATEFUL_EXAMPLES=20 plays fewer
or more per round. A failing schedule is made as short as possible and printed as sentences.
"""

from __future__ import annotations

import os
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from unittest import mock

import psycopg
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from hq_service.operations import clock as hq_clock
from tests.conftest import Server
from tests.stateful.schedules import CarelessSchedule, Chance, Schedule
from tests.stateful.stage import Stage
from tests.stateful.truth import Clock
from tests.support import Hq, psycopg_url, running

SECONDS = float(os.environ.get("HQ_STATEFUL_SECONDS", "0"))
EXAMPLES = int(os.environ.get("HQ_STATEFUL_EXAMPLES", "70"))
FIRST_SEED = int(os.environ.get("HQ_STATEFUL_SEED", "1"))
STEPS = 40
SHORTENING_SECONDS_MAX = 120.0

HONEST_SOMETIMES = frozenset(
    {
        "a conclusion is told again",
        "a batch repeats what was concluded online",
        "a lapsed lock is taken over",
        "a suspect lock refuses",
        "a remainder memo",
        "a void arrives before its line",
        "HQ stops between two chunks",
        "a sale with several lines",
        "a linked refund",
        "a card is issued",
    }
)
CARELESS_SOMETIMES = HONEST_SOMETIMES | {
    "the late batch of a broken lock",
    "a shortfall",
    "a held line",
    "a case is resolved",
}


@contextmanager
def staged(server: Server, template: str) -> Iterator[Stage]:
    """Run HQ on an empty database, under a clock of its own."""
    url = server.create_database(f"hq_stateful_{uuid.uuid4().hex[:8]}", template)
    # Chunks of three lines: most batches are cut, and HQ can stop in between.
    clock = Clock()
    with (
        running(url, settle_chunk_lines=3) as app,
        mock.patch.object(hq_clock, "datetime", clock),
        psycopg.connect(psycopg_url(url), autocommit=True) as connection,
    ):
        yield Stage(Hq(app), clock, connection)


def play(machine: type[Schedule], server: Server, template: str, sometimes: frozenset[str]) -> None:
    """Play rounds of schedules, one at least, as long as there is time."""
    seen: Counter[str] = Counter()
    until = time.monotonic() + SECONDS
    for number in count(FIRST_SEED):
        print(f"{machine.__name__}: round {number}, {EXAMPLES} schedules with seed {number}")
        with staged(server, template) as machine.stage:
            play_round(seed(number)(machine), machine.stage)
            seen += machine.stage.seen
        if time.monotonic() > until:
            break
    for what, times in sorted(seen.items()):
        print(f"{times:6d}  {what}")
    never = sometimes - seen.keys()
    assert not never, f"no schedule has come to this: {', '.join(sorted(never))}"


def play_round(machine: type[Schedule], stage: Stage) -> None:
    how = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(machine, settings=how)
    except Exception as failure:  # noqa: BLE001 - whatever it is, it is told
        raise AssertionError(told(shortened(stage.played, failure))) from None
    # A schedule whose end was not looked at proves nothing.
    assert stage.ended > stage.started * 0.9


@dataclass
class Failure:
    """A schedule that ends badly: its steps, and how it was told."""

    steps: list[tuple[str, Chance]]
    story: list[str]
    reason: str


def shortened(played: Schedule, failure: Exception) -> Failure:
    """Leave out steps, many at first, as long as the schedule goes on failing."""
    shortest = Failure(played.steps, played.story, reason_of(failure))
    until = time.monotonic() + SHORTENING_SECONDS_MAX
    size = max(1, len(shortest.steps) // 2)
    start = 0
    while time.monotonic() < until:
        steps = shortest.steps[:start] + shortest.steps[start + size :]
        found = replayed(type(played), played.opening, steps)
        if found is not None:
            shortest = found
        else:
            start += size
        if start >= len(shortest.steps):
            if size == 1 and found is None:
                break
            start, size = 0, max(1, size // 2)
    return shortest


def replayed(
    machine: type[Schedule], opening: dict[str, Any], steps: list[tuple[str, Chance]]
) -> Failure | None:
    """Play some steps again; return how they failed, None if they did not."""
    played = machine()
    try:
        played.open_with(**opening)
        for what, chance in steps:
            played.step(what, chance)
            played.was_a_whole_step()
        played.teardown()
    except Exception as failure:  # noqa: BLE001 - whatever it is, it is told
        return Failure(played.steps, played.story, reason_of(failure))
    return None


def reason_of(failure: Exception) -> str:
    place = traceback.extract_tb(failure.__traceback__)[-1]
    return f"{type(failure).__name__} in {place.name}, {place.line}: {failure}"


def told(failure: Failure) -> str:
    sentences = "\n".join(f"    {sentence}" for sentence in failure.story)
    return f"{failure.reason}\n\nThe schedule, {len(failure.steps)} steps:\n{sentences}"


def test_what_was_granted_never_falls_short(server: Server, template: str) -> None:
    play(Schedule, server, template, HONEST_SOMETIMES)


def test_whatever_happens_every_sale_is_posted_once_or_held_once(
    server: Server, template: str
) -> None:
    play(CarelessSchedule, server, template, CARELESS_SOMETIMES)
