"""What an engine keeps of containers that are in order, and what a STATUS makes of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.attachments.context import Look
from cni_v6.engine import in_order
from cni_v6.engine.in_order import InOrder
from cni_v6.kernel.facts import Link
from cni_v6.kernel.node_news import News, NodeNews
from cni_v6.kernel.ops import HOST
from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment, GatewayAddress
from cni_v6.plan.status import Others
from cni_v6.protocol.names import Owner, alias, host_interface, owned
from tests.unit.fake_context import CONFIG as BRIDGED, FakeContext, gc
from tests.unit.test_routed import CONFIG as ROUTED

A, B = (Owner("pods", name, "eth0") for name in ("a", "b"))
MARK = object()


# The engine's part


class Told(NodeNews):
    """News that a test tells; None once for lost ones."""

    def __init__(self) -> None:
        self.news: list[News] | None = []
        self.closed = False

    def read(self) -> list[News] | None:
        told, self.news = self.news, []
        return told

    def close(self) -> None:
        self.closed = True


@dataclass
class Kept:
    """A network's folder, and what an engine keeps of it."""

    path: Path
    told: Told = field(default_factory=Told)

    def __post_init__(self) -> None:
        self.of_engine = InOrder(lambda: self.told)
        self.folder("pods")

    def folder(self, network: str) -> Path:
        made = self.path / network / "attachments"
        made.mkdir(parents=True)
        return made

    def begin(self, mark: object = MARK, network: str = "pods") -> Look:
        return self.of_engine.begin(network, str(self.path), mark)

    def settle(self, look: Look, *found: Attachment, present: Container[str] = ()) -> None:
        self.of_engine.settle(look, found, present)

    def changed(self, *told: tuple[str, str]) -> frozenset[Owner] | None:
        self.tell(*(News(*each) for each in told))
        return self.begin().owners

    def tell(self, *told: News) -> None:
        assert self.told.news is not None
        self.told.news += told


def record(owner: Owner, address: str = "10.1.0.2") -> Attachment:
    host = host_interface(owner)
    return Attachment(owner, (address,), host, anchors=(
        GatewayAddress("lo", "10.1.0.1/32"), GatewayAddress(host, f"{address}/32", on_link=True)))


