"""Intervals of integers: sorted, inclusive, from first to last. A /48 costs what a /122 costs.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

Span = tuple[int, int]  # first and last address, inclusive


def locate(spans: Sequence[tuple[int, int]], value: int) -> int | None:
    """Index of the span (first and last, inclusive) a value lies in; they are sorted and do not overlap."""
    at = bisect_right(spans, value, key=lambda span: span[0]) - 1
    return at if at >= 0 and value <= spans[at][1] else None


def total(spans: Iterable[Span]) -> int:
    """How many addresses there are in some disjoint spans."""
    return sum(last - first + 1 for first, last in spans)


def nth(spans: Iterable[Span], offset: int) -> int:
    """The address so many places behind the first one.

    :raises IndexError: there are not so many.
    """
    for first, last in spans:
        if offset <= last - first:
            return first + offset
        offset -= last - first + 1
    raise IndexError(offset)


def place(spans: Iterable[Span], value: int) -> int | None:
    """How many addresses come before one, as ``nth`` counts them; None where it is none of them."""
    before = 0
    for first, last in spans:
        if first <= value <= last:
            return before + value - first
        before += last - first + 1
    return None


def meeting(spans: Sequence[Span], first: int, last: int) -> Sequence[Span]:
    """Those of some spans, sorted and disjoint, that have an address from ``first`` to ``last``."""
    low = bisect_left(spans, first, key=lambda span: span[1])
    return spans[low:bisect_right(spans, last, key=lambda span: span[0])]


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same addresses in as few spans as possible, sorted."""
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def without(spans: Iterable[Span], holes: Sequence[Span]) -> list[Span]:
    """What is left of some spans; the holes are sorted and disjoint."""
    left: list[Span] = []
    for first, last in spans:
        for low, high in meeting(holes, first, last):
            if first < low:
                left.append((first, low - 1))
            first = high + 1
        if first <= last:
            left.append((first, last))
    return left
