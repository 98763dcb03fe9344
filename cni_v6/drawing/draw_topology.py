"""The topology as SVG: its places come from ``layout``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cni_v6.drawing import svg
from cni_v6.drawing.layout import CARDS, MARGIN, UPLINKS, WIDTH, Card, Topology
from cni_v6.drawing.node import CUT_OFF, DAMAGED, STATES, UP, NodeMap
from cni_v6.drawing.svg import Attribute
from cni_v6.drawing.tiles import Box, Tile, Words
from cni_v6.log import counted

SOLID = (UP, CUT_OFF, DAMAGED)  # the others have no interface here: their mark is hollow


def kind(state: str) -> str:
    """The class of a state."""
    return state.replace(" ", "-")


def drawn(places: Topology) -> Iterator[str]:
    """All elements: wires first, so that cards lie on them."""
    for wire in places.wires:
        yield svg.path(wire.points, "wire")
    for card in places.uplinks:
        yield svg.group({"class": "uplink"}, _card(card))
    for number, card in enumerate(places.segments):
        yield svg.group({"class": "segment", "id": f"segment-{number}"}, _card(card))


def empty(top: float) -> Iterator[str]:
    """What is drawn in place of segments where there are none."""
    yield svg.rect(CARDS, top, WIDTH - MARGIN - CARDS, 56, "box", 8)
    yield svg.words(CARDS + 16, top + 33, "No attachment is on record.", "muted", 12)


def _card(card: Card) -> Iterator[str]:
    box = card.box
    yield svg.rect(box.x, box.y, box.width, box.height, "box", 8)
    yield from map(line, card.words)
    for chip in card.chips:
        yield svg.rect(chip.box.x, chip.box.y, chip.box.width, chip.box.height, "chip", 10)
        yield svg.words(chip.box.x + 9, chip.box.y + 14, chip.text, "ink", 11)
    for tile in card.tiles:
        yield _tile(tile)


def line(text: Words) -> str:
    """A line of text, as an element."""
    return svg.words(text.x, text.y, text.text, text.kind, text.size, "end" if text.end else "")


def _tile(tile: Tile) -> str:
    box, container = tile.box, tile.container
    about: dict[str, Attribute] = {"class": "container", "data-id": name(container.owner.network, container.title)}
    inside = (
        svg.element("title", {}, svg.escaped(label(tile))),
        svg.rect(box.x, box.y, box.width, box.height, "tile", 4),
        mark(Box(box.x, box.y, 4 if box.height < 30 else 5, box.height), container.state),
        *map(line, tile.words),
    )
    return svg.group(about, inside)


def name(network: str, title: str) -> str:
    """What a container's tile and its facts have in common."""
    return f"{network} {title}"


def label(tile: Tile) -> str:
    """All of a container in one sentence, as a screen reader says it and a pointer shows it."""
    container = tile.container
    held = ", ".join((*container.addresses, *container.prefixes)) or "no address"
    state = f"{container.state}: {container.problem}" if container.problem else container.state
    return f"container {container.title}, network {container.owner.network}: {held}; {state}"


def mark(box: Box, state: str) -> str:
    """A state as a bar: filled, or hollow where the container has no interface here."""
    if state in SOLID:
        return svg.rect(box.x, box.y, box.width, box.height, kind(state), 2)
    return svg.rect(box.x + 1, box.y + 1, box.width - 1, box.height - 2, f"ring-{kind(state)}", 2)


def legend(node: NodeMap, top: float) -> Iterator[str]:
    """The states that there are, with their numbers, in one row."""
    x, counts = MARGIN, node.count()
    for state in STATES:
        if counts[state]:
            text = f"{counts[state]:,} {state}"
            yield mark(Box(x, top, 5, 16), state)
            yield svg.words(x + 12, top + 12, text, "ink", 12)
            x += 12 + svg.width(text, 12) + 24


FIREWALL: Mapping[bool | None, str] = {
    True: "firewall tables loaded", False: "firewall tables missing or changed: cni-v6ctl reload",
    None: "firewall tables not seen: not root",
}


def head(node: NodeMap, when: str) -> Iterator[str]:
    """Title, what is shown, legend: 92 high."""
    total = sum(node.count().values())
    yield svg.words(MARGIN, 40, svg.fitting(f"Node {node.name}", UPLINKS * 2, 20), "ink title", 20)
    yield svg.words(WIDTH - MARGIN, 40, when, "muted", 12, "end")
    facts = f"{counted(total, 'attachment')}, {FIREWALL[node.firewall]}"
    yield svg.words(WIDTH - MARGIN, 72, facts, "muted", 12, "end")
    yield from legend(node, 60)
