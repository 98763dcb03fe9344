"""IPv6 forwarding in both ways a kernel has for it, and the node's own IPv6 untouched by either."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cni_v6.kernel.facts import Link, RouteEntry
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.ops import HOST, SetSysctl
from cni_v6.kernel.questions import GetIpv6Interfaces
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.plan import forwarding
from tests.unit import sample_values

DEFAULT = RouteEntry("::/0", "fe80::1", priority=1024)


def older() -> FakeKernel:
    """Before Linux 6.17: all interfaces forward, or none."""
    return sample_values.kernel()


def newer() -> FakeKernel:
    """``force_forwarding`` of each interface."""
    return FakeKernel()


def node(fake: FakeKernel) -> FakeKernel:
    """Two uplinks that live on RAs, one that had them turned off, one without IPv6; nothing of ours yet."""
    for name, accept_ra, disabled in (("ens1", "1", "0"), ("ens2", "1", "0"), ("ens3", "0", "0"), ("ens4", "1", "1")):
        fake.add_link(HOST, Link(name, "02:00:00:00:00:01", 1500, up=True))
        fake.spaces[HOST].sysctls[f"ipv6/conf/{name}/accept_ra"] = accept_ra
        fake.spaces[HOST].sysctls[f"ipv6/conf/{name}/disable_ipv6"] = disabled
    fake.spaces[HOST].routes["ens1"] = [DEFAULT]
    return fake


def look(fake: FakeKernel) -> Snapshot:
    seen = fake.observe(forwarding.questions("cni0"))
    return seen.with_answers(fake.observe(forwarding.more_questions(seen, "cni0")))


def on(name: str) -> SetSysctl:
    return SetSysctl(HOST, f"ipv6/conf/{name}/force_forwarding", "1")


def accept(name: str) -> SetSysctl:
    return SetSysctl(HOST, f"ipv6/conf/{name}/accept_ra", "2")


ALL = SetSysctl(HOST, "ipv6/conf/all/forwarding", "1")


def test_older_kernel_keeps_listening_first_and_forwards_last() -> None:
    seen = look(node(older()))
    assert not forwarding.is_on(seen, "cni0")
    assert forwarding.turn_on(seen, "cni0") == (accept("ens1"), accept("ens2"), accept("default"), ALL)


@pytest.mark.parametrize("value", ["0", "2"])
def test_older_kernel_leaves_the_default_as_the_administrator_has_it(value: str) -> None:
    fake = node(older())
    fake.spaces[HOST].sysctls["ipv6/conf/default/accept_ra"] = value
    assert forwarding.turn_on(look(fake), "cni0") == (accept("ens1"), accept("ens2"), ALL)


def test_newer_kernel_forwards_on_the_bridge_and_where_the_node_has_ipv6() -> None:
    seen = look(node(newer()))
    assert not forwarding.is_on(seen, "cni0")
    assert forwarding.turn_on(seen, "cni0") == (on("cni0"), on("ens1"), on("ens2"), on("ens3"))


def test_newer_kernel_without_an_uplink() -> None:
    fake = node(newer())
    del fake.spaces[HOST].routes["ens1"]
    assert forwarding.turn_on(look(fake), "cni0") == (on("cni0"), on("ens1"), on("ens2"), on("ens3"))


def test_an_uplink_that_changed_is_seen_to() -> None:
    """The bridge forwards already, but the node's default route goes through another interface now."""
    fake = node(newer())
    fake.add_link(HOST, Link("cni0", "02:00:00:00:00:02", 1500, kind="bridge", up=True))
    fake.apply(forwarding.turn_on(look(fake), "cni0"))
    fake.add_link(HOST, Link("wwan0", "02:00:00:00:00:03", 1500, up=True))
    fake.spaces[HOST].routes["wwan0"] = [RouteEntry("::/0", "fe80::1", priority=100)]
    seen = look(fake)
    assert forwarding.is_on(seen, "cni0")
    assert GetIpv6Interfaces() not in seen.answers
    assert forwarding.turn_on(seen, "cni0") == (on("cni0"), on("wwan0"))


@pytest.mark.parametrize("make", [older, newer])
def test_a_node_that_forwards_is_left_alone(make: Callable[[], FakeKernel]) -> None:
    fake = node(make())
    fake.spaces[HOST].sysctls["ipv6/conf/all/forwarding"] = "1"
    seen = look(fake)
    assert forwarding.is_on(seen, "cni0")
    assert forwarding.more_questions(seen, "cni0") == ()
    assert forwarding.turn_on(seen, "cni0") == ()


@pytest.mark.parametrize("make", [older, newer])
def test_the_next_one_finds_it_on(make: Callable[[], FakeKernel]) -> None:
    fake = node(make())
    fake.add_link(HOST, Link("cni0", "02:00:00:00:00:02", 1500, kind="bridge", up=True))
    fake.apply(forwarding.turn_on(look(fake), "cni0"))
    before = dict(fake.spaces[HOST].sysctls)
    seen = look(fake)
    assert forwarding.is_on(seen, "cni0")
    fake.apply(forwarding.turn_on(seen, "cni0"))
    assert fake.spaces[HOST].sysctls == before


# An uplink that answers for containers


def answering(fake: FakeKernel) -> Snapshot:
    return look(fake).with_answers(fake.observe(forwarding.answering_questions("ens1")))


def own(name: str) -> SetSysctl:
    return SetSysctl(HOST, f"ipv6/conf/{name}/forwarding", "1")


PROXY = SetSysctl(HOST, "ipv6/conf/all/proxy_ndp", "1")


def test_newer_kernel_answers_where_the_interface_itself_forwards() -> None:
    """Which costs every listener its routes, as forwarding everywhere does."""
    seen = answering(node(newer()))
    assert not forwarding.answers(seen, "ens1")
    assert forwarding.answer(seen, "ens1") == (accept("ens1"), accept("ens2"), own("ens1"), on("ens1"), PROXY)


@pytest.mark.parametrize("make", [older, newer])
def test_an_uplink_that_answers_is_left_alone(make: Callable[[], FakeKernel]) -> None:
    fake = node(make())
    fake.apply((*forwarding.answer(answering(fake), "ens1"), PROXY))
    before = dict(fake.spaces[HOST].sysctls)
    seen = answering(fake)
    assert forwarding.answers(seen, "ens1")
    fake.apply(forwarding.answer(seen, "ens1"))
    assert fake.spaces[HOST].sysctls == before
