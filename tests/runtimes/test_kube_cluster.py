"""Two nodes of Kubernetes with our agent as the DaemonSet of deploy/: nodes, pods, services, faults."""

from __future__ import annotations

import json
import select
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests import image
from tests.kube_api import Item, ask, kubeconfig, until
from tests.sandbox import ROOT

from . import networks
from .containerd import COMMANDS
from .kube_cluster import AGENT_SPACE, NODES, SAMPLE, Cluster, Member, check_service, cluster, until_answered
from .kube_deploy import engine_archive, start_agents, start_engines
from .kubelet import addresses
from .node import ENVIRONMENT, SETTLE
from .pods import web

pytestmark = [
    pytest.mark.kubernetes, pytest.mark.timeout(600), pytest.mark.xdist_group("kubernetes nodes"),
]

TARGET = "/etc/cni/net.d/10-cni-v6.conflist"
NETWORK = "pods"
AGENT_PODS = f"/api/v1/namespaces/{AGENT_SPACE}/pods"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose nodes have become ready by the agent. The plugins and the engine come with their DaemonSet."""
    networks.need_commands(*COMMANDS)
    folder = tmp_path_factory.mktemp("image")
    built = image.build(folder)
    kind = replace(SAMPLE, archives=(engine_archive(folder, built),))
    with cluster(tmp_path_factory.mktemp("cluster"), None, kind, na=10, nb=11) as started:
        nodes = started.until_nodes(na=False, nb=False)
        assert all("cni plugin not initialized" in condition(node, "Ready")["message"] for node in nodes.values())
        start_engines(started, built)
        start_agents(started)
        started.until_nodes(na=True, nb=True)
        yield started


def condition(item: Item, kind: str) -> Item:
    found: Item
    [found] = [entry for entry in item["status"]["conditions"] if entry["type"] == kind]
    return found


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


def until_routes(member: Member, wanted: set[str]) -> None:
    deadline = time.monotonic() + 2 * SETTLE
    while {route["dst"] for route in member.routes()} != wanted:
        assert time.monotonic() < deadline, member.routes()
        select.select([], [], [], 0.2)


def test_pods_of_both_nodes_talk_by_their_own_addresses(made: Cluster) -> None:
    na, nb = made.members["na"], made.members["nb"]
    with made.pods(first="na", second="nb"):
        pass  # what the first pod of a node leaves belongs to the network
    with na.node.unchanged(networks.STORE), nb.node.unchanged(networks.STORE):
        with made.pods(one="na", two="nb") as (one, two):
            for own, other in zip(addresses(one), addresses(two)):
                assert na.seen_by(one, other) == own and nb.seen_by(two, own) == other
    for member in (na, nb):
        assert networks.leases(member.node.path(networks.STORE), NETWORK) == set()


def test_a_service_tells_its_pods_who_asks(made: Cluster) -> None:
    check_service(made, made.members["na"], made.members["nb"])


def test_the_operators_commands_know_the_cluster(made: Cluster, tmp_path: Path) -> None:
    """What the agents measure of leases and of each other needs a mount and a capability of the DaemonSet."""
    command = str(ROOT / "bin/cni-v6ctl")
    config = kubeconfig(tmp_path / "config", made.api.url, AGENT_SPACE, made.api.cafile)

    def measured() -> str:
        argv = (command, "nodes", "--json", "--cluster", f"kubernetes:{config}")
        printed = subprocess.run(argv, env=ENVIRONMENT, check=True, capture_output=True, text=True).stdout
        found = {node["node"]: node for node in map(json.loads, printed.splitlines())}
        leased = {name: [entry["leases"] for entry in node["leased"].values()] for name, node in found.items()}
        assert leased == {"na": [1, 1], "nb": [0, 0]}
        for node in found.values():
            assert sorted((answer["family"], answer["answers"]) for answer in node["answers"]) == [
                ("ipv4", True), ("ipv6", True)]
        return printed

    with made.pods(one="na"):
        until_answered(measured)
        for member in made.members.values():
            assert "\nred" not in member.node.run(command, "doctor")


def test_pods_and_new_ones_need_no_api(made: Cluster) -> None:
    na = made.members["na"]
    with made.pods(one="na", two="nb") as (one, two):
        made.api.stop()
        na.kubelet.put("lonely", web())
        [lonely] = na.kubelet.until_ready("lonely")
        for from_one, from_lonely, other in zip(addresses(one), addresses(lonely), addresses(two)):
            assert na.seen_by(one, other) == from_one and na.seen_by(lonely, other) == from_lonely
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
    with made.pods(one="na", two="nb") as (one, two):
        for own, other in zip(addresses(one), addresses(two)):
            assert na.seen_by(one, other) == own and nb.seen_by(two, own) == other
