"""What the carriers of a cluster cost, beside static routes; how soon a node that falls silent is noticed.

Real agents, a container on each of two nodes. All carriers are up at once, each on nodes of its own, and measured in
rotated order, so that what changes on the machine meanwhile changes all of them.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager

import pytest

from cni_v6.cluster import conflist, facts
from cni_v6.cluster.keys import BGP, DIRECT, SRV6, VXLAN
from tests import bird
from tests.bench import node, paths
from tests.bench.figures import Findings, Goal, Row, median
from tests.bench.node import Refused
from tests.bench.paths import CPU, TRIP, Column, Kind, Measure, Samples
from tests.bench.setting import Setting, Sizes
from tests.bench.ways import Way
from tests.netns import cluster_bgp, networks, wire
from tests.netns.cluster import FAMILIES, TARGET, TEMPLATE, UNDERLAY, Cluster, Member, cluster, reach

STATIC = "static routes"
PLACE = "node to node"
MTU = 1500
BLOCKS = (("fd42:8e1f:6a00:1::/64", "10.244.1.0/26"), ("fd42:8e1f:6a00:2::/64", "10.244.2.0/26"))  # of static routes
SPEED = Measure("throughput", "GB/s")
# A carrier, and the goals beside static routes: of the throughput, of the CPU time.
GOALS = {
    DIRECT: (Goal(1.0, at_least=True), Goal(1.05)), BGP: (Goal(1.0, at_least=True), Goal(1.05)),
    SRV6: (Goal(0.9, at_least=True), Goal(1.1)), VXLAN: (Goal(0.8, at_least=True), Goal(1.2)),
}
NOTICED = 1.0  # seconds, at most, after which a silent node is noticed
INTERFACES = {SRV6: facts.SRV6, VXLAN: facts.TUNNEL}
REFLECTOR = ("route-reflector.conf", "fd00:11::fe/64")


class Here:
    """This process's own namespaces, which have files of all nodes' containers."""

    def command(self, argv: Sequence[str], stdin: str = "") -> str:
        return node.command(["--net=/proc/self/ns/net"], argv, stdin)


def carriers(setting: Setting, found: Findings) -> None:
    measure(setting.sizes, found, os.path.exists(bird.PROGRAM))


def measure(sizes: Sizes, found: Findings, with_bgp: bool) -> None:
    """
    :param with_bgp: and with BFD, which a machine that is too busy makes sessions end by.
    :raises Refused: nodes do not reach each other.
    """
    try:
        with ExitStack() as stack:
            kinds = {name: _ways(name, members) for name, members in _all(stack, with_bgp).items()}
            samples = paths.measured(kinds, sizes.streams, SPEED, lambda way: way.throughput(sizes.mib))
            samples |= paths.measured(kinds, sizes.streams, CPU, lambda way: way.stream(sizes.mib))
            samples |= paths.measured(kinds, sizes.turns, TRIP, lambda way: way.trip(sizes.trips))
        found.rows.extend(rows(samples))
        if with_bgp:
            found.rows.extend(noticed(list(_cuts(sizes.cuts))))
    except pytest.fail.Exception as failure:  # the nodes are those of the tests
        raise Refused(str(failure)) from failure


def rows(samples: Samples) -> Iterator[Row]:
    """A row for each carrier, beside static routes.

    Of the throughput the most: whoever else is on the machine can only take from it. The others are medians.
    """
    for measured in (SPEED, CPU, TRIP):
        for family in (6, 4):
            column = Column(measured, PLACE, family)
            typical = max if measured == SPEED else median
            peer = typical(samples[STATIC, column])
            for carrier, (speed, cpu) in GOALS.items():
                if (carrier, column) in samples:
                    figure = f"{measured.name}, {column}, {carrier}"
                    goal = {SPEED: speed, CPU: cpu}.get(measured)
                    yield Row(figure, measured.unit, typical(samples[carrier, column]), peer, goal, STATIC)


def noticed(seconds: Sequence[float]) -> Iterator[Row]:
    """How long packets are sent to a node that nobody reaches."""
    remark = f"{len(seconds)} cuts; until no node of two has a route to the third one"
    for name, value in (("p50", median(seconds)), ("the worst", max(seconds))):
        yield Row(f"a silent node is noticed by BFD, {name}", "s", value, NOTICED, Goal(1.0), "allowed", remark)


def _all(stack: ExitStack, with_bgp: bool) -> dict[str, list[Member]]:
    """Two nodes for each carrier, with routes to each other."""
    static = stack.enter_context(cluster("a", "b"))
    found = {STATIC: _static(static)}
    for carrier in (DIRECT, VXLAN, SRV6):
        made = stack.enter_context(cluster("a", "b", carrier=carrier))
        for member in made.members:
            member.start()
        a, b = found[carrier] = made.members
        _await_ways(a, b)
        _await_ways(b, a)
    if with_bgp:
        found[BGP] = stack.enter_context(_reflected(("a", "b"), cluster_bgp.SLOWLY)).members
    return found


def _await_ways(member: Member, other: Member) -> None:
    """Wait for an agent's routes to the blocks of another node."""
    blocks = set(other.blocks())
    wire.await_state(member.node.path, lambda: blocks <= {route.split()[0] for route in member.routes()},
                     f"on {member.name}: {sorted(blocks)}")


