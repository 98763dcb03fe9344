"""The plots: latency distribution, cost against leases, throughput against concurrency, cost as time goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pygal
from pygal.style import CleanStyle

Line = Sequence[tuple[float, float]]
Lines = Mapping[str, Line]
COLOURS = ("#1b6ca8", "#6fb1e0", "#c0392b", "#e8998d")  # ours blue, the peer's red; in the order of the lines' names
TICKS = tuple(digit * 10**power for power in range(5) for digit in (1, 2, 5))
# Pictures without scripts and fonts from elsewhere.
LOOK = {
    "js": (), "style": CleanStyle(font_family="sans-serif", colors=COLOURS), "width": 800, "height": 450,
    "legend_at_bottom": True, "disable_xml_declaration": True, "dots_size": 3, "stroke_style": {"width": 2},
}


def draw(curves: Mapping[str, Lines], folder: Path) -> list[str]:
    """Write a picture for each plot there is data for. Returns the files' names."""
    names = []
    for name, make in (("latency", _latency), ("leases", _leases), ("throughput", _throughput), ("churn", _churn)):
        if curves.get(name):
            chart = make(curves[name])
            (folder / f"{name}.svg").write_text(chart.render(is_unicode=True), encoding="utf-8")
            names.append(f"{name}.svg")
    return names


def _latency(lines: Lines) -> pygal.XY:
    chart = pygal.XY(**LOOK, title="Latency of a call: share of the calls that took at most so long",
                     x_title="milliseconds", y_title="percent", show_dots=False)
    for name in sorted(lines):
        chart.add(name, list(lines[name]))
    return chart


def _leases(lines: Lines) -> pygal.Line:
    title = "IPAM alone: time of a call with so many leases in the store"
    chart = _steps(lines, title, "leases", "milliseconds, logarithmic", logarithmic=True)
    values = [y for points in lines.values() for _, y in points]
    chart.y_labels = [tick for tick in TICKS if min(values) / 2 < tick < max(values) * 2]
    return chart


def _throughput(lines: Lines) -> pygal.Line:
    return _steps(lines, "Calls a second, so many at a time", "at a time", "calls a second")


def _churn(lines: Lines) -> pygal.XY:
    chart = pygal.XY(**LOOK, title="The library alone: time of an ADD with its DEL, after so many",
                     x_title="ADD and DEL so far", y_title="microseconds", show_dots=False,
                     range=(0, 2 * max(y for points in lines.values() for _, y in points)),
                     x_value_formatter=lambda x: f"{x:,.0f}")
    for name in sorted(lines):
        chart.add(name, list(lines[name]))
    return chart


def _steps(lines: Lines, title: str, below: str, beside: str, *, logarithmic: bool = False) -> pygal.Line:
    chart = pygal.Line(**LOOK, title=title, x_title=below, y_title=beside, logarithmic=logarithmic)
    chart.x_labels = [f"{x:,.0f}" for x, _ in next(iter(lines.values()))]
    for name in sorted(lines):
        chart.add(name, [y for _, y in lines[name]])
    return chart
