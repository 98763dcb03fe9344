"""A whole picture in one SVG file: the topology, then the address spaces with their burn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cni_v6.drawing import cluster, draw_burn, draw_space, draw_topology, svg
from cni_v6.drawing.cluster import Member
from cni_v6.drawing.draw_burn import Moment
from cni_v6.drawing.layout import MARGIN, WIDTH, topology
from cni_v6.drawing.node import NodeMap
from cni_v6.drawing.space import Space
from cni_v6.planning.usage import Growth, Usage

HEAD = 96.0


@dataclass(frozen=True, slots=True)
class Shown:
    """A space with the usage of its set."""

    space: Space
    usage: Usage
    growth: Growth


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is drawn. ``now``: seconds since the epoch. ``unknown``: networks without a configuration that was
    found, whose address space is therefore not known. ``cluster``: its nodes; None if it is not drawn."""

    node: NodeMap
    spaces: Sequence[Shown]
    now: float
    unknown: Sequence[str] = ()
    cluster: Sequence[Member] | None = None


def whole(facts: Facts, moment: Moment, theme: str) -> str:
    """The file."""
    parts = list(draw_topology.head(facts.node, moment(facts.now)))
    top = HEAD
    if facts.cluster is not None:
        nodes = cluster.card(facts.cluster, HEAD)
        parts += cluster.drawn(nodes)
        top += nodes.box.height + 16
    places = topology(facts.node, top)
    parts += draw_topology.drawn(places) if facts.node.segments else draw_topology.empty(top)
    y = top + (places.height if facts.node.segments else max(places.height, 80))
    if facts.spaces:
        parts += draw_space.legend(y + 12)
        y += 12 + draw_space.LEGEND
    for shown in facts.spaces:
        parts += draw_space.panel(shown.space, y)
        parts += draw_burn.chart(shown.growth, shown.usage, moment, draw_space.beside(shown.space, y))
        y += draw_space.PANEL + 16
    if facts.unknown:
        text = f"No configuration was found of {', '.join(facts.unknown)}: the address space is not shown."
        parts.append(svg.words(MARGIN, y + 20, svg.fitting(text, WIDTH - 2 * MARGIN, 12), "muted", 12))
        y += 32
    return svg.document(WIDTH, y + 8, f"Networks of node {facts.node.name}", theme, parts)
