"""Turning forwarding on costs a node that lives on router advertisements nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns import networks, wire
from tests.netns.networks import DUAL, SUBNET6, UPLINK, Pod
from tests.netns.stepped_kernel import SteppedPlugin
from tests.sandbox import Node

ROUTER = "fe80::bad"  # as wire.advertising has it
FIRST, SECOND = "2001:db8:aaaa::", "2001:db8:bbbb::"


def default_routes(node: Node) -> list[tuple[str, str, str]]:
    """(interface, gateway, protocol) of the node's IPv6 default routes."""
    routes = node.ip_json("-6", "route", "show", "default")
    return [(route["dev"], route["gateway"], route.get("protocol", "")) for route in routes]


def by_slaac(node: Node, ifname: str, prefix: str) -> bool:
    return any(text.startswith(prefix.removesuffix("::")) for text in networks.addresses(node, ifname))


def learn(node: Node, router: str, ifname: str, prefix: str) -> None:
    """Advertise until the node has an address of the prefix, and its default route."""
    with wire.advertising(router, "eth0", prefix):
        wire.await_state(node.path, lambda: by_slaac(node, ifname, prefix), f"an address of {prefix}")
        wire.await_state(node.path, lambda: default_routes(node), "a default route")


@pytest.fixture
def router(node: Node) -> str:
    """A router on the node's uplink; the node has its default route from it."""
    netns = networks.uplink(node)
    learn(node, netns, UPLINK, FIRST)
    assert default_routes(node) == [(UPLINK, ROUTER, "ra")]
    return netns


def test_a_node_that_lives_on_advertisements_keeps_its_route_and_goes_on_listening(node: Node, router: str) -> None:
    before = default_routes(node)
    [pod] = networks.pods(node, networks.gateway(*DUAL), "a")
    assert default_routes(node) == before
    learn(node, router, UPLINK, SECOND)
    pod.delete()
    assert default_routes(node) == before and by_slaac(node, UPLINK, FIRST)


def test_its_containers_reach_the_world(node: Node, router: str) -> None:
    # Without a firewall: the user-mode kernel, where this runs too, has none.
    [pod] = networks.pods(node, networks.gateway(SUBNET6, ingress="open", guard=False), "a")
    node.run("ip", "address", "add", ROUTER + "/64", "dev", "eth0", "nodad", netns=router)
    node.run("ip", "address", "add", networks.OUTSIDE[6] + "/128", "dev", "lo", netns=router)
    [own] = [text for text in networks.addresses(node, UPLINK) if text.startswith("fe80:")]
    node.run("ip", "route", "add", SUBNET6, "via", own.partition("/")[0], "dev", "eth0", netns=router)
    node.run("ip", "neighbour", "replace", ROUTER, "lladdr", mac_of(node, router), "dev", UPLINK)
    assert pod.ping(networks.OUTSIDE[6])
    assert networks.ping(node, pod.address(6), router)


def mac_of(node: Node, netns: str) -> str:
    return str(networks.link(node, "eth0", netns)["address"])


def test_a_bridge_that_is_the_nodes_own_way_out_keeps_its_route(node: Node) -> None:
    """An administrator's bridge with the physical interface in it; its address and route come by advertisements."""
    netns = networks.uplink(node)
    node.run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
    networks.set_sysctl(node, "ipv6/conf/br0/accept_dad", "0")
    node.run("ip", "link", "set", UPLINK, "master", "br0")
    node.run("ip", "link", "set", "br0", "up")
    learn(node, netns, "br0", FIRST)
    own = rf"force_forwarding|ipv4/.*forward|accept_redirects|address br0 (fd00|10\.)|\.(seen|memo)|{networks.TABLES}"
    with node.unchanged(ignore=own):
        [pod] = networks.pods(node, networks.gateway(*DUAL, bridge="br0"), "a")
        assert default_routes(node) == [("br0", ROUTER, "ra")]
        learn(node, netns, "br0", SECOND)
        pod.delete()
        node.remove_container("a")
        assert default_routes(node) == [("br0", ROUTER, "ra")]
        [address] = [text for text in networks.addresses(node, "br0") if text.startswith(SECOND.removesuffix("::"))]
        node.run("ip", "address", "delete", address, "dev", "br0")


@pytest.fixture
def stepped(node: Node) -> Iterator[SteppedPlugin]:
    made = SteppedPlugin(node)
    yield made
    made.close()


def test_where_the_kernel_forces_nothing_the_node_listens_on_while_it_forwards(
    node: Node, router: str, stepped: SteppedPlugin
) -> None:
    """A kernel before 6.17: the plugin is told that there is no force_forwarding, the rest is the real kernel's."""
    networks.set_sysctl(node, "ipv6/conf/lo/accept_ra", "0")
    before = default_routes(node)
    pod = Pod(node, networks.gateway(*DUAL), "a")
    added: Any = stepped.call(pod, "ADD", hide="force_forwarding")
    assert added.code == 0, added
    assert networks.sysctl(node, "ipv6/conf/all/forwarding") == "1"
    assert networks.sysctl(node, f"ipv6/conf/{UPLINK}/accept_ra") == "2"
    assert default_routes(node) == before
    learn(node, router, UPLINK, SECOND)


def test_a_node_that_forwards_already_is_left_as_it_is(node: Node) -> None:
    networks.outside(node)
    networks.set_sysctl(node, "ipv6/conf/all/forwarding", "1")
    networks.set_sysctl(node, "ipv4/ip_forward", "1")
    with node.unchanged(ignore=rf"\bcni0\b|\.seen|{networks.TABLES}"):
        networks.set_up(node, networks.gateway(*DUAL))
