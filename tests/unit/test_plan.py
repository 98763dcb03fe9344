"""What an ADD will do and answer: one network to the letter, then what each key changes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cni_v6.allocation.ranges import RangeSet
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.firewall import FirewallConf
from cni_v6.errors import ALREADY_ATTACHED, IPV6_DISABLED, NODE_CONFLICT, CniError
from cni_v6.firewall.policy import CLOSED_SEGMENT, OPEN, SHARED_SEGMENT
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.describe import describe
from cni_v6.kernel.facts import Link
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.ops import HOST, Op, SetSysctl
from cni_v6.log import Log
from cni_v6.plan import bridge as plan_bridge, bridge_port, container, gateways
from cni_v6.plan.site import Allocation, Plan, Site
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address, Dns, Interface, Result, Route
from tests.unit.sample_values import (
    ADDRESS_MAC,
    BEHIND_LINK_LOCAL,
    BRIDGE_MAC,
    IPV4,
    IPV6,
    MAC,
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

DUAL = allocation(IPV6, IPV4)
GATEWAY = conf(is_gateway=True, is_default_gateway=True)
PUBLIC_MAC = "02:aa:aa:aa:aa:aa"  # of a bridge that an administrator made
UP = ops.SetLink(HOST, "cni0", up=True)
PAIR = ops.CreateVeth(PORT, PORT_MAC, "cni0", NETNS, "eth0", ADDRESS_MAC, 1500)
CLAIM = ops.ClaimMac(PORT, "cni0", ADDRESS_MAC)
PINNED = ops.PinMac("cni0", PUBLIC_MAC)
PORT_UP = awaits.AwaitPort(PORT)
GATEWAY_UP = awaits.AwaitCarrier("cni0")
RECEPTION = awaits.AwaitReception(NETNS, "eth0", ("2001:db8:1::2",))
INSIDE_UP = ops.SetLink(NETNS, "eth0", up=True)
ANNOUNCE = ops.Announce(NETNS, "eth0", ADDRESS_MAC)


def ipv6(key: str, value: str, netns: str = HOST) -> SetSysctl:
    return SetSysctl(netns, f"ipv6/conf/{key}", value)


def inside(key: str, value: str) -> SetSysctl:
    return SetSysctl(NETNS, key, value)


def quiet(interface: str) -> list[Op]:
    return [ipv6(f"{interface}/{key}", "0") for key in ("accept_ra", "autoconf", "accept_dad")]


def dual_stack() -> tuple[Op, ...]:
    """The whole ADD of a dual-stack network with its gateway on the bridge, the first on its node."""
    return (
        ops.EnsureBridge("cni0", BRIDGE_MAC, 0, multicast_snooping=False, vlan_filtering=False),
        *quiet("cni0"),
        ipv6("cni0/disable_ipv6", "0"),
        UP,
        ops.AddAddress(HOST, "cni0", "2001:db8:1::1/64"),
        ops.AddAddress(HOST, "cni0", "10.1.0.1/16"),
        SetSysctl(HOST, "ipv4/ip_forward", "1"),
        ipv6("default/accept_ra", "2"),
        ipv6("all/forwarding", "1"),
        PAIR,
        ops.SetAlias(HOST, PORT, "cni-v6 pods/c1/eth0"),
        CLAIM,
        ipv6(f"{PORT}/disable_ipv6", "1"),
        inside("ipv6/conf/eth0/disable_ipv6", "0"),
        inside("ipv6/conf/eth0/accept_ra", "0"),
        inside("ipv6/conf/eth0/autoconf", "0"),
        inside("ipv6/conf/eth0/accept_dad", "0"),
        inside("ipv6/conf/eth0/ndisc_notify", "1"),
        inside("ipv6/conf/eth0/keep_addr_on_down", "1"),
        inside("ipv6/conf/eth0/addr_gen_mode", "0"),
        ops.AddAddress(NETNS, "eth0", "2001:db8:1::2/64"),
        ops.AddAddress(NETNS, "eth0", "10.1.0.2/16"),
        INSIDE_UP,
        ops.AddRoute(NETNS, "eth0", "::/0", "2001:db8:1::1"),
        ops.AddRoute(NETNS, "eth0", "0.0.0.0/0", "10.1.0.1"),
        PORT_UP,
        GATEWAY_UP,
        RECEPTION,
        ANNOUNCE,
    )


def result(*ips: Address, routes: tuple[Route, ...] = (), mtu: int = 1500, mac: str = ADDRESS_MAC) -> Result:
    interfaces = (
        Interface("cni0", BRIDGE_MAC, mtu=mtu),
        Interface(PORT, PORT_MAC, mtu=mtu),
        Interface("eth0", mac, sandbox=NETNS, mtu=mtu),
    )
    return Result(interfaces, tuple(replace(ip, interface=2) for ip in ips), routes)


def planned(wanted: BridgeConf, given: Allocation, fake: FakeKernel | None = None) -> Plan:
    return plan_bridge.plan_add(SITE, wanted, given, look(fake or kernel(), wanted))


def changes(made: Plan, base: tuple[Op, ...]) -> tuple[list[Op], list[Op]]:
    """What a plan leaves out of another, and what it adds; what both have is in the same order."""
    common = [op for op in made.ops if op in base]
    assert common == [op for op in base if op in made.ops]
    return [op for op in base if op not in made.ops], [op for op in made.ops if op not in base]


def carried_out(made: Plan, fake: FakeKernel) -> FakeKernel:
    """A plan must be possible as it stands: the kernel takes it."""
    fake.apply(made.ops)
    return fake


# Whole plans


def test_dual_stack() -> None:
    made = planned(GATEWAY, DUAL)
    assert made.ops == dual_stack()
    assert made.result == result(IPV6, IPV4, routes=(Route("::/0", "2001:db8:1::1"), Route("0.0.0.0/0", "10.1.0.1")))
    carried_out(made, kernel())


def test_ipv6_only() -> None:
    made = planned(GATEWAY, allocation(IPV6))
    assert made.ops == tuple(
        replace(op, mac=MAC) if isinstance(op, (ops.CreateVeth, ops.ClaimMac, ops.Announce)) else op
        for op in dual_stack()
        if not any(word in describe(op) for word in ("10.1.0", "ipv4"))
    )
    assert made.result == result(IPV6, routes=(Route("::/0", "2001:db8:1::1"),), mac=MAC)


def test_ipv4_only() -> None:
    """IPv6 is off on the bridge and in the container: there is nothing to reach by it, and nobody listens to RAs."""
    made = planned(GATEWAY, allocation(IPV4))
    kept = [op for op in dual_stack() if not any(word in describe(op) for word in ("2001:db8", "::/0", "ipv6"))]
    gone, added = changes(made, tuple(kept))
    assert gone == [ANNOUNCE]
    assert added == [
        *quiet("cni0"), ipv6("cni0/disable_ipv6", "1"), ipv6(f"{PORT}/disable_ipv6", "1"),
        inside("ipv6/conf/eth0/disable_ipv6", "1"),
    ]
    assert made.result == result(IPV4, routes=(Route("0.0.0.0/0", "10.1.0.1"),))
    carried_out(made, kernel())


def test_layer_2_only() -> None:
    """No addresses: the container's interface comes up as it is, its settings are the container's own matter."""
    made = planned(conf(), allocation())
    assert made.ops == (
        ops.EnsureBridge("cni0", BRIDGE_MAC, 0, multicast_snooping=False, vlan_filtering=False),
        *quiet("cni0"),
        UP,
        replace(PAIR, mac=MAC),
        ops.SetAlias(HOST, PORT, "cni-v6 pods/c1/eth0"),
        replace(CLAIM, mac=MAC),
        ipv6(f"{PORT}/disable_ipv6", "1"),
        INSIDE_UP,
        PORT_UP,
    )
    assert made.result == result(mac=MAC)


def test_a_gateway_without_addresses_is_none() -> None:
    assert planned(GATEWAY, allocation()).ops == planned(conf(), allocation()).ops


def test_the_second_container_of_a_network() -> None:
    fake = carried_out(planned(GATEWAY, DUAL), kernel())
    fake.add_netns("/run/netns/c2")
    site = Site(Owner("pods", "c2", "eth0"), "/run/netns/c2", NODE)
    second = allocation(Address("2001:db8:1::3/64", "2001:db8:1::1"), Address("10.1.0.3/16", "10.1.0.1"))
    made = plan_bridge.plan_add(site, GATEWAY, second, fake.observe(plan_bridge.questions(site, GATEWAY)))
    assert on_bridge(made) == [SetSysctl(HOST, "ipv4/ip_forward", "1")]
    # Settings are written when they are different: somebody may have changed them.
    fake.apply([ipv6("cni0/accept_ra", "2"), ipv6("cni0/disable_ipv6", "1")])
    made = plan_bridge.plan_add(site, GATEWAY, second, fake.observe(plan_bridge.questions(site, GATEWAY)))
    changed = [ipv6("cni0/accept_ra", "0"), ipv6("cni0/disable_ipv6", "0")]
    assert on_bridge(made) == [*changed, SetSysctl(HOST, "ipv4/ip_forward", "1")]
    fake.apply(made.ops)


# What each key changes


@pytest.mark.parametrize(
    ("changed", "gone", "added"),
    [
        pytest.param({"hairpin": True}, [], [ops.SetPort(PORT, hairpin=True, isolated=False)], id="hairpinMode"),
        pytest.param(
            {"port_isolation": True}, [], [ops.SetPort(PORT, hairpin=False, isolated=True)], id="portIsolation"
        ),
        pytest.param(
            {"hairpin": True, "port_isolation": True}, [], [ops.SetPort(PORT, hairpin=True, isolated=True)], id="both"
        ),
        pytest.param({"promisc": True}, [UP], [ops.SetLink(HOST, "cni0", up=True, promisc=True)], id="promiscMode"),
        pytest.param(
            {"multicast_snooping": True},
            [dual_stack()[0]],
            [ops.EnsureBridge("cni0", BRIDGE_MAC, 0, multicast_snooping=True, vlan_filtering=False)],
            id="multicastSnooping",
        ),
        pytest.param(
            {"netfilter": True}, [], [ops.SetBridge("cni0", netfilter=bridge_port.ALL_FRAMES)], id="netfilter",
        ),
        pytest.param(
            {"mtu": 9000},
            [dual_stack()[0], PAIR],
            [
                ops.EnsureBridge("cni0", BRIDGE_MAC, 9000, multicast_snooping=False, vlan_filtering=False),
                replace(PAIR, mtu=9000),
            ],
            id="mtu",
        ),
        pytest.param(
            {"mac": "02:00:00:00:00:07"},
            [PAIR, CLAIM, ANNOUNCE],
            [
                replace(PAIR, mac="02:00:00:00:00:07"),
                replace(CLAIM, mac="02:00:00:00:00:07"),
                inside("ipv4/conf/eth0/arp_notify", "1"),
                replace(ANNOUNCE, mac="02:00:00:00:00:07"),
            ],
            id="mac",
        ),
        pytest.param(
            {"is_default_gateway": False},
            [
                ops.AddRoute(NETNS, "eth0", "::/0", "2001:db8:1::1"),
                ops.AddRoute(NETNS, "eth0", "0.0.0.0/0", "10.1.0.1"),
            ],
            [],
            id="isDefaultGateway false",
        ),
        pytest.param(
            {"is_default_gateway": False, "is_gateway": False},
            [
                ops.AddAddress(HOST, "cni0", "2001:db8:1::1/64"),
                ops.AddAddress(HOST, "cni0", "10.1.0.1/16"),
                SetSysctl(HOST, "ipv4/ip_forward", "1"),
                ipv6("default/accept_ra", "2"),
                ipv6("all/forwarding", "1"),
                PAIR,
                CLAIM,
                ops.AddRoute(NETNS, "eth0", "::/0", "2001:db8:1::1"),
                ops.AddRoute(NETNS, "eth0", "0.0.0.0/0", "10.1.0.1"),
                GATEWAY_UP,
                ANNOUNCE,
            ],
            [
                replace(PAIR, mac=MAC),
                replace(CLAIM, mac=MAC),
                inside("ipv4/conf/eth0/arp_notify", "1"),
                replace(ANNOUNCE, mac=MAC),
            ],
            id="isGateway false",
        ),
        pytest.param(
            {"disable_container_interface": True},
            [
                INSIDE_UP,
                ops.AddRoute(NETNS, "eth0", "::/0", "2001:db8:1::1"),
                ops.AddRoute(NETNS, "eth0", "0.0.0.0/0", "10.1.0.1"),
                PORT_UP,
                GATEWAY_UP,
                RECEPTION,
                ANNOUNCE,
            ],
            [],
            id="disableContainerInterface",
        ),
    ],
)
def test_a_key(changed: dict[str, Any], gone: list[Op], added: list[Op]) -> None:
    wanted = replace(GATEWAY, **changed)
    made = planned(wanted, DUAL)
    assert changes(made, dual_stack()) == (gone, added)
    carried_out(made, kernel())


def test_an_interface_is_announced_when_its_address_is_its_own() -> None:
    assert planned(replace(GATEWAY, enable_dad=True), DUAL).ops[-2:] == (awaits.AwaitAddresses(NETNS, "eth0"), ANNOUNCE)


def test_an_address_is_tested_once_its_solicitation_passes_the_port() -> None:
    made = planned(replace(GATEWAY, enable_dad=True), DUAL)
    tested = ops.AddAddress(NETNS, "eth0", "2001:db8:1::2/64", dad=True)
    assert [op for op in dual_stack() if op not in made.ops] == [
        inside("ipv6/conf/eth0/accept_dad", "0"),
        ops.AddAddress(NETNS, "eth0", "2001:db8:1::2/64"),
        ops.AddAddress(NETNS, "eth0", "10.1.0.2/16"),
        RECEPTION,
    ]
    assert [op for op in made.ops if op not in dual_stack()] == [
        inside("ipv6/conf/eth0/accept_dad", "1"),
        inside("ipv6/conf/eth0/router_solicitation_delay", "0"),
        ops.AddAddress(NETNS, "eth0", "10.1.0.2/16", dad=True),
        tested,
        awaits.AwaitAddresses(NETNS, "eth0"),
    ]
    place = made.ops.index(INSIDE_UP)
    assert made.ops[place : place + 3] == (INSIDE_UP, PORT_UP, tested) and made.ops.count(PORT_UP) == 1
    carried_out(made, kernel())


def test_detection_has_nothing_to_wait_for_on_ipv4() -> None:
    made = planned(replace(GATEWAY, enable_dad=True), allocation(IPV4))
    assert not [op for op in made.ops if isinstance(op, awaits.AwaitAddresses)]


def test_name_service() -> None:
    given = Allocation((IPV6,), dns=Dns(("2001:db8::53",)))
    assert planned(GATEWAY, given).result.dns == given.dns
    assert planned(replace(GATEWAY, dns=Dns(domain="example")), given).result.dns == Dns(domain="example")
    assert planned(replace(GATEWAY, dns=Dns()), given).result.dns == Dns()


# MTU


@pytest.mark.parametrize(
    ("wanted", "bridge", "expected"), [(0, None, 1500), (0, 9000, 9000), (1400, 9000, 1400), (1400, None, 1400)]
)
def test_mtu(wanted: int, bridge: int | None, expected: int) -> None:
    fake = kernel()
    if bridge:
        fake.add_link(HOST, Link("cni0", BRIDGE_MAC, bridge, kind="bridge", up=True))
    made = planned(replace(GATEWAY, mtu=wanted), allocation(IPV6), fake)
    [pair] = [op for op in made.ops if isinstance(op, ops.CreateVeth)]
    assert pair.mtu == expected
    assert [interface.mtu for interface in made.result.interfaces] == [expected] * 3


# A bridge that is there


def with_bridge(**settings: Any) -> FakeKernel:
    fake = kernel()
    fake.add_link(HOST, Link("cni0", settings.pop("mac", PUBLIC_MAC), 1500, kind="bridge", **settings))
    return fake


def on_bridge(made: Plan) -> list[Op]:
    """What is done to the bridge itself, up to the pair."""
    return list(made.ops[: made.ops.index(next(op for op in made.ops if isinstance(op, ops.CreateVeth)))])


def test_a_bridge_that_an_administrator_made_keeps_its_settings() -> None:
    """It may be the node's own way to its router: RAs on it, its MAC and its IPv6 are the node's."""
    made = planned(conf(), DUAL, with_bridge(up=True))
    assert on_bridge(made) == [PINNED]
    assert made.result.interfaces[0] == Interface("cni0", PUBLIC_MAC, mtu=1500)


def test_a_bridge_that_is_down_is_set_up() -> None:
    assert on_bridge(planned(conf(), DUAL, with_bridge())) == [PINNED, UP]


def test_a_bridge_of_ours_is_kept_quiet_but_never_loses_ipv6() -> None:
    """Another network may use the same bridge with IPv6."""
    made = planned(conf(), allocation(IPV4), with_bridge(mac=BRIDGE_MAC, up=True))
    assert on_bridge(made) == quiet("cni0")


def test_a_bridge_becomes_promiscuous_once() -> None:
    promiscuous = ops.SetLink(HOST, "cni0", up=True, promisc=True)
    assert on_bridge(planned(conf(promisc=True), DUAL, with_bridge(up=True))) == [PINNED, promiscuous]
    assert on_bridge(planned(conf(promisc=True), DUAL, with_bridge(up=True, promisc=True))) == [PINNED]


def test_a_bridge_of_ours_that_was_cut_off_does_not_go_on_listening() -> None:
    """A router that a container pretends to be must not get the node's default route."""
    made = planned(GATEWAY, DUAL, with_bridge(mac=BRIDGE_MAC))
    assert [op for op in made.ops if isinstance(op, SetSysctl) and op.key == "ipv6/conf/cni0/accept_ra"] == [
        ipv6("cni0/accept_ra", "0")
    ]


