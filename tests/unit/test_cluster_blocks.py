"""Several blocks a node: the agent's step with leases that come and go, ended at every point at which it acts."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from netaddr import IPNetwork

from cni_v6 import errors
from cni_v6.cluster import membership, records
from cni_v6.cluster.agent import Agent, Outcome
from cni_v6.cluster.capacity import Used
from cni_v6.cluster.config import AgentConf, Pool
from cni_v6.cluster.facts import Op, Route, Vacate
from cni_v6.cluster.fake import FakeBird, FakeLeases, FakeNode
from cni_v6.cluster.records import Change, Objects
from cni_v6.cluster.store import MemoryStore, Registered
from cni_v6.errors import CniError
from tests.unit.test_cluster import CONF, POOL6, template
from tests.unit.test_cluster_agent import READY, AwayStore, Full, Killed, Place, Stepped, place
from tests.unit.test_cluster_bgp import CONF as BGP_CONF

POOL4 = Pool("10.244.0.0/24", 28)  # 16 blocks of 13 containers
SMALL = replace(CONF, pools=(POOL6, POOL4), give_back_after=1800)
LATER = 1801.0  # seconds


class Leases(FakeLeases):
    """``late``: addresses that appear when the agent looks once more. ``breaks``: why it cannot look then."""

    late: Collection[str] = ()
    breaks = ""

    def look(self) -> Used | None:
        self.addresses.update(self.late)
        self.broken = self.breaks
        return super().look()


@dataclass
class Node:
    """A node with leases and a clock, whose agent can be started again."""

    place: Place
    leases: Leases
    time: float = 0.0

    def agent(self, **others: Any) -> Agent:
        return self.place.agent(**{"leases": self.leases, "now": lambda: self.time, **others})

    def own(self, pool: Pool = POOL4) -> list[str]:
        """Its blocks by the store."""
        assert self.place.disk.state
        cluster = records.read(self.place.store.objects)
        blocks = membership.own_blocks(self.place.disk.state.member, self.place.conf, cluster)
        return [block for block in blocks if pool.is_block(block)]

    def network(self) -> list[list[str]]:
        """Its blocks by the configuration list, a list for each set."""
        assert self.place.disk.conflist
        ranges = json.loads(self.place.disk.conflist)["plugins"][0]["ipam"]["ranges"]
        return [[part["subnet"] for part in range_set] for range_set in ranges]

    def container(self, block: str, number: int = 0) -> str:
        return str(IPNetwork(block)[2 + number])

    def fill(self, block: str, count: int) -> None:
        """Start containers, and with them the gateway of the block."""
        self.leases.addresses |= {self.container(block, number) for number in range(count)}
        self.place.kernel.gateways.add(f"{IPNetwork(block)[1]}/28")

    def empty(self) -> None:
        self.leases.addresses.clear()

    def leave(self, agent: Agent) -> None:
        """End its containers, and let so much time pass that a block leaves the configuration list."""
        self.empty()
        agent.step()
        self.time += LATER
        agent.step()

    def grow(self, agent: Agent) -> tuple[str, str]:
        """Fill its block until it has another one."""
        assert agent.step() == READY
        [first] = self.own()
        self.fill(first, 12)
        assert agent.step() == READY
        return first, self.own()[1]


def node(name: str, store: MemoryStore, number: int, conf: AgentConf = SMALL) -> Node:
    return Node(place(name, store, number, conf), Leases(conf.pools))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def a(store: MemoryStore) -> Node:
    return node("a", store, 1)


@pytest.fixture
def b(store: MemoryStore) -> Node:
    return node("b", store, 2)


def test_another_block_before_the_first_one_is_full(a: Node, b: Node) -> None:
    agent, other = a.agent(), b.agent()
    agent.step(), other.step()
    [first] = a.own()
    a.fill(first, 11)
    before = dict(a.place.store.objects), a.place.disk.writes
    agent.step(), agent.step()
    assert a.own() == [first]
    a.fill(first, 12)
    assert agent.step() == READY and a.place.said == []
    assert a.own()[0] == first and len(a.own()) == 2 and before[0].items() < a.place.store.objects.items()
    [six], four = a.network()
    assert [six] == a.own(POOL6) and four == a.own()
    assert set(map(Route, (six, *four))) < a.place.kernel.entries
    written = len(a.place.kernel.written), a.place.disk.writes
    assert agent.step() == READY and (len(a.place.kernel.written), a.place.disk.writes) == written
    assert other.step() == READY
    ways = {Route(block, "eth0", "172.30.0.1") for block in four} | {Route(six, "eth0", "fd00:11::1")}
    assert ways < b.place.kernel.entries and b.place.said == []


def test_an_empty_block_leaves_the_list_and_then_the_node(a: Node, b: Node) -> None:
    agent, other = a.agent(), b.agent()
    first, second = a.grow(agent)
    other.step()
    a.fill(second, 3)
    assert agent.step() == READY
    a.empty()
    a.fill(first, 4)
    assert agent.step() == replace(READY, again=1800.0) and a.network()[1] == [first, second]
    a.time += 1800.0
    assert agent.step() == replace(READY, again=1800.0) and a.network()[1] == [first] and a.own() == [first, second]
    assert Route(second) in a.place.kernel.entries  # it is the node's until it is given back
    a.time += 1799.0
    assert agent.step() == replace(READY, again=1.0) and a.own() == [first, second]
    a.time += 1.0
    assert agent.step() == READY and a.own() == [first] and a.place.said == []
    assert Route(second) not in a.place.kernel.entries and Vacate(second) in a.place.kernel.written
    [gateway] = a.place.kernel.gateways
    assert IPNetwork(gateway).cidr == IPNetwork(first)
    assert a.place.disk.state and f"blocks/{second}" not in a.place.disk.state.objects
    other.step()
    assert not any(isinstance(entry, Route) and entry.dst == second for entry in b.place.kernel.entries)


def test_a_runtime_that_has_read_the_list_before(a: Node) -> None:
    """Its container has an address of a block that has left the list: the block is back, and stays the node's."""
    agent = a.agent()
    first, second = a.grow(agent)
    a.leave(agent)
    assert a.network()[1] == [first]
    a.fill(second, 1)
    a.fill(first, 1)
    assert agent.step() == READY and a.network()[1] == [first, second]
    a.empty()
    a.fill(second, 1)
    for _ in range(3):
        a.time += LATER
        agent.step()
    assert a.own() == a.network()[1] == [second]  # the first one is not needed any more


