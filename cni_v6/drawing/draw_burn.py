"""How the addresses of a set are used up over time, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cni_v6.drawing import svg
from cni_v6.planning.prefix_plan import duration
from cni_v6.planning.usage import Growth, Usage, per

Moment = Callable[[float], str]  # seconds since the epoch as text


def rate(usage: Usage) -> str:
    """How fast they go, and how long they last."""
    if not usage.rate or usage.years is None:
        return "rate not known: too few attachments are on record"
    least = "at least " if usage.observed and usage.observed.least else ""
    long = "more than a million years" if usage.years > 1_000_000 else duration(usage.years)
    return f"{least}{per(usage.rate)}; {'lasts' if usage.once else 'comes round in'} {long}"


def what(growth: Growth) -> str:
    """What the curve counts."""
    return "addresses given" if growth.complete else "addresses held now, by the time they were given"


def chart(growth: Growth, usage: Usage, moment: Moment, place: tuple[float, float, float, float]) -> Iterator[str]:
    """A curve in a rectangle: ``place`` is x, y, width and height of the chart with its words."""
    x, y, wide, high = place
    left, top, right, bottom = x, y + 40, x + wide, y + high - 22
    most = max(number for _, number in growth.points) or 1
    begin, end = growth.points[0][0], growth.points[-1][0]
    span = end - begin or 1.0
    yield svg.words(x, y + 10, f"{most if growth.points[-1][1] else 0:,} {what(growth)}", "ink", 11)
    yield svg.words(x, y + 26, svg.fitting(rate(usage), wide, 11), "muted", 11)
    yield svg.path(((left, top), (left, bottom), (right, bottom)), "hilbert")
    points: list[tuple[float, float]] = []
    for time, number in growth.points:
        across = left + (right - left) * (time - begin) / span
        up = bottom - (bottom - top) * number / most
        points += [(across, points[-1][1])] if points else [(across, bottom)]
        points.append((across, up))
    yield svg.path(points, "curve")
    yield svg.words(left, bottom + 16, moment(begin), "muted", 10)
    yield svg.words(right, bottom + 16, moment(end), "muted", 10, "end")
