"""Several clusters: what one says of the others, what of them is believed, who is let in; away, broken or hostile."""

from __future__ import annotations

import json
import select
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from cni_v6.cluster import files, others, records, vxlan
from cni_v6.cluster.agent import MOST_REFUSALS, Outcome
from cni_v6.cluster.config import AgentConf, OtherCluster, Pool, parse
from cni_v6.cluster.facts import TUNNEL, Endpoint, Passage, Route
from cni_v6.cluster.fake import FakeNode
from cni_v6.cluster.follow import Bell
from cni_v6.cluster.keys import SRV6, STATE_DIR, VXLAN
from cni_v6.cluster.membership import Member
from cni_v6.cluster.other_store import OtherStore
from cni_v6.cluster.records import Claim, NodeRecord, Objects
from cni_v6.cluster.state import State, encode_state
from cni_v6.cluster.store import MemoryStore
from cni_v6.ctl import keep_out
from cni_v6.errors import INVALID_CONFIG, IO_FAILURE, CniError
from tests.unit.test_cluster import CONF, GOOD, POOL4, POOL6, VALIDATOR, parsed
from tests.unit.test_cluster_agent import READY, FullDisk, Place, place

PATIENCE, AT_ONCE = 30.0, 0.01
EAST6, EAST4 = Pool("fd42:8e1f:6b00::/48", 64), Pool("10.245.0.0/16", 26)
EAST = {"name": "east", "store": "file:/east", "pools": [{"cidr": pool.cidr, "block": pool.block}
                                                         for pool in (EAST6, EAST4)]}
OTHER = OtherCluster("east", "file:/east", (EAST6, EAST4))
WITH = replace(CONF, clusters=(OTHER,))
SHUT = tuple(Passage(*prefixes, False) for prefixes in ((EAST6.cidr, POOL6.cidr), (EAST4.cidr, POOL4.cidr)))
BLOCK6, BLOCK4 = "fd42:8e1f:6b00:1::/64", "10.245.0.64/26"
NODE = NodeRecord("a", "e-1", ("fd00:11::51", "172.30.0.51"), "direct")  # its name is one of this cluster too


def store(*nodes: NodeRecord, blocks: tuple[str, ...] = (BLOCK6, BLOCK4)) -> dict[str, str]:
    """The objects of another cluster whose first node has these blocks."""
    claims = [Claim(block, nodes[0].name, nodes[0].id) for block in blocks]
    return {**{node.key: records.encode_node(node) for node in nodes},
            **{claim.key: records.encode_claim(claim) for claim in claims}}


class Elsewhere:
    """Another cluster's store, as the agent has it."""

    def __init__(self, objects: Objects | None) -> None:
        self.objects = objects
        self.failure: CniError | None = None

    def read(self) -> Objects | None:
        if self.failure:
            raise self.failure
        return self.objects


# Configuration


@pytest.mark.parametrize(("keys", "let_in"), [
    ({}, ()),
    ({"ingress": "published"}, ()),
    ({"ingress": "open"}, (EAST6.cidr, EAST4.cidr)),
    ({"ingress": "open", "from": [BLOCK6]}, (BLOCK6,)),
])
def test_a_configuration(keys: dict[str, Any], let_in: tuple[str, ...]) -> None:
    raw = {**GOOD, "clusters": [{**EAST, **keys}]}
    assert parsed(raw).clusters == (replace(OTHER, let_in=let_in),) and list(VALIDATOR.iter_errors(raw)) == []


