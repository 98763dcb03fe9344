"""An address space as SVG: the levels from the whole subnet down to where addresses are in use."""

from __future__ import annotations

from collections.abc import Iterator

from cni_v6.drawing import hilbert, svg
from cni_v6.drawing.layout import MARGIN, WIDTH
from cni_v6.drawing.space import (
    DELEGATED,
    FREE,
    LABELS,
    MEANINGS,
    OUTSIDE,
    RESERVED,
    SPENT,
    USED,
    WAITING,
    Cell,
    Level,
    Space,
    amount,
    descent,
    words,
)
from cni_v6.net.addresses import BITS, to_text

LARGE, SMALL = 336.0, 90.0  # sides of a map
PANEL = 64 + LARGE + 48  # height of a space
ACROSS = 7  # small maps in a row
STEP = SMALL + 40  # from a row to the next
STRIP = MARGIN + LARGE + 40  # where they begin
LEGEND = 100.0
SCALE = ("A coloured cell: all of its addresses. A mark alone: some of them, be it one.",
         "Addresses follow the line, so every prefix is one area.")
STATES = (USED, DELEGATED, WAITING, RESERVED, SPENT, OUTSIDE, FREE)


def legend(top: float) -> Iterator[str]:
    """What each mark means, three in a row; and how much of a cell it stands for. LEGEND high."""
    column = (WIDTH - 2 * MARGIN) / 3
    for number, state in enumerate(STATES):
        x, y = MARGIN + number % 3 * column, top + number // 3 * 24
        yield svg.rect(x, y, 16, 16, "cell")
        yield from mark(x, y, 16, 16, state, whole=True)
        yield svg.words(x + 24, y + 12, LABELS[state], "ink title", 11)
        after = x + 24 + svg.width(LABELS[state], 11) + 8
        yield svg.words(after, y + 12, svg.fitting(MEANINGS[state], x + column - after, 11), "muted", 11)
    for number, text in enumerate(SCALE):
        yield svg.words(MARGIN + column, top + 60 + number * 16, text, "muted", 11)


def mark(x: float, y: float, wide: float, high: float, state: str, *, whole: bool) -> Iterator[str]:
    """What a cell has: its area in colour if all of it has it; a mark of a shape of its own."""
    if state == FREE:
        return
    if whole:
        tint = "" if state in (USED, OUTSIDE) else " tint"
        yield svg.rect(x, y, wide, high, f"{state}{tint}")
        if state in (USED, OUTSIDE):
            return
    centre, middle, half = x + wide / 2, y + high / 2, max(2.0, min(wide, high) * 0.28)
    if state in (USED, OUTSIDE):
        yield svg.rect(centre - half, middle - half, 2 * half, 2 * half, state)
    elif state == DELEGATED:
        corners = ((0, -half), (half, 0), (0, half), (-half, 0), (0, -half))
        yield svg.path(((centre + right, middle + down) for right, down in corners), state)
    elif state == SPENT:
        yield svg.rect(centre - half, middle - half, 2 * half, 2 * half, "ring-spent")
    else:
        size: dict[str, svg.Attribute] = {
            "class": "ring-waiting" if state == WAITING else state, "cx": centre, "cy": middle,
            "r": half if state == WAITING else half * 0.8,
        }
        yield svg.element("circle", size)


def grid(space: Space, shown: Level, x: float, y: float, side: float, into: int | None = None) -> Iterator[str]:
    """A level as a map. ``into``: the place of the cell that the next map shows."""
    columns, rows = hilbert.sides(shown.bits)
    wide, high = side / columns, side / rows
    places = hilbert.grid(shown.bits)
    yield svg.rect(x, y, side, side, "cell")
    if side == LARGE:
        yield svg.path(((x + (column + .5) * wide, y + (row + .5) * high) for column, row in places), "hilbert")
    for cell in shown.cells:
        column, row = places[cell.place]
        left, top = x + column * wide, y + row * high
        title = svg.element("title", {}, svg.escaped(words(space, cell)))
        inside = [*mark(left, top, wide, high, cell.state, whole=cell.whole)]
        if side == LARGE and wide >= 20 and cell.state == USED and cell.whole:
            inside.append(svg.words(left + wide / 2, top + high / 2 + 3, digits(space, cell), "on-used", 9, "middle"))
        yield svg.group({}, (title, *inside))
    if into is not None:
        column, row = places[into]
        yield svg.rect(x + column * wide, y + row * high, wide, high, "zoom")


def digits(space: Space, cell: Cell) -> str:
    """The part of a prefix that differs within its level: two hexadecimal digits, or a decimal byte."""
    shift = BITS[space.family] - cell.length
    return f"{cell.first >> shift & 0xFF:02x}" if space.family == 6 else str(cell.first >> shift & 0xFF)


def caption(space: Space, shown: Level) -> tuple[str, str]:
    """A map's prefix; what a cell of it is."""
    length = shown.length + shown.bits
    size = 1 << BITS[space.family] - length
    cell = f"a cell: a /{length}, {amount(size)} addresses" if size > 1 else "a cell: an address"
    return f"{to_text(space.family, shown.first)}/{shown.length}", cell


def title(space: Space) -> str:
    return f"{space.prefix}, network {space.network}"


def totals(space: Space) -> str:
    """How many addresses there are of each state."""
    counts = space.counts()
    text = ", ".join(f"{amount(counts[state])} {LABELS[state]}" for state in STATES if counts[state])
    return f"{text} ({space.omitted:,} more are spent, and not shown)" if space.omitted else text


def panel(space: Space, top: float) -> Iterator[str]:
    """A space: the map of where addresses are in use, and those that lead there. PANEL high."""
    levels = descent(space)
    yield svg.rect(MARGIN, top, WIDTH - 2 * MARGIN, PANEL, "box", 8)
    yield svg.words(MARGIN + 16, top + 26, svg.fitting(title(space), 1100, 15), "ink title", 15)
    yield svg.words(MARGIN + 16, top + 48, svg.fitting(totals(space), 1100, 12), "muted", 12)
    *before, last = levels
    yield from grid(space, last, MARGIN + 16, top + 64, LARGE)
    for number, text in enumerate(caption(space, last)):
        yield svg.words(MARGIN + 16, top + 64 + LARGE + 18 + 16 * number, text, "muted" if number else "ink", 11)
    step = (WIDTH - MARGIN - 16 - STRIP + 18) / ACROSS
    for number, shown in enumerate(before):
        x, y = STRIP + number % ACROSS * step, top + 64 + number // ACROSS * STEP
        into = next(cell.place for cell in shown.cells if cell.first == levels[number + 1].first)
        yield from grid(space, shown, x, y, SMALL, into)
        yield svg.words(x, y + SMALL + 14, f"/{shown.length} in /{shown.length + shown.bits}s", "ink", 10)
        size = 1 << BITS[space.family] - shown.length - shown.bits
        yield svg.words(x, y + SMALL + 27, f"cell: {amount(size)}", "muted", 10)


def beside(space: Space, top: float) -> tuple[float, float, float, float]:
    """What is left of a panel beside the large map, below the small ones: x, y, width, height."""
    before = len(descent(space)) - 1
    above = 64 + STEP * -(-before // ACROSS)
    return STRIP, top + above, WIDTH - MARGIN - 16 - STRIP, PANEL - above - 12
