"""The agent's step: on a store, a kernel and a disk in memory, ended at every point at which it acts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.cluster import facts, membership, records, srv6
from cni_v6.cluster.agent import TRIES, Agent, Outcome
from cni_v6.cluster.config import AgentConf
from cni_v6.cluster.facts import (
    TUNNEL,
    Endpoint,
    Facts,
    Forward,
    Neighbour,
    Op,
    Pair,
    Route,
    SegmentRoute,
    Tunnel,
    Underlay,
)
from cni_v6.cluster.fake import FakeNode
from cni_v6.cluster.keys import SRV6, VXLAN
from cni_v6.cluster.records import Change, Objects
from cni_v6.cluster.state import State
from cni_v6.cluster.store import MemoryStore, Registered
from cni_v6.errors import CniError
from tests.cluster_load import MemoryDisk
from tests.unit.test_cluster import CONF, LINK, template


class Killed(BaseException):
    """The process ends here."""


class Stepped:
    """Counts the calls of everything that acts, and ends the process before or after one of them."""

    def __init__(self, acting: Any, last: list[int], *, after: bool) -> None:
        self._acting = acting
        self._last = last
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._acting, name)
        if name not in ("commit", "apply", "save", "write_conflist", "set_ready", "check", "replace", "reload"):
            return method

        def call(*arguments: Any) -> Any:
            self._last[0] -= 1
            if self._last[0] == 0 and not self._after:
                raise Killed
            made = method(*arguments)
            if self._last[0] == 0:
                raise Killed
            return made

        return call


@dataclass
class Place:
    """A node: its kernel, its disk, and what its agent has said."""

    name: str
    store: MemoryStore
    underlay: Underlay
    disk: MemoryDisk = field(default_factory=MemoryDisk)
    said: list[str] = field(default_factory=list)
    ids: int = 0
    conf: AgentConf = CONF
    boot: str = ""

    def __post_init__(self) -> None:
        self.kernel = FakeNode(self.underlay)

    def agent(self, **others: Any) -> Agent:
        parts = {"store": self.store, "kernel": self.kernel, "disk": self.disk, "boot": self.boot, **others}
        return Agent(self.conf, self.name, template(), make_id=self.make_id, say=self.said.append, **parts)

    def make_id(self) -> str:
        self.ids += 1
        return f"{self.name}-{self.ids}"

    def blocks(self) -> tuple[str, ...]:
        assert self.disk.state
        return membership.own_blocks(self.disk.state.member, CONF, records.read(self.store.objects))


def place(name: str, store: MemoryStore, number: int, conf: AgentConf = CONF) -> Place:
    underlay = replace(LINK, addresses=(f"fd00:11::{number}", f"172.30.0.{number}"))
    return Place(name, store, underlay, conf=conf)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def a(store: MemoryStore) -> Place:
    return place("a", store, 1)


@pytest.fixture
def b(store: MemoryStore) -> Place:
    return place("b", store, 2)


VXLAN_CONF, SRV6_CONF = replace(CONF, carrier=VXLAN), replace(CONF, carrier=SRV6)
READY = Outcome(ready=True, complete=True)


def test_two_nodes(a: Place, b: Place) -> None:
    first, second = a.agent(), b.agent()
    assert (first.step(), second.step(), first.step()) == (READY, READY, READY)
    ways = {Route(block, "eth0", hop) for block, hop in zip(b.blocks(), ("fd00:11::2", "172.30.0.2"))}
    assert a.kernel.entries == {*map(Route, a.blocks()), *ways} and a.said == []
    assert a.disk.ready and a.disk.conflist and all(f'"{block}"' in a.disk.conflist for block in a.blocks())


def test_a_second_step_writes_nothing(a: Place, b: Place) -> None:
    agent = a.agent()
    b.agent().step()
    agent.step()
    before = dict(a.store.objects), list(a.kernel.written), a.disk.writes
    assert agent.step() == READY and (dict(a.store.objects), a.kernel.written, a.disk.writes) == before


def test_a_node_that_joins_is_said_once(a: Place) -> None:
    """It claims block after block before it is there, on a store without transactions."""
    agent = a.agent()
    agent.step()
    node = records.NodeRecord("z", "z-1", ("fd00:11::9", "172.30.0.9"), "direct")
    for prefix in ("fd42:8e1f:6a00:99::/64", "10.244.9.0/26"):
        claim = records.Claim(prefix, node.name, node.id)
        a.store.objects[claim.key] = records.encode_claim(claim)
        assert agent.step() == READY
    [said] = a.said
    assert said.startswith("node z has claimed blocks, and is not in the cluster's store yet: it joins, or")
    a.store.objects[node.key] = records.encode_node(node)
    assert agent.step() == READY and a.said == [said, "all is well again"]


def test_what_somebody_deletes_comes_back(a: Place) -> None:
    agent = a.agent()
    agent.step()
    wanted = set(a.kernel.entries)
    a.kernel.entries.clear()
    a.disk.conflist = "{}"
    agent.step()
    assert a.kernel.entries == wanted and a.disk.conflist != "{}"


class AwayStore:
    """A store that cannot be reached."""

    def read(self) -> Objects:
        raise CniError(errors.IO_FAILURE, "connection refused")

    def commit(self, changes: Sequence[Change]) -> bool:
        raise AssertionError("nothing was read")


def test_a_start_without_the_store_has_its_blocks_from_disk(a: Place, b: Place) -> None:
    b.agent().step()
    a.agent().step()
    wanted = set(a.kernel.entries)
    a.kernel.entries.clear()  # as after a reboot
    a.disk.write_conflist(None)
    agent = a.agent(store=AwayStore())
    assert agent.step() == Outcome(ready=True, complete=False)
    assert a.kernel.entries == wanted and a.disk.conflist and a.disk.ready
    [words] = a.said
    assert "goes on with what it knows: connection refused" in words
    agent.step()
    assert a.said == [words]


def test_a_new_node_waits_for_the_store(a: Place) -> None:
    assert a.agent(store=AwayStore()).step() == Outcome(ready=False, complete=False)
    assert a.disk.conflist is None and not a.disk.ready and not a.kernel.entries
    before = "of somebody else"
    a.disk.write_conflist(before)
    assert a.agent().step() == READY and a.disk.read_conflist() != before


@pytest.mark.parametrize("objects", [{"pools": "garbage"}, {"pools": "[]"}])
def test_garbage_in_the_store_changes_nothing(a: Place, objects: dict[str, str]) -> None:
    agent = a.agent()
    agent.step()
    before, a.store.objects = (set(a.kernel.entries), a.disk.state, a.disk.conflist), objects
    assert agent.step() == Outcome(ready=True, complete=False)
    assert (set(a.kernel.entries), a.disk.state, a.disk.conflist) == before and "pools" in a.said[-1]
    a.store.objects = {}
    assert agent.step() == READY and a.said[-1] == "all is well again"
    assert (set(a.kernel.entries), a.disk.conflist) == (before[0], before[2])


def test_no_underlay(a: Place) -> None:
    agent = Agent(
        CONF, "a", template(), store=a.store, kernel=FakeNode(None), disk=a.disk, make_id=a.make_id, say=a.said.append,
    )
    assert agent.step() == Outcome(ready=False, complete=True)
    assert a.store.objects == {} and a.said == ["the node cannot be reached by others: there is no default route"]
    agent = a.agent()
    agent.step()
    a.kernel.underlay, conflist = None, a.disk.conflist
    a.kernel.entries.clear()
    assert agent.step().ready and a.disk.conflist == conflist


def test_a_named_interface_that_is_not_there(a: Place) -> None:
    a.kernel.underlay = None
    conf = replace(CONF, underlay="eth7")
    parts: dict[str, Any] = {"store": a.store, "kernel": a.kernel, "disk": a.disk}
    Agent(conf, "a", template(), make_id=a.make_id, say=a.said.append, **parts).step()
    assert a.said == ["the node cannot be reached by others: there is no interface eth7"]


def test_a_link_that_is_down(a: Place, b: Place) -> None:
    """It has lost its IPv6 addresses, and gets them back: the others' routes stay as they are."""
    b.agent().step()
    agent = a.agent()
    agent.step()
    before, routes = dict(a.store.objects), set(a.kernel.entries)
    a.kernel.underlay = replace(a.underlay, up=False, addresses=("172.30.0.1",))
    a.kernel.entries = {route for route in routes if isinstance(route, Route) and not route.ifname}
    assert agent.step() == Outcome(ready=True, complete=False) and len(a.said) == 2
    assert a.store.objects == before
    a.kernel.underlay = a.underlay
    assert agent.step() == READY and a.said[-1] == "all is well again" and a.kernel.entries == routes