def test_an_administrators_bridge_goes_on_listening() -> None:
    made = planned(GATEWAY, DUAL, with_bridge(up=True))
    assert made.ops.index(ipv6("cni0/accept_ra", "2")) < made.ops.index(ipv6("all/forwarding", "1"))


# The gateway's addresses


def test_addresses_that_are_there_are_not_added() -> None:
    fake = with_bridge(up=True)
    fake.spaces[HOST].addresses["cni0"] = ["10.1.0.1/16", "2001:db8:1::1/64", "fe80::1234/64"]
    made = planned(GATEWAY, DUAL, fake)
    assert not [op for op in made.ops if isinstance(op, ops.AddAddress) and op.netns == HOST]


@pytest.mark.parametrize(
    ("held", "ours"),
    [
        ("10.1.0.9/16", "10.1.0.1/16"),
        ("192.0.2.1/24", "10.1.0.1/16"),
        ("2001:db8:1::9/64", "2001:db8:1::1/64"),
        ("2001:db8::1/32", "2001:db8:1::1/64"),
        ("2001:db8:1::1/80", "2001:db8:1::1/64"),
    ],
)
def test_an_address_that_contradicts_ours(held: str, ours: str) -> None:
    fake = with_bridge(up=True)
    fake.spaces[HOST].addresses["cni0"] = [held]
    with pytest.raises(CniError, match=f"bridge cni0 has address {held}, the network's gateway is {ours}") as caught:
        planned(GATEWAY, DUAL, fake)
    assert caught.value.code == NODE_CONFLICT
    assert "forceAddress" in caught.value.details
    made = planned(replace(GATEWAY, force_address=True), DUAL, fake)
    taken, added = ops.RemoveAddress(HOST, "cni0", held), ops.AddAddress(HOST, "cni0", ours)
    assert made.ops.index(taken) < made.ops.index(added)
    carried_out(made, fake)


