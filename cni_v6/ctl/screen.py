"""Text for a terminal of 80 columns: tables, shortened ids, ages, wrapped lines. Legible without colour."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Collection, Iterable, Iterator, Sequence

from cni_v6 import log

WIDTH = 80
LEAST = 12  # characters of a container id that are always shown, as runtimes show them
counted = log.counted
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with aligned columns, two blanks between them."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def starts(ids: Collection[str]) -> dict[str, str]:
    """Each id, and a start of it that no other id has."""
    ordered, found = sorted(set(ids)), {}
    for at, text in enumerate(ordered):
        beside = ordered[max(0, at - 1):at] + ordered[at + 1:at + 2]  # no other id has a longer start in common
        common = max((_common(text, other) for other in beside), default=0)
        found[text] = text[:max(LEAST, common + 1)]
    return found


def _common(one: str, other: str) -> int:
    """Number of characters that two texts begin with."""
    return next((at for at, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def cut(text: str, width: int) -> str:
    """A text of at most ``width`` characters: its middle is left out if it is longer."""
    if len(text) <= width:
        return text
    kept = max(2, width - 3)
    return f"{text[:kept - kept // 2]}...{text[-(kept // 2):]}"


def age(seconds: float) -> str:
    """A time span in its largest unit, such as ``3d``."""
    unit, length = next((span for span in _UNITS if seconds >= span[1]), _UNITS[-1])
    return f"{max(0, int(seconds)) // length}{unit}"


def moment(seconds: float) -> str:
    """A time as local time of the node."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def plain(text: object) -> str:
    """A text without characters that move a terminal's cursor: some come from who called, or wrote a file."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def wrapped(label: str, text: str, indent: int) -> Iterator[str]:
    """Lines of a text behind a label, as of ``plain``; the text begins in column ``indent``. No word is broken."""
    first = label.ljust(indent) if len(label.rstrip()) < indent else f"{label} " * bool(label)
    lines = textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=" " * indent, break_long_words=False,
        break_on_hyphens=False,
    )
    yield from map(plain, lines or [label])


def listed(rows: Iterable[tuple[str, str]], margin: int = 2) -> Iterator[str]:
    """Pairs of label and text, the texts aligned and wrapped."""
    pairs = list(rows)
    indent = margin + 2 + max((len(label) for label, _ in pairs), default=0)
    for label, text in pairs:
        yield from wrapped(" " * margin + label, text, indent)


def fitting(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], margin: str = "    ") -> Iterator[str]:
    """A table whose last column stands on lines of its own where it is too wide."""
    lines = table([head, *rows]) if rows else []
    if not lines or max(map(len, lines)) <= WIDTH:
        yield from lines
        return
    room = (WIDTH - 2 * (len(head) - 2)) // (len(head) - 1)
    short = [tuple(cut(cell, room) for cell in row[:-1]) for row in (head, *rows)]
    first, *others = table(short)
    yield first
    for line, row in zip(others, rows):
        yield line
        yield from wrapped(margin, row[-1], len(margin))