def test_a_first_start_with_the_link_down(a: Place) -> None:
    a.kernel.underlay = replace(a.underlay, up=False)
    assert a.agent().step() == Outcome(ready=False, complete=True) and a.store.objects == {}


def test_a_node_that_is_removed_withdraws_and_comes_back_when_it_is_started(a: Place, b: Place) -> None:
    agent, other = a.agent(), b.agent()
    agent.step(), other.step()
    before = a.blocks()
    assert a.store.commit(membership.removal("a", a.store.objects, records.read(a.store.objects)))
    assert agent.step() == Outcome(ready=False, complete=True, removed=True)
    assert a.kernel.entries == set() and a.disk.conflist is None and not a.disk.ready and "removed" in a.said[-1]
    assert other.step() == READY and b.kernel.entries == set(map(Route, b.blocks()))
    assert a.agent().step() == READY and a.blocks() == before and a.kernel.entries


class RemovedMeanwhile(MemoryStore):
    """An operator removes node a while it changes the store."""

    def commit(self, changes: Sequence[Change]) -> bool:
        super().commit(membership.removal("a", self.objects, records.read(self.objects)))
        return super().commit(changes)


def test_a_node_that_is_removed_while_it_changes_its_record(a: Place) -> None:
    agent = a.agent()
    agent.step()
    store = RemovedMeanwhile(a.store.objects)
    agent._store = store  # the same store, from now on with an operator
    a.kernel.underlay = replace(a.underlay, addresses=("fd00:11::9",))
    assert agent.step().removed and records.read(store.objects).nodes["a"].removed