@pytest.mark.parametrize("held", ["2001:db8:2::1/64", "fe80::9/64", "fe80::1/10"])
def test_an_ipv6_address_that_goes_with_ours(held: str) -> None:
    fake = with_bridge(up=True)
    fake.spaces[HOST].addresses["cni0"] = [held]
    made = planned(replace(GATEWAY, force_address=True), DUAL, fake)
    assert not [op for op in made.ops if isinstance(op, ops.RemoveAddress)]
    assert ops.AddAddress(HOST, "cni0", "2001:db8:1::1/64") in made.ops


@pytest.mark.parametrize("excluded", [0, 1])
@pytest.mark.parametrize("force", [False, True])
def test_the_gateways_of_a_sets_other_ranges_stay(force: bool, excluded: int) -> None:
    """The set spilt over, or its first range is excluded since: the containers of that have their gateway still."""
    written = range_set("10.0.0.0/24", "10.1.0.0/16").ranges
    sets = ipam_conf(RangeSet(written[excluded:], written))
    fake = with_bridge(up=True)
    fake.spaces[HOST].addresses["cni0"] = ["10.0.0.1/24"]
    made = planned(replace(GATEWAY, ipam=sets, force_address=force), allocation(IPV4), fake)
    assert [op for op in made.ops if isinstance(op, (ops.RemoveAddress, ops.AddAddress)) and op.netns == HOST] == [
        ops.AddAddress(HOST, "cni0", "10.1.0.1/16")
    ]


