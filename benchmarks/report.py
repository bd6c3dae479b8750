"""The table for people and the file for machines."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import Round

COLUMNS = (
    ("per_second", "per s", "{:,.0f}"),
    ("service_us", "service us", "{:,.0f}"),
    ("postgres_us", "PostgreSQL us", "{:,.0f}"),
    ("load_us", "load us", "{:,.0f}"),
    ("load_share", "load", "{:.0%}"),
    ("p50_ms", "p50 ms", "{:,.1f}"),
    ("p99_ms", "p99 ms", "{:,.1f}"),
    ("wal_bytes", "WAL B", "{:,.0f}"),
)
REMARKS = (("growth_mb", "  a worker grew by {:.1f} MB"), ("instruments", "  {:,.0f} instruments"))
WAY_WIDTH = 42


def summary_of(rounds: Sequence[Round]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return median, lowest and highest of every figure of every way, and all its values."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for way in rounds[0]:
        found[way] = {}
        for figure in rounds[0][way]:
            values = [one[way][figure] for one in rounds]
            found[way][figure] = {
                "median": statistics.median(values),
                "lowest": min(values),
                "highest": max(values),
                "values": values,
            }
    return found


def progress_of(way: str, figures: Mapping[str, float]) -> str:
    """Return one line on what was just measured."""
    told = [f"{figures['per_second']:,.0f}/s"]
    if "total_us" in figures:
        told.append(f"{figures['service_us']:,.0f} + {figures['postgres_us']:,.0f} us")
    if "p99_ms" in figures:
        told.append(f"p99 {figures['p99_ms']:,.1f} ms")
    return f"{way}: {', '.join(told)}"


def table_of(result: Mapping[str, Any]) -> str:
    """Return the tables: what each way took, then the ratios with their bars."""
    lines = [
        (
            f"{result['machine']['processor']}, {result['machine']['cores']} cores;"
            f" PostgreSQL {result['postgresql']['server_version']},"
            f" Python {result['versions']['python']}; 8 kB to the disk in"
            f" {result['machine']['flush_us']:,.0f} us;"
            f" {result['rounds']} rounds, medians; CPU in microseconds per operation"
        ),
        "",
    ]
    for part in result["parts"].values():
        lines += [_heading(part["title"]), *map(_row, part["ways"].items()), ""]
    lines += _ratio_table(result["ratio_details"])
    lines += [f"Warning: {warning}." for warning in result["warnings"]]
    lines += [f"FAILED: {fault}" for fault in result["faults"]]
    return "\n".join(lines)


def write(result: Mapping[str, Any], path: Path) -> None:
    """Write a result, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def _heading(title: str) -> str:
    return f"{title:<{WAY_WIDTH}}" + "".join(f"{name:>14}" for _, name, _ in COLUMNS)


def _row(item: tuple[str, Mapping[str, Mapping[str, float]]]) -> str:
    way, figures = item
    cells = [
        form.format(figures[key]["median"]) if key in figures else "-" for key, _, form in COLUMNS
    ]
    more = "".join(form.format(figures[key]["median"]) for key, form in REMARKS if key in figures)
    return f"  {way:<{WAY_WIDTH - 2}}" + "".join(f"{cell:>14}" for cell in cells) + more


def _ratio_table(ratios: Mapping[str, Mapping[str, Any]]) -> list[str]:
    heading = f"{'ratio':<40}{'median':>10}{'(lowest - highest)':>24}{'bar':>12}{'goal':>12}"
    lines = [heading]
    for name, one in ratios.items():
        spread = f"({_number(one['lowest'])} - {_number(one['highest'])})"
        sign = "<=" if one["is_at_most"] else ">="
        bar = f"{sign} {_number(one['bar'])}"
        goal = "-" if one["goal"] is None else f"{sign} {_number(one['goal'])}"
        told = "met" if one["is_met"] else "MISSED"
        if one["is_goal_met"] is not None and one["is_met"]:
            told += ", goal too" if one["is_goal_met"] else ", goal missed"
        lines.append(
            f"{name:<40}{_number(one['value']):>10}{spread:>24}{bar:>12}{goal:>12}  {told}"
        )
    return [*lines, ""]


def _number(value: float) -> str:
    return (
        f"{value:,.0f}"
        if abs(value) >= 100
        else f"{value:.4g}"
        if value == int(value)
        else (f"{value:.2f}")
    )
