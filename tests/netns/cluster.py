"""Nodes of a cluster on one link: real agents, real containers, a store in a file that all of them see."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from cni_v6.cluster.file_store import FileStore
from tests.netns import networks, nft, traffic, wire
from tests.netns.networks import Pod
from tests.netns.wire import PATIENCE
from tests.sandbox import PLUGIN_PATH, ROOT, Node

UNDERLAY = "lan0"
FAMILIES = (4, 6)
POOL6, POOL4 = "fd42:8e1f:6a00::/48", "10.244.0.0/16"
POOLS = ({"cidr": POOL6, "block": 64}, {"cidr": POOL4, "block": 26})
TEMPLATE: dict[str, Any] = {
    "cniVersion": "1.0.0", "name": "pods", "plugins": [{
        "type": "cni-v6", "bridge": "cni0", "isDefaultGateway": True, "ingress": "open", "strict": True,
        "masquerade": {"ipv4": "auto", "ipv6": "auto"}, "nonMasquerade": [POOL6, POOL4],
        "ipam": {"type": "cni-v6-ipam"},
    }],
}
HOST = "fd00:11::ff"  # on the link, in its namespace
STRANGER = {4: "198.51.100.7", 6: "2001:db8:bad::7"}  # whom nobody knows
STATE_DIR, TARGET = "/var/lib/cni/cluster", "/var/lib/cni/net.d/10-cni-v6.conflist"


def unit_rights(group: str = "") -> list[str]:
    """Runs another command with the rights that the agent's unit for systemd leaves: all agents have these.

    :param group: a supplementary one; "" for none.
    """
    lines = ROOT.joinpath("conf/systemd/cni-v6-agent.service").read_text(encoding="utf-8").splitlines()
    settings = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    names = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in settings["CapabilityBoundingSet"].split())
    assert settings["NoNewPrivileges"] == "yes"
    return ["/usr/bin/setpriv", f"--bounding-set=-all,{names}", "--inh-caps=-all", "--no-new-privs",
            f"--groups={group}" if group else "--clear-groups"]


@dataclass
class Member:
    """A node of a cluster. ``number`` makes its addresses on the link."""

    cluster: Cluster
    name: str
    node: Node
    number: int
    agent: subprocess.Popen[bytes] | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(prefix.partition("/")[0] for prefix in self.cluster.addresses(self.number))

    def close(self) -> None:
        """End its agent and the node."""
        if self.agent and self.agent.poll() is None:
            self.agent.kill()
            self.agent.communicate()
        self.node.close()

    def start(self, *, name: str = "", wait: bool = True, **keys: Any) -> None:
        """Start the agent; with ``wait`` until it says by sd_notify(3) that the node is ready.

        :param keys: of the agent's configuration, instead of the usual ones.
        """
        folder = self.cluster.folder
        config = folder / f"{self.name}.json"
        config.write_text(json.dumps({**self.cluster.config, **keys}))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            path = folder / f"{self.name}.notify"
            path.unlink(missing_ok=True)
            manager.bind(str(path))
            argv = [*unit_rights(self.cluster.group), f"{PLUGIN_PATH[0]}/cni-v6ctl", "agent",
                    "--node", name or self.name, "--cluster", self.cluster.store, "--config", str(config)]
            self.agent = self.node.spawn(*argv, env={"NOTIFY_SOCKET": str(path), **self.node.environment})
            if wait:
                end = os.pidfd_open(self.agent.pid)
                ready, _, _ = select.select([manager.fileno(), end], [], [], PATIENCE)
                os.close(end)
                if manager.fileno() not in ready:
                    self.agent.kill()
                    pytest.fail(f"agent {self.name} is not ready: {self.ended()}")
                assert manager.recv(100) == b"READY=1"

    def stop(self, number: int = signal.SIGTERM) -> str:
        """End the agent; what it said."""
        assert self.agent
        self.agent.send_signal(number)
        return self.ended()

    def ended(self) -> str:
        """Wait for the end of the agent; what it said."""
        assert self.agent
        _, said = self.agent.communicate(timeout=PATIENCE)
        return said.decode()

    def says(self, words: str) -> str:
        """Wait until the agent says a line with these words; the line."""
        assert self.agent and self.agent.stderr
        deadline = time.monotonic() + PATIENCE
        while select.select([self.agent.stderr], [], [], max(0.0, deadline - time.monotonic()))[0]:
            line = self.agent.stderr.readline().decode()
            if words in line:
                return line
            if not line:
                break
        pytest.fail(f"agent {self.name} has not said: {words}")

    def config(self) -> dict[str, Any]:
        """The network as a runtime reads it from the configuration list."""
        document = json.loads(self.node.file(TARGET).read_text())
        return {"cniVersion": document["cniVersion"], "name": document["name"], **document["plugins"][0]}

    def await_config(self, reached: Callable[[dict[str, Any]], object]) -> None:
        """Wait until the agent has written a network of which that is so."""
        self.await_file(TARGET, lambda: reached(self.config()))

    def await_file(self, path: str, reached: Callable[[], object]) -> None:
        """Wait for changes of a file of the node until that is so."""
        deadline = time.monotonic() + PATIENCE
        with closing(FileStore(str(self.node.file(path)))) as changes:
            changes.fileno()  # from now on
            while not reached():
                ready = select.select([changes], [], [], max(0.0, deadline - time.monotonic()))[0]
                assert ready, self.node.file(path).read_text()
                changes.drain()

    def blocks(self) -> list[str]:
        """The node's blocks by the configuration list."""
        return [part["subnet"] for range_set in self.config()["ipam"]["ranges"] for part in range_set]

    def blocks_in_store(self) -> list[str]:
        """Those that objects of the store give to the node's name."""
        found = self.cluster.objects()
        return [key for key, value in found.items() if key.startswith("blocks/") and value["node"] == self.name]

    @cached_property
    def pod(self) -> Pod:
        """A container attached to the node's network."""
        made = Pod(self.node, self.config(), "pod")
        made.add()
        return made

    def dropped(self, table: str) -> dict[str, int]:
        """The packets that a table of the carrier has dropped, by reason, as the node's metrics have them."""
        samples = json.loads(nft.ctl(self.node, "metrics", "--json").stdout)
        return {sample["labels"]["reason"]: sample["value"] for sample in samples
                if sample["name"] == "cni_v6_cluster_dropped_packets_total" and sample["labels"]["table"] == table}

    def routes(self) -> list[str]:
        """The routes of the agent, in words."""
        lines = []
        for family in ("-6", "-4"):
            lines += self.node.run("ip", family, "route", "show", "proto", "166").stdout.splitlines()
        return sorted(" ".join(line.split()) for line in lines)


