"""A requested MAC is nobody else's on the segment: the guard would let both send from it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from cni_v6.errors import ADDRESS_UNAVAILABLE, INVALID_CONFIG, INVALID_ENVIRONMENT
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from tests.netns import networks
from tests.netns.networks import DUAL, GATEWAY4, Pod
from tests.netns.test_moving_over import THEIRS, Reference
from tests.sandbox import Node, Reply

MAC = "02:00:5e:10:00:01"
NETWORK = networks.gateway(*DUAL)
OPEN: dict[str, Any] = {"guard": False, "ingress": "open"}
NETWORKS: dict[str, dict[str, Any]] = {
    "the same network": NETWORK,
    "another one": networks.gateway("10.67.0.0/24", name="other"),
    "without a firewall": networks.gateway("10.67.0.0/24", name="other", **OPEN),
    "layer 2": networks.network(name="other"),
}


def asking(config: dict[str, Any], mac: str) -> dict[str, Any]:
    return {**config, "runtimeConfig": {"mac": mac}}


@pytest.mark.slow
@pytest.mark.parametrize("theirs", NETWORKS)
@pytest.mark.parametrize("ours", NETWORKS)
def test_a_neighbours(node: Node, theirs: str, ours: str) -> None:
    """Whether that one was derived or requested."""
    derived, requested = Pod(node, NETWORKS[theirs], "derived"), Pod(node, asking(NETWORKS[theirs], MAC), "requested")
    for pod in (derived, requested):
        pod.add()
    networks.pods(node, NETWORKS[ours], "there")  # what belongs to the network is there from now on
    node.container("thief")
    with node.unchanged():
        for pod in (derived, requested):
            message = Pod(node, asking(NETWORKS[ours], pod.mac), "thief").call("ADD").error(ADDRESS_UNAVAILABLE)
            assert pod.mac in message and f"held by {NETWORKS[theirs]['name']}/{pod.name}/eth0" in message
    requested.delete()
    heir = Pod(node, asking(NETWORKS[ours], MAC), "heir")
    heir.add()
    assert heir.mac == MAC and heir.check().ok() is None


WAYS: dict[str, Callable[[str], tuple[dict[str, Any], dict[str, Any]]]] = {
    "capability": lambda mac: (asking(NETWORK, mac), {}),
    "args": lambda mac: ({**NETWORK, "args": {"cni": {"mac": mac}}}, {}),
    "CNI_ARGS": lambda mac: (NETWORK, {"args": f"MAC={mac}"}),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_bridges_and_what_is_no_hosts(node: Node, way: str) -> None:
    [pod] = networks.pods(node, NETWORK, "a")
    config, variables = WAYS[way](networks.link(node, "cni0")["address"])
    node.container("thief")
    with node.unchanged():
        message = Pod(node, config, "thief").call("ADD", **variables).error(ADDRESS_UNAVAILABLE)
        assert "held by bridge cni0" in message
        for mac, words in (("01:00:5e:00:00:01", "multicast"), ("ff:ff:ff:ff:ff:ff", "multicast"),
                           ("00:00:00:00:00:00", "empty")):
            config, variables = WAYS[way](mac)
            code = INVALID_ENVIRONMENT if way == "CNI_ARGS" else INVALID_CONFIG
            assert words in Pod(node, config, "thief").call("ADD", **variables).error(code)
    assert pod.ping(GATEWAY4)


def test_its_own_ports_and_that_of_a_bridge_that_is_not_there_yet(node: Node) -> None:
    networks.set_up(node, NETWORK)
    mac = networks.link(node, "cni0")["address"]
    node.run("ip", "link", "delete", "cni0")
    node.container("thief")
    with node.unchanged():
        thief = Pod(node, asking(NETWORK, mac), "thief")
        assert "held by bridge cni0" in thief.call("ADD").error(ADDRESS_UNAVAILABLE)
        thief = Pod(node, asking(NETWORK, names.host_mac(Owner("pods", "thief", "eth0"))), "thief")
        assert "held by pods/thief/eth0" in thief.call("ADD").error(ADDRESS_UNAVAILABLE)


def test_that_of_a_container_of_the_reference(node: Node) -> None:
    """The kernel knows it, whoever attached it."""
    old = Reference(node, THEIRS, "old")
    old.add()
    message = Pod(node, asking(NETWORK, old.mac), "thief").call("ADD").error(ADDRESS_UNAVAILABLE)
    assert old.mac in message and old.host in message


def test_one_that_another_container_set_itself(node: Node) -> None:
    [pod] = networks.pods(node, networks.network(), "a")
    node.run("ip", "link", "set", "eth0", "address", MAC, netns=pod.netns)
    message = Pod(node, asking(networks.network(), MAC), "b").call("ADD").error(ADDRESS_UNAVAILABLE)
    assert "held by pods/a/eth0" in message


def test_one_that_is_derived_later(node: Node) -> None:
    """The MAC of an address whose holder has gone is its next holder's too: who has it meanwhile is named."""
    network = networks.gateway(networks.SUBNET4)
    config = {**network, "args": {"cni": {"ips": ["10.66.0.77"]}}}
    first = Pod(node, config, "first")
    mac = first.add()["interfaces"][2]["mac"]
    first.delete()
    thief = Pod(node, asking(network, mac), "thief")
    thief.add()
    node.container("next")
    with node.unchanged():
        message = Pod(node, config, "next").call("ADD").error(ADDRESS_UNAVAILABLE)
        assert mac in message and "held by pods/thief/eth0" in message
    thief.delete()
    [heir] = networks.pods(node, config, "next")
    assert heir.mac == mac


@pytest.mark.parametrize("config", [NETWORK, networks.network(**OPEN)], ids=["guard", "no firewall"])
def test_one_of_many_calls_at_once_gets_it(node: Node, config: dict[str, Any]) -> None:
    networks.set_up(node, config)
    pods = [Pod(node, asking(config, MAC), f"c{number}") for number in range(6)]
    replies: dict[str, Reply] = {}

    def add(pod: Pod) -> None:
        replies[pod.name] = pod.call("ADD")

    threads = [threading.Thread(target=add, args=(pod,)) for pod in pods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = [pod for pod in pods if replies[pod.name].code == 0]
    for pod in pods:
        if pod is not winner:
            # By the winner, or by another one that is about to be refused.
            assert f"MAC {MAC} is taken: held by " in replies[pod.name].error(ADDRESS_UNAVAILABLE)
    assert len(networks.veths(node)) == 1
