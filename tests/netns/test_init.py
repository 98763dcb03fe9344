"""``cni-v6ctl init`` in each of its situations, until two containers talk and the outside reaches what it should."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from cni_v6.net.addresses import overlap

from tests.netns import networks
from tests.netns.networks import NODE_OUTSIDE, OUTSIDE, UPLINK, Pod
from tests.sandbox import ROOT, Node

pytestmark = pytest.mark.slow

CTL = str(ROOT / "bin/cni-v6ctl")
FILE = "/var/lib/cni/net.d/10-first.conflist"  # in a folder that only this node has
LINK_LOCAL = "fe80::1"
KINDS = ["bridge", pytest.param("routed", marks=pytest.mark.slow)]


@pytest.fixture
def node() -> Iterator[Node]:
    """Once: what a configuration does is the same in each way to the plugins."""
    with closing(Node(engine=True)) as made:
        yield made


def global_uplink(node: Node) -> str:
    """A node with an address of 2d00:1::/64, which its router takes for on-link, and one of IPv4. Returns the router's
    namespace. 2d00::/8 is nobody's (IANA, IPv6 Global Unicast Address Assignments)."""
    netns = networks.uplink(node)
    for place, ifname, host in (("", UPLINK, 1), (netns, "eth0", 2)):
        node.run("ip", "address", "add", f"192.0.2.{host}/24", "dev", ifname, netns=place)
        node.run("ip", "address", "add", f"2d00:1::{host}/64", "dev", ifname, "nodad", netns=place)
    for family, router in (("-4", "192.0.2.2"), ("-6", "2d00:1::2")):
        node.run("ip", family, "route", "add", "default", "via", router, "dev", UPLINK)
    return netns


def init(node: Node, kind: str, situation: str, *more: str) -> dict[str, Any]:
    """The configuration of the plugin in the file that init writes; lint has no remark."""
    argv = (CTL, "init", "--json", "--type", kind, "--output", FILE, "--conf-dir", FILE.rpartition("/")[0], *more)
    found = json.loads(node.run(*argv).stdout)
    assert (found["situation"], found["file"]) == (situation, FILE)
    document: dict[str, Any] = json.loads(node.file(FILE).read_text())
    assert document == found["network"]
    lint = node.run(CTL, "lint", "--conf-dir", FILE.rpartition("/")[0], FILE)
    assert lint.stdout == "no remarks on 1 file\n"
    return {"name": document["name"], "cniVersion": document["cniVersion"], **document["plugins"][0]}


def attached(node: Node, config: dict[str, Any]) -> tuple[Pod, Pod]:
    """Two containers that reach each other over both families."""
    first, second = networks.pods(node, config, "a", "b")
    for family in (4, 6):
        assert first.ping(second.address(family)) and second.ping(first.address(family))
    for pod in (first, second):
        pod.check().ok()
    return first, second


def detached(node: Node, *pods: Pod) -> None:
    for pod in pods:
        pod.delete()
        node.remove_container(pod.name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_routed_prefix(node: Node, kind: str) -> None:
    """As a DHCPv6 client leaves a delegated prefix: with a route that discards what nobody has."""
    router = global_uplink(node)
    node.run("ip", "-6", "route", "add", "unreachable", "2d00:5::/56", "dev", "lo")
    node.run("ip", "-6", "route", "add", "2d00:5::/56", "via", "2d00:1::1", netns=router)
    config = init(node, kind, "routed")
    assert config["ipam"]["ranges"] == [[{"subnet": "2d00:5::/64"}], [{"subnet": "10.86.0.0/16"}]]
    networks.set_up(node, config)
    with node.unchanged(r"\.seen"):
        first, second = attached(node, config)
        assert first.ping("2d00:1::2") and first.ping("192.0.2.2"), "global as it is, private by the node's address"
        detached(node, first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_an_on_link_prefix(node: Node, kind: str) -> None:
    global_uplink(node)
    config = init(node, kind, "on-link")
    assert config["ipam"]["ranges"][0] == [{"subnet": "2d00:1:0:0:c::/80"}] and config["ndpProxy"] == UPLINK
    networks.set_up(node, config)
    with node.unchanged(r"\.seen"):
        first, second = attached(node, config)
        assert first.ping("2d00:1::2"), "the router finds the container, for which the node answers"
        detached(node, first, second)


@pytest.mark.slow
def test_an_on_link_prefix_that_comes_and_goes(node: Node) -> None:
    router = networks.uplink(node)
    lifetimes = ("valid_lft", "7200", "preferred_lft", "3600")
    node.run("ip", "address", "add", "2d00:1::1/64", "dev", UPLINK, "nodad", *lifetimes)
    node.run("ip", "address", "add", "2d00:1::2/64", "dev", "eth0", "nodad", netns=router)
    node.run("ip", "-6", "route", "add", "default", "via", "2d00:1::2", "dev", UPLINK)
    config = init(node, "bridge", "on-link")
    assert config["ipam"]["ranges"][0] == [{"from": UPLINK, "subnetId": "c", "length": 80}]
    first, _ = attached(node, config)
    assert overlap(f"{first.address(6)}/128", "2d00:1:0:0:c::/80") and first.ping("2d00:1::2")


@pytest.mark.slow
def test_no_prefix(node: Node) -> None:
    """The node reaches its router by one address of its own, as with a provider that routes a /128 to it."""
    router = networks.uplink(node)
    for family in (4, 6):
        for place, ifname, address in (("", UPLINK, NODE_OUTSIDE[family]), (router, "eth0", OUTSIDE[family])):
            length = {4: 24, 6: 128}[family]
            more = ("nodad",) if family == 6 else ()
            node.run("ip", "address", "add", f"{address}/{length}", "dev", ifname, *more, netns=place)
    node.run("ip", "address", "add", f"{LINK_LOCAL}/64", "dev", "eth0", "nodad", netns=router)
    node.run("ip", "-6", "route", "add", f"{NODE_OUTSIDE[6]}/128", "dev", "eth0", netns=router)
    node.run("ip", "-6", "route", "add", "default", "via", LINK_LOCAL, "dev", UPLINK)
    config = init(node, "bridge", "unique-local")
    networks.set_up(node, config)
    with node.unchanged(r"\.seen"):
        first, second = attached(node, config)
        assert first.address(6).startswith("fd") and first.ping(OUTSIDE[6]) and first.ping(OUTSIDE[4])
        detached(node, first, second)


@pytest.mark.slow
def test_a_node_without_ipv6(node: Node) -> None:
    networks.set_sysctl(node, "ipv6/conf/all/disable_ipv6", "1")
    config = init(node, "bridge", "unique-local")
    first, second = networks.pods(node, config, "a", "b")
    assert first.ping(second.address(4)) and len(first.result["ips"]) == 1
