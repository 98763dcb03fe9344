"""How long many pods take that are made at once on one node."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median

from tests.conformance.results import Times
from tests.kube_api import Item, ask, until
from tests.runtimes.kube_cluster import PODS, Cluster
from tests.runtimes.kubelet import is_ready
from tests.runtimes.pods import idle

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
NAME, LABELS = "many", {"app": "many"}
MANY, ROUNDS = 30, 9


def at_once(made: Cluster) -> list[Times]:
    """Rounds of so many pods; the first round, in which a node makes its bridge, is not counted."""
    return [_round(made, "na") for _ in range(1 + ROUNDS)][1:]


def _round(made: Cluster, node: str) -> Times:
    ready: dict[str, float] = {}

    def all_ready(pods: Mapping[str, Item]) -> bool:
        now = time.monotonic()
        for name, pod in pods.items():
            if is_ready(pod):
                ready.setdefault(name, now)
        return len(ready) == MANY

    spec = {**idle(), "nodeName": node, "automountServiceAccountToken": False, "enableServiceLinks": False}
    start = time.monotonic()
    made.make(DEPLOYMENTS, {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME}, "spec": {
            "replicas": MANY, "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": spec}}})
    of_it = f"{PODS}?labelSelector=app%3D{NAME}"
    until(made.api, of_it, all_ready, f"{MANY} pods are ready")
    times = [when - start for when in ready.values()]
    status, answer = ask(made.api, "DELETE", f"{DEPLOYMENTS}/{NAME}", {"propagationPolicy": "Background"})
    assert status == 200, answer
    until(made.api, of_it, lambda pods: not pods, "they are gone")
    made.members[node].kubelet.until_gone(*ready)
    return Times(MANY, round(median(times), 2), round(max(times), 2))
