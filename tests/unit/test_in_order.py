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
from cni_v6.kernel.node_news import News, NodeNews
from cni_v6.kernel.ops import HOST
from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment, GatewayAddress
from cni_v6.protocol.names import Owner, alias, host_interface
from tests.unit.fake_context import FakeContext
from tests.unit.test_routed import CONFIG, add, call

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

    def changed(self, *told: News) -> frozenset[Owner] | None:
        assert self.told.news is not None
        self.told.news += told
        return self.begin().owners


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
def test_what_the_kernel_tells(settled: Kept, news: News) -> None:
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
def test_what_is_no_containers(settled: Kept, news: News) -> None:
    assert settled.changed(news) == frozenset()


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
    settled.changed(("new0", alias(A)))
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
    kept.told.news = [(f"v{number}", "") for number in range(in_order.MOST + 1)]


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

    def begin(self, network: str, data_dir: str, mark: object) -> Look:
        return self.look

    def settle(self, look: Look, found: Iterable[Attachment], present: Container[str]) -> None:
        names = [record.owner.container_id for record in found]
        self.settled.append((look, names, any(record.host in present for record in found)))


@dataclass
class Bench:
    fake: FakeContext
    keeper: Keeper

    def status(self, *changed: str, others: bool = True, conf: dict[str, Any] = CONFIG) -> Any:
        self.keeper.look = Look(frozenset(Owner("pods", name, "eth0") for name in changed), others)
        self.keeper.settled.clear()
        return call(self.fake, "STATUS", conf=conf)


@pytest.fixture
def bench() -> Bench:
    keeper = Keeper()
    fake = FakeContext(in_order=keeper)
    for name in ("c1", "c2"):
        add(fake, name)
    return Bench(fake, keeper)


def test_the_first_status_looks_at_all(bench: Bench) -> None:
    call(bench.fake, "STATUS").ok()
    assert bench.keeper.settled == [(Look(), ["c1", "c2"], True)]


def test_a_container_that_did_not_change_is_not_looked_at(bench: Bench) -> None:
    host = host_interface(Owner("pods", "c2", "eth0"))
    bench.fake.kernel.spaces[HOST].routes[host].clear()
    bench.status("c1").ok()
    [(look, names, _)] = bench.keeper.settled
    assert (look.owners, names) == (frozenset((Owner("pods", "c1", "eth0"),)), ["c1"])
    bench.status().ok()
    assert "route 10.1.0.3/32 through" in bench.status("c2").error(errors.LIMITED)
    assert bench.keeper.settled == []


def test_the_node_is_looked_at_while_a_container_runs(bench: Bench) -> None:
    bench.fake.kernel.spaces[HOST].sysctls["ipv4/ip_forward"] = "0"
    assert "IPv4 forwarding is off" in bench.status().error(errors.LIMITED)
    bench.status(others=False).ok()


def test_a_container_that_is_gone(bench: Bench) -> None:
    call(bench.fake, "DEL", "c2").ok()
    bench.status("c2").ok()
    assert [names for _, names, _ in bench.keeper.settled] == [[]]
    with bench.fake.leases().transaction() as leases:
        [left] = leases.attachments()
    bench.fake.kernel.delete(HOST, left.host)
    bench.status("c1", others=False).ok()


def test_a_record_that_is_gone_and_its_container_is_not(bench: Bench) -> None:
    with bench.fake.leases().transaction() as leases:
        leases.drop(Owner("pods", "c2", "eth0"))
    assert "the store had no record of 1 container" in bench.status("c2").error(errors.LIMITED)


def test_a_damaged_record(bench: Bench) -> None:
    with bench.fake.leases().transaction() as leases:
        [damaged] = [held for held in leases.attachments() if held.owner.container_id == "c2"]
        leases.update(Attachment(damaged.owner, damaged.addresses, damaged.host, boot=damaged.boot, damaged=True))
    assert "made anew" in bench.status("c2").error(errors.LIMITED)
