"""The carrier ``wireguard``: keys in the store, peers, what is refused, and the steps of its agents."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import pytest

from cni_v6 import errors
from cni_v6.cluster import disk, membership, others, records, routes, wireguard
from cni_v6.cluster.config import AgentConf, OtherCluster, Pool
from cni_v6.cluster.facts import Add, Facts, Forward, Remove, RemoveDevice, Route, SetNodes, SetTable, Underlay
from cni_v6.cluster.fake import FakeNode
from cni_v6.cluster.keys import WIREGUARD as CARRIER
from cni_v6.cluster.membership import Member
from cni_v6.cluster.records import Claim, Cluster, NodeRecord
from cni_v6.cluster.routes import Wanted
from cni_v6.cluster.store import MemoryStore
from cni_v6.cluster.wireguard_values import WIREGUARD, Address, Encrypted, Peer
from cni_v6.errors import CniError
from tests.unit.test_cluster import CONF, LINK, POOL4, POOL6
from tests.unit.test_cluster_agent import READY, Killed, Place, Stepped, place

WG = replace(CONF, carrier=CARRIER)
OWN6, OWN4 = "fd42:8e1f:6a00:1::/64", "10.244.0.64/26"
THEIRS6, THEIRS4 = "fd42:8e1f:6a00:2::/64", "10.244.1.0/26"
A = Member("a", "1")


def key(number: int) -> str:
    return b64encode(bytes((number, *bytes(31)))).decode()


NODE_A = NodeRecord("a", "1", ("fd00:11::1", "172.30.0.1"), CARRIER, public_key=key(1))
NODE_B = NodeRecord("b", "2", ("fd00:11::2", "172.30.0.2"), CARRIER, public_key=key(2))
CLAIMS = (Claim(OWN6, "a", "1"), Claim(OWN4, "a", "1"), Claim(THEIRS6, "b", "2"), Claim(THEIRS4, "b", "2"))
DEVICE = Encrypted(1420, "eth0", (POOL6.cidr, POOL4.cidr), (OWN6, OWN4))
PEER = Peer(key(2), "fd00:11::2", (THEIRS4, THEIRS6))
CLOSED = {Route(POOL6.cidr), Route(POOL4.cidr)}  # nothing for a pool leaves unencrypted


def cluster(*nodes: NodeRecord, claims: tuple[Claim, ...] = CLAIMS) -> Cluster:
    return Cluster({}, {node.name: node for node in nodes}, claims)


def wanted(found: Cluster, conf: AgentConf = WG, underlay: Underlay = LINK) -> Wanted:
    return routes.wanted(A, conf, found, underlay)


# What a node needs


def test_a_peer_for_each_other_node() -> None:
    """Its blocks are all that it may send. What the node itself sends has an address of the node's own block."""
    found = wanted(cluster(NODE_A, NODE_B))
    assert found.device == DEVICE and found.forwarding == (WIREGUARD,) and found.complaints == ()
    assert found.entries == {
        Route(OWN6), Route(OWN4), Address("fd42:8e1f:6a00:1::/128"), Address("10.244.0.64/32"),
        PEER, Route(THEIRS6, WIREGUARD), Route(THEIRS4, WIREGUARD), *CLOSED,
    }
    assert found.nodes == {"fd00:11::2"}
    assert wanted(cluster(NODE_A, replace(NODE_B, addresses=("172.30.0.2",)))).nodes == frozenset()
    assert routes.mtu_of(CARRIER, LINK) == 1420 == LINK.mtu - wireguard.OVERHEAD


def test_a_node_has_the_interface_before_it_is_in_the_store() -> None:
    assert wanted(cluster(claims=())).device == replace(DEVICE, blocks=())
    assert routes.wanted(A, WG, Cluster(), None) == Wanted(frozenset(CLOSED))


def test_blocks_that_are_of_no_pool_are_no_sources() -> None:
    claims = (*CLAIMS, Claim("fd00:bad::/64", "b", "2"), Claim("10.244.1.64/27", "b", "2"))
    found = wanted(cluster(NODE_A, NODE_B, claims=claims))
    assert PEER in found.entries and len(found.complaints) == 2


@pytest.mark.parametrize(("addresses", "underlay", "endpoint"), [
    (("fd00:11::2", "172.30.0.2"), LINK, "fd00:11::2"),
    (("172.30.0.2",), LINK, "172.30.0.2"),
    (("fe80::2", "172.30.0.2"), LINK, "172.30.0.2"),
    (("fd00:11::2", "172.30.0.2"), replace(LINK, addresses=("fe80::1", "172.30.0.1")), "172.30.0.2"),
])
def test_where_a_peer_is(addresses: tuple[str, ...], underlay: Underlay, endpoint: str) -> None:
    found = wanted(cluster(NODE_A, replace(NODE_B, addresses=addresses)), underlay=underlay)
    assert [entry.endpoint for entry in found.entries if isinstance(entry, Peer)] == [endpoint]


