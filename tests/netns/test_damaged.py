"""A record that cannot be read leaves no container open: it is made anew from what is known, or the port is blocked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni_v6.errors import CHECK_FAILED, LIMITED
from tests.netns import networks, nft, traffic
from tests.netns.networks import DUAL, GATEWAY4, GATEWAY6, Pod
from tests.sandbox import ROOT, Node

PORT = 8080
MAPPINGS = [{"hostPort": 8081, "containerPort": PORT, "protocol": "tcp"}]
CLOSED = networks.gateway(*DUAL, capabilities={"portMappings": True})
NETWORK = {**CLOSED, "runtimeConfig": {"portMappings": MAPPINGS}}
STRANGE = "02:00:5e:10:00:66"
DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "zeros": lambda file: file.write_bytes(bytes(512)),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:200]),
    "another guard": lambda file: file.write_bytes(file.read_bytes().replace(b'"full"', b'"fool"')),
}


def record(pod: Pod) -> Path:
    return pod.node.file(networks.STORE) / str(pod.config["name"]) / "attachments" / f"{pod.name}:eth0"


def ctl(node: Node, *words: str) -> Any:
    return node.run(str(ROOT / "bin" / "cni-v6ctl"), *words, env=node.environment)


def status(node: Node) -> Any:
    return node.plugin("cni-v6", "STATUS", NETWORK)


def is_guarded(pod: Pod) -> bool:
    """Whether its frames from another MAC are dropped; its MAC is as before then."""
    pod.node.run("ip", "link", "set", "eth0", "address", STRANGE, netns=pod.netns)
    passes = pod.ping(GATEWAY4, 1)
    pod.node.run("ip", "link", "set", "eth0", "address", pod.mac, netns=pod.netns)
    return not passes


def tables(node: Node) -> list[str]:
    """What the firewall has, in no order, without counters and what packets added."""
    listed = [nft.table(node, family) for family in ("inet", "bridge")]
    return sorted(word.strip(" ,\t{}") for text in listed for line in text.splitlines() for word in line.split(","))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_reload_makes_it_anew(node: Node, damage: str) -> None:
    pod, other = networks.pods(node, NETWORK, "a"), networks.pods(node, CLOSED, "b")
    before = tables(node)
    DAMAGES[damage](record(pod[0]))
    done = ctl(node, "reload")
    assert "the record of pods/a/eth0 was damaged: made anew" in done.stderr and "2 attachments" in done.stdout
    assert tables(node) == before
    for container in (*pod, *other):
        assert is_guarded(container) and container.check().ok() is None
        assert container.ping(GATEWAY4) and container.ping(GATEWAY6)
    assert status(node).ok() is None
    pod[0].delete()
    assert not [line for line in tables(node) if pod[0].host in line or "8081" in line or "10.66.0.2" in line]


@pytest.mark.slow
@pytest.mark.parametrize("config", [CLOSED, networks.network(bridge="cni1")], ids=["gateway", "layer 2"])
def test_without_the_tables_it_is_blocked(node: Node, config: dict[str, Any]) -> None:
    """And every command says so, until it is attached again."""
    [pod, other] = [Pod(node, config, name) for name in ("a", "b")]
    for each in (pod, other):
        each.add()
    record(pod).write_bytes(b"")
    node.run("nft", "flush", "ruleset")
    done = ctl(node, "reload")
    assert "pods/a/eth0 is blocked: its record is damaged" in done.stderr
    if "ipam" in config:
        assert not pod.ping(GATEWAY4, 1) and not pod.ping(GATEWAY6, 1) and not pod.ping(other.address(4), 1)
        assert other.ping(GATEWAY4) and is_guarded(other)
    chains = node.run("nft", "list", "set", "bridge", "cni_v6", "bound").stdout
    assert pod.host in chains and pod.host not in node.run("nft", "list", "set", "bridge", "cni_v6", "macs").stdout
    for _ in range(2):
        assert "pods/a/eth0 is blocked" in node.plugin("cni-v6", "STATUS", config).error(LIMITED)
        assert "the container is blocked" in pod.check().error(CHECK_FAILED)
        assert other.check().ok() is None
        [row] = [line for line in ctl(node, "list").stdout.splitlines() if " a " in line]
        assert "blocked" in row
        assert "pods/a/eth0 is blocked" in ctl(node, "reload").stderr
    pod.delete()
    pod.add()
    assert pod.check().ok() is None and node.plugin("cni-v6", "STATUS", config).ok() is None
    if "ipam" in config:
        assert pod.ping(GATEWAY4) and is_guarded(pod)


@pytest.mark.slow
def test_status_and_check_find_it_first(node: Node) -> None:
    """STATUS finds any of the network's, CHECK its container's own; what they make anew is as it was."""
    pods = networks.pods(node, CLOSED, "a", "b")
    before = tables(node)
    for number, pod in enumerate(pods):
        record(pod).write_bytes(b"{")
        said = pod.check().error(CHECK_FAILED) if number else status(node).error(LIMITED)
        assert f"the record of pods/{pod.name}/eth0 was damaged: made anew" in said
        assert tables(node) == before
        assert status(node).ok() is None and pod.check().ok() is None and is_guarded(pod)
    record(pods[0]).write_bytes(b"{")
    valid = [{"containerID": pod.name, "ifname": "eth0"} for pod in pods]
    assert "made anew" in node.plugin("cni-v6", "GC", {**NETWORK, "cni.dev/valid-attachments": valid}).stderr
    assert tables(node) == before and status(node).ok() is None


@pytest.mark.slow
def test_each_gc_finds_what_was_damaged_since_the_last(node: Node) -> None:
    """An engine reads again what was written to, and no other record."""
    pods = networks.pods(node, CLOSED, "a", "b")
    valid = [{"containerID": pod.name, "ifname": "eth0"} for pod in pods]

    def said() -> str:
        return str(node.plugin("cni-v6", "GC", {**NETWORK, "cni.dev/valid-attachments": valid}).stderr)

    assert "damaged" not in said()
    for pod in (*pods, *pods):
        record(pod).write_bytes(b"{")
        assert f"the record of pods/{pod.name}/eth0 was damaged: made anew" in said()
        assert "damaged" not in said() and is_guarded(pod)


def test_a_del_leaves_nothing_of_it(node: Node) -> None:
    """The elements of a damaged record go too: a published port is free again, and so is the address."""
    networks.set_up(node, NETWORK)
    before = tables(node)
    [pod] = networks.pods(node, NETWORK, "a")
    record(pod).write_bytes(b"")
    pod.delete()
    assert tables(node) == before and networks.leases(node) == set()
    [other] = networks.pods(node, NETWORK, "other")
    with traffic.listening(other.netns, 4, PORT) as server:
        traffic.called(networks.outside(node), (networks.NODE_OUTSIDE[4], 8081), server)


def test_one_of_a_network_without_a_firewall(node: Node) -> None:
    config = networks.gateway(*DUAL, guard=False, ingress="open")
    pods = networks.pods(node, config, "a", "b")
    record(pods[0]).write_bytes(b"")
    assert "without a firewall as its network is" in node.plugin("cni-v6", "STATUS", config).error(LIMITED)
    assert node.plugin("cni-v6", "STATUS", config).ok() is None
    assert pods[0].ping(GATEWAY4) and pods[0].check().ok() is None
    record(pods[0]).write_bytes(b"")
    assert "without a firewall as its network is" in ctl(node, "reload").stderr
    assert pods[0].ping(GATEWAY4) and pods[0].check().ok() is None


def test_one_without_a_container(node: Node) -> None:
    """As a loss of power leaves it: there is nothing to guard, and DEL frees what it had."""
    pods = networks.pods(node, NETWORK, "a")
    node.run("ip", "link", "delete", pods[0].host)
    record(pods[0]).write_bytes(b"")
    assert status(node).ok() is None
    assert "damaged" not in ctl(node, "reload").stderr
    pods[0].delete()
    assert networks.leases(node) == set() and not record(pods[0]).exists()
    networks.pods(node, NETWORK, "b")  # the port is free