@pytest.fixture
def kept(tmp_path: Path) -> Iterable[Kept]:
    made = Kept(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    yield made
    made.of_engine.close()
    assert len(os.listdir("/proc/self/fd")) <= before and made.told.closed


@pytest.fixture
def settled(kept: Kept) -> Kept:
    """Both containers are in order, and the first one runs."""
    kept.settle(kept.begin(), record(A), record(B, "10.1.0.3"), present={host_interface(A)})
    return kept


def test_all_are_looked_at_until_all_are_in_order(kept: Kept) -> None:
    assert kept.begin().owners is None
    look = kept.begin()
    assert look.owners is None
    kept.settle(look, record(A), present={host_interface(A)})
    assert replace(kept.begin(), token=None) == Look(frozenset(), others=True)
    assert kept.begin(mark="another").owners is None
    kept.settle(kept.begin(mark="another"))
    assert replace(kept.begin(mark="another"), token=None) == Look(frozenset())


@pytest.mark.parametrize("news", [
    (host_interface(A), ""), ("10.1.0.2/32", ""), ("new0", alias(A)), (host_interface(A), alias(A)),
])
def test_what_the_kernel_tells(settled: Kept, news: tuple[str, str]) -> None:
    look = settled.begin()
    assert settled.changed(news) == frozenset((A,))
    assert settled.changed() == frozenset((A,)), "until it is in order again"
    settled.settle(look, record(A))
    assert settled.changed() == frozenset((A,)), "it changed after that look had begun"
    look = settled.begin()
    assert not look.others
    settled.settle(look, record(A), present={host_interface(A)})
    assert settled.changed() == frozenset()


@pytest.mark.parametrize("news", [
    ("eth0", ""), ("0.0.0.0/0", ""), ("veth1", alias(Owner("other", "a", "eth0"))), ("veth1", "web"),
])
def test_what_is_no_containers(settled: Kept, news: tuple[str, str]) -> None:
    assert settled.changed(news) == frozenset()


def test_which_names_interfaces_have_had(settled: Kept) -> None:
    """Those whose alias names an owner of the network."""
    settled.tell(News(host_interface(A), alias(A)), News("renamed0", alias(B)), News("eth0"),
                 News("veth1", alias(Owner("other", "a", "eth0"))))
    look = settled.begin()
    assert look.interfaces == frozenset({host_interface(A), "renamed0"})
    settled.settle(look, record(A), record(B, "10.1.0.3"))
    assert settled.begin().interfaces == frozenset()


def test_how_many_interfaces_may_be_new(settled: Kept) -> None:
    """Since all were looked at; routes and known interfaces are none, and one that is gone is none any more."""
    settled.tell(News(host_interface(A)), News("fd00::/64"), News("veth1"), News("veth1"), News("veth2"))
    look = settled.begin()
    assert look.fresh == 2
    settled.settle(look, record(A))
    settled.tell(News("veth2", is_gone=True), News("veth3"), News("gone0", is_gone=True))
    assert settled.begin().fresh == 2
    look = replace(settled.begin(), owners=None)
    settled.tell(News("veth4"))
    assert settled.begin().fresh == 3
    settled.settle(look, record(A))
    assert settled.begin().fresh == 1, "it came after that look had begun"
    settled.told.news = None
    assert settled.begin().fresh == 0


def test_a_note_is_for_the_next_look(settled: Kept) -> None:
    assert settled.begin().note is None
    settled.of_engine.settle(settled.begin(), (), (), "a note")
    assert [settled.begin().note for _ in range(2)] == ["a note"] * 2


def test_a_delegated_prefix_is_of_its_container(kept: Kept) -> None:
    kept.settle(kept.begin(), replace(record(A), prefixes=("fd00:1::/64",)))
    assert kept.changed(("fd00:1::/64", "")) == frozenset((A,))


# GC's part: what a list lacks


def unlisted(kept: Kept, *listed: str) -> Look:
    return kept.of_engine.unlisted("pods", str(kept.path), frozenset(listed))


def test_what_a_list_lacks(settled: Kept) -> None:
    assert unlisted(settled, "a:eth0", "b:eth0", "c:eth0") == Look(frozenset())
    assert unlisted(settled, "a:eth0") == Look(frozenset((B,)))
    assert unlisted(settled) == Look(frozenset((A, B)))
    settled.changed(("veth1", alias(A)))
    for _ in range(2):
        assert unlisted(settled, "a:eth0", "b:eth0") == Look(frozenset((A,)), frozenset({"veth1"}))
    settled.settle(settled.begin(), record(A))
    assert unlisted(settled, "a:eth0", "b:eth0") == Look(frozenset())


def test_a_list_is_compared_with_what_is_known_alone(kept: Kept) -> None:
    assert unlisted(kept, "a:eth0") == Look() == unlisted(kept)
    kept.begin()
    assert unlisted(kept, "a:eth0") == Look(), "nobody has found them in order"
    kept.settle(kept.begin(), record(A))
    kept.told.news = None
    assert unlisted(kept, "a:eth0") == Look(), "news were lost"


def test_a_container_with_a_hashed_record(kept: Kept) -> None:
    long = Owner("pods", "c" * 300, "eth0")
    kept.settle(kept.begin(), record(long))
    assert unlisted(kept, records.attachment_name(long)) == Look(frozenset())
    assert unlisted(kept) == Look(frozenset((long,)))


def test_a_lease_without_an_interface_is_left_to_the_whole_list(kept: Kept) -> None:
    kept.settle(kept.begin(), record(Owner("pods", "old", records.ANY_IFNAME)))
    assert unlisted(kept, "old:eth0") == Look()


def test_an_address_of_loopback_may_be_anybodys(settled: Kept) -> None:
    assert settled.changed(("lo", "")) is None


@pytest.mark.parametrize(("name", "owners"), [
    ("attachments/a:eth0", (A,)), ("10.1.0.3", (B,)), ("attachments/c:eth0", (Owner("pods", "c", "eth0"),)),
    ("attachments/.memo", ()), ("last_reserved_ip.0", ()), ("10.1.0.9", ()), ("fd00::9", ()),
    ("lock", ()), (f"attachments/{records.record_name('c' * 300, 'eth0')}", None),
])
def test_what_changes_in_the_store(settled: Kept, name: str, owners: tuple[Owner, ...] | None) -> None:
    path = settled.path / "pods" / name
    for change in (lambda: path.write_text("x"), path.unlink):
        change()
        assert settled.changed() == (None if owners is None else frozenset(owners))


def test_one_that_is_gone_is_forgotten(settled: Kept) -> None:
    settled.tell(News("new0", alias(A)), News("new0", alias(A), is_gone=True))
    settled.settle(settled.begin())
    assert replace(settled.begin(), token=None) == Look(frozenset())
    assert settled.changed((host_interface(A), ""), ("10.1.0.2/32", "")) == frozenset()


def test_an_address_of_the_next_holder(settled: Kept) -> None:
    settled.changed(("new0", alias(A)), ("new0", alias(B)))
    settled.settle(settled.begin(), record(B))
    assert settled.changed(("10.1.0.2/32", "")) == frozenset((B,))


@pytest.mark.parametrize("count", [in_order.FEW, in_order.FEW + 1])
def test_many_are_all(settled: Kept, count: int) -> None:
    told = [("new0", alias(Owner("pods", f"c{number}", "eth0"))) for number in range(count)]
    found = settled.changed(*told)
    assert (found is None) == (count > in_order.FEW)


def lost_news(kept: Kept) -> None:
    kept.told.news = None


def other_folder(kept: Kept) -> None:
    (kept.path / "pods").rename(kept.path / "before")
    kept.folder("pods")


def no_folder(kept: Kept) -> None:
    (kept.path / "pods" / "attachments").rmdir()
    (kept.path / "pods" / "attachments").mkdir()


def too_much(kept: Kept) -> None:
    kept.told.news = [News(f"v{number}") for number in range(in_order.MOST + 1)]


def another_look(kept: Kept) -> None:
    for number in range(in_order.NETWORKS):
        kept.folder(f"n{number}")
        kept.begin(network=f"n{number}")


@pytest.mark.parametrize("doubt", [lost_news, other_folder, no_folder, too_much, another_look])
def test_in_doubt_all_are_looked_at(settled: Kept, doubt: Callable[[Kept], None]) -> None:
    look = settled.begin()
    assert look.owners == frozenset()
    doubt(settled)
    fresh = settled.begin()
    assert fresh.owners is None
    settled.settle(look, record(A))
    assert settled.begin().owners is None, "it was in order before what nobody told of"
    settled.settle(fresh, record(A))
    assert settled.begin().owners == frozenset()
    if doubt in (other_folder, no_folder, another_look):
        settled.settle(look, record(B))
        assert settled.changed((host_interface(B), "")) == frozenset(), "what began before counts no more"


def test_a_store_that_is_not_there_and_news_that_cannot_be_had(tmp_path: Path) -> None:
    def refused() -> NodeNews:
        raise OSError

    for made in (InOrder(Told), InOrder(refused)):
        look = made.begin("none", str(tmp_path), MARK)
        assert look == Look()
        made.settle(look, [record(A)], ())
        made.close()


# STATUS


class Keeper:
    """What ``InOrder`` keeps, as a test wants it."""

    def __init__(self) -> None:
        self.look = Look()
        self.settled: list[tuple[Look, list[str], bool]] = []
        self.note: object = None

    def begin(self, network: str, data_dir: str, mark: object) -> Look:
        return self.look

    def unlisted(self, network: str, data_dir: str, valid: frozenset[str]) -> Look:
        return self.look

    def settle(self, look: Look, records: Iterable[Attachment], present: Container[str], note: object = None) -> None:
        names = [record.owner.container_id for record in records]
        self.settled.append((look, names, any(record.host in present for record in records)))
        self.note = note


C1, C2, C3 = (Owner("pods", name, "eth0") for name in ("c1", "c2", "c3"))


@dataclass
class Bench:
    """``type``, ``config``: of the network."""

    fake: FakeContext
    keeper: Keeper
    type: str
    config: dict[str, Any]

    def call(self, command: str, name: str = "", conf: dict[str, Any] | None = None) -> Any:
        return self.fake.call(command, name, conf or self.config, type=self.type)

    def add(self, name: str) -> None:
        self.fake.container(name)
        self.call("ADD", name).ok()

    def status(
        self, *changed: str, others: bool = True, interfaces: Iterable[str] = (), fresh: int = 0,
    ) -> Any:
        """After one that has found all in order, these containers have changed."""
        owners = frozenset(Owner("pods", name, "eth0") for name in changed)
        self.keeper.look = Look(owners, frozenset(interfaces), others, fresh, self.keeper.note)
        self.keeper.settled.clear()
        return self.call("STATUS")

    def settled(self) -> list[list[str]]:
        return [names for _, names, _ in self.keeper.settled]


def bench_of(type: str, config: dict[str, Any]) -> Bench:
    keeper = Keeper()
    made = Bench(FakeContext(in_order=keeper), keeper, type, config)
    for name in ("c1", "c2"):
        made.add(name)
    made.call("STATUS").ok()
    return made


@pytest.fixture
def routed() -> Bench:
    return bench_of("cni-v6-routed", ROUTED)


@pytest.fixture
def bridged() -> Bench:
    return bench_of("cni-v6", BRIDGED)


@pytest.fixture(params=["routed", "bridged"])
def bench(request: pytest.FixtureRequest) -> Bench:
    found: Bench = request.getfixturevalue(request.param)
    return found


def test_the_first_status_looks_at_all(bench: Bench) -> None:
    assert bench.keeper.settled == [(Look(), ["c1", "c2"], True)]


def test_a_container_that_did_not_change_is_not_looked_at(routed: Bench) -> None:
    routed.fake.kernel.spaces[HOST].routes[host_interface(C2)].clear()
    routed.status("c1").ok()
    [(look, names, _)] = routed.keeper.settled
    assert (look.owners, names) == (frozenset((C1,)), ["c1"])
    routed.status().ok()
    assert "route 10.1.0.3/32 through" in routed.status("c2").error(errors.LIMITED)
    assert routed.keeper.settled == []


def test_a_container_of_a_bridge_that_did_not_change_is_not_looked_at(bridged: Bench) -> None:
    links = bridged.fake.kernel.spaces[HOST].links
    host = host_interface(C2)
    links[host] = replace(links[host], master="")
    bridged.status("c1").ok()
    assert bridged.settled() == [["c1"]]
    assert "containers are in no bridge, so they are cut off: c2/eth0" in bridged.status("c2").error(errors.LIMITED)
    assert bridged.settled() == []


def test_what_all_containers_of_a_bridge_count_on_is_looked_at(bridged: Bench) -> None:
    space = bridged.fake.kernel.spaces[HOST]
    gateway = next(address for address in space.addresses["cni0"] if "." in address)
    space.addresses["cni0"].remove(gateway)
    assert f"gateway address {gateway} is missing on cni0" in bridged.status().error(errors.LIMITED)
    space.addresses["cni0"].append(gateway)
    bridged.status().ok()
    assert bridged.settled() == [[]]


def test_what_nobody_counts_on_any_more_is_no_fault(bridged: Bench) -> None:
    """The gateway of a container that is gone: the few do not tell, so all are looked at."""
    assert isinstance(bridged.keeper.note, Others)
    former = GatewayAddress("cni0", "192.0.2.1/24")
    bridged.keeper.note = replace(bridged.keeper.note, wanted=bridged.keeper.note.wanted | {former})
    bridged.status("c1").ok()
    assert bridged.settled() == [["c1", "c2"]]
    assert isinstance(bridged.keeper.note, Others) and former not in bridged.keeper.note.wanted
    bridged.status("c1").ok()
    assert bridged.settled() == [["c1"]]


@pytest.mark.parametrize(("fresh", "looked_at"), [(1020, ["c1"]), (1021, ["c1", "c2"])])
def test_a_bridge_that_may_be_full_is_looked_at(bridged: Bench, fresh: int, looked_at: list[str]) -> None:
    """Each new interface of the node may be a port of it, and 1,023 are too many."""
    bridged.status("c1", fresh=fresh).ok()
    assert bridged.settled() == [looked_at]
    assert isinstance(bridged.keeper.note, Others) and bridged.keeper.note.ports == 2


def test_an_address_that_the_node_answers_for_is_looked_at_each_time() -> None:
    """The kernel does not tell that it no longer does."""
    keeper = Keeper()
    made = Bench(FakeContext(in_order=keeper), keeper, "cni-v6", {**BRIDGED, "ndpProxy": "eth0"})
    made.fake.kernel.add_link(HOST, Link("eth0", "02:00:00:00:00:01", 1500, up=True))
    made.add("c1")
    made.call("STATUS").ok()
    assert made.settled() == []


def test_the_node_is_looked_at_while_a_container_runs(routed: Bench) -> None:
    routed.fake.kernel.spaces[HOST].sysctls["ipv4/ip_forward"] = "0"
    assert "IPv4 forwarding is off" in routed.status().error(errors.LIMITED)
    routed.status(others=False).ok()


def test_the_node_is_looked_at_for_a_bridge(bridged: Bench) -> None:
    bridged.fake.kernel.spaces[HOST].sysctls["ipv4/ip_forward"] = "0"
    assert "IPv4 forwarding is off" in bridged.status().error(errors.LIMITED)


def test_a_container_that_is_gone(bench: Bench) -> None:
    bench.call("DEL", "c2").ok()
    bench.status("c2").ok()
    assert bench.settled() == [[]]
    [left] = bench.fake.attachments()
    bench.fake.kernel.delete(HOST, left.host)
    bench.status("c1", others=False).ok()


def test_a_record_that_is_gone_and_its_container_is_not(bench: Bench) -> None:
    drop(bench, C2)
    assert "the store had no record of 1 container" in bench.status("c2").error(errors.LIMITED)


def test_an_interface_that_was_renamed_and_has_no_record(bench: Bench) -> None:
    links = bench.fake.kernel.spaces[HOST].links
    links["mine0"] = replace(links.pop(host_interface(C2)), name="mine0")
    drop(bench, C2)
    said = bench.status("c2", interfaces=("mine0", "none0")).error(errors.LIMITED)
    assert "the store had no record of 1 container" in said


def test_a_damaged_record(bench: Bench) -> None:
    with bench.fake.leases().transaction() as leases:
        [damaged] = [held for held in leases.attachments() if held.owner == C2]
        leases.update(Attachment(damaged.owner, damaged.addresses, damaged.host, boot=damaged.boot, damaged=True))
    assert "made anew" in bench.status("c2").error(errors.LIMITED)


def drop(bench: Bench, owner: Owner) -> None:
    with bench.fake.leases().transaction() as leases:
        leases.drop(owner)


# GC


def collect(bench: Bench, *valid: str) -> list[str]:
    """GC with a list of containers.

    :returns: the containers that are left, by their records; they must have their interfaces, and nobody else.
    """
    bench.fake.now += 1
    bench.call("GC", conf=gc(*valid, config=bench.config)).ok()
    left = [record.owner for record in bench.fake.attachments()]
    there = [owner for owner, _ in owned(bench.fake.kernel.spaces[HOST].links.values())]
    assert sorted(left) == sorted(there)
    return [owner.container_id for owner in left]


def test_gc_looks_at_what_it_is_told_of(bench: Bench) -> None:
    bench.keeper.look = Look(frozenset())
    assert collect(bench, "c1") == ["c1", "c2"]
    bench.keeper.look = Look(frozenset((C2,)))
    assert collect(bench, "c1", "c2") == ["c1", "c2"]
    assert collect(bench, "c1") == ["c1"]
    bench.keeper.look = Look()
    assert collect(bench) == []


@pytest.mark.parametrize("names", [("none0",), ("none0", host_interface(C2))], ids=["record", "interface"])
def test_gc_takes_an_interface_without_a_record(bench: Bench, names: tuple[str, ...]) -> None:
    """Whichever of the two has changed."""
    drop(bench, C2)
    bench.keeper.look = Look(frozenset((C2,)), frozenset(names))
    assert collect(bench, "c1") == ["c1"]


def test_gc_keeps_what_was_made_meanwhile(bench: Bench) -> None:
    bench.fake.now += 100
    bench.add("c3")
    bench.fake.now -= 100
    bench.keeper.look = Look(frozenset((C3,)), frozenset({host_interface(C3)}))
    assert collect(bench, "c1", "c2") == ["c1", "c2", "c3"]
