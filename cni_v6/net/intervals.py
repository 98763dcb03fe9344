"""Intervals of integers, inclusive from first to last, in sorted sequences. A /48 costs the same as a /122."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

Span = tuple[int, int]  # first and last address, inclusive


def locate(spans: Sequence[tuple[int, int]], value: int) -> int | None:
    """Index of the span that contains a value; None if no span does. The spans are sorted and disjoint."""
    index = bisect_right(spans, value, key=lambda span: span[0]) - 1
    return index if index >= 0 and value <= spans[index][1] else None


def total(spans: Iterable[Span]) -> int:
    """Number of addresses in disjoint spans."""
    return sum(last - first + 1 for first, last in spans)


def nth(spans: Iterable[Span], offset: int) -> int:
    """The address ``offset`` places after the first one.

    :raises IndexError: the spans have fewer addresses.
    """
    for first, last in spans:
        if offset <= last - first:
            return first + offset
        offset -= last - first + 1
    raise IndexError(offset)


def place(spans: Iterable[Span], value: int) -> int | None:
    """Number of addresses before a value, the inverse of ``nth``; None if no span contains the value."""
    before = 0
    for first, last in spans:
        if first <= value <= last:
            return before + value - first
        before += last - first + 1
    return None


def meeting(spans: Sequence[Span], first: int, last: int) -> Sequence[Span]:
    """The spans that have an address from ``first`` to ``last``. The spans are sorted and disjoint."""
    low = bisect_left(spans, first, key=lambda span: span[1])
    return spans[low:bisect_right(spans, last, key=lambda span: span[0])]


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same addresses in as few spans as possible, sorted."""
    result: list[Span] = []
    for first, last in sorted(spans):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(result[-1][1], last))
        else:
            result.append((first, last))
    return tuple(result)


def without(spans: Iterable[Span], holes: Sequence[Span]) -> list[Span]:
    """The spans without the addresses of the holes. The holes are sorted and disjoint."""
    left: list[Span] = []
    for first, last in spans:
        for low, high in meeting(holes, first, last):
            if first < low:
                left.append((first, low - 1))
            first = high + 1
        if first <= last:
            left.append((first, last))
    return left