def test_two_addresses_with_one_gateway() -> None:
    other = Address("2001:db8:1::3/64", "2001:db8:1::1")
    made = planned(GATEWAY, allocation(IPV6, other))
    assert made.ops.count(ops.AddAddress(HOST, "cni0", "2001:db8:1::1/64")) == 1
    assert [route.dst for route in made.result.routes] == ["::/0"]


def test_an_address_without_a_gateway() -> None:
    made = planned(GATEWAY, allocation(Address("2001:db8:1::2/64")))
    assert made.result.routes == ()
    assert gateways.addresses(GATEWAY, [Address("2001:db8:1::2/64")]) == ()


def test_a_link_local_gateway() -> None:
    """fe80::1 is on the bridge, whatever the subnet; the subnet itself is routed to the bridge."""
    made = planned(GATEWAY, allocation(BEHIND_LINK_LOCAL))
    ipv6_only = planned(GATEWAY, allocation(IPV6)).ops
    assert changes(made, ipv6_only) == (
        [ops.AddAddress(HOST, "cni0", "2001:db8:1::1/64"), ops.AddRoute(NETNS, "eth0", "::/0", "2001:db8:1::1")],
        [
            ops.AddAddress(HOST, "cni0", "fe80::1/64"),
            ops.AddRoute(HOST, "cni0", "2001:db8:1::/64"),
            ops.AddRoute(NETNS, "eth0", "::/0", "fe80::1"),
        ],
    )
    assert made.result.ips == (replace(BEHIND_LINK_LOCAL, interface=2),)
    carried_out(made, kernel())