@dataclass
class Cluster:
    """``lan``: the namespace of the link, a bridge. ``group``: that the agents' unit is given besides.

    ``first``: number of the first node.
    """

    folder: Path
    lan: str
    config: Mapping[str, Any]
    ipv4: bool = True
    members: list[Member] = field(default_factory=list)
    store: str = ""
    group: str = ""
    first: int = 1

    def __post_init__(self) -> None:
        self.store = f"file:{self.folder}/store/cluster.json"

    def objects(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "store/cluster.json").read_text())
        return found

    def await_objects(self, reached: Callable[[dict[str, Any]], object]) -> None:
        """Wait until the store has objects of which that is so."""
        deadline = time.monotonic() + PATIENCE
        with closing(FileStore(self.store.removeprefix("file:"))) as changes:
            changes.fileno()  # from now on
            while not reached(self.objects()):
                assert select.select([changes], [], [], max(0.0, deadline - time.monotonic()))[0], self.objects()
                changes.drain()

    def addresses(self, number: int) -> tuple[str, ...]:
        return (f"fd00:11::{number}/64", *((f"172.30.0.{number}/24",) if self.ipv4 else ()))

    def join(self, name: str) -> Member:
        """A node on the link, without an agent yet."""
        node, number = Node(engine=True), len(self.members) + self.first
        member = Member(self, name, node, number)
        self.members.append(member)
        port = f"port{number}"
        _ip(self.lan, "link", "add", port, "master", "lan", "up", "type", "veth",
            "peer", "name", UNDERLAY, "netns", node.name)
        networks.set_sysctl(node, f"ipv6/conf/{UNDERLAY}/accept_dad", "0")
        node.run("ip", "link", "set", UNDERLAY, "up")
        for address in self.addresses(number):
            node.run("ip", "address", "add", address, "dev", UNDERLAY, *(("nodad",) if ":" in address else ()))
        return member

    def start(self) -> None:
        """Start all agents, and wait until each node has a route to every block of the others."""
        for member in self.members:
            member.start()
        for member in self.members:
            blocks = [block for other in self.members if other is not member for block in other.blocks()]
            has_all = partial(has_ways, member, blocks)
            wire.await_state(member.node.path, has_all, f"routes of {member.name} to {blocks}")

    @contextmanager
    def guest(self, name: str) -> Iterator[Member]:
        """A node that is on the link for a while."""
        member = self.join(name)
        try:
            yield member
        finally:
            self.members.remove(member)
            member.close()

    def close(self) -> None:
        for member in self.members:
            member.close()


