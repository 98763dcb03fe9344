"""A Kubernetes cluster of nodes of namespaces on one link; its control plane runs on the test's own host beside them.

API server and etcd, controller manager and scheduler are the real ones; on each node kubelet, kube-proxy and Debian's
containerd.
"""

from __future__ import annotations

import json
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kube_api import Item, ask, kubeconfig, until
from tests.kube_apiserver import ApiServer, kube_apiserver
from tests.sandbox import REFERENCE_PLUGINS, ROOT, need

from . import lan, networks
from .containerd import COPIES, Containerd, containerd
from .kubelet import PROGRAM, Kubelet, Pod, addresses, container_ids, is_ready, kubelet
from .node import ENVIRONMENT, SETTLE, Node, node
from .pods import PORT, asked, plain, url, web

PROGRAMS = PROGRAM.parent
CONTROLLER, SCHEDULER, PROXY = (PROGRAMS / f"kube-{name}" for name in ("controller-manager", "scheduler", "proxy"))
NODES, PODS, SERVICES = "/api/v1/nodes", "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/services"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
AGENT_SPACE = "cni-v6"
NODE_PORT = 30080
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{AGENT_SPACE}/leases"
SERVICE_RANGES = {6: "fd42:8e1f:6aff::/112", 4: "10.96.0.0/16"}
API_SERVICE = {6: "fd42:8e1f:6aff::1", 4: "10.96.0.1"}
OPTIONS = (  # of the API server
    "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
    "--kubelet-preferred-address-types=InternalIP",
)
HOSTS = {6: lan.HOST6, 4: lan.HOST4}
FILES = ROOT / "conf/cluster/kubernetes"

Pools = Mapping[str, int]  # prefix -> length of the nodes' blocks


@dataclass(frozen=True)
class Kind:
    """What a cluster is made of, where it is not the sample's.

    :param pools: one a family, those of the cluster in their order.
    :param plugin: in place of that of the sample's template.
    :param archives: of images that each node has.
    :param kubelet: settings of kubelet.
    :param files: the agent's, as the ConfigMap has them.
    """

    pools: Pools
    plugin: Mapping[str, Any] | None = None
    carrier: str = "direct"
    archives: Sequence[Path] = ()
    snapshotter: str = COPIES
    kubelet: Mapping[str, Any] = field(default_factory=dict)
    files: Path = FILES

    @property
    def families(self) -> list[int]:
        return [6 if ":" in pool else 4 for pool in self.pools]


def pools_of(agent: Mapping[str, Any]) -> Pools:
    return {pool["cidr"]: pool["block"] for pool in agent["pools"]}


SAMPLE = Kind(pools_of(json.loads(FILES.joinpath("agent.json").read_text())))
GUIDE = Kind(pools_of(json.loads(FILES.with_name("kubernetes-ipv6").joinpath("agent.json").read_text())),
             files=FILES.with_name("kubernetes-ipv6"))


@dataclass
class Member:
    """A node with its kubelet, kube-proxy and runtime."""

    name: str
    addresses: Sequence[str]
    node: Node
    containerd: Containerd
    kubelet: Kubelet

    def routes(self) -> list[Item]:
        """The agent's, but for those that keep the node's own blocks on it."""
        found = [route for family in ("-6", "-4")
                 for route in json.loads(self.node.run("ip", "-j", family, "route", "show", "proto", "166"))]
        return [route for route in found if route.get("type") != "unreachable"]

    def execute(self, pod: Pod, *command: str, container: str = "beside") -> str:
        """What a command prints in a pod of this node, where it must succeed."""
        where = ("--exec-id", "test", container_ids(pod)[container])
        return self.containerd.ctr("task", "exec", *where, *command, namespace="k8s.io")

    def seen_by(self, pod: Pod, address: str, port: int = PORT) -> str:
        """The address that a server sees when a pod of this node asks it."""
        return plain(self.execute(pod, "wget", "-q", "-O", "-", url(address, port)))


@dataclass
class Cluster:
    api: ApiServer
    kind: Kind
    members: dict[str, Member] = field(default_factory=dict)

    def make(self, path: str, document: Mapping[str, Any]) -> Item:
        status, made = ask(self.api, "POST", path, dict(document))
        assert status == 201, made
        return made

    def delete(self, path: str) -> None:
        status, answer = ask(self.api, "DELETE", path, {})
        assert status == 200, answer

    def run(self, name: str, spec: Mapping[str, Any], member: Member) -> None:
        """A pod that the scheduler puts on a node."""
        self.make(PODS, {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeSelector": {"kubernetes.io/hostname": member.name}, **spec},
        })

    def until_ready(self, *names: str) -> list[Item]:
        """The pods, when they are ready."""
        found = until(self.api, PODS, lambda pods: all(is_ready(pods.get(name)) for name in names), f"{names} ready")
        return [found[name] for name in names]

    @contextmanager
    def pods(self, **places: str) -> Iterator[list[Item]]:
        """Pods with a server, ready, on the nodes that are named; they are gone afterwards."""
        for name, place in places.items():
            self.run(name, web(), self.members[place])
        yield self.until_ready(*places)
        for name in places:
            self.delete(f"{PODS}/{name}")
        for place in set(places.values()):
            self.members[place].kubelet.until_gone(*places)

    def until_nodes(self, **ready: bool) -> Mapping[str, Item]:
        """Wait until nodes are ready, or not."""
        return until(self.api, NODES, lambda nodes: all(
            name in nodes and is_ready(nodes[name]) == wanted for name, wanted in ready.items()), f"nodes: {ready}")