def test_gateways() -> None:
    assert gateways.addresses(GATEWAY, DUAL.ips) == ("2001:db8:1::1/64", "10.1.0.1/16")
    assert gateways.addresses(conf(), DUAL.ips) == ()
    assert gateways.addresses(GATEWAY, [BEHIND_LINK_LOCAL]) == ("fe80::1/64",)


# Routes


def test_routes_of_ipam_come_before_the_default_ones() -> None:
    routes = (Route("2001:db8:9::/48"), Route("192.0.2.0/24", "10.1.0.9", 1400, 1300, 50, 100, 0))
    made = planned(GATEWAY, allocation(IPV6, IPV4, routes=routes))
    assert [op for op in made.ops if isinstance(op, ops.AddRoute)] == [
        ops.AddRoute(NETNS, "eth0", "2001:db8:9::/48", "2001:db8:1::1"),
        ops.AddRoute(NETNS, "eth0", "192.0.2.0/24", "10.1.0.9", 1400, 1300, 50, 100, 0),
        ops.AddRoute(NETNS, "eth0", "::/0", "2001:db8:1::1"),
        ops.AddRoute(NETNS, "eth0", "0.0.0.0/0", "10.1.0.1"),
    ]
    assert made.result.routes[:2] == routes


def test_a_default_route_of_ipam_is_the_default_route() -> None:
    own, elsewhere = Route("::/0", "2001:db8:1::9"), Route("0.0.0.0/0", table=100)
    made = planned(GATEWAY, allocation(IPV6, IPV4, routes=(own, elsewhere)))
    assert made.result.routes == (own, elsewhere, Route("0.0.0.0/0", "10.1.0.1"))


@pytest.mark.parametrize(
    ("route", "gateway"),
    [
        (Route("2001:db8:9::/48"), "2001:db8:1::1"),
        (Route("192.0.2.0/24"), "10.1.0.1"),
        (Route("192.0.2.0/24", "10.1.0.9"), "10.1.0.9"),
        (Route("192.0.2.0/24", scope=0), "10.1.0.1"),
        (Route("192.0.2.0/24", scope=253), None),
        (Route("192.0.2.0/24", scope=254), None),
    ],
)
def test_next_hop(route: Route, gateway: str | None) -> None:
    assert container.next_hop(route, DUAL.ips) == gateway