@pytest.mark.parametrize(("node", "says"), [
    (replace(NODE_B, public_key=""), "node b has no WireGuard key in the cluster's store yet"),
    (replace(NODE_B, addresses=("fe80::2",)), "no addresses of one family, not link-local"),
    (replace(NODE_B, addresses=("10.244.1.1",)), "its address 10.244.1.1 is of pool 10.244.0.0/16"),
    (replace(NODE_B, public_key=key(1)), "another node has its WireGuard key too"),
    (replace(NODE_B, carrier="vxlan"), "its carrier is vxlan"),
])
def test_a_node_that_is_no_peer(node: NodeRecord, says: str) -> None:
    found = wanted(cluster(NODE_A, node))
    assert not [entry for entry in found.entries if isinstance(entry, Peer)] and found.entries >= CLOSED
    assert len(found.complaints) == 2 and all(says in words for words in found.complaints)


def test_a_key_that_two_nodes_have_is_nobodys() -> None:
    """Whoever wrote it last must not get the packets of the other one; a node that was removed has none."""
    thief, block = NodeRecord("c", "3", ("fd00:11::3",), CARRIER, public_key=key(2)), "fd42:8e1f:6a00:3::/64"
    claims = (*CLAIMS, Claim(block, "c", "3"))
    found = wanted(cluster(NODE_A, NODE_B, thief, claims=claims))
    assert not [entry for entry in found.entries if isinstance(entry, Peer)] and len(found.complaints) == 3
    gone = wanted(cluster(NODE_A, NODE_B, replace(thief, removed=True), claims=claims))
    assert PEER in gone.entries and len(gone.complaints) == 1


def test_the_blocks_of_a_node_are_looked_for_once() -> None:
    """However many there are: the store of another cluster may have thousands of one node."""
    claims = tuple(Claim(f"fd42:8e1f:6a00:{number:x}::/64", "b", "2") for number in range(100, 400))
    known = cluster(NODE_A, NODE_B, claims=claims)
    blocks_of = routes.routed_blocks(known, CONF.pools)
    assert blocks_of(NODE_B) is blocks_of(NODE_B) and blocks_of(NODE_B) == tuple(sorted(c.prefix for c in claims))
    [peer] = {entry for entry in wanted(known).entries if isinstance(entry, Peer)}
    assert peer.blocks == blocks_of(NODE_B)


def test_ways_are_found_anew_when_keys_or_claims_of_others_change() -> None:
    ways = routes.Ways()
    before = routes.wanted(A, WG, cluster(NODE_A, NODE_B), LINK, ways)
    assert routes.wanted(A, WG, cluster(NODE_A, NODE_B), LINK, ways) == before
    fewer = routes.wanted(A, WG, cluster(NODE_A, NODE_B, claims=CLAIMS[:3]), LINK, ways)
    assert replace(PEER, blocks=(THEIRS6,)) in fewer.entries
    thief = replace(NODE_B, name="c", id="3")
    assert len(routes.wanted(A, WG, cluster(NODE_A, NODE_B, thief), LINK, ways).complaints) == 2


def test_an_mtu_that_is_too_small() -> None:
    found = wanted(cluster(NODE_A, NODE_B), underlay=replace(LINK, mtu=1359))
    assert found.device is None and "IPv6 needs 1360 to be encrypted" in found.complaints[0]
    assert "this node has no WireGuard" in found.complaints[1]
    assert wanted(cluster(NODE_A), underlay=replace(LINK, mtu=1360)).device == replace(DEVICE, mtu=1280)