def test_the_name_is_another_nodes_now(a: Place, store: MemoryStore) -> None:
    """Removed, and the name given to a new machine, which may have the blocks too."""
    agent = a.agent()
    agent.step()
    store.commit(membership.removal("a", store.objects, records.read(store.objects)))
    new = Place("a", store, replace(LINK, addresses=("fd00:11::3",)), ids=7)
    assert new.agent().step() == READY
    with pytest.raises(CniError, match="another node has the name a at fd00:11::3"):
        agent.step()
    assert a.disk.conflist is None and a.kernel.entries == set()
    assert not a.agent(store=AwayStore()).step().ready and a.disk.conflist is None
    assert {entry.ifname for entry in a.kernel.entries if isinstance(entry, Route)} == {"eth0"}


def copied(a: Place) -> Place:
    """A node with a copy of another one's disk, and addresses of its own."""
    made = Place(a.name, a.store, replace(LINK, addresses=("fd00:11::7",)), boot="copied")
    made.disk.state, made.disk.conflist = a.disk.state, a.disk.conflist
    return made


@pytest.mark.parametrize("before", ["", "before the reboot"])
def test_a_node_that_was_copied_with_its_disk(a: Place, b: Place, before: str) -> None:
    """The one that was there first goes on; also after the other has tried again."""
    if before:
        a.boot = before
        a.agent().step()
    a.boot = "first"
    agent, other = a.agent(), b.agent()
    agent.step(), other.step(), agent.step()
    ways, text = set(a.kernel.entries), a.disk.conflist
    copy = copied(a)
    second = copy.agent()
    second.step()  # as after a reboot, with another address
    assert agent.step() == READY and "a copy of this node's disk runs at fd00:11::7" in a.said[-1]
    assert second.step() == READY and agent.step() == READY  # once, as a backup of the store would have had it
    with pytest.raises(CniError, match="this is a copy of node a at fd00:11::1, 172.30.0.1, which runs"):
        second.step()
    assert copy.disk.conflist is None and copy.kernel.entries == set() and not copy.disk.ready
    record = records.read(a.store.objects).nodes["a"]
    for start in (copy.agent(), copy.agent(store=AwayStore())):
        if isinstance(start._store, MemoryStore):
            with pytest.raises(CniError, match="this is a copy of node a"):
                start.step()
        else:
            assert not start.step().ready and copy.disk.conflist is None
    assert records.read(a.store.objects).nodes["a"] == record
    assert agent.step() == READY and a.kernel.entries == ways and a.disk.conflist == text
    assert other.step() == READY and Route(a.blocks()[0], "eth0", "fd00:11::1") in b.kernel.entries


def test_a_copy_that_is_killed_at_any_point(a: Place) -> None:
    """When it is started again it knows that it was the second one."""
    a.boot = "first"
    agent = a.agent()
    for number in range(1, 30):
        agent.step()
        copy, last = copied(a), [number]
        parts = {"store": Stepped(a.store, last, after=True), "kernel": Stepped(copy.kernel, last, after=True),
                 "disk": Stepped(copy.disk, last, after=True)}
        try:
            copy.agent(**parts).step()
        except Killed:
            pass
        again = copy.agent()
        for _ in range(2):
            again.step()
            assert agent.step() == READY
        with pytest.raises(CniError, match="this is a copy of node a"):
            again.step()
        assert agent.step() == READY
        if last[0] > 0:
            break
    assert number > 3 and last[0] > 0


