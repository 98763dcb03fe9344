"""Nodes that segment routing connects: what the kernel has for it, and who may send packets for a SID."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator
from itertools import product

import pytest

from tests.netns import frames, networks, traffic, wire
from tests.netns.cluster import (
    HOST,
    POOL4,
    POOL6,
    STRANGER,
    UNDERLAY,
    Cluster,
    Member,
    cluster,
    hears,
    host_beyond,
    send,
)
from tests.netns.networks import Pod
from tests.sandbox import PLUGIN_PATH

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]

FAMILIES = (4, 6)
ENCAPSULATED = {4: 4, 6: 41}  # protocol numbers of IPv4 and IPv6 in IPv6
ROUTING, SEGMENTS = 43, 4  # RFC 8754, 2
SERVICE = {4: "10.96.0.10", 6: "fd96::10"}
# linux/rtnetlink.h, RTNLGRP_*: link, IPv4 address, route and rule, IPv6 address, route and rule.
CHANGES = sum(1 << (group - 1) for group in (1, 5, 7, 8, 9, 11, 19))


@pytest.fixture(scope="module")
def two() -> Iterator[Cluster]:
    with cluster("a", "b", carrier="srv6") as made:
        made.start()
        yield made


def state(member: Member) -> list[str]:
    """What the kernel has of the agent's."""
    found = member.routes()
    for family in ("-6", "-4"):
        for words in (("route", "show", "table", "166"), ("rule", "show", "pref", "166")):
            found += member.node.run("ip", family, *words, check=False).stdout.splitlines()
    links = member.node.run("ip", "-o", "link", "show", "type", "veth").stdout.splitlines()
    names = (re.search(r"(cni-v6-srv6[^ ]*): <([^>]*)> mtu (\d+)", line) for line in links)
    return sorted([*found, *(" ".join(name.groups()) for name in names if name)])


def complete(member: Member) -> list[str]:
    """As ``state``, with what two nodes need; [] while the agent has not heard of the other node."""
    found = state(member)
    return found if len(found) == 5 + 7 + 4 + 2 else []


def sids(member: Member) -> dict[int, str]:
    """A node's own SIDs by the family of what they decapsulate."""
    text = member.node.run("ip", "-6", "route", "show", "table", "166").stdout
    found = re.findall(r"^(5f00:\S+)\s+encap seg6local action (End\.D\w+)", text, re.MULTILINE)
    return {4 if behaviour == "End.DX4" else 6: sid for sid, behaviour in found}


def test_what_somebody_deletes_comes_back(two: Cluster) -> None:
    a, _ = two.members
    before = wire.await_state(a.node.path, lambda: complete(a), "the entries for both nodes")
    for command in ("-6 route flush table 166", "-4 route flush table 166", "-6 rule delete pref 166",
                    "link delete cni-v6-srv6", "link set cni-v6-srv6-in mtu 1300", f"link set {UNDERLAY} down"):
        a.node.run("ip", *command.split())
        if command.endswith("down"):
            a.node.run("ip", "link", "set", UNDERLAY, "up")
            a.node.run("ip", "address", "add", two.addresses(1)[0], "dev", UNDERLAY, "nodad")
        wire.await_state(a.node.path, lambda: state(a) == before, f"what there was before: {command}")


def test_a_second_look_writes_nothing(two: Cluster) -> None:
    a, _ = two.members
    a.stop()
    with wire.events(a.node.path, (socket.NETLINK_ROUTE, CHANGES)) as heard:
        a.start()
        heard.setblocking(False)
        with pytest.raises(BlockingIOError):
            heard.recv(1 << 16)


def encapsulated(
    source: str, sid: str, family: int, target: Pod, through: str = "", says: bytes = b"of a stranger"
) -> bytes:
    """A packet for a SID, in which a stranger says something to a container.

    :param through: the node's own address to which it goes first, by a segment routing header.
    """
    inner_source, inner_target = STRANGER[family], target.address(family)
    datagram = frames.udp(inner_source, inner_target, (7, 7001), says)
    inner = frames.ip(inner_source, inner_target, frames.UDP, datagram)
    header = (ROUTING, struct.pack("!BBBBBH", 2, SEGMENTS, 1, 0, 0, 0) + frames.packed(sid))
    return frames.ip(source, through or sid, ENCAPSULATED[family], inner, [header] if through else [])


@pytest.fixture(scope="module")
def beyond(two: Cluster) -> str:
    """The namespace of a host beyond node a."""
    return host_beyond(two.members[0], ((POOL6, 6), (POOL4, 4), ("5f00::/16", 6)))