@pytest.mark.parametrize(("clusters", "says"), [
    ([{**EAST, "pools": []}], "clusters[0].pools: a list is empty"),
    ([{**EAST, "pools": [{"cidr": "fd42:8e1f::/32", "block": 64}]}],
     'clusters[0].pools[0].cidr: "fd42:8e1f::/32" overlaps fd42:8e1f:6a00::/48, a pool of this cluster'),
    ([EAST, {**EAST, "name": "west"}], "overlaps fd42:8e1f:6b00::/48, a pool of cluster east"),
    ([EAST, EAST], 'clusters[1].name: "east" is another cluster\'s name too'),
    ([{**EAST, "pools": [EAST["pools"][0], EAST["pools"][0]]}], "a pool of cluster east"),
    ([{**EAST, "pools": [{"cidr": EAST4.cidr, "block": 8}]}], "clusters[0].pools[0].block: 8"),
    ([{**EAST, "pools": [{"cidr": EAST4.cidr, "block": 26, "podCIDRs": True}]}], 'unknown key "podCIDRs"'),
    ([{**EAST, "ingress": "isolated"}], "none of published, open"),
    ([{**EAST, "from": [BLOCK6]}], "clusters[0].from: a list lets nobody in"),
    ([{**EAST, "ingress": "open", "from": ["10.244.0.0/16"]}], "clusters[0].from[0]"),
    ([{"name": "east", "store": "file:/east"}], "clusters[0].pools is missing"),
])
def test_a_configuration_that_is_refused(clusters: Any, says: str) -> None:
    with pytest.raises(CniError) as caught:
        parsed({**GOOD, "clusters": clusters})
    assert says in str(caught.value) and caught.value.details and caught.value.code == INVALID_CONFIG


def test_who_is_let_in() -> None:
    assert others.gate(WITH) == SHUT and others.gate(CONF) == ()
    assert others.gate(replace(WITH, clusters=(replace(OTHER, let_in=(EAST6.cidr, EAST4.cidr)),))) == ()
    some = replace(OTHER, let_in=(BLOCK6, EAST4.cidr))
    assert others.gate(replace(WITH, clusters=(some,))) == (
        Passage(BLOCK6, POOL6.cidr, True), Passage(EAST4.cidr, POOL4.cidr, True), SHUT[0])


# The agent


@pytest.fixture
def east() -> Elsewhere:
    return Elsewhere(store(NODE))


def ways(node: Place) -> set[str]:
    """The blocks of other clusters that a node has routes to."""
    assert isinstance(node.kernel, FakeNode)
    found = {entry.dst for entry in node.kernel.entries if isinstance(entry, Route) and entry.ifname}
    return {dst for dst in found if POOL6.cidr[:15] not in dst and not dst.startswith("10.244.")}


def begun(east: Elsewhere, conf: AgentConf = WITH) -> Place:
    """A node, alone in its cluster, which has stepped once."""
    made = place("a", MemoryStore(), 1, conf)
    assert made.agent(other_stores={"east": east}).step() == READY
    return made


def test_ways_to_another_cluster_and_nobody_of_it_is_let_in(east: Elsewhere) -> None:
    a = begun(east)
    assert a.kernel.entries >= {Route(BLOCK6, "eth0", "fd00:11::51"), Route(BLOCK4, "eth0", "172.30.0.51")}
    assert a.said == [] and a.kernel.gate == SHUT
    assert [str(operation).split()[0] for operation in a.kernel.written][0] == "set"  # before there is any way
    assert "set what other clusters may reach: drop fd42:8e1f:6b00::/48 to fd42" in str(a.kernel.written[0])
    agent, before = a.agent(other_stores={"east": east}), (list(a.kernel.written), a.disk.writes)
    assert agent.step() == READY and (a.kernel.written, a.disk.writes) == before
    east.objects = {}
    assert agent.step() == READY and ways(a) == set()


class Slow(MemoryStore):
    """A store that takes its time. ``gate``: who was kept out before it was asked."""

    def __init__(self, kernel: FakeNode) -> None:
        super().__init__()
        self._kernel = kernel
        self.gates: list[tuple[Passage, ...]] = []

    def read(self) -> Objects:
        self.gates.append(self._kernel.gate)
        return super().read()


@pytest.mark.parametrize("before", [(), SHUT[:1]])
def test_nobody_is_let_in_while_the_store_is_asked(before: tuple[Passage, ...], east: Elsewhere) -> None:
    """At the start, and when somebody has changed the table."""
    made = place("a", MemoryStore(), 1, WITH)
    made.store = Slow(made.kernel)
    agent = made.agent(other_stores={"east": east})
    made.kernel.gate = before
    agent.step()
    assert set(made.store.gates) == {SHUT} and made.kernel.gate == SHUT