def test_a_reboot_is_no_copy(a: Place) -> None:
    for boot in ("first", "second", "second", "third", "first"):
        a.boot = boot
        agent = a.agent()
        assert agent.step() == READY and agent.step() == READY
        assert records.read(a.store.objects).nodes["a"].boot == boot
    assert a.said == []


def test_a_store_that_is_restored_from_a_backup_of_before_a_reboot(a: Place, b: Place) -> None:
    """It has the record of the boot before: that is no copy of the node. All that was there since is there again."""
    a.boot = "first"
    a.agent().step()
    backup = dict(a.store.objects)
    a.boot = "second"
    agent, other = a.agent(), b.agent()
    agent.step(), other.step(), agent.step()
    ways, text = set(a.kernel.entries), a.disk.conflist
    a.store.objects.clear()
    a.store.objects.update(backup)
    assert agent.step() == READY and other.step() == READY and agent.step() == READY
    assert records.read(a.store.objects).nodes["a"].boot == "second"
    assert a.kernel.entries == ways and a.disk.conflist == text and a.agent().step() == READY and a.said == []


def told(a: Place) -> tuple[Agent, Place, Agent]:
    """The agent of a node, a copy of the node, and the agent of that, which ends at its next step."""
    a.boot = "first"
    agent = a.agent()
    agent.step()
    copy = copied(a)
    second = copy.agent()
    for _ in range(2):
        second.step(), agent.step()
    return agent, copy, second


def test_the_copy_is_to_be_the_node(a: Place) -> None:
    """The operator ends the first one."""
    agent, copy, second = told(a)
    with pytest.raises(CniError, match="cni-v6ctl nodes --remove a"):
        second.step()
    a.store.commit(membership.removal("a", a.store.objects, records.read(a.store.objects)))
    assert agent.step().removed
    assert copy.agent().step() == READY and copy.disk.conflist


class Full(MemoryDisk):
    """The state cannot be written any more, once that is so; what is there can be removed."""

    full = False

    def save(self, state: State) -> None:
        if self.full and state != self.state:
            raise CniError(errors.IO_FAILURE, "cannot use state.json", "No space left on device")
        super().save(state)


class FullDisk(Full):
    """Nor can the configuration list."""

    def write_conflist(self, text: str | None) -> None:
        if self.full:
            raise CniError(errors.IO_FAILURE, "cannot use the list", "No space left on device")
        super().write_conflist(text)


def test_a_disk_that_is_full_when_the_node_is_no_member_any_more(a: Place) -> None:
    """Another machine has its name and blocks by then: they must not stay in use here."""
    a.disk = disk = Full()
    agent = a.agent()
    agent.step()
    blocks = a.blocks()
    a.store.commit(membership.removal("a", a.store.objects, records.read(a.store.objects)))
    new = place("a", a.store, 9)
    new.ids = 7
    assert new.agent().step() == READY and new.blocks() == blocks
    disk.full = True
    with pytest.raises(CniError, match="another node has the name a"):
        agent.step()
    assert disk.conflist is None and a.kernel.entries == set() and not disk.ready
    assert any("No space left on device" in words for words in a.said)


def test_a_disk_that_is_full_after_a_reboot(a: Place, b: Place) -> None:
    """The node cannot take down whose record it replaces, so it is no member yet. It has the routes to others all the
    same, also to those that have come meanwhile."""
    a.disk = disk = Full()
    a.boot = "first"
    a.agent().step()
    b.agent().step()
    a.boot, disk.full = "second", True
    outcome = a.agent().step()
    assert not outcome.complete and Route(b.blocks()[0], "eth0", "fd00:11::2") in a.kernel.entries
    assert "before the disk has taken down whose record it replaces" in a.said[0]
    assert records.read(a.store.objects).nodes["a"].boot == "first"
    disk.full = False
    agent = a.agent()
    assert agent.step() == READY and records.read(a.store.objects).nodes["a"].boot == "second"