@pytest.mark.parametrize("family", FAMILIES)
def test_who_may_send_for_a_sid(two: Cluster, beyond: str, family: int) -> None:
    """A node, and a host on the nodes' link that takes a node's address. No stranger, who is counted; no container, and
    no host beyond a node."""
    a, b = two.members
    receiver = b.pod
    for netns, source in ((a.pod.netns, a.pod.address(6)), (beyond, networks.OUTSIDE[6])):
        wrong = [
            *(encapsulated(source, sids(member)[family], family, receiver) for member in (a, b)),
            *(encapsulated(source, sids(member)[family], family, receiver, through)
              for member, through in product((a, b), (a.addresses[0], b.addresses[0]))),
        ]
        assert len(wrong) == 6 and hears(receiver, netns, wrong, family) == []
    link = f"/run/netns/{two.lan}"
    b.node.run("ip", "address", "replace", "172.30.0.99/24", "dev", "lan", netns=link)
    for prefix, hop in ((POOL6, 0), (POOL4, 1), ("5f00::/16", 0)):
        b.node.run("ip", "route", "replace", prefix, "via", b.addresses[hop], netns=link)
    sid = sids(b)[family]
    with traffic.udp(receiver.netns, family, port=7001) as server, wire.in_order():
        send(link, [encapsulated(HOST, sid, family, receiver),
                    encapsulated(a.addresses[0], sid, family, receiver, says=b"of a node")])
        assert server.recvfrom(100)[0] == b"of a node"
    [dropped] = b.dropped("cni_v6_srv6").values()
    assert dropped >= 1
    through = [encapsulated(source, sid, family, receiver, b.addresses[0]) for source in (HOST, a.addresses[0])]
    assert hears(receiver, link, through, family) == []


def test_a_node_sends_from_the_address_that_the_others_know(two: Cluster) -> None:
    """Also if the kernel would take another one: to a global address it takes no ULA (RFC 6724, rule 6)."""
    a, b = two.members
    second = "2001:db8:11::1"
    a.node.run("ip", "address", "add", f"{second}/64", "dev", UNDERLAY, "nodad")
    try:
        a.node.run("ip", "-6", "route", "add", "5f00:1::/32", "dev", UNDERLAY)
        assert f"src {second} " in a.node.run("ip", "-6", "route", "get", "5f00:1::1").stdout
        a.node.run("ip", "-6", "route", "delete", "5f00:1::/32", "dev", UNDERLAY)
        assert all(a.pod.ping(b.pod.address(family)) for family in FAMILIES)
    finally:
        a.node.run("ip", "address", "delete", f"{second}/64", "dev", UNDERLAY)


@pytest.fixture
def service(two: Cluster) -> Iterator[None]:
    """What another program translates, as kube-proxy does: a service of node a whose only container is on node b."""
    a, b = two.members
    rules = "".join(
        f"{version} daddr {SERVICE[family]} tcp dport 80 dnat {version} to {target}:7000\n"
        for family, version, target in ((4, "ip", b.pod.address(4)), (6, "ip6", f"[{b.pod.address(6)}]"))
    )
    chain = "type nat hook prerouting priority dstnat; policy accept;"
    a.node.run("nft", f"table inet foreign {{\nchain services {{\n{chain}\n{rules}}}\n}}")
    yield
    a.node.run("nft", "delete", "table", "inet", "foreign")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_service_whose_container_is_on_another_node(two: Cluster, service: None, family: int) -> None:
    """The container sees its client, and the client is answered by the service."""
    a, b = two.members
    with traffic.listening(b.pod.netns, family, 7000) as listener:
        client, _ = traffic.called(a.pod.netns, (SERVICE[family], 80), listener)
    assert client.address == a.pod.address(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_connections_to_beyond_the_cluster_are_translated(two: Cluster, beyond: str, family: int) -> None:
    """Masquerade and segment routing do not get into each other's way."""
    a, _ = two.members
    with traffic.listening(beyond, family, 7000) as listener:
        client, _ = traffic.called(a.pod.netns, (networks.OUTSIDE[family], 7000), listener)
    assert client.address == networks.NODE_OUTSIDE[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_nodes_firewall_sees(two: Cluster, family: int) -> None:
    """A rule for forwarded packets holds for those to other nodes, and for those from them."""
    a, b = two.members
    version = {4: "ip", 6: "ip6"}[family]
    for member, way in ((a, "oifname"), (b, "iifname")):
        rule = f'{way} "cni-v6-srv6" {version} daddr {b.pod.address(family)} drop'
        chain = f"type filter hook forward priority filter; policy accept;\n{rule}"
        member.node.run("nft", f"table inet foreign {{\nchain forward {{\n{chain}\n}}\n}}")
        assert not networks.ping(member.node, b.pod.address(family), a.pod.netns, patience=1)
        member.node.run("nft", "delete", "table", "inet", "foreign")
        assert a.pod.ping(b.pod.address(family))


def test_a_node_is_removed_and_comes_back(two: Cluster) -> None:
    """Nothing of segment routing is left on it, and the other one has no way to it."""
    a, b = two.members
    before, removed = state(a), state(b)
    b.node.run(f"{PLUGIN_PATH[0]}/cni-v6ctl", "nodes", "--cluster", two.store, "--remove", "b")
    assert "node b was removed from the cluster" in b.ended() and state(b) == []
    assert "cni_v6_srv6" not in b.node.run("nft", "list", "tables").stdout
    left = len(before) - 5  # two routes to its blocks, two that encapsulate, one to its SIDs
    wire.await_state(a.node.path, lambda: len(state(a)) == left, "no route to b")
    b.start()
    wire.await_state(a.node.path, lambda: state(a) == before, "the routes to b")
    assert state(b) == removed
    for family in FAMILIES:
        assert a.pod.ping(b.pod.address(family))
