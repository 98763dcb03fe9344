"""What the agent's kernel does: the fake and the real one."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import pytest

from cni_v6.cluster.facts import (
    TUNNEL,
    Add,
    Endpoint,
    Entry,
    Facts,
    Forward,
    Neighbour,
    NodeKernel,
    Remove,
    Route,
    Tunnel,
    Underlay,
)
from cni_v6.cluster.fake import FakeNode
from cni_v6.cluster.linux import LinuxNode
from cni_v6.errors import KERNEL_REFUSED
from tests.netns.wire import PATIENCE, inside
from tests.sandbox import Node

OWN6, OWN4 = Route("fd42:0:0:1::/64"), Route("10.244.0.64/26")
ROUTES = (
    OWN6, OWN4, Route("fd42:0:0:2::/64", "eth0", "fd00:11::2"), Route("10.244.0.128/26", "eth0", "172.30.0.2"),
    Route("10.244.1.0/26", "eth0", "fd00:11::2"), Route("fd42:1:2:3::10:0/122", "eth0", "fe80::2"),
)
ADDRESSES = ("172.30.0.1", "fd00:11::1")


UNDERLAY = Underlay("eth0", 1400, True, ADDRESSES)
TUNNEL_OF_NODE = Tunnel("eth0", "fd00:11::1", "02:00:00:00:00:01", "fe80::ff:fe00:1", 1330)
OTHER_MAC, OTHER_TUNNEL = "02:00:00:00:00:02", "fe80::ff:fe00:2"
OTHER: tuple[Entry, ...] = (
    Endpoint(OTHER_MAC, "fd00:11::2"), Neighbour(OTHER_TUNNEL, OTHER_MAC),
    Route("fd42:0:0:2::/64", TUNNEL, OTHER_TUNNEL), Route("10.244.1.0/26", TUNNEL, OTHER_TUNNEL),
)


@dataclass
class Bench:
    """``set_up`` sets the interface to the others up or down."""

    kernel: NodeKernel
    set_up: Callable[[bool], None]


@contextmanager
def linux_bench() -> Iterator[tuple[LinuxNode, Node]]:
    """A real kernel whose node has a link to others."""
    with closing(Node()) as node:
        node.run("ip", "link", "add", "eth0", "mtu", "1400", "type", "veth", "peer", "name", "peer0")
        for name in ("eth0", "peer0"):
            node.run("ip", "link", "set", name, "up", "addrgenmode", "none")
        node.run("ip", "address", "add", "172.30.0.1/24", "dev", "eth0")
        node.run("ip", "address", "add", "fd00:11::1/64", "dev", "eth0", "nodad")
        node.run("ip", "address", "add", "fd00:11::77/64", "dev", "eth0", "nodad", "preferred_lft", "0")
        with closing(inside(node.path, lambda: LinuxNode("eth0"))) as kernel:
            yield kernel, node


@pytest.fixture(params=["fake", pytest.param("linux", marks=pytest.mark.netns)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "linux":
        with linux_bench() as (kernel, node):
            yield Bench(kernel, lambda up: void(node.run("ip", "link", "set", "eth0", "up" if up else "down")))
        return
    fake = FakeNode(Underlay("eth0", 1400, True, ADDRESSES), closed=["eth0"])

    def set_fake(up: bool) -> None:
        fake.underlay = Underlay("eth0", 1400, up, ADDRESSES)
        fake.entries = {route for route in fake.entries if up or isinstance(route, Route) and not route.ifname}

    yield Bench(fake, set_fake)


@pytest.fixture
def real() -> Iterator[tuple[LinuxNode, Node]]:
    with linux_bench() as made:
        yield made


def void(_: object) -> None:
    """A function's value is of no interest."""


def test_the_interface_to_the_others(bench: Bench) -> None:
    assert bench.kernel.observe() == Facts(UNDERLAY, closed=frozenset(("eth0",)))


def test_routes_come_and_go(bench: Bench) -> None:
    assert bench.kernel.apply(map(Add, ROUTES)) == []
    assert bench.kernel.observe().entries == frozenset(ROUTES)
    assert bench.kernel.apply([Remove(ROUTES[0]), Remove(ROUTES[2]), Remove(ROUTES[4])]) == []
    assert bench.kernel.observe().entries == frozenset((ROUTES[1], ROUTES[3], ROUTES[5]))
    assert bench.kernel.apply(map(Remove, ROUTES)) == []
    assert bench.kernel.observe().entries == frozenset()


