"""Several nodes on one link: each agent claims blocks, writes its network and the routes to the others' blocks."""

from __future__ import annotations

import shutil
import signal
import socket
from collections.abc import Iterator
from itertools import product

import pytest

from tests.etcd import etcd
from tests.netns import networks, traffic, wire
from tests.netns.cluster import (
    FAMILIES,
    HOST,
    POOL6,
    STATE_DIR,
    TARGET,
    UNDERLAY,
    Cluster,
    Member,
    bulk,
    cluster,
    outside,
    reach,
)
from tests.sandbox import PLUGIN_PATH

# Agents take seconds to start, so most tests share two nodes, and leave them as they were.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]

# linux/rtnetlink.h, RTNLGRP_*: link, IPv4 address and route, IPv6 address and route. Not neighbours, which age.
CHANGES = sum(1 << (group - 1) for group in (1, 5, 7, 9, 11))


@pytest.fixture(params=[
    pytest.param((True, "direct"), id="direct, dual-stack link"),
    pytest.param((False, "direct"), id="direct, IPv6-only link"),
    pytest.param((False, "vxlan"), id="vxlan"),
    pytest.param((False, "srv6"), id="srv6"),
])
def three(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    ipv4, carrier = request.param
    with cluster("a", "b", "c", ipv4=ipv4, carrier=carrier) as made:
        made.start()
        yield made


def test_containers_of_all_nodes_talk(three: Cluster) -> None:
    pods = [member.pod for member in three.members]
    reach(pods)
    for family in FAMILIES:
        for member, pod in product(three.members, pods):  # what a node masquerades has its own source too
            assert networks.ping(member.node, pod.address(family), member.node.path), (member.name, pod.address(family))
        bulk(pods[0], pods[2], family)
        bulk(pods[1], pods[0], family)
    a, b, c = three.members
    carrier = three.config["carrier"]
    if carrier != "direct":
        mtu = {"vxlan": 1430, "srv6": 1460}[carrier]
        assert c.config()["mtu"] == mtu
        assert traffic.path_mtu(outside(a), networks.OUTSIDE[6], b.pod.address(6)) == mtu
        ways = [route for route in a.routes() if not route.startswith("unreachable")]
        assert len(ways) == 4 and all(f"dev cni-v6-{carrier} " in route for route in ways)
        return
    [block6, block4] = b.blocks()
    assert f"{block6} via {b.addresses[0]} dev {UNDERLAY} metric 2048 pref medium" in a.routes()
    hop = f"via {b.addresses[1]}" if three.ipv4 else f"via inet6 {b.addresses[0]}"
    assert f"{block4} {hop} dev {UNDERLAY} metric 2048" in a.routes()
    assert len(a.routes()) == 6


@pytest.fixture(scope="module")
def two() -> Iterator[Cluster]:
    with cluster("a", "b") as made:
        made.start()
        yield made


def agent_has(member: Member, routes: list[str]) -> None:
    """Wait until the node has these routes of the agent."""
    wire.await_state(member.node.path, lambda: member.routes() == routes, f"the routes of {member.name}")


def own(member: Member) -> list[str]:
    """The routes of a node that is alone."""
    return [route for route in member.routes() if route.startswith("unreachable")]


def test_a_route_that_somebody_deletes_comes_back_and_others_routes_stay(two: Cluster) -> None:
    a, _ = two.members
    before = a.routes()
    a.node.run("ip", "route", "add", "198.51.100.0/24", "via", "172.30.0.9")
    a.node.run("ip", "-6", "route", "add", POOL6, "via", "fd00:11::9", "metric", "2048")
    with a.node.unchanged():
        for family in ("-6", "-4"):
            a.node.run("ip", family, "route", "flush", "proto", "166")
        agent_has(a, before)
        a.node.run("ip", "link", "set", UNDERLAY, "down")
        assert len(a.routes()) == 2
        a.node.run("ip", "link", "set", UNDERLAY, "up")
        a.node.run("ip", "address", "add", two.addresses(1)[0], "dev", UNDERLAY, "nodad")
        agent_has(a, before)
        # A step that has not seen the address yet can set the routes, once it is there.
        two.await_objects(lambda objects: objects["nodes/a"]["addresses"] == [*a.addresses])
        a.node.run("ip", "route", "add", "198.51.100.0/24", "via", "172.30.0.9")
        a.node.run("ip", "-6", "route", "add", POOL6, "via", "fd00:11::9", "metric", "2048")


def test_a_second_look_writes_nothing(two: Cluster) -> None:
    """The kernel would tell of a route that is written again, and the folder's time would change."""
    a, _ = two.members
    a.stop()
    files = [a.node.file(path) for path in (TARGET, f"{STATE_DIR}/state.json")]
    before = [(file.stat().st_ino, file.stat().st_mtime_ns) for file in files]
    with wire.events(a.node.path, (socket.NETLINK_ROUTE, CHANGES)) as heard:
        a.start()
        assert [(file.stat().st_ino, file.stat().st_mtime_ns) for file in files] == before
        heard.setblocking(False)
        with pytest.raises(BlockingIOError):
            heard.recv(1 << 16)


def test_a_node_is_removed_and_comes_back(two: Cluster) -> None:
    a, b = two.members
    pod, other = a.pod, b.pod
    before, blocks = a.routes(), b.blocks()
    said = nodes(two, a, "--remove", "b")
    assert all(block in said for block in blocks)
    assert "node b was removed from the cluster" in b.ended() and b.agent and b.agent.returncode == 0
    assert b.routes() == [] and not b.node.file(TARGET).exists()
    agent_has(a, own(a))
    assert b.blocks_in_store() == []
    b.start()
    agent_has(a, before)
    assert b.blocks() == blocks
    reach([pod, other])


def test_packets_that_are_too_big_for_the_link(two: Cluster) -> None:
    """A host beyond the nodes is told so; new containers get the link's MTU."""
    a, b = two.members
    target = b.pod.address(6)
    assert a.pod and a.config()["mtu"] == 1500
    beyond = outside(a)
    a.node.run("ip", "link", "set", UNDERLAY, "mtu", "1400")
    try:
        a.await_config(lambda config: config["mtu"] == 1400)
        assert traffic.path_mtu(beyond, networks.OUTSIDE[6], target) == 1400
    finally:
        a.node.run("ip", "link", "set", UNDERLAY, "mtu", "1500")
    a.await_config(lambda config: config["mtu"] == 1500)


def nodes(made: Cluster, member: Member, *arguments: str) -> str:
    """``cni-v6ctl nodes`` on a node."""
    return member.node.run(f"{PLUGIN_PATH[0]}/cni-v6ctl", "nodes", "--cluster", made.store, *arguments).stdout


def test_etcd_as_the_store() -> None:
    """It comes and goes; the nodes go on. One that starts meanwhile has its blocks, and is told when etcd is back."""
    with cluster("a", "b") as made, etcd(HOST, ("ip", "netns", "exec", made.lan)) as server:
        made.store = f"etcd:{server.url}/test"
        a, b = made.members
        a.start()
        before = a.routes()
        b.start()
        wire.await_state(a.node.path, lambda: len(a.routes()) == 4, "the routes to b")
        reach([a.pod, b.pod])
        assert f"a     {a.blocks()[0]}" in nodes(made, a)
        a.stop(signal.SIGKILL)
        server.stop()
        a.node.file(TARGET).unlink()
        for family in ("-6", "-4"):
            a.node.run("ip", family, "route", "flush", "proto", "166")
        a.start()
        a.says("goes on with what it knows: etcd does not answer")
        reach([a.pod, b.pod])
        server.start()
        a.says("all is well again")
        nodes(made, a, "--remove", "b")
        agent_has(a, before)
        assert "was removed from the cluster" in b.ended() and b.routes() == []


def test_two_agents_on_one_node(two: Cluster) -> None:
    a, _ = two.members
    first = a.agent
    for name, keys in (("a", {}), ("z", {"stateDir": "/var/lib/cni/other"})):
        a.start(name=name, wait=False, **keys)
        said = a.ended()
        assert "an agent runs already in this network namespace" in said and "held by process" in said
    a.agent = first
    assert "nodes/z" not in two.objects()


def test_a_reboot_while_the_store_is_away(two: Cluster) -> None:
    a, b = two.members
    before = a.routes()
    a.stop(signal.SIGKILL)
    text = a.node.file(TARGET).read_text()
    a.node.file(TARGET).unlink()
    for family in ("-6", "-4"):
        a.node.run("ip", family, "route", "flush", "proto", "166")
    store = two.folder / "store/cluster.json"
    content = store.read_text()
    store.write_text("garbage")
    try:
        a.start()
        assert a.routes() == before and a.node.file(TARGET).read_text() == text
        reach([a.pod, b.pod])
        assert "goes on with what it knows" in a.says("cluster.json is not JSON")
    finally:
        store.write_text(content)
    a.says("all is well again")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["ended", "killed"])
