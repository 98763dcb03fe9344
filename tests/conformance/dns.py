"""CoreDNS for a cluster, as a pod behind a service: kubelet gives pods the service's address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.conformance.suite import DNS_IMAGE
from tests.kube_api import until
from tests.runtimes.kube_cluster import RBAC, Cluster
from tests.runtimes.kubelet import is_ready

SPACE, NAME, DOMAIN = "kube-system", "coredns", "cluster.local"
SERVICES = {6: "fd42:8e1f:6aff::a", 4: "10.96.0.10"}
LABELS = {"k8s-app": "kube-dns"}  # the tests look for it
PORT, HEALTH_PORT = 53, 8181
COREFILE = f"""
.:{PORT} {{
    errors
    ready :{HEALTH_PORT}
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
    }}
    cache 5
}}
"""


def settings(families: Sequence[int]) -> dict[str, Any]:
    """Of kubelet."""
    return {"clusterDNS": [SERVICES[family] for family in families], "clusterDomain": DOMAIN}


def start(made: Cluster) -> None:
    """Until it answers."""
    meta = {"name": NAME, "namespace": SPACE}
    core, apps = f"/api/v1/namespaces/{SPACE}", f"/apis/apps/v1/namespaces/{SPACE}"
    account = {"kind": "ServiceAccount", **meta}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME}
    rules = [{"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
             {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}]
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": NAME}}
    objects: Mapping[str, Mapping[str, Any]] = {
        f"{core}/serviceaccounts": {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        f"{RBAC}/clusterroles": {**rbac, "kind": "ClusterRole", "rules": rules},
        f"{RBAC}/clusterrolebindings": {**rbac, "kind": "ClusterRoleBinding", "roleRef": role, "subjects": [account]},
        f"{core}/configmaps": {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"Corefile": COREFILE}},
        f"{core}/services": {
            "apiVersion": "v1", "kind": "Service", "metadata": {**meta, "name": "kube-dns", "labels": LABELS},
            "spec": _service(made.kind.families)},
        f"{apps}/deployments": {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
            "spec": {"selector": {"matchLabels": LABELS},
                     "template": {"metadata": {"labels": LABELS}, "spec": _pod()}}},
    }
    for path, item in objects.items():
        made.make(path, item)
    label, value = next(iter(LABELS.items()))
    until(made.api, f"{core}/pods?labelSelector={label}%3D{value}",
          lambda pods: pods and all(map(is_ready, pods.values())), "CoreDNS is ready")


def _service(families: Sequence[int]) -> dict[str, Any]:
    addresses = [SERVICES[family] for family in families]
    ports = [{"name": protocol.lower(), "protocol": protocol, "port": PORT} for protocol in ("UDP", "TCP")]
    return {
        "selector": LABELS, "ports": ports, "clusterIP": addresses[0], "clusterIPs": addresses,
        "ipFamilies": [f"IPv{family}" for family in families],
        "ipFamilyPolicy": "RequireDualStack" if len(families) > 1 else "SingleStack",
    }


def _pod() -> dict[str, Any]:
    return {
        "serviceAccountName": NAME, "dnsPolicy": "Default",
        "volumes": [{"name": "configuration", "configMap": {"name": NAME}}],
        "containers": [{
            "name": NAME, "image": DNS_IMAGE, "imagePullPolicy": "Never",
            "command": ["/coredns", "-conf", "/etc/coredns/Corefile"],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": HEALTH_PORT}, "periodSeconds": 1},
            "volumeMounts": [{"name": "configuration", "mountPath": "/etc/coredns", "readOnly": True}],
        }],
    }
