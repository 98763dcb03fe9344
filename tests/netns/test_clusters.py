"""Two clusters of two nodes on one link: without NAT, each open or closed to the other, whatever its store does."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import pytest

from cni_v6.cluster.etcd_store import EtcdStore
from cni_v6.cluster.records import Change
from tests.etcd import Etcd, etcd
from tests.netns import traffic, wire
from tests.netns.cluster import HOST, POOL6, POOLS, STATE_DIR, TARGET, Cluster, Member, another, cluster, unit_rights
from tests.netns.networks import Pod
from tests.sandbox import PLUGIN_PATH

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]

FAMILIES = (4, 6)
EAST6, EAST4 = "fd42:8e1f:6b00::/48", "10.245.0.0/16"
EAST_POOLS = ({"cidr": EAST6, "block": 64}, {"cidr": EAST4, "block": 26})


@dataclass
class Two:
    """West lets east in, and east lets nobody in. The store of west is a file, that of east is etcd."""

    west: Cluster
    east: Cluster
    server: Etcd

    def of_east(self, **keys: Any) -> list[dict[str, Any]]:
        """``clusters`` of the agents of west."""
        return [{"name": "east", "store": self.east.store, "pools": EAST_POOLS, "ingress": "open", **keys}]

    def of_west(self, **keys: Any) -> list[dict[str, Any]]:
        return [{"name": "west", "store": self.west.store, "pools": POOLS, **keys}]

    @property
    def pods(self) -> tuple[list[Pod], list[Pod]]:
        west, east = ([member.pod for member in made.members] for made in (self.west, self.east))
        return west, east


@pytest.fixture(scope="module")
def two() -> Iterator[Two]:
    with cluster("a", "b") as west, etcd(HOST, ("ip", "netns", "exec", west.lan)) as server:
        with another(west, "east", EAST_POOLS, "a", "b") as east:
            east.store = f"etcd:{server.url}/east"
            made = Two(west, east, server)
            for member in west.members:
                member.start(clusters=made.of_east())
            for member in east.members:
                member.start(clusters=made.of_west())
            for member, block in product(west.members, [block for other in east.members for block in other.blocks()]):
                await_way(member, block)
            for member, block in product(east.members, [block for other in west.members for block in other.blocks()]):
                await_way(member, block)
            yield made


def has_way(member: Member, block: str) -> bool:
    return any(route.startswith(f"{block} via ") for route in member.routes())


def await_way(member: Member, block: str) -> None:
    wire.await_state(member.node.path, lambda: has_way(member, block), f"a route to {block}")


def test_containers_of_both_reach_each_other_as_what_they_are(two: Two) -> None:
    """East's call west's; the answers come back, though east lets nobody in."""
    west, east = two.pods
    for client, server, family in product(east, west, FAMILIES):
        with traffic.listening(server.netns, family, 7000) as listener:
            seen, own = traffic.called(client.netns, (server.address(family), 7000), listener)
            assert seen == own and seen.address == client.address(family)
        with traffic.udp(server.netns, family, port=7001) as receiver, traffic.udp(client.netns, family) as sender:
            assert traffic.asked(sender, (server.address(family), 7001), receiver).address == client.address(family)
    for pods in (west, east):
        for one, other in permutations(pods, 2):
            assert all(one.ping(other.address(family)) for family in FAMILIES)


def assert_kept_out(client: Pod, server: Pod) -> None:
    for family in FAMILIES:
        address = server.address(family)
        assert client.ping(address)
        with traffic.listening(server.netns, family, 7000), wire.in_order():
            with traffic.unanswered(client.netns, (address, 7000)):
                assert client.ping(address)


def test_a_closed_cluster_lets_nobody_in(two: Two) -> None:
    """But echo requests, and then those whom it names."""
    west, east = two.pods
    for client, server in product(west, east):
        assert_kept_out(client, server)
    first, second = west
    member = two.east.members[0]
    member.stop()
    member.start(clusters=two.of_west(ingress="open", **{"from": two.west.members[0].blocks()}))
    try:
        for family in FAMILIES:
            address = east[0].address(family)
            with traffic.listening(east[0].netns, family, 7000) as listener:
                seen, _ = traffic.called(first.netns, (address, 7000), listener)
                assert seen.address == first.address(family)
                with wire.in_order(), traffic.unanswered(second.netns, (address, 7000)):
                    assert second.ping(address)
    finally:
        member.stop()
        member.start(clusters=two.of_west())


GATE = ("nft", "list", "table", "inet", "cni_v6_clusters")


def test_a_closed_cluster_is_kept_out_from_the_boot_on(two: Two) -> None:
    """Before the agent runs, by what the unit for the boot runs; then by the agent, though neither store answers."""
    (client, *_), (server, *_) = two.pods
    member = two.east.members[0]
    member.stop(signal.SIGKILL)
    member.node.run("nft", "delete", "table", *GATE[3:])
    with traffic.listening(server.netns, 6, 7000) as listener:
        traffic.called(client.netns, (server.address(6), 7000), listener)  # the rest of the node keeps nobody out
    command = [*unit_rights(), f"{PLUGIN_PATH[0]}/cni-v6ctl", "agent", "--keep-out", "--config"]
    for _ in range(2):
        member.node.run(*command, str(two.east.folder / "a.json"))
        assert_kept_out(client, server)
    member.node.run("nft", "delete", "table", *GATE[3:])
    two.server.stop()
    try:
        member.start(wait=False, clusters=two.of_west(store=two.east.store))
        wire.await_state(member.node.path, lambda: member.node.run(*GATE, check=False).returncode == 0, "the table")
        assert_kept_out(client, server)
    finally:
        two.server.start()
        member.stop()
        member.start(clusters=two.of_west())


def test_a_boot_with_a_file_that_cannot_be_read(two: Two) -> None:
    """Who was kept out by the last one that could be read is kept out, and what is wrong is said. A table that is there
    stays. The copy in the folder is all that is known of the others."""
    (client, *_), (server, *_) = two.pods
    member = two.east.members[0]
    member.stop()
    copy, broken = member.node.file(f"{STATE_DIR}/agent.json"), two.east.folder / "broken.json"
    assert json.loads(copy.read_text()) == json.loads((two.east.folder / "a.json").read_text())
    broken.write_text('{"pools": [')
    command = [*unit_rights(), f"{PLUGIN_PATH[0]}/cni-v6ctl", "agent", "--config", str(broken)]
    try:
        for more, words in ((["--keep-out"], "kept out still"), ([], "kept out still")):
            done = member.node.run(*command, *more, check=False)
            assert done.returncode != 0 and words in done.stderr and str(broken) in done.stderr
        for more in (["--keep-out"], [], ["--keep-out", "--config", "/etc/cni/none.json"]):
            member.node.run("nft", "delete", "table", *GATE[3:])
            done = member.node.run(*command, *more, check=False)
            assert done.returncode != 0 and f"could be read: {POOL6}" in done.stderr, done.stderr
            assert_kept_out(client, server)
        member.node.run("nft", "delete", "table", *GATE[3:])
        copy.unlink()
        done = member.node.run(*command, "--keep-out", check=False)
        assert done.returncode != 0 and "no other cluster is kept out" in done.stderr
    finally:
        member.start(clusters=two.of_west())
    assert copy.exists()


def test_nobody_writes_the_other_store(two: Two) -> None:
    file = two.west.folder / "store/cluster.json"
    before = file.stat().st_ino, file.stat().st_mtime_ns
    for member in two.east.members:
        member.stop()
        member.start(clusters=two.of_west())
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == before
    assert sorted(two.west.objects()) == sorted({
        "pools", "nodes/a", "nodes/b", *(key for member in two.west.members for key in member.blocks_in_store())})


def test_the_other_store_is_away(two: Two) -> None:
    """The ways stay, over a reboot too, and the own cluster goes on."""
    west, east = two.pods
    a = two.west.members[0]
    before = a.routes()
    two.server.stop()
    try:
        a.stop(signal.SIGKILL)
        a.node.file(TARGET).unlink()
        for family in ("-6", "-4"):
            a.node.run("ip", family, "route", "flush", "proto", "166")
        a.start(clusters=two.of_east())
        a.says("the store of cluster east cannot be used, so the routes to it stay as they are")
        assert a.routes() == before
        assert all(east[0].ping(west[0].address(family)) and west[0].ping(west[1].address(family))
                   for family in FAMILIES)
    finally:
        two.server.start()
    a.says("all is well again")


def test_a_cluster_that_claims_what_is_not_its_own(two: Two) -> None:
    """The blocks of the other, and of everybody: nothing of that is believed."""
    west, _ = two.west.members
    before = west.routes()
    stolen = [f"blocks/{block}" for block in (*two.west.members[1].blocks(), "::/0", "fd00:11::/64")]
    lan = networks_path(two.west.lan)
    with closing(wire.inside(lan, lambda: EtcdStore(f"{two.server.url}/east"))) as store:
        own = json.loads(wire.inside(lan, store.read)["nodes/a"])
        claims = [Change(key, None, json.dumps({"node": "a", "id": own["id"]})) for key in stolen]
        assert wire.inside(lan, lambda: store.commit(claims))
        assert "of cluster east, and to 3 more: it is not a block of a pool" in west.says("no route to block")
        assert west.routes() == before
        wire.inside(lan, store.read)
        assert wire.inside(lan, lambda: store.commit([Change(change.key, change.now, None) for change in claims]))
    west.says("all is well again")


def test_pools_that_overlap_are_refused(two: Two) -> None:
    a = two.west.members[0]
    a.stop()
    a.start(wait=False, clusters=two.of_east(pools=[{"cidr": "fd42:8e1f::/32", "block": 64}]))
    assert f"overlaps {POOL6}, a pool of this cluster" in a.ended()
    with a.node.unchanged():
        a.start(clusters=two.of_east())


def networks_path(name: str) -> str:
    return f"/run/netns/{name}"
