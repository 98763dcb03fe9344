"""Reference main plugins that need a kernel module which may be missing, with our IPAM: ipvlan, and 8021q."""

from __future__ import annotations

from typing import Any

import pytest

from tests.netns import networks
from tests.netns.networks import SUBNET4, SUBNET6
from tests.sandbox import Node

pytestmark = [pytest.mark.uml, pytest.mark.timeout(700), pytest.mark.xdist_group("uml")]

IPAM = {"type": "cni-v6-ipam", "ranges": [[{"subnet": SUBNET6}], [{"subnet": SUBNET4}]]}


def container(node: Node, name: str) -> str:
    """One whose interfaces do no duplicate address detection: the reference plugins have it on, and wait for it."""
    netns = node.container(name)
    networks.set_sysctl(node, "ipv6/conf/default/accept_dad", "0", netns)
    return netns


def call(node: Node, command: str, config: dict[str, Any], name: str) -> Any:
    netns = node.containers.get(name) or container(node, name)
    reply = node.plugin(config["type"], command, config, container_id=name, ifname="eth0", netns=netns)
    return reply.ok()


def ips(result: Any) -> list[str]:
    return [ip["address"].partition("/")[0] for ip in result["ips"]]


def test_ipvlan(node: Node) -> None:
    node.run("ip", "link", "add", "trunk0", "type", "dummy")
    node.run("ip", "link", "set", "trunk0", "up")
    config = {"cniVersion": "1.0.0", "name": "pods", "type": "ipvlan", "master": "trunk0", "ipam": IPAM}
    first, second = (call(node, "ADD", config, name) for name in ("a", "b"))
    assert (ips(first), ips(second)) == (["fd00:6::2", "10.66.0.2"], ["fd00:6::3", "10.66.0.3"])
    assert [networks.ping(node, address, node.containers["a"]) for address in ips(second)] == [True, True]
    for name in ("a", "b"):
        call(node, "DEL", config, name)
    assert networks.leases(node) == set()


def test_vlan(node: Node) -> None:
    """The other side of the wire tags and untags on its own."""
    beyond = networks.uplink(node)
    node.run("ip", "link", "add", "link", "eth0", "name", "eth0.5", "type", "vlan", "id", "5", netns=beyond)
    node.run("ip", "address", "add", "10.66.0.1/24", "dev", "eth0.5", netns=beyond)
    node.run("ip", "address", "add", "fd00:6::1/64", "dev", "eth0.5", "nodad", netns=beyond)
    node.run("ip", "link", "set", "eth0.5", "up", netns=beyond)
    config = {
        "cniVersion": "1.0.0", "name": "pods", "type": "vlan", "master": networks.UPLINK, "vlanId": 5, "ipam": IPAM,
    }
    result = call(node, "ADD", config, "a")
    assert ips(result) == ["fd00:6::2", "10.66.0.2"]
    pinged = [networks.ping(node, address, node.containers["a"]) for address in ("fd00:6::1", "10.66.0.1")]
    assert pinged == [True, True]
    call(node, "DEL", config, "a")
    assert networks.leases(node) == set()
