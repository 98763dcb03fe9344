"""Ranges that follow a prefix: how they are written, and which prefix an interface has."""

from __future__ import annotations

from typing import Any

import pytest

from cni_v6.allocation.ranges import subnet
from cni_v6.attachments import load_config
from cni_v6.config import interface_prefix
from cni_v6.config.bridge import parse_bridge
from cni_v6.config.interface_prefix import InterfaceRange, Prefix
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import IPAM_PLUGIN
from cni_v6.errors import INVALID_CONFIG, NODE_CONFLICT, NOT_AVAILABLE, TRY_AGAIN, CniError
from cni_v6.kernel.facts import FOREVER, Lifetime, Link, RouteEntry
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.ops import HOST
from cni_v6.net.addresses import from_text
from cni_v6.plan import interface_prefix as plan_prefix
from tests.unit.config_tables import V4, V6, call, config, with_ranges
from tests.unit.fake_context import CONFIG, FakeContext

FOLLOW = {"from": "up0", "subnetId": "AB", "length": 72}
ONE = InterfaceRange("ipam.ranges[0][0]", "up0", 0xAB, 72)


def prefix(text: str, *own: str) -> Prefix:
    address, _, length = text.partition("/")
    return Prefix(from_text(address)[1], int(length), own)


def uplink(*held: Lifetime | str, routes: tuple[str, ...] = (), fake: FakeKernel | None = None) -> FakeKernel:
    """A node whose uplink has these addresses, and these on-link routes."""
    made = fake or FakeKernel()
    made.add_link(HOST, Link("up0", "02:00:00:00:00:01", 1500, up=True))
    space = made.spaces[HOST]
    lifetimes = [each if isinstance(each, Lifetime) else Lifetime(each) for each in held]
    space.addresses["up0"] = [each.address for each in lifetimes]
    space.lifetimes = {("up0", each.address): each for each in lifetimes}
    space.routes["up0"] = [RouteEntry("::/0", "fe80::1"), *(RouteEntry(each, None) for each in routes)]
    return made


def found(fake: FakeKernel) -> Prefix:
    return plan_prefix.prefixes([ONE], fake.observe(plan_prefix.questions([ONE, ONE])))["up0"]


# The configuration


def bridge_ipam(raw: dict[str, Any], prefixes: interface_prefix.InterfacePrefixes | None = None) -> IpamConf:
    conf = parse_bridge(call(raw), prefixes).ipam
    assert isinstance(conf, IpamConf)
    return conf


def test_it_is_known_what_to_look_up_before_anything_is() -> None:
    conf = bridge_ipam(with_ranges([FOLLOW], [V4]))
    assert (conf.follows, conf.sets) == ((ONE,), ())
    assert bridge_ipam(with_ranges([V6])).follows == ()
    assert bridge_ipam(config(ipam={"type": IPAM_PLUGIN, **V6})).follows == ()


def test_a_range_is_then_as_if_its_subnet_were_written() -> None:
    conf = bridge_ipam(with_ranges([FOLLOW], [V4]), {"up0": prefix("2001:db8:1:2::/64")})
    assert [subnet(one.written[0]) for one in conf.sets] == ["2001:db8:1:2:ab00::/72", "10.1.0.0/16"]
    assert conf.sets[0].written[0].gateway == "fe80::1"
    assert [each.subnet for each in conf.follows] == ["2001:db8:1:2:ab00::/72"]


def test_another_link_local_gateway() -> None:
    conf = bridge_ipam(with_ranges([FOLLOW | {"gateway": "fe80::9"}]), {"up0": prefix("2001:db8::/64")})
    assert conf.sets[0].written[0].gateway == "fe80::9"


def test_the_first_subnet_of_a_prefix() -> None:
    conf = bridge_ipam(with_ranges([{"from": "up0", "length": 64}]), {"up0": prefix("2001:db8::/64")})
    assert subnet(conf.sets[0].written[0]) == "2001:db8::/64"