def test_next_hop_on_a_network_without_a_gateway() -> None:
    assert container.next_hop(Route("2001:db8:9::/48"), (Address("2001:db8:1::2/64"), IPV4)) is None


# VLANs


def vlan_ops(made: Plan, port: str) -> list[Op]:
    kinds = ops.AddPortVlans | ops.RemovePortVlan
    return [op for op in made.ops if isinstance(op, kinds) and op.ifname == port]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"vlan": 5}, [ops.RemovePortVlan(PORT, 1), ops.AddPortVlans(PORT, 5, ())]),
        ({"vlan": 1}, [ops.AddPortVlans(PORT, 1, ())]),
        ({"vlan": 5, "preserve_default_vlan": True}, [ops.AddPortVlans(PORT, 5, ())]),
        ({"vlan_trunk": ((10, 20),)}, [ops.RemovePortVlan(PORT, 1), ops.AddPortVlans(PORT, 0, ((10, 20),))]),
        ({"vlan": 5, "vlan_trunk": ((10, 20),)}, [ops.RemovePortVlan(PORT, 1), ops.AddPortVlans(PORT, 5, ((10, 20),))]),
    ],
)
def test_vlans_of_the_port(changed: dict[str, Any], expected: list[Op]) -> None:
    made = planned(conf(**changed), allocation())
    assert vlan_ops(made, PORT) == expected
    filtering = [op.vlan_filtering for op in made.ops if isinstance(op, ops.EnsureBridge)]
    assert filtering == [bool(expected)]
    assert (ops.SetBridge("cni0", vlan_filtering=True) in made.ops) == bool(expected)
    assert not expected or made.ops.index(expected[-1]) < made.ops.index(INSIDE_UP)


@pytest.mark.parametrize(("passed", "told"), [((4, 6), False), ((4,), True), ((), True)])
def test_a_bridge_is_told_once_to_pass_its_frames_to_the_rules(passed: tuple[int, ...], told: bool) -> None:
    fake = with_bridge(up=True, netfilter=frozenset(passed))
    made = planned(conf(netfilter=True), allocation(), fake)
    assert (ops.SetBridge("cni0", netfilter=bridge_port.ALL_FRAMES) in made.ops) == told
    assert not any(isinstance(op, ops.SetBridge) for op in planned(conf(), allocation(), fake).ops)


@pytest.mark.parametrize(("default", "removed"), [(1, [1]), (7, [7]), (0, []), (5, [])])
def test_the_default_vlan_of_a_bridge_that_is_there(default: int, removed: list[int]) -> None:
    fake = with_bridge(up=True, vlan_filtering=True, default_vlan=default)
    made = planned(conf(vlan=5), allocation(), fake)
    assert [op.vlan for op in made.ops if isinstance(op, ops.RemovePortVlan)] == removed
    assert on_bridge(made) == [PINNED]


VLAN_OWNER = Owner("cni0", NODE, "cni0.5")
VLAN_PORT = names.host_interface(VLAN_OWNER)
VLAN_GATEWAY = replace(GATEWAY, vlan=5)


def vlan_gateway() -> list[Op]:
    """The node's own port in the VLAN, whole."""
    macs = names.host_mac(VLAN_OWNER), names.container_mac(VLAN_OWNER)
    return [
        ops.CreateVeth(VLAN_PORT, macs[0], "cni0", HOST, "cni0.5", macs[1], 1500, shared=True),
        *quiet("cni0.5"),
        ipv6("cni0.5/disable_ipv6", "0"),
        ops.RemovePortVlan(VLAN_PORT, 1),
        ops.AddPortVlans(VLAN_PORT, 5, ()),
        ipv6(f"{VLAN_PORT}/disable_ipv6", "1"),
        ops.SetLink(HOST, "cni0.5", up=True),
        awaits.AwaitPort(VLAN_PORT),
    ]


def of_vlan_gateway(made: Plan) -> list[Op]:
    steps = list(made.ops)
    begin = steps.index(UP) + 1 if UP in steps else 0
    return [op for op in steps[begin : steps.index(replace(PAIR, mac=MAC))] if not isinstance(op, ops.AddAddress)]


def test_the_gateway_in_a_vlan() -> None:
    made = planned(VLAN_GATEWAY, allocation(IPV6))
    forward = [ipv6("default/accept_ra", "2"), ipv6("all/forwarding", "1")]
    assert of_vlan_gateway(made) == [*vlan_gateway(), *forward]
    assert ops.AddAddress(HOST, "cni0.5", "2001:db8:1::1/64") in made.ops
    assert made.result.interfaces[3:] == (Interface("cni0.5", names.container_mac(VLAN_OWNER), mtu=1500),)
    fake = carried_out(made, kernel())
    assert fake.vlans[PORT] == fake.vlans[VLAN_PORT] == {5: True}


