"""On a bridge that an administrator made: it keeps its MAC, and an ADD says what the guard cannot do there."""

from __future__ import annotations

import shlex

import pytest

from tests.netns import frames, networks, spoofed_frames, wire
from tests.netns.networks import DUAL, Pod
from tests.netns.spoofed_frames import LLDP
from tests.netns.test_guard import END, Segment
from tests.sandbox import Node

NETWORK = networks.gateway(*DUAL)
LOWEST, ITS_OWN, NEIGHBOUR = "02:00:00:00:00:01", "0a:00:00:00:00:02", "02:00:00:00:00:03"


def mac(node: Node) -> str:
    return str(networks.link(node, "cni0")["address"])


def bridge(node: Node, *keys: str) -> None:
    node.run("ip", "link", "add", "cni0", *keys, "type", "bridge")
    node.run("ip", "link", "set", "cni0", "up")


def port(node: Node, address: str) -> None:
    node.run("ip", "link", "add", "port0", "address", address, "type", "veth", "peer", "name", "beyond")
    node.run("ip", "link", "set", "port0", "master", "cni0")


@pytest.mark.parametrize("config", [NETWORK, networks.network()], ids=["gateway", "layer 2"])
@pytest.mark.parametrize("made", ["without ports", "with a port", "without a MAC", "with a MAC"])
def test_its_mac_stays(node: Node, made: str, config: dict[str, object]) -> None:
    """By itself it takes the lowest of its ports, and none after the last one."""
    bridge(node, *(("address", ITS_OWN) if made == "with a MAC" else ()))
    if made in ("with a port", "without a MAC"):
        port(node, "02:00:00:00:00:ff")
    if made == "without a MAC":
        node.run("ip", "link", "delete", "port0")
        assert mac(node) == "00:00:00:00:00:00"
    before = mac(node)
    first = Pod(node, config, "first")
    first.add()
    given = first.result["interfaces"][0]["mac"]
    assert given == mac(node) != "00:00:00:00:00:00" and (given == before or made == "without a MAC")
    if made == "with a port":
        node.run("ip", "link", "delete", "port0")
    port(node, LOWEST)
    [second] = networks.pods(node, config, "second")
    assert mac(node) == given == second.result["interfaces"][0]["mac"]
    for pod in (first, second):
        assert pod.check().ok() is None
        pod.delete()
    node.run("ip", "link", "delete", "port0")
    assert mac(node) == given


def test_it_is_set_once(node: Node) -> None:
    """The kernel forgets the neighbours on an interface whose MAC is set, be it to the one it has."""
    bridge(node)
    networks.pods(node, NETWORK, "first")
    node.run("ip", "neighbour", "add", "10.66.0.200", "lladdr", NEIGHBOUR, "nud", "reachable", "dev", "cni0")
    networks.pods(node, NETWORK, "second")
    [entry] = node.ip_json("neighbour", "show", "10.66.0.200", "dev", "cni0")
    assert entry["lladdr"] == NEIGHBOUR


def test_a_mac_that_is_taken_by_lldp(node: Node) -> None:
    """LLDP passes no hook on such a bridge, which learns from it; what the warning says to do mends that."""
    bridge(node)
    pod = Pod(node, NETWORK, "first")
    said = pod.call("ADD").stderr
    [warning] = [line for line in said.splitlines() if "LLDP" in line]
    segment = Segment(node, NETWORK)
    victim, gateway = segment.hosts["victim"], segment.hosts["gateway"]
    [theft] = [frame for frame in spoofed_frames.thefts(victim, gateway) if frame[:6] == frames.hardware(LLDP)]

    def is_stolen() -> bool:
        assert segment.victim.ping(networks.GATEWAY6)  # from which the bridge learns again
        stolen = segment.learned(victim.mac, segment.attacker.host)
        with wire.events(node.path) as news, wire.packets(node.path, "cni0") as tap:
            with wire.packets(segment.attacker.netns, "eth0", 0) as sender, wire.in_order():
                sender.send(theft)
                sender.send(segment.end(gateway))
            wire.frames_before(tap, END)
            return any(map(stolen, wire.pending(news)))

    assert is_stolen()
    node.run(*shlex.split(warning.rpartition("; run ")[2]))
    assert not is_stolen()
    assert "LLDP" not in Pod(node, NETWORK, "last").call("ADD").stderr
