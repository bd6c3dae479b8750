"""What a simulation prints: a line while it runs, two tables and a sentence at the end."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import click

from hq_service.domain.money import display
from hq_service.simulation.result import CURRENCY, ComparisonRow, Result
from hq_service.simulation.samples import Sample

PLAIN_EVERY_SECONDS = 10
_COLUMNS = (
    "online",
    "offline",
    "voided",
    "refused",
    "crashes",
    "unheard",
    "pending",
)


class Progress:
    """The line of a run: redrawn each second on a terminal, a new one now and then otherwise."""

    def __init__(self, planned_seconds: float) -> None:
        self._planned_seconds = planned_seconds
        self._is_terminal = sys.stdout.isatty()
        self._shown_at = 0.0
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._width:
            click.echo()

    def show(self, sample: Sample, faults: int) -> None:
        """Show how things are at this moment."""
        text = (
            f"{sample.second:5.0f} of {self._planned_seconds:.0f} s"
            f"  sales {sample.sales_total} ({sample.offline_sales_total} offline)"
            f"  tills {sample.tills_online} online {sample.tills_offline} out"
            f"  backlog {sample.backlog_lines}"
            f"  locks {sample.locks_held}"
            f"  exposure {display(sample.exposure_minor, CURRENCY)}"
            f"  faults {faults}"
        )
        if self._is_terminal:
            # A line that is broken by the terminal could not be redrawn.
            text = text[: shutil.get_terminal_size().columns - 1]
            # What the line before had more is wiped out.
            click.echo(f"\r{text:<{self._width}}", nl=False)
            self._width = len(text)
        elif sample.second - self._shown_at >= PLAIN_EVERY_SECONDS:
            self._shown_at = sample.second
            click.echo(text)


def show(result: Result) -> None:
    """Print the tables of a run, and the sentence."""
    _show_tills(result)
    _show_comparisons(result.comparisons)
    click.echo()
    click.echo(_sentence(result))


def _show_tills(result: Result) -> None:
    width = max([4, *(len(f"{row.store} {row.till}") for row in result.tills)])
    click.echo(
        f"\n  {'till':<{width}}  " + "  ".join(f"{one:>7}" for one in _COLUMNS) + "  verdict"
    )
    for row in result.tills:
        cells = (
            row.sales_online,
            row.sales_offline,
            row.voided,
            row.refused,
            row.crashes,
            row.messages_lost,
            row.pending_lines,
        )
        numbers = "  ".join(f"{one:>7}" for one in cells)
        verdict = "ok" if row.is_ok else f"OFF ({row.differences})"
        click.echo(f"  {row.store + ' ' + row.till:<{width}}  {numbers}  {verdict}")


def _show_comparisons(rows: Sequence[ComparisonRow]) -> None:
    width = max(len(row.what) for row in rows)
    click.echo(f"\n  {'':<{width}}  {'expected':>16}  {'found':>16}  verdict")
    for row in rows:
        expected, found = (_shown(row, one) for one in (row.expected, row.found))
        click.echo(f"  {row.what:<{width}}  {expected:>16}  {found:>16}  {row.verdict}")
        for one in row.differing:
            click.echo(f"       ^ {one}")
        more = abs(row.expected - row.found) - len(row.differing)
        if row.differing and not row.is_amount and more > 0:
            click.echo(f"       ^ and {more} more")


def _shown(row: ComparisonRow, value: int) -> str:
    return display(value, CURRENCY) if row.is_amount else str(value)


def _sentence(result: Result) -> str:
    off = sum(not row.is_ok for row in result.comparisons)
    sales = sum(row.sales_online + row.sales_offline for row in result.tills)
    took = f"{sales} sales at {len(result.tills)} tills in {result.seconds:.0f} s"
    if result.is_as_expected:
        return f"{took}: every till's truth is HQ's."
    return (
        f"{took}: HQ and the tills do not agree, {off} of {len(result.comparisons)} rows are OFF."
    )
