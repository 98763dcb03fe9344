"""The tiles of containers: how much each shows, and where."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cni_v6.drawing.node import UP, Container
from cni_v6.drawing.svg import ending, fitting, width
from cni_v6.firewall.policy import Port
from cni_v6.net.addresses import from_text

PAD, GAP = 16.0, 8.0
TEXT, SMALL_TEXT = 12.0, 11.0  # sizes of fonts

# How much a tile shows: by the number of containers of a segment.
FULL, SHORT, TAIL = "full", "short", "tail"
MOST = {FULL: 24, SHORT: 240}
COLUMNS = {SHORT: 6, TAIL: 16}
HEIGHTS = {SHORT: 38.0, TAIL: 20.0}


@dataclass(frozen=True, slots=True)
class Box:
    x: float
    y: float
    width: float
    height: float

    def has(self, other: Box) -> bool:
        """Whether another box lies inside."""
        return (self.x <= other.x and self.y <= other.y and other.x + other.width <= self.x + self.width + 0.01
                and other.y + other.height <= self.y + self.height + 0.01)

    def meets(self, other: Box) -> bool:
        """Whether another box has some of the same area."""
        return (self.x < other.x + other.width - 0.01 and other.x < self.x + self.width - 0.01
                and self.y < other.y + other.height - 0.01 and other.y < self.y + self.height - 0.01)


@dataclass(frozen=True, slots=True)
class Words:
    """A line of words: where its base line begins, or ends if ``end``."""

    x: float
    y: float
    text: str
    kind: str = "ink"
    size: float = TEXT
    end: bool = False

    @property
    def box(self) -> Box:
        wide = width(self.text, self.size)
        return Box(self.x - wide if self.end else self.x, self.y - self.size, wide, self.size * 1.2)


@dataclass(frozen=True, slots=True)
class Tile:
    """A container."""

    box: Box
    container: Container
    words: tuple[Words, ...]


def detail(number: int) -> str:
    """How much the tiles of a segment with so many containers show."""
    return next((kind for kind, most in MOST.items() if number <= most), TAIL)


def tiles_of(containers: Sequence[Container], left: float, top: float, room: float) -> Iterator[Tile]:
    kind = detail(len(containers))
    if kind == FULL:
        yield from _full(containers, left, top, room)
        return
    columns, height = COLUMNS[kind], HEIGHTS[kind]
    gap = GAP if kind == SHORT else 3.0
    wide = (room - gap * (columns - 1)) / columns
    for number, container in enumerate(sorted(containers, key=_urgency)):
        box = Box(left + number % columns * (wide + gap), top + number // columns * (height + gap), wide, height)
        yield Tile(box, container, tuple(_short(container, box) if kind == SHORT else _tail(container, box)))


def _urgency(container: Container) -> tuple[bool, int, int]:
    """Those with a problem first, all by their addresses."""
    family, value = from_text(first_address(container).partition("/")[0]) if _held(container) else (0, 0)
    return container.state == UP, -family, value


def _short(container: Container, box: Box) -> Iterator[Words]:
    room = box.width - 18
    yield Words(box.x + 12, box.y + 16, fitting(container.owner.container_id, room, 10), "ink", 10)
    yield Words(box.x + 12, box.y + 30, ending(first_address(container), room, 10), "muted", 10)


def _tail(container: Container, box: Box) -> Iterator[Words]:
    yield Words(box.x + 8, box.y + 14, fitting(tail(first_address(container)), box.width - 10, 10), "ink", 10)


def first_address(container: Container) -> str:
    return next(iter(_held(container)), "no address")


def _held(container: Container) -> tuple[str, ...]:
    return *container.addresses, *container.prefixes


def tail(address: str) -> str:
    """The part of an address that differs within a network."""
    return f":{address.rpartition(':')[2]}" if ":" in address else ".".join(address.split(".")[-2:])


def _full(containers: Sequence[Container], left: float, top: float, room: float) -> Iterator[Tile]:
    """Tiles with all that fits, those of a row equally high."""
    lines = [list(_details(container)) for container in containers]
    needed = max((width(text, SMALL_TEXT) for some in lines for text, _ in some), default=0) + 30
    columns = max(1, min(3, int((room + GAP) // (needed + GAP))))
    wide = (room - GAP * (columns - 1)) / columns
    y = top
    for start in range(0, len(containers), columns):
        row = list(zip(containers[start:start + columns], lines[start:start + columns]))
        height = 16 + 16.0 * max(len(some) for _, some in row)
        for number, (container, some) in enumerate(row):
            box = Box(left + number * (wide + GAP), y, wide, height)
            yield Tile(box, container, tuple(_stacked(some, box)))
        y += height + GAP


def _stacked(lines: Iterable[tuple[str, str]], box: Box) -> Iterator[Words]:
    for number, (text, kind) in enumerate(lines):
        fitted = fitting(text, box.width - 26, SMALL_TEXT)
        yield Words(box.x + 16, box.y + 19 + 16 * number, fitted, kind, SMALL_TEXT)


def _details(container: Container) -> Iterator[tuple[str, str]]:
    owner = container.owner
    named = owner.container_id if len(owner.container_id) <= 24 else owner.container_id[:12]
    yield f"{named} {owner.ifname}".rstrip(), "ink title"
    yield from ((address, "ink") for address in container.addresses[:4])
    yield from ((f"{prefix} (delegated)", "ink") for prefix in container.prefixes[:2])
    more = len(container.addresses[4:]) + len(container.prefixes[2:])
    if more:
        yield f"and {more} more", "muted"
    yield from ((f"{port_words(port)} {port.container_port}", "muted") for port in container.ports[:3])
    if len(container.ports) > 3:
        yield f"and {len(container.ports) - 3} more ports", "muted"
    if container.problem:
        yield from ((line, container.state.replace(" ", "-")) for line in wrapped(container.problem, 40)[:3])


def port_words(port: Port) -> str:
    """A published port, up to its arrow."""
    at = f"[{port.host_ip}]:" if ":" in port.host_ip else f"{port.host_ip}:" if port.host_ip else ""
    return f"{port.protocol} {at}{port.host_port} \N{RIGHTWARDS ARROW}"


def wrapped(text: str, most: int) -> list[str]:
    """Lines of at most so many characters."""
    return textwrap.wrap(text, most, subsequent_indent="  ")
