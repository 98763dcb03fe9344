"""The gateway's addresses on a bridge of ours, beside what is there already."""

from __future__ import annotations

import pytest

from cni_v6.kernel import ops
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST, Op
from cni_v6.leases.attachment import GatewayAddress
from cni_v6.plan import gateways
from cni_v6.protocol.result import Address
from tests.unit.sample_values import BRIDGE_MAC, NODE, conf, ipam_conf, kernel, look, range_set

GATEWAY = conf(is_gateway=True)
SIX, FOUR = Address("2001:db8::2/64", "2001:db8::1"), Address("10.1.0.2/24", "10.1.0.1")


def steps(held: list[str], *ips: Address) -> list[Op]:
    fake = kernel()
    fake.add_link(HOST, Link("cni0", BRIDGE_MAC, 1500, kind="bridge", up=True))
    fake.spaces[HOST].addresses["cni0"] = held
    return list(gateways.steps(GATEWAY, ips, NODE, look(fake, GATEWAY)))


def test_what_is_there_is_not_put_there_again() -> None:
    assert steps(["2001:db8::1/64", "10.1.0.1/24"], SIX, FOUR) == []


def test_another_subnet_stands_beside() -> None:
    assert steps(["2001:db8:9::1/32", "10.9.0.1/24", "fe80::9/64"], SIX, FOUR) == [
        ops.AddAddress(HOST, "cni0", "2001:db8::1/64"), ops.AddAddress(HOST, "cni0", "10.1.0.1/24"),
    ]


def test_of_two_ipv6_prefixes_with_one_gateway_the_shorter_is_there() -> None:
    assert steps(["2001:db8::1/60"], SIX) == []
    assert steps(["2001:db8::1/72"], SIX) == [
        ops.RemoveAddress(HOST, "cni0", "2001:db8::1/72"), ops.AddAddress(HOST, "cni0", "2001:db8::1/64"),
    ]
    assert steps(["10.1.0.1/16"], FOUR) == [ops.AddAddress(HOST, "cni0", "10.1.0.1/24")]


@pytest.mark.parametrize(("present", "there"), [
    ("2001:db8::1/64", True), ("2001:db8::1/60", True), ("2001:db8::1/72", False), ("2001:db8::2/64", False),
])
def test_whether_a_gateway_is_there(present: str, there: bool) -> None:
    assert gateways.is_there("2001:db8::1/64", ["fe80::1/64", present]) is there


def test_anchors() -> None:
    behind = Address("2001:db8::2/64", "fe80::1")
    assert gateways.anchors(GATEWAY, [SIX, FOUR, behind, Address("2001:db8:5::2/64")]) == (
        GatewayAddress("cni0", "2001:db8::1/64"),
        GatewayAddress("cni0", "10.1.0.1/24"),
        GatewayAddress("cni0", "2001:db8::/64", on_link=True),
    )
    assert gateways.anchors(conf(), [SIX]) == ()
    written = conf(is_gateway=True, ipam=ipam_conf(range_set("10.1.0.0/24", "10.2.0.0/24")))
    assert gateways.anchors_of_ranges(written) == (
        GatewayAddress("cni0", "10.1.0.1/24"),
        GatewayAddress("cni0", "10.2.0.1/24"),
    )
    assert gateways.anchors_of_ranges(GATEWAY) == ()


def test_addresses_of_ranges() -> None:
    written = conf(is_gateway=True, ipam=ipam_conf(range_set("10.1.0.0/24"), range_set("2001:db8::/64")))
    assert list(gateways.of_ranges(written, ["2001:db8::2", "10.1.0.2", "10.3.0.2"])) == [SIX, FOUR]
    assert list(gateways.of_ranges(GATEWAY, ["10.1.0.2"])) == []


def test_taking_away() -> None:
    route = GatewayAddress("cni0", "2001:db8::/64", on_link=True)
    assert gateways.take_away(route) == ops.RemoveRoute(HOST, "cni0", "2001:db8::/64")
    assert gateways.take_away(GatewayAddress("cni0", "10.1.0.1/24")) == ops.RemoveAddress(HOST, "cni0", "10.1.0.1/24")
