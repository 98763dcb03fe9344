"""Nodes with encrypted packets between them, in a user-mode kernel that has WireGuard; the contract of that kernel."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from itertools import product

import pytest
from netaddr import IPNetwork

from cni_v6.cluster.facts import Add, NodeKernel, RemoveDevice
from cni_v6.cluster.linux import LinuxNode
from cni_v6.cluster.protocol import WIREGUARD_PORT
from cni_v6.cluster.wireguard_values import WIREGUARD
from tests.contract.test_cluster_wireguard import (  # noqa: F401 (tests of this module too, with its fixture)
    DEVICE,
    KEYS,
    Secured,
    test_a_peer_that_is_changed,
    test_another_private_key,
    test_its_table_is_made_anew_and_the_rest_stays,
    test_many_peers_with_many_blocks,
    test_the_interface,
)
from tests.netns import frames, networks, traffic, wire
from tests.netns.cluster import (
    FAMILIES,
    STATE_DIR,
    UNDERLAY,
    Cluster,
    Member,
    bulk,
    cluster,
    publish_the_tunnels,
    reach,
    send,
)
from tests.netns.wire import inside
from tests.sandbox import PLUGIN_PATH, Node

pytestmark = [pytest.mark.wireguard, pytest.mark.timeout(400), pytest.mark.xdist_group("wireguard")]


KINDS = {4: frames.IPV4, 6: frames.IPV6}


# The contract


@pytest.fixture
def on_link() -> Iterator[Node]:
    with closing(Node()) as node:
        networks.link_to_others(node)
        yield node


@pytest.fixture
def secured(on_link: Node) -> Iterator[Secured]:
    with ExitStack() as kernels:

        def restart(private_key: bytes) -> NodeKernel:
            return kernels.enter_context(closing(inside(on_link.path, lambda: LinuxNode("eth0", private_key))))

        yield Secured(restart(KEYS[0]), restart)


@pytest.mark.parametrize("command", [
    "ip link set cni-v6-wg down", "ip link set cni-v6-wg mtu 1300", "ip link delete cni-v6-wg", "nft flush ruleset",
])
def test_an_interface_that_somebody_has_changed(secured: Secured, on_link: Node, command: str) -> None:
    kernel = secured.kernel
    assert kernel.apply([Add(DEVICE)]) == []
    on_link.run(*command.split())
    assert kernel.observe().devices.get(WIREGUARD) != DEVICE
    assert kernel.apply([RemoveDevice(WIREGUARD), Add(DEVICE)]) == []
    assert kernel.observe().devices == {WIREGUARD: DEVICE}


def test_a_port_that_is_taken(secured: Secured, on_link: Node) -> None:
    with traffic.udp(on_link.path, 6, port=WIREGUARD_PORT):
        [refused] = secured.kernel.apply([Add(DEVICE)])
        assert f"another program has UDP port {WIREGUARD_PORT}" in str(refused)
    assert secured.kernel.apply([RemoveDevice(WIREGUARD), Add(DEVICE)]) == []


# Nodes


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A folder in which all nodes hear of changes: hostfs tells of none."""
    folder = str(tmp_path_factory.mktemp("m"))
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="module")
def three(in_memory: str) -> Iterator[Cluster]:
    with cluster("a", "b", "c", within=in_memory, carrier="wireguard", reportEvery="0s") as made:
        made.start()
        yield made


def key_of(member: Member) -> str:
    return str(member.cluster.objects()[f"nodes/{member.name}"]["publicKey"])


def await_ways(member: Member, count: int) -> None:
    """Wait until the node has so many routes to others."""
    def has() -> bool:
        return len([route for route in member.routes() if f"dev {WIREGUARD}" in route]) == count

    wire.await_state(member.node.path, has, f"{count} routes of {member.name}")


def test_containers_of_all_nodes_talk_and_nobody_listens(three: Cluster) -> None:
    """Node and container of another node too, by both families. All that is on the link is WireGuard."""
    a, b, c = three.members
    pods = [member.pod for member in three.members]
    with wire.packets(a.node.path, UNDERLAY) as tap:
        reach(pods)
        for member, pod, family in product(three.members, pods, FAMILIES):
            assert networks.ping(member.node, pod.address(family), member.node.path), (member.name, pod.address(family))
        on_link = [seen(tap)]
        for family in FAMILIES:
            bulk(pods[0], pods[2], family)
            bulk(pods[1], pods[0], family)
            on_link.append(seen(tap))
    assert all(encrypted >= 20 and plain == 0 for encrypted, plain in on_link)
    assert c.config()["mtu"] == 1420
    pools = [pool["cidr"] for pool in three.config["pools"]]  # nothing for them leaves unencrypted
    closed = [*a.blocks(), *pools]
    assert a.routes() == sorted([
        *(f"unreachable {prefix} dev lo metric 4294967294 pref medium" for prefix in closed if ":" in prefix),
        *(f"unreachable {prefix} metric 4294967294" for prefix in closed if ":" not in prefix),
        *(f"{block} dev {WIREGUARD} metric 2048 pref medium" for of in (b, c) for block in of.blocks() if ":" in block),
        *(f"{block} dev {WIREGUARD} metric 2048" for of in (b, c) for block in of.blocks() if "." in block),
    ])