def test_a_lease_that_appears_at_the_last_moment(a: Node) -> None:
    """The agent counts the leases once more before it gives the block back."""
    agent = a.agent()
    first, second = a.grow(agent)
    a.leave(agent)
    a.time += LATER
    a.leases.late = {a.container(second)}
    assert agent.step().complete and a.own() == [first, second]


def test_containers_that_fill_the_blocks_at_the_last_moment(a: Node) -> None:
    """After the node has claimed what it needs. Nobody tells of them again, so the agent looks at once by itself."""
    agent = a.agent()
    first, second = a.grow(agent)
    a.leave(agent)
    a.time += LATER
    a.leases.late = {a.container(block, number) for block in (first, second) for number in range(13)}
    assert agent.step() == replace(READY, again=0.0) and a.own() == [first, second]
    assert agent.step() == READY and len(a.own()) == 3


def test_blocks_that_stay(store: MemoryStore) -> None:
    """With a reservation, for ever (``0s``, ``reuse`` ``never``), and without anybody who counts."""
    kinds: list[tuple[AgentConf, dict[str, Any]]] = [
        (SMALL, {"reserve": {"x": "10.244.0.9", "y": [f"10.244.0.{place}" for place in range(8, 255, 16)]}}),
        (replace(SMALL, give_back_after=0), {}), (SMALL, {"reuse": "never"}),
    ]
    for number, (conf, ipam) in enumerate(kinds, 1):
        a = node(f"a{number}", store, number, conf)
        agent = Agent(conf, f"a{number}", template(ipam={"type": "cni-v6-ipam", **ipam}), store=store,
                      kernel=a.place.kernel, disk=a.place.disk, make_id=a.place.make_id, say=a.place.said.append,
                      leases=a.leases, now=lambda: a.time)
        first, second = a.grow(agent)
        a.empty()
        for _ in range(4):
            a.time += 10 * LATER
            assert agent.step().again is None
        assert a.own() == [first, second] == a.network()[1]
    without = place("c", store, 9, SMALL)
    agent = without.agent()
    for _ in range(3):
        assert agent.step() == READY


