"""The page about the last runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from tests.conformance.results import FAILED, PASSED, SKIPPED, Run, Times

OURS, REFERENCE = "cni-v6", "reference"
COMMON = "[sig-network] "
NONE = "-"

PAGE = """# Kubernetes' own network tests

`make conformance` runs the tests of Kubernetes (`e2e.test`) that are about the network, on clusters of two nodes. Their
network is cni-v6 with its agent, or the *reference*: the plugins `bridge`, `host-local` and `portmap` with static
routes. Kubernetes {version}: API server, controller manager, scheduler, kubelet, kube-proxy (nftables) and the
tests are built from its published modules. CoreDNS {dns} runs as a pod. The nodes are network namespaces of one machine
with Debian's containerd ([how](../../testing.md#kubernetes-own-tests-make-conformance)).

Selected are all `[sig-network]` tests but those that need more than a cluster (a load balancer, a controller for
Ingress or network policies, the Internet), that change the whole cluster (`[Serial]`, `[Disruptive]`), that are
`[Slow]`, or that are about features which are off.

{machine}

{summary}

A test *skips* itself where the cluster lacks what it is about. *Left out* are tests that this machine cannot run. What
ran once more, alone, says so below.

{details}{times}## Every test

What each test says with cni-v6 on each cluster.

{tests}
"""


TIMES = """## Pods until they are ready

So many pods are made at once on one node. Seconds from the request to each pod's condition `Ready`, as a client of the
API sees it: the median of the rounds, and the best round, as whoever else is on the machine can only make one longer.

{table}

"""


def page(runs: Mapping[str, Mapping[str, Run]], version: str, dns: str, machine: str) -> str:
    """
    :param runs: by the cluster's name and the network's.
    """
    return PAGE.format(
        version=version, dns=dns, machine=machine, summary=_summary(runs), details="".join(_details(runs)),
        times=_times(runs), tests=_tests({name: of[OURS] for name, of in runs.items() if OURS in of}))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def quoted(name: str) -> str:
    """A test's name as code, which nothing in it can end."""
    return "`" + name.removeprefix(COMMON).replace("`", "'").replace("|", "/") + "`"


def _all(runs: Mapping[str, Mapping[str, Run]]) -> Iterator[tuple[str, str, Run]]:
    for cluster, networks in runs.items():
        for network, run in networks.items():
            yield cluster, network, run


def _summary(runs: Mapping[str, Mapping[str, Run]]) -> str:
    return table(
        ["cluster", "network", "passed", "failed", "skipped", "left out", "minutes"],
        [[cluster, network, *(len(run.of(state)) for state in (PASSED, FAILED, SKIPPED)), len(run.left_out),
          f"{run.minutes:.0f}"] for cluster, network, run in _all(runs) if run.outcomes])


def _details(runs: Mapping[str, Mapping[str, Run]]) -> Iterator[str]:
    for title, state in (("Failed", FAILED), ("Skipped", SKIPPED)):
        rows = [[cluster, network, quoted(outcome.name), quoted(outcome.reason)]
                for cluster, network, run in _all(runs) for outcome in run.of(state)]
        if rows:
            yield f"## {title}\n\n{table(['cluster', 'network', 'test', 'what it says'], rows)}\n\n"
    left_out = sorted({name for _, _, run in _all(runs) for name in run.left_out})
    if left_out:
        names = "\n".join(f"- {quoted(name)}" for name in left_out)
        yield f"## Left out\n\nThe kernel of this machine has no SCTP (`CONFIG_IP_SCTP`).\n\n{names}\n\n"


def _times(runs: Mapping[str, Mapping[str, Run]]) -> str:
    def row(cluster: str, network: str, times: Sequence[Times]) -> Sequence[object]:
        lasts = [of.last for of in times]
        seconds = median(of.half for of in times), median(lasts), min(lasts)
        return [cluster, network, times[0].pods, len(times), *(f"{value:.1f} s" for value in seconds)]

    rows = [row(cluster, network, run.times) for cluster, network, run in _all(runs) if run.times]
    head = ["cluster", "network", "pods", "rounds", "half of them", "the last", "the last, best round"]
    return TIMES.format(table=table(head, rows)) if rows else ""


def _tests(runs: Mapping[str, Run]) -> str:
    states = {name: {outcome.name: outcome.state + ", alone" * outcome.alone for outcome in run.outcomes}
              for name, run in runs.items()}
    names = sorted({name for found in states.values() for name in found})
    return table(["test", *runs], [
        [quoted(name), *(found.get(name, NONE) for found in states.values())] for name in names])
