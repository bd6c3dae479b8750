"""What is to be done without anybody asking for it; `hq worker` runs this beside the service.

Runs the recurring distribution schedules that are due, finishes offline batches that a crash left
unsettled, and judges held lines again whose wait is over. Several workers may run at once: who
does a piece of work holds its rows, and the others pass it over or find it done.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from hq_service.domain.errors import HqError, Unavailable
from hq_service.domain.keyring import Keyring
from hq_service.operations import distribution, offline_batches, readiness, waiting
from hq_service.operations.clock import now

NAME = "worker"
"""What runs of recurring schedules name as their author."""

AWAY_SECONDS_MAX = 60
"""How long is waited at most before a database that is away is tried again."""

AWAY = "it does not answer, or is too busy"

logger = logging.getLogger(__name__)


class WrongSecret(Exception):
    """The database's data is made with another number secret."""


class NotReady(Unavailable):
    """The database is there, and not prepared yet; the text says what to do."""


@dataclass
class Worker:
    """One worker; call it inside an application context."""

    keyring: Keyring = field(repr=False)
    settle_chunk_lines: int
    every_seconds: int
    ending: threading.Event = field(default_factory=threading.Event)
    is_checked: bool = False

    def run(self) -> None:
        """Work and wait in turn until ``ending`` is set; a piece of work that began is finished.

        Raises:  WrongSecret before anything is done.
        """
        away_seconds = 0
        while not self.ending.is_set():
            _, why_away = self.work()
            away_seconds = min(max(1, away_seconds * 2), AWAY_SECONDS_MAX) if why_away else 0
            if why_away:
                extra = {"why": why_away, "retry_after_seconds": away_seconds}
                logger.warning("the database is away", extra={"action": "worker", **extra})
            self.ending.wait(away_seconds or self.every_seconds)

    def work(self) -> tuple[int, str | None]:
        """Do once whatever there is to do.

        Returns: how many pieces of work failed, and why the database is away if that is the cause.
        """
        failed, why_away = 0, None
        for name, piece in self._pieces():
            if self.ending.is_set():
                break
            try:
                failed += piece()
            except Unavailable as error:
                failed += 1
                why_away = error.detail if isinstance(error, NotReady) else AWAY
            except WrongSecret:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the other pieces go on
                failed += 1
                _log_failure(name, error)
        return failed, why_away

    def _pieces(self) -> Iterator[tuple[str, Callable[[], int]]]:
        """Give each piece of work with its name. Each returns how much of it failed; what one finds
        out decides about the next.
        """
        if not self.is_checked:
            yield "check", self._check
        if not self.is_checked:
            return
        due: list[str] = []
        yield "look_for_schedules", partial(_look_for_schedules, due)
        for schedule_id in due:
            yield "run_schedule", partial(_run_schedule, schedule_id)
        yield "settle", self._settle
        yield "judge_again", self._judge_again

    def _check(self) -> int:
        """Look once whether the database is prepared, and its numbers are this keyring's."""
        checks = readiness.check(now, self.keyring)
        if checks.get("number_secret") == readiness.MADE_WITH_ANOTHER:
            raise WrongSecret(readiness.MADE_WITH_ANOTHER)
        for name in ("primary", "schema", "number_secret"):
            found = checks.get(name, readiness.OK)
            if found != readiness.OK:
                raise NotReady(f"{name}: {found}")
        self.is_checked = True
        return 0

    def _settle(self) -> int:
        settled, failed = offline_batches.settle_pending(
            self.keyring, now(), chunk_lines=self.settle_chunk_lines
        )
        if settled or failed:
            counts = {"settled": len(settled), "failed": len(failed)}
            logger.info("finished offline batches", extra={"action": "settle", **counts})
        return len(failed)

    def _judge_again(self) -> int:
        lines_count = waiting.judge_again(self.keyring, now())
        if lines_count:
            extra = {"action": "judge_again", "lines_count": lines_count}
            logger.info("judged waiting lines again", extra=extra)
        return 0


def _look_for_schedules(due: list[str]) -> int:
    due += distribution.due(now())
    return 0


def _run_schedule(schedule_id: str) -> int:
    run = distribution.run_due(schedule_id, NAME, now())
    if run is not None:  # else another worker has it, or has done it
        logger.info(
            "ran a distribution schedule",
            extra={
                "action": "run_schedule",
                "schedule_id": schedule_id,
                "run_id": str(run.run_id),
                "sessions": dict(run.counts),
                "kept_count": run.kept_count,
            },
        )
    return 0


def _log_failure(name: str, error: Exception) -> None:
    # The text of an error may hold what a line held: only its type, or its code, and where it was.
    told = error.code if isinstance(error, HqError) else type(error).__name__
    frames = traceback.format_tb(error.__traceback__)
    extra = {"action": name, "error": told, "frames": frames}
    logger.error("a piece of work failed", extra=extra)
