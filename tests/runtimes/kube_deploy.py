"""What the manifests of deploy/kubernetes bring onto a cluster."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.image import Image
from tests.kube_api import Item
from tests.kubernetes import document
from tests.sandbox import ROOT

from .containerd import IMAGE
from .images import archive_of
from .kube_cluster import AGENT_SPACE, RBAC, Cluster


ENGINE_IMAGE = "localhost/cni-v6:1"
OF_THE_IMAGE = {"usr": "/usr", "local": "/usr/local"}  # what the machine's folders stand for: their names as volumes


def engine_archive(folder: Path, built: Image) -> Path:
    """The image of deploy/Dockerfile, for the nodes; without what ``OF_THE_IMAGE`` stands for."""
    return archive_of(folder / "cni-v6.tar", ENGINE_IMAGE, built.root, built.env)


def start_engines(made: Cluster, built: Image) -> None:
    """What docs/nodes-without-python.md says: deploy/kubernetes/daemonset.yaml, which brings the plugins too."""
    item = document("daemonset.yaml")
    spec = item["spec"]["template"]["spec"]
    for container in (*spec["initContainers"], *spec["containers"]):
        container |= {"image": ENGINE_IMAGE, "imagePullPolicy": "Never"}
        container["volumeMounts"] += [
            {"name": name, "mountPath": path, "readOnly": True} for name, path in OF_THE_IMAGE.items()]
    sources = {"usr": "/usr", "local": str(built.local)}
    spec["volumes"] += [{"name": name, "hostPath": {"path": path}} for name, path in sources.items()]
    made.make("/apis/apps/v1/namespaces/kube-system/daemonsets", item)


def start_agents(made: Cluster) -> None:
    """What docs/cluster.md says: the objects of deploy/kubernetes/agent, and the ConfigMap with the two files."""
    paths = {
        "Namespace": "/api/v1/namespaces", "ServiceAccount": f"/api/v1/namespaces/{AGENT_SPACE}/serviceaccounts",
        "Role": f"{RBAC}/namespaces/{AGENT_SPACE}/roles", "ClusterRole": f"{RBAC}/clusterroles",
        "RoleBinding": f"{RBAC}/namespaces/{AGENT_SPACE}/rolebindings",
        "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
        "DaemonSet": f"/apis/apps/v1/namespaces/{AGENT_SPACE}/daemonsets",
    }
    for name in document("agent/kustomization.yaml")["resources"]:
        item = document(f"agent/{name}")
        if item["kind"] == "DaemonSet":
            names = "agent.json", "template.conflist"
            texts = {name: made.kind.files.joinpath(name).read_text(encoding="utf-8") for name in names}
            own = [{"cidr": pool, "block": block, "podCIDRs": True} for pool, block in made.kind.pools.items()]
            keys = {"pools": own, "carrier": made.kind.carrier, "reportEvery": "1s"}  # instead of a minute
            texts["agent.json"] = json.dumps({**json.loads(texts["agent.json"]), **keys})
            if made.kind.plugin:
                template = {**json.loads(texts["template.conflist"]), "plugins": [made.kind.plugin]}
                texts["template.conflist"] = json.dumps(template)
            made.make(f"/api/v1/namespaces/{AGENT_SPACE}/configmaps", {
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cni-v6-agent"}, "data": texts})
            item = _with_programs(item)
        made.make(paths[item["kind"]], item)


def _with_programs(daemon_set: Item) -> Item:
    """The DaemonSet with an image that has no agent, and the machine's Python and this checkout in it, read-only."""
    spec = daemon_set["spec"]["template"]["spec"]
    [container] = spec["containers"]
    python = ROOT / ".venv/bin/python"
    wanted = {Path(path) for path in ("/usr", "/lib", "/lib64", sys.base_prefix, (ROOT / ".venv").resolve(), ROOT)}
    paths = sorted(path for path in wanted if path.exists() and not set(path.parents) & wanted)
    volumes = {f"program-{number}": str(path) for number, path in enumerate(paths)}
    container |= {
        "image": IMAGE, "imagePullPolicy": "Never",
        "command": [str(python), str(ROOT / "bin/cni-v6ctl"), *container["command"][1:]],
    }
    container["volumeMounts"] += [{"name": name, "mountPath": path, "readOnly": True} for name, path in volumes.items()]
    spec["volumes"] += [{"name": name, "hostPath": {"path": path}} for name, path in volumes.items()]
    return daemon_set
