"""The page about a simulation: one HTML file that opens anywhere and asks nothing of a network.

The charts are SVG drawn here, so the page says everything without a script; the script only shows
the values under the pointer. Positions are percentages: the page may be as wide as it likes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hq_service.domain.money import CURRENCY_EXPONENTS, display
from hq_service.domain.numbers import mask
from hq_service.simulation.result import CURRENCY, ComparisonRow, Options, OutageRow, Result
from hq_service.simulation.samples import Sample

POINTS_MAX = 240
"""More would be thinner than a line: longer runs are drawn in periods of several samples."""

_TICKS_WANTED = 4
_TIME_TICKS_MAX = 9
_TIME_STEPS_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600)
_HOUR_SECONDS, _DAY_SECONDS = 3_600, 86_400
# The plot's own units; it is stretched to the width of the page.
_PLOT_WIDTH, _PLOT_HEIGHT = 1_000, 100
# So that one till's outage is seen, and the lines can be read through the whole fleet's.
_SHADE_MIN, _SHADE_MAX = 0.07, 0.27
_HEADLINES_MAX = 5


def write(result: Result, path: Path) -> None:
    """Write the page about a result; a page that is there is whole, the old one or the new one.

    Raises:  OSError when the directory is missing or may not be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(page(result))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def page(result: Result) -> str:
    """Return the page about a result, as HTML."""
    points = _points(result.samples)
    last_second = max((sample.second for sample in result.samples), default=0.0)
    # A run of one sample has a time axis, too.
    span_seconds = max(1.0, last_second)
    return _ENVIRONMENT.get_template("report.html").render(
        result=result,
        verdict=_verdict(result),
        command=_command(result.options),
        facts=_facts(result),
        figures=_figures(result),
        clock_reads="hours:minutes:seconds" if span_seconds >= _HOUR_SECONDS else "minutes:seconds",
        charts=[chart.drawn(points, span_seconds) for chart in _CHARTS] if points else [],
        time_ticks=_time_ticks(span_seconds),
        bands=_bands(result, span_seconds),
        lanes=_lanes(result.outages, span_seconds),
        period_seconds=_samples_a_point(len(result.samples)),
        script_points=[_script_point(point, span_seconds) for point in points],
        moments=_moments(result.samples),
        comparisons=sorted(result.comparisons, key=lambda row: row.is_ok),
        tills=sorted(result.tills, key=lambda row: row.is_ok),
        till_sums=_till_sums(result),
    )


# --- What the page says in words ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Verdict:
    word: str
    sentence: str
    headlines: Sequence[str]


def _verdict(result: Result) -> _Verdict:
    differing = [row for row in result.comparisons if not row.is_ok]
    tills_off = [row for row in result.tills if not row.is_ok]
    if result.is_as_expected:
        comparisons, tills = len(result.comparisons), len(result.tills)
        compared = f"{_counted(comparisons, 'comparison')} of {_counted(tills, 'till')} with HQ"
        return _Verdict("ok", "HQ and every till agree", [f"{compared}: nothing differs."])
    headlines = [
        *(f"{row.what}: {_sides(row)}" for row in differing),
        *(
            f"Till {row.till} of {row.store}: {_counted(row.differences, 'difference')},"
            f" {_counted(row.pending_lines, 'line')} pending"
            for row in tills_off
        ),
    ]
    more = len(headlines) - _HEADLINES_MAX
    if more > 0:
        headlines[_HEADLINES_MAX:] = [f"and {more:,} more, in the tables below"]
    return _Verdict("OFF", "HQ and the tills do not agree", [mask(line) for line in headlines])


def _sides(row: ComparisonRow) -> str:
    return f"expected {_side(row, row.expected)}, found {_side(row, row.found)}"


def _side(row: ComparisonRow, value: int) -> str:
    return _amount(value) if row.is_amount else f"{value:,}"


def _command(options: Options) -> str:
    """Return the command line that draws the same schedule again, also if a default changes."""
    words = ["hq", "simulate"]
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        verb = "--" + field.name.replace("_", "-")
        if value is True:
            words.append(verb)
        elif value is not False:
            words += [verb, f"{value:.15g}" if isinstance(value, float) else str(value)]
    return shlex.join([*words, "--report", "report.html"])


def _facts(result: Result) -> list[tuple[str, str]]:
    options = result.options
    stores = _counted(options.stores, "store")
    tills = _counted(options.stores * options.tills_per_store, "till")
    asked = {
        "outages, lost messages, crashes": options.outages,
        "broken locks": options.break_locks,
    }
    faults = [name for name, is_asked in asked.items() if is_asked]
    return [
        ("Seed", str(options.seed)),
        ("Started", f"{result.started_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"),
        ("Took", f"{_clock(result.seconds)} (planned {_clock(options.minutes * 60)})"),
        ("Fleet", f"{stores}, {tills}, {_counted(options.cards, 'card')}"),
        ("Faults", ", ".join(faults) or "none: a healthy fleet"),
        ("Messages", "through a proxy a till" if options.sockets else "straight to the service"),
    ]


