"""What agents measure: whom they test, since when somebody answers, how full blocks are; what is written, and when."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from cni_v6.cluster import disk, report, status, tables
from cni_v6.cluster.dropped import REASONS
from cni_v6.cluster.facts import Device, Pair, Tunnel
from cni_v6.cluster.membership import Member
from cni_v6.cluster.records import Claim, Cluster, NodeRecord
from cni_v6.cluster.report import PEERS, Answer, Report
from cni_v6.cluster.reporter import Known, Reporter
from cni_v6.cluster.status import Status
from cni_v6.cluster.store import MemoryStore
from cni_v6.cluster.wireguard_values import Encrypted
from cni_v6.ctl import agent_metrics, agent_status
from cni_v6.engine.exposition import Sample, render
from cni_v6.errors import INVALID_CONFIG, IO_FAILURE, KERNEL_REFUSED, CniError
from cni_v6.plan.health import agent as agent_health
from cni_v6.plan.health.agent import AgentFacts

PATIENCE = 30.0
A, BLOCKS = Member("a", "1"), ("fd42::/64", "10.244.0.0/26")
B = NodeRecord("b", "2", ("fd00:11::2", "172.30.0.2"), "direct")
PAIR = Cluster(nodes={"a": NodeRecord("a", "1", ("fd00:11::1",), "direct"), "b": B},
               claims=tuple(Claim(block, "a", "1") for block in BLOCKS))


def named(*names: str) -> Cluster:
    return Cluster(nodes={name: NodeRecord(name, name) for name in names})


# Whom, and what of them


@pytest.mark.parametrize("count", [1, 2, 6, 7, 100])
def test_each_node_is_tested_by_as_many(count: int) -> None:
    names = [f"n{number}" for number in range(count)]
    cluster = named(*names)
    tested = Counter(peer.name for name in names for peer in report.peers(Member(name, name), cluster))
    assert set(tested.values()) <= {min(PEERS, count - 1)} and len(tested) == (count if count > 1 else 0)
    assert all(name != peer.name for name in names for peer in report.peers(Member(name, name), cluster))


def test_a_node_that_is_removed_is_not_tested() -> None:
    cluster = replace(PAIR, nodes={**PAIR.nodes, "b": replace(B, removed=True)})
    assert report.peers(A, cluster) == () and report.peers(A, PAIR) == (B,)
    assert [*report.targets((B,))] == [("b", 6, "fd00:11::2"), ("b", 4, "172.30.0.2")]
    assert 0 <= report.share(A) < 1 and report.share(A) != report.share(Member("b", "2"))


def test_since_when() -> None:
    tested = [*report.targets((B,))]
    first = report.answers(tested, {"fd00:11::2": True, "172.30.0.2": False}, (), 100)
    assert first == (Answer("b", 6, True, 100), Answer("b", 4, False, 100))
    second = report.answers(tested, {"fd00:11::2": True, "172.30.0.2": True}, first, 200)
    assert second == (Answer("b", 6, True, 100), Answer("b", 4, True, 200))
    assert report.answers(tested, {"fd00:11::2": True}, second, 300) == second[:1]  # IPv4 could not be tested
    assert report.answers((), {}, second, 300) == ()


@pytest.mark.parametrize(("block", "room"), [
    ("10.244.0.0/26", 61), ("10.0.0.0/30", 1), ("fd42::/122", 62), ("fd42::/126", 2),
])
def test_the_room_of_a_block(block: str, room: int) -> None:
    assert report.room(block) == room


def test_a_report_is_read_as_it_was_written() -> None:
    made = Report("1", {"fd42::/64": 3}, (Answer("b", 6, True, 100), Answer("b", 4, False, 50)), 200)
    assert report.read(report.encode(made)) == made and report.read(report.encode(Report("1"))) == Report("1")
    for text in ("{", "[]", "{}", '{"id":"1","at":-1}', '{"id":"1","reached":{"b":{"ipv6":{"since":"x"}}}}',
                 '{"id":"1","at":99999999999999}'):
        assert report.read(text) is None
    assert report.read('{"id":"1","used":{"x":1},"reached":{"b":{}}}') == Report("1")


def test_what_is_said_of_a_node() -> None:
    """Nothing good is taken from a node that answers nobody, and nothing from one with another's name."""
    def by(name: str, node: str, answers: bool) -> dict[str, str]:
        return {name: report.encode(Report(name, answers=(Answer(node, 6, answers, 100),)))}

    cluster = named("a", "b", "c")
    nodes = [*cluster.nodes.values()]
    one = report.of_nodes({**by("a", "b", True), **by("b", "c", True), **by("z", "b", True), "c": "garbage"}, nodes)
    assert set(one) == {"a", "b"} and report.said(one)["c"] == [("b", Answer("c", 6, True, 100))]
    gone = report.of_nodes({**by("a", "b", False), **by("b", "c", True)}, nodes)
    assert report.said(gone)["c"] == []
    parted = report.of_nodes({**by("a", "b", False), **by("b", "a", False)}, nodes)
    assert {node: len(found) for node, found in report.said(parted).items()} == {"a": 1, "b": 1}
    assert report.of_nodes(by("a", "b", True), [NodeRecord("a", "another")]) == {}


