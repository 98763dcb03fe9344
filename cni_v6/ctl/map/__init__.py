"""``cni-v6ctl map``: a picture of the node's networks and of their address spaces, as SVG, PNG or one HTML page.

It reads what ``explain`` and ``list`` read, and changes nothing.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni_v6.attachments.context import Context
from cni_v6.ctl import conf_dir, screen
from cni_v6.ctl.map import shape
from cni_v6.drawing import svg
from cni_v6.engine.handle import real_context
from cni_v6.errors import INVALID_CONFIG, IO_FAILURE, CniError
from cni_v6.kernel import whole_file
from cni_v6.kernel.privilege import may_change_the_network, needs_root

if TYPE_CHECKING:
    from cni_v6.drawing.picture import Facts

SVG, PNG, HTML = ".svg", ".png", ".html"
OUTPUTS = {"map": shape.OUTPUT}


def register(commands: Any) -> None:
    parser = commands.add_parser("map", help="draw the node's networks, who is on them, and their address spaces")
    parser.add_argument("network", nargs="?", metavar="NETWORK", help="only this network")
    parser.add_argument("--output", type=_picture, metavar="FILE",
                        help="a picture: FILE.svg, FILE.png, or FILE.html, a page to search, zoom and walk through")
    parser.add_argument("--theme", choices=(svg.LIGHT, svg.DARK),
                        help="colours (default: as the viewer prefers; of a PNG light)")
    parser.add_argument("--conf-dir", type=Path, default=conf_dir.CONF_DIR, metavar="DIR",
                        help="configurations, for the address spaces (%(default)s)")
    parser.add_argument("--data-dir", metavar="DIR", help="ipam.dataDir (default: all since the node was started)")
    parser.add_argument("--cluster", metavar="STORE", help="draw the nodes of this cluster too (as nodes --cluster)")
    parser.add_argument("--json", action="store_true", help="what is drawn, as one JSON object")
    parser.set_defaults(run=run, usage=parser)


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (SVG, PNG, HTML):
        raise argparse.ArgumentTypeError(f"{text!r} does not end with {SVG}, {PNG} or {HTML}")
    return path


def run(
    chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context,
    privileged: Callable[[], bool] = may_change_the_network, hostname: Callable[[], str] = socket.gethostname,
) -> int:
    if not chosen.output and not chosen.json:
        chosen.usage.error("--output FILE or --json is needed")
    if chosen.output and chosen.output.suffix == PNG:
        from cni_v6.ctl.map import png

        png.require()  # before anything is looked at
    from cni_v6.ctl.map import look

    node = make_node()
    try:
        facts = look.facts(chosen, node, hostname(), privileged())
    finally:
        node.kernel.close()
    if chosen.cluster:
        from cni_v6.ctl.map import cluster  # it may import what speaks to a store

        facts = replace(facts, cluster=cluster.members(chosen.cluster))
    if chosen.output:
        _write(chosen.output, _content(chosen, facts))
        if not chosen.json:
            print(_said(chosen.output, facts))
    if chosen.json:
        from cni_v6.drawing.document import facts_of

        shape.OUTPUT.show(facts_of(facts))
    return 0


def _content(chosen: argparse.Namespace, facts: Facts) -> bytes:
    from cni_v6.drawing import page, picture

    if chosen.output.suffix == HTML:
        from importlib.resources import files  # not needed for the others

        here = files(__package__)  # in the one file of "make dist" too
        parts = tuple(here.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
        return page.page(facts, screen.moment, chosen.theme or svg.AUTO, (parts[0], parts[1])).encode()
    if chosen.output.suffix == SVG:
        return picture.whole(facts, screen.moment, chosen.theme or svg.AUTO).encode()
    from cni_v6.ctl.map import png

    return png.rendered(picture.whole(facts, screen.moment, chosen.theme or svg.LIGHT))


def _said(path: Path, facts: Facts) -> str:
    total = sum(facts.node.count().values())
    spaces = screen.counted(len(facts.spaces), "address space")
    if facts.unknown:
        names = screen.plain(", ".join(facts.unknown))
        print(f"cni-v6ctl: note: no configuration was found of {names} (--conf-dir)", file=sys.stderr)
    nodes = f", {screen.counted(len(facts.cluster), 'node')}" if facts.cluster is not None else ""
    return f"{path}: {screen.counted(total, 'attachment')}, {spaces}{nodes}"


def _write(path: Path, content: bytes) -> None:
    """Write a file that its reader sees whole: the old one or the new one.

    :raises CniError: IO_FAILURE; INVALID_CONFIG if it is something else than a file.
    """
    if os.path.lexists(path) and not path.is_file():
        raise CniError(INVALID_CONFIG, f"--output {path} is no file", "name a file")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        whole_file.replace(str(path), content, str(aside), 0o644)
    except OSError as error:
        raise CniError(IO_FAILURE, f"{needs_root(error)}cannot write --output {path}", str(error.strerror)) from error
