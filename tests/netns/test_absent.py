"""The node asks no segment for an address that no container has: its neighbour table, one for all namespaces, would be
full of them (RFC 6583, section 3), and nobody would find a gateway any more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from typing import Any

import pytest

from cni_v6.firewall.absent import TRIED
from cni_v6.firewall.policy import SHARED_SEGMENT
from tests.netns import frames, networks, traffic, wire
from tests.netns.frames import ICMPV6, IPV4, IPV6, UDP
from tests.netns.networks import NODE_OUTSIDE, OUTSIDE, UPLINK, Pod
from tests.netns.traffic import FAMILIES
from tests.sandbox import Node

SUBNETS = {4: "10.66.0.0/16", 6: "fd00:6::/64"}
GATEWAY = {4: "10.66.0.1", 6: "fd00:6::1"}
COUNT = 2000
PORT = 9

NETWORKS = [
    pytest.param({}, id="closed"),
    pytest.param({"ingress": "open"}, id="open"),
    pytest.param({"ingress": "isolated", "ipMasq": True}, id="isolated-and-masqueraded"),
    pytest.param({"ipam": {"delegate": 80}}, id="delegated"),
]


def network(**keys: Any) -> dict[str, Any]:
    return networks.gateway(*SUBNETS.values(), **keys)


def absent(family: int, count: int = COUNT) -> list[str]:
    """Addresses of the network that nobody has."""
    first = ip_network(SUBNETS[family])[0x7000]
    return [str(first + number) for number in range(count)]


def neighbours(node: Node, *pods: Pod) -> set[str]:
    """Every address for which the node has an entry on its segments, in whatever state, but for those that these
    containers have, and for groups, which need no asking."""
    listed = [entry for entry in node.ip_json("neighbour", "show", "nud", "all") if entry["dev"] in ("cni0", "other0")]
    return {entry["dst"] for entry in listed if not entry["dst"].startswith(("ff", "224."))} - own(*pods)


def own(*pods: Pod) -> set[str]:
    return {address.partition("/")[0] for pod in pods for address in networks.addresses(pod.node, "eth0", pod.netns)}


def beyond(node: Node) -> str:
    """A host beyond the node for which the node is the way to everything."""
    netns = networks.outside(node)
    for family in FAMILIES:
        node.run("ip", f"-{family}", "route", "add", "default", "via", NODE_OUTSIDE[family], netns=netns)
    return netns


def datagrams(netns: str, targets: Iterable[str]) -> None:
    """One to each; the kernel may say at once that nobody is there."""
    for target in targets:
        with traffic.udp(netns, traffic.family_of(target)) as sender:
            try:
                sender.sendto(b"anybody?", (target, PORT))
            except OSError:
                pass


def works(node: Node, config: dict[str, Any], *old: Pod) -> None:
    """Containers that were there, and one that comes now, have their gateway and the world beyond it."""
    for pod in (*old, *networks.pods(node, config, "new")):
        for family in FAMILIES:
            assert pod.ping(GATEWAY[family]) and pod.ping(OUTSIDE[family])


@pytest.mark.parametrize("keys", NETWORKS)
def test_a_scan_from_outside(node: Node, keys: dict[str, Any]) -> None:
    scan_from_outside(node, beyond(node), network(**keys))


def scan_from_outside(node: Node, outside: str, config: dict[str, Any]) -> None:
    [pod] = networks.pods(node, config, "old")
    for family in FAMILIES:
        with wire.packets(outside, "eth0") as tap, wire.in_order():
            datagrams(outside, absent(family))
            networks.ping(node, pod.address(family), outside)
            assert any(map(says_unreachable, wire.pending(tap)))
    assert neighbours(node, pod) == set()
    works(node, config, pod)


def says_unreachable(frame: bytes) -> bool:
    """Destination unreachable, because of the host: RFC 792; RFC 4443, section 3.1, code 3."""
    kind = frame[12:14]
    return (kind == b"\x08\x00" and frame[23] == 1 and frame[34:36] == b"\x03\x01") or (
        kind == b"\x86\xdd" and frame[20] == ICMPV6 and frame[54:56] == b"\x01\x03"
    )


def by_the_gateway(pod: Pod, targets: Iterable[str]) -> Iterator[bytes]:
    """A datagram to each, by way of the node; by hand, since the container's own table would be full of them."""
    mac = networks.link(pod.node, "cni0")["address"]
    for target in targets:
        source = pod.address(traffic.family_of(target))
        packet = frames.ip(source, target, UDP, frames.udp(source, target, (PORT, PORT), b"anybody?"))
        yield frames.ethernet(pod.mac, mac, IPV6 if ":" in target else IPV4, packet)


