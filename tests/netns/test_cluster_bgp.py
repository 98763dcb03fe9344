"""Nodes whose routes BIRD announces and learns: by a route reflector on their link, by a router that is their own."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cni_v6.cluster import bgp
from cni_v6.cluster.keys import BIRD_FILE
from tests import frr
from tests.bird import USER, Bird
from tests.netns import networks, traffic, wire
from tests.netns.cluster import (
    FAMILIES,
    POOL4,
    POOL6,
    UNDERLAY,
    Cluster,
    bulk,
    host_beyond,
    outside,
    reach,
)
from tests.netns.cluster_bgp import REFLECTOR, SLOWLY, await_routes, learned, nodes, router, start
from tests.sandbox import PLUGIN_PATH

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]

MTU = 1400
OPEN = 1  # RFC 4271, 4.1


def _ip(netns: str, *argv: str) -> None:
    subprocess.run(["ip", "-n", netns, *argv], check=True)


@pytest.fixture(scope="module")
def reflected() -> Iterator[tuple[Cluster, dict[str, Bird]]]:
    """Three nodes and a route reflector."""
    with nodes(("a", "b", "c")) as (made, birds), router(made, "route-reflector.conf", "fd00:11::fe/64", SLOWLY):
        for member in made.members:
            member.node.run("ip", "link", "set", UNDERLAY, "mtu", str(MTU))
            start(member, birds[member.name], REFLECTOR)
        yield made, birds


@pytest.fixture
def three(reflected: tuple[Cluster, dict[str, Bird]]) -> tuple[Cluster, dict[str, Bird]]:
    """The same, when all of them know each other."""
    members = reflected[0].members
    for member in members:
        await_routes(member, [other for other in members if other is not member])
    return reflected


def test_containers_of_all_nodes_talk(three: tuple[Cluster, dict[str, Bird]]) -> None:
    a, b, c = three[0].members
    pods = [member.pod for member in (a, b, c)]
    reach(pods)
    for family in FAMILIES:
        bulk(pods[0], pods[2], family)
        bulk(pods[1], pods[0], family)
    assert c.config()["mtu"] == MTU
    assert traffic.path_mtu(outside(a), networks.OUTSIDE[6], b.pod.address(6)) == MTU
    block6, block4 = b.blocks()
    ways = learned(a)
    assert ways[block6].startswith(f"via {b.addresses[0]} dev {UNDERLAY}")
    assert ways[block4].startswith(f"via inet6 {b.addresses[0]} dev {UNDERLAY}")
    assert [route.split()[:2] for route in a.routes()] == [["unreachable", block] for block in sorted(a.blocks())]


def test_a_second_look_writes_nothing_and_tells_bird_nothing(three: tuple[Cluster, dict[str, Bird]]) -> None:
    made, birds = three
    a = made.members[0]
    a.stop()
    file = a.node.file(BIRD_FILE)
    before, times = file.stat(), birds["a"].reconfigured()
    start(a, birds["a"], REFLECTOR)
    after = file.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert birds["a"].reconfigured() == times > 0


def test_a_file_that_somebody_changes_is_written_again(three: tuple[Cluster, dict[str, Bird]]) -> None:
    """BIRD, which has not read the other one, is not told."""
    made, birds = three
    a = made.members[0]
    file = a.node.file(BIRD_FILE)
    right, before = file.read_text(), birds["a"].reconfigured()
    file.write_text("garbage")
    a.await_file(BIRD_FILE, lambda: file.read_text() == right)
    assert birds["a"].reconfigured() == before > 0


def test_a_node_is_removed_and_comes_back(three: tuple[Cluster, dict[str, Bird]]) -> None:
    made, birds = three
    a, b, c = made.members
    b.node.run(f"{PLUGIN_PATH[0]}/cni-v6ctl", "nodes", "--cluster", made.store, "--remove", "b")
    assert "node b was removed from the cluster" in b.ended()
    assert b.node.file(BIRD_FILE).read_text() == bgp.IDLE
    await_routes(a, [c])
    wire.await_state(b.node.path, lambda: not learned(b), "no route of BIRD")
    start(b, birds["b"], REFLECTOR)
    await_routes(a, [b, c])
    await_routes(b, [a, c])
    reach([a.pod, b.pod])


def test_a_node_that_falls_silent_is_noticed(three: tuple[Cluster, dict[str, Bird]]) -> None:
    """By BFD: BGP itself would wait for 90 seconds, which is longer than this test does."""
    made, _ = three
    a, b, c = made.members
    _ip(made.lan, "link", "set", "port3", "nomaster")
    await_routes(a, [b])
    await_routes(b, [a])
    _ip(made.lan, "link", "set", "port3", "master", "lan")
    await_routes(a, [b, c])
    await_routes(c, [a, b])
    reach([a.pod, c.pod])


def test_bird_is_killed_and_comes_back(three: tuple[Cluster, dict[str, Bird]]) -> None:
    made, birds = three
    a, b, c = made.members
    birds["a"].stop(signal.SIGKILL)
    a.says("BIRD does not run: nothing listens at")
    await_routes(b, [c])
    birds["a"].start()
    a.says("all is well again")
    await_routes(b, [a, c])
    await_routes(a, [b, c])
    reach([a.pod, b.pod])


def test_a_session_with_who_is_beyond_a_node(three: tuple[Cluster, dict[str, Bird]]) -> None:
    """As of a container, which is masqueraded: the router takes nothing that was forwarded (RFC 5082)."""
    made, _ = three
    c, stranger = made.members[2], "fd00:11::77"
    beyond = host_beyond(c, ())
    _ip(made.lan, "route", "add", f"{stranger}/128", "via", c.addresses[0])
    c.node.run("ip", "route", "add", f"{stranger}/128", "via", networks.OUTSIDE[6])
    c.node.run("ip", "address", "add", f"{stranger}/128", "dev", "lo", "nodad", netns=beyond)
    with traffic.opened(beyond, 6, socket.SOCK_STREAM) as client:
        client.bind((stranger, 0))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2000)
        client.connect((REFLECTOR["address"], 179))
        assert client.recv(100)[18] == OPEN
        client.sendall(b"\0" * 19)
        with pytest.raises(TimeoutError):  # nothing was acknowledged, else it would complain (RFC 4271, 6.1)
            client.recv(100)


SMALL = [{"cidr": POOL6, "block": 122}, {"cidr": POOL4, "block": 28}]
PASSWORD = 'password "correct horse";'
RIGHT = "fd42:8e1f:6a00:bad::40/122"  # what a block may be


@pytest.fixture
def two() -> Iterator[tuple[Cluster, dict[str, Bird]]]:
    """Nodes with small blocks, and a router of another AS, which announces what is none of its business.

    The sessions have a password.
    """
    wrong = ["::/0", POOL6, "fd42:8e1f:6a00:bad::/64", "fd42:8e1f:6a00:bad::80/123", "2001:db8::/122"]
    routes = " ".join(f"route {prefix} unreachable;" for prefix in [*wrong, RIGHT])
    others = {
        "protocol bfd { }": f"protocol bfd {{ }}\nprotocol static {{ ipv6; {routes} }}",
        "export where net ~ pool6;": "export all;", 'interface "nodes";': 'interface "lan";',
        "{64,64}": "{122,122}", "{26,26}": "{28,28}", 'dynamic name "node";': f'dynamic name "node"; {PASSWORD}',
    }
    with nodes(("a", "b"), pools=SMALL) as (made, birds), router(made, "tor.conf", "fe80::1/64", others):
        secret = made.folder / "password.conf"
        secret.touch(0o600)
        secret.write_text(PASSWORD)
        shutil.chown(secret, USER)  # the agents cannot read it
        for member in made.members:
            start(member, birds[member.name], {"address": "fe80::1", "as": 65000, "include": str(secret)})
        yield made, birds


def test_small_blocks_at_a_router_that_announces_more_than_it_may(two: tuple[Cluster, dict[str, Bird]]) -> None:
    """The nodes take blocks of the pools, and nothing else."""
    a, b = two[0].members
    for member, other in ((a, b), (b, a)):
        wanted = {*other.blocks(), RIGHT}
        wire.await_state(member.node.path, lambda: set(learned(member)) == wanted, f"{sorted(wanted)}")
    assert [block.partition("/")[2] for block in a.blocks()] == ["122", "28"]
    reach([a.pod, b.pod])


@pytest.fixture
def unnumbered() -> Iterator[tuple[Cluster, dict[str, Bird]]]:
    """Nodes that have no link in common: each is at a port of a router, which runs FRR and has no addresses."""
    with nodes(("a", "b")) as (made, birds), ExitStack() as undo:
        netns = f"/run/netns/{made.lan}"
        for member in made.members:
            _ip(made.lan, "link", "set", f"port{member.number}", "nomaster")
        for key in ("net.ipv6.conf.all.forwarding", "net.ipv4.ip_forward"):
            subprocess.run(["nsenter", f"--net={netns}", "sysctl", "-qw", f"{key}=1"], check=True)
        undo.enter_context(frr.frr(netns, made.folder, {"swp": "port", "nodes bfd": "nodes bfd 4 1000 1000"}))
        for member in made.members:
            start(member, birds[member.name], {"address": "unnumbered", "as": 65000, "bfd": True})
        yield made, birds


def test_nodes_that_have_no_link_in_common(unnumbered: tuple[Cluster, dict[str, Bird]]) -> None:
    a, b = unnumbered[0].members
    await_routes(a, [b])
    await_routes(b, [a])
    assert all(re.search(f"via (inet6 )?fe80::[^ ]* dev {UNDERLAY}", way) for way in learned(a).values())
    reach([a.pod, b.pod])
    for family in FAMILIES:
        bulk(a.pod, b.pod, family)


def test_the_sample_for_frr(tmp_path: Path) -> None:
    frr.need_frr()
    assert frr.check(frr.SAMPLE) == ""
    wrong = tmp_path / "frr.conf"
    text = frr.SAMPLE.read_text(encoding="utf-8")
    wrong.write_text(text.replace("prefix-list pool6 out", "prefix-list pool6 sideways"))
    assert "pool6 sideways" in frr.check(wrong)
