"""What containers need of a bridge, and what it does again once the last of them is gone: by packets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.netns import frames, networks, traffic, wire
from tests.netns.frames import IPV4, UDP
from tests.netns.networks import DUAL, OUTSIDE, Pod
from tests.sandbox import Node, need

pytestmark = pytest.mark.parametrize("node", ["engine"], indirect=True)

BRIDGE, MARK, END, EXPERIMENTAL = "br0", b"as before", b"that was all", 0x88B5  # IEEE 802, local experimental
LEFT, RIGHT = "10.9.0.1", "10.9.0.2"
RULE = f"table ip test {{ chain test {{ type filter hook forward priority 0; ip saddr {LEFT} drop; }}; }}"
PLAIN: dict[str, Any] = {"bridge": BRIDGE, "guard": False, "ingress": "open"}
LOCALNET = "ipv4/conf/{}/route_localnet"
PORTS = {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}


@pytest.fixture
def hosts(node: Node) -> list[str]:
    """An administrator's bridge with two hosts; their namespaces."""
    node.run("ip", "link", "add", BRIDGE, "type", "bridge")
    node.run("ip", "link", "set", BRIDGE, "up")
    made = []
    for name in ("left", "right"):
        netns = node.container(name)
        end = ("type", "veth", "peer", "name", "eth0", "netns", Path(netns).name)
        node.run("ip", "link", "add", name, "up", "master", BRIDGE, *end)
        node.run("ip", "link", "set", "eth0", "up", netns=netns)
        made.append(netns)

    def forward() -> bool:
        ports = (networks.link(node, name)["linkinfo"]["info_slave_data"] for name in ("left", "right"))
        return all(port["state"] == "forwarding" for port in ports)

    wire.await_state(node.path, forward, "both ports")
    return made


def passes(node: Node, hosts: list[str], frame: bytes) -> bool:
    """Whether a frame that the first host sends comes to the second."""
    left, right = hosts
    last = frames.ethernet(networks.link(node, "eth0", left)["address"], frames.BROADCAST, EXPERIMENTAL, END)
    with wire.packets(right, "eth0") as tap, wire.packets(left, "eth0", 0) as sender, wire.in_order():
        sender.send(frame)
        sender.send(last)
        return any(MARK in seen for seen in wire.frames_before(tap, END))


def bridged(node: Node, hosts: list[str]) -> bytes:
    source, target = (networks.link(node, "eth0", netns)["address"] for netns in hosts)
    datagram = frames.udp(LEFT, RIGHT, (7, 7), MARK)
    return frames.ethernet(source, target, IPV4, frames.ip(LEFT, RIGHT, UDP, datagram))


@pytest.fixture
def own_rules(node: Node) -> Iterator[None]:
    """A rule for packets that is not for those of a bridge."""
    need(Path("/proc/sys/net/bridge").exists(), "needs br_netfilter")
    node.run("nft", RULE)
    with traffic.no_br_netfilter(node):
        yield


@pytest.mark.usefixtures("own_rules")
def test_a_bridge_of_an_administrator_is_given_back(node: Node, hosts: list[str]) -> None:
    is_given_back(node, hosts, bridged(node, hosts), {"netfilter": True})


def is_given_back(node: Node, hosts: list[str], frame: bytes, keys: dict[str, Any]) -> None:
    """What an administrator's hosts say to each other passes again after the last container of a network with certain
    keys, which somebody has removed from the configuration by then."""
    config = networks.network(**PLAIN, **keys)
    assert passes(node, hosts, frame)
    with node.unchanged(ignore=r"attachments/|accept_redirects"):
        first, second = networks.pods(node, config, "a", "b")
        assert not passes(node, hosts, frame)
        first.delete()
        assert not passes(node, hosts, frame)
        second.delete(networks.network(**PLAIN))
        for name in ("a", "b"):
            node.remove_container(name)
    assert passes(node, hosts, frame)


@pytest.mark.slow
@pytest.mark.usefixtures("hosts")
def test_a_promiscuous_bridge(node: Node) -> None:
    with node.unchanged(ignore=r"attachments/|accept_redirects"):
        pod = Pod(node, networks.network(**PLAIN, promiscMode=True), "a")
        pod.add()
        assert "PROMISC" in networks.link(node, BRIDGE)["flags"]
        pod.delete()
        node.remove_container("a")
    node.run("ip", "link", "set", BRIDGE, "promisc", "on")
    pod = Pod(node, pod.config, "b")
    pod.add()
    pod.delete()
    assert "PROMISC" in networks.link(node, BRIDGE)["flags"]


def test_the_last_port_that_answers_at_a_loopback_address(node: Node) -> None:
    """Then nothing is routed any more from 127.0.0.1 to the bridge, nor to the node's 127.0.0.1 from there."""
    pod, other = Pod(node, networks.gateway(*DUAL, **PORTS), "a"), Pod(node, networks.gateway(*DUAL), "b")
    for made in (pod, other):
        made.add()
    with traffic.listening(pod.netns, 4, 80) as listener:
        traffic.called(node.path, ("127.0.0.1", 8080), listener)
    assert networks.sysctl(node, LOCALNET.format("cni0")) == "1"
    pod.delete()
    assert networks.sysctl(node, LOCALNET.format("cni0")) == "0"
    refused = node.run("ip", "route", "get", other.address(4), "from", "127.0.0.1", check=False)
    assert refused.returncode != 0, refused.stdout
    other.delete()


def test_the_rest_of_an_old_subnet(node: Node) -> None:
    """It is unreachable while a container of the old subnet is there; then its packets go where the node's routes lead.
    """
    outside = networks.outside(node)
    for family in (4, 6):
        node.run("ip", f"-{family}", "route", "add", "default", "via", OUTSIDE[family])
    unused = {4: "10.66.0.99", 6: "fd00:6::99"}
    token = networks.main.set(networks.ROUTED)
    try:
        [old] = networks.pods(node, networks.gateway(*DUAL), "a")
        [new] = networks.pods(node, networks.gateway("fd00:9::/64", "10.99.0.0/24"), "b")
        assert unreachable(node) == {*DUAL, "fd00:9::/64", "10.99.0.0/24"}
        assert not leaves(node, outside, unused)
        old.delete(new.config)
        assert unreachable(node) == {"fd00:9::/64", "10.99.0.0/24"}
        assert leaves(node, outside, unused)
        new.delete()
    finally:
        networks.main.reset(token)


def unreachable(node: Node) -> set[str]:
    return {route["dst"] for family in ("-4", "-6") for route in node.ip_json(family, "route", "show")
            if route.get("type") == "unreachable"}


def leaves(node: Node, outside: str, addresses: dict[int, str]) -> bool:
    """Whether the node sends packets to these addresses to the world: all of them, or none."""
    sent = set()
    for family in (4, 6):
        with wire.packets(outside, "eth0") as tap, wire.in_order(), traffic.udp(node.path, family) as sender:
            with suppress(OSError):  # EHOSTUNREACH, ENETUNREACH
                sender.sendto(MARK, (addresses[family], 9))
            sender.sendto(END, (OUTSIDE[family], 9))
            sent.add(any(MARK in frame for frame in wire.frames_before(tap, END)))
    [found] = sent
    return found