def test_a_store_that_loses_everything_while_the_link_is_down(a: Place) -> None:
    """The node cannot claim its blocks again then, and keeps them until it can."""
    agent = a.agent()
    agent.step()
    blocks, text = a.blocks(), a.disk.conflist
    a.kernel.underlay = replace(a.underlay, up=False, addresses=())
    a.store.objects.clear()
    assert not agent.step().complete and "has lost blocks of this node" in a.said[-1]
    assert not a.agent().step().complete  # as after a restart
    a.kernel.underlay = a.underlay
    assert agent.step() == READY and a.blocks() == blocks and a.disk.conflist == text


def test_a_store_that_others_have_begun_anew_while_the_link_is_down(a: Place, b: Place) -> None:
    """What somebody else has by now is the node's no more."""
    agent = a.agent()
    agent.step()
    first, *others = a.blocks()
    a.kernel.underlay = replace(a.underlay, up=False, addresses=())
    a.store.objects.clear()
    b.agent().step()
    text = a.store.objects[f"blocks/{b.blocks()[0]}"]
    a.store.objects[f"blocks/{first}"] = text
    agent.step()
    known = agent.known()
    assert known and list(known[2]) == others and a.disk.conflist is None
    del a.store.objects[f"blocks/{first}"]
    new = place("a", a.store, 9)  # another machine has the name
    new.ids = 7
    new.agent().step()
    agent.step()
    assert agent.known() is None and a.disk.conflist is None


@pytest.mark.parametrize("refused", [True, False], ids=["another one was faster", "no answer"])
def test_a_restored_store_that_does_not_take_the_record_at_once(a: Place, refused: bool) -> None:
    """What counts is how often the record was replaced, not how often it was seen."""
    a.boot = "first"
    a.agent().step()
    backup = dict(a.store.objects)
    a.boot = "second"
    a.store = store = Faltering(backup)
    agent = a.agent()
    assert agent.step() == READY
    store.objects.clear()
    store.objects.update(backup)
    store.refused, store.failures = refused, 1
    agent.step()
    assert agent.step() == READY and records.read(store.objects).nodes["a"].boot == "second"


def test_a_copy_that_knows_it_starts_while_its_link_is_down(a: Place) -> None:
    _, copy, second = told(a)
    with pytest.raises(CniError, match="this is a copy of node a"):
        second.step()
    copy.kernel.underlay = replace(copy.underlay, up=False, addresses=())
    with pytest.raises(CniError, match="this is a copy of node a"):
        copy.agent().step()
    assert copy.disk.conflist is None and not copy.disk.ready


class Faltering(MemoryStore):
    """So many commits are not made: refused, or without an answer."""

    refused, failures = True, 0

    def __init__(self, objects: Objects) -> None:
        super().__init__()
        self.objects.update(objects)

    def commit(self, changes: Sequence[Change]) -> bool:
        if self.failures:
            self.failures -= 1
            if self.refused:
                return False
            raise CniError(errors.IO_FAILURE, "no answer")
        return super().commit(changes)


def test_a_disk_that_is_full(a: Place, b: Place) -> None:
    """The node has its routes all the same."""
    a.disk = disk = FullDisk()
    agent = a.agent()
    agent.step()
    disk.full = True
    b.agent().step()
    a.kernel.underlay = replace(a.underlay, mtu=9000)
    assert agent.step() == Outcome(ready=False, complete=False) and len(a.kernel.entries) == 4
    assert [words.partition(": ")[2] for words in a.said] == [
        "cannot use state.json: No space left on device", "No space left on device",
    ]
    disk.full = False
    assert agent.step() == READY and a.said[-1] == "all is well again"


def test_a_disk_of_another_node(a: Place) -> None:
    a.agent()
    a.name = "b"
    with pytest.raises(CniError, match='--node: "b", but /state is of node a'):
        a.agent()