def _figures(result: Result) -> list[tuple[str, str, str]]:
    """Return the figures at the top: name, value, and what it is made of."""
    samples, tills = result.samples, result.tills
    online = sum(row.sales_online for row in tills)
    offline = sum(row.sales_offline for row in tills)
    crashes = sum(row.crashes for row in tills)
    lost = sum(row.messages_lost for row in tills)
    lines = max((sample.backlog_lines for sample in samples), default=0)
    backlog = max((sample.backlog_minor for sample in samples), default=0)
    exposure = max((sample.exposure_minor for sample in samples), default=0)
    return [
        ("Sales", f"{online + offline:,}", f"{online:,} online, {offline:,} offline"),
        ("Voided", f"{sum(row.voided for row in tills):,}", "sales taken back"),
        ("Refused", f"{sum(row.refused for row in tills):,}", "by HQ or at the till"),
        ("Messages lost", f"{lost:,}", _counted(crashes, "crash", "crashes") + " of tills"),
        ("Highest backlog", _amount(backlog), f"{_counted(lines, 'line')} at most"),
        ("Highest exposure", _amount(exposure), "unspent grants of tills that were out"),
    ]


def _till_sums(result: Result) -> dict[str, int]:
    names = (
        "sales_online",
        "sales_offline",
        "voided",
        "refused",
        "crashes",
        "messages_lost",
        "pending_lines",
        "differences",
    )
    return {name: sum(getattr(row, name) for row in result.tills) for name in names}


# --- What is drawn -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Point:
    """What the charts show of a period: how often things happened, how high things stood.

    Units:  seconds since the fleet opened; sales a second; the smallest unit of the currency.
    """

    since_second: float
    second: float
    online_rate: float
    offline_rate: float
    locks_held: int
    backlog_lines: int
    backlog_minor: int
    exposure_minor: int
    tills_online: int
    tills_offline: int
    is_period: bool

    @property
    def label(self) -> str:
        if self.is_period:
            return f"{_clock(self.since_second)}\N{EN DASH}{_clock(self.second)}"
        return _clock(self.second)


def _samples_a_point(samples_count: int) -> int:
    return math.ceil(samples_count / POINTS_MAX) or 1


def _points(samples: Sequence[Sample]) -> list[_Point]:
    """Gather samples into points; of a longer period the highest is shown, so no peak is lost."""
    together = _samples_a_point(len(samples))
    points: list[_Point] = []
    before: Sample | None = None
    for start in range(0, len(samples), together):
        period = samples[start : start + together]
        last = period[-1]
        online_rate, offline_rate = _rates(before, last)
        # One moment's, or else the two would not come to the whole fleet.
        fewest = max(period, key=lambda sample: sample.tills_offline)
        points.append(
            _Point(
                since_second=before.second if before else 0.0,
                second=last.second,
                online_rate=online_rate,
                offline_rate=offline_rate,
                locks_held=max(sample.locks_held for sample in period),
                backlog_lines=max(sample.backlog_lines for sample in period),
                backlog_minor=max(sample.backlog_minor for sample in period),
                exposure_minor=max(sample.exposure_minor for sample in period),
                tills_online=fewest.tills_online,
                tills_offline=fewest.tills_offline,
                is_period=together > 1,
            )
        )
        before = last
    return points


def _rates(before: Sample | None, after: Sample) -> tuple[float, float]:
    """Return the sales a second between two samples, online and offline."""
    seconds = after.second - (before.second if before else 0.0)
    if seconds <= 0:
        return 0.0, 0.0
    sales = after.sales_total - (before.sales_total if before else 0)
    offline = after.offline_sales_total - (before.offline_sales_total if before else 0)
    return (sales - offline) / seconds, offline / seconds


@dataclass(frozen=True, slots=True)
class _Series:
    """One quantity of a chart; the colour is the style sheet's, by its name."""

    name: str
    colour: str
    of: Callable[[_Point], float]


@dataclass(frozen=True, slots=True)
class _Tick:
    """A round value of an axis. ``at`` is a percentage of it, ``is_minor`` may go on a phone."""

    at: float
    label: str
    is_minor: bool = False


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A chart as the template needs it: paths in the plot's units, everything else in words."""

    title: str
    unit: str
    description: str
    extreme: str
    ticks: Sequence[_Tick]
    areas: Sequence[tuple[_Series, str, str]]


_Extreme = tuple[str, Callable[[_Point], float]]
"""What of a chart is worth a word, and its measure."""