@pytest.mark.parametrize(("one", "says"), [
    ({}, "ipam.ranges[0][0].subnet is missing"),
    ({"from": "up0"}, "ipam.ranges[0][0].length is missing"),
    (V6 | {"length": 72}, "length: 72 has no effect: there is no from beside it"),
    (V6 | {"subnetId": "1"}, 'subnetId: "1" has no effect'),
    (FOLLOW | V6, 'subnet: "fd42:1:2:3::/64" contradicts from: the prefix is what up0 has'),
    (FOLLOW | {"rangeStart": "2001:db8::1"}, "rangeStart"),
    (FOLLOW | {"gateway": "2001:db8::1"}, 'gateway: "2001:db8::1" would change with the prefix'),
    (FOLLOW | {"gateway": "10.1.0.1"}, "would change with the prefix"),
    (FOLLOW | {"subnetId": "0x1"}, 'subnetId: "0x1" is no hexadecimal number'),
    (FOLLOW | {"from": "a/b"}, "is not an interface name"),
])
def test_what_does_not_go_together(one: dict[str, Any], says: str) -> None:
    with pytest.raises(CniError) as caught:
        parse_bridge(call(with_ranges([one])))
    assert caught.value.code == INVALID_CONFIG and says in caught.value.msg


@pytest.mark.parametrize(("has", "says"), [
    ("2001:db8::/80", "length: 72 is less than the prefix has: up0 has 2001:db8::/80 now"),
    ("2001:db8::/68", 'subnetId: "ab" does not fit into 4 bits: up0 has 2001:db8::/68 now, and length is 72'),
])
def test_a_prefix_without_room(has: str, says: str) -> None:
    with pytest.raises(CniError) as caught:
        bridge_ipam(with_ranges([FOLLOW]), {"up0": prefix(has)})
    assert caught.value.code == INVALID_CONFIG and f"ipam.ranges[0][0].{says}" == caught.value.msg


def test_the_nodes_own_addresses_are_not_handed_out() -> None:
    has = {"up0": prefix("2001:db8::/64", "2001:db8:0:0:ab00::1", "2001:db8::5")}
    one = bridge_ipam(with_ranges([FOLLOW]), has).sets[0]
    assert one.ranges[0].first == from_text("2001:db8:0:0:ab00::2")[1]
    with pytest.raises(CniError, match=r"is excluded by ipam.ranges\[0\]\[0\].from \(2001:db8:0:0:ab00::1\)"):
        bridge_ipam(with_ranges([FOLLOW], runtimeConfig={"ips": ["2001:db8::ab00:0:0:1"]}), has)


# The prefix


@pytest.mark.parametrize(("held", "wanted"), [
    (["2001:db8:1::5/64"], "2001:db8:1::/64"),
    (["fe80::5/64", "2001:db8:1::5/56"], "2001:db8:1::/56"),
    (["fd00:1::5/64"], "fd00:1::/64"),
    (["fd00:1::5/64", Lifetime("2001:db8:1::5/64", 60, 120)], "2001:db8:1::/64"),
    ([Lifetime("2001:db8:1::5/64", 60, FOREVER), Lifetime("2001:db8:2::5/64", 61, 99)], "2001:db8:2::/64"),
    ([Lifetime("2001:db8:1::5/64", 60, 98), Lifetime("2001:db8:2::5/64", 60, 99)], "2001:db8:2::/64"),
    (["2001:db8:2::5/64", "2001:db8:1::5/64"], "2001:db8:1::/64"),
    ([Lifetime("2001:db8:1::5/64", 0), Lifetime("2001:db8:2::5/64", 60, 60)], "2001:db8:2::/64"),
    ([Lifetime("2001:db8:1::5/64", temporary=True), Lifetime("2001:db8:2::5/64", 60, 60)], "2001:db8:2::/64"),
])
def test_which_prefix(held: list[Lifetime | str], wanted: str) -> None:
    one = found(uplink(*held))
    assert str(one) == wanted