def test_an_address_is_not_used_again_too_soon(a: Node) -> None:
    """Whichever node has its block then: a block is empty for ``reuseAfter`` altogether."""
    document = template(ipam={"type": "cni-v6-ipam", "reuseAfter": "2d"})
    parts: dict[str, Any] = {"store": a.place.store, "kernel": a.place.kernel, "disk": a.place.disk}
    agent = Agent(SMALL, "a", document, make_id=a.place.make_id, say=a.place.said.append, leases=a.leases,
                  now=lambda: a.time, **parts)
    a.grow(agent)
    a.empty()
    assert agent.step().again == 86400.0


def test_with_bgp_the_first_block_stays(store: MemoryStore) -> None:
    """The node's identifier follows from it."""
    conf = replace(BGP_CONF, pools=(POOL4, POOL6))
    a, bird = node("a", store, 1, conf), FakeBird()
    agent = a.agent(speaker=bird)
    first, second = a.grow(agent)
    assert bird.file and all(f"route {block} unreachable;" in bird.file for block in (first, second))
    a.empty()
    a.fill(second, 1)
    for _ in range(4):
        a.time += LATER
        agent.step()
    assert a.own() == [first, second]
    identifier = bird.file.partition("router id ")[2].partition(";")[0]
    a.empty()
    for _ in range(4):
        a.time += LATER
        agent.step()
    assert a.own() == [first] and f"route {second} unreachable;" not in bird.file
    assert f"router id {identifier};" in bird.file


def test_a_pool_that_is_exhausted(store: MemoryStore) -> None:
    a = node("a", store, 1, replace(SMALL, pools=(POOL6, replace(POOL4, cidr="10.244.0.0/27"))))
    b = node("b", store, 2, a.place.conf)
    agent, other = a.agent(), b.agent()
    agent.step(), other.step()
    [first] = a.own()
    a.fill(first, 13)
    assert agent.step() == READY and agent.step() == READY and a.network()[1] == [first]
    [said] = a.place.said
    assert said.startswith("fewer than 2 addresses of pool 10.244.0.0/27 are left on this node, and the pool has no ")
    store.commit(membership.removal("b", store.objects, records.read(store.objects)))
    assert agent.step() == READY and len(a.own()) == 2 and a.place.said[1:] == ["all is well again"]


def test_the_most_blocks(store: MemoryStore) -> None:
    a = node("a", store, 1, replace(SMALL, pools=(POOL6, replace(POOL4, most=1))))
    agent = a.agent()
    agent.step()
    [first] = a.own()
    a.fill(first, 13)
    assert agent.step() == READY and a.own() == [first] and "(maxBlocks: 1)" in a.place.said[0]


class Coming(MemoryStore):
    """A store that can be away."""

    away = False

    def read(self) -> Objects:
        if self.away:
            raise CniError(errors.IO_FAILURE, "connection refused")
        return super().read()


def test_the_store_is_away_while_a_block_runs_full() -> None:
    store = Coming()
    a = node("a", store, 1)
    agent = a.agent()
    agent.step()
    [first] = a.own()
    a.fill(first, 13)
    store.away = True
    assert agent.step() == Outcome(ready=True, complete=False) and a.network()[1] == [first]
    assert "it can claim no other block now" in a.place.said[0]
    store.away = False
    assert agent.step() == READY and len(a.own()) == 2 == len(a.network()[1])