def test_a_cluster_that_is_left_out_again(east: Elsewhere) -> None:
    a = begun(east)
    a.conf = CONF
    assert a.agent().step() == READY and ways(a) == set() and a.kernel.gate == ()
    assert a.disk.state and a.disk.state.others == {}
    assert str(a.kernel.written[-3]) == "set what other clusters may reach: all"


def test_a_node_that_is_removed_has_no_ways(east: Elsewhere) -> None:
    a = begun(east)
    agent = a.agent(other_stores={"east": east})
    agent.step()
    key = "nodes/a"
    a.store.objects[key] = a.store.objects[key].replace("}", ',"removed":true}')
    assert agent.step().removed and a.kernel.entries == set() and a.kernel.gate == ()


@pytest.mark.parametrize("objects", [
    {"pools": "garbage"}, {f"nodes/{number}": "{}" for number in range(others.MOST_OBJECTS + 1)},
    {"nodes/a": "x" * others.MOST_CHARACTERS}, {"x" * others.MOST_CHARACTERS: "{}"},
], ids=["garbage", "many", "a long value", "a long key"])
def test_a_store_that_is_away_or_garbage_changes_nothing(east: Elsewhere, objects: Objects) -> None:
    """Also over a start of the agent, and for a store that was never read."""
    a = begun(east)
    wanted = set(a.kernel.entries)
    a.kernel.entries.clear()  # as after a reboot
    agent = a.agent(other_stores={"east": east})
    east.failure = CniError(IO_FAILURE, "connection refused")
    assert agent.step() == READY and a.kernel.entries == wanted
    assert a.said == ["the store of cluster east cannot be used, so the routes to it stay as they are: "
                      f"{east.failure}"]
    east.failure, east.objects = None, objects
    assert agent.step() == READY and a.kernel.entries == wanted and "stay as they are" in a.said[-1]
    east.objects = None
    assert agent.step() == READY and a.kernel.entries == wanted and a.said[-1] == "all is well again"
    assert a.agent(other_stores={"east": east}).step() == READY and a.kernel.entries == wanted