@contextmanager
def cluster(folder: Path, plugins: str | None, kind: Kind = SAMPLE, **nodes: int) -> Iterator[Cluster]:
    """One whose nodes have registered. No agent runs yet.

    :param plugins: the folder of our plugins. None: a DaemonSet brings them.
    :param nodes: name -> number, which makes its addresses.
    """
    for program in (CONTROLLER, SCHEDULER, PROXY):
        need(str(program) if program.exists() else None, f"needs {program.name}: tools/kubernetes builds it")
    users = ["to-control,system:kube-controller-manager,control", "to-schedule,system:kube-scheduler,schedule",
             "to-proxy,system:kube-proxy,proxy"]
    users += [f"to-{name},system:node:{name},{name},system:nodes" for name in nodes]
    services = f"--service-cluster-ip-range={','.join(SERVICE_RANGES[family] for family in kind.families)}"
    with ExitStack() as things:
        things.enter_context(lan.lan())
        api = things.enter_context(kube_apiserver(
            HOSTS[kind.families[0]], options=(*OPTIONS, services), users=users, others=API_SERVICE.values()))
        _control(things, api, folder, [services, *_given(kind.pools)])
        made = Cluster(api, kind)
        accounts = "/api/v1/namespaces/default/serviceaccounts"
        until(api, accounts, lambda found: "default" in found, "there is a service account for pods")
        for name, number in nodes.items():
            place = folder / name
            place.mkdir()
            machine = things.enter_context(node(name))
            things.enter_context(lan.attached(machine, number))
            if plugins:
                networks.install(machine, plugins)
            else:
                networks.install(machine, path=(REFERENCE_PLUGINS,))
            own = [lan.address(number, family) for family in kind.families]
            made.members[name] = _member(things, made, machine, place, name, own)
        until(api, NODES, lambda found: set(nodes) <= set(found), "the nodes register")
        yield made


def _given(pools: Pools) -> list[str]:
    """The controller manager gives each node a block of each pool."""
    lengths = [f"--node-cidr-mask-size-ipv{6 if ':' in pool else 4}={block}" for pool, block in pools.items()]
    if len(pools) == 1:
        lengths = [f"--node-cidr-mask-size={block}" for block in pools.values()]
    return ["--allocate-node-cidrs=true", f"--cluster-cidr={','.join(pools)}", *lengths]


def _control(things: ExitStack, api: ApiServer, folder: Path, ranges: Sequence[str]) -> None:
    """The controller manager and the scheduler."""
    for program, token, options in (
        (CONTROLLER, "to-control", [
            *ranges, "--use-service-account-credentials=true",
            f"--service-account-private-key-file={api.accounts}", f"--root-ca-file={api.authority}",
            f"--flex-volume-plugin-dir={folder}/plugins",
        ]),
        (SCHEDULER, "to-schedule", []),
    ):
        name = program.name
        config = kubeconfig(folder / f"{name}.conf", api.url, "default", api.cafile, token)
        argv = [str(program), f"--kubeconfig={config}", "--leader-elect=false", f"--cert-dir={folder}/{name}", *options]
        with open(folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(argv, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        things.callback(process.wait)
        things.callback(process.kill)


def _member(
    things: ExitStack, made: Cluster, machine: Node, folder: Path, name: str, own: Sequence[str]
) -> Member:
    api = made.api
    runtime = things.enter_context(containerd(machine, folder, made.kind.snapshotter, made.kind.archives))
    config = kubeconfig(folder / "kubelet.conf", api.url, "default", api.cafile, f"to-{name}")
    agent = things.enter_context(kubelet(machine, folder, name, own, config, made.kind.kubelet))
    proxy_config = kubeconfig(folder / "proxy.conf", api.url, "default", api.cafile, "to-proxy")
    options = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables",
        "clientConnection": {"kubeconfig": proxy_config},
        "clusterCIDR": ",".join(made.kind.pools), "detectLocalMode": "ClusterCIDR", "hostnameOverride": name,
        "bindAddress": "::", "healthzBindAddress": "[::1]:10256", "metricsBindAddress": "[::1]:10249",
        "conntrack": {"maxPerCore": 0, "min": 0},  # net.netfilter.nf_conntrack_max is of the whole machine
    }
    folder.joinpath("proxy.json").write_text(json.dumps(options))
    proxy = machine.start(PROXY, f"--config={folder}/proxy.json", log=folder / "proxy.log")
    things.callback(machine.stop, proxy)
    return Member(name, own, machine, runtime, agent)


def until_answered(ask_it: Callable[[], str]) -> str:
    """What it says in the end: kube-proxy tells nobody that it has loaded its rules."""
    deadline = time.monotonic() + SETTLE
    while True:
        try:
            return ask_it()
        except (AssertionError, OSError):
            if time.monotonic() > deadline:
                raise
            select.select([], [], [], 0.2)


def check_service(made: Cluster, na: Member, nb: Member) -> None:
    """A service's pods see who asks, on the same node too; each node's port answers hosts outside."""
    with made.pods(server=na.name, near=na.name, far=nb.name) as (server, near, far):
        service = made.make(SERVICES, {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {
                "type": "NodePort", "ipFamilyPolicy": "PreferDualStack", "selector": {"app": "server"},
                "ports": [{"port": 80, "targetPort": PORT, "nodePort": NODE_PORT}],
            },
        })
        assert len(service["spec"]["clusterIPs"]) == len(made.kind.pools)
        for number, address in enumerate(service["spec"]["clusterIPs"]):
            for member, pod in ((na, near), (nb, far)):
                own = addresses(pod)[number]
                assert until_answered(lambda: member.seen_by(pod, address, 80)) == own
            assert na.seen_by(server, address, 80), "a pod reaches itself"
        for member in (na, nb):
            for address in member.addresses:
                assert until_answered(lambda: asked(address, NODE_PORT))
        made.delete(f"{SERVICES}/web")