def test_an_agent_is_replaced_while_containers_talk(two: Cluster, number: int) -> None:
    a, _ = two.members
    with a.node.unchanged():
        a.stop(number)
    assert a.node.file(f"{STATE_DIR}/ready").exists() == (number == signal.SIGKILL)
    with a.node.unchanged():
        a.start()
    assert a.node.file(f"{STATE_DIR}/ready").exists()


def test_a_node_that_is_cloned_with_its_disk(two: Cluster) -> None:
    """Both are the same node by all that their disks say: the one that was there first goes on."""
    a, b = two.members
    routes, pods = a.routes(), [a.pod, b.pod]
    with two.guest("b") as clone:
        shutil.copytree(b.node.file(STATE_DIR), clone.node.file(STATE_DIR), dirs_exist_ok=True)
        clone.start(wait=False)
        assert f"this is a copy of node b at {', '.join(b.addresses)}, which runs" in clone.ended()
        assert clone.agent and clone.agent.returncode == 1 and clone.routes() == []
        assert not clone.node.file(TARGET).exists()
        b.says(f"a copy of this node's disk runs at {clone.addresses[0]}")
        agent_has(a, routes)
        reach(pods)
        with clone.node.unchanged():
            clone.start(wait=False)
            assert "this is a copy of node b" in clone.ended()


def test_the_same_name_and_another_disk(two: Cluster) -> None:
    """A machine that is made anew, or a second one by mistake: it takes nothing before an operator says so.

    The last test, as it takes node b out of the cluster.
    """
    a, b = two.members
    b.stop(signal.SIGKILL)
    blocks = b.blocks()
    new = two.join("b")
    new.start(wait=False)
    assert "another node has the name b at fd00:11::2, 172.30.0.2" in new.ended()
    assert new.agent and new.agent.returncode == 1 and not new.node.file(TARGET).exists()
    nodes(two, a, "--remove", "b")
    new.start()
    assert new.blocks() == blocks
    b.start(wait=False)
    assert f"another node has the name b at {', '.join(new.addresses)}" in b.ended()
    assert b.routes() == [] and not b.node.file(TARGET).exists()
