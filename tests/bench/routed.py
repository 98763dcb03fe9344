"""Routed containers: their ADD and DEL beside the reference's ``ptp``, and a packet's way beside that over bridges."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench import peers
from tests.bench.figures import Findings, Goal, Row, median
from tests.bench.node import Done, Node, Refused, settle
from tests.bench.peers import Plugins
from tests.bench.setting import Setting, Side, match, take_turns, times

GUARDED: dict[str, Any] = {"ingress": "published", "guard": True}
PROGRAM = Path(__file__).with_name("roundtrip.py")
TRIPS = 5_000  # of a turn
TURNS = 9


def sequential(setting: Setting, found: Findings) -> None:
    """One call at a time, by turns, open; then ours with all that is on by default, against ours on a bridge."""
    pods = setting.sizes.pods
    for ours, peer, against, goal in (
        (peers.routed(setting.ours, "cni-v6-routed"), peers.routed(setting.peer, "ptp"), "ptp", Goal(0.6)),
        (peers.routed(_guarded(setting.ours), "cni-v6-routed"), _guarded(setting.ours), "cni-v6", None),
    ):
        adds: tuple[list[Done], list[Done]] = ([], [])
        deletes: tuple[list[Done], list[Done]] = ([], [])
        with match(replace(setting, ours=ours, peer=peer), pods) as sides:
            take_turns(adds, pods, lambda who, number: sides[who].add([number]).done)
            take_turns(deletes, pods, lambda who, number: sides[who].delete([number]).done, afterwards=settle)
        what = "routed" if goal else "routed, closed and guarded"
        for name, done in (("ADD", adds), ("DEL", deletes)):
            values = [median(times(each)) for each in done]
            found.rows.append(Row(f"{name}, {what}, p50", "ms", values[0], values[1], goal, against))


def _guarded(plugins: Plugins) -> Plugins:
    return replace(plugins, keys=GUARDED)


@dataclass(frozen=True, slots=True)
class Way:
    """Two containers of one network. ``target``: the address of the second."""

    node: Node
    target: str


def paths(setting: Setting, found: Findings) -> None:
    """Requests and responses between two containers of a node, all ways up at once and measured in rotated order."""
    ours, peer = setting.ours, setting.peer
    players = {
        "routed, guarded": peers.routed(_guarded(ours), "cni-v6-routed"),
        "bridge, guarded": _guarded(ours), "bridge": peer, "ptp": peers.routed(peer, "ptp"),
    }
    samples: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        ways = {name: two_containers(Side(plugins, stack.enter_context(new_node())))
                for name, plugins in players.items()}
        names = list(ways)
        for turn in range(TURNS):
            for place in range(len(names)):
                name = names[(turn + place) % len(names)]
                for family in (6, 4):
                    samples.setdefault((name, family), []).append(trip(ways[name][family]))
    for family in (6, 4):
        figures = {name: median(samples[name, family]) for name in names}
        for name, against in (("bridge, guarded", "ours on a bridge"), ("bridge", "bridge"), ("ptp", "ptp")):
            goal = {"bridge, guarded": Goal(0.98), "bridge": Goal(1.0)}.get(name)
            figure = f"request and response, IPv{family}, routed and guarded, p50"
            found.rows.append(Row(figure, "us", figures["routed, guarded"], figures[name], goal, against))
        figure = f"request and response, IPv{family}, our bridge, guarded, p50"
        found.rows.append(Row(figure, "us", figures["bridge, guarded"], figures["bridge"], Goal(1.02), "bridge"))


class new_node(Node):
    """A node that ends with its block."""

    def __init__(self) -> None:
        super().__init__(2)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def two_containers(side: Side) -> Mapping[int, Way]:
    side.add([0, 1])
    for each in (0, 1):
        side.node.command(["ip", "-n", f"pod{each}", "link", "set", "lo", "up"])
    link = json.loads(side.node.command(["ip", "-j", "-n", "pod1", "address", "show", "dev", "eth0"]))[0]
    found = {6 if each["family"] == "inet6" else 4: each["local"] for each in link["addr_info"]
             if each["scope"] == "global"}
    return {family: Way(side.node, address) for family, address in found.items()}


def trip(way: Way) -> float:
    """Median of the round trips of one turn, in microseconds."""
    asked = {"from": way.node.pod(0), "to": way.node.pod(1), "target": way.target, "trips": TRIPS}
    answer = json.loads(way.node.command([sys.executable, "-ISE", str(PROGRAM)], json.dumps(asked) + "\n"))
    if not answer:
        raise Refused("no round trip")
    return float(answer["us"])