def test_the_tunnel(store: MemoryStore) -> None:
    a, b = place("a", store, 1, VXLAN_CONF), place("b", store, 2, VXLAN_CONF)
    a.kernel = FakeNode(a.underlay, closed=["eth0"])
    agent, other = a.agent(), b.agent()
    assert (agent.step(), other.step(), agent.step()) == (READY, READY, READY) and a.said == []
    tunnel = b.kernel.devices[TUNNEL]
    assert isinstance(tunnel, Tunnel) and (tunnel.underlay, tunnel.local, tunnel.mtu) == ("eth0", "fd00:11::2", 1430)
    neighbour, endpoint = Neighbour(tunnel.address, tunnel.mac), Endpoint(tunnel.mac, "fd00:11::2")
    ways = {Route(block, TUNNEL, tunnel.address) for block in b.blocks()}
    assert a.kernel.entries == {*map(Route, a.blocks()), *ways, neighbour, endpoint}
    assert a.kernel.closed == {"eth0"} and Forward(TUNNEL) in a.kernel.written
    assert a.disk.conflist and '"mtu": 1430' in a.disk.conflist
    written = len(a.kernel.written)
    assert agent.step() == READY and len(a.kernel.written) == written

    a.kernel.entries.discard(endpoint)
    own, before = a.kernel.devices[TUNNEL], a.kernel.entries | {endpoint}
    a.kernel.devices[TUNNEL] = replace(own, mtu=1500)  # by somebody
    assert agent.step() == READY and a.kernel.devices == {TUNNEL: own} and a.kernel.entries == before
    b.kernel.underlay = replace(b.underlay, addresses=("fd00:11::9",))
    other.step()
    assert agent.step() == READY and Endpoint(tunnel.mac, "fd00:11::9") in a.kernel.entries
    assert endpoint not in a.kernel.entries and list(b.kernel.devices) == [TUNNEL]
    store.commit(membership.removal("a", store.objects, records.read(store.objects)))
    assert agent.step().removed and a.kernel.observe() == Facts(a.underlay, closed=frozenset({"eth0"}))


@pytest.mark.parametrize(("underlay", "says"), [
    (replace(LINK, mtu=1349), "eth0 has an MTU of 1349, and IPv6 needs 1350 to fit the tunnel"),
    (replace(LINK, addresses=("172.30.0.1", "fe80::1")), "node a has no IPv6 address that is not link-local"),
])
def test_no_tunnel(store: MemoryStore, underlay: Underlay, says: str) -> None:
    place("b", store, 2, VXLAN_CONF).agent().step()
    a = Place("a", store, underlay, conf=VXLAN_CONF)
    assert a.agent().step().ready and a.kernel.devices == {}
    assert any(says in words for words in a.said) and any("this node has no tunnel" in words for words in a.said)


def test_a_node_that_no_tunnel_reaches(store: MemoryStore) -> None:
    a, b = place("a", store, 1, VXLAN_CONF), Place("b", store, replace(LINK, addresses=("fe80::2",)), conf=VXLAN_CONF)
    b.agent().step()
    assert a.agent().step() == READY and a.kernel.entries == set(map(Route, a.blocks()))
    assert len(a.said) == 2 and all("node b has no IPv6 address" in words for words in a.said)


def test_segment_routing(store: MemoryStore) -> None:
    a, b = place("a", store, 1, SRV6_CONF), place("b", store, 2, SRV6_CONF)
    a.kernel = FakeNode(a.underlay, closed=["eth0", "eth1"])
    agent, other = a.agent(), b.agent()
    assert (agent.step(), other.step(), agent.step()) == (READY, READY, READY) and a.said == []
    assert a.kernel.devices == {facts.SRV6: Pair(1460, "fd00:11::1")} and a.kernel.closed == {"eth1"}
    six, four = b.blocks()
    sids = {entry.dst: entry for entry in b.kernel.entries if isinstance(entry, SegmentRoute) and entry.behaviour}
    [of_ipv6] = [dst.removesuffix("/128") for dst, entry in sids.items() if entry.behaviour == "End.DT6"]
    [of_ipv4] = [dst.removesuffix("/128") for dst, entry in sids.items() if entry.behaviour == "End.DX4"]
    assert {
        Route(six, facts.SRV6), Route(four, facts.SRV6), SegmentRoute(six, "eth0", segment=of_ipv6),
        SegmentRoute(four, "eth0", segment=of_ipv4), SegmentRoute(f"{of_ipv6}/127", "eth0", gateway="fd00:11::2"),
        Route(srv6.SIDS), *map(Route, a.blocks()),
    } < a.kernel.entries
    assert a.disk.conflist and '"mtu": 1460' in a.disk.conflist
    assert "tell nftables of 1 other node" in map(str, a.kernel.written)
    assert a.kernel.nodes == {"fd00:11::2"} and b.kernel.nodes == {"fd00:11::1"}
    written = len(a.kernel.written)
    assert agent.step() == READY and len(a.kernel.written) == written

    a.kernel.drops = True
    agent.step()
    assert "set net.ipv4.conf.all.rp_filter and net.ipv4.conf.eth0.rp_filter to 0" in a.said[0]
    store.commit(membership.removal("a", store.objects, records.read(store.objects)))
    assert agent.step().removed and a.kernel.entries == set() and a.kernel.devices == {}


