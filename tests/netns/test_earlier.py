"""Container ids that were had before, on real namespaces: what is over is freed, what lives is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.netns import networks
from tests.netns.networks import DUAL, Pod
from tests.sandbox import Node

CONFIG = networks.gateway(*DUAL, ipMasq=True)


def replaced(node: Node, name: str) -> Pod:
    """The container's namespace ends, and there is another one in its place; the kernel may be at it still."""
    node.remove_container(name)
    node.container(name)
    return Pod(node, CONFIG, name)


def test_an_add_for_a_container_whose_namespace_has_ended(node: Node) -> None:
    [first, other] = networks.pods(node, CONFIG, "first", "other")
    for _ in range(5):
        again = replaced(node, "first")
        reply = again.call("ADD")
        assert reply.ok()["ips"]
        assert "of an earlier pods/first/eth0: its network namespace has ended" in reply.stderr
        assert again.ping(networks.GATEWAY6) and again.ping(networks.GATEWAY4) and other.ping(networks.GATEWAY6)
    assert len(networks.leases(node)) == 4 and len(networks.veths(node)) == 2
    again.delete()
    other.delete()
    assert networks.leases(node) == set() == networks.veths(node)


def test_an_add_for_a_container_whose_namespace_lives(node: Node) -> None:
    """Kept by a descriptor of a process of the node, where no path leads to it."""
    [pod] = networks.pods(node, CONFIG, "a")
    held = os.open(pod.netns, os.O_RDONLY)
    again = replaced(node, "a")
    with node.unchanged():
        again.call("ADD").error(107)
    os.close(held)
    again.call("ADD").ok()
    again.delete()


@pytest.mark.parametrize("path", ["/proc/self/ns/net", "its mount"])
def test_del_with_the_nodes_own_namespace_frees_what_the_container_had(node: Node, path: str) -> None:
    """A pid that was the container's is another process's by now. The node has an interface of that name."""
    node.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    networks.set_up(node, CONFIG)
    with node.unchanged():
        [pod] = networks.pods(node, CONFIG, "a")
        reply = pod.call("DEL", netns=node.path if path == "its mount" else path)
        reply.ok()
        assert "own network namespace" in reply.stderr and "freed" in reply.stderr
        node.remove_container("a")
    assert Path(node.file("/var/lib/cni/networks/pods")).exists() and networks.leases(node) == set()