def test_the_store_is_away_while_a_block_is_empty() -> None:
    """It leaves the list, and is given back later. Nobody asks all the time meanwhile."""
    store = Coming()
    a = node("a", store, 1)
    agent = a.agent()
    first, second = a.grow(agent)
    a.empty()
    agent.step()
    store.away = True
    for _ in range(2):
        a.time += LATER
        outcome = agent.step()
    assert outcome == Outcome(ready=True, complete=False) and a.network()[1] == [first]
    store.away = False
    assert agent.step() == READY and a.own() == [first]


class Refusing(FakeNode):
    refuses = True

    def apply(self, operations: Iterable[Op]) -> list[CniError]:
        todo = list(operations)
        if self.refuses and any(isinstance(operation, Vacate) for operation in todo):
            return [CniError(errors.KERNEL_REFUSED, f"cannot {todo[0]}")]
        return super().apply(todo)


class Changed(MemoryStore):
    """Another one changes the claim meanwhile, or the answer is lost, once it is to be deleted."""

    lost = refused = False

    def commit(self, changes: Sequence[Change]) -> bool:
        if any(change.now is None for change in changes):
            if self.refused:
                return False
            if self.lost:
                super().commit(changes)
                raise CniError(errors.IO_FAILURE, "the answer is lost")
        return super().commit(changes)


def leaving() -> Iterator[tuple[Node, Agent, str, str, Changed]]:
    """A node whose second block is to be given back at the next step."""
    store = Changed()
    a = node("a", store, 1)
    a.place.kernel, a.place.disk = Refusing(a.place.underlay), Full()
    agent = a.agent()
    first, second = a.grow(agent)
    a.leave(agent)
    a.time += LATER
    yield a, agent, first, second, store


@pytest.fixture
def last() -> Iterator[tuple[Node, Agent, str, str, Changed]]:
    yield from leaving()


def test_what_hinders_a_block_from_being_given_back(last: tuple[Node, Agent, str, str, Changed]) -> None:
    a, agent, first, second, store = last
    assert not agent.step().complete and a.own() == [first, second] and a.network()[1] == [first]
    assert a.place.said[-1] == f"cannot remove the node's own addresses of {second}"
    assert isinstance(a.place.disk, Full) and isinstance(a.place.kernel, Refusing)
    a.place.kernel.refuses = False
    a.place.disk.full = True
    assert not agent.step().complete and a.own() == [first, second]
    a.place.disk.full, store.refused = False, True
    assert not agent.step().complete and "has changed in the cluster's store meanwhile" in a.place.said[-1]
    store.refused, store.lost = False, True
    assert not agent.step().complete and "the answer is lost" in a.place.said[-1]
    assert a.own() == [first] == a.network()[1]
    store.lost = False
    assert agent.step() == READY and a.place.said[-1] == "all is well again"


def test_leases_that_cannot_be_counted(a: Node) -> None:
    """Nothing is claimed and nothing given back; the list has all blocks."""
    agent = a.agent()
    first, second = a.grow(agent)
    a.leave(agent)
    a.leases.broken = "Permission denied"
    assert agent.step() == Outcome(ready=True, complete=False) and a.network()[1] == [first, second]
    assert "leases cannot be counted, so the node claims no more blocks" in a.place.said[-1]
    a.leases.broken = ""
    assert agent.step().complete and a.place.said[-1] == "all is well again"
    a.time += LATER
    agent.step()
    a.time += LATER
    a.leases.breaks = "Permission denied"
    assert not agent.step().complete and a.own() == [first, second]


def test_leases_whose_folder_is_removed_under_running_containers(a: Node) -> None:
    """What has no lease may have a container: nothing is given back."""
    agent = a.agent()
    first, second = a.grow(agent)
    a.empty()
    a.leases.there = False
    for _ in range(4):
        a.time += LATER
        assert agent.step() == READY
    assert a.own() == a.network()[1] == [first, second] and a.place.said == []
    a.leases.there = True
    agent.step()
    for late in range(2):
        a.time += LATER
        a.leases.there = not late  # it is removed at the last moment
        agent.step()
    assert a.own() == [first, second] == a.network()[1]


def test_a_store_that_lost_everything_gets_all_blocks_again(a: Node, b: Node) -> None:
    agent, other = a.agent(), b.agent()
    blocks = [*a.grow(agent)]
    a.place.store.objects.clear()
    assert other.step() == READY and agent.step() == READY
    assert a.own() == blocks or set(b.own()) & set(blocks)
    assert a.network()[1] == a.own()