def test_the_gateway_in_a_vlan_is_there_already() -> None:
    fake = carried_out(planned(VLAN_GATEWAY, allocation(IPV6)), kernel())
    fake.remove([ops.DeleteLink(HOST, PORT)])
    made = planned(VLAN_GATEWAY, allocation(IPV6), fake)
    assert not [op for op in made.ops if isinstance(op, SetSysctl) and "/cni0.5/" in op.key]
    assert not [op for op in made.ops if isinstance(op, ops.CreateVeth) and op.shared]


@pytest.mark.parametrize("done", range(1, len(vlan_gateway())))
def test_the_gateway_in_a_vlan_was_cut_off(done: int) -> None:
    """Whatever was done of it, the next ADD completes it."""
    fake = kernel()
    first = planned(VLAN_GATEWAY, allocation(IPV6), fake)
    fake.apply(first.ops[: first.ops.index(vlan_gateway()[done])])
    made = planned(VLAN_GATEWAY, allocation(IPV6), fake)
    carried_out(made, fake)
    assert fake.vlans[VLAN_PORT] == {5: True}
    assert fake.spaces[HOST].links["cni0.5"].up
    assert fake.spaces[HOST].sysctls["ipv6/conf/cni0.5/accept_ra"] == "0"
    assert fake.spaces[HOST].addresses["cni0.5"] == ["2001:db8:1::1/64"]


def test_an_interface_in_the_vlan_that_is_not_ours_is_used_as_it_is() -> None:
    fake = kernel()
    fake.add_link(HOST, Link("cni0.5", PUBLIC_MAC, 1400, kind="vlan"))
    made = planned(VLAN_GATEWAY, allocation(IPV6), fake)
    keep = [ipv6("cni0.5/accept_ra", "2"), ipv6("default/accept_ra", "2")]
    assert of_vlan_gateway(made) == [*keep, ipv6("all/forwarding", "1")]
    assert made.result.interfaces[3:] == (Interface("cni0.5", PUBLIC_MAC, mtu=1400),)


def test_no_gateway_in_a_vlan_where_nobody_asks_for_it() -> None:
    for wanted, given in ((conf(vlan=5), DUAL), (VLAN_GATEWAY, allocation())):
        made = planned(wanted, given)
        assert [op.host for op in made.ops if isinstance(op, ops.CreateVeth)] == [PORT]
        assert len(made.result.interfaces) == 3


# Who may be on the segment

GUARDED = FirewallConf(ingress=OPEN)
FREE = FirewallConf(ingress=OPEN, guard=False)


@pytest.mark.parametrize(
    ("keys", "mac", "there", "wanted"),
    [
        pytest.param({"firewall": GUARDED}, BRIDGE_MAC, 0, CLOSED_SEGMENT, id="known"),
        pytest.param({"firewall": GUARDED}, BRIDGE_MAC, CLOSED_SEGMENT, None, id="known already"),
        pytest.param({"firewall": GUARDED}, BRIDGE_MAC, SHARED_SEGMENT, None, id="others are there"),
        pytest.param({"firewall": GUARDED}, BRIDGE_MAC, 7, None, id="a group of an administrator's"),
        pytest.param({"firewall": GUARDED}, PUBLIC_MAC, 0, None, id="a bridge of an administrator's"),
        pytest.param({"firewall": FREE}, BRIDGE_MAC, 0, SHARED_SEGMENT, id="free"),
        pytest.param({"firewall": FREE}, BRIDGE_MAC, CLOSED_SEGMENT, SHARED_SEGMENT, id="free beside known"),
        pytest.param({"firewall": GUARDED, "vlan_trunk": ((2, 9),)}, BRIDGE_MAC, 0, SHARED_SEGMENT, id="trunk"),
        pytest.param({"is_gateway": False}, BRIDGE_MAC, 0, None, id="no gateway"),
        pytest.param({"ipam": None}, BRIDGE_MAC, 0, None, id="no addresses"),
        pytest.param({"is_gateway": False}, BRIDGE_MAC, CLOSED_SEGMENT, SHARED_SEGMENT, id="no gateway beside known"),
        pytest.param({"is_gateway": False, "vlan": 5}, BRIDGE_MAC, CLOSED_SEGMENT, None, id="in another VLAN"),
    ],
)
def test_who_may_be_on_the_segment(keys: dict[str, Any], mac: str, there: int, wanted: int | None) -> None:
    made = planned(replace(GATEWAY, **{"ipam": ipam_conf(), **keys}), DUAL, with_bridge(mac=mac, up=True, group=there))
    assert [op.group for op in made.ops if isinstance(op, ops.SetLink) and op.netns == HOST] == (
        [wanted] if wanted is not None else []
    )


def test_who_may_be_on_a_segment_in_a_vlan() -> None:
    guarded, fake = replace(VLAN_GATEWAY, ipam=ipam_conf(), firewall=GUARDED), kernel()
    for wanted, group in ((guarded, CLOSED_SEGMENT), (replace(guarded, firewall=FREE), SHARED_SEGMENT)):
        carried_out(planned(wanted, allocation(IPV6), fake), fake)
        links = fake.spaces[HOST].links
        assert (links["cni0.5"].group, links["cni0"].group) == (group, 0)
        fake.apply([ops.DeleteLink(HOST, PORT)])


