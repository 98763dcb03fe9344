"""CHECK names every difference, once; STATUS says whether an ADD would succeed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cni_v6.config.bridge import BridgeConf
from cni_v6.errors import INVALID_CONFIG, LIMITED, NOT_AVAILABLE, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.facts import BRIDGE_PORTS_MAX, Link, RouteEntry
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.ops import HOST
from cni_v6.leases.attachment import Attachment
from cni_v6.plan import bridge, check, gateways, outage, status as status_of
from cni_v6.plan.site import Allocation
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address, Interface, Result, Route, after
from tests.unit.sample_values import (
    ADDRESS_MAC,
    BEHIND_LINK_LOCAL,
    BRIDGE_MAC,
    IPV4,
    IPV6,
    NETNS,
    NODE,
    PORT,
    PORT_MAC,
    SITE,
    allocation,
    conf,
    ipam_conf,
    kernel,
    look,
    range_set,
)

GATEWAY = conf(is_gateway=True, is_default_gateway=True)
DUAL = allocation(IPV6, IPV4, routes=(Route("2001:db8:9::/48", mtu=1400, advmss=1300, priority=50, table=100),))
Change = Callable[[FakeKernel], None]


def attached(wanted: BridgeConf, given: Allocation = DUAL) -> tuple[FakeKernel, Result]:
    """A node after an ADD, and its result."""
    fake = kernel()
    made = bridge.plan_add(SITE, wanted, given, look(fake, wanted))
    fake.apply(made.ops)
    return fake, made.result


def differences(wanted: BridgeConf, fake: FakeKernel, result: Result) -> list[str]:
    return check.compare(SITE, wanted, result, fake.observe(check.questions(SITE, wanted, result)))


@pytest.mark.parametrize(
    ("changed", "given"),
    [
        ({}, DUAL),
        ({}, allocation(IPV6)),
        ({}, allocation(IPV4)),
        ({}, allocation(BEHIND_LINK_LOCAL)),
        ({}, allocation()),
        ({"is_gateway": False, "is_default_gateway": False}, DUAL),
        ({"hairpin": True, "port_isolation": True, "mtu": 1400}, DUAL),
        ({"promisc": True, "enable_dad": True, "netfilter": True}, DUAL),
        ({"mac": "02:00:00:00:00:07"}, DUAL),
        ({"vlan": 5, "vlan_trunk": ((10, 12), (20, 20))}, DUAL),
        ({"vlan_trunk": ((10, 12),)}, DUAL),
        ({"disable_container_interface": True, "is_default_gateway": False}, allocation()),
    ],
)
def test_what_was_added_is_as_it_should_be(changed: dict[str, Any], given: Allocation) -> None:
    wanted = replace(GATEWAY, **changed)
    assert differences(wanted, *attached(wanted, given)) == []


def alter(netns: str, name: str, **changes: Any) -> Change:
    """Change a link's attributes behind everybody's back."""

    def change(fake: FakeKernel) -> None:
        links = fake.spaces[netns].links
        links[name] = replace(links[name], **changes)

    return change


def without(netns: str, name: str) -> Change:
    def change(fake: FakeKernel) -> None:
        del fake.spaces[netns].links[name]

    return change


def sysctl(netns: str, key: str, value: str) -> Change:
    def change(fake: FakeKernel) -> None:
        assert key in fake.spaces[netns].sysctls
        fake.spaces[netns].sysctls[key] = value

    return change


def without_address(netns: str, name: str, address: str) -> Change:
    return lambda fake: fake.spaces[netns].addresses[name].remove(address)


def route(dst: str, **changes: Any) -> Change:
    """Change the route to a place; without changes, take it away."""

    def changed(entry: RouteEntry) -> list[RouteEntry]:
        if entry.dst != dst:
            return [entry]
        return [replace(entry, **changes)] if changes else []

    def change(fake: FakeKernel) -> None:
        held = fake.spaces[NETNS].routes
        held["eth0"] = [kept for entry in held["eth0"] for kept in changed(entry)]

    return change


FAR = "route 2001:db8:9::/48 via 2001:db8:1::1 is missing"


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (without(HOST, "cni0"), "bridge cni0 is missing"),
        (alter(HOST, "cni0", kind="vlan"), "cni0 is no bridge"),
        (alter(HOST, "cni0", up=False), "bridge cni0 is down"),
        (alter(HOST, "cni0", promisc=False), "bridge cni0 is not promiscuous"),
        (alter(HOST, "cni0", netfilter=frozenset((4,))),
         "the frames of bridge cni0 do not pass the node's rules (netfilter)"),
        (alter(HOST, "cni0", mac="02:00:00:00:00:09"), "bridge cni0: mac is 02:00:00:00:00:09, not " + BRIDGE_MAC),
        (without(HOST, PORT), f"host interface {PORT} is missing"),
        (alter(HOST, PORT, mac="02:00:00:00:00:9"), f"host interface {PORT}: mac is 02:00:00:00:00:9, not {PORT_MAC}"),
        (alter(HOST, PORT, mtu=1280), f"host interface {PORT}: mtu is 1280, not 1500"),
        (alter(HOST, PORT, up=False), f"host interface {PORT}: up is False, not True"),
        (alter(HOST, PORT, master="br9"), f"{PORT} is in bridge br9, not in cni0"),
        (alter(HOST, PORT, master=""), f"{PORT} is in no bridge, not in cni0"),
        (alter(HOST, PORT, hairpin=True), f"{PORT}: hairpin is True, not False"),
        (alter(HOST, PORT, isolated=False), f"{PORT}: isolated is False, not True"),
        (lambda fake: fake.vlans[PORT].pop(5), f"{PORT} is not in vlan 5 untagged"),
        (lambda fake: fake.vlans[PORT].update({5: False}), f"{PORT} is not in vlan 5 untagged"),
        (lambda fake: fake.vlans.update({PORT: {5: True, 11: False}}), f"{PORT} lacks trunk vlans [10, 12]"),
        (without(NETNS, "eth0"), "interface eth0 is missing in the container"),
        (alter(NETNS, "eth0", mac="02:00:00:00:00:09"), f"interface eth0: mac is 02:00:00:00:00:09, not {ADDRESS_MAC}"),
        (alter(NETNS, "eth0", mtu=1280), "interface eth0: mtu is 1280, not 1500"),
        (alter(NETNS, "eth0", up=False), "interface eth0: up is False, not True"),
        (without_address(NETNS, "eth0", "2001:db8:1::2/64"), "address 2001:db8:1::2/64 is missing on eth0"),
        (without_address(NETNS, "eth0", "10.1.0.2/16"), "address 10.1.0.2/16 is missing on eth0"),
        *(
            (sysctl(NETNS, f"ipv6/conf/eth0/{key}", "1"), f"container: net/ipv6/conf/eth0/{key} is 1, not 0")
            for key in ("disable_ipv6", "accept_ra", "autoconf")
        ),
        (route("::/0"), "route ::/0 via 2001:db8:1::1 is missing"),
        (route("0.0.0.0/0", gateway="10.1.0.9"), "route 0.0.0.0/0 via 10.1.0.1 is missing"),
        (route("2001:db8:9::/48", table=254), FAR),
        (route("2001:db8:9::/48", mtu=1500), FAR),
        (route("2001:db8:9::/48", advmss=None), FAR),
        (route("2001:db8:9::/48", priority=60), FAR),
        (without_address(HOST, "cni0.5", "2001:db8:1::1/64"), "gateway address 2001:db8:1::1/64 is missing on cni0.5"),
        (without_address(HOST, "cni0.5", "10.1.0.1/16"), "gateway address 10.1.0.1/16 is missing on cni0.5"),
        (sysctl(HOST, "ipv4/ip_forward", "0"), "node: net/ipv4/ip_forward is 0, not 1"),
        (sysctl(HOST, "ipv6/conf/all/forwarding", "0"), "IPv6 forwarding is off on cni0.5"),
    ],
)
def test_a_difference_is_named_once(change: Change, phrase: str) -> None:
    wanted = replace(GATEWAY, promisc=True, port_isolation=True, vlan=5, vlan_trunk=((10, 12),), netfilter=True)
    fake, result = attached(wanted)
    assert differences(wanted, fake, result) == []
    change(fake)
    assert differences(wanted, fake, result) == [phrase]


def test_an_on_link_route_is_missing() -> None:
    fake, result = attached(conf(), allocation(Address("2001:db8:1::2/64"), routes=(Route("2001:db8:9::/48"),)))
    fake.spaces[NETNS].routes.clear()
    assert differences(conf(), fake, result) == ["route 2001:db8:9::/48 via the link is missing"]


def test_an_interface_that_should_be_down_is_up() -> None:
    wanted = conf(disable_container_interface=True)
    fake, result = attached(wanted, allocation())
    fake.apply([ops.SetLink(NETNS, "eth0", up=True)])
    assert differences(wanted, fake, result) == ["interface eth0: up is True, not False"]


def test_every_difference_is_named() -> None:
    fake, result = attached(GATEWAY)
    fake.remove([ops.DeleteLink(HOST, PORT), ops.DeleteLink(HOST, "cni0")])
    assert differences(GATEWAY, fake, result) == [
        "bridge cni0 is missing",
        f"host interface {PORT} is missing",
        "interface eth0 is missing in the container",
        "route 2001:db8:9::/48 via 2001:db8:1::1 is missing",
        "route ::/0 via 2001:db8:1::1 is missing",
        "route 0.0.0.0/0 via 10.1.0.1 is missing",
        "gateway address 2001:db8:1::1/64 is missing on cni0",
        "gateway address 10.1.0.1/16 is missing on cni0",
    ]


def test_a_result_of_somebody_else() -> None:
    fake, result = attached(GATEWAY)
    with pytest.raises(CniError, match=f"prevResult names no interface eth0 in {NETNS}") as caught:
        differences(GATEWAY, fake, replace(result, interfaces=result.interfaces[:2], ips=()))
    assert caught.value.code == INVALID_CONFIG


def test_what_a_chained_plugin_added_is_not_ours_to_check() -> None:
    fake, result = attached(GATEWAY)
    other = (*result.interfaces, Interface("tun0", "", sandbox=NETNS))
    more = replace(result, interfaces=other, ips=(*result.ips, Address("2001:db8:7::2/64", interface=3)))
    assert differences(GATEWAY, fake, more) == []


def test_what_came_in_from_an_earlier_plugin_is_compared_where_it_is() -> None:
    """Its interface is another one, its address needs no gateway of ours, its route leads through it."""
    fake, own = attached(GATEWAY)
    fake.add_link(NETNS, Link("net0", "02:00:00:00:00:05", 1500, up=True))
    fake.spaces[NETNS].routes["net0"] = [RouteEntry("198.51.100.0/24", "192.0.2.1")]
    result = after(Result(
        (Interface("net0", "02:00:00:00:00:05", NETNS),), (Address("192.0.2.2/24", "192.0.2.1", 0),),
        (Route("198.51.100.0/24"),),
    ), own)
    assert differences(GATEWAY, fake, result) == []
    fake.spaces[NETNS].routes["net0"] = [RouteEntry("198.51.100.0/24", "192.0.2.9")]
    assert differences(GATEWAY, fake, result) == [
        "route 198.51.100.0/24 via 10.1.0.1 or 192.0.2.1 is missing",
    ]


def test_an_attachment_of_the_reference_plugin() -> None:
    """Its host interface has a random name, which its result has in the second place, and no settings are promised."""
    fake, result = attached(GATEWAY)
    links = fake.spaces[HOST].links
    links["veth1a2b3c4d"] = replace(links.pop(PORT), name="veth1a2b3c4d")
    sysctl(NETNS, "ipv6/conf/eth0/accept_ra", "1")(fake)
    theirs = replace(result.interfaces[1], name="veth1a2b3c4d")
    named = replace(result, interfaces=(result.interfaces[0], theirs, result.interfaces[2]))
    assert differences(GATEWAY, fake, named) == []
    alter(HOST, "veth1a2b3c4d", up=False)(fake)
    assert differences(GATEWAY, fake, named) == ["host interface veth1a2b3c4d: up is False, not True"]


def test_a_result_that_names_neither_bridge_nor_host_interface() -> None:
    """Before 0.3.0 results name no interfaces; a plugin behind us may have left ours out."""
    fake, result = attached(GATEWAY)
    few = replace(result, interfaces=result.interfaces[2:], ips=tuple(replace(ip, interface=0) for ip in result.ips))
    assert differences(GATEWAY, fake, few) == []
    fake.remove([ops.DeleteLink(HOST, PORT)])
    assert f"host interface {PORT} is missing" in differences(GATEWAY, fake, few)


def test_macs_are_compared_as_they_are_meant() -> None:
    fake, result = attached(GATEWAY)
    upper = tuple(replace(each, mac=each.mac.upper(), mtu=0) for each in result.interfaces)
    assert differences(GATEWAY, fake, replace(result, interfaces=upper)) == []
    nothing = tuple(replace(each, mac="") for each in result.interfaces)
    assert differences(GATEWAY, fake, replace(result, interfaces=nothing)) == []


# STATUS


DUAL_CONF = replace(GATEWAY, ipam=ipam_conf(range_set("2001:db8:1::/64"), range_set("10.1.0.0/16")))


RECORD = Attachment(SITE.owner, ("2001:db8:1::2", "10.1.0.2"), host=PORT, anchors=gateways.anchors(GATEWAY, DUAL.ips))


def status(fake: FakeKernel, wanted: BridgeConf = DUAL_CONF, *records: Attachment) -> list[str]:
    seen = fake.observe(status_of.questions(wanted, NODE, records or (RECORD,)))
    seen = seen.with_answers(fake.observe(outage.more_questions(wanted, seen)))
    return status_of.check(wanted, NODE, records or (RECORD,), seen)


@pytest.mark.parametrize("wanted", [DUAL_CONF, conf(), conf(ipam=DUAL_CONF.ipam), GATEWAY])
def test_status_of_a_node_in_order(wanted: BridgeConf) -> None:
    status(kernel(), wanted)
    status(attached(DUAL_CONF)[0], wanted)


def full(fake: FakeKernel) -> None:
    for number in range(BRIDGE_PORTS_MAX):
        fake.add_link(HOST, Link(f"veth{number}", "", 1500, master="cni0"))


def unplugged(count: int) -> Change:
    """Containers of the network whose ports are in no bridge, beside one of another network."""
    def change(fake: FakeKernel) -> None:
        for number in range(1, count + 1):
            fake.add_link(HOST, Link(f"veth{number}", "", 1500, alias=names.alias(Owner("pods", f"c{number}", "eth0"))))
        fake.add_link(HOST, Link("veth0", "", 1500, alias=names.alias(Owner("others", "c0", "eth0"))))

    return change


def no_ipv6(fake: FakeKernel) -> None:
    for key in [key for key in fake.spaces[HOST].sysctls if key.startswith("ipv6/")]:
        del fake.spaces[HOST].sysctls[key]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (alter(HOST, "cni0", kind=""), NOT_AVAILABLE, "cni0 exists and is no bridge"),
        (full, NOT_AVAILABLE, "has 102[34] ports"),
        (sysctl(HOST, "ipv6/conf/all/disable_ipv6", "1"), NOT_AVAILABLE, "IPv6 is off on this node"),
        (no_ipv6, NOT_AVAILABLE, "the kernel has no IPv6"),
        (alter(HOST, "cni0", up=False), LIMITED, "bridge cni0 is down"),
        (unplugged(1), LIMITED, "no bridge, so they are cut off: c1/eth0: run cni"),
        (unplugged(5), LIMITED, "no bridge, so they are cut off: c1/eth0, c2/eth0, c3/eth0 and 2 more: run cni"),
        (sysctl(HOST, "ipv4/ip_forward", "0"), LIMITED, "IPv4 forwarding is off"),
        (sysctl(HOST, "ipv6/conf/all/forwarding", "0"), LIMITED, "IPv6 forwarding is off on cni0"),
    ],
)
def test_status(change: Change, code: int, words: str) -> None:
    fake = attached(DUAL_CONF)[0]
    change(fake)
    with pytest.raises(CniError, match=words) as caught:
        status(fake)
    assert caught.value.code == code
    assert caught.value.details


@pytest.mark.parametrize("key", ["ipv4/ip_forward", "ipv6/conf/all/forwarding"])
def test_a_node_that_does_not_forward_yet_is_ready(key: str) -> None:
    """The first ADD turns it on; where the network has its gateway elsewhere, nobody misses it."""
    fake = attached(DUAL_CONF)[0]
    sysctl(HOST, key, "0")(fake)
    status(fake, conf(ipam=DUAL_CONF.ipam))
    fake.remove([ops.DeleteLink(HOST, PORT)])
    status(fake)


def test_a_network_of_one_family_needs_that_familys_forwarding() -> None:
    fake = attached(GATEWAY, allocation(IPV4))[0]
    status(fake, replace(GATEWAY, ipam=ipam_conf(range_set("10.1.0.0/16"))))