def test_two_agents_want_the_last_block(store: MemoryStore) -> None:
    """Each of them has seen it free: one gets it, the other one says that there is none."""
    conf = replace(SMALL, pools=(POOL6, replace(POOL4, cidr="10.244.0.0/26")))
    nodes = [node(name, store, number, conf) for number, name in enumerate("abc", 1)]
    agents = [known.agent() for known in nodes]
    for agent in agents:
        agent.step()
    for known in nodes[:2]:
        known.fill(known.own()[0], 13)

    class Between(MemoryStore):
        """The other agent steps before this one's first commit."""

        def commit(self, changes: Sequence[Change]) -> bool:
            if agents[1]._store is not self:
                agents[1]._store = self
                agents[1].step()
            return super().commit(changes)

    between = Between(store.objects)
    for known, agent in zip(nodes, agents):
        known.place.store = between
    agents[0]._store = between
    agents[0].step()
    assert [len(known.own()) for known in nodes] == [1, 2, 1]
    assert "the pool has no free block" in nodes[0].place.said[-1] and nodes[1].place.said == []
    taken = records.read(between.objects).taken
    assert len(taken) == len(set(taken)) == 7


def test_containers_where_another_node_is(a: Node, b: Node) -> None:
    agent, other = a.agent(), b.agent()
    agent.step(), other.step()
    a.fill(b.own()[0], 1)
    agent.step()
    assert a.place.said == [f"containers of this node have addresses of block {b.own()[0]}, which node b has: end "
                            "them, as other nodes do not reach them"]


def test_blocks_that_kubernetes_gives_stay_alone() -> None:
    given = replace(SMALL, pools=tuple(replace(pool, given=True) for pool in SMALL.pools))
    store = MemoryStore(nodes={"a": Registered("u-1", ("fd42:8e1f:6a00:7::/64", "10.244.0.32/28"))})
    a = node("a", store, 1, given)
    agent = a.agent()
    assert agent.step() == READY
    a.fill("10.244.0.32/28", 13)
    assert agent.step() == READY and a.network()[1] == ["10.244.0.32/28"] and a.place.said == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("scene", ["full", "empty", "left"])
def test_ended_anywhere_the_next_one_goes_on(scene: str, after: bool) -> None:
    """Whenever the agent ends: the list has no block that is not the node's, also without the store."""
    for number in range(1, 40):
        store = MemoryStore()
        a, b = node("a", store, 1), node("b", store, 2)
        agent, other = a.agent(), b.agent()
        other.step()
        if scene == "full":
            agent.step()
            a.fill(a.own()[0], 12)
        else:
            a.grow(agent)
            a.empty()
            agent.step()
            a.time += LATER
        if scene == "left":
            agent.step()
            a.time += LATER
        before = a.own()
        last = [number]
        agent._store, agent._kernel, agent._disk = (
            Stepped(part, last, after=after) for part in (store, a.place.kernel, a.place.disk))
        try:
            agent.step()
        except Killed:
            pass
        claimed = {claim.prefix for claim in records.read(store.objects).claims if claim.node == "a"}
        away = a.agent(store=AwayStore())
        away.step()
        assert set(a.network()[1]) <= claimed and a.network()[1][0] == before[0]
        own_routes = {entry.dst for entry in a.place.kernel.entries if isinstance(entry, Route) and not entry.ifname}
        assert own_routes <= claimed
        again = a.agent()
        for _ in range(3):
            again.step()
            a.time += LATER
        assert len(a.own()) == (2 if scene == "full" else 1) and a.network()[1] == a.own() and a.own()[0] == before[0]
        assert other.step() == READY
        ways = {entry.dst for entry in b.place.kernel.entries if isinstance(entry, Route) and entry.ifname}
        assert ways == {*a.own(), *a.own(POOL6)}
        if last[0] > 0:
            break
    assert number > 2 and last[0] > 0, "the last round was not interrupted"