@pytest.mark.slow
@pytest.mark.parametrize("keys", NETWORKS)
def test_a_scan_by_a_container(node: Node, keys: dict[str, Any]) -> None:
    beyond(node)
    scan_by_a_container(node, network(**keys))


def scan_by_a_container(node: Node, config: dict[str, Any]) -> None:
    """Of its own network by way of the gateway, of what is link-local there, and of another network."""
    pod, neighbour = networks.pods(node, config, "old", "neighbour")
    other_config = networks.gateway("10.67.0.0/16", "fd00:7::/64", name="other", bridge="other0")
    [other] = networks.pods(node, other_config, "other")
    targets = [text.replace(*change) for family in FAMILIES for change in (("", ""), ("10.66.", "10.67."))
               for text in absent(family)]
    targets += [text.replace("fd00:6:", change) for change in ("fd00:7:", "fe80:") for text in absent(6)]
    with wire.packets(pod.netns, "eth0", 0) as sender, wire.in_order():
        for frame in by_the_gateway(pod, targets):
            sender.send(frame)
        for family in FAMILIES:
            assert pod.ping(OUTSIDE[family])
    assert neighbours(node, pod, neighbour, other) == set()
    works(node, config, pod, neighbour)


@pytest.mark.slow
def test_a_scan_by_the_node(node: Node) -> None:
    """Such as a proxy on it, whose callers choose where it goes."""
    beyond(node)
    [pod] = networks.pods(node, network(), "old")
    for family in FAMILIES:
        datagrams(node.path, absent(family))
        assert networks.ping(node, pod.address(family))
    assert neighbours(node, pod) == set()
    works(node, network(), pod)


def test_answers_to_sources_that_nobody_has(node: Node) -> None:
    """The node answers echo requests, and calls to its ports; whoever sent them is somewhere else."""
    sources_of_nobody(node, beyond(node))


def sources_of_nobody(node: Node, outside: str) -> None:
    [pod] = networks.pods(node, network(), "old")
    macs = networks.link(node, "eth0", outside)["address"], networks.link(node, UPLINK)["address"]
    with wire.packets(outside, "eth0", 0) as sender, wire.in_order():
        for family in FAMILIES:
            target = NODE_OUTSIDE[family]
            for source in absent(family):
                packet = frames.ip(source, target, UDP, frames.udp(source, target, (PORT, PORT)))
                sender.send(frames.ethernet(*macs, IPV6 if family == 6 else IPV4, packet))
            assert networks.ping(node, target, outside)
    assert neighbours(node, pod) == set()
    works(node, network(), pod)


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{"guard": False}, {"guard": False, "ingress": "open", "ipMasq": True}])
def test_containers_may_have_addresses_of_their_own_making(node: Node, keys: dict[str, Any]) -> None:
    """Nobody knows them, where there is no guard: few are looked for at a time, and those that are known always."""
    config = network(**keys)
    outside = beyond(node)
    [pod] = networks.pods(node, config, "old")
    for family, length in ((4, 16), (6, 64)):
        address = absent(family)[-1]
        node.run("ip", "address", "add", f"{address}/{length}", "dev", "eth0", *["nodad"] * (family == 6),
                 netns=pod.netns)
        assert networks.ping(node, address, outside)
        with wire.in_order():
            datagrams(outside, absent(family)[:-1])
            networks.ping(node, pod.address(family), outside)
    left = neighbours(node, pod)
    assert 0 < len(left) <= 2 * TRIED
    works(node, config, pod)
    for family in FAMILIES:
        assert networks.ping(node, pod.address(family))


def test_of_networks_on_one_segment_the_freest_decides(node: Node) -> None:
    """Whichever comes first."""
    free = networks.gateway("10.67.0.0/16", "fd00:7::/64", name="free", guard=False)
    for order in (("closed", "free", "again"), ("free", "closed", "again")):
        for name in order:
            networks.pods(node, free if name == "free" else network(name="closed"), name)
        assert networks.link(node, "cni0")["group"] == str(SHARED_SEGMENT)
        for name in order:
            Pod(node, free if name == "free" else network(name="closed"), name).delete()
            node.remove_container(name)
        node.run("ip", "link", "delete", "cni0")


def test_a_bridge_of_an_administrator_is_left_alone(node: Node) -> None:
    node.run("ip", "link", "add", "cni0", "type", "bridge")
    node.run("ip", "link", "set", "cni0", "up", "group", "7")
    networks.pods(node, network(), "a")
    assert networks.link(node, "cni0")["group"] == "7"
