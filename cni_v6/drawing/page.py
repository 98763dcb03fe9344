"""One HTML page with everything in it: it loads nothing, and its policy forbids that it ever does.

Facts get into it as escaped text, or as JSON in a data block, which the script writes into the page as text only.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from cni_v6.drawing import cluster, draw_burn, draw_space, draw_topology, svg
from cni_v6.drawing.document import for_page
from cni_v6.drawing.draw_burn import Moment
from cni_v6.drawing.layout import WIDTH, topology
from cni_v6.drawing.picture import Facts, Shown
from cni_v6.drawing.space import LABELS, MEANINGS
from cni_v6.drawing.svg import AUTO, DARK, escaped
from cni_v6.log import counted

CHART = (520.0, 170.0)
DATA = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def page(facts: Facts, moment: Moment, theme: str, parts: tuple[str, str]) -> str:
    """The file.

    :param parts: the page's style sheet and script.
    """
    sheet, script = parts
    name = escaped(facts.node.name)
    data = json.dumps(_plain(for_page(facts)), separators=(",", ":")).translate(DATA)
    checksum = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{checksum}'; base-uri 'none'"
    return "\n".join((
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>Networks of node {name}</title>',
        f'<meta http-equiv="Content-Security-Policy" content="{escaped(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<style>{_variables(theme)}{svg.style(theme)}{sheet}</style></head><body>",
        *_header(facts, name, moment),
        '<main id="main"><div id="pictures">',
        *_cluster(facts),
        *_topology(facts),
        *_spaces(facts, moment),
        *_unknown(facts),
        '</div><aside id="details" aria-label="Details"><h2>Details</h2>',
        '<div id="about" aria-live="polite"><p>Point at a container or a cell, or move to it with the keyboard.</p>',
        "</div></aside></main>",
        f'<script type="application/json" id="facts">{data}</script>',
        f"<script>{script}</script></body></html>",
    )) + "\n"


def _plain(value: Any) -> Any:
    """The same facts without characters that change how what is beside them is read; see ``svg.plain``."""
    if isinstance(value, dict):
        return {svg.plain(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return svg.plain(value) if isinstance(value, str) else value


def _variables(theme: str) -> str:
    """The colours of a picture, for the style sheet."""
    shades = ["".join(f"--{name}:{shade[number]};" for name, shade in svg.COLOURS.items()) for number in (0, 1)]
    chosen = shades[1 if theme == DARK else 0]
    other = f"@media (prefers-color-scheme:dark){{:root{{{shades[1]}}}}}" if theme == AUTO else ""
    return f":root{{{chosen}}}{other}"


def _header(facts: Facts, name: str, moment: Moment) -> Iterable[str]:
    total = sum(facts.node.count().values())
    states = ", ".join(f"{count:,} {state}" for state, count in facts.node.count().items())
    firewall = draw_topology.FIREWALL[facts.node.firewall]
    held = f"{counted(total, 'attachment')}{f' ({states})' if states else ''}"
    yield f"<header><div><h1>Node {name}</h1><p>{escaped(f'{moment(facts.now)}; {held}; {firewall}')}</p></div>"
    yield '<div role="search"><label for="search">Find a container, a network or an address</label>'
    yield '<input id="search" type="search" autocomplete="off" spellcheck="false">'
    yield '<output id="matches" role="status" for="search"></output></div></header>'


def _cluster(facts: Facts) -> Iterable[str]:
    if facts.cluster is None:
        return
    placed = cluster.card(facts.cluster, 4)
    yield '<section aria-labelledby="cluster-title"><div class="bar"><h2 id="cluster-title">Cluster</h2></div>'
    yield '<p class="hint">Arrow keys: the next node.</p>'
    yield f'<svg id="cluster" viewBox="0 0 {WIDTH:g} {placed.box.height + 8:g}" role="group" aria-label="Cluster">'
    yield f'{"".join(cluster.drawn(placed))}</svg></section>'


def _topology(facts: Facts) -> Iterable[str]:
    places = topology(facts.node, 4)
    parts = [*draw_topology.drawn(places)] if facts.node.segments else [*draw_topology.empty(4)]
    high = max(places.height, 72.0) + 4
    yield '<section aria-labelledby="topology-title"><div class="bar"><h2 id="topology-title">Topology</h2>'
    yield '<div role="group" aria-label="Zoom of the topology"><button id="out" aria-label="Zoom out">\u2212</button>'
    yield '<button id="in" aria-label="Zoom in">+</button>'
    yield '<button id="fit" aria-label="Show all">All</button></div></div>'
    yield '<p class="hint">Arrow keys: the next container. + and \u2212: zoom; 0: all. Ctrl and wheel: zoom. '
    yield "Drag: move. /: search.</p>"
    yield f'<svg id="topology" viewBox="0 0 {WIDTH:g} {high:g}" role="group" aria-label="Topology">'
    yield f'{"".join(parts)}</svg></section>'


def _spaces(facts: Facts, moment: Moment) -> Iterable[str]:
    if not facts.spaces:
        return
    yield '<section aria-labelledby="space-title"><div class="bar"><h2 id="space-title">Address space</h2>'
    yield '<label>of <select id="space">'
    for number, shown in enumerate(facts.spaces):
        yield f'<option value="{number}">{escaped(draw_space.title(shown.space))}</option>'
    yield '</select></label><button id="busy">Where addresses are in use</button></div>'
    yield '<p class="hint">Arrow keys: the next cell. Enter: into it. Backspace: out of it.</p>'
    yield '<nav id="path" aria-label="Prefix that is shown"></nav>'
    yield '<div class="split"><svg id="cells" viewBox="0 0 512 512" role="group" aria-label="Cells"></svg>'
    yield f'<div><p id="scale"></p><p id="totals"></p>{_legend()}'
    yield from (_chart(shown, number, moment) for number, shown in enumerate(facts.spaces))
    yield "</div></div></section>"


def _unknown(facts: Facts) -> Iterable[str]:
    if facts.unknown:
        names = escaped(", ".join(facts.unknown))
        yield f"<p>No configuration was found of {names}: the address space is not shown.</p>"


def _legend() -> str:
    rows = []
    for state, label in LABELS.items():
        drawing = "".join(draw_space.mark(1, 1, 16, 16, state, whole=True))
        sample = f'<svg width="18" height="18" aria-hidden="true">{svg.rect(1, 1, 16, 16, "cell")}{drawing}</svg>'
        rows.append(f"<li>{sample}<b>{escaped(label)}</b> {escaped(MEANINGS[state])}</li>")
    return f'<ul class="legend">{"".join(rows)}</ul><p class="hint">{" ".join(draw_space.SCALE)}</p>'


def _chart(shown: Shown, number: int, moment: Moment) -> str:
    wide, high = CHART
    parts: Sequence[str] = list(draw_burn.chart(shown.growth, shown.usage, moment, (8, 8, wide - 16, high - 16)))
    label = f"{draw_burn.what(shown.growth)}: {draw_burn.rate(shown.usage)}"
    return (f'<svg class="burn" data-space="{number}" viewBox="0 0 {wide:g} {high:g}" role="img" '
            f'aria-label="{escaped(label)}">{"".join(parts)}</svg>')
