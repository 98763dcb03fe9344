"""A subnet that the node has elsewhere is refused before anything changes; what works is not."""

from __future__ import annotations

from typing import Any

import pytest

from cni_v6 import errors
from tests.netns import networks
from tests.netns.networks import DUAL, GATEWAY4, NODE_OUTSIDE, OUTSIDE, SUBNET4, UPLINK, Pod
from tests.sandbox import Node

STORE = r"/var/lib/cni"


def refused(node: Node, config: dict[str, Any]) -> str:
    """The words of an ADD that leaves the node's interfaces, addresses and leases as they were."""
    pod = Pod(node, config, "refused")
    with node.unchanged(rf"attachments/|cursors/|{STORE}|{networks.TABLES}"):
        words = pod.call("ADD").error(errors.NODE_CONFLICT)
    assert networks.leases(node, config["name"]) == set()
    assert '"overlap": "allow"' in words
    return words


@pytest.mark.parametrize("bridge", ["cni0", "lan0"])
def test_the_nodes_own_gateway_stays_its_own(node: Node, bridge: str) -> None:
    """The subnet is the uplink's: its router has the address that the node would get as the containers' gateway."""
    netns = networks.uplink(node)
    if bridge == "lan0":  # an administrator's, with the uplink as its port
        node.run("ip", "link", "add", "lan0", "address", "02:00:00:00:00:77", "type", "bridge")
        node.run("ip", "link", "set", "lan0", "up")
        node.run("ip", "link", "set", UPLINK, "master", "lan0")
    interface = "lan0" if bridge == "lan0" else UPLINK
    node.run("ip", "address", "add", "10.66.0.9/24", "dev", interface)
    node.run("ip", "address", "add", f"{GATEWAY4}/24", "dev", "eth0", netns=netns)
    node.run("ip", "route", "add", "default", "via", GATEWAY4)
    assert networks.ping(node, GATEWAY4)
    words = refused(node, networks.gateway(SUBNET4, bridge=bridge))
    assert f"that gateway is the node's own router, of its route 0.0.0.0/0 through {interface}" in words
    assert networks.ping(node, GATEWAY4)


def test_a_second_network_of_the_same_subnet(node: Node) -> None:
    [first] = networks.pods(node, networks.gateway(*DUAL), "a")
    others = networks.gateway(*DUAL, name="others", bridge="cni1")
    assert "overlaps: network pods (cni0) has address" in refused(node, others)
    assert first.ping(GATEWAY4)
    second = Pod(node, {**others, "overlap": "allow"}, "b")
    second.add()
    second.delete()


def test_a_second_network_behind_the_same_link_local_gateway(node: Node) -> None:
    ranges = {"ranges": [[{"subnet": "fd00:6::/64", "gateway": "link-local"}]]}
    networks.pods(node, networks.gateway("fd00:6::/64", ipam=ranges), "a")
    others = networks.gateway("fd00:6::/64", ipam=ranges, name="others", bridge="cni1")
    assert "a route fd00:6::/64 through network pods (cni0)" in refused(node, others)


def test_what_the_longest_prefix_decides(node: Node) -> None:
    """A part of the uplink's network is warned of, a part of what is routed elsewhere is not."""
    networks.outside(node)
    node.run("ip", "route", "add", "10.0.0.0/8", "via", OUTSIDE[4])
    node.run("ip", "route", "add", "unreachable", "fd00::/16")
    pod = Pod(node, networks.gateway(*DUAL), "a")
    reply = pod.call("ADD")
    reply.ok()
    assert "is a part of" not in reply.stderr
    part = networks.gateway("192.0.2.128/25", name="part", bridge="cni1")
    reply = Pod(node, part, "b").call("ADD")
    reply.ok()
    assert f"warning: 192.0.2.128/25 is a part of {NODE_OUTSIDE[4]}/24 of interface {UPLINK}" in reply.stderr