def test_what_is_done() -> None:
    """A peer that differs is changed where it is; one whose key is another is removed first."""
    needed = wanted(cluster(NODE_A, NODE_B))
    moved, renewed = replace(PEER, endpoint="fd00:11::9"), replace(PEER, key=key(9))
    seen = Facts(LINK, {WIREGUARD: DEVICE}, needed.entries - {PEER} | {moved}, interfaces=frozenset({DEVICE.interface}))
    assert [*routes.difference(seen, needed)] == [Add(PEER)]
    seen = replace(seen, entries=needed.entries - {PEER} | {renewed})
    assert [*routes.difference(seen, needed)] == [Remove(renewed), Add(PEER)]
    order = [type(operation.what) for operation in routes.difference(replace(seen, entries=frozenset()), needed)
             if isinstance(operation, Add)]
    assert order == [Peer, *[Address] * 2, *[Route] * 6]
    seen = replace(seen, closed=frozenset({WIREGUARD, "eth0"}))
    assert Forward(WIREGUARD) in [*routes.difference(seen, needed)]
    assert [*routes.device_difference(seen, needed)] == []
    other = Wanted(frozenset(), replace(DEVICE, blocks=(OWN6,)))
    assert [*routes.device_difference(seen, other)] == [SetTable(replace(DEVICE, blocks=(OWN6,)), frozenset())]
    larger = Wanted(frozenset(), replace(DEVICE, mtu=1500))
    assert [*routes.device_difference(seen, larger)] == [RemoveDevice(WIREGUARD), Add(replace(DEVICE, mtu=1500))]
    assert [str(what) for what in (DEVICE, PEER, Address("fd42::/128"))] == [
        "interface cni-v6-wg (mtu 1420)", f"peer {key(2)} at fd00:11::2 with 2 blocks of cni-v6-wg",
        "address fd42::/128 on cni-v6-wg"]


# The store


def test_a_key_in_the_store() -> None:
    read = records.read({NODE_B.key: records.encode_node(NODE_B)})
    assert read.nodes == {"b": NODE_B} and read.shared_keys == frozenset()


@pytest.mark.parametrize("text", [
    "x", key(1)[:-1], key(1) + "=", key(1)[:-2] + "B=", b64encode(bytes(33)).decode(), b64encode(bytes(31)).decode(),
    key(1) + "\n", "-" + key(1)[1:], "\u00e9" * 44,
])
def test_no_key_in_the_store(text: str) -> None:
    read = records.read({NODE_B.key: records.encode_node(replace(NODE_B, public_key=text))})
    [words] = read.complaints
    assert "publicKey is " in words and "32 bytes in base64" in words and read.nodes == {}


# Other clusters


EAST = OtherCluster("east", "etcd:x", (Pool("fd43::/48", 64), Pool("10.245.0.0/16", 26)))
FAR = NodeRecord("f", "6", ("fd00:11::6",), CARRIER, public_key=key(6))
FAR_CLAIMS = (Claim("fd43:0:0:6::/64", "f", "6"), Claim("10.245.1.0/26", "f", "6"), Claim(THEIRS6, "f", "6"))


def with_east(theirs: Cluster, conf: AgentConf = replace(WG, clusters=(EAST,))) -> Wanted:
    own = cluster(NODE_A, NODE_B)
    return others.with_others(routes.wanted(A, conf, own, LINK), A, conf, own, LINK, {"east": theirs})


def test_nodes_of_another_cluster() -> None:
    """They are peers with blocks of its pools, and of no other ones."""
    found = with_east(cluster(FAR, claims=FAR_CLAIMS))
    assert Peer(key(6), "fd00:11::6", ("10.245.1.0/26", "fd43:0:0:6::/64")) in found.entries and PEER in found.entries
    assert Route("fd43:0:0:6::/64", WIREGUARD) in found.entries and len(found.complaints) == 1
    assert found.device == replace(DEVICE, pools=(*DEVICE.pools, "fd43::/48", "10.245.0.0/16"))


@pytest.mark.parametrize("taken", [NODE_A.public_key, NODE_B.public_key])
def test_a_node_of_another_cluster_with_a_key_of_ours(taken: str) -> None:
    found = with_east(cluster(replace(FAR, public_key=taken), claims=FAR_CLAIMS[:2]))
    assert [entry for entry in found.entries if isinstance(entry, Peer)] == [PEER]
    [words] = found.complaints
    assert "its node has the key of another one" in words


def test_nodes_of_another_cluster_in_a_pool_that_overlaps() -> None:
    own = replace(cluster(NODE_A, NODE_B), pools={"fd43::/32": 64})
    conf = replace(WG, clusters=(EAST,))
    found = others.with_others(routes.wanted(A, conf, own, LINK), A, conf, own, LINK,
                               {"east": cluster(FAR, claims=FAR_CLAIMS[:2])})
    assert Peer(key(6), "fd00:11::6", ("10.245.1.0/26",)) in found.entries


# The agent


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def node(name: str, store: MemoryStore, number: int) -> Place:
    made = place(name, store, number, WG)
    made.kernel = FakeNode(made.underlay, private_key=name.encode())
    return made


def record(store: MemoryStore, name: str) -> NodeRecord:
    return records.read(store.objects).nodes[name]


def peers(of: Place) -> set[Peer]:
    return {entry for entry in of.kernel.entries if isinstance(entry, Peer)}


