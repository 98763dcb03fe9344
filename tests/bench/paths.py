"""A packet's way: requests and responses, and the CPU time of a stream, for each kind of attachment.

Container to container, and container to a host beyond the node. All kinds are up at once, each on a node of its own,
and measured in rotated order, so that what changes on the machine meanwhile changes all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from tests.bench import peers, ways
from tests.bench.figures import Findings, Goal, Row, median
from tests.bench.peers import Plugins
from tests.bench.setting import Setting, Side
from tests.bench.ways import Way

GUARDED: dict[str, Any] = {"ingress": "published", "guard": True}
FIRST, SECOND, BEYOND = 0, 1, 2  # containers, and the host
NEAR, FAR = "pod to pod", "pod to outside"
LOOPBACK = "loopback"
OURS, OURS_ROUTED, BRIDGE = "`cni-v6`", "`cni-v6-routed`", "reference `bridge`"
OPEN = "without firewall"
MACVLANS = "`cni-v6-macvlan`", "reference `macvlan`"
# A figure of ours, whose it is compared with, and the goals: of a request with its response, of the CPU time.
GOALS = (
    (OURS, BRIDGE, Goal(1.02), Goal(1.02)),
    (OURS_ROUTED, BRIDGE, Goal(1.0), Goal(1.0)),
    (OURS_ROUTED, OURS, Goal(0.98), None),
)


@dataclass(frozen=True, slots=True)
class Measure:
    """What is measured of a way."""

    name: str
    unit: str


@dataclass(frozen=True, slots=True)
class Column:
    """What is measured, where, and by which family."""

    measure: Measure
    place: str
    family: int

    def __str__(self) -> str:
        return f"{self.place}, IPv{self.family}"


TRIP, CPU = Measure("request and response", "us"), Measure("CPU time of a GB by TCP", "s")
COLUMNS = [Column(measure, place, family) for measure in (TRIP, CPU) for place in (NEAR, FAR) for family in (6, 4)]
Kind = Mapping[tuple[str, int], Way]  # (place, family) -> way
Samples = dict[tuple[str, Column], list[float]]


def paths(setting: Setting, found: Findings) -> None:
    """All kinds beside each other, and loopback as the limit."""
    sizes = setting.sizes
    with ExitStack() as stack:
        kinds = {name: _made(stack, plugins, name in MACVLANS) for name, plugins in _players(setting).items()}
        kinds[LOOPBACK] = _loopback(stack)
        samples = measured(kinds, sizes.turns, TRIP, lambda way: way.trip(sizes.trips))
        samples |= measured(kinds, sizes.streams, CPU, lambda way: way.stream(sizes.mib))
    report(samples, found)


def _players(setting: Setting) -> dict[str, Plugins]:
    ours, peer = setting.ours, setting.peer
    guarded = replace(ours, keys=GUARDED)
    return {
        OURS: guarded, f"{OURS}, {OPEN}": ours,
        OURS_ROUTED: peers.routed(guarded, "cni-v6-routed"),
        f"{OURS_ROUTED}, {OPEN}": peers.routed(ours, "cni-v6-routed"),
        MACVLANS[0]: peers.macvlan(ours, "cni-v6-macvlan"),
        BRIDGE: peer, "reference `ptp`": peers.routed(peer, "ptp"),
        MACVLANS[1]: peers.macvlan(peer, "macvlan"),
    }


def _made(stack: ExitStack, plugins: Plugins, on_link: bool) -> Kind:
    """Two containers of a network, on a node with a host beyond it."""
    node = stack.enter_context(ways.new_node(3))
    ways.wire(node, BEYOND, on_link)
    for number in (FIRST, SECOND):
        # Only the reference macvlan leaves it on, which would make its first second one without an address.
        node.command(["ip", "netns", "exec", f"pod{number}", "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"])
    Side(plugins, node).add([FIRST, SECOND])
    near, far = ways.between(node, FIRST, SECOND), ways.outside(node, FIRST, BEYOND, on_link)
    return {(place, family): found[family] for place, found in ((NEAR, near), (FAR, far)) for family in found}


def _loopback(stack: ExitStack) -> Kind:
    node = stack.enter_context(ways.new_node(1))
    node.command(["ip", "-n", "pod0", "link", "set", "lo", "up"])
    return {(NEAR, 6): Way(node, node.pod(0), node.pod(0), "::1"),
            (NEAR, 4): Way(node, node.pod(0), node.pod(0), "127.0.0.1")}


def measured(kinds: Mapping[str, Kind], turns: int, measure: Measure, take: Callable[[Way], float]) -> Samples:
    """What is found on each way in so many turns, each of which begins with another kind."""
    samples: Samples = {}
    names = list(kinds)
    for turn in range(turns):
        for position in range(len(names)):
            name = names[(turn + position) % len(names)]
            for (place, family), way in kinds[name].items():
                samples.setdefault((name, Column(measure, place, family)), []).append(take(way))
    return samples


def report(samples: Samples, found: Findings) -> None:
    """The table of all kinds, and a row for each goal."""
    middle = {key: median(values) for key, values in samples.items()}
    kinds = list(dict.fromkeys(name for name, _ in middle))
    for measure in (TRIP, CPU):
        columns = [column for column in COLUMNS if column.measure == measure]
        found.ways[f"{measure.name} ({measure.unit})"] = {
            name: {str(column): middle[name, column] for column in columns if (name, column) in middle}
            for name in kinds
        }
    for column in COLUMNS:
        for ours, peer, trip, cpu in GOALS:
            goal = trip if column.measure == TRIP else cpu
            if goal is not None:
                values = middle[ours, column], middle[peer, column]
                figure = f"{column.measure.name}, {column}, {ours}"
                found.rows.append(Row(figure, column.measure.unit, *values, goal, peer))
