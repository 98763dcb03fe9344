"""Clusters unlike the sample's: other families, in another order, other carriers, and pods without a bridge."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import pytest

from tests.kube_api import until

from . import networks
from .containerd import COMMANDS
from .kube_cluster import GUIDE, PODS, Cluster, Kind, check_service, cluster
from .kube_deploy import start_agents
from .kubelet import addresses, is_ready
from .pods import idle

pytestmark = [
    pytest.mark.kubernetes, pytest.mark.timeout(600), pytest.mark.xdist_group("kubernetes nodes"),
]

ROOM = 6  # addresses of a /125, without that of the gateway and the subnet-router anycast address
EVENTS = "/api/v1/namespaces/default/events"

ROUTED = {
    "type": "cni-v6-routed", "ingress": "open", "masquerade": {"ipv4": "auto", "ipv6": "auto"}, "strict": True,
    "nonMasquerade": ["fd42:8e1f:6a00::/56", "10.244.0.0/16"], "capabilities": {"portMappings": True},
    "ipam": {"type": "cni-v6-ipam"},
}
IPV4_FIRST = Kind({"10.244.0.0/16": 24, "fd42:8e1f:6a00::/56": 64}, ROUTED, "srv6")
IPV6_ONLY = Kind({"fd42:8e1f:6a00::/120": 125}, carrier="vxlan")


KINDS = {"IPv4 first, routed, SRv6": IPV4_FIRST, "IPv6 only, VXLAN": IPV6_ONLY, "the guide's, three nodes": GUIDE}


@pytest.fixture(scope="module", params=[*KINDS.values()], ids=[*KINDS])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, couriers: str) -> Iterator[Cluster]:
    networks.need_commands(*COMMANDS)
    kind: Kind = request.param
    folder = tmp_path_factory.mktemp("cluster")
    nodes = {"na": 10, "nb": 11} | ({"nc": 12} if kind is GUIDE else {})
    with cluster(folder, couriers, kind, **nodes) as started:
        start_agents(started)
        started.until_nodes(**dict.fromkeys(nodes, True))
        yield started


def test_pods_have_the_pools_families_in_their_order(made: Cluster) -> None:
    with made.pods(**{f"on-{name}": name for name in made.members}) as pods:
        for (member, pod), (_, other) in permutations(zip(made.members.values(), pods), 2):
            assert [":" in address for address in addresses(pod)] == [":" in pool for pool in made.kind.pools]
            for own, there in zip(addresses(pod), addresses(other), strict=True):
                assert member.seen_by(pod, there) == own


def test_a_service_tells_its_pods_who_asks(made: Cluster) -> None:
    check_service(made, made.members["na"], made.members["nb"])


@pytest.mark.parametrize("made", [IPV6_ONLY], ids=["IPv6 only, VXLAN"], indirect=True)
def test_a_pod_waits_for_room_in_the_block_of_its_node(made: Cluster) -> None:
    na = made.members["na"]
    names = [f"pod-{number}" for number in range(ROOM + 1)]
    for name in names:
        made.run(name, idle(), na)
    pods = until(made.api, PODS, lambda found: sum(map(is_ready, found.values())) == ROOM, f"{ROOM} pods are ready")
    [waiting] = [name for name, pod in pods.items() if not is_ready(pod)]
    until(made.api, EVENTS, lambda found: any(
        event["involvedObject"]["name"] == waiting and "no free address in" in event["message"]
        for event in found.values()), "the pod's events say why")
    ended, *others = set(names) - {waiting}
    made.delete(f"{PODS}/{ended}")
    made.until_ready(waiting)
    for name in (waiting, *others):
        made.delete(f"{PODS}/{name}")
    na.kubelet.until_gone(*names)
