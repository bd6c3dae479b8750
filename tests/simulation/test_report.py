"""The page about a simulation: whole, of one file, and nothing in it that should not be."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hq_service.simulation.report import POINTS_MAX, page, write
from hq_service.simulation.result import ComparisonRow, Options, OutageRow, Result, TillRow
from hq_service.simulation.samples import Sample

VOID_ELEMENTS = {"meta", "br", "hr", "img", "input", "link"}
HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style></script><!--",
    "{{ 7 * 7 }} {% raw %} ' & \N{LATIN SMALL LETTER O WITH STROKE}",
)
CARD_NUMBER = "6006491234567890"
TRANSACTION_ID = "0190f5be-7d6e-7a3c-9b31-5a1f0c2d3e4f"


class Page(HTMLParser):
    """What a browser would make of a page, if it made nothing of what is wrong in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((tuple(self.open), data))
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def all(self, tag: str, css_class: str = "") -> list[dict[str, str]]:
        return [
            attributes
            for found, attributes in self.elements
            if found == tag and (not css_class or css_class in attributes.get("class", "").split())
        ]

    def words(self, *within: str) -> str:
        """Return the text inside these elements, each within the one before."""
        return " ".join(
            " ".join(data for where, data in self.texts if where[-len(within) :] == within).split()
        )

    def row(self, *beginning: str) -> list[str]:
        found = [row for row in map(_stripped, self.rows) if row[: len(beginning)] == [*beginning]]
        assert len(found) == 1
        return found[0]

    def script_points(self) -> Any:
        return json.loads(self.text.split('id="points">')[1].split("</script>")[0])


def _stripped(row: Sequence[str]) -> list[str]:
    return [" ".join(cell.split()) for cell in row]


def a_sample(second: float, **values: int) -> Sample:
    ordinary = {
        "sales_total": round(second) * 3,
        "offline_sales_total": round(second),
        "refused_total": 0,
        "requests_total": round(second) * 9,
        "locks_held": 0,
        "backlog_lines": 0,
        "backlog_minor": 0,
        "exposure_minor": 0,
        "tills_online": 8,
        "tills_offline": 4,
    }
    return Sample(second, **(ordinary | values))


def some_samples(count: int) -> list[Sample]:
    return [a_sample(float(second), locks_held=second % 7) for second in range(1, count + 1)]


def a_till(store: str = "North", till: str = "North 1", **values: int) -> TillRow:
    ordinary = dict.fromkeys(
        "sales_online sales_offline voided refused crashes messages_lost pending_lines"
        " differences".split(),
        0,
    )
    return TillRow(store, till, **(ordinary | values))


def a_result(**values: Any) -> Result:
    ordinary: dict[str, Any] = {
        "options": Options(outages=True),
        "digest": "5f2d" * 16,
        "started_at": datetime(2026, 1, 3, 12, 30, tzinfo=UTC),
        "seconds": 134.2,
        "samples": some_samples(5),
        "outages": [OutageRow("North", None, 1.0, 3.0), OutageRow("South", "South 2", 2.0, 9.0)],
        "tills": [a_till(sales_online=31), a_till("South", "South 2", sales_offline=12)],
        "comparisons": [ComparisonRow("Sales lost", 0, 0, is_ok=True)],
    }
    return Result(**(ordinary | values))


def an_off_result(**values: Any) -> Result:
    return a_result(
        tills=[a_till(), a_till("South", "South 2", differences=3, pending_lines=1)],
        comparisons=[
            ComparisonRow("Applied twice", 0, 0, is_ok=True),
            ComparisonRow(
                "Shortfall", 84_000, 69_050, False, True, [f"{TRANSACTION_ID} line 1: 150.50 SEK"]
            ),
        ],
        **values,
    )


@pytest.mark.parametrize("samples_count", [0, 1, 2, 5, 120, 3_600])
def test_the_page_is_well_formed_whatever_was_sampled(samples_count: int) -> None:
    text = page(a_result(samples=some_samples(samples_count)))
    assert text.startswith("<!doctype html>")
    # Eight series, and the upper edge of the four that are alone in their chart.
    paths = Page(text).all("path")
    assert len(paths) == (12 if samples_count else 0)
    for path in paths:
        assert re.fullmatch(r"M[0-9. ]+L[0-9. ]+Z?", path["d"])


