"""Kubernetes' own network tests with cni-v6, beside the reference plugins. ``make conformance`` runs it; see
docs/benchmarks/kubernetes/README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tests import image
from tests.conformance import dns, network, pods, suite
from tests.conformance.report import OURS, REFERENCE, page
from tests.conformance.results import FAILED, PASSED, SKIPPED, Run, again, read_run
from tests.runtimes.kube_cluster import SAMPLE, Cluster, Kind, cluster
from tests.runtimes.kube_deploy import engine_archive
from tests.sandbox import ROOT, need_sandbox

DOCS = ROOT / "docs/benchmarks/kubernetes"
LATEST, PAGE = DOCS / "latest.json", DOCS / "README.md"
IPV6, IPV4 = (dict([pool]) for pool in SAMPLE.pools.items())
CLUSTERS: Mapping[str, Kind] = {
    "dual-stack": SAMPLE, "IPv6 only": replace(SAMPLE, pools=IPV6), "IPv4 first": replace(SAMPLE, pools=IPV4 | IPV6),
}
DISK = {"localStorageCapacityIsolation": True}  # of kubelet: it evicts a pod that writes too much, as a test wants it
NETWORKS = (OURS, REFERENCE)
PARTS = ("tests", "pods")


def main() -> int:
    chosen = _arguments()
    need_sandbox()
    kept = json.loads(LATEST.read_text()) if LATEST.exists() else {}
    runs = {of: {name: read_run(run) for name, run in found.items()} for of, found in kept.get("runs", {}).items()}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="conformance-") as name:
        folder = Path(name)
        folder.joinpath("image").mkdir()
        built = image.build(folder / "image")
        archives = (*suite.images(folder), engine_archive(folder, built))
        for of, plugin in ((of, plugin) for of in chosen.cluster for plugin in chosen.network):
            print(f"{of}, {plugin}", file=sys.stderr, flush=True)
            place = folder / f"{of}-{plugin}".replace(" ", "-")
            place.mkdir()
            kind = replace(CLUSTERS[of], archives=archives, snapshotter="overlayfs",
                           kubelet={**dns.settings(CLUSTERS[of].families), **DISK})
            with cluster(place, None, kind, na=10, nb=11) as made:
                if plugin == OURS:
                    network.ours(made, built)
                else:
                    network.reference(made)
                found = _measure(made, f"{of} {plugin}", chosen)
            failed += len(found.of(FAILED))
            _say(found)
            before = runs.get(of, {}).get(plugin)
            if before or not chosen.only:
                kept = again(before, found) if before and chosen.only else _joined(before, found)
                runs.setdefault(of, {})[plugin] = kept
                _write(runs)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__)
    parser.add_argument("--cluster", action="append", choices=CLUSTERS, help="this one alone; repeatable")
    parser.add_argument("--network", action="append", choices=NETWORKS, help="this one alone; repeatable")
    parser.add_argument("--part", action="append", choices=PARTS, help="this one alone; repeatable")
    parser.add_argument("--only", default="", metavar="PATTERN",
                        help="tests with such names, to replace what is recorded of them")
    chosen = parser.parse_args()
    chosen.cluster = chosen.cluster or [*CLUSTERS]
    chosen.network = chosen.network or [*NETWORKS]
    chosen.part = chosen.part or [*PARTS]
    return chosen


def _measure(made: Cluster, name: str, chosen: argparse.Namespace) -> Run:
    made.until_nodes(**{node: True for node in made.members})
    network.route_from_control_plane(made)
    times = pods.at_once(made) if "pods" in chosen.part and not chosen.only else []
    if "tests" not in chosen.part:
        return Run([], times=times)
    dns.start(made)
    found = suite.run(name, made.api.kubeconfig, len(made.members), len(made.kind.families), chosen.only)
    return replace(found, times=times)


def _joined(before: Run | None, now: Run) -> Run:
    """A part that was not run now is as it was."""
    if before and not now.outcomes:
        return replace(before, times=now.times)
    if before and not now.times:
        return replace(now, times=before.times)
    return now


def _say(run: Run) -> None:
    for outcome in (*run.of(SKIPPED), *run.of(FAILED)):
        print(f"  {outcome.state}: {outcome.name}: {outcome.reason}")
    for times in run.times:
        print(f"  {times.pods} pods: half of them ready after {times.half:.1f} s, the last after {times.last:.1f} s")
    counts = ", ".join(f"{len(run.of(state))} {state}" for state in (PASSED, FAILED, SKIPPED))
    print(f"  {counts}, {len(run.left_out)} left out", flush=True)


def _write(runs: Mapping[str, Mapping[str, Run]]) -> None:
    [version] = re.findall(r"k8s.io/kubernetes (v\S+)", (ROOT / "tools/modules/go.mod").read_text())
    coredns = (suite.COREDNS / ".version").read_text().strip()
    ordered = {of: {plugin: runs[of][plugin] for plugin in NETWORKS if plugin in runs[of]}
               for of in CLUSTERS if of in runs}
    DOCS.mkdir(exist_ok=True)
    documents = {of: {plugin: run.document() for plugin, run in found.items()} for of, found in ordered.items()}
    LATEST.write_text(json.dumps({"kubernetes": version, "coredns": coredns, "runs": documents}, indent=1) + "\n")
    PAGE.write_text(page(ordered, version, coredns, _machine()))


def _machine() -> str:
    release = ".".join(platform.release().split(".")[:2])
    return f"Machine: processors {os.cpu_count()}; architecture {platform.machine()}; kernel {release}."


if __name__ == "__main__":
    sys.exit(main())