def has_ways(member: Member, blocks: Sequence[str]) -> bool:
    routes = member.routes()
    return all(any(route.startswith(f"{block} ") for route in routes) for block in blocks)


@contextmanager
def cluster(
    *names: str, ipv4: bool = True, template: Mapping[str, Any] = TEMPLATE, within: str | None = None, **keys: Any
) -> Iterator[Cluster]:
    """A cluster with these nodes, whose agents do not run yet.

    :param ipv4: the nodes have IPv4 on the link.
    :param template: of the network.
    :param within: where its folder is; None for the usual place.
    :param keys: of the agents' configuration, instead of the usual ones.
    """
    # A short path: a socket's has 107 bytes (unix(7)).
    with TemporaryDirectory(prefix="cluster-", dir=within) as folder:
        yield from _cluster(Path(folder), names, ipv4, template, keys)


@contextmanager
def another(
    beside: Cluster, name: str, pools: Sequence[Mapping[str, Any]], *names: str, **keys: Any
) -> Iterator[Cluster]:
    """Another cluster on the link of one, with pools of its own; otherwise as ``cluster``."""
    folder = beside.folder / name
    (folder / "store").mkdir(parents=True)
    [plugin] = TEMPLATE["plugins"]
    plugin = {**plugin, "nonMasquerade": [pool["cidr"] for pool in pools]}
    template = folder / "template.conflist"
    template.write_text(json.dumps({**TEMPLATE, "plugins": [plugin]}))
    config = {**beside.config, "pools": pools, "conflist": {"template": str(template), "target": TARGET}, **keys}
    made = Cluster(folder, beside.lan, config, beside.ipv4, first=0x50)
    try:
        for node in names:
            made.join(node)
        yield made
    finally:
        made.close()


def _cluster(
    folder: Path, names: Sequence[str], ipv4: bool, template: Mapping[str, Any], keys: Mapping[str, Any]
) -> Iterator[Cluster]:
    (folder / "store").mkdir()
    path = folder / "template.conflist"
    path.write_text(json.dumps(template))
    config = {
        "pools": POOLS, "underlay": UNDERLAY, "stateDir": STATE_DIR,
        "conflist": {"template": str(path), "target": TARGET}, **keys,
    }
    lan = folder.name
    subprocess.run(["ip", "netns", "add", lan], check=True)
    made = Cluster(folder, lan, config, ipv4)
    try:
        _ip(lan, "link", "set", "lo", "up")
        _ip(lan, "link", "add", "lan", "up", "type", "bridge", "mcast_snooping", "0")
        _ip(lan, "address", "add", f"{HOST}/64", "dev", "lan", "nodad")
        for name in names:
            made.join(name)
        yield made
    finally:
        made.close()
        subprocess.run(["ip", "netns", "delete", lan], check=True)