def test_a_reverse_path_filter_matters_to_ipv4_alone(store: MemoryStore) -> None:
    a = place("a", store, 1, replace(SRV6_CONF, pools=CONF.pools[:1]))
    a.kernel.drops = True
    assert a.agent().step() == READY and a.said == []


def test_from_one_carrier_to_another(store: MemoryStore) -> None:
    """What the one before needed is gone, its interface too."""
    a = place("a", store, 1)
    for conf, device in ((VXLAN_CONF, [TUNNEL]), (SRV6_CONF, [facts.SRV6]), (VXLAN_CONF, [TUNNEL]), (CONF, [])):
        a.conf = conf
        assert a.agent().step() == READY and list(a.kernel.devices) == device
        assert len(a.kernel.entries) == 2 + (9 if conf == SRV6_CONF else 0)


@pytest.mark.parametrize(("underlay", "says"), [
    (replace(LINK, mtu=1319), "carrier srv6: eth0 has an MTU of 1319, and IPv6 needs 1320 to be encapsulated"),
    (replace(LINK, addresses=("172.30.0.1",)), "carrier srv6: node a has no IPv6 address on the interface to the"),
    (replace(LINK, addresses=("fd00:11::1",)), ""),
])
def test_no_segment_routing(store: MemoryStore, underlay: Underlay, says: str) -> None:
    b = Place("b", store, replace(LINK, addresses=("172.30.0.2",)), conf=SRV6_CONF)
    b.agent().step()
    a = Place("a", store, underlay, conf=SRV6_CONF)
    assert a.agent().step().ready and not any(route.segment for route in a.kernel.entries
                                              if isinstance(route, SegmentRoute))
    why = "this node has no SRv6" if says else "node b has no IPv6 address on the interface to the others"
    assert any(says in words for words in a.said) and sum(why in words for words in a.said) == 2


class Faster(MemoryStore):
    """Other nodes are always faster."""

    def commit(self, changes: Sequence[Change]) -> bool:
        claims = [change.key for change in changes if change.key.startswith("blocks/")]
        self.objects |= dict.fromkeys(claims, '{"node": "z", "id": "z"}')
        return super().commit(changes)


def test_other_nodes_are_faster(a: Place) -> None:
    assert a.agent(store=Faster()).step() == Outcome(ready=False, complete=False)
    assert f"faster {TRIES} times" in a.said[0]


class Refusing(FakeNode):
    """A kernel that refuses everything."""

    def apply(self, operations: Iterable[Op]) -> list[CniError]:
        return [CniError(errors.KERNEL_REFUSED, f"cannot {operation}") for operation in operations]


def test_a_kernel_that_refuses(a: Place) -> None:
    assert a.agent(kernel=Refusing(LINK)).step() == Outcome(ready=True, complete=False)
    assert all("cannot add route unreachable" in words for words in a.said)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("scene", ["first start", "address changed", "rebooted", "removed"])
@pytest.mark.parametrize("conf", [CONF, VXLAN_CONF, SRV6_CONF], ids=lambda conf: conf.carrier)
def test_ended_anywhere_the_next_one_goes_on(conf: AgentConf, scene: str, after: bool) -> None:
    """No block is lost or claimed twice, there is no list without a block, and the end is the same."""
    others = {VXLAN: 2, SRV6: 3 + 9}.get(conf.carrier, 0)  # entries besides the four routes
    for number in range(1, 30):
        store = MemoryStore()
        a, b = place("a", store, 1, conf), place("b", store, 2, conf)
        b.agent().step()
        if scene != "first start":
            a.boot = "first"
            a.agent().step()
        agent = None
        if scene == "address changed":
            a.kernel.underlay = replace(a.underlay, addresses=("fd00:11::9",))
        if scene == "rebooted":
            a.boot = "second"
        if scene == "removed":
            agent = a.agent()
            agent.step()
            store.commit(membership.removal("a", store.objects, records.read(store.objects)))
        last = [number]
        parts = {
            "store": Stepped(store, last, after=after), "kernel": Stepped(a.kernel, last, after=after),
            "disk": Stepped(a.disk, last, after=after),
        }
        try:
            if agent is None:
                a.agent(**parts).step()
            else:
                agent._store, agent._kernel, agent._disk = parts["store"], parts["kernel"], parts["disk"]
                agent.step()
        except Killed:
            pass
        claimed = [claim for claim in records.read(store.objects).claims if claim.node == "a"]
        assert len(claimed) in (0, 2) and (a.disk.conflist is None or claimed or scene == "removed")
        assert a.agent().step() == READY
        assert {claim.prefix for claim in records.read(store.objects).claims if claim.node == "a"} == set(a.blocks())
        assert len(a.blocks()) == 2 and (not claimed or set(a.blocks()) == {claim.prefix for claim in claimed})
        assert set(map(Route, a.blocks())) < a.kernel.entries and len(a.kernel.devices) == (conf != CONF)
        assert len(a.kernel.entries) == 4 + others
        if last[0] > 0:
            break
    assert number > 3 and last[0] > 0, "the last round was not interrupted"