# Of a frame: where its source and its destination begin, its protocol, the header after it; the bytes of the pool.
PARTS = {
    frames.IPV6: (14 + 8, 14 + 24, 14 + 6, 14 + 40, bytes.fromhex("fd428e1f6a00")),
    frames.IPV4: (14 + 12, 14 + 16, 14 + 9, 14 + 20, bytes((10, 244))),
}


def seen(tap: socket.socket) -> tuple[int, int]:
    """How many of the frames until now are WireGuard's, and how many have an address of a pool."""
    encrypted = plain = 0
    tap.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            frame = tap.recv(1 << 16)
            kind = int.from_bytes(frame[12:14], "big")
            if kind in PARTS:
                source, target, protocol, after, pool = PARTS[kind]
                plain += pool in (frame[source:source + len(pool)], frame[target:target + len(pool)])
                is_udp = frame[protocol] == frames.UDP
                encrypted += is_udp and int.from_bytes(frame[after + 2:after + 4], "big") == WIREGUARD_PORT
    return encrypted, plain


@pytest.mark.parametrize("family", FAMILIES)
def test_a_host_on_the_link_that_takes_a_nodes_address(three: Cluster, family: int) -> None:
    """Nothing that it sends gets to a container: neither to the port of WireGuard, nor beside the tunnel as a container
    of another node, or of the same one."""
    a, b, _ = three.members
    receiver, target = b.pod, b.pod.address(family)
    own = {4: IPNetwork(b.blocks()[1])[9], 6: IPNetwork(b.blocks()[0])[9]}[family]
    packets = [frames.ip(source, target, frames.UDP, frames.udp(source, target, (7, 7001), b"forged"))
               for source in (a.pod.address(family), str(own))]
    with traffic.udp(receiver.netns, family, port=7001) as server:
        on_wire(three, b, [frames.ethernet("02:00:00:00:00:77", mac(b), KINDS[family], packet) for packet in packets])
        send(f"/run/netns/{three.lan}", [
            frames.ip(a.addresses[0], b.addresses[0], frames.UDP,
                      frames.udp(a.addresses[0], b.addresses[0], (WIREGUARD_PORT, WIREGUARD_PORT), packet))
            for packet in (packets[0], b"\x04\0\0\0" + bytes(28) + packets[0])
        ])
        with traffic.udp(a.pod.netns, family) as last:
            last.sendto(b"last", (target, 7001))
        assert server.recvfrom(100)[0] == b"last"
    shown = b.node.run("nft", "list", "table", "inet", "cni_v6_wireguard").stdout
    header = {4: "ip", 6: "ip6"}[family]
    [counted] = re.findall(rf'{header} saddr \S+ iifname "{UNDERLAY}" counter packets (\d+)', shown)
    assert int(counted) >= 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_published_port_takes_nothing_of_the_tunnel(three: Cluster, family: int) -> None:
    publish_the_tunnels(three, WIREGUARD_PORT, family)


def mac(member: Member) -> str:
    return str(member.node.ip_json("link", "show", "dev", UNDERLAY)[0]["address"])


def on_wire(made: Cluster, member: Member, packets: list[bytes]) -> None:
    """Send frames on the nodes' link as they are, from a port of its own."""
    def opened() -> socket.socket:
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sender.bind((f"port{member.number}", 0))
        return sender

    with closing(inside(f"/run/netns/{made.lan}", opened)) as sender:
        for packet in packets:
            sender.send(packet)


def test_a_node_gets_another_key(three: Cluster) -> None:
    """The file is removed and the agent started again: the others have the new key, and containers go on."""
    a, b, _ = three.members
    before, pods = key_of(b), [member.pod for member in three.members]
    private = b.node.file(f"{STATE_DIR}/wireguard.key").read_text().strip()
    assert b.node.file(f"{STATE_DIR}/wireguard.key").stat().st_mode & 0o777 == 0o600
    said = b.stop()
    b.node.file(f"{STATE_DIR}/wireguard.key").unlink()
    b.start()
    assert key_of(b) != before
    await_ways(b, 4)
    reach(pods)
    everything = said + str(three.objects()) + b.node.file(f"{STATE_DIR}/state.json").read_text()
    assert private not in everything


def test_a_restart_leaves_the_sessions(three: Cluster) -> None:
    a, b, _ = three.members
    assert a.pod.ping(b.pod.address(6))
    with a.node.unchanged():
        a.stop()
        a.start()
    assert a.pod.ping(b.pod.address(6))


def test_a_node_is_removed(three: Cluster) -> None:
    """The last test: what it sends is not let in any more, though its interface still has all that it had."""
    a, b, c = three.members
    pods = [member.pod for member in three.members]
    reach(pods)
    c.stop()
    a.node.run(f"{PLUGIN_PATH[0]}/cni-v6ctl", "nodes", "--cluster", three.store, "--remove", "c")
    for member in (a, b):
        await_ways(member, 2)
    assert not c.pod.ping(a.pod.address(6), patience=1) and a.pod.ping(b.pod.address(4))