def test_two_nodes(store: MemoryStore) -> None:
    """The first step of a node publishes its key; a second one writes nothing."""
    a, b = node("a", store, 1), node("b", store, 2)
    agents = a.agent(), b.agent()
    assert [agent.step() for agent in (*agents, agents[0])] == [READY] * 3 and a.said == b.said == []
    assert record(store, "a").public_key == a.kernel.observe().public_key != ""
    assert peers(a) == {Peer(record(store, "b").public_key, "fd00:11::2", tuple(sorted(b.blocks())))}
    assert a.disk.conflist and '"mtu": 1420' in a.disk.conflist
    before = dict(store.objects), [*a.kernel.written], a.disk.writes
    assert agents[0].step() == READY and (dict(store.objects), a.kernel.written, a.disk.writes) == before


def test_a_node_gets_another_key(store: MemoryStore) -> None:
    """As when the file is removed: the interface is made anew, and the others learn of it."""
    a, b = node("a", store, 1), node("b", store, 2)
    agent = a.agent()
    for each in (b.agent(), agent):
        each.step()
    before = record(store, "b").public_key
    b.kernel.private_key = b"another"
    assert b.agent().step() == READY and record(store, "b").public_key != before
    assert agent.step() == READY and [peer.key for peer in peers(a)] == [record(store, "b").public_key]
    assert [peer.key for peer in peers(b)] == [record(store, "a").public_key]


def test_a_node_is_removed_and_moves(store: MemoryStore) -> None:
    a, b, c = (node(name, store, number) for number, name in enumerate("abc", 1))
    agents = {of.name: of.agent() for of in (a, b, c)}
    for name in "abca":
        agents[name].step()
    assert len(peers(a)) == 2
    c.underlay = c.kernel.underlay = replace(c.underlay, addresses=("fd00:11::33",))
    agents["c"].step()
    a.kernel.written.clear()
    agents["a"].step()
    assert [type(operation) for operation in a.kernel.written] == [SetNodes, Add]
    assert {peer.endpoint for peer in peers(a)} == {"fd00:11::2", "fd00:11::33"}
    objects = dict(store.objects)
    store.commit(membership.removal("c", objects, records.read(objects)))
    agents["a"].step()
    assert agents["c"].step().removed and c.kernel.entries == set() and c.kernel.devices == {}
    assert {peer.endpoint for peer in peers(a)} == {"fd00:11::2"}


def test_a_kernel_without_wireguard(store: MemoryStore) -> None:
    """Nothing is in the store, and there is no configuration."""
    a = place("a", store, 1, WG)
    outcome = a.agent().step()
    assert (outcome.ready, outcome.complete) == (False, False) and store.objects == {} and a.disk.conflist is None
    assert any("cannot add interface cni-v6-wg (mtu 1420): Operation not supported" in words for words in a.said)
    assert {*a.kernel.written} == {Add(route) for route in CLOSED}


@pytest.mark.parametrize("after", [False, True])
def test_an_agent_that_ends_anywhere(after: bool) -> None:
    """The next one goes on, and what there is then is the same."""
    whole = None
    for last in range(1, 40):
        store = MemoryStore()
        a, b = node("a", store, 1), node("b", store, 2)
        b.agent().step()
        count = [last]
        parts = {name: Stepped(getattr(a, name), count, after=after) for name in ("store", "kernel", "disk")}
        try:
            a.agent(**parts).step()
        except Killed:
            pass
        assert a.agent().step() == READY
        found = a.blocks(), a.kernel.entries, a.kernel.devices, record(store, "a").public_key
        whole = whole or found
        assert found == whole
        if count[0] > 0:
            return
    pytest.fail("it has more than 40 points")


# The key's file


def test_the_private_key(tmp_path: Path) -> None:
    """It is made once, clamped (RFC 7748), for its owner alone."""
    made = disk.private_key(str(tmp_path))
    file = tmp_path / "wireguard.key"
    assert len(made) == 32 and made[0] & 7 == 0 and made[31] >> 6 == 1 and file.stat().st_mode & 0o777 == 0o600
    assert disk.private_key(str(tmp_path)) == made and file.read_bytes() == b64encode(made) + b"\n"
    file.write_bytes(b64encode(b"\xff" * 32))  # as another program may have written it
    assert disk.private_key(str(tmp_path)) == b"\xf8" + b"\xff" * 30 + b"\x7f"


@pytest.mark.parametrize("content", [b"", b"secret", b64encode(bytes(31)), b64encode(bytes(32)) + b"?", b"\xff" * 44])
def test_a_private_key_that_is_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "wireguard.key"
    file.write_bytes(content)
    with pytest.raises(CniError) as caught:
        disk.private_key(str(tmp_path))
    said = str(caught.value)
    assert caught.value.code == errors.STORE_FAILED and str(file) in said and "remove it" in said
    assert not content or content.decode("latin-1") not in said
