"""kubelet without a cluster runs pods on a network of ours: the sample for Kubernetes as it is, through the courier."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.sandbox import ROOT

from . import lan, networks
from .containerd import COMMANDS, Containerd, containerd
from .kubelet import MANIFESTS, Kubelet, addresses, container_ids, kubelet
from .node import Node, node
from .pods import PORT, asked, plain, url, web

pytestmark = [pytest.mark.kubernetes, pytest.mark.xdist_group("kubernetes nodes")]

SAMPLE = ROOT / "conf/10-cni-v6-kubernetes.conflist"
NETWORK = "pods"
NUMBER = 10
OWN = [lan.address(NUMBER, family) for family in (6, 4)]
HOST_PORT = 18080


@dataclass(frozen=True)
class Host:
    node: Node
    containerd: Containerd
    kubelet: Kubelet

    def leases(self) -> set[str]:
        return networks.leases(self.node.path(networks.STORE), NETWORK)

    @contextmanager
    def ended(self) -> Iterator[None]:
        """Neither containerd nor kubelet runs; pods go on."""
        self.kubelet.stop()
        self.containerd.stop()
        yield
        self.containerd.start()
        self.kubelet.start()

    @contextmanager
    def left_empty(self) -> Iterator[None]:
        """Fail the test if something of its pods is left on the node."""
        with self.ended():
            self.node.run(ROOT / "bin/cni-v6ctl", "engine", "--stop")
            before = self.node.state()
        yield
        with self.ended():
            assert self.leases() == set()
            assert self.node.left_behind(before) == []


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, couriers: str) -> Iterator[Host]:
    networks.need_commands(*COMMANDS)
    folder = tmp_path_factory.mktemp("kubelet")
    with lan.lan(), node() as machine, lan.attached(machine, NUMBER):
        networks.install(machine, couriers)
        shutil.copy(SAMPLE, machine.path("/etc/cni/net.d"))
        with containerd(machine, folder) as runtime, kubelet(machine, folder, "na", OWN) as agent:
            # The first pod of a node leaves the bridge, and kubelet some cgroups for all pods.
            agent.put("first", web(hostPort=HOST_PORT))
            agent.until_ready("first")
            agent.remove("first")
            yield Host(machine, runtime, agent)


def seen_from(host: Host, pod: Mapping[str, Any], address: str, port: int = PORT) -> str:
    """The address that a server sees when a pod asks it."""
    ask = ("wget", "-q", "-O", "-", url(address, port))
    where = ("--exec-id", "ask", container_ids(pod)["beside"])
    return plain(host.containerd.ctr("task", "exec", *where, *ask, namespace="k8s.io"))


def test_pods_have_both_families_and_leave_nothing(host: Host) -> None:
    with host.left_empty():
        host.kubelet.put("one", web())
        [one] = host.kubelet.until_ready("one")
        assert [":" in address for address in addresses(one)] == [True, False], "IPv6 first, as in the sample"
        with host.node.unchanged(networks.STORE):
            host.kubelet.put("two", web(hostPort=HOST_PORT))
            [two] = host.kubelet.until_ready("two")
            assert host.leases() == {*addresses(one), *addresses(two)}
            for own, other in zip(addresses(one), addresses(two)):
                assert seen_from(host, one, other) == own
                assert seen_from(host, two, own) == other
            for node_address, test_address in zip(OWN, (lan.HOST6, lan.HOST4)):
                assert asked(node_address, HOST_PORT) == test_address
                assert seen_from(host, one, node_address, HOST_PORT)
            host.kubelet.remove("two")
        host.kubelet.remove("one")


def test_pods_outlive_a_restart_of_containerd_and_of_kubelet(host: Host) -> None:
    with host.left_empty():
        host.kubelet.put("one", web())
        host.kubelet.put("two", web(hostPort=HOST_PORT))
        before = host.kubelet.until_ready("one", "two")
        with host.ended():
            assert asked(OWN[0], HOST_PORT) == lan.HOST6
        one, two = host.kubelet.until_ready("one", "two")
        assert [(addresses(pod), container_ids(pod)) for pod in (one, two)] == [
            (addresses(pod), container_ids(pod)) for pod in before]
        host.kubelet.put("three", web())
        [three] = host.kubelet.until_ready("three")
        assert not set(addresses(three)) & {*addresses(one), *addresses(two)}
        for own, other in zip(addresses(three), addresses(two)):
            assert seen_from(host, three, other) == own
        host.kubelet.remove("one", "two", "three")


def test_a_pod_is_ended_whose_manifest_goes_while_nobody_looks(host: Host) -> None:
    with host.left_empty():
        host.kubelet.put("one", web(hostPort=HOST_PORT))
        host.kubelet.until_ready("one")
        with host.ended():
            host.node.path(f"{MANIFESTS}/one.json").unlink()
            assert asked(OWN[0], HOST_PORT) == lan.HOST6
        host.kubelet.until_gone("one")


def test_a_pod_whose_sandbox_dies_gets_another_one(host: Host) -> None:
    """And what the first one had is free, though its processes ended before anybody called DEL."""
    with host.left_empty():
        host.kubelet.put("one", web(hostPort=HOST_PORT))
        [before] = host.kubelet.until_ready("one")
        tasks = host.containerd.ctr("task", "list", "--quiet", namespace="k8s.io").split()
        ids = set(container_ids(before).values())
        [sandbox] = set(tasks) - ids
        host.containerd.ctr("task", "kill", "--signal", "KILL", sandbox, namespace="k8s.io")
        host.kubelet.until(lambda pods: not ids & set(container_ids(pods["one"]).values()), "other containers")
        [one] = host.kubelet.until_ready("one")
        assert not set(addresses(one)) & set(addresses(before)) and host.leases() == set(addresses(one))
        assert asked(OWN[0], HOST_PORT) == lan.HOST6
        host.kubelet.remove("one")