@dataclass(frozen=True, slots=True)
class _Chart:
    """A chart over time: the series lie on top of one another, the first at the bottom."""

    title: str
    unit: str
    series: Sequence[_Series]
    written: Callable[[float], str]
    is_stepped: bool = False
    step_min: float = 1.0
    extreme: _Extreme | None = None

    def height(self, point: _Point) -> float:
        """Return what all series come to at a point."""
        return sum(series.of(point) for series in self.series)

    def drawn(self, points: Sequence[_Point], span_seconds: float) -> _Drawn:
        """Return the chart of these points, of which there is one at least."""
        step, top = _axis(max(map(self.height, points)), self.step_min)
        extreme = self._extreme(points)
        return _Drawn(
            title=self.title,
            unit=self.unit,
            description=(
                f"{self.title} in {self.unit}, from 0:00 to {_clock(span_seconds)}: {extreme}."
            ),
            extreme=extreme,
            ticks=[
                _Tick(100 - 100 * count * step / top, self._tick_label(count * step, step))
                for count in range(round(top / step) + 1)
            ],
            areas=self._areas(points, span_seconds, top),
        )

    def _extreme(self, points: Sequence[_Point]) -> str:
        name, of = self.extreme or ("highest", self.height)
        peak = max(points, key=of)
        return f"{name} {self.written(of(peak))}" + (f" at {peak.label}" if of(peak) else "")

    def _areas(
        self, points: Sequence[_Point], span_seconds: float, top: float
    ) -> list[tuple[_Series, str, str]]:
        """Return for every series its filled area and its upper edge, as SVG paths."""
        floor = [0.0] * len(points)
        areas = []
        for series in self.series:
            ceiling = [low + series.of(point) for low, point in zip(floor, points, strict=True)]
            edge = self._edge(points, ceiling, span_seconds, top)
            below = self._edge(points, floor, span_seconds, top)
            areas.append((series, _path([*edge, *reversed(below)]) + "Z", _path(edge)))
            floor = ceiling
        return areas

    def _edge(
        self, points: Sequence[_Point], heights: Sequence[float], span_seconds: float, top: float
    ) -> list[tuple[float, float]]:
        edge = []
        for point, height in zip(points, heights, strict=True):
            y = _PLOT_HEIGHT * (1 - height / top)
            if self.is_stepped:
                edge.append((_PLOT_WIDTH * point.since_second / span_seconds, y))
            edge.append((_PLOT_WIDTH * point.second / span_seconds, y))
        return edge

    def _tick_label(self, value: float, step: float) -> str:
        if self.written is _amount:
            return _whole_amount(round(value))
        return f"{value:,.{max(0, -math.floor(math.log10(step)))}f}"


def _path(corners: Sequence[tuple[float, float]]) -> str:
    first, *rest = [f"{x:.1f} {y:.2f}" for x, y in corners]
    # A line of one point would not be seen; of no length, its round ends are.
    return f"M{first}L{' '.join(rest or [first])}"


