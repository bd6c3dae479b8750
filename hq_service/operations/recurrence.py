"""When a distribution schedule is run next."""

from __future__ import annotations

from datetime import datetime

from cronsim import CronSim, CronSimError

from hq_service.domain.distribution import CRON_LENGTH_MAX, next_of_interval

CRON_FIELDS = 5


def fault_of_cron(cron: str, now: datetime) -> str | None:
    """Return why a cron expression is not allowed, as a sentence that says what is."""
    if len(cron) > CRON_LENGTH_MAX or len(cron.split()) != CRON_FIELDS:
        return "must be five fields: minute, hour, day of month, month, day of week (UTC)"
    try:
        next(CronSim(cron, now))
    except CronSimError as error:
        return f"is no cron expression: {error}"
    except StopIteration:
        return "never comes: there is no such date"
    return None


def next_run_at(
    every_seconds: int | None, cron: str | None, due_at: datetime | None, now: datetime
) -> datetime | None:
    """Return the next run of a schedule, strictly after now; None if it does not recur.

    ``due_at`` is the run that was due, None for a new schedule. A worker that slept through many
    runs catches up with one. Cron expressions are read in UTC.
    """
    if every_seconds is not None:
        return next_of_interval(every_seconds, due_at, now)
    if cron is not None:
        return next(CronSim(cron, now), None)
    return None
