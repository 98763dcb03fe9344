"""The firewall's keys as values, and what is made of them for one attachment."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from cni_v6.config.bridge import parse_bridge
from cni_v6.config.firewall import AUTO, MODE_OFF, ON, FirewallConf
from cni_v6.config.prefix_lists import MOST, TooMany, common, disjoint, limited, outermost
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.firewall import policy as policies
from cni_v6.firewall.policy import (
    GUARD_FULL,
    GUARD_LINK,
    GUARD_MAC,
    GUARD_OFF,
    ISOLATED,
    OPEN,
    PUBLISHED,
    Allowed,
    Policy,
    Port,
)
from cni_v6.plan.firewall import link_local, policy
from tests.unit.config_tables import V4, V6, call, config, with_ranges

MAC = "02:00:5e:10:00:01"
LINK_LOCAL = "fe80::5eff:fe10:1"
ULA, GLOBAL, PRIVATE, PUBLIC = "fd42:1:2:3::5", "2001:db8:1::5", "10.1.0.5", "192.0.2.5"
INSIDE, OUTSIDE = "fd42:1:2:3::/64", "2001:db8:1:2::/64"
NOTHING = FirewallConf(ingress=OPEN, guard=False)


def conf(**keys: Any) -> FirewallConf:
    """Of a dual-stack network."""
    return parse_bridge(call(with_ranges([V6], [V4], **keys))).firewall


def published(*ports: dict[str, Any]) -> tuple[Port, ...]:
    return conf(runtimeConfig={"portMappings": list(ports)}).ports


def chosen(one: FirewallConf, *addresses: str, known: bool = True, trunk: bool = False) -> Policy:
    return policy(one, home="cni0", port="veth0", mac=MAC, addresses=addresses, address_known=known, trunk=trunk)


# Keys


def test_defaults() -> None:
    assert conf() == FirewallConf(
        masquerade4="off", masquerade6="off", keep=(), snat4="", snat6="", nptv6=None, ingress="published", guard=True,
        macspoofchk=False, egress=None, ports=(),
    )


@pytest.mark.parametrize(("keys", "modes"), [
    ({}, (MODE_OFF, MODE_OFF)),
    ({"ipMasq": False}, (MODE_OFF, MODE_OFF)),
    ({"ipMasq": True, "ipMasqBackend": "nftables"}, (ON, ON)),
    ({"masquerade": {}}, (AUTO, AUTO)),
    ({"masquerade": {"ipv4": "on"}}, (ON, AUTO)),
    ({"masquerade": {"ipv4": "", "ipv6": "off"}, "ipMasq": False}, (AUTO, MODE_OFF)),
])
def test_masquerade(keys: dict[str, Any], modes: tuple[str, str]) -> None:
    made = conf(**keys)
    assert (made.masquerade4, made.masquerade6) == modes


def test_fixed_sources() -> None:
    made = conf(ipMasq=True, snat={"ipv4": "192.0.2.7", "ipv6": "2001:DB8:0::7"})
    assert (made.snat4, made.snat6) == ("192.0.2.7", "2001:db8::7")
    assert conf(masquerade={"ipv6": "off"}, snat={"ipv4": "192.0.2.7", "ipv6": ""}).snat4 == "192.0.2.7"


def test_a_prefix_that_is_kept_is_not_kept_twice() -> None:
    assert conf(nonMasquerade=["10.1.0.0/16", "fd00::/8", "10.0.0.0/8", "fd00::/8"]).keep == ("10.0.0.0/8", "fd00::/8")


def test_prefix_translation() -> None:
    assert conf(nptv6={"internal": "FD42:1:2:3::/64", "external": OUTSIDE}).nptv6 == (INSIDE, OUTSIDE)
    both = {"internal": "fd42:1:2::/48", "external": "2001:db8:1::/48"}
    assert conf(nptv6=both, ipMasq=False, masquerade={}).nptv6 == ("fd42:1:2::/48", "2001:db8:1::/48")


def test_a_part_of_a_subnet_with_all_that_is_handed_out_of_it_is_translated() -> None:
    narrow = {"subnet": INSIDE, "rangeStart": "fd42:1:2:3:0:1::5", "rangeEnd": "fd42:1:2:3:0:1::9"}
    nptv6 = {"internal": "fd42:1:2:3:0:1::/96", "external": "2001:db8::/96"}
    raw = with_ranges([narrow], [{"subnet": "2001:db8:9::/64"}], nptv6=nptv6)
    assert parse_bridge(call(raw)).firewall.nptv6 == ("fd42:1:2:3:0:1::/96", "2001:db8::/96")


def test_of_another_plugins_ranges_nothing_is_known() -> None:
    raw = config(
        ipam={"type": "dhcp"}, ipMasq=False, nptv6={"internal": INSIDE, "external": OUTSIDE}, ingress="isolated",
        runtimeConfig={"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "192.0.2.7"}]},
    )
    made = parse_bridge(call(raw)).firewall
    assert (made.nptv6, made.ingress, len(made.ports)) == ((INSIDE, OUTSIDE), ISOLATED, 1)


def test_who_speaks_and_who_is_reached() -> None:
    made = conf(ingress="isolated", guard=False, macspoofchk=True)
    assert (made.ingress, made.guard, made.macspoofchk) == (ISOLATED, False, True)


def test_layer_2_has_no_addresses_to_close() -> None:
    assert parse_bridge(call(config())).firewall == FirewallConf(ingress=OPEN)
    assert parse_bridge(call(config(ingress="open", guard=False, snat={}, nonMasquerade=[]))).firewall == NOTHING


def test_ports_as_runtimes_write_them() -> None:
    assert published(
        {"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": ""},
        {"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "2001:DB8::7", "name": "x"},
        {"hostPort": 8080, "containerPort": 81, "hostIP": "192.0.2.7"},
        {"hostPort": 9, "containerPort": 9, "protocol": "SCTP", "hostIP": "::"},
        {"hostPort": 9, "containerPort": 9, "protocol": "sctp", "hostIP": "0.0.0.0"},
        {"hostPort": 1, "containerPort": 65535, "protocol": "", "hostIP": "127.0.0.1"},
    ) == (
        Port("tcp", 8080, 80), Port("udp", 8080, 80, "2001:db8::7"), Port("tcp", 8080, 81, "192.0.2.7"),
        Port("sctp", 9, 9, "::"), Port("sctp", 9, 9, "0.0.0.0"), Port("tcp", 1, 65535, "127.0.0.1"),
    )


@pytest.mark.parametrize(("hosts", "once"), [
    (("", ""), ("",)), (("", "::"), ("",)), (("0.0.0.0", ""), ("",)), (("::", "::"), ("::",)),
    (("0.0.0.0", "::", "", "192.0.2.7"), ("", "192.0.2.7")), (("192.0.2.7", "192.0.2.7"), ("192.0.2.7",)),
])
def test_a_port_that_is_written_twice_is_one(hosts: tuple[str, ...], once: tuple[str, ...]) -> None:
    written = ({"hostPort": 80, "containerPort": 8080, "hostIP": address} for address in hosts)
    assert published(*written) == tuple(Port("tcp", 80, 8080, address) for address in once)


def test_egress() -> None:
    made = conf(egress=[
        {"to": "2001:DB8::/32", "ports": ["udp/5000-5010", "tcp/443", "sctp"]}, {"to": "10.9.0.0/16", "ports": None},
    ])
    assert made.egress == (
        Allowed("10.9.0.0/16"), Allowed("2001:db8::/32", "sctp"), Allowed("2001:db8::/32", "tcp", (443, 443)),
        Allowed("2001:db8::/32", "udp", (5000, 5010)),
    )
    assert conf(egress=[]).egress == ()


def test_a_workload_takes_away_from_what_the_configuration_allows_and_adds_nothing() -> None:
    theirs = {"cni": {"egress": [{"to": "10.9.1.0/24"}, {"to": "::/0", "ports": ["tcp/400-500"]}]}}
    assert conf(args=theirs).egress == (Allowed("10.9.1.0/24"), Allowed("::/0", "tcp", (400, 500)))
    ours = [{"to": "10.9.0.0/16", "ports": ["tcp/443"]}, {"to": "2001:db8::/32", "ports": ["tcp/443", "udp"]}]
    assert conf(egress=ours, args=theirs).egress == (
        Allowed("10.9.1.0/24", "tcp", (443, 443)), Allowed("2001:db8::/32", "tcp", (443, 443)),
    )
    assert conf(egress=[], args=theirs).egress == () == conf(egress=ours, args={"cni": {"egress": []}}).egress


@pytest.mark.parametrize("change", [
    {"guard": True}, {"macspoofchk": True}, {"ingress": PUBLISHED}, {"masquerade4": ON}, {"masquerade6": AUTO},
    {"egress": ()}, {"ports": (Port("tcp", 1, 1),)}, {"nptv6": (INSIDE, OUTSIDE)},
])
def test_what_needs_the_firewall(change: dict[str, Any]) -> None:
    assert replace(NOTHING, **change).wanted


def test_what_does_not() -> None:
    assert not NOTHING.wanted and not replace(NOTHING, keep=("10.0.0.0/8",)).wanted
    assert not conf(ingress="open", guard=False).wanted


# An attachment


def test_all_that_is_told_of_an_attachment() -> None:
    one = FirewallConf(egress=(Allowed("::/0"),), ports=(Port("tcp", 80, 80, "192.0.2.7"), Port("udp", 53, 53)))
    assert chosen(one, ULA, PRIVATE) == Policy(
        home="cni0", port="veth0", mac=MAC, addresses=(ULA, PRIVATE), link_local=LINK_LOCAL, guard=GUARD_FULL,
        ingress=PUBLISHED, masquerade=(), snat=(), keep=(), inbound=(), ports=one.ports, egress=one.egress,
    )


@pytest.mark.parametrize(("modes", "hidden"), [
    ((ON, ON), (ULA, GLOBAL, PRIVATE, PUBLIC)), ((MODE_OFF, ON), (ULA, GLOBAL)), ((ON, MODE_OFF), (PRIVATE, PUBLIC)),
    ((AUTO, AUTO), (ULA, PRIVATE)), ((AUTO, MODE_OFF), (PRIVATE,)), ((MODE_OFF, MODE_OFF), ()),
])
def test_who_is_hidden(modes: tuple[str, str], hidden: tuple[str, ...]) -> None:
    one = FirewallConf(masquerade4=modes[0], masquerade6=modes[1])
    assert chosen(one, ULA, GLOBAL, PRIVATE, PUBLIC).masquerade == hidden


@pytest.mark.parametrize(("address", "private"), [
    ("10.255.255.255", True), ("11.0.0.0", False), ("172.15.255.255", False), ("172.16.0.1", True),
    ("172.31.255.255", True), ("172.32.0.0", False), ("192.168.255.1", True), ("192.169.0.1", False),
    ("100.63.255.255", False), ("100.64.0.1", True), ("100.127.255.255", True), ("100.128.0.0", False),
    ("fbff::1", False), ("fc00::1", True), ("fdff::1", True), ("fe00::1", False), ("64:ff9b::a01:5", False),
])
def test_what_auto_takes_for_private(address: str, private: bool) -> None:
    assert chosen(FirewallConf(masquerade4=AUTO, masquerade6=AUTO), address).masquerade == (address,) * private


def test_a_fixed_source_is_for_what_would_be_masqueraded() -> None:
    one = FirewallConf(masquerade4=AUTO, masquerade6=ON, snat4="192.0.2.7", keep=("10.0.0.0/8", "fd00::/8"))
    made = chosen(one, ULA, PRIVATE, PUBLIC)
    assert (made.masquerade, made.snat) == ((ULA,), ((PRIVATE, "192.0.2.7"),))
    assert made.keep == one.keep
    assert chosen(replace(one, snat6="2001:db8::7"), ULA).snat == ((ULA, "2001:db8::7"),)


def test_destinations_are_kept_of_families_that_are_translated() -> None:
    one = FirewallConf(masquerade4=ON, masquerade6=AUTO, keep=("10.0.0.0/8", "fd00::/8"))
    assert chosen(one, GLOBAL, PUBLIC).keep == ("10.0.0.0/8",)
    assert chosen(one, GLOBAL).keep == ()
    translated = FirewallConf(nptv6=(INSIDE, OUTSIDE), keep=("10.0.0.0/8", "fd00::/8"))
    assert chosen(translated, ULA, PRIVATE).keep == ("fd00::/8",)


def test_prefix_translation_goes_before_masquerade() -> None:
    one = FirewallConf(nptv6=(INSIDE, OUTSIDE), masquerade4=AUTO, masquerade6=AUTO)
    made = chosen(one, ULA, "fd99::5", PRIVATE, GLOBAL)
    assert made.snat == ((ULA, "2001:db8:1:2::5"),)
    assert made.inbound == (("2001:db8:1:2::5", ULA),)
    assert made.masquerade == ("fd99::5", PRIVATE)


@given(length=st.integers(1, 127), bits=st.integers(0, 2**128 - 1))
def test_the_bits_below_the_prefix_stay(length: int, bits: int) -> None:
    inside = IPv6Network((0xFD << 120, length), strict=False)
    outside = IPv6Network((0x2 << 124, length), strict=False)
    address = inside[bits % inside.num_addresses]
    one = FirewallConf(nptv6=(str(inside), str(outside)))
    ((own, seen),) = chosen(one, str(address)).snat
    assert own == str(address)
    assert IPv6Address(seen) == outside[int(address) - int(inside[0])]


@pytest.mark.parametrize(("changes", "known", "trunk", "addresses", "guard"), [
    ({}, True, False, (ULA,), GUARD_FULL),
    ({"macspoofchk": True}, True, False, (PRIVATE,), GUARD_FULL),
    ({}, True, True, (ULA,), GUARD_LINK),
    ({}, False, False, (), GUARD_LINK),
    ({}, True, False, (), GUARD_LINK),
    ({"guard": False, "macspoofchk": True}, True, False, (ULA,), GUARD_MAC),
    ({"guard": False}, True, False, (ULA,), GUARD_OFF),
])
def test_how_much_is_guarded(
    changes: dict[str, Any], known: bool, trunk: bool, addresses: tuple[str, ...], guard: str,
) -> None:
    assert chosen(replace(FirewallConf(), **changes), *addresses, known=known, trunk=trunk).guard == guard


@pytest.mark.parametrize(("mac", "expected"), [
    (MAC, LINK_LOCAL), ("00:00:00:00:00:01", "fe80::200:ff:fe00:1"), ("fe:ff:ff:ff:ff:ff", "fe80::fcff:ffff:feff:ffff"),
    ("34:56:78:9a:bc:de", "fe80::3656:78ff:fe9a:bcde"),
])
def test_the_address_of_the_link_is_the_kernels(mac: str, expected: str) -> None:
    assert link_local(mac) == expected


def test_without_ipv6_there_is_none() -> None:
    assert chosen(FirewallConf(), PRIVATE).link_local == "" == chosen(FirewallConf()).link_local


@pytest.mark.parametrize(("port", "addresses", "lacks"), [
    (Port("tcp", 80, 80, "192.0.2.7"), (ULA,), "at 192.0.2.7 cannot be published: the container has no IPv4 address"),
    (Port("udp", 53, 53, "::1"), (PRIVATE,), "the container has no IPv6 address"),
    (Port("tcp", 80, 80, "::"), (PRIVATE,), "the container has no IPv6 address"),
    (Port("tcp", 80, 80), (), "tcp port 80 cannot be published: the container has no address"),
])
def test_a_port_for_a_family_the_container_lacks(port: Port, addresses: tuple[str, ...], lacks: str) -> None:
    with pytest.raises(CniError) as caught:
        chosen(FirewallConf(ports=(port, Port("tcp", 1, 1))), *addresses)
    assert caught.value.code == INVALID_CONFIG and caught.value.details
    assert f"runtimeConfig.portMappings[0]: {port.protocol} port" in caught.value.msg and lacks in caught.value.msg


def test_a_port_of_no_family_in_particular_is_published_for_those_there_are() -> None:
    assert chosen(FirewallConf(ports=(Port("tcp", 80, 80),)), ULA).ports == (Port("tcp", 80, 80),)


# Lists without overlap


def test_the_largest_prefixes_stand_for_those_within() -> None:
    assert outermost(["10.1.2.0/24", "fd00::/8", "10.1.0.0/16", "10.0.0.0/15", "fd42::/64", "10.2.0.0/16"]) == (
        "10.0.0.0/15", "10.2.0.0/16", "fd00::/8",
    )
    assert outermost([]) == ()


@pytest.mark.parametrize(("given", "expected"), [
    ([Allowed("10.0.0.0/8"), Allowed("10.1.0.0/16", "tcp"), Allowed("10.2.0.0/16")], [Allowed("10.0.0.0/8")]),
    ([Allowed("10.0.0.0/8", "tcp", (100, 200)), Allowed("10.1.0.0/16", "tcp", (150, 250))],
     [Allowed("10.0.0.0/8", "tcp", (100, 200)), Allowed("10.1.0.0/16", "tcp", (201, 250))]),
    ([Allowed("10.0.0.0/8", "tcp", (100, 200)), Allowed("10.1.0.0/16", "tcp", (50, 250))],
     [Allowed("10.0.0.0/8", "tcp", (100, 200)), Allowed("10.1.0.0/16", "tcp", (50, 99)),
      Allowed("10.1.0.0/16", "tcp", (201, 250))]),
    ([Allowed("10.0.0.0/8", "tcp"), Allowed("10.0.0.0/8", "tcp", (1, 1)), Allowed("10.0.0.0/8", "udp", (1, 1))],
     [Allowed("10.0.0.0/8", "tcp"), Allowed("10.0.0.0/8", "udp", (1, 1))]),
    ([Allowed("10.0.0.0/6", "tcp", (1, 1)), Allowed("8.0.0.0/8")],
     [Allowed("8.0.0.0/8"), Allowed("9.0.0.0/8", "tcp", (1, 1)), Allowed("10.0.0.0/7", "tcp", (1, 1))]),
])
def test_without_overlap(given: list[Allowed], expected: list[Allowed]) -> None:
    given = [replace(each, to=str(ip_network(each.to, strict=False))) for each in given]
    assert list(disjoint(given)) == expected
    assert disjoint(reversed(given)) == disjoint(given)


ALLOWED = st.builds(
    lambda family, start, length, protocol, ports: Allowed(
        str(ip_network((start << 27 if family == 4 else start << 123, length), strict=False)), protocol,
        (min(ports), max(ports)) if protocol else (0, 65535),
    ),
    st.sampled_from([4, 6]), st.integers(0, 31), st.integers(0, 5), st.sampled_from(["", "tcp", "udp"]),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
PACKETS = [
    (ip_address("::" if bits == 123 and not start else start << bits), protocol, port)
    for bits in (27, 123) for start in range(32) for protocol in ("tcp", "udp", "icmp") for port in range(1, 7)
]


def hits(allowed: tuple[Allowed, ...]) -> list[int]:
    """How many entries let each packet through."""
    entries = [(ip_network(each.to), each) for each in allowed]
    return [
        sum(
            each.protocol in ("", protocol) and each.ports[0] <= port <= each.ports[1] and address in net
            for net, each in entries
        )
        for address, protocol, port in PACKETS
    ]


@settings(max_examples=50)
@given(given=st.lists(ALLOWED, max_size=5), other=st.lists(ALLOWED, max_size=3))
def test_the_same_packets_pass_by_one_entry_each(given: list[Allowed], other: list[Allowed]) -> None:
    one, two = disjoint(given), disjoint(other)
    assert hits(one) == [min(count, 1) for count in hits(tuple(given))]
    assert hits(common(one, two)) == [a * b for a, b in zip(hits(one), hits(two))]


def test_there_is_a_bound() -> None:
    assert len(limited(range(MOST))) == MOST
    with pytest.raises(TooMany, match=str(MOST)):
        limited(range(MOST + 1))


def test_the_words_of_a_configuration_are_the_policys() -> None:
    assert {policies.OPEN, policies.PUBLISHED, policies.ISOLATED} == {"open", "published", "isolated"}