def test_a_route_that_is_there_is_an_error_and_the_others_are_added(bench: Bench) -> None:
    there = Route(ROUTES[2].dst, "eth0", "fd00:11::3")
    assert bench.kernel.apply([Add(there)]) == []
    [refused] = bench.kernel.apply(map(Add, ROUTES))
    assert str(refused).startswith(f"cannot add {ROUTES[2]}: File exists")
    assert bench.kernel.observe().entries == {*ROUTES, there} - {ROUTES[2]}
    assert bench.kernel.apply([Remove(there), Add(ROUTES[2])]) == []
    assert bench.kernel.observe().entries == frozenset(ROUTES)


def test_an_interface_that_is_not_there(bench: Bench) -> None:
    [refused] = bench.kernel.apply([Add(Route(ROUTES[2].dst, "eth9", "fd00:11::2")), Add(OWN6)])
    assert "eth9: No such device" in str(refused) and bench.kernel.observe().entries == {OWN6}


def test_a_link_that_is_down(bench: Bench) -> None:
    bench.kernel.apply(map(Add, ROUTES))
    bench.set_up(False)
    underlay = bench.kernel.observe().underlay
    assert underlay and not underlay.up and bench.kernel.observe().entries == {OWN6, OWN4}
    refused = bench.kernel.apply([Add(ROUTES[2]), Add(ROUTES[4])])
    assert len(refused) == 2 and all(error.code == KERNEL_REFUSED for error in refused)


def test_the_tunnel(bench: Bench) -> None:
    before = bench.kernel.observe()
    [refused] = bench.kernel.apply([Add(OTHER[0])])
    assert "No such device" in str(refused)
    assert bench.kernel.apply([Add(TUNNEL_OF_NODE), *map(Add, OTHER), Add(OWN6)]) == []
    facts = Facts(UNDERLAY, TUNNEL_OF_NODE, True, frozenset((*OTHER, OWN6)), frozenset(("eth0", TUNNEL)))
    assert bench.kernel.observe() == facts
    assert len(bench.kernel.apply([Add(TUNNEL_OF_NODE), Forward(TUNNEL), Forward("eth0")])) == 1
    moved: Entry = Endpoint(OTHER_MAC, "fd00:11::3")
    assert bench.kernel.apply([Remove(OTHER[0]), Add(moved)]) == []
    assert bench.kernel.observe() == replace(facts, entries=facts.entries - {OTHER[0]} | {moved}, closed=frozenset())
    assert bench.kernel.apply(map(Remove, reversed((moved, *OTHER[1:])))) == []
    assert bench.kernel.observe().entries == {OWN6}
    bench.kernel.apply(map(Add, OTHER))
    assert bench.kernel.apply([Remove(TUNNEL_OF_NODE), Remove(TUNNEL_OF_NODE), *map(Remove, OTHER), Remove(OWN6)]) == []
    assert bench.kernel.observe() == replace(before, closed=frozenset())


# What the fake kernel has none of: other programs, and news


@pytest.mark.netns
def test_what_other_programs_have_is_not_seen_and_stays(real: tuple[LinuxNode, Node]) -> None:
    kernel, node = real
    for words in (f"{ROUTES[2].dst} via fd00:11::9 dev eth0", f"unreachable {OWN6.dst} metric 4294967295",
                  f"{ROUTES[3].dst} via 172.30.0.9 dev eth0 proto bird", f"unreachable {OWN4.dst} metric 9"):
        node.run("ip", *(["-6"] if "fd" in words else []), "route", "add", *words.split())
    node.run("ip", "route", "add", ROUTES[3].dst, "via", "172.30.0.9", "proto", "166", "table", "99")
    with node.unchanged():
        assert kernel.observe().entries == frozenset()
        assert kernel.apply(map(Add, ROUTES)) == [] and kernel.observe().entries == frozenset(ROUTES)
        assert kernel.apply(map(Remove, ROUTES)) == []
        assert kernel.apply(map(Remove, ROUTES)) == []


