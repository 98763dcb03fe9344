"""A real kubelet on a throwaway node: what tools/kubernetes builds, beside Debian's containerd."""

from __future__ import annotations

import json
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.sandbox import ROOT, need

from . import lan
from .containerd import FOLDER
from .node import Node

PROGRAM = ROOT / ".tools/kubernetes/bin/kubelet"
READ_ONLY_PORT = 10255
MANIFESTS = "/run/kubelet/manifests"
PATIENCE = 120.0  # seconds for what kubelet does with a pod: on a busy machine it takes its time

# Of the whole machine, not of a namespace: kubelet would set them (setupKernelTunables in
# pkg/kubelet/cm/container_manager_linux.go). It finds files of the node's own there, with the values that it wants.
SYSCTLS = {
    "vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

Pod = Mapping[str, Any]


@dataclass
class Kubelet:
    """
    :param folder: for its configuration and log.
    :param own: the node's addresses, the first one first.
    :param kubeconfig: "": it runs the pods of ``MANIFESTS`` alone.
    """

    node: Node
    folder: Path
    name: str
    own: Sequence[str]
    kubeconfig: str = ""
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "kubelet.log"

    def start(self) -> None:
        """Until it answers. Pods that an earlier one has started go on."""
        argv = [f"--config={self.folder}/kubelet.json", f"--hostname-override={self.name}",
                f"--node-ip={','.join(self.own)}",
                *([f"--kubeconfig={self.kubeconfig}"] if self.kubeconfig else [])]
        self.daemon = self.node.start(PROGRAM, *argv, log=self.log)
        self.until(lambda pods: True, "answers")

    def stop(self) -> None:
        if self.daemon:
            self.node.stop(self.daemon)
            self.daemon = None

    def pods(self) -> dict[str, Pod]:
        """The pods that it has now, by their names in the manifests."""
        with urlopen(lan.url(self.own[0], READ_ONLY_PORT, "/pods"), timeout=10) as answer:
            items = json.load(answer)["items"] or []
        return {pod["metadata"]["name"].removesuffix(f"-{self.name}"): pod for pod in items}

    def until(self, condition: Callable[[Mapping[str, Pod]], object], what: str) -> Mapping[str, Pod]:
        """Wait until its pods are so. kubelet tells nobody of its own pods: it must be asked."""
        deadline, pods = time.monotonic() + PATIENCE, {}
        while time.monotonic() < deadline and self.daemon and self.daemon.poll() is None:
            try:
                pods = self.pods()
                if condition(pods):
                    return pods
            except (URLError, OSError):  # not yet
                pass
            select.select([], [], [], 0.2)
        shown = json.dumps({name: pod.get("status") for name, pod in pods.items()}, indent=1)
        pytest.fail(f"not in {PATIENCE} s: {what}\n{shown}\n{self.log.read_text(errors='replace')[-8000:]}")

    def put(self, name: str, spec: Mapping[str, Any]) -> None:
        """Have it run a pod: write its manifest, whole at once."""
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}
        folder = self.node.path(MANIFESTS)
        hidden = folder / f".{name}"
        hidden.write_text(json.dumps(document))
        hidden.rename(folder / f"{name}.json")

    def remove(self, *names: str) -> None:
        """Take manifests away, and wait until what they made is gone."""
        for name in names:
            self.node.path(f"{MANIFESTS}/{name}.json").unlink()
        self.until_gone(*names)

    def until_ready(self, *names: str) -> list[Pod]:
        """Wait until these pods are ready, with their probes answered."""
        pods = self.until(lambda found: all(is_ready(found.get(name)) for name in names), f"{names} are ready")
        return [pods[name] for name in names]

    def until_gone(self, *names: str) -> None:
        """Wait until these pods are gone. The runtime takes the network namespace away after all else; kubelet then
        the pod's cgroups, which it does from time to time."""
        namespaces = self.node.path("/run/netns")

        def gone(pods: Mapping[str, Pod]) -> bool:
            own = [pod for pod in pods.values() if not pod["spec"].get("hostNetwork")]
            cgroups = {path.name for path in self.node.cgroups() if path.name.startswith("pod")}
            return not set(names) & set(pods) and len(list(namespaces.iterdir())) == len(own) and len(
                cgroups) == len(pods)

        self.until(gone, f"{names} are gone")


def is_ready(pod: Pod | None) -> bool:
    conditions = pod["status"].get("conditions", ()) if pod else ()
    return any((entry["type"], entry["status"]) == ("Ready", "True") for entry in conditions)


def addresses(pod: Pod) -> list[str]:
    return [entry["ip"] for entry in pod["status"]["podIPs"]]


def container_ids(pod: Pod) -> dict[str, str]:
    """The id of each running container, by its name."""
    return {entry["name"]: entry["containerID"].partition("://")[2] for entry in pod["status"]["containerStatuses"]}


@contextmanager
def kubelet(
    node: Node, folder: Path, name: str, own: Sequence[str], kubeconfig: str = "",
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Kubelet]:
    """One that runs on a node on the link, where containerd is running; arguments as of ``Kubelet``.

    :param settings: of its configuration, besides those that the node needs.
    """
    need(str(PROGRAM) if PROGRAM.exists() else None, "needs kubelet: tools/kubernetes builds it")
    _prepare(node, folder)
    folder.joinpath("kubelet.json").write_text(json.dumps({**_configuration(node), **(settings or {})}))
    made = Kubelet(node, folder, name, own, kubeconfig)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def _prepare(node: Node, folder: Path) -> None:
    """What kubelet must find, and must not reach."""
    node.run("mkdir", "-p", MANIFESTS, "/run/kubelet/sysctl", "/var/lib/kubelet")
    for key, value in SYSCTLS.items():
        file = f"/run/kubelet/sysctl/{key.replace('/', '.')}"
        node.path(file).write_text(f"{value}\n")
        node.run("mount", "--bind", file, f"/proc/sys/{key}")
    node.run("mount", "-t", "tmpfs", "logs", "/var/log")
    # On a disk: kubelet looks for the device that its folder is on.
    folder.joinpath("kubelet").mkdir()
    node.run("mount", "--bind", folder / "kubelet", "/var/lib/kubelet")
    node.run("mount", "--make-rshared", "/var/lib/kubelet")
    for top in node.cgroup_roots():
        own = top / node.cgroup
        own.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):  # empty in a new cgroup of version 1, and then no process may enter
            if (own / name).exists() and not (top / "cgroup.controllers").exists():
                (own / name).write_text((top / name).read_text())


def _configuration(node: Node) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{FOLDER}/containerd.sock",
        "staticPodPath": MANIFESTS, "volumePluginDir": "/run/kubelet/plugins", "resolvConf": "",
        "address": "::", "readOnlyPort": READ_ONLY_PORT, "healthzBindAddress": "::1",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{node.cgroup}", "failCgroupV1": False, "failSwapOn": False,
        # Nothing is evicted or collected because the test's machine is full.
        "evictionHard": {}, "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
        "enforceNodeAllocatable": [], "localStorageCapacityIsolation": False,
        "fileCheckFrequency": "1s", "syncFrequency": "10s", "nodeStatusUpdateFrequency": "2s",
    }