def test_an_address_without_a_prefix_of_its_own_has_that_of_its_route() -> None:
    routes = ("2001:db8::/32", "2001:db8:1::/64", "2001:db8:2::/64", "2001:db8:1::5/128", "10.0.0.0/8", "::/0")
    assert str(found(uplink("2001:db8:1::5/128", routes=routes))) == "2001:db8:1::/64"


def test_own_addresses() -> None:
    held = ("2001:db8:1::5/64", Lifetime("2001:db8:1::6/64", 0), "2001:db8:2::5/64", "fe80::5/64")
    assert found(uplink(*held)).own == ("2001:db8:1::5", "2001:db8:1::6")


@pytest.mark.parametrize("held", [
    [], ["fe80::1/64"], ["::1/128"], ["2001:db8::5/128"], [Lifetime("2001:db8::5/64", 0)],
    [Lifetime("2001:db8::5/64", temporary=True)],
])
def test_no_prefix_now(held: list[Lifetime | str]) -> None:
    with pytest.raises(CniError, match="up0 has no global IPv6 prefix now") as caught:
        found(uplink(*held))
    assert caught.value.code == TRY_AGAIN


def test_no_interface() -> None:
    with pytest.raises(CniError, match="the node has no interface up0") as caught:
        found(FakeKernel())
    assert caught.value.code == NODE_CONFLICT


@pytest.mark.parametrize(("held", "routes", "there"), [
    ([Lifetime("2001:db8:1::5/64", 0)], (), True), (["2001:db8:2::5/64"], ("2001:db8:1::/64",), True),
    (["2001:db8:2::5/64"], ("::/0", "10.0.0.0/8"), False), ([], (), False),
])
def test_whether_a_prefix_is_still_there(held: list[Lifetime | str], routes: tuple[str, ...], there: bool) -> None:
    seen = uplink(*held, routes=routes).observe(plan_prefix.questions([ONE]))
    assert plan_prefix.still_there("2001:db8:1::9", "up0", seen) is there


# All of it


FOLLOWING = CONFIG | {"ipam": {"type": IPAM_PLUGIN, "ranges": [[FOLLOW]]}}


def test_what_was_looked_up_is_not_remembered() -> None:
    fake = FakeContext()
    for number in (1, 2):
        uplink(f"2001:db8:{number}::5/64", fake=fake.kernel)
        result = fake.add(f"c{number}", FOLLOWING)
        assert result["ips"][0]["address"] == f"2001:db8:{number}:0:ab00::1/72"


def test_a_warning_is_told_once() -> None:
    fake = FakeContext()
    uplink("2001:db8::5/64", fake=fake.kernel)
    fake.container("c1")
    answer = fake.call("ADD", "c1", FOLLOWING | {"unheard": 1})
    assert answer.code == 0 and answer.stderr.count("unheard") == 1


def test_the_ipam_plugin_alone() -> None:
    fake = FakeContext()
    uplink("2001:db8::5/64", fake=fake.kernel)
    for raw in (FOLLOWING, CONFIG):
        one = call(raw | {"type": "macvlan"}, IPAM_PLUGIN)
        assert load_config.ipam(one, fake.context()).sets
    result = fake.add("c1", FOLLOWING | {"type": "macvlan"}, type=IPAM_PLUGIN)
    assert result["ips"] == [{"address": "2001:db8::ab00:0:0:1/72", "gateway": "fe80::1"}]


def test_status_says_that_there_is_no_prefix() -> None:
    fake = FakeContext()
    uplink(fake=fake.kernel)
    fake.container("c1")
    assert "no global IPv6 prefix now" in fake.call("ADD", "c1", FOLLOWING).error(TRY_AGAIN)
    assert "no global IPv6 prefix now" in fake.call("STATUS", config=FOLLOWING).error(NOT_AVAILABLE)
