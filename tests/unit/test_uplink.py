"""What the node's uplinks mean for containers: their MTU, and addresses of their segment that the node answers for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from cni_v6.config.bridge import BridgeConf
from cni_v6.config.keys.bridge import AUTO_MTU
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.facts import Link, RouteEntry
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, ProxyEntry
from cni_v6.plan import bridge, features, mtu, ndp_proxy
from cni_v6.protocol.result import Address
from tests.unit import sample_values
from tests.unit.sample_values import IPV4, IPV6, OWNER, SITE, conf, look

DUAL = frozenset((4, 6))
DEFAULT4, DEFAULT6 = RouteEntry("0.0.0.0/0", "192.0.2.9"), RouteEntry("::/0", "fe80::9")
MINE = IPV6.ip  # of 2001:db8:1::/64


def node(fake: FakeKernel | None = None, mtus: Mapping[str, int] = MappingProxyType({})) -> FakeKernel:
    """A node with the interfaces ``four`` and ``six``, named for the default route through each; ``other`` has none."""
    made = fake or FakeKernel()
    if "/run/netns/c1" not in made.spaces:
        made.add_netns("/run/netns/c1")
    for name in ("four", "six", "other"):
        made.add_link(HOST, Link(name, "02:00:00:00:00:01", mtus.get(name, 1500), up=True))
    made.spaces[HOST].routes |= {"four": [DEFAULT4], "six": [DEFAULT6]}
    return made


def on_link(fake: FakeKernel, name: str = "six") -> FakeKernel:
    fake.spaces[HOST].addresses[name] = ["192.0.2.1/24", "2001:db8:1::ff/64", "fe80::1/64"]
    return fake


def gateway(**keys: Any) -> BridgeConf:
    return conf(is_gateway=True, **keys)


def seen(fake: FakeKernel, wanted: BridgeConf) -> Snapshot:
    return look(fake, wanted)


# MTU


@pytest.mark.parametrize(("mtus", "families", "expected"), [
    ({"four": 1450}, DUAL, 1450),
    ({"six": 1400, "four": 1450, "other": 1300}, DUAL, 1400),
    ({"four": 1200}, DUAL, 1280),
    ({"four": 1200}, frozenset((6,)), 1280),
    ({"four": 1200}, frozenset(), 1280),
    ({"four": 1200}, frozenset((4,)), 1200),
])
@pytest.mark.parametrize("is_gateway", [True, False])
def test_auto_is_the_smallest(mtus: dict[str, int], families: frozenset[int], expected: int, is_gateway: bool) -> None:
    wanted = conf(mtu=AUTO_MTU, is_gateway=is_gateway)
    assert mtu.mtu(wanted, families, seen(node(mtus=mtus), wanted)) == expected


def test_auto_without_a_default_route_is_the_bridges() -> None:
    wanted = conf(mtu=AUTO_MTU)
    assert mtu.mtu(wanted, DUAL, seen(sample_values.kernel(), wanted)) == 0
    made = bridge.plan_add(SITE, wanted, sample_values.allocation(), seen(sample_values.kernel(), wanted))
    assert [each.mtu for each in made.result.interfaces] == [1500, 1500, 1500]


def test_a_number_is_itself() -> None:
    wanted = gateway(mtu=1400)
    assert mtu.mtu(wanted, DUAL, seen(node(mtus={"four": 1300}), wanted)) == 1400


def test_the_plan_has_it_everywhere() -> None:
    wanted = gateway(mtu=AUTO_MTU)
    made = bridge.plan_add(SITE, wanted, sample_values.allocation(IPV6, IPV4), seen(node(mtus={"six": 1400}), wanted))
    assert [each.mtu for each in made.result.interfaces] == [1400, 1400, 1400]
    assert [op.mtu for op in made.ops if isinstance(op, (ops.EnsureBridge, ops.CreateVeth))] == [1400, 1400]


def remarks(wanted: BridgeConf, fake: FakeKernel, *ips: Address) -> list[str]:
    return list(features.warnings(wanted, sample_values.allocation(*ips), seen(fake, wanted)))


def test_a_small_one_is_remarked_on() -> None:
    wanted = gateway(mtu=AUTO_MTU)
    words = "mtu: auto: an uplink has 1200, below the 1280 that IPv6 needs; containers get {}"
    assert remarks(wanted, node(mtus={"four": 1200}), IPV6, IPV4) == [words.format(1280)]
    assert remarks(wanted, node(mtus={"four": 1200}), IPV4) == [words.format(1200)]
    assert remarks(wanted, node(mtus={"four": 1280}), IPV6) == []
    assert remarks(wanted, sample_values.kernel(), IPV6) == []
    assert remarks(gateway(mtu=1280), node(mtus={"four": 1200}), IPV6) == []


# Neighbours


def proxied(wanted: BridgeConf, fake: FakeKernel, *ips: Address) -> tuple[ProxyEntry, ...]:
    return ndp_proxy.proxied(wanted, ips, seen(fake, wanted))


AUTO = gateway(ndp_proxy="auto")


def test_an_address_of_the_uplinks_prefix() -> None:
    assert proxied(AUTO, on_link(node()), IPV6, IPV4) == (ProxyEntry("six", "cni0", MINE),)


def test_an_address_of_an_on_link_route() -> None:
    fake = node()
    fake.spaces[HOST].routes["six"] += [RouteEntry("2001:db8:1::/48", None)]
    assert proxied(AUTO, fake, IPV6) == (ProxyEntry("six", "cni0", MINE),)


@pytest.mark.parametrize("route", [
    RouteEntry("2001:db8:1::/64", "fe80::9"),  # somebody else's, behind a router
    RouteEntry("::/0", None, priority=4000),  # a tunnel's
    RouteEntry("2001:db8:2::/64", None),
    RouteEntry("10.0.0.0/8", None),
])
def test_an_address_that_nobody_on_the_uplink_looks_for(route: RouteEntry) -> None:
    fake = on_link(node(), "other")
    fake.spaces[HOST].routes["six"] += [route]
    assert proxied(AUTO, fake, IPV6, IPV4) == ()
    assert remarks(AUTO, fake, IPV6) == [
        "ndpProxy: auto: no address lies in an on-link prefix of six: the node answers for none"
    ]
    assert remarks(AUTO, fake, IPV4) == []


def test_without_a_default_route_there_is_no_uplink() -> None:
    fake = on_link(sample_values.kernel())
    assert proxied(AUTO, fake, IPV6) == ()
    assert "any IPv6 uplink (there is none)" in remarks(AUTO, fake, IPV6)[0]


def test_a_bridge_that_is_the_uplink_answers_by_itself() -> None:
    fake = on_link(node(), "cni0")
    fake.add_link(HOST, Link("cni0", "02:00:00:00:00:01", 1500, kind="bridge", up=True))
    fake.spaces[HOST].routes = {"cni0": [DEFAULT6]}
    assert proxied(AUTO, fake, IPV6) == ()


def test_a_named_interface_answers_for_every_address() -> None:
    wanted = gateway(ndp_proxy="other", vlan=5)
    second = Address("fd00:1::2/64", "fd00:1::1")
    home = "cni0.5"
    found = proxied(wanted, on_link(node()), IPV6, IPV4, second)
    assert found == (ProxyEntry("other", home, MINE), ProxyEntry("other", home, second.ip))
    assert remarks(wanted, node(), IPV6) == []


def test_a_named_interface_that_is_not_there() -> None:
    wanted = gateway(ndp_proxy="ens9")
    with pytest.raises(CniError, match="ndpProxy: the node has no interface ens9") as caught:
        bridge.check_free(SITE, wanted, seen(node(), wanted))
    assert caught.value.code == NODE_CONFLICT and caught.value.details
    for fine in (gateway(ndp_proxy="six"), AUTO, gateway()):
        bridge.check_free(SITE, fine, seen(node(), fine))


def test_ipv4_alone_asks_for_nothing_more() -> None:
    fake = node()
    first = fake.observe(bridge.questions(SITE, AUTO))
    assert ndp_proxy.proxied(AUTO, [IPV4], first) == ()
    bridge.plan_add(SITE, AUTO, sample_values.allocation(IPV4), first)


@pytest.mark.parametrize("make", [FakeKernel, sample_values.kernel])
def test_what_arrives_is_what_is_removed(make: Any) -> None:
    fake = on_link(node(make()))
    made = bridge.plan_add(SITE, AUTO, sample_values.allocation(IPV6, IPV4), seen(fake, AUTO))
    assert made.ops[-2:] == (ops.AddRoute(HOST, "cni0", f"{MINE}/128"), ops.AddProxy("six", MINE))
    fake.apply(made.ops)
    assert fake.spaces[HOST].proxies == {"six": [MINE]}
    record = Attachment(OWNER, (MINE,), proxied=proxied(AUTO, fake, IPV6, IPV4))
    assert list(features.differences(AUTO, record, fake.observe(features.check_questions(AUTO, record)))) == []
    for _ in range(2):
        fake.remove(ndp_proxy.removal(record))
        assert fake.spaces[HOST].proxies == {"six": []}
        assert f"{MINE}/128" not in [route.dst for route in fake.spaces[HOST].routes["cni0"]]
    fake.spaces[HOST].sysctls["ipv6/conf/six/forwarding"] = "0"
    assert list(features.differences(AUTO, record, fake.observe(features.check_questions(AUTO, record)))) == [
        "the node answers for nobody on six: its forwarding or proxy_ndp is off",
        f"route {MINE}/128 through cni0 is missing",
        f"the node does not answer for {MINE} on six",
    ]


def test_nothing_recorded_is_nothing_to_do() -> None:
    record = Attachment(OWNER, (MINE,))
    assert ndp_proxy.removal(record) == ()
    for each in (record, None):
        assert features.check_questions(AUTO, each) == ()
        assert features.differences(AUTO, each, Snapshot({})) == []
