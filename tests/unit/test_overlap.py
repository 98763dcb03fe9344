"""Prefixes that the node has elsewhere already: refused, but for what works because the longest prefix wins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.config.interface_prefix import InterfaceRange
from cni_v6.kernel import ops
from cni_v6.kernel.facts import Link, RouteEntry, Surroundings
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetSurroundings
from cni_v6.plan.overlap import Place, check
from tests.unit.fake_context import CONFIG, FOREIGN, FakeContext, plugin
from tests.unit.sample_values import conf, ipam_conf

FOUR = Place("cni0", "10.1.0.0/16", "10.1.0.1")
SIX = Place("cni0", "2001:db8:1:2:c::/80", "2001:db8:1:2:c::1")
LINK = Place("cni0", "2001:db8:1:2:c::/80", "fe80::1")


def around(*addresses: tuple[str, str], routes: tuple[tuple[str, RouteEntry], ...] = ()) -> Surroundings:
    return Surroundings(addresses, routes)


def via(dst: str, gateway: str | None, interface: str = "eth0") -> tuple[str, RouteEntry]:
    return interface, RouteEntry(dst, gateway)


@pytest.mark.parametrize(("place", "seen", "words"), [
    (FOUR, around(("eth0", "10.1.0.9/16")), "interface eth0 has address 10.1.0.9/16"),
    (FOUR, around(("eth0", "10.1.9.9/24")), "interface eth0 has address 10.1.9.9/24"),
    (FOUR, around(("eth0", "10.1.0.9/8")), "interface eth0 has address 10.1.0.9/8"),
    (FOUR, around(("lo", "10.1.7.7/32")), "interface lo has address 10.1.7.7/32"),
    (FOUR, around(("cni1", "10.1.0.1/16")), "network others (cni1) has address 10.1.0.1/16"),
    (SIX, around(("eth0", "2001:db8:1:2:c::9/64")), "interface eth0 has address 2001:db8:1:2:c::9/64"),
    (SIX, around(("eth0", "2001:db8:1:2:c::/80")), "interface eth0 has address 2001:db8:1:2:c::/80"),
    (FOUR, around(routes=(via("0.0.0.0/0", "10.1.0.254"),)),
     "the next hop 10.1.0.254 of the node's route 0.0.0.0/0 is behind interface eth0"),
    (FOUR, around(routes=(via("0.0.0.0/0", "10.1.0.1", "cni0"),)),
     "that gateway is the node's own router, of its route 0.0.0.0/0 through cni0"),
    (LINK, around(routes=(via("::/0", "fe80::1", "cni0"),)), "that gateway is the node's own router"),
    (FOUR, around(routes=(via("10.1.5.0/24", "192.0.2.1"),)),
     "the node has a route 10.1.5.0/24 through interface eth0"),
    (FOUR, around(routes=(via("10.1.0.0/16", None, "wg0"),)), "the node has a route 10.1.0.0/16 through interface wg0"),
    (LINK, around(routes=(via("2001:db8:1:2:c::/80", None, "cni1"),)),
     "the node has a route 2001:db8:1:2:c::/80 through network others (cni1)"),
    (FOUR, around(("cni-v6-wg", "10.1.0.9/32")), "interface cni-v6-wg has address 10.1.0.9/32"),
    (FOUR, around(("cni-v6-wg", "10.1.0.0/24")), "interface cni-v6-wg has address 10.1.0.0/24"),
    (FOUR, around(routes=(via("10.1.0.0/24", None, "cni-v6-wg"),)),
     "the node has a route 10.1.0.0/24 through interface cni-v6-wg"),
])
def test_what_is_refused(place: Place, seen: Surroundings, words: str) -> None:
    with pytest.raises(errors.CniError) as caught:
        check(conf(), [place], seen, frozenset(), {"cni1": "others"})
    assert caught.value.code == errors.NODE_CONFLICT
    assert caught.value.msg.startswith(f"subnet {place.prefix} (gateway {place.gateway}) overlaps: ")
    assert words in caught.value.msg and '"overlap": "allow"' in caught.value.details


@pytest.mark.parametrize(("place", "seen"), [
    (FOUR, around(("cni0", "10.1.0.1/16"), routes=(via("10.1.0.0/16", None, "cni0"),))),
    (FOUR, around(("old0", "10.1.0.1/16"), routes=(via("10.1.0.0/16", None, "old0"),))),
    (FOUR, around(("eth0", "10.2.0.1/16"), ("eth0", "2001:db8::1/64"))),
    (FOUR, around(routes=(via("0.0.0.0/0", "192.0.2.1"), via("10.0.0.0/8", "192.0.2.1"), via("10.0.0.0/8", None)))),
    (LINK, around(routes=(via("::/0", "fe80::1"), via("2001:db8:1::/48", "fe80::9")))),
    (SIX, around(("cni-v6-wg", "2001:db8:1:2:c::/128"), routes=(via("2001:db8:1:2:c::/128", None, "cni-v6-wg"),))),
    (FOUR, around(("cni-v6-wg", "10.1.0.0/32"))),
    (SIX, around(("eth0", "2001:db8:1:2::9/128"), routes=(via("2001:db8:1:2::/64", None),))),
])
def test_what_is_not(place: Place, seen: Surroundings) -> None:
    assert check(conf(), [place], seen, frozenset({"old0"}), {}) == []


FOLLOWING = replace(ipam_conf(), follows=(InterfaceRange("ipam.ranges[0][0]", "eth0", 12, 80),))
UPLINK = around(("eth0", "2001:db8:1:2::9/64"), ("eth0", "2001:db8:1:2:ff::9/64"))


@pytest.mark.parametrize(("keys", "warned"), [
    ({}, ["2001:db8:1:2::9/64", "2001:db8:1:2:ff::9/64"]), ({"ndp_proxy": "auto"}, []), ({"ndp_proxy": "eth0"}, []),
    ({"ipam": FOLLOWING}, []),
])
def test_a_part_of_the_uplinks_prefix(keys: dict[str, Any], warned: list[str]) -> None:
    found = check(conf(**keys), [SIX], UPLINK, frozenset(), {})
    assert [warning.partition(" is a part of ")[2].partition(" ")[0] for warning in found] == warned


@pytest.mark.parametrize(("proxy", "gateway", "fine"), [
    ("auto", "fe80::1", True), ("eth0", "fe80::1", True), ("eth1", "fe80::1", False), ("", "fe80::1", False),
    ("auto", "2001:db8:1:2::1", False),
])
def test_the_uplinks_whole_prefix(proxy: str, gateway: str, fine: bool) -> None:
    """The route of the uplink is the preferred one where the bridge has no address; the containers have their own."""
    seen = around(("eth0", "2001:db8:1:2::9/64"), routes=(via("::/0", "2001:db8:1:2::ff"),))
    place = Place("cni0", "2001:db8:1:2::/64", gateway)
    if fine:
        assert check(conf(ndp_proxy=proxy), [place], seen, frozenset(), {}) == []
    else:
        with pytest.raises(errors.CniError, match="overlaps"):
            check(conf(ndp_proxy=proxy), [place], seen, frozenset(), {})


def test_the_own_address_of_an_interface_that_is_followed_is_left_out() -> None:
    """The allocation excludes it."""
    seen = around(("eth0", "2001:db8:1:2:c::9/64"))
    assert check(conf(ipam=FOLLOWING), [SIX], seen, frozenset(), {}) == []


# ADD


OTHERS: dict[str, Any] = CONFIG | {"name": "others", "bridge": "cni1"}


def asked(fake: FakeContext) -> list[int]:
    """Counts how often the surroundings are asked for."""
    count, observe = [0], fake.kernel.observe

    def counting(questions: Any) -> Any:
        wanted = list(questions)
        count[0] += GetSurroundings() in wanted
        return observe(wanted)

    fake.kernel.observe = counting  # type: ignore[method-assign]
    return count


def test_it_is_looked_at_once_a_network() -> None:
    fake = FakeContext()
    count = asked(fake)
    for name in ("c1", "c2", "c3"):
        fake.add(name, CONFIG)
    assert count == [1]
    fake.call("DEL", "c1", CONFIG).ok()
    fake.add("c4", CONFIG)
    assert count == [1]


def test_a_second_network_of_the_same_subnet_is_refused_and_uses_up_nothing() -> None:
    fake = FakeContext()
    fake.add("c1", CONFIG)
    fake.container("c2")
    before = fake.state()
    words = fake.call("ADD", "c2", OTHERS).error(errors.NODE_CONFLICT)
    assert "overlaps: network pods (cni0) has address" in words
    assert fake.state()[0] == before[0] and fake.state()[2] == before[2] and fake.attachments("others") == []
    result = fake.add("c2", OTHERS | {"overlap": "allow"})
    assert result["ips"][0]["address"] == "2001:db8:1::2/64", "the ADD that was refused spent nothing"


def test_networks_that_share_a_bridge_or_have_no_gateway_are_free_to() -> None:
    fake = FakeContext()
    fake.add("c1", CONFIG)
    elsewhere = [[{"subnet": "2001:db8:1::/64", "rangeStart": "2001:db8:1::8000:0"}]]
    fake.add("c2", CONFIG | {"name": "shared", "ipam": CONFIG["ipam"] | {"ranges": elsewhere}})
    fake.add("c3", CONFIG | {"name": "flat", "bridge": "cni2", "isDefaultGateway": False})


def test_addresses_of_another_plugin() -> None:
    answer: dict[str, Any] = {"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5/24", "gateway": "10.9.0.1"}]}
    fake = FakeContext(plugins={"dhcp": plugin(ADD=answer)})
    fake.kernel.add_link(HOST, Link("eth0", "02:00:00:00:00:01", 1500, up=True))
    fake.kernel.spaces[HOST].addresses["eth0"] = ["10.9.0.77/24"]
    fake.container("c1")
    config = FOREIGN | {"isGateway": True}
    before = fake.state()
    assert "interface eth0 has address 10.9.0.77/24" in fake.call("ADD", "c1", config).error(errors.NODE_CONFLICT)
    assert fake.delegated == [("dhcp", "ADD"), ("dhcp", "DEL")]
    assert fake.state()[0] == before[0] and fake.attachments() == []
    fake.kernel.spaces[HOST].addresses["eth0"] = ["10.8.0.77/24"]
    count = asked(fake)
    for number, name in enumerate(("c1", "c2"), 5):
        answer["ips"] = [{"address": f"10.9.0.{number}/24", "gateway": "10.9.0.1"}]
        fake.add(name, config)
    assert count == [1]


def test_an_add_warns_of_a_part_of_a_larger_prefix_once() -> None:
    fake = FakeContext()
    fake.kernel.add_link(HOST, Link("ens1", "02:00:00:00:00:77", 1500))
    fake.kernel.apply([ops.AddAddress(HOST, "ens1", "10.9.9.9/8")])
    assert "10.1.0.0/24 is a part of 10.9.9.9/8 of interface ens1" in fake.call(
        "ADD", "c1", CNI_NETNS=fake.container("c1")).stderr
    assert "is a part of" not in fake.call("ADD", "c2", CNI_NETNS=fake.container("c2")).stderr