# IPv6 off


def without_ipv6() -> FakeKernel:
    """A kernel that was booted with ipv6.disable=1."""
    fake = kernel()
    for space in fake.spaces.values():
        for key in [key for key in space.sysctls if key.startswith("ipv6/")]:
            del space.sysctls[key]
    return fake


def test_a_kernel_without_ipv6_does_ipv4() -> None:
    made = planned(GATEWAY, allocation(IPV4), without_ipv6())
    assert not [op for op in made.ops if isinstance(op, SetSysctl) and op.key.startswith("ipv6/")]
    vlan = planned(VLAN_GATEWAY, allocation(IPV4), without_ipv6())
    assert not [op for op in vlan.ops if isinstance(op, SetSysctl) and op.key.startswith("ipv6/")]


def test_a_kernel_without_ipv6_refuses_ipv6() -> None:
    with pytest.raises(CniError, match="the kernel has no IPv6") as caught:
        planned(GATEWAY, DUAL, without_ipv6())
    assert caught.value.code == IPV6_DISABLED


def test_a_node_with_ipv6_off() -> None:
    fake = kernel()
    fake.spaces[HOST].sysctls["ipv6/conf/all/disable_ipv6"] = "1"
    with pytest.raises(CniError, match="IPv6 is off on this node") as caught:
        planned(GATEWAY, DUAL, fake)
    assert caught.value.code == IPV6_DISABLED
    assert "sysctl -w" in caught.value.details
    assert planned(conf(), DUAL, fake).result.ips  # nothing of it passes through the node


@pytest.mark.parametrize(
    ("present", "waits"),
    [({}, True), ({"running": True}, False), ({"stp": True}, False)],
    ids=["without ports", "with ports", "STP: its ports forward much later"],
)
def test_the_first_container_waits_for_its_gateway(present: dict[str, Any], waits: bool) -> None:
    """Until the bridge has carrier the node sends nothing through it."""
    fake = kernel()
    fake.add_link(HOST, Link("cni0", BRIDGE_MAC, 1500, kind="bridge", up=True, **present))
    assert (GATEWAY_UP in planned(GATEWAY, DUAL, fake).ops) == waits


def test_a_container_with_ipv6_off_gets_it_back() -> None:
    """Docker and podman start containers with net.ipv6.conf.all.disable_ipv6=1 when they know of no IPv6."""
    fake = kernel()
    for name in ("all", "default", "lo"):
        fake.spaces[NETNS].sysctls[f"ipv6/conf/{name}/disable_ipv6"] = "1"
    made = planned(GATEWAY, DUAL, fake)
    lifted = SetSysctl(NETNS, "ipv6/conf/lo/disable_ipv6", "0", was="1")
    assert changes(made, dual_stack()) == ([], [lifted])
    carried_out(made, fake)
    assert fake.spaces[NETNS].addresses["eth0"] == ["2001:db8:1::2/64", "10.1.0.2/16"]


# What cannot be attached


@pytest.mark.parametrize(
    ("netns", "link", "code", "words"),
    [
        (HOST, Link("cni0", "", 1500, kind="vlan"), NODE_CONFLICT, "is no bridge but a vlan interface"),
        (HOST, Link("cni0", "", 1500), NODE_CONFLICT, "is no bridge but a network interface"),
        (HOST, Link(PORT, "", 1500), ALREADY_ATTACHED, "container c1 is attached to pods"),
        (NETNS, Link("eth0", "", 1500), ALREADY_ATTACHED, "interface eth0 exists"),
    ],
    ids=["another kind of interface", "hardware", "attached", "name taken"],
)
def test_refused(netns: str, link: Link, code: int, words: str) -> None:
    fake = kernel()
    fake.add_link(netns, link)
    with pytest.raises(CniError, match=words) as caught:
        plan_bridge.check_free(SITE, GATEWAY, look(fake, GATEWAY))
    assert caught.value.code == code
    assert caught.value.details


def test_free() -> None:
    plan_bridge.check_free(SITE, GATEWAY, look(with_bridge(up=True), GATEWAY))


def test_the_result_has_the_routes_that_the_container_has() -> None:
    """One that the kernel has with another metric, one that it has not, one as it was planned."""
    routes = Route("::/0", "fd00::1"), Route("fd01::/64", "fd00::1"), Route("10.0.0.0/8", None)
    planned_ops = tuple(ops.AddRoute("/ns", "eth0", route.dst, route.gw) for route in routes)
    log = Log()
    result = Plan((), Result(routes=routes), planned_ops).answer(
        {planned_ops[0]: replace(planned_ops[0], priority=1025), planned_ops[1]: None}, log)
    assert result.routes == (replace(routes[0], priority=1025), routes[2])
    assert "::/0 via fd00::1 has metric 1025" in log.lines[0] and "fd01::/64 via fd00::1 is left out" in log.lines[1]