@pytest.mark.netns
def test_a_route_in_the_place_of_ours_is_named(real: tuple[LinuxNode, Node]) -> None:
    kernel, node = real
    node.run("ip", "route", "add", ROUTES[2].dst, "via", "fd00:11::9", "dev", "eth0", "metric", "2048")
    [refused] = kernel.apply([Add(ROUTES[2])])
    assert "another program has such a route" in str(refused)
    kernel.apply([Remove(ROUTES[2])])
    assert "fd00:11::9" in node.run("ip", "-6", "route", "show", ROUTES[2].dst).stdout


@pytest.mark.netns
def test_a_next_hop_that_is_not_on_the_link(real: tuple[LinuxNode, Node]) -> None:
    kernel, _ = real
    far = Route(ROUTES[2].dst, "eth0", "fd00:99::1"), Route(ROUTES[3].dst, "eth0", "198.51.100.1")
    refused = kernel.apply(map(Add, far))
    assert len(refused) == 2 and all("on its link? carrier direct" in str(error) for error in refused)


@pytest.mark.netns
@pytest.mark.parametrize("command", [
    "link set {} down", "link set {} mtu 1300", "address delete {address}/64 dev {}", "address add fd00::5/64 dev {}",
    "link set {} type vxlan learning", "link delete {}",
])
def test_a_tunnel_that_somebody_has_changed(real: tuple[LinuxNode, Node], command: str) -> None:
    kernel, node = real
    kernel.apply([Add(TUNNEL_OF_NODE)])
    kernel.observe()
    kernel.news.drain()
    node.run("ip", *command.format(TUNNEL, address=TUNNEL_OF_NODE.address).split())
    assert select.select([kernel.news], [], [], PATIENCE)[0]
    seen = kernel.observe()
    assert seen.tunnel != TUNNEL_OF_NODE
    assert kernel.apply([*([Remove(TUNNEL_OF_NODE)] if seen.has_tunnel else []), Add(TUNNEL_OF_NODE)]) == []
    assert kernel.observe().tunnel == TUNNEL_OF_NODE


@pytest.mark.netns
def test_an_interface_of_another_kind_with_the_tunnels_name(real: tuple[LinuxNode, Node]) -> None:
    kernel, node = real
    node.run("ip", "link", "add", TUNNEL, "type", "bridge")
    assert kernel.observe() == Facts(UNDERLAY, has_tunnel=True, closed=frozenset(("eth0", TUNNEL)))


@pytest.mark.netns
def test_a_vni_that_is_taken(real: tuple[LinuxNode, Node]) -> None:
    kernel, node = real
    node.run("ip", "link", "add", "other", "type", "vxlan", "id", "166", "local", "fd00:11::1", "dstport", "4789",
             "dev", "eth0")
    [refused] = kernel.apply([Add(TUNNEL_OF_NODE)])
    assert "another interface has VNI 166 on UDP port 4789" in str(refused)


@pytest.mark.netns
def test_the_interface_of_the_default_route(real: tuple[LinuxNode, Node]) -> None:
    _, node = real
    with closing(inside(node.path, lambda: LinuxNode(""))) as kernel:
        assert kernel.observe().underlay is None
        node.run("ip", "route", "add", "default", "via", "172.30.0.254")
        found = kernel.observe().underlay
        assert found and found.ifname == "eth0"
        node.run("ip", "link", "add", "eth1", "up", "type", "bridge")
        node.run("ip", "-6", "route", "add", "default", "dev", "eth1")
        found = kernel.observe().underlay
        assert found and found.ifname == "eth1"


@pytest.mark.netns
def test_news(real: tuple[LinuxNode, Node]) -> None:
    kernel, node = real
    kernel.apply(map(Add, ROUTES))
    kernel.apply([Add(TUNNEL_OF_NODE), *map(Add, OTHER[:2])])
    kernel.observe()
    news = kernel.news
    for command in (
        ("-6", "route", "delete", ROUTES[2].dst), ("-4", "route", "delete", ROUTES[3].dst),
        ("address", "add", "fd00:11::5/64", "dev", "eth0"), ("address", "add", "172.30.0.5/24", "dev", "eth0"),
        ("link", "set", "eth0", "mtu", "1300"), ("neighbour", "delete", OTHER_TUNNEL, "dev", TUNNEL),
    ):
        news.drain()
        node.run("ip", *command)
        assert select.select([news], [], [], PATIENCE)[0], command
    news.drain()
    node.run("ip", "route", "add", "198.51.100.0/24", "dev", "eth0")  # of no interest: it is not ours
    assert not select.select([news], [], [], 0)[0]