# A store whose engine knows nodes


GIVEN = replace(CONF, pools=tuple(replace(pool, given=True) for pool in CONF.pools))
UID, LATER = Registered("u-1", ("fd42:8e1f:6a00:7::/64", "10.244.9.0/26")), Registered("u-2", ("10.244.9.64/26",))


def test_a_node_that_the_engine_does_not_know_waits() -> None:
    store = MemoryStore(nodes={})
    a = place("a", store, 1)
    agent = a.agent()
    assert agent.step() == Outcome(ready=False, complete=True) and store.objects == {} and a.disk.conflist is None
    assert a.said == ["Kubernetes has no node a: the agent waits for it"]
    store.nodes = {"a": UID}
    with pytest.raises(CniError, match="which Kubernetes gives this node itself"):
        agent.step()
    store.nodes = {"a": Registered("u-1", ())}
    assert agent.step() == READY and agent.member.id == "u-1" and a.said[-1] == "all is well again"
    assert agent.step() == READY and a.disk.state and a.disk.state.member.id == "u-1"


def test_a_node_takes_the_blocks_that_the_engine_gives() -> None:
    store = MemoryStore(nodes={"a": Registered("u-1", ())})
    a = place("a", store, 1, GIVEN)
    agent = a.agent()
    assert agent.step() == Outcome(ready=False, complete=True)
    assert "Kubernetes gives the node no block of /64" in a.said[0]
    store.nodes = {"a": UID}
    assert agent.step() == READY and a.blocks() == UID.blocks
    assert a.kernel.entries == set(map(Route, a.blocks()))


def test_a_node_that_is_deleted_has_its_blocks_no_more() -> None:
    store = MemoryStore(nodes={"a": UID})
    a = place("a", store, 1, GIVEN)
    agent = a.agent()
    assert agent.step() == READY
    store.nodes = {}
    assert agent.step() == Outcome(ready=False, complete=True)
    assert a.disk.conflist is None and a.kernel.entries == set() and not a.disk.ready
    writes = a.disk.writes
    assert agent.step() == Outcome(ready=False, complete=True) and a.disk.writes == writes
    again = a.agent(store=AwayStore())
    assert again.step() == Outcome(ready=False, complete=False) and a.disk.conflist is None


def test_a_node_that_is_made_again_under_its_name_is_another_one() -> None:
    """What the one before had may be another node's by now."""
    store = MemoryStore(nodes={"a": UID})
    a = place("a", store, 1, GIVEN)
    agent = a.agent()
    assert agent.step() == READY
    store.nodes = {"a": LATER}
    assert agent.step() == Outcome(ready=False, complete=True) and a.disk.conflist is None
    store.nodes = {"a": Registered("u-3", UID.blocks)}
    assert agent.step() == Outcome(ready=False, complete=True)
    assert any("is still claimed by another one" in words for words in a.said)
    store.objects = {key: text for key, text in store.objects.items() if "u-1" not in text}  # the garbage collector
    assert agent.step() == READY and a.blocks() == UID.blocks and agent.member.id == "u-3"


def test_changes_that_are_not_heard(a: Place) -> None:
    class Deaf(MemoryStore):
        def unheard(self) -> str | None:
            return "watch is forbidden"

    assert a.agent(store=Deaf()).step() == Outcome(ready=True, complete=False)
    assert a.said == ["changes of the cluster's store are not heard, so it is read again and again: watch is forbidden"]


def test_what_the_agent_knows(a: Place) -> None:
    agent = a.agent()
    assert agent.known() is None
    agent.step()
    member, cluster, blocks = agent.known() or (None, None, None)
    assert member == agent.member and blocks == a.blocks() and cluster and list(cluster.nodes) == ["a"]
    assert agent.reached and agent.complaints.last == ()
    a.store.commit(membership.removal("a", a.store.objects, cluster))
    assert agent.step().removed and agent.known() is None