def _axis(highest: float, step_min: float) -> tuple[float, float]:
    """Return the step between ticks, which is 1, 2 or 5 of some power of ten, and the axis' end."""
    if highest <= 0:
        return step_min or 1.0, step_min or 1.0
    rough = highest / _TICKS_WANTED
    power = 10.0 ** math.floor(math.log10(rough))
    # A little less is enough: the logarithm of 1,000 may be 2.999....
    fits = (power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    step = max(next(fits), step_min)
    return step, step * math.ceil(highest / step - 1e-9)


def _time_ticks(span_seconds: float) -> list[_Tick]:
    step = next(
        (step for step in _TIME_STEPS_SECONDS if span_seconds / step <= _TIME_TICKS_MAX),
        _DAY_SECONDS * math.ceil(span_seconds / _DAY_SECONDS / _TIME_TICKS_MAX),
    )
    return [
        _Tick(100 * count * step / span_seconds, _clock(count * step), is_minor=count % 2 == 1)
        for count in range(int(span_seconds / step + 1e-9) + 1)
    ]


@dataclass(frozen=True, slots=True)
class _Band:
    """A time in which the same tills are without HQ. ``shade`` is between 0 and 1."""

    at: float
    width: float
    shade: float


def _bands(result: Result, span_seconds: float) -> list[_Band]:
    """Return what is shaded behind the charts: the more of the fleet is out, the darker."""
    outages = [row for row in result.outages if row.from_second < span_seconds]
    ends = (second for row in outages for second in (row.from_second, row.to_second))
    edges = sorted({min(second, span_seconds) for second in ends})
    tills_a_store = result.options.tills_per_store
    tills_count = max(1, result.options.stores * tills_a_store)
    bands = []
    for start, end in itertools.pairwise(edges):
        out = [row for row in outages if row.from_second <= start < end <= row.to_second]
        whole_stores = {row.store for row in out if row.till is None}
        tills = {(row.store, row.till) for row in out if row.store not in whole_stores}
        tills_out = min(tills_count, len(whole_stores) * tills_a_store + len(tills))
        if tills_out:
            shade = _SHADE_MIN + (_SHADE_MAX - _SHADE_MIN) * tills_out / tills_count
            bands.append(_Band(*_extent(start, end, span_seconds), shade))
    return bands


@dataclass(frozen=True, slots=True)
class _Bar:
    at: float
    width: float
    is_whole_store: bool
    label: str


@dataclass(frozen=True, slots=True)
class _Lane:
    store: str
    bars: Sequence[_Bar]


def _lanes(outages: Sequence[OutageRow], span_seconds: float) -> list[_Lane]:
    """Return the outages by store, of whole stores first: those of single tills lie on them."""
    bars: dict[str, list[_Bar]] = {}
    for row in sorted(outages, key=lambda row: (row.store, row.till or "", row.from_second)):
        if row.from_second >= span_seconds:
            continue
        who = "the whole store" if row.till is None else f"till {row.till}"
        when = f"{_clock(row.from_second)}\N{EN DASH}{_clock(row.to_second)}"
        at, width = _extent(row.from_second, min(row.to_second, span_seconds), span_seconds)
        bars.setdefault(row.store, []).append(
            _Bar(at, width, row.till is None, f"{row.store}, {who}: {when}")
        )
    return [_Lane(store, found) for store, found in bars.items()]


def _extent(start: float, end: float, span_seconds: float) -> tuple[float, float]:
    return 100 * start / span_seconds, 100 * (end - start) / span_seconds


def _script_point(point: _Point, span_seconds: float) -> dict[str, Any]:
    """Return what the script shows at a point: nothing is left for it to reckon or to write."""
    return {
        "at": round(100 * point.second / span_seconds, 3),
        "label": point.label,
        "values": [
            [chart.written(series.of(point)) for series in chart.series] for chart in _CHARTS
        ],
    }


def _moments(samples: Sequence[Sample]) -> list[tuple[Sample, str, str]]:
    """Return every sample with its sales a second since the one before, online and offline."""
    moments = []
    before: Sample | None = None
    for sample in samples:
        online, offline = _rates(before, sample)
        moments.append((sample, _rate(online), _rate(offline)))
        before = sample
    return moments


# --- How values are written --------------------------------------------------------------------

_EXPONENT = CURRENCY_EXPONENTS[CURRENCY]


def _amount(amount_minor: float) -> str:
    return display(round(amount_minor), CURRENCY)


def _whole_amount(amount_minor: int) -> str:
    """Write an amount without decimals for an axis, which names the currency at its head."""
    return display(amount_minor, CURRENCY).removesuffix(f" {CURRENCY}").partition(".")[0]


def _count(value: float) -> str:
    return f"{round(value):,}"


def _rate(value: float) -> str:
    return f"{value:,.1f}"


def _clock(seconds: float) -> str:
    """Write a time since the beginning as a stop-watch does: 1:05, 1:00:05."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


_CHARTS = (
    _Chart(
        "Throughput",
        "sales a second",
        (
            _Series("online", "online", lambda point: point.online_rate),
            _Series("offline", "offline", lambda point: point.offline_rate),
        ),
        _rate,
        is_stepped=True,
        step_min=0.0,
    ),
    _Chart(
        "Fleet",
        "tills",
        (
            _Series("online", "online", lambda point: point.tills_online),
            _Series("offline", "offline", lambda point: point.tills_offline),
        ),
        _count,
        is_stepped=True,
        extreme=("most offline", lambda point: point.tills_offline),
    ),
    _Chart(
        "Locks held",
        "locks",
        (_Series("by all tills", "locks", lambda point: point.locks_held),),
        _count,
    ),
    _Chart(
        "Offline backlog",
        "lines",
        (_Series("not yet confirmed by HQ", "offline", lambda point: point.backlog_lines),),
        _count,
    ),
    _Chart(
        "Offline backlog",
        CURRENCY,
        (_Series("not yet confirmed by HQ", "offline", lambda point: point.backlog_minor),),
        _amount,
        step_min=10.0**_EXPONENT,
    ),
    _Chart(
        "Exposure",
        CURRENCY,
        (
            _Series(
                "unspent grants of offline tills", "exposure", lambda point: point.exposure_minor
            ),
        ),
        _amount,
        step_min=10.0**_EXPONENT,
    ),
)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hq_service.simulation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(amount=_amount, clock=_clock, count=_count, mask=mask, side=_side)
    return environment


_ENVIRONMENT = _environment()