def test_a_run_of_nothing_at_all_has_a_page() -> None:
    empty = Page(page(a_result(samples=[], outages=[], tills=[], comparisons=[])))
    assert "No sample was taken" in empty.words("p")
    assert empty.all("svg") == empty.all("script") == []


def test_the_page_names_no_address_and_fetches_nothing() -> None:
    text = page(an_off_result())
    assert not re.search(r"https?:|//[a-z]|www\.|url\(|@import|@font-face", text, re.IGNORECASE)
    found = Page(text)
    assert not {tag for tag, _ in found.elements} & {"link", "img", "iframe", "object", "base"}
    names = {name for _, attributes in found.elements for name in attributes}
    assert not names & {"src", "srcset", "href", "xlink:href", "action", "data", "background"}


def test_the_browser_is_told_to_fetch_nothing_before_anything_else() -> None:
    tags = Page(page(a_result())).elements
    policies = [
        (position, attributes["content"])
        for position, (tag, attributes) in enumerate(tags)
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert [policy for _, policy in policies] == [
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    ]
    first = min(position for position, (tag, _) in enumerate(tags) if tag in {"style", "script"})
    assert policies[0][0] < first


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_are_text_and_nothing_else(name: str) -> None:
    def named(name: str) -> Page:
        return Page(
            page(
                a_result(
                    outages=[OutageRow(name, name, 1.0, 2.0)],
                    tills=[a_till(name, name, differences=1)],
                    comparisons=[ComparisonRow(name, 0, 1, False, False, [name])],
                    digest=name,
                )
            )
        )

    hostile, plain = named(name), named("plain")
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert hostile.row("OFF", name)[1] == name
    assert hostile.words("li").endswith(name)
    assert name in hostile.words("svg", "text")


def test_every_sample_is_in_the_table() -> None:
    samples = [
        a_sample(1.0, sales_total=4, offline_sales_total=0),
        a_sample(
            3.0,
            sales_total=9,
            offline_sales_total=2,
            refused_total=1,
            requests_total=1_234,
            locks_held=11,
            backlog_lines=6,
            backlog_minor=1_532_513,
            exposure_minor=45_000,
            tills_online=7,
            tills_offline=5,
        ),
        # Twice the same second, as a clock that was set back would tell it.
        a_sample(3.0, sales_total=10, offline_sales_total=2),
    ]
    shown = Page(page(a_result(samples=samples)))
    assert shown.row("1.0")[1:5] == ["4.0", "0.0", "4", "0"]
    (second, again) = [row for row in shown.rows if row[0] == "3.0"]
    assert second[1:] == ("1.5|1.0|9|2|1|1,234|11|6|15325.13 SEK|450.00 SEK|7|5".split("|"))
    assert again[1:3] == ["0.0", "0.0"]


def test_the_charts_of_a_long_run_keep_its_peak_and_the_table_all_of_it() -> None:
    samples = some_samples(3_600)
    samples[1_234] = a_sample(1_235.0, locks_held=99, tills_online=0, tills_offline=12)
    shown = Page(page(a_result(samples=samples)))
    points = shown.script_points()
    assert len(points) == POINTS_MAX
    at_peak = [point for point in points if point["values"][2] == ["99"]]
    assert [(point["label"], point["values"][1]) for point in at_peak] == [
        ("20:30\N{EN DASH}20:45", ["0", "12"])
    ]
    assert len([row for row in shown.rows if len(row) == 13 and row[0][0].isdigit()]) == 3_600
    assert "Each point stands for 15 samples" in shown.words("p")


def test_axes_end_and_step_at_round_values() -> None:
    samples = [a_sample(1.0), a_sample(120.0, locks_held=37, backlog_minor=1_532_513)]
    labels = Page(page(a_result(samples=samples, outages=[]))).words("svg", "text")
    assert "0 10 20 30 40 0:00 0:15 0:30 0:45 1:00 1:15 1:30 1:45 2:00" in labels
    assert "0 5000 10000 15000 20000 0:00" in labels


def test_curves_stand_where_the_samples_were() -> None:
    samples = [a_sample(5.0, locks_held=0), a_sample(10.0, locks_held=40)]
    (edge,) = Page(page(a_result(samples=samples))).all("path", "locks")[1:]
    assert edge["d"] == "M500.0 100.00L1000.0 0.00"


def test_outages_are_shaded_the_more_the_more_tills_are_out() -> None:
    shown = Page(page(a_result(samples=some_samples(10))))
    bands = shown.all("rect", "band")[:3]
    places = [(band["x"], band["width"]) for band in bands]
    assert places == [("10.0%", "10.0%"), ("20.0%", "10.0%"), ("30.0%", "60.0%")]
    store, both, till = [float(band["fill-opacity"]) for band in bands]
    assert both > store > till > 0
    assert [bar["width"] for bar in shown.all("rect", "whole-store")] == ["20.0%"]
    assert [bar["width"] for bar in shown.all("rect", "one-till")] == ["70.0%"]


def test_what_differs_comes_first_and_in_words() -> None:
    shown = Page(page(an_off_result()))
    assert shown.words("h1") == "HQ and the tills do not agree"
    assert shown.words("title").startswith("OFF")
    told = shown.words("p")
    assert "Shortfall: expected 840.00 SEK, found 690.50 SEK" in told
    assert "Till South 2 of South: 3 differences, 1 line pending" in told
    verdicts = [row[0] for row in shown.rows if row[0] in {"ok", "OFF"}]
    assert verdicts == ["OFF", "ok", "OFF", "ok"]
    assert shown.row("OFF", f"Shortfall {TRANSACTION_ID} line 1: 150.50 SEK")[2:] == [
        "840.00 SEK",
        "690.50 SEK",
    ]


def test_a_run_as_expected_says_so_and_nowhere_off() -> None:
    text = page(a_result())
    assert "HQ and every till agree" in Page(text).words("h1")
    assert ">OFF<" not in text


def test_many_differences_are_counted_at_the_top_and_listed_below() -> None:
    rows = [ComparisonRow(f"Sentence {number}", 0, 1, is_ok=False) for number in range(1, 9)]
    shown = Page(page(a_result(comparisons=rows)))
    assert "Sentence 5: expected 0, found 1 and 3 more, in the tables below" in shown.words("p")
    assert shown.row("OFF", "Sentence 8")


def test_a_card_number_that_strayed_into_a_result_is_hidden_and_ids_are_not() -> None:
    row = ComparisonRow(
        f"Card {CARD_NUMBER}", 0, 1, False, False, [f"{TRANSACTION_ID} with {CARD_NUMBER}"]
    )
    text = page(a_result(comparisons=[row]))
    assert CARD_NUMBER not in text
    assert text.count("***7890") == 3  # at the top, in the sentence, in what differs
    assert TRANSACTION_ID in text


def test_the_command_line_repeats_the_options() -> None:
    options = Options(stores=2, cards=50, minutes=0.1, seed=-3, break_locks=True)
    command = Page(page(a_result(options=options))).words("dd", "code").partition("hq ")[2]
    assert shlex.split(command) == (
        "simulate --stores 2 --tills-per-store 4 --cards 50 --minutes 0.1 --seed -3 --break-locks"
        " --report report.html".split()
    )


def test_the_charts_can_be_read_without_eyes_and_without_the_script() -> None:
    shown = Page(page(a_result()))
    ids = {attributes["id"] for _, attributes in shown.elements if "id" in attributes}
    frames = shown.all("svg", "frame")
    assert len(frames) == 7
    for frame in frames:
        assert frame["role"] == "img"
        assert set(frame["aria-labelledby"].split()) <= ids
    assert "Locks held in locks, from 0:00 to 0:05: highest 5 at 0:05." in shown.words("desc")


def test_a_page_replaces_the_one_that_is_there(tmp_path: Path) -> None:
    place = tmp_path / "report.html"
    place.write_text("the last run's")
    write(a_result(), place)
    assert place.read_text(encoding="utf-8") == page(a_result())
    assert list(tmp_path.iterdir()) == [place]


def test_a_page_that_cannot_be_put_in_place_leaves_nothing_behind(tmp_path: Path) -> None:
    place = tmp_path / "report.html"
    place.mkdir()
    with pytest.raises(OSError, match="directory"):
        write(a_result(), place)
    assert list(tmp_path.iterdir()) == [place]
