"""Two nodes of Kubernetes with our agent as the DaemonSet of deploy/: nodes, pods, services, faults."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.kube_api import Item, ask, until

from . import networks
from .containerd import COMMANDS
from .kube_cluster import AGENT_SPACE, NODES, PODS, Cluster, Member, cluster
from .kubelet import Pod, addresses
from .node import SETTLE
from .pods import PORT, plain, url, web

pytestmark = [
    pytest.mark.kubernetes, pytest.mark.timeout(600), pytest.mark.xdist_group("kubernetes nodes"),
]

TARGET = "/etc/cni/net.d/10-cni-v6.conflist"
NETWORK = "pods"
AGENT_PODS = f"/api/v1/namespaces/{AGENT_SPACE}/pods"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, couriers: str) -> Iterator[Cluster]:
    """A cluster whose nodes have become ready by the agent."""
    networks.need_commands(*COMMANDS)
    with cluster(tmp_path_factory.mktemp("cluster"), couriers, na=10, nb=11) as started:
        nodes = started.until_nodes(na=False, nb=False)
        assert all("cni plugin not initialized" in condition(node, "Ready")["message"] for node in nodes.values())
        started.start_agents()
        started.until_nodes(na=True, nb=True)
        yield started


def condition(item: Item, kind: str) -> Item:
    found: Item
    [found] = [entry for entry in item["status"]["conditions"] if entry["type"] == kind]
    return found


def seen_from(member: Member, pod: Pod, address: str, port: int = PORT) -> str:
    """The address that a server sees when a pod of this node asks it."""
    return plain(member.execute(pod, "wget", "-q", "-O", "-", url(address, port)))


def test_a_node_has_the_blocks_that_kubernetes_gives_it(made: Cluster) -> None:
    _, listed = ask(made.api, "GET", NODES)
    blocks = {node["metadata"]["name"]: node["spec"]["podCIDRs"] for node in listed["items"]}
    for name, member in made.members.items():
        [plugin] = json.loads(member.node.path(TARGET).read_text())["plugins"]
        assert plugin["ipam"]["ranges"] == [[{"subnet": block}] for block in blocks[name]]
        [others] = [found for other, found in blocks.items() if other != name]
        until_routes(member, set(others))
    pods = until(made.api, AGENT_PODS, lambda found: all(
        condition(pod, "Ready")["status"] == "True" for pod in found.values()), "the agents are ready")
    assert len(pods) == 2


@contextmanager
def pods(made: Cluster, **places: str) -> Iterator[list[Item]]:
    """Pods with a server, ready, on the nodes that are named; they are gone afterwards."""
    for name, place in places.items():
        made.run(name, web(), made.members[place])
    yield made.until_ready(*places)
    for name in places:
        made.delete(f"{PODS}/{name}")
    for place in set(places.values()):
        made.members[place].kubelet.until_gone(*places)


def until_routes(member: Member, wanted: set[str]) -> None:
    deadline = time.monotonic() + 2 * SETTLE
    while {route["dst"] for route in member.routes()} != wanted:
        assert time.monotonic() < deadline, member.routes()
        select.select([], [], [], 0.2)


def test_pods_of_both_nodes_talk_by_their_own_addresses(made: Cluster) -> None:
    na, nb = made.members["na"], made.members["nb"]
    with pods(made, first="na", second="nb"):
        pass  # what the first pod of a node leaves belongs to the network
    with na.node.unchanged(networks.STORE), nb.node.unchanged(networks.STORE):
        with pods(made, one="na", two="nb") as (one, two):
            for own, other in zip(addresses(one), addresses(two)):
                assert seen_from(na, one, other) == own and seen_from(nb, two, own) == other
    for member in (na, nb):
        assert networks.leases(member.node.path(networks.STORE), NETWORK) == set()


def test_pods_and_new_ones_need_no_api(made: Cluster) -> None:
    na = made.members["na"]
    with pods(made, one="na", two="nb") as (one, two):
        made.api.stop()
        na.kubelet.put("lonely", web())
        [lonely] = na.kubelet.until_ready("lonely")
        for from_one, from_lonely, other in zip(addresses(one), addresses(lonely), addresses(two)):
            assert seen_from(na, one, other) == from_one and seen_from(na, lonely, other) == from_lonely
        made.api.start()
        na.kubelet.remove("lonely")
        made.until_nodes(na=True, nb=True)


def test_a_node_is_deleted_and_registers_again(made: Cluster) -> None:
    na, nb = made.members["na"], made.members["nb"]
    of_nb = f"{AGENT_PODS}?fieldSelector=spec.nodeName%3Dnb"
    [before] = until(made.api, of_nb, len, "an agent")
    made.delete(f"{NODES}/nb")
    until_routes(na, set())
    until(made.api, of_nb, lambda found: before not in found, "Kubernetes ends the pods of a node that is gone")
    nb.kubelet.stop()
    nb.kubelet.start()
    blocks = made.until_nodes(na=True, nb=True)["nb"]["spec"]["podCIDRs"]
    until_routes(na, set(blocks))
    with pods(made, one="na", two="nb") as (one, two):
        for own, other in zip(addresses(one), addresses(two)):
            assert seen_from(na, one, other) == own and seen_from(nb, two, own) == other
