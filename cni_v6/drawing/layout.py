"""Where everything of a topology stands: boxes, lines of words, wires. Nothing overlaps, no words leave their box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cni_v6.drawing.node import BRIDGE, LEASES, MASTER, ROUTED, NodeMap, Segment, Uplink
from cni_v6.drawing.svg import ADVANCE, fitting, width
from cni_v6.drawing.tiles import GAP, PAD, SMALL_TEXT, TEXT, Box, Tile, Words, port_words, tiles_of, wrapped
from cni_v6.log import counted

WIDTH = 1200.0
MARGIN = 24.0
UPLINKS = 270.0  # width of an uplink's card
CARDS = 370.0  # where segments begin
LINE = 18.0
TITLE = 15.0
LINES = 2  # of published ports


@dataclass(frozen=True, slots=True)
class Chip:
    """A policy."""

    box: Box
    text: str


@dataclass(frozen=True, slots=True)
class Card:
    """A segment, or an uplink without tiles."""

    box: Box
    of: Segment | Uplink
    words: tuple[Words, ...]
    chips: tuple[Chip, ...] = ()
    tiles: tuple[Tile, ...] = ()


@dataclass(frozen=True, slots=True)
class Wire:
    """From a segment to an uplink, by the numbers of their cards."""

    segment: int
    uplink: int
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Topology:
    height: float
    uplinks: tuple[Card, ...]
    segments: tuple[Card, ...]
    wires: tuple[Wire, ...]


def topology(node: NodeMap, top: float = 0.0) -> Topology:
    """All places, from ``top`` on."""
    uplinks, segments = [], []
    y = top
    for uplink in node.uplinks:
        uplinks.append(_uplink(uplink, y))
        y = uplinks[-1].box.y + uplinks[-1].box.height + 2 * GAP
    left, y = y, top
    for segment in node.segments:
        segments.append(_segment(segment, y))
        y = segments[-1].box.y + segments[-1].box.height + 2 * GAP
    return Topology(max(left, y) - top, tuple(uplinks), tuple(segments), tuple(_wires(uplinks, segments)))


def _uplink(uplink: Uplink, y: float) -> Card:
    room = UPLINKS - 2 * PAD
    lines = [(f"{'up' if uplink.up else 'down'}, MTU {uplink.mtu}" if uplink.mtu else "not on the node", "muted")]
    shown = uplink.addresses[:5]
    lines += [(address, "ink") for address in shown]
    if len(uplink.addresses) > len(shown):
        lines.append((f"and {len(uplink.addresses) - len(shown)} more", "muted"))
    for family, gateway in uplink.gateways[:4]:
        lines.append((f"IPv{family} default{f' via {gateway}' if gateway else ''}", "muted"))
    text = [Words(MARGIN + PAD, y + 26, fitting(uplink.name, room, TITLE), "ink title", TITLE)]
    text += [Words(MARGIN + PAD, y + 26 + LINE * (number + 1), fitting(words, room, SMALL_TEXT), kind, SMALL_TEXT)
             for number, (words, kind) in enumerate(lines)]
    return Card(Box(MARGIN, y, UPLINKS, 38 + LINE * len(lines)), uplink, tuple(text))


def _segment(segment: Segment, top: float) -> Card:
    left, room = CARDS + PAD, WIDTH - MARGIN - CARDS - 2 * PAD
    held = counted(len(segment.containers), "container")
    name = fitting(segment.name, room / 2, TITLE)
    about = left + width(name, TITLE) + 12
    free = room - width(name, TITLE) - 24 - width(held, TEXT)
    text = [
        Words(left, top + 26, name, "ink title", TITLE),
        Words(about, top + 26, fitting(_about(segment), free, TEXT), "muted"),
        Words(left + room, top + 26, held, "ink", end=True),
    ]
    y = top + 26
    for words, kind in _lines(segment, room):
        y += LINE
        text.append(Words(left, y, words, kind))
    chips = list(_chips(segment, left, y + 10, room))
    y = chips[-1].box.y + chips[-1].box.height if chips else y
    tiles = list(tiles_of(segment.containers, left, y + 12, room))
    y = max((tile.box.y + tile.box.height for tile in tiles), default=y)
    return Card(Box(CARDS, top, room + 2 * PAD, y + PAD - top), segment, tuple(text), tuple(chips), tuple(tiles))


def _about(segment: Segment) -> str:
    kinds = {BRIDGE: "bridge", ROUTED: "a link for each container", MASTER: "master",
             LEASES: "addresses without an interface"}
    words = [kinds[segment.kind]]
    if segment.kind in (BRIDGE, MASTER):
        words.append(f"{'up' if segment.up else 'down'}, MTU {segment.mtu}" if segment.mtu else "not on the node")
    if segment.networks != (segment.name,):
        words.append(f"network {', '.join(segment.networks)}")
    return ", ".join(words)


def _lines(segment: Segment, room: float) -> Iterator[tuple[str, str]]:
    most = int(room / (ADVANCE * TEXT))
    if segment.addresses:
        yield from ((line, "muted") for line in wrapped("node: " + "  ".join(segment.addresses), most))
    for way in segment.leaving:
        to = f"leaves by {' and '.join(way.uplinks)}" if way.uplinks else "does not leave the node"
        if not way.uplinks and way.how and "gateway" not in way.how[0]:
            to = "leaves nowhere: the node has no default route"
        yield from ((line, "ink") for line in wrapped(f"IPv{way.family} {to}: {', '.join(way.how)}", most))
    ports = [f"{port_words(port)} {container.owner.container_id[:12]}:{port.container_port}"
             for container in segment.containers for port in container.ports]
    if ports:
        lines = wrapped("published: " + ", ".join(ports[:12]), most)
        yield from ((line, "ink") for line in lines[:LINES])
        if len(ports) > 12 or len(lines) > LINES:
            yield f"and more: {len(ports)} published ports in all", "muted"


def _chips(segment: Segment, left: float, top: float, room: float) -> Iterator[Chip]:
    x, y = left, top
    for words, count in segment.policies:
        text = words if count == len(segment.containers) else f"{words} ({count})"
        text = fitting(text, room - 20, SMALL_TEXT)
        wide = width(text, SMALL_TEXT) + 18
        if x > left and x + wide > left + room:
            x, y = left, y + 26
        yield Chip(Box(x, y, wide, 20), text)
        x += wide + 6


def _wires(uplinks: Sequence[Card], segments: Sequence[Card]) -> Iterator[Wire]:
    """Each uplink has a vertical line of its own between the columns, so that no wire hides another."""
    room = CARDS - MARGIN - UPLINKS
    for number, card in enumerate(uplinks):
        assert isinstance(card.of, Uplink)
        bus = MARGIN + UPLINKS + room * (number + 1) / (len(uplinks) + 1)
        y = card.box.y + 22
        for place, segment in enumerate(segments):
            if isinstance(segment.of, Segment) and any(card.of.name in way.uplinks for way in segment.of.leaving):
                down = segment.box.y + 22 + 5 * number
                yield Wire(place, number, ((MARGIN + UPLINKS, y), (bus, y), (bus, down), (CARDS, down)))
