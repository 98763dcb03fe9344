"""What agents measure of each other, on a real link: who answers echo requests, how many leases a block has."""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from cni_v6.cluster import echo
from cni_v6.cluster.file_store import FileStore
from cni_v6.engine.exposition import parse
from tests.netns import networks, wire
from tests.netns.cluster import UNDERLAY, Cluster, Member, cluster
from tests.netns.wire import PATIENCE
from tests.sandbox import PLUGIN_PATH, Node

CTL = f"{PLUGIN_PATH[0]}/cni-v6ctl"
AGENT = ("cni_v6_agent", "cni_v6_cluster", "cni_v6_block", "cni_v6_node_answers")  # how its metrics begin
NOBODY = {4: "192.0.2.9", 6: "2001:db8:ffff::9"}


@pytest.fixture
def node() -> Iterator[Node]:
    with closing(Node()) as made:
        yield made


@pytest.mark.parametrize("groups", ["1 0", "0 0"], ids=["raw", "without rights"])
def test_who_answers(node: Node, groups: str) -> None:
    """Both kinds of socket; also a host that is not there, and one without a route to it."""
    outside = networks.uplink(node)
    for ifname, place, addresses in ((networks.UPLINK, "", networks.NODE_OUTSIDE), ("eth0", outside, networks.OUTSIDE)):
        for family, address in addresses.items():
            more = ("nodad",) if family == 6 else ()
            node.run("ip", "address", "add", f"{address}/{networks.LENGTH[family]}", "dev", ifname, *more, netns=place)
    networks.set_sysctl(node, "ipv4/ping_group_range", groups)
    [local] = [text.partition("/")[0] for text in networks.addresses(node, "eth0", outside) if text[:5] == "fe80:"]
    there, silent = [*networks.OUTSIDE.values(), local], [*NOBODY.values(), "198.51.100.1"]
    with node.unchanged():
        # It waits as long as it must for those who answer.
        found = wire.inside(node.path, lambda: echo.answered(there, networks.UPLINK, seconds=PATIENCE))
        assert found == dict.fromkeys(there, True)
        found = wire.inside(node.path, lambda: echo.answered(silent, networks.UPLINK, seconds=0.05))
        assert found == dict.fromkeys(silent, False)
    assert wire.inside(node.path, lambda: echo.answered([], "")) == {}


def test_a_family_that_cannot_be_asked(node: Node) -> None:
    """Nothing is said of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(echo, "FAMILIES", {4: (999, 1), 6: echo.FAMILIES[6]})
        node.run("ip", "link", "set", "lo", "up")
        assert wire.inside(node.path, lambda: echo.answered(["127.0.0.1", "::1"], "lo")) == {"::1": True}


@pytest.fixture
def two() -> Iterator[Cluster]:
    with cluster("a", "b", reportEvery="1s") as made:
        for member in made.members:
            member.node.run("ip", "link", "set", "lo", "up")
            member.node.environment["CNI_V6_AGENT_METRICS"] = "[::1]:9165"
            member.start()
        yield made


def nodes(member: Member) -> dict[str, Any]:
    """What ``cni-v6ctl nodes`` says, by the node's name."""
    arguments = ("nodes", "--cluster", member.cluster.store, "--json")
    lines = member.node.run(CTL, *arguments).stdout.splitlines()
    return {document["node"]: document for document in map(json.loads, lines)}


def doctor(member: Member) -> list[dict[str, str]]:
    """What doctor says of the agent and the blocks."""
    said = json.loads(member.node.run(CTL, "doctor", "--json", check=False, env=member.node.environment).stdout)
    return [finding for finding in said if finding["check"] in ("agent", "block")]


def await_report(made: Cluster, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait for reports of which that is so."""
    deadline = time.monotonic() + PATIENCE
    with closing(FileStore(f"{made.folder}/store/cluster.json.reports")) as changes:
        changes.fileno()  # from now on
        while not reached(found := nodes(made.members[0])):
            assert select.select([changes], [], [], max(0.0, deadline - time.monotonic()))[0], found
            changes.drain()
    return found


def answers(found: dict[str, Any], name: str) -> dict[str, bool]:
    return {said["family"]: said["answers"] for said in found[name]["answers"]}


def names(exposed: str) -> set[str]:
    return {sample.name for sample in parse(exposed)}


def scraped(member: Member, place: str | tuple[str, int]) -> set[str]:
    """The names of the metrics that an agent tells at a socket."""
    family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET6
    with wire.inside(member.node.path, lambda: socket.socket(family, socket.SOCK_STREAM)) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(place)
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        with connection.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK")
    return names(body.decode())


@pytest.mark.slow
@pytest.mark.xdist_group("cluster")
def test_nodes_of_a_cluster(two: Cluster) -> None:
    a, b = two.members
    both = {"ipv6": True, "ipv4": True}
    found = await_report(two, lambda found: answers(found, "a") == answers(found, "b") == both)
    assert all(leased["leases"] == 0 for leased in found["a"]["leased"].values()) and len(found["a"]["leased"]) == 2
    assert a.pod.ping(a.pod.gateway(6))
    found = await_report(two, lambda found: {leased["leases"] for leased in found["a"]["leased"].values()} == {1})
    assert found["a"]["leased"][a.blocks()[1]] == {"leases": 1, "room": 61}
    before = [said["since"] for said in found["b"]["answers"]]
    assert [of_agent["level"] for of_agent in doctor(a)] == ["green"]
    shown = a.node.run(CTL, "metrics", env=a.node.environment).stdout
    assert 'cni_v6_agent_up{node="a"} 1' in shown and "\ncni_v6_agent_ready 1\n" in shown
    folder = a.node.environment["CNI_V6_RUN_DIR"]
    assert scraped(a, f"{folder}/agent-{os.stat(a.node.path).st_ino}.sock") == scraped(a, ("::1", 9165)) == {
        name for name in names(shown) if name.startswith(AGENT)}
    assert f'cni_v6_block_leases{{block="{a.blocks()[0]}"}} 1' in shown and "cni_v6_cluster_nodes 2" in shown
    assert 'cni_v6_node_answers{node="b",family="ipv6"} 1' in shown
    b.stop()  # else it would say that it has no such address any more
    b.node.run("ip", "address", "delete", two.addresses(2)[1], "dev", UNDERLAY)
    found = await_report(two, lambda found: answers(found, "b") == {"ipv6": True, "ipv4": False})
    assert found["b"]["answers"][0]["since"] == before[0] and found["b"]["answers"][1]["since"] >= before[1]
    assert [of_agent["message"] for of_agent in doctor(a)] == ["no answer from b (IPv4)"]
    assert "the agent of node b does not run" in [of_agent["message"] for of_agent in doctor(b)]
    assert 'cni_v6_agent_up{node="b"} 0' in b.node.run(CTL, "metrics", env=b.node.environment).stdout