def _static(made: Cluster) -> list[Member]:
    """Without agents: the same network, and routes that somebody has written down."""
    for member, blocks in zip(made.members, BLOCKS):
        target = member.node.file(TARGET)
        target.parent.mkdir()
        target.write_text(conflist.render(TEMPLATE, [[block] for block in blocks], MTU))
        networks.set_sysctl(member.node, "ipv6/conf/all/forwarding", "1")
        networks.set_sysctl(member.node, "ipv4/ip_forward", "1")
    for member, other, blocks in zip(made.members, reversed(made.members), reversed(BLOCKS)):
        for block, hop in zip(blocks, other.addresses):
            member.node.run("ip", "route", "add", block, "via", hop, "dev", UNDERLAY)
    return made.members


@contextmanager
def _reflected(names: Sequence[str], others: Mapping[str, str]) -> Iterator[Cluster]:
    """Nodes that have learnt each other's blocks of a route reflector."""
    with cluster_bgp.nodes(names) as (made, birds), cluster_bgp.router(made, *REFLECTOR, others):
        for member in made.members:
            cluster_bgp.start(member, birds[member.name], cluster_bgp.REFLECTOR)
        _know(made.members)
        yield made


def _know(members: Sequence[Member]) -> None:
    for member in members:
        cluster_bgp.await_routes(member, [other for other in members if other is not member])


def _await_loss(member: Member, blocks: Set[str]) -> None:
    """Wait until BIRD has taken the routes to these blocks away. It may have lost others' too, on a busy machine."""
    wire.await_state(member.node.path, lambda: not blocks & cluster_bgp.learned(member).keys(), f"no route to {blocks}")


def _ways(carrier: str, members: Sequence[Member]) -> Kind:
    """From a container of the first node to one of the second.

    :raises Refused: the way is not that of the carrier.
    """
    source, sink = (member.pod for member in members)
    reach([source, sink])
    for family in FAMILIES:
        [way] = members[0].node.ip_json("route", "get", sink.address(family))
        if way["dev"] != INTERFACES.get(carrier, UNDERLAY):
            raise Refused(f"carrier {carrier}: IPv{family} goes by {way['dev']}")
    return {(PLACE, family): Way(Here(), source.netns, sink.netns, sink.address(family)) for family in FAMILIES}


def _cuts(count: int) -> Iterator[float]:
    """Seconds from the moment when a node's link loses all packets, without a word to anybody."""
    with _reflected(("a", "b", "c"), {}) as made:
        a, b, c = made.members
        silent = set(c.blocks())
        port = ["ip", "-n", made.lan, "link", "set", f"port{c.number}"]
        for _ in range(count):
            begin = time.monotonic()
            subprocess.run([*port, "nomaster"], check=True)
            for member in (a, b):
                _await_loss(member, silent)
            yield time.monotonic() - begin
            subprocess.run([*port, "master", "lan"], check=True)
            _know(made.members)
