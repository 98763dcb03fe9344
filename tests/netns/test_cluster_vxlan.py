"""Nodes that a tunnel connects: who may send VXLAN to a node, and so to its containers."""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterator

import pytest

from cni_v6.cluster.protocol import PORT, VNI
from tests.netns import frames, networks, traffic, wire
from tests.netns.cluster import (
    HOST,
    POOL4,
    POOL6,
    STRANGER,
    Cluster,
    Member,
    cluster,
    hears,
    host_beyond,
    publish_the_tunnels,
    send,
)
from tests.netns.networks import Pod

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]

FAMILIES = (4, 6)
KINDS = {4: frames.IPV4, 6: frames.IPV6}


@pytest.fixture(scope="module")
def two() -> Iterator[Cluster]:
    with cluster("a", "b", carrier="vxlan") as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def beyond(two: Cluster) -> str:
    """The namespace of a host beyond node a."""
    return host_beyond(two.members[0], ((POOL6, 6), (POOL4, 4)))


def mac(member: Member) -> str:
    """Of the node's tunnel."""
    found: list[str] = re.findall(r"link/ether (\S+)", member.node.run("ip", "link", "show", "cni-v6-vxlan").stdout)
    return found[0]


def gateway(member: Member) -> str:
    """The node's own address in its block."""
    found: list[str] = re.findall(r"inet6 (fd42\S+)/64", member.node.run("ip", "-6", "address", "show", "cni0").stdout)
    return found[0]


def tunnelled(
    source: str, address: str, member: Member, family: int, target: Pod, says: bytes = b"of a stranger"
) -> list[bytes]:
    """Packets for a node's tunnel, in which a stranger says something to a container: whole, with a header between,
    and in pieces.

    :param address: of that node.
    """
    inner_source, inner_target = STRANGER[family], target.address(family)
    said = frames.udp(inner_source, inner_target, (7, 7001), says)
    inner = frames.ip(inner_source, inner_target, frames.UDP, said)
    frame = frames.ethernet("02:00:00:00:00:77", mac(member), KINDS[family], inner)
    datagram = frames.udp(source, address, (50000, PORT), struct.pack("!II", 1 << 27, VNI << 8) + frame)
    return [
        frames.ip(source, address, frames.UDP, datagram),
        frames.ip(source, address, frames.UDP, datagram, [frames.options(60)]),
        frames.ip(source, address, frames.UDP, datagram[:64], [frames.piece(0, True)]),
        frames.ip(source, address, frames.UDP, datagram[64:], [frames.piece(64, False)]),
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_who_may_send_to_a_tunnel(two: Cluster, beyond: str, family: int) -> None:
    """A node, and a host on the nodes' link that takes a node's address. No stranger, who is counted; no container, and
    no host beyond a node: masqueraded, what they send would have the address of a node."""
    a, b = two.members
    receiver = b.pod
    for netns, source in ((a.pod.netns, a.pod.address(6)), (beyond, networks.OUTSIDE[6])):
        for member in (a, b):
            for address in (member.addresses[0], gateway(member)):
                assert hears(receiver, netns, tunnelled(source, address, member, family, receiver), family) == []
    with traffic.udp(receiver.netns, family, port=7001) as server, wire.in_order():
        send(f"/run/netns/{two.lan}", [
            *tunnelled(HOST, b.addresses[0], b, family, receiver),
            *tunnelled(a.addresses[0], b.addresses[0], b, family, receiver, b"of a node"),
        ])
        assert [server.recvfrom(100)[0] for _ in range(3)] == 3 * [b"of a node"]
    dropped = b.dropped("cni_v6_vxlan")
    assert len(dropped) == 3 and dropped["its source is no other node"] >= 3
    assert dropped["it came in by another interface than that to the other nodes"] > 0
    assert a.dropped("cni_v6_vxlan")["a container, or a host beyond this node, sent it to another node"] > 0


def test_a_table_comes_back_without_a_new_tunnel(two: Cluster) -> None:
    """As after a reload of the firewall: a tunnel made anew would lose packets of containers, and their routes."""
    a, b = two.members
    table = ("nft", "list", "table", "inet", "cni_v6_vxlan")
    [before] = a.node.ip_json("link", "show", "dev", "cni-v6-vxlan")
    a.node.run("nft", "delete", *table[2:])
    wire.await_state(a.node.path, lambda: b.addresses[0] in a.node.run(*table, check=False).stdout, "the other node")
    [after] = a.node.ip_json("link", "show", "dev", "cni-v6-vxlan")
    assert after["ifindex"] == before["ifindex"] and a.pod.ping(b.pod.address(6))


@pytest.mark.parametrize("family", FAMILIES)
def test_containers_have_vxlan_of_their_own(two: Cluster, family: int) -> None:
    """What they send each other on that port goes from node to node in the tunnel."""
    a, b = two.members
    with traffic.udp(b.pod.netns, family, port=PORT) as server, traffic.udp(a.pod.netns, family) as client:
        client.sendto(b"their own", (b.pod.address(family), PORT))
        assert server.recvfrom(100)[0] == b"their own"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_published_port_takes_nothing_of_the_tunnel(two: Cluster, family: int) -> None:
    publish_the_tunnels(two, PORT, family)


def test_the_tunnel_is_not_tracked(two: Cluster) -> None:
    """What is in it is, once."""
    a, b = two.members
    sender, receiver = a.pod, b.pod
    with traffic.udp(receiver.netns, 6, port=7003) as server, traffic.udp(sender.netns, 6) as client:
        client.sendto(b"tracked once", (receiver.address(6), 7003))
        assert server.recvfrom(100)[0] == b"tracked once"
    nodes = {f"src={ipaddress.ip_address(member.addresses[0]).exploded}" for member in (a, b)}
    for member in (a, b):
        known = [line.split() for line in member.node.run("cat", "/proc/net/nf_conntrack").stdout.splitlines()]
        assert len([words for words in known if "dport=7003" in words]) == 1
        # The first address of an entry is who began the connection.
        begun = [next(word for word in words if word.startswith("src=")) for words in known if "udp" in words]
        assert begun and not nodes & {*begun}
