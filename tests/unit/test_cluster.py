"""The pure core of the node agent: configuration, blocks, membership, routes, the list for the runtime."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from jsonschema import Draft202012Validator

from cni_v6 import errors
from cni_v6.cluster import blocks, conflist, membership, records, routes
from cni_v6.cluster.config import AgentConf, Pool, parse, parse_node_name, schema
from cni_v6.cluster.facts import Add, Facts, Forward, Pair, Remove, RemoveDevice, Route, SetTable, Underlay
from cni_v6.cluster.membership import Member
from cni_v6.cluster.records import Change, Claim, Cluster, NodeRecord
from cni_v6.cluster.state import State, decode_state, encode_state
from cni_v6.cluster.store import MemoryStore, Registered, applied
from cni_v6.errors import CniError
from tests.sandbox import ROOT
from tests.unit import config_tables

POOL6, POOL4 = Pool("fd42:8e1f:6a00::/48", 64), Pool("10.244.0.0/16", 26)
GOOD: dict[str, Any] = {
    "pools": [{"cidr": POOL6.cidr, "block": 64}, {"cidr": POOL4.cidr, "block": 26}],
    "conflist": {"template": "/etc/cni/template.conflist", "target": "/etc/cni/net.d/10-cni-v6.conflist"},
}
UNKNOWN = Registered("")  # the store's engine knows no nodes
CONF = AgentConf((POOL6, POOL4), "direct", "", GOOD["conflist"]["template"], GOOD["conflist"]["target"], "/state")
A, B = Member("a", "1"), Member("b", "2")
LINK = Underlay("eth0", 1500, True, ("172.30.0.1", "fd00:11::1", "fe80::1"))
VALIDATOR = Draft202012Validator(schema())


def parsed(raw: Any) -> AgentConf:
    return parse(json.dumps(raw).encode(), "agent.json")


# Configuration


def test_a_configuration() -> None:
    assert parsed(GOOD) == replace(CONF, state_dir="/var/lib/cni/cluster")
    whole = {**GOOD, "carrier": "direct", "underlay": "eth1", "stateDir": "/srv/cluster"}
    assert parsed(whole) == replace(CONF, underlay="eth1", state_dir="/srv/cluster")
    assert parsed({**GOOD, "underlay": "auto"}).underlay == ""
    Draft202012Validator.check_schema(schema())
    assert [error.message for raw in (GOOD, whole) for error in VALIDATOR.iter_errors(raw)] == []


@pytest.mark.parametrize(("raw", "says"), [
    ({**GOOD, "pools": []}, "pools: a list is empty"),
    ({**GOOD, "pools": [*GOOD["pools"], {"cidr": "10.1.0.0/16", "block": 24}]}, 'pools[2].cidr: "10.1.0.0/16" is IPv4'),
    ({**GOOD, "pools": [{"cidr": "fd42::1/48", "block": 64}]}, "host bits set"),
    ({**GOOD, "pools": [{"cidr": "fd42::/48", "block": 47}]}, "write one from 48 to 126"),
    ({**GOOD, "pools": [{"cidr": "10.244.0.0/16", "block": 31}]}, "write one from 16 to 30"),
    ({**GOOD, "pools": [{"cidr": "10.244.0.0/16"}]}, "pools[0].block is missing"),
    ({**GOOD, "carrier": "pigeon"}, 'carrier: "pigeon" is none of'),
    ({**GOOD, "carier": "direct"}, 'did you mean "carrier"?'),
    ({**GOOD, "colour": "red"}, 'unknown key "colour"'),
    ({**GOOD, "conflist": {"template": "/a/b"}}, "conflist.target is missing"),
    ({**GOOD, "conflist": {"template": "/a/b", "target": "/a//b"}}, "is the template"),
    ({**GOOD, "stateDir": "cluster"}, "is not an absolute path"),
    ([], "is not a JSON object"),
])
def test_a_configuration_that_is_refused(raw: Any, says: str) -> None:
    with pytest.raises(CniError) as caught:
        parsed(raw)
    assert says in str(caught.value) and caught.value.details


def test_a_key_that_is_written_twice() -> None:
    with pytest.raises(CniError, match="agent.json: carrier is written twice"):
        parse(b'{"carrier": "direct", "carrier": "direct"}', "agent.json")


@settings(max_examples=25)
@given(raw=st.recursive(
    st.none() | st.booleans() | st.integers()
    | st.sampled_from(["", "auto", "direct", "eth0", "/a", "/b", "10.0.0.0/8"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["pools", "cidr", "block", "carrier", "underlay", "conflist", "template", "target"]), inner,
    ),
), key=st.sampled_from(["pools", "carrier", "underlay", "conflist", "stateDir"]))
def test_what_the_parser_takes_is_valid(raw: Any, key: str) -> None:
    try:
        parsed({**GOOD, key: raw})
    except CniError:
        return
    assert list(VALIDATOR.iter_errors({**GOOD, key: raw})) == []


@pytest.mark.parametrize("name", ["a", "node-1.example.org", "N" * 253])
def test_a_name_of_a_node(name: str) -> None:
    assert parse_node_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "a/b", "a b", "ü", "N" * 254, "a\n"])
def test_no_name_of_a_node(name: str) -> None:
    with pytest.raises(CniError, match="--node"):
        parse_node_name(name)


# Blocks


@pytest.mark.parametrize("pool", [POOL6, POOL4, Pool("fd42::/48", 122), Pool("fd42::/64", 64)], ids=str)
def test_a_block_is_of_its_pool_and_the_same_each_time(pool: Pool) -> None:
    block = blocks.choose(pool, "a", [])
    assert pool.is_block(block) and blocks.choose(pool, "a", []) == block
    assert not pool.is_block("fd43::/64") and not pool.is_block("fd42::/127")


@settings(max_examples=20)
@given(names=st.sets(st.text(min_size=1, max_size=4), min_size=16, max_size=16))
def test_a_pool_is_used_to_its_last_block(names: set[str]) -> None:
    pool, taken = Pool("fd42::/60", 64), list[str]()
    for name in sorted(names):
        taken.append(blocks.choose(pool, name, taken))
    assert len(set(taken)) == 16 and all(pool.is_block(block) for block in taken)
    with pytest.raises(CniError) as caught:
        blocks.choose(pool, "last", taken)
    assert caught.value.code == errors.ADDRESSES_EXHAUSTED and "all 16 are claimed" in str(caught.value)


def test_blocks_of_another_length_and_family_are_taken_into_account() -> None:
    pool = Pool("fd42::/62", 64)
    assert {blocks.choose(pool, name, ["fd42::/63", "fd42:0:0:2::1:0/122", "10.0.0.0/8"]) for name in "abcdefgh"} == {
        "fd42:0:0:3::/64"
    }


def test_blocks_that_the_node_had_are_preferred() -> None:
    """Those that are free, in the order of before."""
    kept = ("fd42:8e1f:6a00:9::/64", "fd42:8e1f:6a00:5::/64", "fd42:8e1f:6a00:7::/64", "10.99.0.0/26")
    taken = Claim(kept[1], "b", "2")
    objects = join(A, {taken.key: records.encode_claim(taken)}, kept=kept)
    six, other, four = own(A, objects)
    assert (six, other) == (kept[0], kept[2]) and POOL4.is_block(four)
    assert join(A, objects, kept=kept) == objects
    assert {claim.prefix: claim.order for claim in records.read(objects).claims if claim.node == "a"} == {
        six: 0, other: 1, four: 0}


# Objects


@pytest.mark.parametrize(("order", "read"), [(0, 0), (7, 7), (1 << 16, 1 << 16), (4294967295, 0)])
def test_the_order_of_a_claim(order: int, read: int) -> None:
    """One that is so large that the next claim could have none that is read counts as none."""
    text = records.encode_claim(Claim("fd42:8e1f:6a00:1::/64", "a", "1", order))
    [claim] = records.read({"blocks/fd42:8e1f:6a00:1::/64": text}).claims
    assert claim.order == read


def test_objects_are_read_as_they_were_written() -> None:
    node = NodeRecord("a", "1", ("fd00:11::1", "172.30.0.1"), "direct")
    gone = NodeRecord("b", "2", (), "direct", removed=True)
    claim = Claim("fd42:8e1f:6a00:1::/64", "a", "1")
    cluster = records.read({
        records.POOLS: records.encode_pools({POOL6.cidr: 64}), node.key: records.encode_node(node),
        gone.key: records.encode_node(gone), claim.key: records.encode_claim(claim), "else": "7",
    })
    assert cluster == Cluster({POOL6.cidr: 64}, {"a": node, "b": gone}, (claim,), (claim.prefix,))
    assert cluster.of_node(node) == (claim,) and cluster.of_node(replace(node, id="3")) == ()
    assert (node.address(6), node.address(4), gone.address(4)) == ("fd00:11::1", "172.30.0.1", None)


@pytest.mark.parametrize(("key", "text", "says"), [
    ("nodes/a", "{", "not JSON"),
    ("nodes/a", "[]", "not a JSON object"),
    ("nodes/a", "{}", "id is missing"),
    ("nodes/a", '{"id": "1", "addresses": ["x"]}', "not an IPv4 or IPv6 address"),
    ("nodes/a", '{"id": "1", "addresses": [""]}', "not a list of addresses"),
    ("nodes/a", '{"id": "1", "addresses": ["::1", "::2"]}', "one address a family"),
    ("blocks/fd42::/64", '{"node": "a"}', "id is missing"),
    ("blocks/fd42::1/64", '{"node": "a", "id": "1"}', "canonical"),
])
def test_an_object_that_cannot_be_read_is_left_out_and_said(key: str, text: str, says: str) -> None:
    cluster = records.read({key: text})
    [words] = cluster.complaints
    assert says in words and words.isascii() and not cluster.nodes and not cluster.claims


def test_a_block_whose_object_cannot_be_read_is_taken() -> None:
    assert records.read({"blocks/fd42::/64": "garbage"}).taken == ("fd42::/64",)


@pytest.mark.parametrize("text", ["{", "7", '{"fd42::1/48": 64}', '{"fd42::/48": "64"}', '{"fd42::/48": null}'])
def test_pools_that_cannot_be_read(text: str) -> None:
    with pytest.raises(CniError) as caught:
        records.read({"pools": text})
    assert caught.value.code == errors.DECODING_FAILURE


def test_objects_that_are_as_before_are_not_read_again() -> None:
    reader = records.Reader()
    objects = join(B, join(A, {}))
    cluster = reader.read(objects)
    assert reader.read(dict(objects)) is cluster == records.read(objects)
    without = {key: text for key, text in objects.items() if key != "nodes/b"}
    assert reader.read(without) == records.read(without) != cluster
    with pytest.raises(CniError):
        reader.read({"pools": "garbage"})
    assert reader.read(objects) == cluster and reader.read({}) == Cluster()


def test_all_changes_are_made_or_none() -> None:
    store = MemoryStore({"a": "1"})
    assert not store.commit([Change("b", None, "2"), Change("a", "2", None)])
    assert store.commit([Change("b", None, "2"), Change("a", "1", None), Change("c", None, None)])
    assert store.read() == {"b": "2"} and applied({}, []) == {}


def test_the_state_on_disk() -> None:
    state = State(A, {"nodes/a": "garbage \ufffd"})
    assert decode_state(encode_state(state), "state.json") == state
    assert decode_state(b'{"version": 1, "node": "a", "id": "1"}', "state.json") == State(A)
    more = State(A, {"nodes/a": "1"}, {"east": {"nodes/b": "2"}})
    assert decode_state(encode_state(more), "state.json") == more
    with pytest.raises(CniError, match="version is 2, not 1"):
        decode_state(b'{"version": 2}', "state.json")


# Membership


def join(
    member: Member, objects: dict[str, str], underlay: Underlay = LINK, kept: tuple[str, ...] = (),
    registered: Registered = UNKNOWN,
) -> dict[str, str]:
    """The objects after a node has joined."""
    cluster = records.read(objects)
    found = membership.changes(member, CONF, objects, cluster, underlay=underlay, kept=kept, registered=registered)
    later = applied(objects, found)
    assert later is not None
    return later


def changes(conf: AgentConf, objects: dict[str, str], registered: Registered = UNKNOWN) -> tuple[Change, ...]:
    """Of node b."""
    return membership.changes(B, conf, objects, records.read(objects), underlay=LINK, kept=(), registered=registered)


def own(member: Member, objects: dict[str, str]) -> tuple[str, ...]:
    return membership.own_blocks(member, CONF, records.read(objects))


def test_a_node_joins_and_then_changes_nothing() -> None:
    objects = join(A, {})
    cluster = records.read(objects)
    assert cluster.nodes == {"a": NodeRecord("a", "1", ("fd00:11::1", "172.30.0.1"), "direct")}
    assert cluster.pools == {POOL6.cidr: 64, POOL4.cidr: 26}
    six, four = own(A, objects)
    assert POOL6.is_block(six) and POOL4.is_block(four)
    assert membership.changes(A, CONF, objects, cluster, underlay=LINK, kept=(), registered=UNKNOWN) == ()
    assert set(own(B, join(B, objects))).isdisjoint((six, four))


def test_next_hops_stay_while_the_interface_has_them() -> None:
    objects = join(A, {})
    more = replace(LINK, addresses=("10.0.0.1", "fd00::5", *LINK.addresses))
    assert join(A, objects, more) == objects
    other = records.read(join(A, objects, replace(LINK, addresses=("fe80::1", "fd00::5")))).nodes["a"]
    assert other.addresses == ("fd00::5",)
    assert records.read(join(A, {}, replace(LINK, addresses=("fe80::1",)))).nodes["a"].addresses == ("fe80::1",)


def test_a_name_is_one_nodes() -> None:
    with pytest.raises(CniError) as caught:
        join(Member("a", "9"), join(A, {}))
    assert caught.value.code == errors.NODE_CONFLICT
    assert "another node has the name a at fd00:11::1, 172.30.0.1" in str(caught.value)
    with pytest.raises(CniError, match="another node has the name a: if that"):
        join(Member("a", "9"), join(A, {}, replace(LINK, addresses=())))


def test_pools_are_the_same_on_all_nodes() -> None:
    objects = join(A, {})
    for pools, says in (((Pool(POOL6.cidr, 72),), "this cluster fd42:8e1f:6a00::/48 has blocks of /64"),
                        ((Pool("fd42:8e1f::/32", 64),), "overlaps fd42:8e1f:6a00::/48")):
        with pytest.raises(CniError, match=says):
            changes(replace(CONF, pools=pools), objects)
    apart = replace(CONF, pools=(Pool("fd43::/48", 64),))
    found = changes(apart, objects)
    assert records.read(applied(objects, found) or {}).pools == {POOL6.cidr: 64, POOL4.cidr: 26, "fd43::/48": 64}


def test_a_claim_fails_if_the_pools_change_meanwhile() -> None:
    objects = join(A, {})
    found = changes(CONF, objects)
    assert applied({**objects, "pools": records.encode_pools({POOL6.cidr: 72})}, found) is None


GIVEN = replace(CONF, pools=(replace(POOL6, given=True), replace(POOL4, given=True)))
BLOCK6, BLOCK4 = "fd42:8e1f:6a00:7::/64", "10.244.9.0/26"


def test_changes_are_harmless_without_those_after_them() -> None:
    """For a store without transactions: a pool before its blocks, a block before the node that has it."""
    found = changes(CONF, {})
    assert [change.key.partition("/")[0] for change in found] == ["pools", "blocks", "blocks", "nodes"]
    for number in range(len(found)):
        half = applied({}, found[:number])
        assert half is not None and join(B, half) == applied({}, found)


def test_the_block_that_the_engine_gives_is_claimed() -> None:
    given = Registered("2", (BLOCK4, BLOCK6))
    made = applied({}, changes(GIVEN, {}, given))
    assert made is not None
    cluster = records.read(made)
    assert membership.own_blocks(B, GIVEN, cluster) == (BLOCK6, BLOCK4)
    assert changes(GIVEN, made, given) == () and [*membership.awaited(B, GIVEN, cluster, given)] == []


def test_a_block_that_the_engine_does_not_give_is_awaited() -> None:
    given = Registered("2", (BLOCK4, "fd42:8e1f:6a00:7::/72"))
    made = applied({}, changes(GIVEN, {}, given))
    assert made is not None and [key for key in made if key.startswith("blocks/")] == [f"blocks/{BLOCK4}"]
    assert [*membership.awaited(B, GIVEN, records.read(made), given)] == [
        "Kubernetes gives the node no block of /64 of fd42:8e1f:6a00::/48 "
        f"(spec.podCIDRs: {BLOCK4}, fd42:8e1f:6a00:7::/72)"]
    [first, _] = membership.awaited(B, GIVEN, Cluster(), Registered("2", ()))
    assert first.endswith("(spec.podCIDRs: none)")


def test_a_block_that_the_node_before_still_has_is_awaited() -> None:
    given = Registered("2", (BLOCK6, BLOCK4))
    before = {f"blocks/{BLOCK6}": records.encode_claim(Claim(BLOCK6, "b", "1"))}
    made = applied(before, changes(GIVEN, before, given))
    assert made is not None and f"blocks/{BLOCK4}" in made
    assert [*membership.awaited(B, GIVEN, records.read(made), given)] == [
        f"block {BLOCK6}, which Kubernetes gives the node, is still claimed by another one"]


def test_an_engine_that_knows_nodes_decides_whose_a_name_is() -> None:
    objects = join(Member("b", "1"), {})
    found = applied(objects, changes(CONF, objects, Registered("2", ())))
    assert found is not None and records.read(found).nodes["b"].id == "2"


def test_only_one_gives_a_pools_blocks_out() -> None:
    with pytest.raises(CniError, match=r'pools\[1\].cidr: "10.244.0.0/16" has 10.244.9.0/24, which Kubernetes gives'):
        changes(CONF, {}, Registered("2", ("10.244.9.0/24",)))
    with pytest.raises(CniError, match=r"pools\[0\].podCIDRs: true, but the cluster's store is not Kubernetes"):
        changes(GIVEN, {})
    assert changes(CONF, {}, Registered("2", ("10.200.0.0/24",)))


def test_an_operator_removes_a_node() -> None:
    objects = join(B, join(A, {}))
    removed = applied(objects, membership.removal("a", objects, records.read(objects)))
    assert removed is not None and own(A, removed) == () and own(B, removed) == own(B, objects)
    cluster = records.read(removed)
    assert membership.is_removed(A, cluster)
    assert not membership.is_removed(Member("a", "9"), cluster) and not membership.is_removed(Member("c", "1"), cluster)
    back = join(A, removed, kept=own(A, objects))
    assert own(A, back) == own(A, objects)
    assert own(Member("a", "9"), join(Member("a", "9"), removed))
    gone = applied(removed, membership.removal("a", removed, cluster))
    assert gone is not None and "a" not in records.read(gone).nodes
    with pytest.raises(CniError, match="the cluster has no node a.*its nodes are: b"):
        membership.removal("a", gone, records.read(gone))
    with pytest.raises(CniError, match="its nodes are: none"):
        membership.removal("a", {}, Cluster())


def test_a_store_that_lost_everything_gets_the_nodes_block_again() -> None:
    kept = ("fd42:8e1f:6a00:7::/64", "10.244.9.0/26")
    assert own(A, join(A, {}, kept=kept)) == kept


# Routes


def both(first: Underlay = LINK, second: Underlay | None = None) -> Cluster:
    second = second or replace(LINK, addresses=("172.30.0.2", "fd00:11::2", "fe80::2"))
    return records.read(join(B, join(A, {}, first), second))


@pytest.mark.parametrize(("here", "there", "hops"), [
    (("172.30.0.1", "fd00:11::1"), ("172.30.0.2", "fd00:11::2"), ["fd00:11::2", "172.30.0.2"]),
    (("fd00:11::1",), ("172.30.0.2", "fd00:11::2"), ["fd00:11::2", "fd00:11::2"]),
    (("fe80::1", "172.30.0.1"), ("fe80::2",), ["fe80::2", "fe80::2"]),
])
def test_next_hops(here: tuple[str, ...], there: tuple[str, ...], hops: list[str]) -> None:
    underlay = replace(LINK, addresses=here)
    cluster = both(underlay, replace(LINK, addresses=there))
    wanted = routes.wanted(A, CONF, cluster, underlay)
    own6, own4 = membership.own_blocks(A, CONF, cluster)
    its6, its4 = membership.own_blocks(B, CONF, cluster)
    ways = {Route(its6, "eth0", hops[0]), Route(its4, "eth0", hops[1])}
    assert wanted == routes.Wanted(frozenset({Route(own6), Route(own4), *ways}), forwarding=("eth0",))


def test_why_a_block_has_no_route() -> None:
    cluster = both()
    its6, its4 = membership.own_blocks(B, CONF, cluster)
    node = cluster.nodes["b"]

    def complaint(cluster: Cluster, conf: AgentConf = CONF, underlay: Underlay | None = LINK) -> str:
        found = routes.wanted(A, conf, cluster, underlay)
        ways = {route.ifname for route in found.entries if isinstance(route, Route)}
        assert ways <= {"", "eth0"} and found.complaints
        return found.complaints[0]

    def changed(**keys: Any) -> Cluster:
        return replace(cluster, nodes={**cluster.nodes, "b": replace(node, **keys)})

    assert "is not a block of a pool" in complaint(cluster, replace(CONF, pools=(POOL4,)))
    assert "not in the cluster's store" in complaint(replace(cluster, nodes={}))
    assert "not in the cluster's store" in complaint(changed(id="9"))
    assert "not in the cluster's store" in complaint(changed(removed=True))
    assert "its carrier is vxlan, and here it is direct" in complaint(changed(carrier="vxlan"))
    assert "no interface" in complaint(cluster, underlay=None)
    assert "no address of one family" in complaint(cluster, underlay=replace(LINK, addresses=("172.30.0.1",)))
    assert f"no route to block {its4} of node b" in complaint(changed(addresses=()))
    assert f"block {its6}" in " ".join(routes.wanted(A, CONF, changed(addresses=("172.30.0.2",)), LINK).complaints)


def test_a_way_that_is_as_before_is_not_looked_for_again() -> None:
    ways = routes.Ways()
    cluster = both()

    def found(cluster: Cluster, underlay: Underlay = LINK, conf: AgentConf = CONF) -> routes.Wanted:
        wanted = routes.wanted(A, conf, cluster, underlay, ways)
        assert wanted == routes.wanted(A, conf, cluster, underlay)
        return wanted

    first = found(cluster)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "way_to", None)
        assert routes.wanted(A, CONF, cluster, LINK, ways) == first
    moved = both(second=replace(LINK, addresses=("172.30.0.3", "fd00:11::3")))
    again = found(moved)
    assert again.entries - first.entries == {route for route in again.entries if isinstance(route, Route)
                                             and route.gateway in ("172.30.0.3", "fd00:11::3")} != set()
    assert found(replace(moved, claims=moved.claims[:1])).entries < again.entries
    assert found(moved, replace(LINK, ifname="eth1")).forwarding == ("eth1",)
    assert found(moved, conf=replace(CONF, carrier="vxlan")).complaints


def test_the_difference_is_removals_then_additions() -> None:
    old, new, same = Route("fd42::/64", "eth0", "fd00::1"), Route("fd42::/64", "eth0", "fd00::2"), Route("fd43::/64")
    seen = Facts(LINK, entries=frozenset({old, same}))
    needed = routes.Wanted(frozenset({new, same}), forwarding=("eth0",))
    assert list(routes.difference(seen, needed)) == [Remove(old), Add(new)]
    assert list(routes.difference(replace(seen, closed=frozenset({"eth0", "eth1"})), needed))[0] == Forward("eth0")
    operations = (Remove(same), Add(new), Forward("eth0"), RemoveDevice("cni-v6-srv6"),
                  SetTable(Pair(1460, "fd00::1"), frozenset()))
    assert [str(operation) for operation in operations] == [
        "remove route unreachable fd43::/64", "add route fd42::/64 via fd00::2 dev eth0",
        "forward what comes in by eth0", "remove interface cni-v6-srv6",
        "set the table of nftables of interfaces cni-v6-srv6 and cni-v6-srv6-in from fd00::1 (mtu 1460)",
    ]


# The list for the runtime


TEMPLATE: dict[str, Any] = {
    "cniVersion": "1.0.0", "name": "pods",
    "plugins": [{"type": "cni-v6", "ipam": {"type": "cni-v6-ipam"}}, {"type": "tuning"}],
}


def template(**keys: Any) -> conflist.Document:
    raw = {**TEMPLATE, "plugins": [{**TEMPLATE["plugins"][0], **keys}, *TEMPLATE["plugins"][1:]]}
    return conflist.parse_template(json.dumps(raw).encode(), "/t")


@pytest.mark.parametrize(("mtu", "written"), [(None, 1500), (0, 1500), ("auto", 1500), (9000, 1500), (1400, 1400)])
def test_the_list(mtu: Any, written: int) -> None:
    sets = [["fd42::/64"], ["10.244.0.0/26", "10.244.7.0/26"]]
    raw = json.loads(conflist.render(template(mtu=mtu), sets, 1500))
    assert raw["plugins"][0] == {
        "type": "cni-v6", "mtu": written, "ipam": {"type": "cni-v6-ipam", "ranges": [
            [{"subnet": "fd42::/64"}], [{"subnet": "10.244.0.0/26"}, {"subnet": "10.244.7.0/26"}]]},
    }
    assert {**raw, "plugins": raw["plugins"][1:]} == {**TEMPLATE, "plugins": [{"type": "tuning"}]}


@pytest.mark.parametrize(("raw", "says"), [
    ({"name": "pods"}, "plugins is no list"),
    ({"plugins": []}, "plugins is no list"),
    ({"plugins": ["x"]}, "plugins is no list"),
    ({"plugins": [{"type": "cni-v6"}]}, "plugins[0].ipam is null"),
    ({"plugins": [{"ipam": {"ranges": []}}]}, "plugins[0].ipam.ranges is what the agent writes"),
    ({"plugins": [{"ipam": {"subnet": "10.0.0.0/8"}}]}, "plugins[0].ipam.subnet is what the agent writes"),
    ({"plugins": [{"ipam": {}, "mtu": True}]}, "plugins[0].mtu is true"),
    ({"plugins": [{"ipam": {}, "mtu": "x"}]}, "plugins[0].mtu is 'x'"),
    ({"plugins": [{"ipam": {}, "mtu": -1}]}, "plugins[0].mtu is -1"),
    ({"plugins": [{"ipam": {}, "nonMasquerade": "x"}]}, "plugins[0].nonMasquerade is 'x'"),
])
def test_a_template_that_is_refused(raw: Any, says: str) -> None:
    with pytest.raises(CniError) as caught:
        conflist.parse_template(json.dumps(raw).encode(), "/t")
    assert f"template /t: {says}" in str(caught.value) and caught.value.details


@pytest.mark.parametrize(("keys", "written"), [
    ({}, None),
    ({"ipMasq": False}, None),
    ({"masquerade": {"ipv6": "auto"}}, ["fd43::/48", "10.1.0.0/16"]),
    ({"ipMasq": True, "nonMasquerade": ["10.0.0.0/8", "fd43::/48"]}, ["10.0.0.0/8", "fd43::/48", "10.1.0.0/16"]),
])
def test_sources_towards_other_clusters_stay(keys: dict[str, Any], written: Any) -> None:
    text = conflist.render(template(**keys), [["fd42::/64"]], 1500, ["fd43::/48", "10.1.0.0/16"])
    assert json.loads(text)["plugins"][0].get("nonMasquerade") == written
    assert json.loads(conflist.render(template(**keys), [["fd42::/64"]], 1500))["plugins"][0].items() >= keys.items()


@pytest.mark.parametrize("folder", ["conf/cluster", "conf/cluster/kubernetes", "conf/cluster/kubernetes-ipv6"])
def test_the_samples(folder: str) -> None:
    """The agent takes both, and the plugin takes what it writes, without a word."""
    conf = parse((ROOT / folder / "agent.json").read_bytes(), "agent.json")
    sample = conflist.parse_template((ROOT / folder / "template.conflist").read_bytes(), conf.template)
    taken = [[blocks.choose(pool, "a", [])] for pool in conf.pools]
    raw = json.loads(conflist.render(sample, taken, 1500))
    call = config_tables.call({"cniVersion": raw["cniVersion"], "name": raw["name"], **raw["plugins"][0]})
    assert config_tables.parse(call) and call.log.text() == ""
    assert raw["plugins"][0]["nonMasquerade"] == [pool.cidr for pool in conf.pools]