def test_a_report_that_comes_after_its_node_was_removed_counts_for_nothing() -> None:
    """Neither what it says of the node nor what it says of others; nor for a new node with its name."""
    cluster = named("a", "b")
    late = {"b": report.encode(Report("b", {"fd42::/64": 7}, (Answer("a", 6, False, 100),), 100))}
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    assert len(report.said(report.of_nodes(late, [a, b]))["a"]) == 1
    for nodes in ([a, replace(b, removed=True)], [a], [a, replace(b, id="another")]):
        found = report.of_nodes(late, nodes)
        assert found == {} and report.said(found) == {}


# What is written, and when


class Measured:
    """What a reporter measures, as the test says; ``asked``: the addresses of the last round."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.used = {BLOCKS[0]: 1, BLOCKS[1]: 0}
        self.reached = {"fd00:11::2": True, "172.30.0.2": True}
        self.now = 100.0
        self.writes: list[str] = []
        self.away = False
        self.asked: list[str] = []
        self.said: list[str] = []
        self.told = Event()

    def report(self, name: str, text: str | None) -> None:
        if self.away:
            raise CniError(IO_FAILURE, "away")
        self.store.report(name, text)
        self.writes.append(text or "")
        self.told.set()

    def reports(self, name: str = "") -> Mapping[str, str]:
        if self.away:
            raise CniError(IO_FAILURE, "away")
        return self.store.reports(name)

    def echo(self, addresses: Iterable[str]) -> Mapping[str, bool]:
        self.asked = [*addresses]
        return self.reached

    def reporter(self, known: Known | None = None, seconds: float = 3600.0) -> Reporter:
        def leased(blocks: Sequence[str]) -> Mapping[str, int]:
            return {block: self.used[block] for block in blocks}

        return Reporter(self, lambda: known, seconds=seconds, first=seconds, leased=leased, echo=self.echo,
                        now=lambda: self.now, say=self.said.append)

    def last(self) -> Report:
        found = report.read(self.writes[-1])
        assert found
        return found


@pytest.fixture
def measured() -> Measured:
    return Measured()


def test_what_has_not_changed_is_not_written(measured: Measured) -> None:
    with closing(measured.reporter()) as reporter:
        for now in (100.0, 200.0):
            measured.now = now
            reporter.measure(A, PAIR, BLOCKS)
        assert len(measured.writes) == 1 and measured.asked == ["fd00:11::2", "172.30.0.2"]
        first = Answer("b", 6, True, 100), Answer("b", 4, True, 100)
        assert measured.last() == Report("1", measured.used, first, 100)
        measured.used[BLOCKS[1]] = 5
        reporter.measure(A, PAIR, BLOCKS)
        measured.reached["172.30.0.2"] = False
        measured.now = 300.0
        reporter.measure(A, PAIR, BLOCKS)
    assert len(measured.writes) == 3
    assert measured.last() == Report("1", measured.used, (Answer("b", 6, True, 100), Answer("b", 4, False, 300)), 300)


def test_what_cannot_be_measured_or_written_is_said_once(measured: Measured) -> None:
    with closing(measured.reporter()) as reporter:
        measured.away = True
        for _ in range(2):
            reporter.measure(A, PAIR, BLOCKS)
        del measured.used[BLOCKS[1]]  # a fault of the program: the thread goes on
        measured.away = False
        reporter.measure(A, PAIR, BLOCKS)
        measured.used[BLOCKS[1]] = 5
        reporter.measure(A, PAIR, BLOCKS)
    assert [words.rpartition(": ")[0] for words in measured.said] == [
        "what this node measures is not written for cni-v6ctl nodes",
        "what this node measures is not written for cni-v6ctl nodes: KeyError",
    ]
    assert len(measured.writes) == 1


def test_an_agent_that_is_started_again_goes_on(measured: Measured) -> None:
    for now in (100.0, 500.0):
        measured.now = now
        with closing(measured.reporter()) as reporter:
            reporter.measure(A, PAIR, BLOCKS)
    assert len(measured.writes) == 1
    with closing(measured.reporter()) as reporter:
        reporter.measure(Member("a", "9"), PAIR, BLOCKS)  # another node of this name
    assert measured.last().answers[0].since == 500


def test_a_store_that_is_away_is_told_later(measured: Measured) -> None:
    with closing(measured.reporter()) as reporter:
        measured.away = True
        reporter.measure(A, PAIR, BLOCKS)
        measured.away = False
        reporter.measure(A, PAIR, BLOCKS)
        measured.away, measured.used[BLOCKS[0]] = True, 2
        reporter.measure(A, PAIR, BLOCKS)
        measured.away = False
        reporter.measure(A, PAIR, BLOCKS)
    assert [report.read(text).used[BLOCKS[0]] for text in measured.writes] == [1, 2]  # type: ignore[union-attr]


def test_the_clock_is_set_back_and_forward(measured: Measured) -> None:
    """The time is what it was when somebody looked; the order of what happens is not taken from it."""
    with closing(measured.reporter()) as reporter:
        for now, reached in ((1000.0, True), (10.0, False), (5e9, True)):
            measured.now, measured.reached["172.30.0.2"] = now, reached
            reporter.measure(A, PAIR, BLOCKS)
    assert [report.read(text).answers[1] for text in measured.writes] == [  # type: ignore[union-attr]
        Answer("b", 4, True, 1000), Answer("b", 4, False, 10), Answer("b", 4, True, 5_000_000_000)]


def test_once_a_period(measured: Measured) -> None:
    with closing(measured.reporter((A, PAIR, BLOCKS), seconds=0.01)):
        assert measured.told.wait(PATIENCE)
    with closing(Measured().reporter(seconds=0.01)):
        pass  # nothing is known yet


# Leases


def test_leases_of_a_block(tmp_path: Path) -> None:
    folder = tmp_path / "pods"
    assert disk.leased(str(folder), BLOCKS) == dict.fromkeys(BLOCKS, 0)
    folder.mkdir()
    for name in ("fd42::5", "fd42::6", "fd43::5", "10.244.0.9", "10.244.0.64", "lock", "last_reserved_ip.0"):
        (folder / name).touch()
    assert disk.leased(str(folder), BLOCKS) == {BLOCKS[0]: 2, BLOCKS[1]: 1}


# What the agent tells other programs of its node


def test_a_status_is_read_as_it_was_written() -> None:
    measured = Report("1", {"fd42::/64": 3}, (Answer("b", 6, True, 100),), 200)
    made = Status("a", "/etc/target", True, 1000, 900, 7, 3, ("what is wrong",), measured)
    assert status.read(status.encode(made)) == made
    assert status.read(status.encode(Status("a", "/t"))) == Status("a", "/t")
    assert status.read(b"garbage") is None and status.read(b'{"node":"a"}') is None


FINE = AgentFacts("a", "/etc/target", True, True, 10.0, 3, blocks={"10.244.0.0/26": (54, 61)})


@pytest.mark.parametrize(("facts", "found"), [
    (None, []),
    (FINE, [("green", "node a of a cluster of 3; its agent runs, and the store is reached")]),
    (replace(FINE, runs=False), [("amber", "the agent of node a does not run")]),
    (replace(FINE, behind=301.0), [("amber", "the cluster's store could not be read for 5 minutes")]),
    (replace(FINE, behind=None), [("amber", "the cluster's store could not be read since it was started")]),
    (replace(FINE, configured=False), [("red", "there is no configuration at /etc/target")]),
    (replace(FINE, configured=False, complaints=("one", "two", "three", "four")),
     [("red", "there is no configuration at /etc/target"), ("amber", "one"), ("amber", "two"), ("amber", "three")]),
    (replace(FINE, silent=("b (IPv4)",)), [("amber", "no answer from b (IPv4)")]),
    (replace(FINE, blocks={"10.244.0.0/26": (55, 61), "fd42::/64": (55, (1 << 64) - 2)}),
     [("amber", "10.244.0.0/26: 55 of 61 addresses are leased")]),
    (replace(FINE, blocks={"10.244.0.0/26": (61, 61)}), [("red", "10.244.0.0/26: 61 of 61 addresses are leased")]),
])
def test_what_doctor_says(facts: AgentFacts | None, found: list[tuple[str, str]]) -> None:
    said = [*agent_health.findings(facts)]
    assert [(finding.level, finding.message) for finding in said] == found
    assert all(finding.level == "green" or finding.why and finding.remedy for finding in said)


@pytest.mark.parametrize(("stepped", "synced", "behind"), [
    (1000, 1000, 0.0),  # nothing has changed for hours
    (1000, 900, pytest.approx(600, abs=60)), (1000, 0, None),
])
def test_how_old_the_store_is(tmp_path: Path, stepped: int, synced: int, behind: object) -> None:
    now = int(time.time())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNI_V6_RUN_DIR", str(tmp_path))
        assert agent_status.facts() is None and [*agent_metrics.of_agent()] == []
        shown = agent_status.StatusFile(Status("a", str(tmp_path / "target")))
        shown.update(stepped=now - 500 + stepped - 1000, synced=synced and now - 500 + synced - 1000)
        facts = agent_status.facts()
        assert facts and facts.behind == behind and not facts.runs and not facts.configured
        assert {sample.name: sample.value for sample in agent_metrics.of_agent()}["cni_v6_agent_store_reached"] == (
            synced == stepped)
        shown.remove()
        assert agent_status.facts() is None


def test_what_the_carriers_tables_dropped(tmp_path: Path) -> None:
    """Told while the agent does not run, too: the tables stay. What cannot be read is missing, and nothing else."""
    def refused() -> Iterable[tuple[str, str, int]]:
        raise CniError(KERNEL_REFUSED, "cannot list table cni_v6_vxlan of nftables")

    def told(dropped: Callable[[], Iterable[tuple[str, str, int]]]) -> list[Sample]:
        return [*agent_metrics.of_agent(dropped)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNI_V6_RUN_DIR", str(tmp_path))
        assert told(lambda: [("t", "r", 7)]) == []
        agent_status.StatusFile(Status("a", str(tmp_path / "target"))).update()
        without = told(refused)
        sample = Sample("cni_v6_cluster_dropped_packets_total", 7, ("t", "r"))
        assert told(lambda: [("t", "r", 7)]) == [*without, sample]
        assert 'cni_v6_cluster_dropped_packets_total{table="t",reason="r"} 7' in render([sample])


@pytest.mark.parametrize("device", [
    Tunnel("eth0", "2001:db8::1", "02:00:00:00:00:01", "fe80::1", 1430), Pair(1460, "2001:db8::1"),
    Encrypted(1420, "eth0", ("fd00::/48", "10.244.0.0/16"), ("fd00::/64", "fd00:0:0:7::/64", "10.244.7.0/26")),
])
def test_every_rule_of_a_carrier_that_counts_has_a_reason(device: Device) -> None:
    """What is counted is dropped."""
    rules = [message.body for message in tables.messages(device) if b"counter" in message.body]
    said = [comment for comment in tables.comments(device) if any(comment.encode() + b"\0" in rule for rule in rules)]
    assert len(said) == len(rules) > 0
    assert all(sum(comment.startswith(start) for start in REASONS) == 1 for comment in said)


def test_a_port_that_somebody_else_has_does_not_stop_the_agent(tmp_path: Path) -> None:
    """Any user of the node can take it. The metrics are on the unix socket all the same."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as taken:
        patch.setenv("CNI_V6_RUN_DIR", str(tmp_path))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with closing(agent_metrics.server(address, said.append)), closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(agent_status.path(".sock"))
        with pytest.raises(CniError) as refused:
            agent_metrics.server("192.0.2.1:9165", said.append)
    assert refused.value.code == INVALID_CONFIG
    [words] = said
    assert address in words and "goes on" in words
