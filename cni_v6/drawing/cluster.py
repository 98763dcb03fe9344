"""The nodes of a cluster as a picture shows them: their blocks, how full these are, whether the others reach them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cni_v6.drawing import draw_topology, svg
from cni_v6.drawing.layout import LINE, MARGIN, TITLE, WIDTH
from cni_v6.drawing.svg import Attribute, fitting, width
from cni_v6.drawing.tiles import GAP, PAD, SMALL_TEXT, TEXT, Box, Words
from cni_v6.log import counted

# What the others say of a node; the words are those of a legend, the classes those of a bar.
REACHED, PARTLY, UNREACHED, UNKNOWN, REMOVED = "reached", "reached in part", "not reached", "not measured", "removed"
KINDS: Mapping[str, str] = {REACHED: "up", PARTLY: "waiting", UNREACHED: "cut-off", UNKNOWN: "ring-ended",
                            REMOVED: "ring-spent"}
LARGE = 1 << 20  # a block with more room has no bar: nothing would be seen of its leases
ROWS = 44.0  # from a card's top to its tiles
FULL, SHORT = 12, 48  # nodes up to which a tile shows everything, or its blocks in a line each
COLUMNS = {FULL: 3, SHORT: 6}
MANY = 8  # columns for more
BLOCKS = 4  # of a node that are shown


@dataclass(frozen=True, slots=True)
class Block:
    """``leases``: None if nobody has counted them. ``room``: for containers."""

    prefix: str
    leases: int | None
    room: int

    @property
    def fullness(self) -> str:
        if self.leases is None:
            return "-"
        return counted(self.leases, "lease") if self.room > LARGE else f"{self.leases:,} of {self.room:,}"


@dataclass(frozen=True, slots=True)
class Member:
    """A node. ``state``: what the others say of it, one of KINDS. ``answers``: the same in words, a line a family."""

    name: str
    state: str
    carrier: str
    addresses: tuple[str, ...]
    blocks: tuple[Block, ...]
    answers: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """All of it in one sentence, as a screen reader says it and a pointer shows it."""
        blocks = ", ".join(f"{block.prefix} ({block.fullness})" for block in self.blocks) or "no block"
        said = f": {', '.join(self.answers)}" if self.answers else ""
        return f"node {self.name}, carrier {self.carrier}: {blocks}; {self.state}{said}"


@dataclass(frozen=True, slots=True)
class Tile:
    """A node. ``number``: among all. ``bars``: of blocks, with the part that is in use."""

    number: int
    box: Box
    member: Member
    words: tuple[Words, ...]
    bars: tuple[tuple[Box, float], ...]


@dataclass(frozen=True, slots=True)
class Card:
    """The whole cluster."""

    box: Box
    words: tuple[Words, ...]
    tiles: tuple[Tile, ...]


def card(members: Sequence[Member], top: float) -> Card:
    """Where everything stands, from ``top`` on. Those that others do not reach come first."""
    order = [UNREACHED, PARTLY, UNKNOWN, REACHED, REMOVED]
    placed = sorted(enumerate(members), key=lambda found: (order.index(found[1].state), found[1].name))
    left, room = MARGIN + PAD, WIDTH - 2 * MARGIN - 2 * PAD
    carriers = sorted({member.carrier for member in members if member.state != REMOVED})
    about = f"{counted(len(members), 'node')}, {counted(sum(len(member.blocks) for member in members), 'block')}"
    text = [Words(left, top + 26, "Cluster", "ink title", TITLE),
            Words(left + room, top + 26, fitting(f"{about}, carrier {', '.join(carriers) or 'none'}", room / 2, TEXT),
                  "muted", end=True)]
    tiles = list(_tiles(placed, left, top + ROWS + 20, room))
    bottom = max((tile.box.y + tile.box.height for tile in tiles), default=top + ROWS)
    return Card(Box(MARGIN, top, room + 2 * PAD, bottom + PAD - top), tuple(text), tuple(tiles))


def _tiles(members: Sequence[tuple[int, Member]], left: float, top: float, room: float) -> Iterator[Tile]:
    """Tiles of which those of a row are equally high; they show less where there are more."""
    kind = next((most for most in COLUMNS if len(members) <= most), 0)
    columns = COLUMNS.get(kind, MANY)
    gap = GAP if kind == FULL else 6.0
    wide = (room - gap * (columns - 1)) / columns
    y = top
    for start in range(0, len(members), columns):
        row = members[start:start + columns]
        height = max(_height(member, kind) for _, member in row)
        for column, (number, member) in enumerate(row):
            box = Box(left + column * (wide + gap), y, wide, height)
            words, bars = _full(member, box) if kind == FULL else _short(member, box, with_prefix=kind == SHORT)
            yield Tile(number, box, member, tuple(words), tuple(bars))
        y += height + gap


def _height(member: Member, kind: int) -> float:
    blocks, more = len(member.blocks[:BLOCKS]), LINE if _more(member) else 0.0
    if kind == FULL:
        return 30 + LINE * (len(member.addresses[:2]) + 2 * blocks + len(member.answers)) + more
    return 24 + (28.0 if kind == SHORT else 16.0) * blocks + more


def _more(member: Member) -> str:
    more = len(member.blocks) - BLOCKS
    return f"and {counted(more, 'more block')}" if more > 0 else "" if member.blocks else "no block"


def _full(member: Member, box: Box) -> tuple[list[Words], list[tuple[Box, float]]]:
    left, room = box.x + 16, box.width - 28
    name = fitting(member.name, room * 0.65, TEXT)
    carrier = fitting(member.carrier, room - width(name, TEXT) - 8, SMALL_TEXT)
    words = [Words(left, box.y + 20, name, "ink title"),
             Words(left + room, box.y + 20, carrier, "muted", SMALL_TEXT, end=True)]
    bars: list[tuple[Box, float]] = []
    y = box.y + 20
    for address in member.addresses[:2]:
        y += LINE
        words.append(Words(left, y, fitting(address, room, SMALL_TEXT), "muted", SMALL_TEXT))
    for block in member.blocks[:BLOCKS]:
        y += LINE
        words.append(Words(left, y, fitting(block.prefix, room, SMALL_TEXT), "ink", SMALL_TEXT))
        y += LINE
        fullness = fitting(block.fullness, room / 3, SMALL_TEXT)
        words.append(Words(left + room, y, fullness, "muted", SMALL_TEXT, end=True))
        bars += _bar(block, Box(left, y - 8, room * 0.6, 7))
    for line in (*filter(None, [_more(member)]), *member.answers):
        y += LINE
        words.append(Words(left, y, fitting(line, room, SMALL_TEXT), "muted", SMALL_TEXT))
    return words, bars


def _short(member: Member, box: Box, *, with_prefix: bool) -> tuple[list[Words], list[tuple[Box, float]]]:
    left, room = box.x + 12, box.width - 18
    words, bars = [Words(left, box.y + 16, fitting(member.name, room, SMALL_TEXT), "ink title", SMALL_TEXT)], []
    y = box.y + 16
    for block in member.blocks[:BLOCKS]:
        if with_prefix:
            y += 14
            words.append(Words(left, y, fitting(block.prefix, room, 10), "ink", 10))
        y += 14 if with_prefix else 16
        fullness = fitting(block.fullness, room if block.room > LARGE else room * 0.6, 10)
        words.append(Words(left + room, y, fullness, "muted", 10, end=True))
        bars += _bar(block, Box(left, y - 7, max(8.0, room - width(fullness, 10) - 6), 6))
    if _more(member):
        words.append(Words(left, y + LINE, fitting(_more(member), room, 10), "muted", 10))
    return words, bars


def _bar(block: Block, box: Box) -> list[tuple[Box, float]]:
    if block.leases is None or block.room > LARGE:
        return []
    return [(box, min(1.0, block.leases / max(1, block.room)))]


def drawn(placed: Card) -> Iterator[str]:
    """All elements of a card."""
    box = placed.box
    yield svg.rect(box.x, box.y, box.width, box.height, "box", 8)
    yield from map(draw_topology.line, placed.words)
    yield from _legend(Counter(tile.member.state for tile in placed.tiles), box.y + ROWS - 8)
    if not placed.tiles:
        yield svg.words(MARGIN + PAD, box.y + ROWS + 2, "No node has written to this store yet.", "muted", TEXT)
    for tile in placed.tiles:
        about: dict[str, Attribute] = {"class": "member", "data-node": tile.number}
        yield svg.group(about, _inside(tile))


def _inside(tile: Tile) -> Iterator[str]:
    box = tile.box
    yield svg.element("title", {}, svg.escaped(tile.member.label))
    yield svg.rect(box.x, box.y, box.width, box.height, "tile", 4)
    yield _mark(Box(box.x, box.y, 5, box.height), tile.member.state)
    yield from map(draw_topology.line, tile.words)
    for bar, part in tile.bars:
        yield svg.rect(bar.x, bar.y, bar.width, bar.height, "chip", 2)
        if part:
            yield svg.rect(bar.x, bar.y, max(2.0, bar.width * part), bar.height, "used", 2)


def _legend(counts: Mapping[str, int], top: float) -> Iterator[str]:
    """The states that there are, with their numbers, in one row."""
    x = MARGIN + PAD
    for state in KINDS:
        if counts[state]:
            text = f"{counts[state]:,} {state}"
            yield _mark(Box(x, top, 5, 14), state)
            yield svg.words(x + 12, top + 11, text, "ink", TEXT)
            x += 12 + width(text, TEXT) + 24


def _mark(box: Box, state: str) -> str:
    """A state as a bar: filled, or hollow where nobody has measured anything."""
    kind = KINDS[state]
    if kind.startswith("ring-"):
        return svg.rect(box.x + 1, box.y + 1, box.width - 1, box.height - 2, kind, 2)
    return svg.rect(box.x, box.y, box.width, box.height, kind, 2)