def test_what_all_other_clusters_may_have_can_be_read_from_the_disk() -> None:
    """However many they are, and whatever characters they take."""
    names = ("one", "two", "three", "four")
    worst = {"nodes/a": "\x01" * (others.MOST_CHARACTERS // len(names) - len("nodes/a"))}
    more = {**worst, "x": ""}
    known, complaints = others.looked_at({name: Elsewhere(worst) for name in names}, {})
    assert [*known] == [*names] and complaints == []
    assert len(others.looked_at({name: Elsewhere(more) for name in names}, known)[1]) == len(names)
    assert len(encode_state(State(Member("a", "1"), others=known))) < files.LIMIT


def test_ones_own_store_away_and_another_there(east: Elsewhere) -> None:
    a = begun(east)

    class Away(MemoryStore):
        def read(self) -> Objects:
            raise CniError(IO_FAILURE, "connection refused")

    east.objects = store(replace(NODE, addresses=("fd00:11::52", "172.30.0.52")))
    assert a.agent(store=Away(), other_stores={"east": east}).step() == Outcome(ready=True, complete=False)
    assert Route(BLOCK6, "eth0", "fd00:11::52") in a.kernel.entries


def test_a_disk_that_is_full(east: Elsewhere) -> None:
    a = begun(east)
    a.disk, before = FullDisk(), a.disk
    a.disk.state, a.disk.conflist, a.disk.full = before.state, before.conflist, True
    east.objects = store(NODE, blocks=(BLOCK6,))
    assert a.agent(other_stores={"east": east}).step() == Outcome(ready=True, complete=False)
    assert ways(a) == {BLOCK6} and "would not know what it is now" in a.said[0]


class NoNetfilter(FakeNode):
    """A kernel that cannot keep anybody out."""

    def _refusal(self, operation: Any) -> str:
        return "no nftables" if hasattr(operation, "passages") else super()._refusal(operation)


def test_a_cluster_that_cannot_be_kept_out_is_not_reached(east: Elsewhere) -> None:
    a = place("a", MemoryStore(), 1, WITH)
    a.kernel = NoNetfilter(a.underlay)
    assert a.agent(other_stores={"east": east}).step() == Outcome(ready=False, complete=False) and not a.disk.ready
    assert ways(a) == set() and "cannot set what other clusters may reach" in a.said[0]
    a.conf = replace(WITH, clusters=(replace(OTHER, let_in=(EAST6.cidr, EAST4.cidr)),))
    assert a.agent(other_stores={"east": east}).step() == READY and ways(a) == {BLOCK6, BLOCK4}


# A hostile one


class NoRoutes(FakeNode):
    """A kernel that takes no route by another node, as if it could not be reached."""

    def _refusal(self, operation: Any) -> str:
        return "no route to host" if "via" in str(operation) else super()._refusal(operation)


def test_what_the_kernel_refuses_of_them_is_not_said_without_end() -> None:
    blocks = [f"fd42:8e1f:6b00:{number:x}::/64" for number in range(1, 101)]
    a = place("a", MemoryStore(), 1, WITH)
    a.kernel = NoRoutes(a.underlay)
    agent = a.agent(other_stores={"east": Elsewhere(store(NODE, blocks=tuple(blocks)))})
    assert agent.step() == Outcome(ready=True, complete=False)
    assert len(a.said) == MOST_REFUSALS + 1 and a.said[-1] == f"the kernel refuses {100 - MOST_REFUSALS} more"


@pytest.mark.parametrize(("objects", "says"), [
    (store(NODE, blocks=("fd42:8e1f:6a00:1::/64",)), "it is not a block of a pool that clusters[].pools names"),
    (store(NODE, blocks=("::/0", "fd42:8e1f:6b00::/48", "fd42:8e1f:6b00:1::/65")),
     "no route to block ::/0 of cluster east, and to 2 more: it is not a block"),
    (store(replace(NODE, name="a\nb")), "its node has a name or a carrier that no agent writes"),
    (store(replace(NODE, carrier="\x1b[2J")), "its node has a name or a carrier that no agent writes"),
    (store(replace(NODE, carrier=VXLAN)), "its carrier is vxlan, and here it is direct"),
    (store(replace(NODE, removed=True)), "not in the cluster's store"),
    (store(replace(NODE, addresses=("fd42:8e1f:6a00:7::5",))), "its node has an address of a container of this"),
    (store(replace(NODE, addresses=("10.244.3.5",))), "its node has an address of a container of this cluster"),
    (store(replace(NODE, addresses=("fd00:11::1",))), "it has an address of this node"),
])
def test_what_is_not_believed(objects: dict[str, str], says: str) -> None:
    a = begun(Elsewhere(objects))
    assert ways(a) == set() and all("cluster east" in words for words in a.said) and says in a.said[0]
    assert len(a.said) == 1 and all(words.isprintable() for words in a.said)


def test_reasons_are_few() -> None:
    nodes = [replace(NODE, name=f"n{number}", id=f"{number}", addresses=()) for number in range(20)]
    objects = {node.key: records.encode_node(replace(node, carrier=VXLAN)) for node in nodes}
    for number, node in enumerate(nodes):
        claim = Claim(f"fd42:8e1f:6b00:{number:x}::/64" if number else "fd42:8e1f:6b00::/64", node.name, node.id)
        objects[claim.key] = records.encode_claim(claim)
    made = place("a", MemoryStore(), 1, replace(WITH, carrier=VXLAN))
    made.agent(other_stores={"east": Elsewhere(objects)}).step()
    assert len(made.said) == others.MOST_REASONS


@pytest.mark.parametrize("carrier", [VXLAN, SRV6])
@pytest.mark.parametrize("whose", ["its own", "a neighbour's"])
def test_the_id_of_a_node_of_this_cluster(carrier: str, whose: str) -> None:
    """MAC, link-local address and SIDs follow from it: packets for the node would go to another cluster."""
    conf = replace(WITH, carrier=carrier)
    own = MemoryStore()
    neighbour, a = place("b", own, 2, replace(CONF, carrier=carrier)), place("a", own, 1, conf)
    neighbour.agent().step()
    a.agent().step()
    before = set(a.kernel.entries)
    assert a.disk.state and neighbour.disk.state
    stolen = (a if whose == "its own" else neighbour).disk.state
    assert stolen
    node = replace(NODE, id=stolen.member.id, carrier=carrier)
    a.agent(other_stores={"east": Elsewhere(store(node))}).step()
    assert a.kernel.entries == before and "its node has the id of another one" in a.said[-1]
    node = replace(NODE, carrier=carrier)
    a.agent(other_stores={"east": Elsewhere(store(node))}).step()
    assert {BLOCK6, BLOCK4} <= ways(a)
    if carrier == VXLAN:
        endpoint, neighbour_entry = vxlan.peer(node)
        assert a.kernel.entries > {endpoint, neighbour_entry} and isinstance(endpoint, Endpoint)
        assert Route(BLOCK6, TUNNEL, neighbour_entry.address) in a.kernel.entries


def test_a_pool_that_another_node_of_this_cluster_has() -> None:
    """This node's configuration does not know of it."""
    own = MemoryStore()
    place("b", own, 2, replace(CONF, pools=(Pool("fd42:8e1f:6b00::/44", 64),))).agent().step()
    a = place("a", own, 1, WITH)
    a.agent(other_stores={"east": Elsewhere(store(NODE))}).step()
    assert ways(a) == {BLOCK4} and any(
        "no route to pool fd42:8e1f:6b00::/48 of cluster east: it overlaps fd42:8e1f:6b00::/44, a pool of this cluster"
        == words for words in a.said)


@pytest.mark.parametrize("pool", [Pool("fd00:11::/64", 64), Pool("172.30.0.0/24", 30)])
def test_a_pool_with_a_node_of_this_cluster(pool: Pool) -> None:
    conf = replace(WITH, clusters=(replace(OTHER, pools=(pool,)),))
    block = "fd00:11::/64" if pool.family == 6 else "172.30.0.0/30"
    a = begun(Elsewhere(store(NODE, blocks=(block,))), conf)
    assert ways(a) == set() and "an address of a node of this cluster" in a.said[0]


# Its store, in a thread of its own


class Followed(MemoryStore):
    """A store that tells of changes by a bell that the test rings; whatever writes fails."""

    def __init__(self) -> None:
        super().__init__({"nodes/a": "1"})
        self.failure: Exception | None = None
        self.closed = False
        self.bell = Bell()

    def read(self) -> Objects:
        if self.failure:
            raise self.failure
        return super().read()

    def commit(self, changes: Any) -> bool:
        raise AssertionError("another cluster's store is read only")

    def registered(self, name: str, own: str) -> Any:
        raise AssertionError("another cluster's store is read only")

    def fileno(self) -> int:
        return self.bell.reader

    def drain(self) -> bool:
        return self.bell.drain()

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def followed() -> Iterator[Followed]:
    made = Followed()
    yield made
    made.bell.close()


def await_news(store: OtherStore) -> None:
    assert select.select([store], [], [], PATIENCE)[0], "nothing was told"
    store.drain()


def test_changes_are_told(followed: Followed) -> None:
    with closing(OtherStore(lambda: followed, AT_ONCE)) as other:
        await_news(other)
        assert other.read() == {"nodes/a": "1"} and not other.drain()
        followed.objects = {"nodes/a": "2"}
        followed.bell.ring()
        await_news(other)
        assert other.read() == {"nodes/a": "2"}
    assert followed.closed


@pytest.mark.parametrize("failure", [CniError(IO_FAILURE, "away"), ValueError("odd")], ids=["away", "unforeseen"])
def test_a_store_that_fails_is_read_again(followed: Followed, failure: Exception) -> None:
    followed.failure = failure
    with closing(OtherStore(lambda: followed, AT_ONCE)) as other:
        await_news(other)
        with pytest.raises(CniError, match="away|ValueError: odd"):
            other.read()
        followed.failure = None
        await_news(other)
        assert other.read() == {"nodes/a": "1"}


def test_a_store_that_cannot_be_opened_yet(followed: Followed) -> None:
    there = Event()

    def opened() -> Followed:
        if not there.is_set():
            raise CniError(IO_FAILURE, "no such folder")
        return followed

    with closing(OtherStore(opened, AT_ONCE)) as other:
        await_news(other)
        with pytest.raises(CniError, match="no such folder"):
            other.read()
        there.set()
        await_news(other)
        assert other.read() == {"nodes/a": "1"}


def test_a_store_that_is_none() -> None:
    def opened() -> Followed:
        raise CniError(INVALID_CONFIG, "names no store")

    with pytest.raises(CniError, match="names no store"):
        OtherStore(opened)


def test_a_store_that_hangs_holds_nothing_up(followed: Followed) -> None:
    """Neither the agent's step nor, for long, its end."""
    asked, go_on = Event(), Event()

    class Hanging(Followed):
        def read(self) -> Objects:
            asked.set()
            assert go_on.wait(PATIENCE)
            return {}

    hanging = Hanging()
    other = OtherStore(lambda: hanging, AT_ONCE)
    assert asked.wait(PATIENCE) and other.read() is None
    go_on.set()
    other.close()
    hanging.bell.close()


# A file that cannot be read


def kept(content: bytes, kernel: FakeNode) -> list[str]:
    said: list[str] = []
    keep_out.as_before(kernel, content, said.append)
    return said


@pytest.mark.parametrize("front", ["{", '{"pools": [], "bgp": {,', "\xff"])
def test_the_copy_of_the_last_good_file_keeps_out(tmp_path: Path, front: str) -> None:
    """It is in the folder that the broken file names, as far as that can be read."""
    folder = tmp_path / 'of "the" agent'
    good = json.dumps({**GOOD, "clusters": [EAST], "stateDir": str(folder)}).encode()
    broken = (front + good.decode()[1:].removesuffix("}")).encode("latin-1")
    kernel, said = FakeNode(None), list[str]()
    [words] = kept(broken, kernel)
    assert words.startswith("no other cluster is kept out") and str(folder) in words and not kernel.gate
    keep_out.keep_copy(parse(good, "agent.json"), good, said.append)
    before = (folder / "agent.json").stat()
    keep_out.keep_copy(parse(good, "agent.json"), good, said.append)
    assert (folder / "agent.json").stat().st_ino == before.st_ino and before.st_mode & 0o777 == 0o600 and not said
    [words] = kept(broken, kernel)
    assert words.endswith(f"could be read: {EAST6.cidr}, {EAST4.cidr}") and kernel.gate == SHUT
    kernel.gate = SHUT[:1]
    [words] = kept(broken, kernel)
    assert "kept out still" in words and kernel.gate == SHUT[:1]
    kernel.gate = ()
    (folder / "agent.json").write_bytes(broken)
    [words] = kept(broken, kernel)
    assert words.startswith("no other cluster is kept out") and not kernel.gate


@pytest.mark.parametrize("content", [b"", b'{"stateDir": "relative"}', b'{"stateDir": "/\\x"}'])
def test_the_usual_folder(content: bytes) -> None:
    assert keep_out.folder_of(content) == STATE_DIR


def test_a_copy_that_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    keep_out.keep_copy(replace(WITH, state_dir=str(tmp_path / "file")), b"", said.append)
    [words] = said
    assert "cannot be read would keep no other cluster out" in words


def test_the_copy_closes_nothing(tmp_path: Path) -> None:
    good = json.dumps({**GOOD, "stateDir": str(tmp_path)}).encode()
    keep_out.keep_copy(parse(good, "agent.json"), good, pytest.fail)
    [words] = kept(good[:-1], FakeNode(None))
    assert words.endswith("could be read: nobody")
