"""Clusters with other families than the sample's: the node agent takes pools and their order from its file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kube_api import until

from . import networks
from .containerd import COMMANDS
from .kube_cluster import PODS, Cluster, Pools, cluster
from .kubelet import addresses, is_ready
from .pods import PORT, idle, plain, url, web

pytestmark = [
    pytest.mark.kubernetes, pytest.mark.timeout(600), pytest.mark.xdist_group("kubernetes nodes"),
]

IPV4_FIRST: Pools = {"10.244.0.0/16": 24, "fd42:8e1f:6a00::/56": 64}
IPV6_ONLY: Pools = {"fd42:8e1f:6a00::/120": 125}
ROOM = 6  # addresses of a /125, without that of the gateway and the subnet-router anycast address
EVENTS = "/api/v1/namespaces/default/events"


@pytest.fixture(scope="module", params=[IPV4_FIRST, IPV6_ONLY], ids=["IPv4 first", "IPv6 only"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, couriers: str) -> Iterator[Cluster]:
    networks.need_commands(*COMMANDS)
    with cluster(tmp_path_factory.mktemp("cluster"), couriers, request.param, na=10, nb=11) as started:
        started.start_agents()
        started.until_nodes(na=True, nb=True)
        yield started


def test_pods_have_the_pools_families_in_their_order(made: Cluster) -> None:
    na, nb = made.members["na"], made.members["nb"]
    made.run("one", web(), na)
    made.run("two", web(), nb)
    one, two = made.until_ready("one", "two")
    assert [":" in address for address in addresses(one)] == [":" in pool for pool in made.pools]
    for own, other in zip(addresses(one), addresses(two), strict=True):
        assert plain(na.execute(one, "wget", "-q", "-O", "-", url(other, PORT))) == own
        assert plain(nb.execute(two, "wget", "-q", "-O", "-", url(own, PORT))) == other
    for name, member in (("one", na), ("two", nb)):
        made.delete(f"{PODS}/{name}")
        member.kubelet.until_gone(name)


@pytest.mark.parametrize("made", [IPV6_ONLY], ids=["IPv6 only"], indirect=True)
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
