"""Many routed containers on one node: each is reached, and CHECK asks no more of the kernel for their number."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.netns import networks
from tests.netns.networks import ROUTED, SUBNET6
from tests.sandbox import NETNS_FOLDER, Node, make_call

CROWD, SWEEP = (str(Path(__file__).with_name(name)) for name in ("crowd.py", "sweep.py"))
PODS = 300
WIDE4 = "10.66.0.0/22"  # which holds them


@contextmanager
def namespaces(node: Node, count: int) -> Iterator[list[str]]:
    """Containers by the hundred: one process makes all of them."""
    names = [f"{node.name}-c{number}" for number in range(count)]
    node.run("ip", "-batch", "-", stdin="".join(f"netns add {name}\n" for name in names))
    try:
        yield [str(NETNS_FOLDER / name) for name in names]
    finally:
        node.run("ip", "-batch", "-", stdin="".join(f"netns delete {name}\n" for name in names))


def call(node: Node, config: Mapping[str, Any], command: str, made: Iterable[tuple[str, str, Any]]) -> Sequence[Any]:
    """One command for each of these: container, namespace, and the result before. The answers, all successes."""
    lines = []
    for name, netns, result in made:
        given = {**config, **({"prevResult": result} if result else {})}
        env = make_call(ROUTED, command, given, container_id=name, ifname="eth0" if name else "", netns=netns).env
        lines.append(json.dumps({"type": ROUTED, "env": dict(env), "config": given}))
    done = node.run(sys.executable, CROWD, stdin="".join(f"{line}\n" for line in lines))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(lines) and [answer for answer in answers if answer["code"]] == []
    return answers


def silent(node: Node, addresses: Sequence[str], netns: str = "") -> list[str]:
    """Those addresses that do not answer the node, or a container."""
    asked = json.dumps({"netns": netns, "addresses": addresses})
    done = node.run(sys.executable, SWEEP, stdin=f"{asked}\n")
    found: list[str] = json.loads(done.stdout)["silent"]
    return found


@pytest.mark.slow
def test_hundreds_of_routed_containers_are_reached_and_make_no_check_longer(quiet_node: Node) -> None:
    """The table of neighbours has room for 1,024 entries of all namespaces; these take none of it."""
    node = quiet_node
    token = networks.main.set(ROUTED)
    config = networks.network(SUBNET6, WIDE4)
    networks.main.reset(token)
    with namespaces(node, PODS) as paths:
        pods = [(f"c{number}", path, None) for number, path in enumerate(paths)]
        [before] = call(node, config, "ADD", pods[:1])
        [first] = call(node, config, "CHECK", [(*pods[0][:2], before["stdout"])])
        added = [before, *call(node, config, "ADD", pods[1:])]
        checked = call(node, config, "CHECK",
                       [(*pods[place][:2], added[place]["stdout"]) for place in (0, PODS - 1)])
        assert checked[0]["requests"] == checked[1]["requests"] == first["requests"]
        assert max(answer["messages"] for answer in checked) < PODS // 4  # multicast neighbours come and go
        own = [[ip["address"].partition("/")[0] for ip in answer["stdout"]["ips"]] for answer in added]
        others = [address for addresses in own[1:] for address in addresses]
        assert len({*others, *own[0]}) == 2 * PODS
        assert silent(node, [*own[0], *others]) == silent(node, others, paths[0]) == []
        entries = node.ip_json("neighbour", "show") + node.ip_json("-n", Path(paths[0]).name, "neighbour", "show")
        assert {entry["dst"] for entry in entries if entry["state"] != ["PERMANENT"]} & {*own[0], *others} == set()
        keep = [{"containerID": name, "ifname": "eth0"} for name, *_ in pods[:-1]]
        call(node, config | {"cni.dev/valid-attachments": keep}, "GC", [("", "", None)])
        assert len(networks.veths(node)) == PODS - 1 and silent(node, [*own[0], *others[:-2]]) == []
        call(node, config | {"cni.dev/valid-attachments": []}, "GC", [("", "", None)])
        assert networks.veths(node) == networks.leases(node) == set()