def _ip(netns: str, *argv: str) -> None:
    subprocess.run(["ip", "-n", netns, *argv], check=True)


def host_beyond(member: Member, ways: Iterable[tuple[str, int]]) -> str:
    """The namespace of a host beyond a node, which forwards for it.

    :param ways: what the host sends to the node: (prefix, family of the next hop). What is for other nodes always.
    """
    made = networks.outside(member.node)
    networks.set_sysctl(member.node, "ipv6/conf/all/forwarding", "1")
    for prefix, hop in (*ways, ("fd00:11::/64", 6)):
        member.node.run("ip", "route", "add", prefix, "via", networks.NODE_OUTSIDE[hop], netns=made)
    return made


def send(netns: str, packets: Iterable[bytes]) -> None:
    """Send packets as they are."""
    with traffic.opened(netns, 6, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        for packet in packets:
            sender.sendto(packet, (socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0))


def hears(receiver: Pod, netns: str, packets: Iterable[bytes], family: int) -> list[bytes]:
    """What a container hears of packets that are sent, before it hears what is sent after them."""
    heard = []
    with traffic.udp(receiver.netns, family, port=7001) as server, wire.in_order():
        send(netns, packets)
        with traffic.udp(netns, family) as last:
            last.sendto(b"last", (receiver.address(family), 7001))
        while (said := server.recvfrom(100)[0]) != b"last":
            heard.append(said)
    return heard


def bulk(sender: Pod, receiver: Pod, family: int) -> None:
    """Move what does not fit into one packet: a carrier whose packets are too big for the way stands still here."""
    with traffic.listening(receiver.netns, family, 7000) as listener:
        traffic.bulk(sender.netns, (receiver.address(family), 7000), listener)


def publish_the_tunnels(made: Cluster, port: int, family: int) -> None:
    """A container publishes the port of its node's tunnel: it gets what strangers send there, and nothing of nodes.

    :param port: of UDP.
    """
    a, b = made.members[:2]
    sender, receiver = a.pod, b.pod
    mapping = {"hostPort": port, "containerPort": 7002, "protocol": "udp"}
    config = {**b.config(), "capabilities": {"portMappings": True}, "runtimeConfig": {"portMappings": [mapping]}}
    publisher = Pod(b.node, config, "publisher")
    publisher.add()
    try:
        with traffic.udp(publisher.netns, 6, port=7002) as server:
            with traffic.udp(receiver.netns, family, port=7001) as other, traffic.udp(sender.netns, family) as client:
                client.sendto(b"in the tunnel", (receiver.address(family), 7001))
                assert other.recvfrom(100)[0] == b"in the tunnel"
            with traffic.udp(f"/run/netns/{made.lan}", 6) as stranger:
                stranger.sendto(b"of a stranger", (b.addresses[0], port))
            assert server.recvfrom(100)[0] == b"of a stranger"
    finally:
        publisher.delete()


def reach(pods: list[Pod]) -> None:
    """All pairs, both families."""
    for one, other in permutations(pods, 2):
        for family in FAMILIES:
            assert one.ping(other.address(family)), f"{one.node.name} does not reach {other.address(family)}"


def outside(member: Member) -> str:
    """A host beyond a node, which forwards for it; returns its namespace."""
    made = networks.outside(member.node)
    networks.set_sysctl(member.node, "ipv6/conf/all/forwarding", "1")
    member.node.run("ip", "route", "add", POOL6, "via", networks.NODE_OUTSIDE[6], netns=made)
    return made
