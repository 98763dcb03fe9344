"""The Hilbert curve: consecutive addresses stay neighbours in a picture, and every prefix is one connected area.

D. Hilbert, "Ueber die stetige Abbildung einer Linie auf ein Flaechenstueck", Mathematische Annalen 38 (1891).
"""

from __future__ import annotations

from functools import cache

Point = tuple[int, int]


def point(order: int, place: int) -> Point:
    """The cell at a place of the curve through a square of ``2 ** order`` columns and rows. It ends at the right of
    where it begins."""
    x = y = 0
    for level in range(order):
        side = 1 << level
        right, upper = place >> 1 & 1, (place ^ place >> 1) & 1
        if not upper:
            if right:
                x, y = side - 1 - x, side - 1 - y
            x, y = y, x
        x, y = x + side * right, y + side * upper
        place >>= 2
    return x, y


@cache
def grid(bits: int) -> tuple[Point, ...]:
    """The cells of ``2 ** bits`` places. An odd number of bits makes two squares side by side: the second one begins
    beside the end of the first."""
    order, square = bits // 2, 1 << bits // 2 * 2
    return tuple(
        (column + (1 << order) * (place // square), row)
        for place in range(1 << bits) for column, row in [point(order, place % square)]
    )


def sides(bits: int) -> Point:
    """Columns and rows of ``grid``."""
    return 1 << (bits + 1) // 2, 1 << bits // 2
