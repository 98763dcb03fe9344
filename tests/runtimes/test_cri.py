"""containerd's CRI service, asked as kubelet asks it, puts pods on a network of ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from . import networks
from .containerd import COMMANDS, IMAGE, containerd
from .cri import Cri, connect
from .node import SETTLE, Node, node

pytestmark = [pytest.mark.runtimes, pytest.mark.xdist_group("cri")]

NETWORK = "pods"
READY = 0  # PodSandboxState SANDBOX_READY; protobuf leaves a zero out, so it reads as absent


@dataclass(frozen=True)
class Runtime:
    node: Node
    cri: Cri


@dataclass(frozen=True)
class Pod:
    """A sandbox with one container in it."""

    sandbox: str
    container: str
    addresses: tuple[str, ...]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    networks.need_commands(*COMMANDS)
    with node() as machine:
        networks.install(machine)
        machine.path("/etc/cni/net.d/10-pods.conflist").write_text(networks.conflist(NETWORK, "1.0.0"))
        with containerd(machine, tmp_path_factory.mktemp("cri")) as started, connect(started.socket) as cri:
            started.await_image(cri)
            yield Runtime(machine, cri)


def run(runtime: Runtime, name: str) -> Pod:
    """RunPodSandbox, and a container in it, in kubelet's order."""
    config: dict[str, Any] = {
        "metadata": {"name": name, "uid": f"uid-{name}", "namespace": "default", "attempt": 0},
        "linux": {"cgroup_parent": f"/{runtime.node.cgroup}"},
    }
    sandbox = runtime.cri.runtime("RunPodSandbox")(config=config).pod_sandbox_id
    network = status(runtime, sandbox).network
    container = {"metadata": {"name": "main"}, "image": {"image": IMAGE}}
    create = runtime.cri.runtime("CreateContainer")
    made = create(pod_sandbox_id=sandbox, config=container, sandbox_config=config).container_id
    runtime.cri.runtime("StartContainer")(container_id=made)
    return Pod(sandbox, made, (network.ip, *(other.ip for other in network.additional_ips)))


def status(runtime: Runtime, sandbox: str) -> Any:
    return runtime.cri.runtime("PodSandboxStatus")(pod_sandbox_id=sandbox).status


def ping(runtime: Runtime, pod: Pod, address: str) -> None:
    command = ["ping", "-c", "1", "-W", "5", address]
    done = runtime.cri.runtime("ExecSync")(container_id=pod.container, cmd=command, timeout=int(SETTLE))
    assert done.exit_code == 0, done


def leases(runtime: Runtime) -> set[str]:
    return networks.leases(runtime.node.path(networks.STORE), NETWORK)


def test_the_runtime_is_ready_for_pods(runtime: Runtime) -> None:
    """What kubelet asks for; containerd 1.7 adds a condition of its own, about its configuration's age."""
    conditions = {entry.type: entry.status for entry in runtime.cri.runtime("Status")().status.conditions}
    assert (conditions["RuntimeReady"], conditions["NetworkReady"]) == (True, True)


def test_two_pods_ping_each_other_and_leave_nothing(runtime: Runtime) -> None:
    before = runtime.node.state()
    one, two = run(runtime, "one"), run(runtime, "two")
    assert {len(pod.addresses) for pod in (one, two)} == {2}
    assert leases(runtime) == {*one.addresses, *two.addresses}
    for address in two.addresses:
        ping(runtime, one, address)
    for address in one.addresses:
        ping(runtime, two, address)
    for pod in (one, two):
        runtime.cri.runtime("StopPodSandbox")(pod_sandbox_id=pod.sandbox)
        assert status(runtime, pod.sandbox).state != READY
        runtime.cri.runtime("StopPodSandbox")(pod_sandbox_id=pod.sandbox)
        runtime.cri.runtime("RemovePodSandbox")(pod_sandbox_id=pod.sandbox)
    assert leases(runtime) == set()
    assert runtime.node.left_behind(before) == []
